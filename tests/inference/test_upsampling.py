"""What the full-size slices say."""

import torch
import torch.nn.functional as F

from sfdfd.inference.upsampling import blend_slices, guided_upsampling, sharpest_slice_index
from sfdfd.optics import Camera
from tests.conftest import CAMERA


def test_blending_takes_the_slice_in_focus():
    depth_m = torch.full((8, 10), 1.0)
    depth_m[:, 5:] = 4.0
    slices = [torch.full((3, 8, 10), 0.2), torch.full((3, 8, 10), 0.9)]
    blended = blend_slices(slices, depth_m, torch.tensor([1.0, 4.0]), CAMERA)
    torch.testing.assert_close(blended[:, :, :5], slices[0][:, :, :5], atol=1e-3, rtol=0)
    torch.testing.assert_close(blended[:, :, 5:], slices[1][:, :, 5:], atol=1e-3, rtol=0)
    reach = [torch.zeros(8, 10), torch.ones(8, 10)]  # where a slice shows nothing, another one must do
    blended = blend_slices(slices, depth_m, torch.tensor([1.0, 4.0]), Camera(0.05, 80.0, 1.2e-5), reach)
    assert float(blended[0, :, :5].min()) > 0.85


def test_guided_upsampling_is_exact_for_linear_models():
    guide = torch.rand(1, 1, 24, 32)
    full = F.interpolate(guide, (96, 128), mode="bilinear", align_corners=False)
    enlarged = guided_upsampling(2 * guide + 0.3, guide, full, 3, 1e-8)
    torch.testing.assert_close(enlarged, 2 * full + 0.3, atol=1e-3, rtol=0)


def test_blending_fills_uncovered_pixels_from_other_slices():
    """Blur of 30 pixels in the other slices: their weights must not overflow."""
    slices = [torch.full((3, 8, 9), value) for value in (0.2, 0.8)]
    covered = [torch.zeros(8, 9), torch.ones(8, 9)]
    camera = Camera(0.05, 1.2, 1.2e-6)
    blended = blend_slices(slices, torch.full((8, 9), 1.0), torch.tensor([1.0, 4.0]), camera, covered)
    torch.testing.assert_close(blended, slices[1], atol=1e-4, rtol=0)


def test_the_sharpest_slice_covers_the_pixel():
    depth_m = torch.tensor([[1.0, 1.4, 3.0, 3.0]])
    focus, covered = torch.tensor([1.0, 1.5, 3.0]), torch.ones(3, 1, 4)
    assert sharpest_slice_index(depth_m, focus, CAMERA).tolist() == [[0, 1, 2, 2]]
    covered[2, 0, 2], covered[:, 0, 3] = 0, 0
    assert sharpest_slice_index(depth_m, focus, CAMERA, list(covered)).tolist() == [
        [0, 1, 1, 2]
    ]  # where none does, of all
