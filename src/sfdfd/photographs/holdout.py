"""Which slices of a stack are kept aside, to be predicted from the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sfdfd.errors import InputError

__all__ = ["parse_holdout", "remaining"]


def parse_holdout(holdout: Any, number: int, focus_distances_m: Sequence[float] | None = None) -> tuple[int, ...]:
    """The slices that ``holdout`` names, in ascending order.

    Args:
        holdout: indices in the order of the slices; or how many: evenly spread in the order of focus, never the first or
            the last of it, which the others enclose; None for none.
        number: of slices.
        focus_distances_m: of all slices, where they are known; else the order of the slices is that of focus.

    Raises:
        InputError: no whole numbers, out of range, doubled, or fewer than two slices (or two focus distances) are left.

    Example:
        >>> parse_holdout(2, 5), parse_holdout([3, 1], 5)
        ((1, 3), (1, 3))
    """
    if holdout is None:
        return ()
    wanted = f"indices from 0 to {number - 1} in the order of the slices, or how many"
    if isinstance(holdout, int) and not isinstance(holdout, bool):
        if not 0 <= holdout <= number - 2:
            raise InputError(
                f"holdout: {holdout} of {number} slices: expected 0 to {number - 2}, at least two must be left"
            )
        order = list(range(number))
        if focus_distances_m is not None:
            order.sort(key=lambda index: focus_distances_m[index])
        step = (number - 2) / max(holdout, 1)
        chosen = sorted(order[math.ceil((k + 0.5) * step)] for k in range(holdout))
    else:
        if isinstance(holdout, (str, bytes)) or not isinstance(holdout, Sequence):
            raise InputError(f"holdout: expected {wanted}, got {holdout!r}")
        chosen = list(holdout)
        for index in chosen:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < number:
                raise InputError(f"holdout: expected {wanted}, got {index!r}")
        if len(set(chosen)) < len(chosen):
            raise InputError(f"holdout: {max(chosen, key=chosen.count)} stands there twice")
        if len(chosen) > number - 2:
            raise InputError(f"holdout: {len(chosen)} of {number} slices: at least two must be left")
    kept = remaining(chosen, number)
    if chosen and focus_distances_m is not None and len({focus_distances_m[index] for index in kept}) < 2:
        raise InputError(
            f"holdout: the slices that are left all have the focus distance {focus_distances_m[kept[0]]:.6g} m; "
            "depth needs two different ones"
        )
    return tuple(sorted(chosen))


def remaining(left_out: Sequence[int], number: int) -> tuple[int, ...]:
    """The other slices, in ascending order."""
    return tuple(index for index in range(number) if index not in left_out)
