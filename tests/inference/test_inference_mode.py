"""Inside ``torch.inference_mode()`` and ``torch.no_grad()`` everything that infers gives what it gives outside."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod, with_confidence
from sfdfd.networks import PlaneSweepNet
from sfdfd.optics import DefocusRenderer
from sfdfd.optics.psf import PSFBasis
from sfdfd.optics.spectra import _bessel_table, _cached_spectra, _frequencies
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
from sfdfd.refinement.energy import energy_of
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack

RENDERERS = {
    "source": {"sigma_scale": 0.5},
    "occlusion": {"psf": "disc", "weighting": "occlusion", "linear_light": True},
    "window": {"window_px": 7},
}
MODES = [torch.no_grad, torch.inference_mode]


@pytest.fixture
def stack():
    return replace(example_stack(2, 32, 40), covered=torch.ones(1, 5, 32, 40))


def made_inside(stack):
    """The same stack, its tensors made in whatever mode this is called in."""
    return replace(
        stack, **{key: value.clone() for key, value in vars(stack).items() if isinstance(value, torch.Tensor)}
    )


def same(found, expected):
    for key, value in vars(expected).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(found, key), value)


@pytest.mark.parametrize("inside", [True, False], ids=["made inside", "made outside"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["source", "occlusion"])
def test_refinement_is_the_same_in_inference_mode(name, mode, inside):
    stack = example_stack(2, 32, 40, **RENDERERS[name])
    renderer = DefocusRenderer(**RENDERERS[name])
    method = RefinedMethod(SweepMethod(renderer), Refiner(steps=10, fit=("k",)), renderer)
    expected, outside = method.solve(stack)
    with mode():
        found, refinement = method.solve(made_inside(stack) if inside else stack)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode) and not torch.is_grad_enabled()
    same(found, expected)
    assert refinement.steps == 10 and refinement.objective == pytest.approx(outside.objective, rel=1e-4)
    assert refinement.objective < refinement.objective_start


def test_tensors_made_in_inference_mode_can_be_refined_outside_it(stack):
    renderer = DefocusRenderer(sigma_scale=0.5)
    with torch.inference_mode():
        given, start = made_inside(stack), depth_from_plane_sweep(stack, renderer)
        std_m = torch.full_like(start.depth_m, 0.1)
    assert given.images.is_inference()
    found = Refiner(steps=2)(given, renderer, start.depth_m, start.aif, depth_std_m=std_m)
    outside = depth_from_plane_sweep(stack, renderer)
    same(found, Refiner(steps=2)(stack, renderer, outside.depth_m, outside.aif, depth_std_m=std_m.clone()))
    assert not found.depth_m.is_inference() and given.images.is_inference()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RENDERERS)
def test_renderers_are_the_same_in_inference_mode(stack, name, mode):
    renderer = DefocusRenderer(**RENDERERS[name])
    expected = renderer(stack.aif, stack.depth_m, stack.focus_distances_m, stack.camera)
    with mode():
        for one in (stack, made_inside(stack)):
            found = renderer(one.aif, one.depth_m, one.focus_distances_m, one.camera)
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_methods_and_the_estimator_are_the_same_in_inference_mode(stack, mode):
    renderer, network = DefocusRenderer(sigma_scale=0.5), PlaneSweepNet(4, 3, 8)
    large = example_stack(2, 72, 80)
    methods = [
        (NetworkMethod(network, renderer), stack), (SweepMethod(renderer), stack),
        (DefocusEstimator(network, renderer), stack),
        (DefocusEstimator(network, renderer, Refiner(steps=2), working_px=40), large),
    ]  # fmt: skip
    for method, given in methods:
        expected = method(given)
        with mode():
            same(method(made_inside(given)), expected)
    prediction = SweepMethod(renderer)(stack)
    expected = (
        with_confidence(prediction, stack, renderer),
        energy_of(stack, renderer, prediction.depth_m, prediction.aif),
    )
    with mode():
        inside = made_inside(stack)
        same(with_confidence(prediction, inside, renderer), expected[0])
        torch.testing.assert_close(energy_of(inside, renderer, prediction.depth_m, prediction.aif), expected[1])


@pytest.mark.parametrize("psf", ["gaussian", "disc", "power:4"])
@pytest.mark.parametrize("weighting", ["source", "target", "occlusion"])
def test_tensors_cached_in_inference_mode_allow_gradients(stack, weighting, psf):
    for kept in (_frequencies, _bessel_table, _cached_spectra, PSFBasis.spectra):
        kept.cache_clear()
    renderer = DefocusRenderer(psf=psf, weighting=weighting)
    gradients = []
    for before in (torch.inference_mode(), nullcontext()):
        with before:
            renderer(stack.aif, stack.depth_m, stack.focus_distances_m, stack.camera)
        aif, depth_m = stack.aif.clone().requires_grad_(), stack.depth_m.clone().requires_grad_()
        focus_m = stack.focus_distances_m.clone().requires_grad_()
        images = renderer(aif, depth_m, focus_m, stack.camera)
        gradients.append(torch.autograd.grad(images.square().mean(), (aif, depth_m, focus_m)))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)
    assert not _frequencies((16, 18)).is_inference() and not _bessel_table("value", 16)[0].is_inference()
