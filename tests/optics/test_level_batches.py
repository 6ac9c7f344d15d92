"""Levels in batches against a loop over levels, and how many operators a render launches."""

import math

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sfdfd.optics import Camera, DefocusRenderer, occlusion
from sfdfd.optics.level_batches import Budget, fast_lengths
from sfdfd.optics.levels import SceneRange
from sfdfd.optics.psf import get_psf
from tests.optics.levels import level_grid, shares_of_levels

CAMERA = Camera(0.05, 8.0, 2.4e-5)
FOCUS = torch.tensor([1.1, 2.3], dtype=torch.float64)
BUDGETS = {
    "one batch": Budget(pixels=1 << 30, overhead=1 << 30, part_px=4096),
    "a batch a level": Budget(pixels=1, overhead=0, part_px=4096),
    "parts": Budget(pixels=1 << 30, overhead=1 << 10, part_px=40),
}


def scene(batch=1, height=52, width=70, seed=0):
    """A slanted wall with a card before it, at depths that lie on no level."""
    generator = torch.Generator().manual_seed(seed)
    aif = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)
    inverse = 0.2 + 0.3 * torch.linspace(0, 1, width, dtype=torch.float64).expand(batch, height, width).clone()
    inverse[:, 12:31, 20:44] = 0.93
    return aif, inverse + 0.01 * torch.rand(inverse.shape, generator=generator, dtype=torch.float64)


def kernel_spectrum(psf, size, shape):
    """A sampled PSF of the family, cut where the renderer cuts it, on a grid; in NumPy."""
    size = size if size >= 2 * psf.floor_px else psf.floor_px + size**2 / (4 * psf.floor_px)
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    kernel = psf.weight(rows[:, None] ** 2.0 + columns[None] ** 2.0, size)
    reach = max(1, psf.reach_px(size))
    kernel = np.where((rows[:, None] <= reach) & (columns[None] <= reach), kernel, 0.0)
    return torch.from_numpy(np.fft.rfft2(kernel / kernel.sum()))


def reference(aif, inverse, focus, psf, sigma_scale, level_px=0.7, hidden=()):
    """One sample by a loop over levels and slices on the whole image, differentiated by autograd."""
    in_focus, extent = 1 / focus, aif.shape[-2:]
    scale = CAMERA.blur_scale_px_m / (1 - CAMERA.focal_length_m * in_focus)
    step = level_px / 2.0 ** (round(4 * math.log2(float(scale.max()))) / 4)
    levels = level_grid(torch.stack([inverse, *(u for _, u, _ in hidden)]).detach(), in_focus, step, 48)
    planes = 0.0
    for colours, depth, cover in ((aif, inverse, torch.ones_like(inverse)), *hidden):
        weights = shares_of_levels(depth, levels) * cover
        planes = planes + weights[:, None] * torch.cat([colours, torch.ones_like(colours[:1])])
    slices = []
    for s in range(len(focus)):
        light, covered = torch.zeros_like(aif), torch.zeros_like(inverse)
        for k in range(len(levels) - 1, -1, -1):
            size = float(psf.size_px(scale[s] * (in_focus[s] - levels[k]).abs(), sigma_scale))
            shape = [2 * n + 2 * psf.reach_px(size) for n in extent]
            spectrum = torch.fft.rfft2(planes[k], s=shape) * kernel_spectrum(psf, size, shape)
            blurred = torch.fft.irfft2(spectrum, s=shape)[:, : extent[0], : extent[1]]
            visible = blurred[3] > 1e-5
            room, coverage = (1 - covered).clamp_min(0), blurred[3]
            share = (room / coverage.clamp_min(1e-5)).clamp_max(1)
            light = light + torch.where(visible, share, 0.0) * blurred[:3]
            covered = covered + torch.where(visible, blurred[3], 0.0)
        slices.append(light / covered.clamp(1e-5, 1))
    return torch.stack(slices)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("psf", ["gaussian", "power:4"])
def test_batches_of_levels_are_a_loop_over_levels(monkeypatch, psf, budget):
    """Whatever the batches: image, and gradients in image and depth."""
    monkeypatch.setitem(occlusion.BUDGETS, "cpu", BUDGETS[budget])
    monkeypatch.setattr(occlusion, "LEAST_CLOSING_COVERAGE", 1e-5)
    monkeypatch.setattr(occlusion, "ROUNDING", 0.0)
    aif, inverse = scene()
    counts = torch.rand(2, 3, *inverse.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    renderer = DefocusRenderer(weighting="occlusion", psf=psf, sigma_scale=0.5)
    leaves = [[x.clone().requires_grad_() for x in (aif, inverse)] for _ in range(2)]
    found = renderer(leaves[0][0], 1 / leaves[0][1], FOCUS, CAMERA)[0]
    expected = reference(leaves[1][0][0], leaves[1][1][0], FOCUS, get_psf(psf), 0.5)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)
    gradients = [torch.autograd.grad((x * counts).sum(), at) for x, at in zip((found, expected), leaves, strict=True)]
    torch.testing.assert_close(gradients[0][0], gradients[1][0], atol=1e-7, rtol=1e-6)
    difference = (gradients[0][1] - gradients[1][1]).abs()
    assert float((difference > 1e-6 * gradients[1][1].abs().max()).double().mean()) < 1e-3


def test_a_hidden_surface_is_blurred_in_the_same_batches():
    aif, inverse = scene()
    cover = (inverse > 0.9).to(aif)
    behind = aif.flip(-1), torch.full_like(inverse, 0.337), cover
    renderer = DefocusRenderer(weighting="occlusion", sigma_scale=0.5)
    found = renderer(aif, 1 / inverse, FOCUS, CAMERA, hidden=(behind[0], 1 / behind[1], cover))[0]
    expected = reference(aif[0], inverse[0], FOCUS, get_psf("gaussian"), 0.5, hidden=[tuple(x[0] for x in behind)])
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("budget", BUDGETS)
def test_samples_of_other_blur_and_depth_share_batches(monkeypatch, budget):
    monkeypatch.setitem(occlusion.BUDGETS, "cpu", BUDGETS[budget])
    (aif, inverse), cameras = scene(3, 30, 36), [CAMERA, Camera(0.05, 16.0, 2.4e-5), Camera(0.035, 2.0, 2e-5)]
    inverse = inverse * torch.tensor([1.0, 0.4, 2.0], dtype=torch.float64)[:, None, None]
    renderer = DefocusRenderer(weighting="occlusion", sigma_scale=0.5)
    together = renderer(aif, 1 / inverse, FOCUS, cameras)
    for b in range(3):
        alone = renderer(aif[b : b + 1], 1 / inverse[b : b + 1], FOCUS, cameras[b])
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-9, rtol=0)


def test_what_levels_depend_on_is_read_back_at_once():
    scene_range = SceneRange.read(torch.tensor([[0.1, 0.5, 0.5]]), torch.tensor([[0.2]]), torch.tensor([[30.0]]))
    assert scene_range.high_count.tolist() == [2] and scene_range.pixels == 3
    assert scene_range.low.tolist() == pytest.approx([0.1]) and scene_range.px_per_inverse.tolist() == [[30.0]]


def test_fast_lengths_are_no_shorter_and_little_longer():
    least = np.arange(1, 3000)
    lengths = fast_lengths(least)
    assert (lengths >= least).all() and (lengths[60:] <= 1.2 * least[60:]).all() and 384 not in lengths


def operators(batch):
    """Operators, and values read back, of a render of (batch,5,3,64,64) and its gradient."""
    aif, inverse = (x.float() for x in scene(batch, 64, 64))
    aif, depth_m = aif.requires_grad_(), (1 / inverse).requires_grad_()
    renderer = DefocusRenderer(weighting="occlusion", sigma_scale=0.5)

    def step():
        renderer(aif, depth_m, torch.tensor([1.0, 1.5, 2.5, 4.0, 6.0]), CAMERA).sum().backward()

    step()  # kernels are cached
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    names = [event.name for event in recorded.events()]
    return sum(name.startswith("aten::") for name in names), names.count("aten::_local_scalar_dense")


def test_a_batch_launches_few_operators_and_reads_nothing_back():
    """A loop over levels launched 39000 for eight samples, and read 190 values back."""
    one, read_one = operators(1)
    eight, read_eight = operators(8)
    assert one < 1500 and eight < 2500
    assert read_one <= 2 and read_eight <= 2
