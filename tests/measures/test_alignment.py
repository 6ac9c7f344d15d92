"""Relative depth is judged after scale and shift in inverse depth; planes are flat whatever the two are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfdfd.errors import InputError
from sfdfd.measures.alignment import align_inverse_depth, as_depth_m
from sfdfd.measures.planes import plane_deviation

TRUTH = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
GUESS = 1 / TRUTH + 0.1 * torch.rand(6, 8, generator=torch.Generator().manual_seed(1))
VALID = torch.rand(6, 8, generator=torch.Generator().manual_seed(2)) > 0.3
FOCUS = torch.tensor([1.0, 2.0, 4.0])


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_alignment_does_not_depend_on_the_maps_own_scale_and_shift(scale, shift):
    found = align_inverse_depth(scale * GUESS.double() + shift, TRUTH, VALID)
    assert torch.allclose(found.float(), align_inverse_depth(GUESS, TRUTH, VALID), atol=1e-4)


def test_alignment_is_the_least_squares_of_numpy():
    design = np.stack([GUESS[VALID].numpy(), np.ones(int(VALID.sum()))], 1).astype(float)
    scale, shift = np.linalg.lstsq(design, 1 / TRUTH[VALID].numpy().astype(float), rcond=None)[0]
    assert np.allclose(align_inverse_depth(GUESS, TRUTH, VALID).numpy(), scale * GUESS.numpy() + shift, atol=1e-5)


def test_a_map_that_runs_the_wrong_way_becomes_a_constant():
    found = align_inverse_depth(-1 / TRUTH, TRUTH, VALID)
    assert torch.allclose(found, (1 / TRUTH[VALID]).mean().expand_as(found))
    assert bool(align_inverse_depth(torch.ones_like(TRUTH), TRUTH, VALID).isfinite().all())


@pytest.mark.parametrize(
    ("kind", "depth"),
    [("metric", TRUTH), ("relative", 7 * TRUTH), ("inverse", 3 / TRUTH - 2)],
)
def test_a_perfect_map_of_every_kind_is_the_truth(kind, depth):
    assert torch.allclose(as_depth_m(depth, kind, FOCUS, TRUTH, VALID, 0.5, 10), TRUTH, rtol=1e-4)


def test_an_index_is_a_focus_distance_and_between_two_their_mean_in_inverse_depth():
    index = torch.tensor([[0.0, 1.0, 2.0, 0.5, -3.0, 9.0]])
    expected = torch.tensor([[1.0, 2.0, 4.0, 4 / 3, 1.0, 4.0]])
    assert torch.allclose(as_depth_m(index, "index", FOCUS, None, None, 0.5, 10), expected)
    far = as_depth_m(torch.tensor([[1.0]]), "index", torch.tensor([1.0, torch.inf]), None, None, 0.5, 10)
    assert float(far) == 10


def test_relative_depth_without_truth_is_refused():
    with pytest.raises(InputError, match="only where the true depth is known"):
        as_depth_m(TRUTH, "inverse", FOCUS, None, None, 0.5, 10)


def test_a_plane_is_flat_and_its_noise_is_measured_as_a_share_of_the_range():
    y, x = np.mgrid[0:40, 0:60]
    inverse = 0.4 + 0.004 * x - 0.002 * y
    noise = 0.01 * np.random.default_rng(0).standard_normal(inverse.shape)
    assert plane_deviation(torch.from_numpy(1 / inverse), 1.0, 5.0, (0.1, 0.9, 0.1, 0.9)) < 1e-9
    noisy = plane_deviation(torch.from_numpy(1 / (inverse + noise)), 1.0, 5.0, (0, 1, 0, 1))
    assert noisy == pytest.approx(0.01 / 0.8, rel=0.05)
