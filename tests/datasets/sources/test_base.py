"""Writers that all sources share."""

import numpy as np
import pytest

from sfdfd.datasets.sources.base import write_rgbd, write_stack
from sfdfd.errors import InputError
from sfdfd.photographs.read import read_photographs
from tests.conftest import CAMERA
from tests.datasets.sources.helpers import RNG, image


def test_invalid_stacks_are_refused_before_writing(tmp_path):
    pictures = [image(), image()]
    write_stack(tmp_path, "a", pictures, CAMERA.as_dict(), [1, 2], 0.5, 3)
    for name, changed, message in (
        ("a", {}, "two samples have this name"),
        ("splits", {}, "cannot name a sample"),
        (".a", {}, "cannot name a sample"),
        ("a b", {}, "cannot name a sample"),
        ("", {}, "cannot name a sample"),
        ("b", {"slices": [image(), image(24, 33)]}, "one size"),
        ("b", {"slices": []}, "one size"),
        ("b", {"aif": image(24, 33)}, "one size"),
        ("b", {"depth_m": np.ones((24, 33))}, "one size"),
        ("b", {"focus_distances_m": [1, 2, 3]}, "3 for 2"),
        ("b", {"focus_distances_m": [1, np.nan]}, "positive number"),
        ("b", {"focus_distances_m": [0, 1]}, "positive number"),
    ):
        options = {
            "slices": pictures,
            "camera": CAMERA.as_dict(),
            "focus_distances_m": [1, 2],
            "near_m": 0.5,
            "far_m": 3,
        }
        with pytest.raises(InputError, match=message):
            write_stack(tmp_path, name, **{**options, **changed})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    write_rgbd(tmp_path, "x", image(), np.ones((24, 32)))
    for name, depth, message in (("x", np.ones((24, 32)), "two samples"), ("y", np.ones((24, 33)), "one size")):
        with pytest.raises(InputError, match=message):
            write_rgbd(tmp_path, name, image(), depth)


def test_images_of_16_bits_and_floats_keep_16_bits(tmp_path):
    deep = RNG.integers(0, 65535, (24, 32, 3), dtype=np.uint16)
    write_stack(tmp_path, "a", [deep, deep[::-1]], CAMERA.as_dict(), [1, 2], 0.5, 3, aif=deep)
    write_stack(tmp_path, "b", [(deep / 65535).astype(np.float32)] * 2, CAMERA.as_dict(), [1, 2], 0.5, 3)
    read = read_photographs(tmp_path / "a")
    np.testing.assert_array_equal(read.images[1], deep[::-1])
    np.testing.assert_array_equal(read.aif, deep)
    np.testing.assert_array_equal(read_photographs(tmp_path / "b").images[0], deep)
