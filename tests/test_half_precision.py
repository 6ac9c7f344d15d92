"""Stacks in half precision: whatever takes a stack computes in float32, and what comes out is that of the rounded stack."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import NetworkMethod, ReducedMethod, RefinedMethod, SweepMethod, with_confidence
from sfdfd.measures.diagnosis import textured_share
from sfdfd.measures.losses import SelfSupervisedLoss
from sfdfd.measures.metrics import image_metrics
from sfdfd.networks import DAIFNet, FocusAttentionNet, PlaneSweepNet, classical_network, constant_network
from sfdfd.optics import DefocusRenderer
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
from sfdfd.refinement.confidence import depth_std_m
from sfdfd.refinement.energy import energy_of
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import FocalStack
from sfdfd.training.augmentation import StackAugmentation
from tests.training.test_module import module

HALVES = [torch.float16, torch.bfloat16]
LIGHT = DefocusRenderer(psf="disc", weighting="occlusion", linear_light=True)
CODES = DefocusRenderer(sigma_scale=0.5)


@pytest.fixture(scope="module")
def whole():
    return replace(example_stack(3, 32, 40), covered=torch.ones(1, 5, 32, 40))


def built_in_half(stack, dtype):
    """As somebody builds it who keeps images in half precision, distances too."""
    halved = {
        field.name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for field in fields(stack)
        for value in [getattr(stack, field.name)]
    }
    return FocalStack(**halved)


METHODS = {
    **{f"network {index}": NetworkMethod(network, CODES) for index, network in enumerate(
        [DAIFNet(4, 2), FocusAttentionNet(8, 2), PlaneSweepNet(4, 3, 8), classical_network, constant_network(2.5)]
    )},
    "sweep": SweepMethod(CODES),
    "sweep in light": SweepMethod(LIGHT),
    "reduced": ReducedMethod(SweepMethod(CODES)),
    "refined": RefinedMethod(SweepMethod(CODES), Refiner(steps=2), CODES),
    "refined in light": RefinedMethod(SweepMethod(LIGHT), Refiner(steps=2), LIGHT),
    "refined not at all": RefinedMethod(NetworkMethod(DAIFNet(4, 2), CODES), Refiner(seconds=0), CODES),
    "estimator": DefocusEstimator(None, CODES),
    "estimator, reduced": DefocusEstimator(PlaneSweepNet(4, 3, 8), CODES, Refiner(steps=1), working_px=32),
}  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", METHODS)
def test_methods_give_what_they_give_of_the_rounded_stack(whole, name, dtype):
    method = METHODS[name]
    for half in (built_in_half(whole, dtype), whole.to(dtype)):
        found, expected = method(half), method(half.in_full_precision())
        for key, value in vars(expected).items():
            if value is not None:
                assert getattr(found, key).dtype == torch.float32
                torch.testing.assert_close(getattr(found, key), value, rtol=1e-4, atol=1e-5)


def test_a_half_keeps_distances_as_they_are(whole):
    """bfloat16 has three digits: 1.5 m and 1.503 m are one there."""
    for dtype in HALVES:
        half = whole.to(dtype)
        assert half.images.dtype == half.aif.dtype == dtype
        for key in ("focus_distances_m", "near_m", "far_m", "depth_m"):
            assert torch.equal(getattr(half, key), getattr(whole, key))
        assert half.slice_mask.dtype == torch.bool
    assert whole.to(torch.float64).depth_m.dtype == torch.float64
    assert whole.in_full_precision().images is whole.images


@pytest.mark.parametrize("dtype", HALVES)
def test_losses_metrics_and_judgements(whole, dtype):
    half = built_in_half(whole, dtype)
    rounded = half.in_full_precision()
    prediction = SweepMethod(CODES)(rounded)
    loss = SelfSupervisedLoss(aif_blur=0.1, sharpness=0.1)
    for given in (prediction, prediction.to(dtype)):
        full = given.in_full_precision()
        for key, value in loss(given, half).items():
            torch.testing.assert_close(value, loss(full, rounded)[key])
        torch.testing.assert_close(image_metrics(given, half).rows, image_metrics(full, rounded).rows, equal_nan=True)
    torch.testing.assert_close(textured_share(half), textured_share(rounded))
    torch.testing.assert_close(
        depth_from_plane_sweep(half, CODES).depth_m, depth_from_plane_sweep(rounded, CODES).depth_m
    )
    answer = (prediction.depth_m, prediction.aif)
    torch.testing.assert_close(energy_of(half, CODES, *answer), energy_of(rounded, CODES, *answer))
    torch.testing.assert_close(depth_std_m(half, CODES, *answer), depth_std_m(rounded, CODES, *answer))
    assert with_confidence(prediction, half, CODES).confidence.dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_refined_may_start_in_half_precision(whole, dtype):
    start = depth_from_plane_sweep(whole, CODES)
    found = Refiner(steps=1)(whole, CODES, start.depth_m.to(dtype), start.aif.to(dtype))
    assert found.depth_m.dtype == found.aif.dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_training_computes_in_float32(whole, dtype):
    model = module(DAIFNet(4, 2), augmentation=StackAugmentation(crop=24))
    half = built_in_half(FocalStack.collate([whole, whole]), dtype)
    terms = model.compare(model.predicted(half))
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in terms.values())
    moved = StackAugmentation(crop=24)(half)
    assert torch.isfinite(module(DAIFNet(4, 2)).compare(model.predicted(moved))["total"]).all()
