"""The data term: robust residuals, clipped pixels, weights of slices."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.data_term import DataTerm
from sfdfd.refinement.energy import Energy, energy_of
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.settings import RefinementSettings
from sfdfd.refinement.start_term import start_from_depth
from sfdfd.refinement.variables import Stage
from sfdfd.scenes.example_stack import example_stack

RENDERER = DefocusRenderer(weighting="occlusion", sigma_scale=0.5, method="fast")
SETTINGS = RefinementSettings()


def variables_of(energy, stack):
    return energy.variables(stack.depth_m, stack.aif, Lens((), 1, stack.aif))


def test_it_is_the_weighted_mean_of_robust_residuals():
    """Against five lines of NumPy."""
    stack = example_stack(weighting="occlusion")
    covered = torch.ones_like(stack.images[:, :, 0])
    covered[:, 1, :10] = 0
    stack = replace(stack, covered=covered)
    energy = Energy.at_full_size(stack, RENDERER, SETTINGS)
    variables = variables_of(energy, stack)
    with torch.no_grad():
        found = float(DataTerm(energy.level)(variables, Stage()))
        rendered = energy.model.render(variables)
    residual = (rendered - stack.images).double().numpy()
    residual = np.where(stack.images.numpy() >= 254.5 / 255, np.minimum(residual, 0), residual)
    weights = covered.numpy()[:, :, None] / covered.numpy().mean()
    c = SETTINGS.outlier_level
    expected = (weights * c * np.log1p(np.sqrt(residual**2 + 1e-5) / c)).mean()
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_rendering_brighter_than_a_clipped_pixel_costs_nothing(scene):
    bright = replace(scene, images=torch.ones_like(scene.images))
    aif = torch.full_like(scene.aif, 1.0)
    renderer = DefocusRenderer(sigma_scale=0.5, method="fast")
    brighter = energy_of(bright, renderer, scene.depth_m, 1.3 * aif)
    darker = energy_of(bright, renderer, scene.depth_m, 0.7 * aif)
    assert torch.allclose(brighter, energy_of(bright, renderer, scene.depth_m, aif)) and darker > brighter + 0.015


def test_slices_with_large_initial_residuals_weigh_less():
    stack = example_stack(weighting="occlusion")
    noisy = stack.images.clone()
    noisy[:, 1] += 0.0017 / 0.3186 * torch.randn(noisy[:, 1].shape, generator=torch.Generator().manual_seed(0))
    noisy[:, 2] += 0.2
    start = start_from_depth(stack, stack.depth_m, torch.ones_like(stack.depth_m))

    def weighted(images, covered=None):
        energy = Energy.at_full_size(replace(stack, images=images, covered=covered), RENDERER, SETTINGS, start)
        return energy.with_slice_weights(variables_of(energy, stack)).level

    clean, worse = weighted(stack.images), weighted(noisy)
    assert torch.allclose(torch.as_tensor(clean.slice_weights), torch.ones(1)) and float(clean.explained) == 1
    share = torch.tensor([1.0, (0.0013 / 0.0017) ** 2, 0.5] + [1.0] * (noisy.shape[1] - 3)).clamp_min(0.5)
    torch.testing.assert_close(worse.slice_weights.flatten(), share / share.mean(), rtol=0.08, atol=0)
    assert float(worse.explained) == pytest.approx(float(share.mean()), rel=0.05)
    half = Energy(worse).halved().level
    assert half.slice_weights is worse.slice_weights and half.explained is worse.explained

    covered = torch.ones_like(stack.images[:, :, 0])
    covered[:, 2, :, 10:] = 0  # uncovered pixels do not count
    dark = noisy.clone()
    dark[:, 2] = torch.where(covered[:, 2, None] > 0, stack.images[:, 2], 0.9)
    weights = weighted(dark, covered).slice_weights
    assert float(weights[0, 2]) > float(weights[0, 1])


def test_slices_of_large_images_are_judged_at_half_the_size(monkeypatch):
    stack, sizes = example_stack(weighting="occlusion"), []
    renderer = DefocusRenderer(weighting="occlusion", sigma_scale=0.5, method="fast")
    renderer.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    images = stack.images.clone()
    images[:, 2] += 0.2
    for largest in (48 * 64, 48 * 64 - 1):
        monkeypatch.setattr("sfdfd.refinement.energy.LARGE_PX", largest)
        energy = Energy.at_full_size(replace(stack, images=images), renderer, SETTINGS)
        level = energy.with_slice_weights(variables_of(energy, stack)).level
        weights = torch.as_tensor(level.slice_weights).flatten() * level.explained
        assert int(weights.argmin()) == 2 and float(weights[2]) == pytest.approx(0.5)
        assert float(weights[[0, 1, 3, 4]].min()) > 0.55  # .57 to .65, by processor
    assert sizes == [(48, 64), (24, 32)]
