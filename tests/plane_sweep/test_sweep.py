"""The plane sweep: a start that knows the camera."""

from dataclasses import replace

import pytest
import torch

from sfdfd.inference.methods import SweepMethod
from sfdfd.networks.classical import depth_from_focus
from sfdfd.optics import DefocusRenderer
from sfdfd.plane_sweep.cost_volume import stack_defocus, sweep_residuals
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep, fuse_sharpest_slices
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M, start_of


def abs_rel(depth_m, stack):
    return float(((depth_m - stack.depth_m).abs() / stack.depth_m)[stack.valid].mean())


def textured(renderer, height=64, width=80, depth_m=(1.3, 3.1)):
    """Two halves of random texture at two depths."""
    generator = torch.Generator().manual_seed(2)
    aif = 0.1 + 0.8 * torch.rand(1, 3, height, width, generator=generator)
    truth = torch.full((1, height, width), depth_m[0])
    truth[..., width // 2 :] = depth_m[1]
    focus = torch.tensor([FOCUS_M])
    images = renderer(aif, truth, focus, CAMERA).clamp(0, 1)
    return FocalStack.single(images[0], list(FOCUS_M), CAMERA, 0.5, 10.0, depth_m=truth[0], aif=aif[0])


@pytest.mark.parametrize("options", [{"sigma_scale": 0.5}, {"psf": "disc", "linear_light": True}, {"psf": "power:4"}])
def test_sweep_finds_textured_planes_almost_exactly(options):
    renderer = DefocusRenderer(**options)
    stack = textured(renderer)
    depth_m, aif, *_ = depth_from_plane_sweep(stack, renderer)
    inner = torch.zeros_like(depth_m, dtype=torch.bool)
    inner[:, 12:-12, 12:30] = inner[:, 12:-12, 50:-12] = True
    assert float(((depth_m - stack.depth_m).abs() / stack.depth_m)[inner].median()) < 0.03
    assert torch.equal(aif, fuse_sharpest_slices(stack, depth_m)) and aif.shape == stack.images[:, 0].shape


@pytest.mark.parametrize("size", [(63, 80), (64, 79), (33, 33)])
def test_odd_sizes_are_not_shifted(size):
    """Squares of two pixels that stick out at the border: what lies inside stays where it is."""
    renderer = DefocusRenderer(sigma_scale=0.5)
    stack = textured(renderer, 64, 80)
    whole = depth_from_plane_sweep(stack, renderer)
    cut = depth_from_plane_sweep(stack.cropped(0, size[0], 0, size[1]), renderer)
    assert cut.depth_m.shape[-2:] == size == cut.std.shape[-2:]
    inner = (..., slice(0, size[0] - 12), slice(0, size[1] - 12))
    difference = (1 / cut.depth_m - 1 / whole.depth_m[..., : size[0], : size[1]])[inner].abs()
    assert float(difference.median()) < 0.02


def test_window_averages_the_residuals(scene):
    defocus = stack_defocus(scene, DefocusRenderer(sigma_scale=0.5))
    one = sweep_residuals(scene.images[0], scene.coverage()[0], defocus, 0, 6)
    two = sweep_residuals(scene.images[0], scene.coverage()[0], defocus, 0, 6, window_px=2)
    height, width = one.shape[-2] // 2 * 2, one.shape[-1] // 2 * 2
    means = one[:, :height, :width].reshape(6, height // 2, 2, width // 2, 2).mean((2, 4))
    torch.testing.assert_close(two[:, : height // 2, : width // 2], means)


def test_sweep_is_more_accurate_than_depth_from_focus(scene):
    renderer = DefocusRenderer(sigma_scale=0.5, method="fast")
    classical, _ = depth_from_focus(scene.images, scene.focus_distances_m, scene.near_m, scene.far_m)
    depth_m = depth_from_plane_sweep(scene, renderer).depth_m
    assert abs_rel(depth_m, scene) < 0.8 * abs_rel(classical, scene)
    assert float(depth_m.min()) >= 0.5 and float(depth_m.max()) <= 10 * (1 + 1e-6)


def test_batches_equal_single_stacks_without_padding_and_truth(scene):
    renderer = DefocusRenderer(psf="disc")
    short = replace(
        scene, images=scene.images[:, 1:4], focus_distances_m=scene.focus_distances_m[:, 1:4],
        slice_mask=scene.slice_mask[:, 1:4],
    )  # fmt: skip
    batch = FocalStack.collate([scene, short])
    together = depth_from_plane_sweep(batch, renderer).depth_m
    for index, stack in enumerate((scene, short)):
        torch.testing.assert_close(together[index], depth_from_plane_sweep(stack.without_truth(), renderer)[0][0])


def test_uncovered_pixels_do_not_count(scene):
    covered = torch.ones_like(scene.images[:, :, 0])
    covered[:, 2, :, :30] = 0
    renderer = DefocusRenderer(sigma_scale=0.5)
    found = []
    for junk in (0.0, 1.0):
        images = torch.where(covered[:, :, None] > 0, scene.images, junk)
        found.append(depth_from_plane_sweep(replace(scene, images=images, covered=covered), renderer)[0])
    assert torch.equal(*found)


def test_sweep_method_renders_with_the_models_optics(scene):
    renderer = DefocusRenderer(sigma_scale=0.5)
    prediction = SweepMethod(renderer)(scene)
    expected = renderer(prediction.aif, prediction.depth_m, scene.focus_distances_m, scene.camera)
    torch.testing.assert_close(prediction.rendered, expected)
    assert start_of(scene)[0].shape == prediction.depth_m.shape
