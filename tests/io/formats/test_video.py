"""Focal sweeps as videos, through FFmpeg."""

import sys

import cv2
import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.photographs.read import read_photographs
from tests.io.formats.encoders import write_video

pytest.importorskip("av")
SCENE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8), (0, 0), 0.8)
REST, SWEEP = 15, 24


def sweep():
    """Rest, sweep from left (near) to right (far), rest: each column is sharp at one time."""
    frames = []
    for position in [0.0] * REST + np.linspace(0, 1, SWEEP).tolist() + [1.0] * REST:
        blurred = [cv2.GaussianBlur(SCENE, (0, 0), 0.3 + 6 * abs(position - place)) for place in np.linspace(0, 1, 8)]
        frames.append(np.concatenate([b[:, 16 * i : 16 * i + 16] for i, b in enumerate(blurred)], axis=1))
    return frames


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "sweep.mp4"
    write_video(path, sweep())
    return path


def numbers(photographs):
    return [int(file.stem.rsplit("_", 1)[1]) for file in photographs.files]


def test_frames_are_picked_from_the_moving_part_of_the_sweep(video):
    photographs = read_photographs(video, {"frames": 6})
    chosen = numbers(photographs)
    assert chosen == sorted(set(chosen)) and len(chosen) == 6
    assert chosen[0] <= REST + 1 and chosen[-1] >= REST + SWEEP - 2
    steps = np.diff(np.clip(chosen, REST, REST + SWEEP - 1))  # all resting frames are equal
    assert steps.max() <= 1.5 * SWEEP / 5 and steps.min() >= 0.5 * SWEEP / 5
    assert sum(REST < index < REST + SWEEP for index in chosen) >= 4
    assert "6 of 54 frames were picked by sharpness" in photographs.notes[0]
    first = photographs.images[0].astype(int)
    assert np.abs(first - sweep()[chosen[0]]).mean() < 6  # 4:2:0


def test_listed_frames_and_text_files_are_used(video):
    """A folder with one video stands for it, and its text files are read."""
    photographs = read_photographs(video.parent, {"frames": [15, 27, 38], "focus_distances_m": [0.3, 0.6, 2]})
    assert numbers(photographs) == [15, 27, 38] and photographs.focus_distances_m == (0.3, 0.6, 2)
    assert len(read_photographs(video, {"focus_distances_m": [0.3, 0.6, 1, 2]}).files) == 4  # as many as distances
    (video.parent / "dioptres.txt").write_text("4\n2\n0\n")
    assert read_photographs(video, {"frames": 3}).focus_distances_m == (0.25, 0.5, np.inf)
    (video.parent / "dioptres.txt").unlink()
    assert read_photographs(video).focus_distances_m is None


@pytest.mark.parametrize(("overrides", "message"), [
    ({"frames": 1}, "frames"), ({"frames": [3]}, "two or more"), ({"frames": [3, 3]}, "different"),
    ({"frames": [0, 5000]}, "frame 5000 is asked for"), ({"frames": 500}, "the video has 54"), ({"frames": "x"}, "frames"),
    ({"frames": 3, "focus_distances_m": [1, 2]}, "expected 3 focus distances"),
])  # fmt: skip
def test_impossible_frames_are_refused(video, overrides, message):
    with pytest.raises(InputError, match=message):
        read_photographs(video, overrides)


def test_broken_and_foreign_files_are_refused_by_name(video, tmp_path):
    (tmp_path / "a.mp4").write_bytes(video.read_bytes()[:600])
    (tmp_path / "b.mov").write_bytes(b"no video")
    (tmp_path / "c.txt").write_text("no video")
    for name, message in (
        ("a.mp4", "not a readable video"),
        ("b.mov", "not a readable video"),
        ("c.txt", "expected a folder"),
    ):
        with pytest.raises(InputError, match=message):
            read_photographs(tmp_path / name)
    with pytest.raises(InputError, match="name one of them"):
        read_photographs(tmp_path)


def test_without_pyav_the_error_names_the_package(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"needs PyAV: pip install 'sfdfd\[photo\]'"):
        read_photographs(video)
