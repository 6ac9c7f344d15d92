"""The default depth range of a stack."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sfdfd.errors import InputError

__all__ = ["depth_range_m"]


def depth_range_m(
    focus_distances_m: Sequence[float], focal_length_m: float, near_m: float | None = None, far_m: float | None = None
) -> tuple[float, float]:
    """Complete a stack's depth range (near, far) in metres from its focus distances.

    By default it reaches from 0.6 times the nearest to 1.7 times the farthest distance, or, with a slice at infinity, to 4
    times the farthest finite one.

    Raises:
        InputError: near is not below far, or a bound is missing and every focus distance is infinite.
    """
    finite = [value for value in focus_distances_m if math.isfinite(value)]
    if not finite and (near_m is None or far_m is None):
        raise InputError("every focus distance is infinite; near_m and far_m are needed then (near_m=X far_m=Y)")
    if near_m is None:
        near_m = max(0.6 * min(finite), 1.01 * focal_length_m)
    if far_m is None:
        far_m = max((1.7 if len(finite) == len(focus_distances_m) else 4.0) * max(finite), 1.2 * near_m)
    if not near_m < far_m:
        raise InputError(f"expected near_m < far_m, got {near_m:.6g} and {far_m:.6g} (near_m, far_m)")
    return near_m, far_m
