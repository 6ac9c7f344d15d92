"""A small RGB-D folder, and a data module on it."""

import imageio.v3 as iio
import numpy as np
import pytest

from sfdfd.data.synthetic import RGBDDataModule
from sfdfd.optics import DefocusRenderer
from tests.conftest import CAMERA, FOCUS_M

RENDERER = DefocusRenderer(sigma_scale=0.5)


@pytest.fixture
def rgbd(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("rgb", "depth"):
        (tmp_path / part).mkdir()
    for index in range(12):
        iio.imwrite(tmp_path / "rgb" / f"{index:04d}.png", rng.integers(0, 255, (20, 26, 3), dtype=np.uint8))
        millimetres = rng.integers(900, 8000, (20, 26), dtype=np.uint16)
        millimetres[:3, :4] = 0
        iio.imwrite(tmp_path / "depth" / f"{index:04d}.png", millimetres)
    return tmp_path


def rgbd_module(root, **options):
    return RGBDDataModule(
        root=str(root), renderer=RENDERER, camera=CAMERA, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0, **options
    )
