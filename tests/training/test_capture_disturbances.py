"""Disturbances of real photographs."""

import numpy as np
import pytest
import torch

from sfdfd.training.capture_disturbances import (
    Disturbance,
    disturb_images,
    disturb_target,
    encode_jpeg,
    random_disturbance,
    rounded_focus_m,
)


def images(slices=3, size=24):
    return torch.rand(slices, 3, size, size) * 0.8 + 0.1


def test_no_disturbance_changes_nothing():
    slices = images()
    none = Disturbance.none(3)
    assert torch.equal(disturb_images(slices, torch.rand(24, 24), none), slices)
    assert torch.equal(disturb_target(slices[0], none), slices[0]) and torch.equal(encode_jpeg(slices, 0), slices)


def test_more_than_a_third_of_all_stacks_is_undisturbed_and_each_disturbance_occurs():
    drawn = [random_disturbance(np.random.default_rng(seed), 4) for seed in range(400)]

    def disturbed(one):
        return [bool(one.parallax_px.any()), bool((one.exposure != 1).any()), one.gain != 1, one.sharpening != 0,
                one.vignetting != 0, one.jpeg_quality != 0, one.rounded_focus]  # fmt: skip

    rows = np.array([disturbed(one) for one in drawn])
    assert 0.33 < (~rows.any(1)).mean() < 0.55
    assert (rows.mean(0) > 0.04).all() and (rows.mean(0) < 0.2).all()


def test_parallax_moves_near_against_far_by_the_stated_pixels():
    ramp = torch.arange(40.0).expand(3, 40, 40)[None] / 40  # brightness tells the column
    inverse_depth_01 = torch.zeros(40, 40)
    inverse_depth_01[20:] = 1.0
    moved = disturb_images(ramp, inverse_depth_01, Disturbance.none(1)._replace(parallax_px=torch.tensor([[2.0, 0.0]])))
    change_px = (moved - ramp)[0, 0, :, 8:32] * 40
    torch.testing.assert_close(change_px[25:] - change_px[:15], torch.full((15, 24), 2.0), atol=1e-4, rtol=0)


def test_target_and_slices_are_processed_alike_but_for_exposure():
    slices = images()
    disturbance = Disturbance.none(3)._replace(
        gain=1.2, sharpening=0.5, vignetting=0.3, exposure=torch.tensor([[1.1] * 3, [1.0] * 3, [0.9] * 3])
    )
    found = disturb_images(slices, torch.zeros(24, 24), disturbance)
    for factor, before, after in zip((1.1, 1.0, 0.9), slices, found, strict=True):
        torch.testing.assert_close(factor * disturb_target(before, disturbance), (after / factor).clamp(0, 1) * factor)


def test_corners_are_darker_by_the_stated_share():
    dark = disturb_target(torch.full((3, 21, 21), 0.5), Disturbance.none(1)._replace(vignetting=0.4))
    assert float(dark[0, 10, 10]) == pytest.approx(0.5) and float(dark[0, 0, 0]) == pytest.approx(0.3)


def test_jpeg_leaves_bytes_near_the_image():
    smooth = torch.linspace(0.2, 0.8, 32).expand(2, 3, 32, 32)
    coded = encode_jpeg(smooth, 90)
    torch.testing.assert_close(coded * 255, (coded * 255).round(), atol=1e-3, rtol=0)
    assert 0 < float((coded - smooth).abs().max()) < 0.05


def test_focus_distances_are_rounded_where_they_stay_distinct():
    assert rounded_focus_m(torch.tensor([0.123, 1.456]), 0.01).tolist() == pytest.approx([0.12, 1.46])
    near = torch.tensor([0.121, 0.123])
    assert torch.equal(rounded_focus_m(near, 0.01), near)
    assert torch.equal(rounded_focus_m(torch.tensor([0.024, 1.0]), 0.02), torch.tensor([0.024, 1.0]))
