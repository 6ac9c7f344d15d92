"""RGB-D folders as scenes."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from tests.conftest import rgbd_module

RENDERER = DefocusRenderer(sigma_scale=0.5)


def test_rgbd_reads_millimetres_and_masks_holes(rgbd):
    stack = rgbd_module(rgbd).dataset("all")[0]
    stored = iio.imread(rgbd / "depth" / "0000.png")
    known = stack.valid[0].numpy()
    assert not known[:3, :4].any() and known[3:].all()
    np.testing.assert_allclose(stack.depth_m[0].numpy()[known], stored[known] / 1000, rtol=1e-6)
    np.testing.assert_allclose(
        stack.aif[0].permute(1, 2, 0).numpy(), iio.imread(rgbd / "rgb" / "0000.png") / 255, atol=1e-6
    )
    assert stack.images.shape == (1, 5, 3, 20, 26) and stack.name == ("0000",)


def test_resizing_resizes_the_pixel_pitch(rgbd):
    stack = rgbd_module(rgbd, resize=0.5).dataset("all")[0]
    assert stack.images.shape[-2:] == (10, 13)
    assert stack.camera[0].pixel_pitch_m == pytest.approx(2.4e-5)


def test_a_border_crop_cuts_image_depth_and_mask_alike(rgbd):
    whole, cut = (rgbd_module(rgbd, **options).dataset("all")[0] for options in ({}, {"crop": [2, 1, 3, 0]}))
    assert torch.equal(cut.aif, whole.aif[..., 1:, 2:-3]) and torch.equal(cut.valid, whole.valid[..., 1:, 2:-3])
    assert torch.equal(cut.depth_m[cut.valid], whole.depth_m[..., 1:, 2:-3][cut.valid])
    assert cut.camera == whole.camera  # a crop changes no pixel
    with pytest.raises(InputError, match=r"data\.crop"):
        rgbd_module(rgbd, crop=[20, 0, 0, 0]).dataset("all")[0]
    with pytest.raises(InputError, match=r"data\.crop"):
        rgbd_module(rgbd, crop=[-1, 0, 0, 0]).dataset("all")


def test_the_eigen_crop_masks_depth_and_cuts_nothing(tmp_path):
    for part in ("rgb", "depth"):
        (tmp_path / part).mkdir()
    iio.imwrite(tmp_path / "rgb" / "a.png", np.full((480, 640, 3), 90, np.uint8))
    iio.imwrite(tmp_path / "depth" / "a.png", np.full((480, 640), 2000, np.uint16))
    module = rgbd_module(tmp_path, evaluation_crop="eigen")
    stack = module.dataset("all")[0]
    expected = np.zeros((480, 640), bool)
    expected[45:471, 41:601] = True  # as others' evaluations have it
    assert np.array_equal(stack.valid[0].numpy(), expected) and "eigen" in module.protocol()["mask"]
    halved = rgbd_module(tmp_path, evaluation_crop="eigen", resize=0.25).dataset("all")[0].valid[0]
    assert abs(float(halved.float().mean()) - expected.mean()) < 0.01
    with pytest.raises(InputError, match=r"data\.evaluation_crop"):
        rgbd_module(tmp_path, evaluation_crop="garg").dataset("all")


def test_in_painted_depth_is_valid_only_where_raw_depth_is_known(rgbd):
    (rgbd / "raw_depth").mkdir()
    for path in sorted((rgbd / "depth").iterdir()):
        raw = iio.imread(path)
        raw[10:, :5] = 0
        iio.imwrite(rgbd / "raw_depth" / path.name, raw)
    plain, masked = (rgbd_module(rgbd, **o).dataset("all")[3] for o in ({}, {"mask_folder": "raw_depth"}))
    assert torch.equal(masked.depth_m, plain.depth_m) and torch.equal(masked.images, plain.images)
    expected = plain.valid.clone()
    expected[:, 10:, :5] = False
    assert torch.equal(masked.valid, expected) and bool((expected != plain.valid).any())
    with pytest.raises(InputError, match=r"no_such.*data\.mask_folder"):
        rgbd_module(rgbd, mask_folder="no_such").dataset("all")
