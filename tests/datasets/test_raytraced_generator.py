"""Path-traced data sets: complete scenes, reproducible bytes, resuming, several cameras."""

import numpy as np
import pytest

from sfdfd.datasets import raytraced_generator
from sfdfd.datasets.raytraced import RaytracedDataModule
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError
from tests.commands import inside, one_line

TINY = {"height": 28, "width": 40, "samples": 4, "variant": "scalar_rgb"}


def module(root, **options):
    return RaytracedDataModule(str(root), **{**TINY, "train_length": 0, "val_length": 0, "test_length": 2, **options})


def make(root, **options):
    return module(root, **options).stack_generator.write(root, {"data": "raytraced"}, lambda done, total: None)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def mitsuba():
    return pytest.importorskip("mitsuba")


def test_a_scene_does_not_depend_on_other_scenes(mitsuba, tmp_path):
    assert make(tmp_path / "two") == 2
    assert make(tmp_path / "more", test_length=1, train_length=1) == 2
    assert contents(tmp_path / "two" / "test_0000") == contents(tmp_path / "more" / "test_0000")
    assert contents(tmp_path / "two" / "test_0000") != contents(tmp_path / "more" / "train_0000")


def test_interrupted_generation_resumes_with_the_same_options_only(mitsuba, tmp_path, monkeypatch):
    traced = []

    def counting(*arguments, **options):
        traced.append(arguments)
        if len(traced) == 2:
            raise KeyboardInterrupt
        return trace_stack(*arguments, **options)

    trace_stack = raytraced_generator.trace_stack
    monkeypatch.setattr(raytraced_generator, "trace_stack", counting)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set")
    assert not (tmp_path / "set").exists()
    with pytest.raises(InputError, match=r"samples=4, not 8"):
        make(tmp_path / "set", samples=8)
    assert make(tmp_path / "set", samples=None, variant=None) == 2  # as the interrupted call said
    assert len(traced) == 3
    monkeypatch.undo()
    make(tmp_path / "at once")
    assert contents(tmp_path / "set") == contents(tmp_path / "at once")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at once", "set"]


def test_each_camera_has_its_own_scenes(mitsuba, tmp_path):
    tele = {
        "name": "tele",
        "camera": {"focal_length_m": 0.1},
        "focus_distances_m": [2, 3, 5],
        "near_m": 1.5,
        "far_m": 7,
    }
    assert make(tmp_path / "set", cameras=["phone", tele], test_length=1) == 2
    phone, other = (read_stack(tmp_path / "set" / f"{name}_test_0000") for name in ("phone", "tele"))
    assert phone.camera[0].pixel_pitch_m == pytest.approx(0.0098 / 40) and phone.images.shape[1] == 5
    assert other.camera[0].focal_length_m == 0.1 and other.focus_distances_m[0].tolist() == [2, 3, 5]
    assert bool(phone.valid.all()) and bool(other.valid.all()) and other.aif is not None
    data = module(tmp_path / "set", slices=3)
    assert data.constant_baseline_depth_m() is None  # nothing trains
    assert [stack.images.shape[1] for stack in data.dataset("test")] == [3, 3]
    make(tmp_path / "alone", cameras=["phone"], test_length=1)
    folder = "phone_test_0000"
    assert contents(tmp_path / "set" / folder) == contents(tmp_path / "alone" / folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ["toy"]}, "cameras"),
        ({"cameras": ["dslr", "dslr"]}, "a name of its own"),
        ({"cameras": ["dslr"], "near_m": 1.0}, "not both"),
        ({"kinds": ["meadow"]}, "kinds"),
        ({"samples": 0}, "samples"),
        ({"test_length": 0}, "at least one scene"),
        ({"focus_distances_m": [0.01, 1.0]}, "focal length"),
        ({"near_m": 9.0}, "near_m"),
        ({"camera": {"focal_length": 0.05}}, "focal_length"),
        ({"width": 20}, "pixel_pitch_m"),
    ],
)
def test_impossible_options_are_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        _ = module(tmp_path, **options).stack_generator


def test_prepare_and_evaluate_from_the_command_line(mitsuba, tmp_path):
    options = [
        "data=raytraced", "data.root=set", "data.height=48", "data.width=64", "data.samples=16", "data.variant=scalar_rgb",
        "data.train_length=1", "data.val_length=1", "data.test_length=1", "data.kinds=[cards,walls]",
    ]  # fmt: skip
    for _ in range(2):  # the second time finds it done
        inside("prepare", *options, cwd=tmp_path)
    assert (tmp_path / "set" / "splits" / "test.txt").read_text() == "test_0000\n"
    done = inside("prepare", *options, "data.samples=8", cwd=tmp_path, expect=2)
    assert "samples=16, not 8" in one_line(done.stderr)
    inside("evaluate", "data=raytraced", "data.root=set", "output_dir=e", "pictures=0", cwd=tmp_path)
    row = (tmp_path / "e" / "metrics.csv").read_text().splitlines()
    assert "depth/abs_rel_edges" in row[0] and len(row) == 3
    depth_m = np.load(tmp_path / "set" / "test_0000" / "truth" / "depth_m.npy")
    assert depth_m.shape == (48, 64) and 0.6 <= depth_m.min() < depth_m.max() <= 8


def test_missing_mitsuba_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mitsuba", None)
    done = inside("prepare", "data=raytraced", "data.root=set", cwd=tmp_path, expect=2)
    assert "pip install 'sfdfd[raytraced]'" in done.stderr and not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".set*"))
