"""Laws of left-out figures, over inputs that Hypothesis draws."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sfdfd.measures.left_out import judge, neighbours
from tests.measures.strategies import NAN, drawn, laws, seeds, turns


@laws
@given(seeds, st.sampled_from([NAN, 9.0]), turns)
def test_left_out_slices_are_scored_where_covered(seed, nonsense, turn):
    rand = drawn(seed)
    photograph, rendered, one, other = (rand(3, 9, 11).float() for _ in range(4))
    covered = rand(9, 11) > 0.3
    covered[1:-1, 1:-1] = True
    found = judge(photograph, rendered, one, (one, other), covered, exposure=False).figures
    assert found.best_blend_psnr_db >= found.nearest_slice_psnr_db - 1e-6
    swapped = judge(photograph, rendered, one, (other, one), covered, exposure=False).figures
    assert swapped.as_dict() == pytest.approx(found.as_dict())
    spoilt = (torch.where(covered, image, nonsense) for image in (photograph, rendered))
    assert judge(*spoilt, one, (one, other), covered, exposure=False).figures == found
    images = (turn(image) for image in (photograph, rendered, one))
    turned = judge(*images, (turn(one), turn(other)), turn(covered), exposure=False).figures
    assert turned.as_dict() == pytest.approx(found.as_dict())
    cut = (photograph - rendered)[:, 1:-1, 1:-1].square().double().mean()  # the border of a pixel does not count
    assert found.psnr_db == pytest.approx(-10 * math.log10(float(cut)))
    exact = judge(torch.lerp(other, one, 0.3), rendered, one, (one, other), covered, exposure=False).figures
    assert exact.best_blend_psnr_db > 90 and exact.nearest_slice_psnr_db < 40


@laws
@given(
    st.lists(st.floats(0.3, 30), min_size=2, max_size=6, unique_by=lambda x: round(x, 2)),
    st.floats(0.2, 50), st.randoms(), st.sampled_from([0.25, 4.0]),
)  # fmt: skip
def test_neighbours_do_not_depend_on_order_and_units(inputs, focus, random, c):
    nearest, pair = neighbours(focus, inputs)
    gaps = sorted(abs(1 / one - 1 / focus) for one in inputs)
    assume(gaps[1] > gaps[0] * (1 + 1e-9))
    assert abs(1 / inputs[nearest] - 1 / focus) == gaps[0] and nearest in pair
    low, high = sorted(inputs[index] for index in pair)
    assert not any(low < one < high for one in inputs)
    if min(inputs) <= focus <= max(inputs):
        assert low <= focus <= high
    shuffled = random.sample(inputs, len(inputs))
    again, others = neighbours(c * focus, [c * one for one in shuffled])
    assert shuffled[again] == inputs[nearest] and {shuffled[i] for i in others} == {low, high}
