"""Convert between depth and normalized inverse depth, in which blur is linear.

``inverse_depth_01`` is 0 at far and 1 at near.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["depth_from_normalized", "normalized_inverse_depth"]


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
