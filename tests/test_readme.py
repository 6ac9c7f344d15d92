"""The README's Python runs as it stands, and so does every command in it (the long ones with fewer steps)."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sfdfd.photographs.lookup import example_photographs
from tests.commands import QUIET, SMALL

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LINES = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith(("#", "pip "))
]
INLINE = [
    found
    for found in re.findall(r"`(python -m sfdfd\.[^`]+|make [a-z-]+)`", README)
    if found not in LINES and "COMMAND" not in found
]
FEWER = {
    # command -> what makes it short, after the line's own arguments
    "train": ["trainer.max_steps=2", *SMALL],
    "train -m": ["trainer.max_steps=1", *SMALL],
    "train experiment=nyu_synth": ["trainer.max_steps=2", "data.batch_size=2", "module.augmentation.crop=32",
                                   "network.width=8", "network.depth=2", "pictures=0", "threads=1"],
    "prepare": ["data.cameras=[dslr]", "data.train_length=0", "data.val_length=0", "data.test_length=1", "data.height=48",
                "data.width=64", "data.samples=4"],
    "evaluate": ["refine.seconds=1", "pictures=0"],
    "predict": ["refine.seconds=1"],
    "diagnose": [],
    "app": ["--help"],
}  # fmt: skip
TARGETS = {"make demo", "make docs", "make notebooks", "make check", "make test"}
"""Each has its own way of being run: demo below, docs and test by .ci/run and here, notebooks by tests/test_notebooks.py."""


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_python_blocks_run(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[index], f"README.md, Python block {index + 1}", "exec"), names)
    if "prediction" in names:
        assert names["prediction"].depth_m.shape[-2:] == (240, 320)
    if "save(" in BLOCKS[index]:
        assert (tmp_path / "out" / "report.html").is_file()


def test_there_are_blocks():
    assert len(BLOCKS) >= 2 and len(LINES) >= 6


def test_the_readme_is_two_screens():
    assert len(README.splitlines()) <= 110


def key_of(words):
    """Of the table above: command, and what of its line makes another treatment necessary."""
    name = words[2].removeprefix("sfdfd.")
    if name == "train":
        return (
            "train -m"
            if "-m" in words[3:]
            else "train experiment=nyu_synth"
            if "experiment=nyu_synth" in words
            else name
        )
    return name


def test_every_command_of_the_readme_is_known():
    for line in (*LINES, *INLINE):
        assert line in TARGETS or key_of(shlex.split(line)) in FEWER, line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders that the lines call DIR: photographs, RGB-D frames, path-traced stacks (prepared by the README's own line)."""
    import imageio.v3 as iio
    import numpy as np

    folder = tmp_path_factory.mktemp("readme")
    photographs = example_photographs(48, 64)
    (folder / "photographs").mkdir()
    for name, image in zip(photographs.files, photographs.images, strict=True):
        iio.imwrite(folder / "photographs" / name.name, image)
    rng = np.random.default_rng(0)
    for name in ("rgb", "depth"):
        (folder / "frames" / name).mkdir(parents=True)
    for index in range(12):
        iio.imwrite(folder / "frames" / "rgb" / f"{index:02d}.png", rng.integers(0, 255, (40, 48, 3), dtype=np.uint8))
        iio.imwrite(folder / "frames" / "depth" / f"{index:02d}.png", np.full((40, 48), 2000 + index, np.uint16))
    return folder


def given(words, place):
    """The line's words with folders for DIR."""
    traced = {"data=raytraced"} & set(words)
    where = (
        "traced" if traced else "frames" if any(word.startswith("experiment=nyu") for word in words) else "photographs"
    )
    return [word.replace("=DIR", f"={place / where}") for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in (*LINES, *INLINE) if line.startswith("python")])
def test_commands_of_the_readme_run(line, place):
    words = shlex.split(line)
    if "data=raytraced" in words:
        pytest.importorskip("mitsuba")
    command = [sys.executable, *given(words, place)[1:], *FEWER[key_of(words)]]
    if not any(part in line for part in ("diagnose", "prepare", "output_dir=")) and "--help" not in command:
        command.append(f"output_dir={place / ('out' + str(abs(hash(line))))}")
    done = subprocess.run(
        command, cwd=place, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_make_demo_ends_in_a_page(tmp_path):
    if shutil.which("make") is None or not (ROOT / ".venv").exists():
        pytest.skip("needs make and the .venv that it set up")
    few = ",".join(f'"{one}"' for one in ("trainer.max_steps=2", *SMALL))
    line = [
        "make",
        "demo",
        f"DEMO={tmp_path / 'demo'}",
        f"DEMO_ARGS='train=[{few}]' scenes=1 refine.steps=1 open=false",
    ]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "demo" / "index.html").is_file()


TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
TUTORIAL_FEWER = {
    "train": ["trainer.max_steps=2", "data.train_length=4", *SMALL[1:]],
    "evaluate": ["data.height=32", "data.width=40", "data.test_length=1", "pictures=0"],
    "predict": ["refine.seconds=1"],
    "refocus": [],
    "diagnose": [],
    "train nyu": [
        "trainer.max_steps=2", "data.batch_size=2", "module.augmentation.crop=32", "network.width=8", "network.depth=2",
        "pictures=0", "threads=1",
    ],
    "evaluate nyu": ["pictures=0"],
}  # fmt: skip
"""What makes a tutorial's commands short, after their own arguments."""
DOWNLOADS = "python -m sfdfd.prepare data=nyu"


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page, place, tmp_path, monkeypatch):
    """In order and in one folder, so that a command finds what the one before left."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", page.read_text(), re.DOTALL):
        if language == "python":
            exec(compile(block, page.name, "exec"), names)
        for line in block.splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[:2] != ["python", "-m"] or not words[2].startswith("sfdfd.") or line.startswith(DOWNLOADS):
                continue  # of jupyter and pip
            rooms = " nyu" * (words[2] != "sfdfd.diagnose" and any("nyu" in word for word in words))
            fewer = TUTORIAL_FEWER[words[2].removeprefix("sfdfd.") + rooms]
            command = [sys.executable, *(word.replace("=DIR", f"={place / 'frames'}") for word in words[1:]), *fewer]
            done = subprocess.run(
                command, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=500, check=False
            )
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
