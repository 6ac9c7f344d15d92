"""Lamps on a dark scene: what is clipped stays clipped through exposure, alignment and reduction, and misleads nothing."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb

from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.upsampling import blend_slices
from sfdfd.measures.exposure import exposure_gains
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import AlignSettings, align_clipped, estimate_alignment
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.lookup import example_photographs
from sfdfd.plane_sweep.cost_volume import StackDefocus, restore_clipped, stack_defocus, sweep_residuals
from sfdfd.refinement.data_term import DataTerm
from sfdfd.refinement.energy import Energy
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.refiner import Refiner
from sfdfd.refinement.settings import RefinementSettings
from sfdfd.scenes.procedural import make_scene
from sfdfd.stack import FocalStack
from sfdfd.training.checkpoints import load_model
from tests.conftest import CAMERA, FOCUS_M

HEIGHT, WIDTH, LAMPS = 144, 192, 40
EXPOSURES = (1.0, 0.8, 1.25, 0.9, 1.15)
LENS = DefocusRenderer(psf="disc", weighting="source", linear_light=True, method="exact")
MODEL = DefocusRenderer(psf="disc", weighting="occlusion", linear_light=True, method="fast")


@cache
def photographed(seed: int, exposures: tuple[float, ...] = EXPOSURES):
    """Slices (H,W,3) of a dark scene with lamps of one pixel, its depth and AIF, and the distance to the next lamp."""
    rng = np.random.default_rng(seed)
    aif, depth_m = make_scene(seed, 50 + seed, HEIGHT, WIDTH, 0.7, 8.0)
    light = rgb_to_linear_rgb(0.35 * torch.from_numpy(aif).permute(2, 0, 1)[None])
    rows, columns = rng.integers(6, HEIGHT - 6, LAMPS), rng.integers(6, WIDTH - 6, LAMPS)
    light[0, :, rows, columns] = torch.from_numpy(rng.uniform(5, 20, (3, LAMPS))).float()
    codes, depth = linear_rgb_to_rgb(light), torch.from_numpy(depth_m)[None]
    with torch.no_grad():
        slices = rgb_to_linear_rgb(LENS(codes, depth, torch.tensor(FOCUS_M), CAMERA)[0])
    exposed = linear_rgb_to_rgb(slices * torch.tensor(exposures)[:, None, None, None])
    images = tuple((255 * one.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy() for one in exposed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    away = np.hypot(y[..., None] - rows, x[..., None] - columns).min(-1)
    return images, depth, codes.clamp(0, 1), torch.from_numpy(away)


def captured(images, **options):
    photographs = replace(example_photographs(HEIGHT, WIDTH), images=images, near_m=0.6, far_m=9.0)
    return Capture.of(photographs, MODEL, align=AlignSettings(mode=False), calibrate=False, **options)


@pytest.mark.parametrize("seed", [0, 3])
def test_depth_beside_lamps_is_right_and_the_aif_has_no_rings(seed):
    images, depth_m, aif, away = photographed(seed)
    stack = captured(images).stack()
    module, _ = load_model("pretrained", {})
    found, _ = DefocusEstimator(module.network, MODEL, Refiner(steps=12)).solve(stack)
    beside = (away > 1.5) & (away <= 8)
    error = ((found.depth_m - depth_m).abs() / depth_m)[0]
    assert float(error[beside].mean()) < 0.1
    rings = (found.aif - aif).abs().mean(1)[0][beside]
    assert float((rings > 0.12).float().mean()) < 0.02  # of the ground is nowhere brighter than .35


def test_gains_are_not_of_the_lamps():
    """A blurred slice shows more of a lamp's light than a sharp one, which clips it."""
    same = exposure_gains(photographed(0, (1.0,) * 5)[0], 2, np.ones((5, HEIGHT, WIDTH), bool))
    np.testing.assert_allclose(same, 1, atol=0.03)


def test_what_was_clipped_stays_so_below_white():
    images = [np.full((40, 48, 3), 100, np.uint8) for _ in range(3)]
    for image, gain in zip(images, (1.0, 1.0, 1.25), strict=True):
        image[:] = np.minimum(image * gain, 255).astype(np.uint8)
        image[10:14, 20:24, 0] = 255
    photographs = replace(example_photographs(40, 48).with_slices([0, 1, 2]), images=tuple(images))
    capture = Capture.of(photographs, MODEL, align=AlignSettings(mode=False), calibrate=False)
    stack = capture.stack()
    assert capture.gains[2] == pytest.approx(0.8, abs=0.01)
    lamp = stack.images[0, 2, 0, 10:14, 20:24]
    assert float(lamp.max()) < 0.85 and stack.saturated()[0, 2, 0, 10:14, 20:24].all()
    assert int(stack.saturated()[0, 2].sum()) == 16  # of red alone
    small = capture.stack(24)
    assert small.saturated()[0, 2, 0, 5:7, 10:12].all() and float(small.images[0, 2, 0, 5:7, 10:12].max()) < 0.85


def test_clipped_pixels_move_with_their_slice():
    base = np.random.default_rng(0).integers(60, 180, (96, 128, 3)).astype(np.uint8)
    base[40:44, 60:64] = 255
    images = [np.roll(base, shift, 1) for shift in (0, 0, 3)]
    alignment = estimate_alignment(images)
    matrices = np.tile(np.eye(3), (3, 1, 1))
    matrices[2, 0, 2] = 3.4
    drawn = align_clipped(images, replace(alignment, matrices=matrices, radial=np.zeros(3), reference=1))
    assert drawn[0][40:44, 60:64].all() and drawn[0].sum() == 48
    assert drawn[2][40:44, 60:63].all() and not drawn[2][:, 66:].any() and not drawn[2][:38].any()


def stack_of(clipped):
    images = torch.rand(3, 3, 20, 28, generator=torch.Generator().manual_seed(1)) * 0.7
    return FocalStack.single(images, [1.0, 2.0, 4.0], CAMERA, 0.5, 10.0, clipped=clipped)


def test_a_stack_keeps_what_is_clipped():
    clipped = torch.zeros(3, 3, 20, 28, dtype=torch.bool)
    clipped[1, 0, 5, 6] = True
    stack = stack_of(clipped)
    assert stack.with_slices([1, 2]).saturated()[0, 0, 0, 5, 6] and stack.cropped(4, 10, 5, 12).clipped[0, 1, 0, 1, 1]
    assert stack.flipped([-1]).clipped[0, 1, 0, 5, 21] and stack.to(torch.float64).clipped.dtype == torch.bool
    assert stack.resized(7, 9).clipped.sum() > 0 and stack_of(None).resized(7, 9).clipped is None
    other = stack_of(None).cropped(0, 12, 0, 16).with_slices([0, 1])
    both = FocalStack.collate([stack, other])
    assert both.clipped.shape == both.images.shape and int(both.clipped.sum()) == 1
    assert int(both[0].clipped.sum()) == 1 and both[1].clipped.shape == other.images.shape


def test_brighter_than_clipped_leaves_nothing_at_any_size():
    clipped = torch.zeros(3, 3, 20, 28, dtype=torch.bool)
    clipped[1, :, 4:6, 6:8] = True
    stack = stack_of(clipped)
    energy = Energy.at_full_size(stack, MODEL, RefinementSettings())
    variables = energy.variables(torch.full((1, 20, 28), 2.0), stack.images[:, 0], Lens((), 1, like=stack.images))
    term = DataTerm(energy.level)
    term.model.render = lambda *_: stack.images + 0.2
    residual = term.residual(variables)
    assert (residual[0, 1, :, 4:6, 6:8] == 0).all() and torch.allclose(residual[0, 0], torch.tensor(0.2))
    saturated = energy.halved().level.stack.saturated()
    assert saturated[0, 1, :, 2, 3].all() and int(saturated.sum()) == 3


def test_lamps_get_back_what_they_lost():
    """Slices of one lamp of 12 times white, in focus and as a disc."""
    sharp, disc = torch.full((1, 41, 41), 0.05), torch.full((1, 41, 41), 0.05)
    sharp[0, 20, 20] = 1.0
    disc[0, 17:24, 17:24] += 12 / 49
    light = torch.stack([sharp, disc])
    found = restore_clipped(light, light >= 1, 5.0)
    assert float(found[0, 0, 20, 20]) == pytest.approx(12.0, rel=0.15)
    assert torch.equal(found[1], light[1]) and torch.equal(found[light < 1], light[light < 1])


def test_a_stack_without_clipped_pixels_is_swept_as_ever():
    stack = stack_of(None)
    known = stack_defocus(stack, MODEL)
    assert known.clipped is None
    told = known._replace(clipped=torch.zeros_like(stack.images, dtype=torch.bool))
    costs = [sweep_residuals(stack.images[0], stack.coverage()[0], one, 0, planes=8) for one in (known, told)]
    assert torch.equal(*costs) and isinstance(known, StackDefocus)


def test_a_blend_asks_those_that_know_how_bright_it_is():
    depth_m, focus = torch.full((8, 8), 2.0), torch.tensor([2.0, 2.05])
    slices = [torch.full((3, 8, 8), 0.8), torch.full((3, 8, 8), 0.95)]
    clipped = [torch.ones(3, 8, 8, dtype=torch.bool), torch.zeros(3, 8, 8, dtype=torch.bool)]
    plain, told = (blend_slices(slices, depth_m, focus, CAMERA, None, one) for one in (None, clipped))
    assert float(told.mean()) > 0.9 > float(plain.mean())
    assert F.l1_loss(blend_slices(slices, depth_m, focus, CAMERA, None, clipped[1:] * 2), plain) == 0
