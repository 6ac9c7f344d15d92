"""Inverse depth, in which blur is linear: where a distance lies between near and far, and back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["depth_from_normalized", "normalized_inverse_depth"]


def _beside(value: Any, other: Any) -> Any:
    """A (B,) tensor, shaped to broadcast with ``other`` (B, ...)."""
    if isinstance(value, Tensor) and isinstance(other, Tensor) and value.ndim == 1:
        return value.reshape(-1, *(1,) * (other.ndim - 1))
    return value


def normalized_inverse_depth(distance_m: Any, near_m: Any, far_m: Any) -> Any:
    """Position of a distance between far (0) and near (1), linear in inverse distance; outside of [0, 1] beyond them.

    Args:
        distance_m: metres > 0, inf is allowed; number, array or tensor (B, ...).
        near_m, far_m: metres, numbers or (B,).

    Examples:
        >>> normalized_inverse_depth(1.0, near_m=0.5, far_m=2.0)
        0.333...
    """
    near_m, far_m = _beside(near_m, distance_m), _beside(far_m, distance_m)
    lowest = 1 / far_m
    return (1 / distance_m - lowest) / (1 / near_m - lowest)


def depth_from_normalized(inverse_depth_01: Any, near_m: Any, far_m: Any) -> Any:
    """The distance in metres at a inverse_depth_01 between far (0) and near (1): the inverse of :func:`normalized_inverse_depth`.

    Examples:
        >>> depth_from_normalized(1.0, near_m=0.5, far_m=2.0), depth_from_normalized(0.0, near_m=0.5, far_m=2.0)
        (0.5, 2.0)
    """
    near_m, far_m = _beside(near_m, inverse_depth_01), _beside(far_m, inverse_depth_01)
    lowest = 1 / far_m
    return 1 / (lowest + (1 / near_m - lowest) * inverse_depth_01)
