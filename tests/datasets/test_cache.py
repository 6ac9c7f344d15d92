"""Stacks on disk."""

import os
from dataclasses import replace

import pytest
import torch

from sfdfd.datasets.synthetic import RGBDDataModule
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.sensor import SensorModel
from tests.conftest import CAMERA, FOCUS_M

RENDERER = DefocusRenderer(sigma_scale=0.5)


def test_the_cache_is_keyed_by_the_camera(rgbd, tmp_path):
    def module(camera=CAMERA, **options):
        return RGBDDataModule(
            str(rgbd), renderer=RENDERER, camera=camera, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0,
            cache=str(tmp_path / "cache"), in_memory=False, **options,
        )  # fmt: skip

    def files():
        return sorted((tmp_path / "cache").rglob("*.safetensors"))

    first = module().dataset("all")[0]
    assert len(files()) == 1
    again = module().dataset("all")[0]
    for key in ("images", "depth_m", "aif", "valid", "focus_distances_m", "near_m", "slice_mask"):
        assert torch.equal(getattr(first, key), getattr(again, key)), key
    assert again.camera == first.camera and again.name == first.name and len(files()) == 1
    changed = module(replace(CAMERA, f_number=4.0)).dataset("all")[0]
    assert len(files()) == 2 and not torch.equal(changed.images, first.images)
    module(sensor=SensorModel(read_std=0.01)).dataset("all")[0]
    module(resize=0.5).dataset("all")[0]
    assert len(files()) == 4
    depth = sorted((rgbd / "depth").iterdir())[0]
    os.utime(depth, ns=(1, 1))  # another file of the same name
    module().dataset("all")[0]
    assert len(files()) == 5
    module().dataset("all").path(0).write_bytes(b"broken")
    with pytest.raises(InputError, match="broken file in the cache"):
        module().dataset("all")[0]
