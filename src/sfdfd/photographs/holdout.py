"""Parse ``holdout``: the slices that are kept out of a prediction and predicted from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sfdfd.errors import InputError

__all__ = ["parse_holdout", "remaining"]


def parse_holdout(holdout: Any, number: int, focus_distances_m: Sequence[float] | None = None) -> tuple[int, ...]:
    """Return the indices of the left-out slices, ascending.

    Args:
        holdout: indices of slices; or a count, spread evenly in order of focus without the first and the last; or None.
        number: of slices.
        focus_distances_m: of all slices, if known; else the order of the slices is taken for that of focus.

    Raises:
        InputError: not whole numbers, out of range, doubled, or fewer than two slices (or two focus distances) remain.

    Example:
        >>> parse_holdout(2, 5), parse_holdout([3, 1], 5)
        ((1, 3), (1, 3))
    """
    if holdout is None:
        return ()
    if isinstance(holdout, int) and not isinstance(holdout, bool):
        indices = _spread(holdout, number, focus_distances_m)
    else:
        indices = _checked_indices(holdout, number)
    kept = remaining(indices, number)
    if indices and focus_distances_m is not None and len({focus_distances_m[index] for index in kept}) < 2:
        raise InputError(
            f"holdout: the remaining slices all have the focus distance {focus_distances_m[kept[0]]:.6g} m; "
            "depth needs two different ones"
        )
    return tuple(sorted(indices))


def remaining(left_out: Sequence[int], number: int) -> tuple[int, ...]:
    """Return the indices of the other slices, ascending."""
    return tuple(index for index in range(number) if index not in left_out)


def _spread(count: int, number: int, focus_distances_m: Sequence[float] | None) -> list[int]:
    """Return ``count`` indices, evenly spread between the first and the last in order of focus."""
    if not 0 <= count <= number - 2:
        raise InputError(f"holdout: {count} of {number} slices: expected 0 to {number - 2}, at least two must remain")
    order = list(range(number))
    if focus_distances_m is not None:
        order.sort(key=lambda index: focus_distances_m[index])
    step = (number - 2) / max(count, 1)
    return [order[math.ceil((k + 0.5) * step)] for k in range(count)]


def _checked_indices(holdout: Any, number: int) -> list[int]:
    expected = f"indices from 0 to {number - 1} in the order of the slices, or how many"
    if isinstance(holdout, (str, bytes)) or not isinstance(holdout, Sequence):
        raise InputError(f"holdout: expected {expected}, got {holdout!r}")
    indices = list(holdout)
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < number:
            raise InputError(f"holdout: expected {expected}, got {index!r}")
    if len(set(indices)) < len(indices):
        raise InputError(f"holdout: {max(indices, key=indices.count)} is listed twice")
    if len(indices) > number - 2:
        raise InputError(f"holdout: {len(indices)} of {number} slices: at least two must remain")
    return indices
