"""The occlusion-aware renderer's gradient in depth is that of its image: walls and silhouettes, disc and Gaussian."""

import math
from functools import lru_cache

import numpy as np
import pytest
import scipy.special
import torch
from scipy.ndimage import gaussian_filter

from sfdfd.optics import Camera, occlusion, render_focal_stack
from sfdfd.optics.level_batches import Budget
from tests.optics.levels import level_grid, shares_of_levels

CAMERA = Camera(0.05, 4.0, 2.4e-5)
FOCUS = torch.tensor([1.1, 1.6, 2.3, 3.5], dtype=torch.float64)
OCCLUSION = {"weighting": "occlusion", "sigma_scale": 0.5}
SCENES = ("slanted wall", "card before a wall", "soft edge")


def smooth(seed, std_px, shape):
    noise = np.random.default_rng(seed).standard_normal(shape)
    blurred = gaussian_filter(noise, [0] * (len(shape) - 2) + [std_px] * 2, mode="wrap")
    return torch.from_numpy(blurred / blurred.std())


def scene(name, height=32, width=40):
    """All-in-focus image and inverse depth, which lies on no level."""
    aif = (0.5 + 0.2 * smooth(1, 1.2, (1, 3, height, width))).clamp(0, 1)
    columns, rows = torch.arange(width).double() / width, torch.arange(height).double()[:, None] / height
    wall = 0.25 + 0.15 * columns + 0.005 * smooth(4, 4, (1, height, width))
    if name == "card before a wall":
        wall[:, 8:24, 10:26] = (0.85 + 0.05 * rows).expand(-1, width)[8:24, 10:26]
    elif name == "soft edge":
        near = torch.sigmoid(width - 2 * torch.arange(width))
        wall = near * 0.8 + (1 - near) * 0.35 + 0.02 * smooth(5, 4, (1, height, width))
    return aif, wall


def slope_of(aif, inverse, weights, psf):
    inverse = inverse.clone().requires_grad_()
    stack = render_focal_stack(aif, 1 / inverse, FOCUS, CAMERA, psf=psf, **OCCLUSION)
    return torch.autograd.grad((stack * weights).sum(), inverse)[0]


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("name", SCENES)
def test_the_gradient_is_the_slope_along_smooth_changes_of_depth(name, psf):
    """Central differences over 1/500 of the distance of two levels average over levels that begin or cease to close."""
    aif, inverse = scene(name)
    weights = smooth(11, 1.0, (1, 4, *aif.shape[1:]))
    slope = slope_of(aif, inverse, weights, psf)
    analytic, numeric = [], []
    for seed in range(6):
        change = smooth(20 + seed, 3, inverse.shape)
        up, down = (
            render_focal_stack(aif, 1 / (inverse + sign * 1e-4 * change), FOCUS, CAMERA, psf=psf, **OCCLUSION)
            for sign in (1, -1)
        )
        numeric.append(float(((up - down) * weights).sum()) / 2e-4)
        analytic.append(float((slope * change).sum()))
    difference = np.linalg.norm(np.subtract(analytic, numeric)) / np.linalg.norm(numeric)
    assert difference < 0.08


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("name", SCENES)
def test_the_gradient_hardly_depends_on_the_grid_of_the_transforms(monkeypatch, name, psf):
    """Coverage that is rounding, or a disc's ringing, does not decide which colour closes an aperture."""
    aif, inverse = scene(name)
    weights = smooth(11, 1.0, (1, 4, *aif.shape[1:]))
    slopes = []
    for budget in (Budget(pixels=1 << 30, overhead=1 << 30, part_px=4096), Budget(pixels=1, overhead=0, part_px=4096)):
        monkeypatch.setitem(occlusion.BUDGETS, "cpu", budget)
        slopes.append(slope_of(aif, inverse, weights, psf))
    assert float((slopes[1] - slopes[0]).norm()) < (0.06 if psf == "disc" else 1e-3) * float(slopes[0].norm())


@lru_cache
def disc_matrix(radius_px, height, width):
    """(N,N) what each pixel gives each: the disc's continuous transform, band-limited, summed point by point."""
    n = 384
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n))
    x = np.maximum(2 * np.pi * frequency * radius_px, 1e-9)
    kernel = np.fft.irfft2(2 * scipy.special.j1(x) / x, s=(n, n))
    rows, columns = (index.ravel() for index in np.mgrid[:height, :width])
    return torch.from_numpy(kernel[rows[:, None] - rows, columns[:, None] - columns])


def direct(aif, inverse, level_px=0.7):
    """The stack pixel by pixel, without Fourier transforms of images."""
    (_, height, width), in_focus = aif.shape, 1 / FOCUS
    scale = CAMERA.blur_scale_px_m / (1 - CAMERA.focal_length_m * in_focus)
    step = level_px / 2.0 ** (round(4 * math.log2(float(scale.max()))) / 4)
    levels = level_grid(inverse, in_focus, step, 48)
    weights = shares_of_levels(inverse, levels)
    slices = []
    for s in range(len(FOCUS)):
        light, covered = torch.zeros_like(aif), torch.zeros_like(inverse)
        for k in range(len(levels) - 1, -1, -1):
            radius = float(scale[s] * (in_focus[s] - levels[k]).abs())
            layer = torch.cat([weights[k] * aif, weights[k][None]]).flatten(1)
            blurred = (layer @ disc_matrix(radius, height, width).T).reshape(4, height, width)
            coverage = torch.where(blurred[3] > 1e-5, blurred[3], 0.0)
            share = ((1 - covered).clamp_min(0) / blurred[3].clamp_min(1e-5)).clamp_max(1)
            light, covered = light + torch.where(coverage > 0, share, 0.0) * blurred[:3], covered + coverage
        slices.append(light / covered.clamp(1e-5, 1))
    return torch.stack(slices)


@pytest.mark.parametrize("name", SCENES)
def test_image_and_slope_of_a_disc_are_those_of_a_sum_over_pixels(name):
    aif, inverse = (x[..., 4:16, 6:20].contiguous() for x in scene(name))
    weights = smooth(11, 1.0, (1, 4, *aif.shape[1:]))
    found = render_focal_stack(aif, 1 / inverse, FOCUS, CAMERA, psf="disc", **OCCLUSION)
    torch.testing.assert_close(found[0], direct(aif[0], inverse[0]), atol=2e-3, rtol=0)
    slope = slope_of(aif, inverse, weights, "disc")
    changes = [smooth(20 + seed, 3, inverse.shape) for seed in range(5)]
    numeric = [
        float(((direct(aif[0], up[0]) - direct(aif[0], down[0])) * weights[0]).sum()) / 6e-4
        for up, down in ((inverse + 3e-4 * change, inverse - 3e-4 * change) for change in changes)
    ]
    analytic = [float((slope * change).sum()) for change in changes]
    assert np.linalg.norm(np.subtract(analytic, numeric)) < 0.1 * np.linalg.norm(numeric)
