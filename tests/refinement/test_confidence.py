"""How sure depth is."""

import pytest
import torch

from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.refinement.confidence import confidence_of, depth_std_m
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.synthesis import StackSynthesis
from tests.conftest import FOCUS_M, start_of

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


def test_texture_and_flat_surfaces_are_told_apart():
    """Left half white noise, right half plain: the plain one knows nothing, and its std is that of the range."""
    torch.manual_seed(1)
    aif = torch.full((1, 3, 64, 96), 0.5)
    aif[..., :48] += 0.2 * torch.randn(1, 1, 64, 48)
    depth_m = torch.full((1, 64, 96), 2.0)
    synthesis = StackSynthesis(RENDERER, Camera(0.05, 8.0, 1.2e-5), FOCUS_M, 0.5, 10.0)
    stack = synthesis(Scene(aif[0].clamp(0, 1), depth_m[0]))
    std = depth_std_m(stack, RENDERER, depth_m, aif)
    left, right = float(std[..., 8:32].mean()), float(std[..., 72:90].mean())
    assert left < 0.02 and right == pytest.approx(2.0**2 * (1 / 0.5 - 1 / 10), rel=0.1)
    confidence = confidence_of(std, depth_m)
    assert confidence[..., 8:32].min() > 0.7 and confidence[..., 72:90].max() < 0.1


def test_the_std_of_textured_pixels_is_about_their_error(scene):
    """A calibration law, loosely: errors of refined depth lie within a few standard deviations."""
    found = Refiner(steps=120)(scene, RENDERER, *start_of(scene))
    std = depth_std_m(scene, RENDERER, found.depth_m, found.aif)
    error = (found.depth_m - scene.depth_m).abs()
    order = std.flatten().argsort(descending=True)
    fifth = order[: len(order) // 5]
    assert error.flatten()[fifth].square().sum() > 0.5 * error.square().sum()
    assert float((error < 3 * std + 0.01).float().mean()) > 0.6
