"""Focus distances that cameras have rounded: their uncertainty, and how to separate equal ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

__all__ = ["DistanceInterval", "spread_equal_distances_m", "uniform_std_dpt", "widen_by_rounding"]

DistanceInterval = tuple[float, float]
"""Nearest and farthest focus distance in metres; inf is possible; the same number twice if it is exact."""
STEPS_M = (0.01, 0.001)
"""Steps that cameras round distances to."""


def widen_by_rounding(intervals: Sequence[DistanceInterval]) -> list[DistanceInterval]:
    """Widen exact distances by half the step that they were rounded to.

    The step is the largest of :data:`STEPS_M` that all of them are whole multiples of. A single distance shows no step.
    """
    exact = [near for near, far in intervals if near == far and math.isfinite(near)]
    step = next((step for step in STEPS_M if all(_is_multiple(value, step) for value in exact)), None)
    if len(exact) < 2 or step is None:
        return list(intervals)
    half = step / 2
    return [
        (near - half, far + half) if near == far and math.isfinite(near) and near > half else (near, far)
        for near, far in intervals
    ]


def _is_multiple(value: float, step: float) -> bool:
    return round(value / step) >= 1 and abs(value / step - round(value / step)) < 1e-6 * max(1.0, value / step)


def uniform_std_dpt(intervals: Sequence[DistanceInterval]) -> tuple[float, ...]:
    """Return the standard deviation in dioptres of inverse distances that are uniform within each interval."""
    return tuple((1 / near - 1 / far) / math.sqrt(12) for near, far in intervals)


def spread_equal_distances_m(values_m: Sequence[float], intervals: Sequence[DistanceInterval]) -> tuple[float, ...]:
    """Spread equal neighbours evenly over the interval they share, in file order, so that all planes differ.

    They rise or fall as the distances around them do.

    Args:
        values_m: the distances in metres, equal if their intervals are.
        intervals: one per distance.

    Returns:
        The distances in metres, changed only in runs of equal intervals.
    """
    result: list[float] = []
    for (near, far), run in groupby(intervals):
        number = len(list(run))
        first, after = len(result), len(result) + number
        if number == 1 or near == far:
            result.extend(values_m[first:after])
            continue
        shares = [(index + 0.5) / number for index in range(number)]
        if not _rises(values_m, first, after):
            shares.reverse()
        result.extend(1 / (1 / near + share * (1 / far - 1 / near)) for share in shares)
    return tuple(result)


def _rises(values_m: Sequence[float], first: int, after: int) -> bool:
    """Whether distances grow with the files around the run from ``first`` to before ``after``."""
    value = values_m[first]
    left = _sign(value, values_m[first - 1]) if first else 0
    right = _sign(values_m[after], value) if after < len(values_m) else 0
    return (left + right or _sign(values_m[-1], values_m[0])) >= 0


def _sign(first: float, second: float) -> int:
    return (first > second) - (first < second)
