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
    ("train", ["resume=nowhere.ckpt"], "nowhere.ckpt"),
    ("train", ["trainer.max_steps=-1"], "trainer.max_time"),
    ("train", ["ckpt_path=last"], "ckpt_path: it is called resume now"),
    ("train", ["+weights_path=pretrained"], "weights_path: it is called checkpoint now"),
    ("train", ["data=nyu_dered"], "data=nyu_dered: it is called data=nyu now"),
    ("train", ["data=recorded", "data.align=false"], "data.align: expected a mapping, got False"),
    ("train", ["data=recorded", "data.exposure=false"], "data.exposure: it is called data.align.exposure now"),
    ("train", ["data=rgbd"], "data.camera.focal_length_m: it has no default; give data.camera.focal_length_m=VALUE"),
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
    ("predict", ["stack=example", "threads=-1"], "threads"), ("predict", ["stack=example", "device=nan"], "device=nan"),
    ("predict", ["stack=example", "device=[0]"], "device=[0]"),
    ("diagnose", ["stack=nowhere"], "no such folder"), ("diagnose", ["experiment=nothing"], "nothing"),
    ("diagnose", ["data=nyu", "data.near_m=20"], "near_m"),
    ("export", [], "checkpoint=PATH"), ("export", ["checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
    ("export", ["checkpoint=nowhere.ckpt", "format=tflite"], "format"),
    ("train", ["data.height=tall"], "data.height: expected a whole number, got 'tall'"),
    ("train", ["data.seed=-1"], "data.seed"),
    ("train", ["callbacks.pictures.samples=x"], "callbacks.pictures.samples: expected a whole number"),
    ("train", ["trainer.log_every_n_steps=x"], "trainer.log_every_n_steps: expected a whole number"),
    ("train", ["logger.csv=0.5"], "logger.csv: expected a mapping with _target_, got 0.5"),
    ("train", ["~logger.csv._target_"], "logger.csv: has no _target_"),
    ("train", ["data.camera._target_=x"], "data.camera._target_: there is no class or function 'x'"),
    ("train", ["optimizer._partial_=1"], "optimizer._partial_: expected true or false"),
    ("train", ["optics=null"], "not a command line that can be read"),
    ("train", ["seed=x"], "seed: expected a whole number"),
    ("predict", ["stack=example", "camera=[]"], "override camera=[]: Cannot merge DictConfig with ListConfig"),
    ("predict", ["stack=example", "refine=1"], "refine: expected a mapping with seconds"),
    ("predict", ["stack=example", "~align"], "align: it is needed"),
    ("predict", ["stack=example", "optics.renderer=0"], "optics.renderer: expected a mapping"),
    ("predict", ["stack=example", "optics.renderer._target_=[x]"], "no renderer of sfdfd"),
    ("distil", ["weights.aif=x"], "weights.aif"),
    ("compare", [], "give the folders"), ("compare", ["x" * 300], "File name too long"),
    ("compare", ["nowhere"], "nowhere: no such folder"), ("compare", ["."], "no run below"),
])  # fmt: skip
def test_bad_input_ends_with_one_line_and_exit_code_2(command, arguments, message, tmp_path):
    assert message in one_line(inside(command, *arguments, cwd=tmp_path, expect=2).stderr)
    assert not list(tmp_path.rglob("metrics.json")) and not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("flag", ["--nonsense", "-x", "--cfg"])
def test_an_unknown_flag_ends_with_our_line(flag, tmp_path):
    line = inside("export", flag, cwd=tmp_path, expect=2).stderr.splitlines()[-1]
    assert line == "sfdfd: not a flag that is known; python -m sfdfd.export --help has the keys"


@pytest.mark.parametrize(("command", "arguments", "message"), [
    ("evaluate", ["checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
    # of a wrong type, which the tests' type checker would find first in this process
    ("train", ["optics.sigma_scale=wide"], "optics.sigma_scale"),
    ("predict", ["stack=example", "refine.steps=0.5"], "refine.steps"),
    ("predict", ["stack=example", "refine.seconds=long"], "refine.seconds"),
    ("predict", ["stack=example", "working_px=many"], "working_px"),
    ("predict", ["stack=example", "refine.fit=1"], "refine.fit"),
    ("predict", ["stack=example", "optics.renderer.psf=0"], "optics.psf"),
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
