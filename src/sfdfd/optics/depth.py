"""Convert between depth and normalized inverse depth, in which blur is linear.

``inverse_depth_01`` is 0 at far and 1 at near.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sfdfd.errors import InputError, checked_choice

__all__ = ["SIDES", "depth_from_normalized", "normalized_inverse_depth", "one_sided_range"]

SIDES = ("behind", "before")
"""The sides of a focus distance."""
ROUNDING = 1e-6
"""Relative difference of distances that float32 makes."""


def _broadcastable(value: Any, other: Any) -> Any:
    """Reshape a (B,) tensor to broadcast with ``other`` (B, ...)."""
    if isinstance(value, Tensor) and isinstance(other, Tensor) and value.ndim == 1:
        return value.reshape(-1, *(1,) * (other.ndim - 1))
    return value


def normalized_inverse_depth(distance_m: Any, near_m: Any, far_m: Any) -> Any:
    """Normalize the inverse of a distance: 0 at far, 1 at near, outside of [0, 1] beyond them.

    Args:
        distance_m: metres > 0, inf is allowed; number, array or tensor (B, ...).
        near_m, far_m: metres, numbers or (B,).

    Examples:
        >>> normalized_inverse_depth(1.0, near_m=0.5, far_m=2.0)
        0.333...
    """
    near_m, far_m = _broadcastable(near_m, distance_m), _broadcastable(far_m, distance_m)
    smallest = 1 / far_m
    return (1 / distance_m - smallest) / (1 / near_m - smallest)


def depth_from_normalized(inverse_depth_01: Any, near_m: Any, far_m: Any) -> Any:
    """Return the distance in metres of a normalized inverse depth, the inverse of :func:`normalized_inverse_depth`.

    Examples:
        >>> depth_from_normalized(1.0, near_m=0.5, far_m=2.0), depth_from_normalized(0.0, near_m=0.5, far_m=2.0)
        (0.5, 2.0)
    """
    near_m, far_m = _broadcastable(near_m, inverse_depth_01), _broadcastable(far_m, inverse_depth_01)
    smallest = 1 / far_m
    return 1 / (smallest + (1 / near_m - smallest) * inverse_depth_01)


def one_sided_range(
    near_m: float, far_m: float, focus_distance_m: float, side: str | None = None
) -> tuple[float, float, str]:
    """Return the part of a depth range that lies on one side of a focus distance, and that side.

    Photographs of one focus distance at several apertures show |1/F - 1/d|, so they do not tell the side of focus.

    Args:
        near_m, far_m: depth range in metres.
        focus_distance_m: F in metres.
        side: "behind" (d > F) or "before" it; None for the side on which the range lies, and "behind" for a range on both.

    Raises:
        InputError: the range does not reach to that side, or the side is neither of the two.

    Examples:
        >>> one_sided_range(0.5, 8.0, 2.0)
        (2.0, 8.0, 'behind')
        >>> one_sided_range(0.5, 2.0, 2.0)
        (0.5, 2.0, 'before')
    """
    if side is None:
        side = "before" if far_m <= focus_distance_m * (1 + ROUNDING) else "behind"
    checked_choice(side, "side", SIDES)
    near, far = (max(near_m, focus_distance_m), far_m) if side == "behind" else (near_m, min(far_m, focus_distance_m))
    if not near < far:
        raise InputError(
            f"side={side}: the depth range of {near_m:.4g} to {far_m:.4g} m does not reach {side} the focus distance of "
            f"{focus_distance_m:.4g} m (side, near_m, far_m)"
        )
    return near, far, side
