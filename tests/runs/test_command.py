"""The command line: help, and bad input in words."""

import subprocess
import sys
import time

import pytest

from tests.commands import inside, one_line, process


@pytest.mark.parametrize(("command", "arguments", "message"), [
    ("train", ["experiment=nyu_synth", "data.root=nowhere"], "prepare data=nyu"),
    ("train", ["experiment=nothing"], "nothing"),
    ("train", ["optics.sigma_scal=1"], "sigma_scal"),
    ("train", ["optics.sigma_scale=-1"], "optics.sigma_scale"),
    ("train", ["optics.weighting=both"], "optics.weighting"),
    ("train", ["data.focus_distances_m=[0.01,1]"], "focal length"),
    ("train", ["data.focus_distances_m=[1.0]"], "two or more focus distances"),
    ("train", ["data.batch_size=0"], "data.batch_size"),
    ("train", ["trainer.max_steps=many"], "max_steps"),
    ("train", ["ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
    ("train", ["trainer.max_steps=-1"], "trainer.max_time"),
    ("predict", ["stack=5"], "stack=5: no such folder"),
    ("train", ["="], ""), ("train", ["network.head=1"], "head"),
    ("evaluate", ["checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
    ("evaluate", ["data.split=some"], "data.split"), ("evaluate", ["device=abacus"], "device"),
    ("predict", [], "stack=DIR"), ("predict", ["stack=nowhere"], "no such folder"),
    ("predict", ["stac=nowhere"], "stac"), ("predict", ["stack=example", "refine.seconds=-1"], "refine.seconds"),
    
    ("predict", ["stack=example", "refine.stepz=1"], "stepz"),
    ("predict", ["stack=example", "holdout=[5]"], "holdout"), ("predict", ["stack=example", "holdout=[1,1]"], "twice"),
    ("predict", ["stack=example", "holdout=[0,1,2,3]"], "at least two"),
    ("predict", ["stack=example", "holdout=some"], "holdout"), ("predict", ["stack=example", "holdout=[1.5]"], "holdout"),
    ("evaluate", ["data.train_length=1", "data.test_length=1", "holdout=[9]"], "holdout"),
    ("evaluate", ["data.slices=3", "holdout=[1]"], "data.slices"),
    ("predict", ["stack=example", "align.mode=maybe"], "align.mode"),
    ("predict", ["stack=example", "align.model=magic"], "align.model"),
    ("predict", ["stack=example", "working_px=-5"], "working_px"),
    ("predict", ["stack=example", "optics.sigma_scale=0"], "sigma_scale"),
    ("predict", ["stack=example", "checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
    ("predict", ["stack=example", "threads=-1"], "threads"),
    ("diagnose", ["stack=nowhere"], "no such folder"), ("diagnose", ["experiment=nothing"], "nothing"),
    ("diagnose", ["data=rgbd", "data.near_m=20"], "near_m"),
    ("export", [], "checkpoint=PATH"), ("export", ["checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
    ("export", ["checkpoint=nowhere.ckpt", "format=tflite"], "format"),
])  # fmt: skip
def test_bad_input_ends_with_one_line_and_exit_code_2(command, arguments, message, tmp_path):
    assert message in one_line(inside(command, *arguments, cwd=tmp_path, expect=2).stderr)
    assert not list(tmp_path.rglob("metrics.json")) and not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(("command", "arguments", "message"), [
    ("evaluate", ["checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
    # of a wrong type, which the tests' type checker would find first in this process
    ("train", ["optics.sigma_scale=wide"], "optics.sigma_scale"),
    ("predict", ["stack=example", "refine.steps=0.5"], "refine.steps"),
    ("predict", ["stack=example", "refine.seconds=long"], "refine.seconds"),
    ("predict", ["stack=example", "working_px=many"], "working_px"),
])  # fmt: skip
@pytest.mark.slow
def test_a_real_process_does_the_same(command, arguments, message, tmp_path):
    assert message in one_line(process(command, *arguments, cwd=tmp_path, expect=2).stderr)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "compare", "prepare", "diagnose", "export"])
def test_help_answers_at_once_in_the_users_words(command, tmp_path):
    started = time.monotonic()
    done = process(command, "--help", cwd=tmp_path)
    assert time.monotonic() - started < 10  # the promise is 3 s on a quiet machine
    assert f"python -m sfdfd.{command}" in done.stdout
    heavy = "import sys, sfdfd." + command + "; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy], cwd=tmp_path, check=False).returncode == 0
