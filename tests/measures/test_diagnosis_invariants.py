"""Laws of the diagnosis, over inputs that Hypothesis draws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfdfd.measures.diagnosis import blur_sensitivity, diagnose, textured_share
from sfdfd.optics import Camera
from tests.measures.strategies import both, close, drawn, laws, seeds


@laws
@given(st.floats(0.01, 20), st.floats(0.01, 1), st.floats(0.5, 1.5))
def test_the_sensitivity_is_proportional_to_contrast_and_scales_with_the_periods(sigma, contrast, share):
    found = float(blur_sensitivity(np.array(sigma), contrast))
    assert float(blur_sensitivity(np.array(sigma))) == pytest.approx(0.1 * found / contrast)
    assert found >= 0 == float(blur_sensitivity(np.array(0.0)))
    both_ways = blur_sensitivity(np.array([[sigma], [share * sigma]]), contrast)
    assert both_ways.shape == (2, 1) and float(both_ways[0, 0]) == pytest.approx(found)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("longest", [16.0, 64.0])
def test_the_sensitivity_has_a_closed_form(sigma, longest):
    """With x = 2 pi s f, the integral of (x^2 / s)^2 exp(-x^2) d log x is 1 / (2 s^2) [-(x^2 + 1) exp(-x^2)]."""
    ends = 2 * math.pi * sigma / longest, math.pi * sigma
    primitive = [-(x * x + 1) * math.exp(-x * x) for x in ends]
    expected = 0.1 / sigma * math.sqrt((primitive[1] - primitive[0]) / 2 / math.log(longest / 2))
    assert float(blur_sensitivity(np.array(sigma), longest_px=longest)) == pytest.approx(expected, rel=1e-3)


ranges = st.tuples(st.floats(0.3, 2), st.floats(1.5, 20)).map(lambda pair: (pair[0], pair[0] * pair[1]))
slices = st.lists(st.floats(0.4, 12), min_size=2, max_size=5)


@laws
@given(ranges, slices, st.sampled_from([1.0, 4.0, 16.0, 100.0]), st.sampled_from([0.5, 2.0]), st.randoms())
def test_diagnosis_does_not_depend_on_units_and_order(depth_range, focus, f_number, c, random):
    found = diagnose(Camera(0.05, f_number, 1.2e-5), focus, *depth_range)
    scaled = diagnose(
        Camera(c * 0.05, f_number, c * 1.2e-5), [c * one for one in focus], *(c * end for end in depth_range)
    )
    np.testing.assert_allclose(scaled.depth_step_m, c * found.depth_step_m, rtol=1e-9)
    np.testing.assert_allclose(scaled.blur_radius_px, found.blur_radius_px, rtol=1e-9, atol=1e-9)
    assert (scaled.verdict, scaled.covered_share) == (found.verdict, pytest.approx(found.covered_share))
    other = diagnose(Camera(0.05, f_number, 1.2e-5), random.sample(focus, len(focus)) + focus[:1], *depth_range)
    np.testing.assert_allclose(other.depth_step_m, found.depth_step_m)
    assert (other.verdict, other.unblurred_share) == (found.verdict, found.unblurred_share)
    for share in (found.unblurred_share, found.saturated_share, found.covered_share):
        assert 0 <= share <= 1
    assert found.depth_m[0] == pytest.approx(depth_range[0]) and found.depth_m[-1] == pytest.approx(depth_range[1])


@laws
@given(ranges, slices, st.sampled_from([2.0, 8.0]))
def test_the_shares_of_a_diagnosis_are_counted_from_its_radii(depth_range, focus, f_number):
    found = diagnose(Camera(0.05, f_number, 1.2e-5), focus, *depth_range)
    near, far = depth_range
    low, high = (min(max(1 / end, 1 / far), 1 / near) for end in (max(focus), min(focus)))
    assert found.covered_share == pytest.approx((high - low) / (1 / near - 1 / far), abs=1e-12)
    radii = np.array([[found.blur_radius_px[s, d] for d in range(64)] for s in range(len(focus))])
    assert found.unblurred_share == np.mean([max(column) < 1 for column in radii.T])
    assert found.saturated_share == np.mean(radii > 3)
    wider = diagnose(Camera(0.05, f_number / 2, 1.2e-5), focus, *depth_range)
    assert wider.unblurred_share <= found.unblurred_share and wider.saturated_share >= found.saturated_share


@settings(laws, max_examples=10)
@given(seeds, st.permutations(range(3)))
def test_texture_is_where_sharpness_changes_over_real_slices(seed, order):
    rand = drawn(seed)
    depth = 1 + rand(2, 24, 25)
    _, stack = both((depth, depth, torch.ones(2, 24, 25, dtype=torch.bool)), rand, slices=3)
    sharp = stack.images[:, :1]
    same = replace(stack, images=sharp.expand_as(stack.images))
    close(textured_share(same), torch.zeros(2))
    half = torch.where(torch.arange(25) < 12, sharp, 0.5)  # the right half is blurred away in every slice but the first
    images = torch.cat([sharp, half, half], 1)
    found = textured_share(replace(stack, images=images))
    assert bool((found > 0.3).all()) and bool((found < 0.9).all())
    close(textured_share(replace(stack, images=images[:, order])), found)
    padded = replace(
        stack, images=torch.cat([sharp, sharp, half], 1), slice_mask=torch.tensor([[True, True, False]] * 2)
    )
    close(textured_share(padded), torch.zeros(2))
