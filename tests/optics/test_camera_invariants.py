"""Laws of the thin lens, over inputs that Hypothesis draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfdfd.optics import Camera
from sfdfd.optics.depth import depth_from_normalized, normalized_inverse_depth
from sfdfd.optics.render import defocus_map_px
from tests.optics.strategies import (
    cameras,
    distances,
    laws,
    lengths,
)


@laws
@given(cameras, distances, distances)
def test_blur_radius_matches_newtons_lens_equation(camera, depth, focus):
    """Newton's lens: an object at d is sharp at v_d = f d / (d - f); on a sensor at v_F its cone is A |v_F - v_d| / v_d."""
    f = camera.focal_length_m
    sharp, sensor = f * depth / (depth - f), f * focus / (focus - f)
    diameter_m = f / camera.f_number * abs(sensor - sharp) / sharp
    assert camera.blur_radius_px(depth, focus) == pytest.approx(
        diameter_m / 2 / camera.pixel_pitch_m, rel=1e-9, abs=1e-9 * camera.blur_scale_px_m
    )


@laws
@given(cameras, distances, distances)
def test_radius_is_zero_in_focus_and_signed_by_the_side(camera, depth, focus):
    for one in (focus, np.float64(focus), torch.tensor(focus, dtype=torch.float64)):
        assert camera.blur_radius_px(one, one) == 0 == camera.blur_radius_px(one, one, signed=True)
    signed = camera.blur_radius_px(depth, focus, signed=True)
    assert np.sign(signed) == np.sign(1 / focus - 1 / depth) and abs(signed) == camera.blur_radius_px(depth, focus)
    assert camera.blur_radius_px(math.inf, math.inf) == 0 < camera.blur_radius_px(math.inf, focus, signed=True)


@laws
@given(cameras, distances, distances, distances, st.floats(0, 1))
def test_the_signed_radius_is_linear_in_inverse_depth(camera, near, far, focus, share):
    between = 1 / (share / near + (1 - share) / far)
    ends = [camera.blur_radius_px(one, focus, signed=True) for one in (near, far)]
    expected = share * ends[0] + (1 - share) * ends[1]
    assert camera.blur_radius_px(between, focus, signed=True) == pytest.approx(
        expected, rel=1e-9, abs=1e-9 * camera.blur_scale_px_m
    )


@laws
@given(cameras, distances, distances)
def test_swapping_depth_and_focus_changes_only_sign_and_magnification(camera, depth, focus):
    there = camera.blur_radius_px(depth, focus, signed=True) * (1 - camera.focal_length_m / focus)
    back = camera.blur_radius_px(focus, depth, signed=True) * (1 - camera.focal_length_m / depth)
    assert there == pytest.approx(-back, rel=1e-9, abs=1e-12)


@laws
@given(cameras, distances, distances, lengths(0.1, 10))
def test_radius_scales_with_f_number_pitch_and_resizing_and_not_with_units(camera, depth, focus, c):
    f, n, p = camera.as_dict().values()
    assert Camera(**camera.as_dict()) == camera
    radius, within = camera.blur_radius_px(depth, focus), {"rel": 1e-9, "abs": 1e-9}
    assert Camera(c * f, n, c * p).blur_radius_px(c * depth, c * focus) == pytest.approx(radius, **within)  # units
    assert Camera(f, c * n, p / c).blur_radius_px(depth, focus) == pytest.approx(radius, **within)
    assert Camera(f, c * n, p).blur_radius_px(depth, focus) == pytest.approx(radius / c, **within)
    assert camera.resized(c).blur_radius_px(depth, focus) == pytest.approx(c * radius, **within)
    assert camera.resized((c, 1.005 * c)).pixel_pitch_m == pytest.approx(p / c / math.sqrt(1.005))
    assert camera.resized(c).resized(1 / c).pixel_pitch_m == pytest.approx(p)


@laws
@given(cameras, st.lists(distances, min_size=1, max_size=4), st.lists(distances, min_size=1, max_size=3))
def test_numbers_arrays_and_tensors_give_the_same_radius(camera, depths, focus):
    expected = [[camera.blur_radius_px(one, other, signed=True) for one in depths] for other in focus]
    array = camera.blur_radius_px(np.array(depths)[None], np.array(focus)[:, None], signed=True)
    np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-12)
    both = (torch.tensor(values, dtype=torch.float64) for values in (depths, focus))
    tensor = defocus_map_px(next(both)[None, None], next(both), camera)[0, :, 0]
    np.testing.assert_allclose(tensor, expected, rtol=1e-12, atol=1e-12)


@laws
@given(distances, distances, st.floats(0, 1), st.floats(0, 1))
def test_depth_and_normalized_inverse_depth_are_inverse_and_monotone(one, other, share, second):
    near, far = min(one, other), 1.01 * max(one, other)
    depth = depth_from_normalized(share, near, far)
    assert normalized_inverse_depth(depth, near, far) == pytest.approx(share, abs=1e-9)
    assert near * (1 - 1e-12) <= depth <= far * (1 + 1e-12)
    assert (share < second) <= (depth >= depth_from_normalized(second, near, far))
    assert normalized_inverse_depth(math.inf, near, far) < 0 and normalized_inverse_depth(near / 2, near, far) > 1
    shares = torch.tensor([[[share, second]], [[second, share]]], dtype=torch.float64)
    ends = torch.tensor([[near, 2 * near], [far, 3 * far]], dtype=torch.float64)
    together = depth_from_normalized(shares, *ends)
    for index in range(2):
        alone = depth_from_normalized(shares[index], float(ends[0, index]), float(ends[1, index]))
        torch.testing.assert_close(together[index], alone)
        torch.testing.assert_close(normalized_inverse_depth(together, *ends)[index], shares[index], atol=1e-9, rtol=0)
