"""The default depth range of a stack."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sfdfd.errors import InputError
from sfdfd.optics.depth import one_sided_range

__all__ = ["depth_range_m"]


def depth_range_m(
    focus_distances_m: Sequence[float],
    focal_length_m: float,
    near_m: float | None = None,
    far_m: float | None = None,
    *,
    of_bracket: bool = False,
    side: str | None = None,
) -> tuple[float, float]:
    """Complete a stack's depth range (near, far) in metres from its focus distances.

    By default it reaches from 0.6 times the nearest to 1.7 times the farthest distance, or, with a slice at infinity, to 4
    times the farthest finite one. Photographs of one focus distance F at several apertures (``of_bracket``) do not tell on
    which side of it a surface lies: the range is that ``side`` of F ("behind" or "before"; None:
    :func:`sfdfd.optics.depth.one_sided_range`), by default from F to 10 F, or from F / 2 to F.

    Raises:
        InputError: near is not below far, the range does not reach to the side, or a bound is missing and every focus
            distance is infinite.
    """
    if of_bracket and len(set(focus_distances_m)) == 1:
        return _one_sided(focus_distances_m[0], focal_length_m, near_m, far_m, side)
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


def _one_sided(
    focus_m: float, focal_length_m: float, near_m: float | None, far_m: float | None, side: str | None
) -> tuple[float, float]:
    if math.isinf(focus_m) and (near_m is None or far_m is None):
        raise InputError("every focus distance is infinite; near_m and far_m are needed then (near_m=X far_m=Y)")
    before = side == "before" or (side is None and far_m is not None and far_m <= focus_m)
    if near_m is None:
        near_m = max(0.5 * focus_m, 1.01 * focal_length_m) if before else focus_m
    if far_m is None:
        far_m = focus_m if before else 10 * focus_m
    return one_sided_range(near_m, far_m, focus_m, side)[:2]
