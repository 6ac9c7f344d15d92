"""One concept: whatever turns a stack into a prediction, called the same way everywhere."""

from dataclasses import replace

import pytest
import torch
from kornia.filters import box_blur

from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod
from sfdfd.inference.upsampling import add_residual_detail
from sfdfd.measures.metrics import image_metrics
from sfdfd.networks import FocusAttentionNet, NetworkOutput, classical_network, constant_network
from sfdfd.networks.classical import FunctionNetwork
from sfdfd.networks.interface import render_prediction
from sfdfd.optics import DefocusRenderer
from sfdfd.plane_sweep.sweep import fuse_sharpest_slices
from sfdfd.refinement.confidence import depth_std_m
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import Method
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


@pytest.fixture(scope="module")
def stack():
    return procedural_stacks(1, StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0), seed=4, height=96, width=112)[0]


METHODS = {
    "network": NetworkMethod(FocusAttentionNet(width=8, depth=2), RENDERER),
    "classical": NetworkMethod(classical_network, RENDERER),
    "constant": NetworkMethod(constant_network(2.5), RENDERER),
    "sweep": SweepMethod(RENDERER),
    "refined": RefinedMethod(SweepMethod(RENDERER), Refiner(steps=2), RENDERER),
    "estimator": DefocusEstimator(renderer=RENDERER, refiner=Refiner(steps=2)),
}


@pytest.mark.parametrize("name", METHODS)
def test_no_method_uses_the_truth(name, stack):
    method = METHODS[name]
    assert isinstance(method, Method)
    found = method(stack.without_truth())
    lies = replace(stack, depth_m=torch.full_like(stack.depth_m, torch.nan), aif=torch.zeros_like(stack.aif))
    assert torch.equal(method(lies).depth_m, found.depth_m) and not found.depth_m.requires_grad
    assert found.depth_m.shape == (1, 96, 112) and found.rendered.shape == stack.images.shape


def test_evaluate_and_predict_refine_alike(stack):
    """The AIF has what the model does not explain of the sharpest slices, in both."""
    evaluated, predicted = METHODS["refined"](stack), METHODS["estimator"].predict(stack)
    assert torch.equal(evaluated.aif, predicted.aif) and torch.equal(evaluated.depth_m, predicted.depth_m)
    raw = render_prediction(NetworkOutput(evaluated.depth_m, evaluated.aif), RENDERER, stack)
    assert not torch.equal(add_residual_detail(stack, raw), evaluated.aif)


def test_residual_detail_restores_the_slice_in_focus(stack):
    focused = replace(stack, depth_m=torch.full_like(stack.depth_m, float(stack.focus_distances_m[0, 1])))
    images = RENDERER(stack.aif, focused.depth_m, stack.focus_distances_m, stack.camera)
    blurred = box_blur(stack.aif, 5, border_type="replicate")
    focused = replace(focused, images=images)
    found = add_residual_detail(focused, render_prediction(NetworkOutput(focused.depth_m, blurred), RENDERER, focused))
    before, after = (float((aif - stack.aif).square().mean().sqrt()) for aif in (blurred, found))
    assert after < before / 50


def test_residual_detail_keeps_a_true_aif_beside_a_silhouette(stack):
    """Every slice shows the foreground's blur over the background there, and so does its rendering."""
    light = DefocusRenderer(sigma_scale=0.5, psf="disc", weighting="occlusion", linear_light=True)
    depth_m = torch.full_like(stack.depth_m, 6.0)
    depth_m[:, :, 40:60] = 0.7
    aif = stack.aif * torch.where(depth_m < 1, 1.0, 0.3)[:, None]
    images = light(aif, depth_m, stack.focus_distances_m, stack.camera)
    scene = replace(stack, images=images, depth_m=depth_m)
    found = add_residual_detail(scene, render_prediction(NetworkOutput(depth_m, aif), light, scene))
    torch.testing.assert_close(found, aif)
    assert float((fuse_sharpest_slices(scene, depth_m) - aif).abs()[..., 60:64].mean()) > 0.02


def test_residual_detail_ignores_uncovered_pixels(stack):
    covered = torch.ones_like(stack.images[:, :, 0])
    covered[..., :8] = 0
    prediction = render_prediction(NetworkOutput(stack.depth_m, stack.aif * 0.9), RENDERER, stack)
    found = add_residual_detail(replace(stack, covered=covered), prediction)
    assert torch.equal(found[..., :8], prediction.aif[..., :8]) and not torch.equal(found, prediction.aif)


# ---------------------------------------------------------------- what no slice shows


def half_hidden(stack):
    """The right half of the second slice shows nothing, and lies."""
    covered = torch.ones_like(stack.images[:, :, 0])
    covered[:, 1, :, 56:] = 0
    lying = stack.images.clone()
    lying[:, 1, :, :, 56:] = torch.rand_like(lying[:, 1, :, :, 56:])
    return replace(stack, images=lying, covered=covered)


def test_uncovered_pixels_affect_neither_confidence_nor_stack_psnr(stack):
    hidden = half_hidden(stack)
    other = replace(hidden, images=torch.where(hidden.covered[:, :, None] > 0, hidden.images, 0.5))
    prediction = render_prediction(NetworkOutput(stack.depth_m, stack.aif), RENDERER, stack)
    std = [depth_std_m(one, RENDERER, stack.depth_m, stack.aif) for one in (hidden, other)]
    torch.testing.assert_close(*std)
    figures = [image_metrics(prediction, one).as_dicts()[0]["stack/psnr"] for one in (hidden, other, stack)]
    assert figures[0] == pytest.approx(figures[1]) and figures[0] == pytest.approx(figures[2], abs=1.0)
    blind = replace(hidden, covered=None)
    assert image_metrics(prediction, blind).as_dicts()[0]["stack/psnr"] < figures[0] - 10


def test_coverage_is_used_at_full_size(stack):
    """A large stack is worked on small; what its slices do not show comes back nowhere in the blended AIF."""
    hidden = half_hidden(stack)
    other = replace(hidden, images=torch.where(hidden.covered[:, :, None] > 0, hidden.images, 0.5))

    @FunctionNetwork
    def network(images, *_, **__):
        return NetworkOutput(images.new_full((1, *images.shape[-2:]), 1.5), torch.zeros_like(images[:, 0]))

    estimator = DefocusEstimator(network, RENDERER, working_px=56)
    found = [estimator.predict(replace(one, covered=None), weight=one.covered) for one in (hidden, other)]
    assert found[0].depth_m.shape == (1, 96, 112) and found[0].rendered is None
    torch.testing.assert_close(found[0].aif, found[1].aif, atol=2e-3, rtol=0)
    blind = [estimator.predict(replace(one, covered=None)) for one in (hidden, other)]
    assert float((blind[0].aif - blind[1].aif).abs().max()) > 0.1  # the slice in focus at 1.5 m is the one that lies


def test_a_model_renders_with_its_own_camera(stack):
    other = replace(CAMERA, f_number=4.0)
    own, theirs = (NetworkMethod(classical_network, RENDERER, camera)(stack) for camera in (other, None))
    torch.testing.assert_close(own.defocus_px, 2 * theirs.defocus_px)
    estimator = DefocusEstimator(classical_network, RENDERER, camera=other)
    torch.testing.assert_close(estimator.predict(stack).defocus_px, own.defocus_px)
