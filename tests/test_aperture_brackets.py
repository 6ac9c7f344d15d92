"""Stacks whose slices differ in aperture, in focus, or in both: from the type to the methods."""

import numpy as np
import pytest
import torch

from sfdfd.datasets.sources.base import write_stack
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.measures.diagnosis import diagnose
from sfdfd.measures.exposure import equalize_exposure
from sfdfd.measures.left_out import score_left_out_slices
from sfdfd.networks import DAIFNet
from sfdfd.networks.interface import predict_stack
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import FocalStack, Prediction

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")
FOCUS_M, FAR_M = 1.0, 6.0
PAIR = Camera(0.05, (2.0, 11.0), 4e-5)
BOTH = Camera(0.05, (2.0, 11.0, 2.0, 11.0), 4e-5)
BOTH_FOCUS_M = [1.0, 1.0, 3.0, 3.0]


def pair_of(depth_m, near_m, far_m, **options):
    """Noise at a depth, photographed at f/2 and f/11 with one focus distance."""
    aif = 0.1 + 0.8 * torch.rand(1, 3, *depth_m.shape, generator=torch.Generator().manual_seed(1))
    images = RENDERER(aif, depth_m[None], torch.tensor([FOCUS_M, FOCUS_M]), PAIR).clamp(0, 1)[0]
    return FocalStack.single(images, [FOCUS_M, FOCUS_M], PAIR, near_m, far_m, depth_m=depth_m, aif=aif[0], **options)


def ramp(first_m, last_m):
    return (1 / torch.linspace(1 / first_m, 1 / last_m, 80)).expand(64, 80).contiguous()


def abs_rel(depth_m, stack):
    return float(((depth_m - stack.depth_m).abs() / stack.depth_m)[stack.valid].mean())


def test_the_sweep_finds_depth_behind_the_focus_from_two_apertures():
    stack = pair_of(ramp(1.2, 4.0), 0.5, FAR_M)
    assert (float(stack.near_m), float(stack.far_m)) == (FOCUS_M, FAR_M)
    depth_m = depth_from_plane_sweep(stack, RENDERER).depth_m
    assert abs_rel(depth_m, stack) < 0.08
    without = FocalStack.single(stack.images[0], [1.0, 1.0], PAIR.widest(), FOCUS_M, FAR_M, depth_m=stack.depth_m[0])
    assert abs_rel(depth_from_plane_sweep(without, RENDERER).depth_m, stack) > 0.2  # f/11 taken for f/2


def test_the_other_side_mirrors_the_signed_radii():
    """|1/F - 1/d| is all that such a stack shows: both sides explain it, by radii of opposite sign."""
    mirrored_near_m = 1 / (2 / FOCUS_M - 1 / FAR_M)
    stacks = {side: pair_of(ramp(1.2, 4.0), mirrored_near_m, FAR_M, side=side) for side in ("behind", "before")}
    maps = {side: stack.blur_radii_at_range_px() for side, stack in stacks.items()}
    assert torch.allclose(maps["behind"], -maps["before"].flip(-1), atol=1e-3)
    behind, before = (1 / depth_from_plane_sweep(stacks[side], RENDERER).depth_m - 1 for side in ("behind", "before"))
    assert bool((behind <= 0).all()) and bool((before >= 0).all())
    assert float((behind + before).abs().median()) < 2e-3 and float(behind.abs().median()) > 0.3


def test_the_order_of_the_slices_does_not_matter():
    stack = example_stack(1, 48, 64, BOTH_FOCUS_M, BOTH)
    turned = stack.with_slices([2, 1, 3, 0])
    assert turned.camera[0].f_number == (2.0, 11.0, 11.0, 2.0)
    found, again = (depth_from_plane_sweep(each, RENDERER).depth_m for each in (stack, turned))
    assert float((found - again).abs().max()) < 1e-3


def test_equal_f_numbers_give_the_same_stack_and_depth():
    one = example_stack(1, 48, 64, (1.0, 2.0, 4.0), Camera(0.05, 8.0, 2e-5))
    listed = example_stack(1, 48, 64, (1.0, 2.0, 4.0), Camera(0.05, (8.0, 8.0, 8.0), 2e-5))
    assert torch.equal(one.images, listed.images) and one.camera == listed.camera
    assert torch.equal(depth_from_plane_sweep(one, RENDERER).depth_m, depth_from_plane_sweep(listed, RENDERER).depth_m)


def test_batches_keep_each_stacks_apertures():
    four, two = example_stack(1, 24, 32, BOTH_FOCUS_M, BOTH), example_stack(2, 24, 32, [1.0, 1.0], PAIR, 1.0)
    batch = FocalStack.collate([four, two])
    assert batch.f_numbers().tolist() == [[2, 11, 2, 11], [2, 11, 11, 11]]
    assert batch[0].camera == four.camera and batch[1].camera == two.camera
    chosen = batch.with_slices(torch.tensor([[3, 0], [1, 0]]))
    assert [camera.f_number for camera in chosen.camera] == [(11.0, 2.0), (11.0, 2.0)]
    radii = batch.blur_radii_at_range_px()
    assert torch.equal(radii[1, :2], two.blur_radii_at_range_px()[0])


def test_a_camera_with_another_number_of_f_numbers_is_refused():
    with pytest.raises(InputError, match="or 3, one per slice, got 2"):
        FocalStack.single(torch.rand(3, 3, 8, 8), [1.0, 2.0, 3.0], PAIR, 0.5, 5.0)


@pytest.mark.parametrize(("camera", "focus"), [(PAIR, [1.0, 1.0]), (BOTH, BOTH_FOCUS_M)])
def test_refinement_lowers_the_error_of_its_start(camera, focus):
    stack = example_stack(1, 48, 64, focus, camera, 1.0, 6.0)
    start = depth_from_plane_sweep(stack, RENDERER)
    rough_m = (1 / (1 / start.depth_m + 0.1)).clamp(1.0, 6.0)
    refined = Refiner(steps=60)(stack.without_truth(), RENDERER, rough_m, start.aif)
    assert abs_rel(refined.depth_m, stack) < 0.75 * abs_rel(rough_m, stack)


@pytest.mark.parametrize(("camera", "focus"), [(PAIR, [1.0, 1.0]), (BOTH, BOTH_FOCUS_M)])
def test_the_pretrained_weights_read_brackets(camera, focus):
    stack = example_stack(1, 96, 128, focus, camera, 1.0, 6.0, psf="disc")
    estimator = DefocusEstimator.from_pretrained(refine_seconds=0)
    depth_m = estimator(stack.without_truth()).depth_m
    middle = torch.full_like(depth_m, 2 / (1 / 1.0 + 1 / 6.0))
    assert abs_rel(depth_m, stack) < 0.5 * abs_rel(middle, stack)


def test_networks_that_know_focus_distances_alone_refuse_brackets():
    stack = example_stack(1, 24, 32, BOTH_FOCUS_M, BOTH)
    with pytest.raises(InputError, match="differ in f-number"):
        predict_stack(DAIFNet(), RENDERER, stack)
    with pytest.raises(InputError, match="differ in f-number"):
        stack.with_camera(Camera(0.05, 8.0, 1e-5))


def test_a_left_out_slice_is_rendered_at_its_own_aperture():
    stack = example_stack(1, 48, 64, BOTH_FOCUS_M, BOTH)
    truth = Prediction(stack.depth_m, stack.aif, torch.zeros(1, 3, 48, 64), None)
    for left_out in range(4):
        kept = [index for index in range(4) if index != left_out]
        (score,) = score_left_out_slices(stack.with_slices(kept), truth, RENDERER, stack.with_slices([left_out]))
        assert score.figures.psnr_db > 40  # but for the rounding to 8 bits


def test_a_stack_yaml_keeps_the_f_numbers(tmp_path):
    stack = example_stack(1, 24, 32, BOTH_FOCUS_M, BOTH)
    codes = [(255 * image.permute(1, 2, 0)).round().byte().numpy() for image in stack.images[0]]
    write_stack(tmp_path, "s", codes, BOTH.as_dict(), BOTH_FOCUS_M, 0.5, 10.0)
    assert read_stack(tmp_path / "s").camera == (BOTH,)
    with pytest.raises(InputError, match=r"camera.f_number: expected one number, or 4, one per slice, got 2"):
        read_stack(tmp_path / "s", {"camera": {"f_number": [2, 11]}})
    fewer = {"files": ["slice_00.png", "slice_01.png"], "focus_distances_m": [1, 1], "camera": {"f_number": [2, 11]}}
    assert read_stack(tmp_path / "s", fewer).camera == (PAIR,)
    with pytest.raises(InputError, match=r"camera.f_number: 400 is not plausible"):
        read_stack(tmp_path / "s", {"camera": {"f_number": [2, 11, 400, 8]}})


def test_the_side_of_a_prepared_pair_is_read(tmp_path):
    codes = [np.random.default_rng(i).integers(0, 255, (24, 32, 3), np.uint8) for i in range(2)]
    write_stack(tmp_path, "s", codes, PAIR.as_dict(), [1.0, 1.0], None, None)
    assert [float(value) for value in (read_stack(tmp_path / "s").near_m, read_stack(tmp_path / "s").far_m)] == [1, 10]
    before = read_stack(tmp_path / "s", {"side": "before"})
    assert (float(before.near_m), float(before.far_m)) == (0.5, 1.0)


def test_diagnosis_counts_apertures_as_signal():
    both, one = diagnose(PAIR, [1.0, 1.0], 1.0, 3.0), diagnose(PAIR.widest(), [1.0, 1.0], 1.0, 3.0)
    assert both.verdict == "good" and both.f_numbers == (2.0, 11.0) and one.verdict == "weak" and one.f_numbers is None
    assert both.blur_radius_px[0] == pytest.approx(5.5 * both.blur_radius_px[1])
    close = diagnose(Camera(0.05, (2.0, 2.2), 4e-5), [1.0, 1.0], 1.0, 3.0)
    assert close.verdict == "weak" and any("f-numbers differ by less" in reason for reason in close.reasons)


@pytest.mark.parametrize("gain", [0.5, 0.8, 1.5])
def test_a_darker_aperture_is_brought_to_the_others_exposure(gain):
    """Blur keeps local means, so that their ratio is that of the exposures, however much the apertures blur."""
    stack = pair_of(ramp(1.2, 4.0), 0.5, FAR_M)
    images = [
        0.5 * stack.images[0, 0].permute(1, 2, 0).numpy(),
        0.5 * gain * stack.images[0, 1].permute(1, 2, 0).numpy(),
    ]
    _, gains = equalize_exposure(images, 0, np.ones((2, 64, 80), bool))
    assert gains[1] == pytest.approx(1 / gain, rel=0.03)
