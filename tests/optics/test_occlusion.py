"""The occlusion-aware renderer against brute-force compositing."""

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.optics import render_focal_stack
from tests.conftest import CAMERA

FOCUS = torch.tensor([1.0, 4.0], dtype=torch.float64)


def brute_force(aif, depth, planes, focus):
    """Pixel by pixel: spread every plane's colour and opacity, then lay the nearer over the farther."""
    height, width = aif.shape[1:]
    colour, opacity = np.zeros_like(aif), np.zeros((height, width))
    for plane in sorted(planes, reverse=True):
        sigma = max(0.5 * CAMERA.blur_radius_px(plane, focus), 0.2)
        layer_colour, layer_opacity = np.zeros_like(aif), np.zeros((height, width))
        reach = 40
        norm = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).sum() ** 2
        for y in range(height):
            for x in range(width):
                if depth[y, x] != plane:
                    continue
                dy, dx = np.arange(height)[:, None] - y, np.arange(width)[None, :] - x
                spread = np.exp(-(dy**2 + dx**2) / (2 * sigma**2)) / norm
                layer_colour += aif[:, y, x, None, None] * spread
                layer_opacity += spread
        colour = colour * (1 - layer_opacity) + layer_colour
        opacity = opacity * (1 - layer_opacity) + layer_opacity
    return colour / opacity


def scene():
    rng = np.random.default_rng(0)
    aif = rng.random((3, 20, 26))
    depth = np.full((20, 26), 4.0)
    depth[6:14, 8:17] = 1.0
    return aif, depth


@pytest.mark.parametrize("index", [0, 1])
def test_two_planes_match_brute_force_compositing(index):
    aif, depth = scene()
    stack = render_focal_stack(
        torch.from_numpy(aif)[None],
        torch.from_numpy(depth)[None],
        FOCUS,
        CAMERA,
        sigma_scale=0.5,
        weighting="occlusion",
    )
    expected = brute_force(aif, depth, (1.0, 4.0), float(FOCUS[index]))
    assert np.abs(stack[0, index].numpy() - expected).max() < 2e-5


def test_a_blurred_foreground_bleeds_over_a_sharp_background_and_not_the_other_way_round():
    depth = torch.full((1, 40, 40), 4.0, dtype=torch.float64)
    depth[:, :, :20] = 1.0
    aif = torch.zeros(1, 3, 40, 40, dtype=torch.float64)
    aif[..., :20] = 1.0  # a white foreground before a black background
    near_sharp, far_sharp = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting="occlusion")[0]
    torch.testing.assert_close(near_sharp, aif[0], atol=1e-3, rtol=0)  # nothing bleeds either way
    assert 0.1 < float(far_sharp[0, 20, 22]) < 0.9  # the foreground covers the background's pixels in part
    source = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting="source")[0, 0]
    assert float((source[:, 20, 20] - aif[0, :, 20, 20]).abs().max()) < 0.05
    target = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting="target")[0, 0]
    assert float(target[0, 20, 21]) > 0.1  # the slides' model lets the sharp foreground leak


def test_one_depth_is_the_plain_renderer():
    aif, depth = torch.rand(2, 3, 30, 34, dtype=torch.float64), torch.full((2, 30, 34), 3.0, dtype=torch.float64)
    plain = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5)
    layered = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting="occlusion")
    torch.testing.assert_close(layered, plain, atol=2e-5, rtol=0)


def test_a_slanted_plane_has_no_seams():
    aif = torch.full((1, 3, 32, 48), 0.6, dtype=torch.float64)
    depth = torch.linspace(1, 6, 48, dtype=torch.float64).expand(1, 32, 48)
    stack = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting="occlusion")
    torch.testing.assert_close(stack, torch.full_like(stack, 0.6), atol=1e-6, rtol=0)


def test_linear_light_blurs_light_and_not_codes():
    """A fine black and white pattern blurs to half the light, which is brighter than half the code."""
    pattern = (torch.arange(64) % 2).double().expand(1, 3, 64, 64).contiguous()
    depth = torch.full((1, 64, 64), 6.0, dtype=torch.float64)
    codes, light = (
        render_focal_stack(pattern, depth, FOCUS[:1], CAMERA, linear_light=flag)[0, 0, :, 32, 32]
        for flag in (False, True)
    )
    torch.testing.assert_close(codes, torch.full((3,), 0.5, dtype=torch.float64), atol=1e-3, rtol=0)
    half_light = 1.055 * 0.5 ** (1 / 2.4) - 0.055
    torch.testing.assert_close(light, torch.full((3,), half_light, dtype=torch.float64), atol=1e-3, rtol=0)
    smooth = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    render_focal_stack(smooth, depth[:, :16, :16], FOCUS, CAMERA, linear_light=True).sum().backward()
    assert bool(torch.isfinite(smooth.grad).all())


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="layers"):
        render_focal_stack(torch.rand(1, 3, 8, 8), torch.ones(1, 8, 8), FOCUS, CAMERA, weighting="occlusion", layers=1)
    with pytest.raises(InputError, match="linear_light"):
        render_focal_stack(torch.rand(1, 1, 8, 8), torch.ones(1, 8, 8), FOCUS, CAMERA, linear_light=True)
