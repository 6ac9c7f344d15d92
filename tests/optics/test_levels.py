"""Levels of inverse depth."""

import pytest
import torch

from tests.optics.levels import level_grid, level_weights


@pytest.mark.parametrize(("low", "high", "step", "most"), [
    (0.1, 0.9, 0.05, 48), (0.1, 0.9, 0.001, 12), (0.5, 0.5, 0.1, 8), (0.0, 0.0, 0.1, 8), (0.31, 0.36, 0.2, 4),
])  # fmt: skip
def test_levels_span_the_scene_and_hold_the_planes_of_focus(low, high, step, most):
    inverse = low + (high - low) * torch.rand(9, 11, dtype=torch.float64)
    inverse[0, :2] = torch.tensor([low, high])
    focus = torch.tensor([0.7, 0.25, 0.26, 3.0], dtype=torch.float64)
    levels = level_grid(inverse, focus, step, most)
    assert 2 <= len(levels) <= most and bool((levels.diff() > 0).all()) and levels[0] >= 0
    assert float(levels[0]) <= float(inverse.min()) and float(levels[-1]) >= float(inverse.max())
    assert low == high or step > 0.1 or 0.7 in levels.tolist()
    weights = level_weights(inverse, levels)
    torch.testing.assert_close(weights.sum(0), torch.ones(9, 11, dtype=torch.float64))
    torch.testing.assert_close((weights * levels[:, None, None]).sum(0), inverse)  # linear in inverse depth


def test_levels_are_multiples_of_a_step_that_doubles_until_they_are_few_enough():
    inverse = torch.linspace(0.11, 0.98, 63, dtype=torch.float64).reshape(7, 9)
    nothing = torch.tensor([5.0], dtype=torch.float64)  # in focus nearer than the scene
    for most, step, first, last in ((48, 0.1, 1, 10), (10, 0.1, 1, 10), (9, 0.2, 0, 5), (5, 0.4, 0, 3), (4, 0.4, 0, 3)):
        expected = step * torch.arange(first, last + 1, dtype=torch.float64)
        torch.testing.assert_close(level_grid(inverse, nothing, 0.1, most), expected)
    several = torch.tensor([0.15, 0.45, 0.75], dtype=torch.float64)
    few = level_grid(inverse, several, 1.0, 4)  # within one step, three planes of focus
    assert len(few) <= 4 and 0.15 in few.tolist()


@pytest.mark.parametrize(
    ("inverse", "expected"), [(0.5, [0.45, 0.5, 0.55]), (0.0, [0.0, 0.05]), (1.7, [1.65, 1.7, 1.75])]
)
def test_one_depth_lies_between_two_levels_half_a_step_away(inverse, expected):
    levels = level_grid(torch.full((3, 4), inverse, dtype=torch.float64), torch.tensor([0.2]).double(), 0.1, 4)
    torch.testing.assert_close(levels, torch.tensor(expected, dtype=torch.float64))
