"""Off the CPU: no float64 (Apple's MPS has none), no tensor left behind, and the figures of the CPU."""

from dataclasses import replace

import pytest
import torch

from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod, with_confidence
from sfdfd.inference.upsampling import sharpest_slice_index, upsample_prediction
from sfdfd.measures.diagnosis import textured_share
from sfdfd.measures.left_out import score_left_out_slices
from sfdfd.measures.losses import SelfSupervisedLoss
from sfdfd.measures.metrics import EvaluationMetrics, depth_metrics, image_metrics, psnr, ssim
from sfdfd.measures.regions import regions
from sfdfd.networks import DAIFNet, FocusAttentionNet, PlaneSweepNet, classical_network, constant_network
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.optics.render import render_blurred
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
from sfdfd.refinement.energy import energy_of
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import FocalStack
from sfdfd.training.augmentation import StackAugmentation
from sfdfd.training.module import DepthFromDefocus
from tests.elsewhere import DEVICE, Elsewhere, elsewhere

LIGHT = {"psf": "disc", "weighting": "occlusion", "linear_light": True}
RENDERERS = {
    "source": {"sigma_scale": 0.5},
    "source, exact": {"sigma_scale": 0.5, "method": "exact"},
    "target": {"sigma_scale": 0.5, "weighting": "target", "psf": "disc"},
    "linear, power": {"linear_light": True, "psf": "power:4"},
    "window": {"window_px": 7, "smallest_radius_px": 0.1, "copied_radius_px": 0.5},
    "window, target": {"window_px": 7, "weighting": "target"},
    "occlusion": LIGHT,
    "occlusion, gaussian": {**LIGHT, "psf": "gaussian"},
    "occlusion, power": {**LIGHT, "psf": "power:4"},
}


@pytest.fixture(autouse=True)
def there(monkeypatch):
    with elsewhere(monkeypatch):
        yield


@pytest.fixture(scope="module")
def stack():
    return example_stack(3, 24, 32, **LIGHT).with_slices([0, 2, 4])


def agree(ours, reference, tolerance=1e-4):
    assert isinstance(ours, Elsewhere) and ours.device == DEVICE
    torch.testing.assert_close(ours.detach().cpu(), reference.detach(), rtol=tolerance, atol=tolerance)


def same_prediction(ours, reference, tolerance=1e-3):
    for key, value in vars(reference).items():
        if value is not None:
            agree(getattr(ours, key), value, tolerance * float(value.abs().max()))


def test_the_stand_in_refuses_what_mps_refuses():
    values = torch.rand(3).to(DEVICE)
    assert (values + 1).device == DEVICE and values.cpu().device.type == "cpu"
    for mistake in (
        lambda: values.double(), lambda: torch.zeros(2, dtype=torch.float64, device=DEVICE),
        lambda: torch.rand(2, dtype=torch.float64).to(DEVICE), lambda: values + torch.rand(3), lambda: values.numpy(),
        lambda: values.sum(dtype=torch.float64), lambda: torch.tensor([1.0], dtype=torch.float64, device=DEVICE),
    ):  # fmt: skip
        with pytest.raises((TypeError, RuntimeError)):
            mistake()


@pytest.mark.parametrize("name", RENDERERS)
def test_renderers_with_all_their_gradients(stack, name):
    renderer = DefocusRenderer(**RENDERERS[name])
    found = []
    for device in ("cpu", DEVICE):
        moved = stack.to(device)
        values = [moved.aif, moved.depth_m, moved.focus_distances_m, torch.ones(1).to(device)]
        values = [value.clone().requires_grad_() for value in values]
        hidden = {}
        if name.startswith("occlusion"):
            hidden = {"hidden": (moved.aif.flip(-1), moved.depth_m * 1.5, torch.ones_like(moved.depth_m))}
        images = renderer(*values[:3], moved.camera, blur_factor=values[3], **hidden)
        found.append((images, *torch.autograd.grad(images.square().mean(), values)))
    for reference, ours in zip(*found, strict=True):
        agree(ours, reference, 1e-3 * max(float(reference.detach().abs().max()), 1e-6))


def test_focus_distances_in_float64_on_the_cpu_are_brought_along(stack):
    moved, renderer = stack.to(DEVICE), DefocusRenderer(sigma_scale=0.5)
    reference = renderer(stack.aif, stack.depth_m, stack.focus_distances_m, stack.camera)
    agree(renderer(moved.aif, moved.depth_m, stack.focus_distances_m.double(), moved.camera), reference)


def test_radii_without_a_camera(stack):
    radius_px = torch.full((1, 2, 24, 32), 3.0)
    agree(
        render_blurred(stack.aif.to(DEVICE), radius_px.to(DEVICE), psf="disc"),
        render_blurred(stack.aif, radius_px, psf="disc"),
    )


@pytest.mark.parametrize(
    "network",
    [DAIFNet(4, 2), FocusAttentionNet(8, 2), PlaneSweepNet(4, 3, 8), classical_network, constant_network(2.5)],
    ids=["daif", "attention", "sweep", "classical", "constant"],
)
def test_networks(stack, network):
    renderer = DefocusRenderer(**LIGHT)
    reference = NetworkMethod(network, renderer)(stack)
    ours = NetworkMethod(network, renderer, device=DEVICE)(stack.to(DEVICE))
    same_prediction(
        with_confidence(ours, stack.to(DEVICE), renderer), with_confidence(reference, stack, renderer), 1e-2
    )


@pytest.mark.parametrize("size", [(24, 32), (96, 96)])
def test_the_plane_sweep(size):
    stack, renderer = example_stack(3, *size, **LIGHT).with_slices([0, 4]), DefocusRenderer(**LIGHT)
    reference, ours = (depth_from_plane_sweep(one, renderer) for one in (stack, stack.to(DEVICE)))
    for one, other in zip(ours[:3], reference[:3], strict=True):
        agree(one, other, 2e-2 * float(other.abs().max()))


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("source", ()),
        ("occlusion", ()),
        ("source", ("k",)),
        ("occlusion", ("k", "shape")),
    ],
)
def test_refinement_and_what_it_fits_of_the_lens(stack, name, fit):
    renderer, refiner = DefocusRenderer(**RENDERERS[name]), Refiner(steps=1, fit=fit)
    found = [RefinedMethod(SweepMethod(renderer), refiner, renderer).solve(one) for one in (stack, stack.to(DEVICE))]
    assert found[1][1].objective == pytest.approx(found[0][1].objective, rel=1e-2)
    assert isinstance(found[1][0].depth_m, Elsewhere) and found[1][1].steps == 1
    moved = stack.to(DEVICE)
    agree(energy_of(moved, renderer, moved.depth_m, moved.aif), energy_of(stack, renderer, stack.depth_m, stack.aif))


def test_the_estimator_and_what_it_enlarges():
    stack = example_stack(3, 96, 120, **LIGHT).with_slices([0, 2, 4])
    renderer = DefocusRenderer(**LIGHT)
    network = PlaneSweepNet(4, 3, 8)
    reference = DefocusEstimator(network, renderer, Refiner(steps=2), working_px=64)(stack)
    away = DefocusEstimator(network, renderer, Refiner(steps=2), working_px=64, device=DEVICE)
    same_prediction(away(stack.to(DEVICE)), reference, 5e-2)
    home = away(stack)
    assert not isinstance(home.depth_m, Elsewhere)
    small = stack.resized(48, 60).to(DEVICE)
    prediction = with_confidence(SweepMethod(renderer)(small), small, renderer)
    full = upsample_prediction(prediction, small, list(stack.images[0].to(DEVICE)), (96, 120), stack.camera[0])
    assert isinstance(full.aif, Elsewhere) and full.depth_m.shape == (1, 96, 120)
    index = sharpest_slice_index(full.depth_m[0], small.focus_distances_m[0], stack.camera[0])
    assert isinstance(index, Elsewhere)


def test_losses_and_their_gradients(stack):
    found = []
    for device in ("cpu", DEVICE):
        moved = stack.to(device)
        network = DAIFNet(4, 2)
        torch.manual_seed(0)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        network = network.to(device)
        loss = SelfSupervisedLoss(aif_blur=0.1, sharpness=0.1, border_px=2)
        model = DepthFromDefocus(network, DefocusRenderer(**LIGHT), loss, StackAugmentation(crop=20), left_out=1)
        batch = FocalStack.collate([moved, moved.with_slices([0, 1])])
        batch = replace(
            StackAugmentation(crop=20)(replace(batch, random_key=(1, 2))).without_truth(), random_key=(1, 2)
        )
        terms = model.compare(model.predicted(batch))
        terms["total"].mean().backward()
        found.append((*terms.values(), next(network.parameters()).grad))
    for reference, ours in zip(*found, strict=True):
        agree(ours, reference, 1e-2 * max(float(reference.detach().abs().max()), 1e-6))


def test_metrics_and_judgements(stack):
    moved = stack.to(DEVICE)
    renderer = DefocusRenderer(**LIGHT)
    found = []
    for one in (stack, moved):
        prediction = SweepMethod(renderer)(one)
        metrics = EvaluationMetrics()
        metrics.update(image_metrics(prediction, one))
        inputs, aside = one.with_slices([0, 2]), one.with_slices([1])
        judged = score_left_out_slices(inputs, SweepMethod(renderer)(inputs), renderer, aside)
        found.append({**metrics.compute(), "judged": judged[0].figures.psnr_db})
        assert all(mask.dtype == torch.bool for mask in regions(one.depth_m, one.aif).values())
    assert found[1] == pytest.approx(found[0], rel=2e-2, abs=1e-2)
    for measure in (psnr, ssim):
        close = measure(moved.aif, moved.aif * 0.9).cpu()
        torch.testing.assert_close(close, measure(stack.aif, stack.aif * 0.9), rtol=1e-4, atol=1e-4)
    assert float(depth_metrics(moved.depth_m, moved.depth_m, moved.valid)["abs_rel"]) == 0
    agree(textured_share(moved), textured_share(stack))


def test_gradients_in_float64_stay_on_the_cpu():
    """What gradcheck needs."""
    aif = torch.rand(1, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    depth_m = (1 + torch.rand(1, 6, 7, dtype=torch.float64)).requires_grad_()
    focus_m, camera = torch.tensor([1.0, 3.0], dtype=torch.float64), Camera(0.02, 4.0, 2e-5)
    renderer = DefocusRenderer(sigma_scale=0.5)
    assert renderer(aif, depth_m, focus_m, camera).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda a, d: renderer(a, d, focus_m, camera), (aif, depth_m), fast_mode=True)
