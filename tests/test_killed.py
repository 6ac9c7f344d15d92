"""Real processes that are killed, real disks that are full: nothing is lost (docs/explanation/reliability.md)."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from tests.commands import QUIET, SMALL, one_line, process

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("SFDFD_KILLS", "20"))
TRAIN = ["experiment=procedural", *SMALL, "trainer.log_every_n_steps=5", "output_dir=r"]
VARIES = ("time/", "throughput/", "memory/")
"""What is never the same twice."""


def start(*arguments, cwd):
    # a session of its own: what it has started dies with it
    return subprocess.Popen(
        [sys.executable, "-m", "sfdfd.train", *arguments], cwd=cwd, env={**os.environ, **QUIET}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def rows(run):
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith(VARIES)} for row in csv.DictReader(file)]


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def step_of(run):
    last = run / "checkpoints" / "last.ckpt"
    return torch.load(last, weights_only=True)["global_step"] if last.is_file() else 0


def test_a_training_killed_at_random_moments_ends_as_the_whole_one(tmp_path):
    steps = 90 * KILLS
    run = [*TRAIN, f"trainer.max_steps={steps}", "trainer.val_check_interval=40", "+callbacks.checkpoint.last_every_s=0.2",
           "callbacks.pictures.every_n_epochs=100000"]  # fmt: skip
    (tmp_path / "whole").mkdir()
    process("train", *run, cwd=tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    chance, killed, after = random.Random(0), 0, []
    while killed < KILLS:
        running = start(*run, "resume=last", cwd=tmp_path / "killed")
        time.sleep(0.5 + 9 * chance.random())  # at start, while reading, stepping, validating, writing
        assert running.poll() is None, f"it ended before it was killed:\n{running.stderr.read()}"
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        running.stderr.close()
        killed += 1
        for path in (tmp_path / "killed" / "r" / "checkpoints").glob("*.ckpt"):
            torch.load(path, weights_only=True)  # whole
        after.append(step_of(tmp_path / "killed" / "r"))
    assert after == sorted(after) and len(set(after)) > KILLS // 4, f"killed after steps {after}"
    process("train", *run, "resume=last", cwd=tmp_path / "killed")
    whole, again = tmp_path / "whole" / "r", tmp_path / "killed" / "r"
    for name in ("last.ckpt", "best.ckpt"):
        expected, found = weights(whole / "checkpoints" / name), weights(again / "checkpoints" / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert rows(whole) == rows(again)
    assert not list((again / "checkpoints").glob("*part*")), "what was half written is cleared away"


@contextmanager
def disk(folder, size):
    """A file system of its own, of a size; root may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    run = [*TRAIN, "trainer.max_steps=40", "trainer.val_check_interval=10", "+callbacks.checkpoint.last_every_s=0"]
    (tmp_path / "whole").mkdir()
    process("train", *run, cwd=tmp_path / "whole")
    folder = tmp_path / "whole" / "r"
    needed = sum(path.stat().st_size for path in (folder / "checkpoints").glob("*.ckpt"))
    with disk(tmp_path / "small", f"{int(1.4 * needed)}") as remount:  # one more checkpoint does not fit beside them
        done = process("train", *run, cwd=tmp_path / "small", expect=2)
        line = [text for text in done.stderr.splitlines() if text.startswith("sfdfd: ")][-1]
        assert "No space left on device" in line and "resume=last" in line, done.stderr
        assert "Traceback" not in done.stderr
        for path in (tmp_path / "small" / "r" / "checkpoints").glob("*.ckpt"):
            torch.load(path, weights_only=True)
        remount("size=64m")
        process("train", *run, "resume=last", cwd=tmp_path / "small")
        expected = weights(folder / "checkpoints" / "last.ckpt")
        found = weights(tmp_path / "small" / "r" / "checkpoints" / "last.ckpt")
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        assert rows(folder) == rows(tmp_path / "small" / "r")


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_a_disk_that_nobody_may_write_is_one_line(command, tmp_path, photographs_folder):
    arguments = {
        "train": [*TRAIN, "trainer.max_steps=2"],
        "predict": [f"stack='{photographs_folder}'", "refine.steps=0", "output_dir=r"],
        "evaluate": ["data=procedural", "data.test_length=1", "data.height=32", "data.width=40", "output_dir=r"],
    }
    with disk(tmp_path / "ro", "1m") as remount:
        remount("ro")
        done = process(command, *arguments[command], cwd=tmp_path / "ro", expect=2)
    assert "Read-only file system" in one_line(done.stderr)


def test_a_process_of_several_that_dies_ends_the_others_in_a_line(tmp_path):
    run = [*TRAIN, "trainer=ddp_cpu", "trainer.max_steps=4000", "trainer.val_check_interval=1000",
           "+callbacks.checkpoint.last_every_s=0.5"]  # fmt: skip
    running = start(*run, cwd=tmp_path)
    last, deadline = tmp_path / "r" / "checkpoints" / "last.ckpt", time.monotonic() + 120
    while not last.is_file() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-P", str(running.pid), "-f", "sfdfd"], capture_output=True, text=True, check=False
    ).stdout.split()
    assert len(children) == 1, f"expected the other rank, found {children}"
    os.kill(int(children[0]), signal.SIGKILL)
    try:
        err = running.communicate(timeout=60)[1]
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 2, err
    line = [text for text in err.splitlines() if text.startswith("sfdfd: ")][-1]
    assert "another process of the run died; continue with resume=last" in line and "Traceback" not in err, err
    step = step_of(tmp_path / "r")
    assert step > 0
    on = [one for one in run if "max_steps" not in one]
    process("train", *on, f"trainer.max_steps={step + 4}", "resume=last", cwd=tmp_path)
    assert step_of(tmp_path / "r") == step + 4


def test_a_file_that_vanishes_while_training(tmp_path, rgbd_folder):
    """Frames go while epochs pass: raise says which, skip counts it and goes on."""
    data = ["data=nyu", "data.in_memory=false", "data.batch_size=1", "module.augmentation.crop=32", "network.width=8",
            "network.depth=2", "pictures=0", "threads=1", "trainer.max_steps=100000", "trainer.val_check_interval=50000",
            "trainer.max_time=00:00:00:20", "output_dir=r"]  # fmt: skip
    for choice, code in (("raise", 2), ("skip", 0)):
        folder = tmp_path / choice
        folder.mkdir()
        shutil.copytree(rgbd_folder, folder / "data")
        splits = folder / "data" / "splits"
        splits.mkdir()
        for split, names in (("train", "0\n1\n"), ("val", "2\n"), ("test", "3\n")):
            (splits / f"{split}.txt").write_text(names)
        running = start(*data, f"data.root={folder}/data", f"data.on_error={choice}", cwd=folder)
        log, deadline = folder / "r" / "csv" / "metrics.csv", time.monotonic() + 120
        while (
            not (log.is_file() and log.stat().st_size > 300) and time.monotonic() < deadline and running.poll() is None
        ):
            time.sleep(0.2)
        (folder / "data" / "rgb" / "1.png").unlink()
        err = running.communicate(timeout=120)[1]
        assert running.returncode == code and "Traceback" not in err, err
        if choice == "raise":
            assert "1.png" in [text for text in err.splitlines() if text.startswith("sfdfd: ")][-1], err
        else:
            assert "skipped sample" in err
