"""What a CPU computes, CUDA computes: renderer and gradients, plane sweep, network, refinement, training."""

import csv

import pytest
import torch

from sfdfd.inference.methods import RefinedMethod, SweepMethod
from sfdfd.networks import PlaneSweepNet
from sfdfd.networks.interface import predict_output
from sfdfd.optics import DefocusRenderer
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack
from sfdfd.training.distillation_samples import random_samples
from sfdfd.training.distillation_scenes import TeacherPrediction, random_sample_setup
from tests.commands import SMALL, inside

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
LIGHT = {"psf": "disc", "linear_light": True, "weighting": "occlusion"}


@pytest.fixture(scope="module")
def stack():
    return example_stack(3, 120, 160, **LIGHT)


def mean_error(ours, reference) -> float:
    """Of the mean: at the border of two levels a pixel's slope is that of either, and rounding decides."""
    ours, reference = (value.detach().cpu().double() for value in (ours, reference))
    return float((ours - reference).abs().mean() / reference.abs().mean())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize("linear_light", [False, True])
@pytest.mark.parametrize("weighting", ["source", "target", "occlusion"])
@pytest.mark.parametrize("psf", ["gaussian", "disc", "power:4"])
def test_renderer_and_gradients(stack, psf, weighting, linear_light, dtype, tolerance):
    renderer = DefocusRenderer(psf=psf, weighting=weighting, linear_light=linear_light)
    found = []
    for device in ("cpu", "cuda"):
        aif, depth_m = (value.to(device, dtype).clone().requires_grad_() for value in (stack.aif, stack.depth_m))
        images = renderer(aif, depth_m, stack.focus_distances_m.to(device, dtype), stack.camera)
        upstream = torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        gradients = torch.autograd.grad((images * upstream.to(images)).sum(), (aif, depth_m))
        found.append((images, *gradients))
    for reference, ours, factor in zip(
        *found, (1, 10, 100), strict=True
    ):  # slopes are differences of what nearly agrees
        assert mean_error(ours, reference) < factor * tolerance


def test_plane_sweep(stack):
    renderer = DefocusRenderer(**LIGHT)
    reference, ours = (depth_from_plane_sweep(stack.without_truth().to(device), renderer) for device in ("cpu", "cuda"))
    assert float((ours.depth_m.cpu() / reference.depth_m - 1).abs().mean()) < 1e-4


def test_network(stack):
    renderer = DefocusRenderer(**LIGHT)
    network = PlaneSweepNet(width=8).eval()
    with torch.no_grad():
        reference = predict_output(network, renderer, stack).depth_m
        ours = predict_output(network.cuda(), renderer, stack.to("cuda")).depth_m.cpu()
    assert float((ours / reference - 1).abs().mean()) < 1e-3


def test_refinement(stack):
    renderer = DefocusRenderer(**LIGHT)
    method = RefinedMethod(SweepMethod(renderer), Refiner(seconds=0, steps=10), renderer)
    reference, ours = (method(stack.without_truth().to(device)).depth_m.cpu() for device in ("cpu", "cuda"))
    assert float((ours / reference - 1).abs().mean()) < 5e-3
    errors = [float((depth_m / stack.depth_m - 1).abs().mean()) for depth_m in (reference, ours)]
    assert errors[1] == pytest.approx(errors[0], rel=0.03)


def test_distillation_samples():
    """Without noise, which is another device's."""
    generator = torch.Generator().manual_seed(3)
    position = torch.linspace(0.1, 0.7, 96)[None].expand(96, 96)
    answer = TeacherPrediction(position, torch.rand(3, 96, 96, generator=generator), torch.ones(96, 96))
    setups = [random_sample_setup([answer], (5, seed), 64)._replace(noise_std=0.0) for seed in range(4)]
    for reference, ours in zip(*(random_samples(setups, 8, device) for device in ("cpu", "cuda")), strict=True):
        assert mean_error(ours.images, reference.images) < 1e-3 and mean_error(ours.costs, reference.costs) < 0.05


def test_training(tmp_path):
    losses = []
    for accelerator in ("cpu", "gpu"):
        folder = tmp_path / accelerator
        inside(
            "train", "experiment=procedural", f"trainer.accelerator={accelerator}", "trainer.max_steps=4",
            "trainer.val_check_interval=2", "trainer.log_every_n_steps=1", f"output_dir={folder}", *SMALL, cwd=tmp_path,
        )  # fmt: skip
        losses.append(validation_loss(folder))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def validation_loss(folder) -> float:
    rows = list(csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines()))
    return float([row["val/total"] for row in rows if row.get("val/total")][-1])
