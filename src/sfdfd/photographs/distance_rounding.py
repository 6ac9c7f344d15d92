"""Focus distances that are known within bounds: what that is as an uncertainty, and how equal ones are told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

__all__ = ["Bounds", "centres_m", "uniform_std_dpt", "with_rounding"]

Bounds = tuple[float, float]
"""Nearest and farthest focus distance in metres; inf is possible; one number twice where it is exact."""
STEPS_M = (0.01, 0.001)
"""Steps that cameras round distances to."""


def with_rounding(bounds: Sequence[Bounds]) -> list[Bounds]:
    """Widen exact distances by what they were rounded to.

    The step is the largest of :data:`STEPS_M` that all of them are whole multiples of; one distance alone shows none.
    """
    exact = [near for near, far in bounds if near == far and math.isfinite(near)]
    step = next((step for step in STEPS_M if all(_is_multiple(value, step) for value in exact)), None)
    if len(exact) < 2 or step is None:
        return list(bounds)
    half = step / 2
    return [
        (near - half, far + half) if near == far and math.isfinite(near) and near > half else (near, far)
        for near, far in bounds
    ]


def _is_multiple(value: float, step: float) -> bool:
    return round(value / step) >= 1 and abs(value / step - round(value / step)) < 1e-6 * max(1.0, value / step)


def uniform_std_dpt(bounds: Sequence[Bounds]) -> tuple[float, ...]:
    """Standard deviation in dioptres of inverse distances that lie anywhere within the bounds."""
    return tuple((1 / near - 1 / far) / math.sqrt(12) for near, far in bounds)


def centres_m(values_m: Sequence[float], bounds: Sequence[Bounds]) -> tuple[float, ...]:
    """Spread equal neighbours evenly over the bounds they share, in file order, so that no two are one plane.

    They rise or fall as the distances around them do.

    Args:
        values_m: the distances, equal where their bounds are.
        bounds: as many.

    Returns:
        The distances in metres: those given, except in runs of equal bounds.
    """
    found: list[float] = []
    for (near, far), run in groupby(bounds):
        number = len(list(run))
        first, after = len(found), len(found) + number
        if number == 1 or near == far:
            found.extend(values_m[first:after])
            continue
        rises = _rises(values_m, first, after)
        shares = [(index + 0.5) / number for index in range(number)]
        dioptres = [1 / near + share * (1 / far - 1 / near) for share in (shares if rises else shares[::-1])]
        found.extend(1 / value for value in dioptres)
    return tuple(found)


def _rises(values_m: Sequence[float], first: int, after: int) -> bool:
    """Whether distances grow with the files about the run from ``first`` to before ``after``."""
    value = values_m[first]
    before = _sign(value, values_m[first - 1]) if first else 0
    behind = _sign(values_m[after], value) if after < len(values_m) else 0
    return (before + behind or _sign(values_m[-1], values_m[0])) >= 0


def _sign(one: float, other: float) -> int:
    return (one > other) - (one < other)
