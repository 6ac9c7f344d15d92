"""Surfaces that are sharp in no slice: their depth is not known, and the answer says so."""

import pytest
import torch
import torch.nn.functional as F

from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.out_of_range import note_on_out_of_range
from sfdfd.inference.predict_photographs import predict_photographs
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.optics.blur_model import PHOTOGRAPH_BLUR
from sfdfd.refinement.refiner import Refiner
from sfdfd.stack import FocalStack

HEIGHT, WIDTH = 96, 128
FOCUS_M = [0.35, 0.375, 0.4, 0.425, 0.45]
CAMERA = Camera(0.1, 2.8, 36e-3 / WIDTH)
NEAR_M, FAR_M = 0.3, 0.6


def texture(seed):
    """(3,H,W) noise of several octaves."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.full((3, HEIGHT, WIDTH), 0.45)
    for size in (1, 2, 4, 8, 16):
        noise = torch.rand(1, 3, HEIGHT // size + 1, WIDTH // size + 1, generator=generator) - 0.5
        total += 0.3 * F.interpolate(noise, scale_factor=float(size), mode="bilinear")[0, :, :HEIGHT, :WIDTH]
    return total.clamp(0.02, 0.98)


def photographs(outside, outside_m):
    """Eight-bit slices of a slanted surface within the range, and of another at a distance where ``outside`` is true."""
    depth_m = 0.36 + 0.08 * torch.linspace(0, 1, HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    depth_m = torch.where(outside, torch.tensor(outside_m), depth_m)
    aif = torch.where(outside, texture(2), texture(1))
    renderer = DefocusRenderer(method="fast", **PHOTOGRAPH_BLUR.known())
    images = renderer(aif[None], depth_m[None], torch.tensor(FOCUS_M), (CAMERA,))[0]
    return (images.clamp(0, 1) * 255).round() / 255, depth_m


def stack_of(images):
    return FocalStack.single(images, FOCUS_M, CAMERA, near_m=NEAR_M, far_m=FAR_M)


@pytest.fixture(scope="module")
def wall():
    """The right two fifths of the picture show a wall at 3 m."""
    outside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    outside[:, 76:] = True
    images, depth_m = photographs(outside, 3.0)
    return images, depth_m, outside


def estimators():
    usual = DefocusEstimator.from_pretrained(refine_seconds=0)
    yield "network", usual
    yield "refined", DefocusEstimator(usual.network, usual.renderer, Refiner(steps=8))
    yield "plane sweep", DefocusEstimator()


@pytest.mark.parametrize(
    "name, estimator", list(estimators()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_wall_behind_the_range_gets_depth_far_and_a_low_confidence(wall, name, estimator):
    images, depth_m, outside = wall
    found = estimator.predict(stack_of(images))
    beyond = found.beyond_range[0] == 1
    assert float(beyond[outside].float().mean()) > 0.75 and not beyond[~outside].any()
    assert torch.allclose(found.depth_m[0][beyond], torch.tensor(FAR_M))
    assert found.confidence[0][beyond].max() <= 0.1
    # every inverse depth from far to 0 is open: du = 1 / far, dz = far^2 du
    assert found.depth_std_m[0][beyond].min() >= FAR_M - 1e-6
    error = ((found.depth_m[0] - depth_m).abs() / depth_m)[~outside]
    assert error.mean() < 0.01 and found.confidence[0][~outside].median() > 0.5


@pytest.mark.parametrize(
    "name, estimator", list(estimators()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_aif_of_a_wall_behind_the_range_is_the_sharpest_slice(wall, name, estimator):
    """It does not ring: no value lies outside those of the slices, and inside the wall it is the farthest slice."""
    images, _, outside = wall
    found = estimator.predict(stack_of(images))
    beyond = found.beyond_range == 1
    inside = (-F.max_pool2d(-beyond[:, None].float(), 5, 1, 2) > 0.5)[0, 0]
    assert inside[outside].float().mean() > 0.5
    aif = found.aif[0][:, inside]
    assert torch.allclose(aif, images[-1][:, inside], atol=2e-3)
    assert (aif <= images.amax(0)[:, inside] + 1e-3).all() and (aif >= images.amin(0)[:, inside] - 1e-3).all()


def test_a_surface_nearer_than_the_range_gets_depth_near():
    outside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    outside[:, :76] = True
    images, _ = photographs(outside, 0.24)
    found = DefocusEstimator.from_pretrained(refine_seconds=0).predict(stack_of(images))
    nearer = found.beyond_range[0] == -1
    assert float(nearer[:, :60].float().mean()) > 0.6 and float(nearer[:, 90:].float().mean()) < 0.02
    assert torch.allclose(found.depth_m[0][nearer], torch.tensor(NEAR_M))
    assert found.confidence[0][nearer].max() <= 0.1


def test_scenes_within_the_range_or_without_texture_are_unchanged():
    within, _ = photographs(torch.zeros(HEIGHT, WIDTH, dtype=torch.bool), 1.0)
    plain = within.clone()
    plain[..., 64:] = 0.5 + 0.002 * torch.randn(len(FOCUS_M), 3, HEIGHT, 64, generator=torch.Generator().manual_seed(0))
    estimator = DefocusEstimator.from_pretrained(refine_seconds=0)
    for images in (within, plain):
        found = estimator.predict(stack_of(images))
        assert not found.beyond_range.any()
        assert note_on_out_of_range(found, NEAR_M, FAR_M) == []


def test_a_note_says_the_share_out_of_range_and_the_remedy(wall):
    images, _, _ = wall
    said = []
    given = {"focus_distances_m": FOCUS_M, "camera": CAMERA, "near_m": NEAR_M, "far_m": FAR_M}
    found = predict_photographs(images, **given, refine_seconds=0, align=False, say=said.append)
    notes = [note for note in found.notes if "sharp in no slice" in note]
    share = 100 * float((found.solution.working.beyond_range == 1).float().mean())
    assert len(notes) == 1 and notes[0].startswith(f"{share:.0f} % of the picture") and share > 25
    assert "farther than 0.6 m; take a slice focused farther than that, or give far_m" in notes[0]
    assert f"note: {notes[0]}" in said


def test_full_size_maps_mark_pixels_beyond_the_range(wall):
    images, _, outside = wall
    found = DefocusEstimator.from_pretrained(refine_seconds=0, working_px=100).predict(stack_of(images))
    assert found.beyond_range.shape == found.depth_m.shape
    assert float((found.beyond_range[0] == 1)[outside].float().mean()) > 0.7
