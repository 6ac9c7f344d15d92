"""Inverse depth, in which blur is linear: where a distance lies between near and far, and back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["depth_at", "inverse_position"]


def _beside(value: Any, other: Any) -> Any:
    """A (B,) tensor, shaped to broadcast with ``other`` (B, ...)."""
    if isinstance(value, Tensor) and isinstance(other, Tensor) and value.ndim == 1:
        return value.reshape(-1, *(1,) * (other.ndim - 1))
    return value


def inverse_position(distance_m: Any, near_m: Any, far_m: Any) -> Any:
    """Position of a distance between far (0) and near (1), linear in inverse distance; outside of [0, 1] beyond them.

    Args:
        distance_m: metres > 0, inf is allowed; number, array or tensor (B, ...).
        near_m, far_m: metres, numbers or (B,).

    Examples:
        >>> inverse_position(1.0, near_m=0.5, far_m=2.0)
        0.333...
    """
    near_m, far_m = _beside(near_m, distance_m), _beside(far_m, distance_m)
    lowest = 1 / far_m
    return (1 / distance_m - lowest) / (1 / near_m - lowest)


def depth_at(position: Any, near_m: Any, far_m: Any) -> Any:
    """The distance in metres at a position between far (0) and near (1): the inverse of :func:`inverse_position`.

    Examples:
        >>> depth_at(1.0, near_m=0.5, far_m=2.0), depth_at(0.0, near_m=0.5, far_m=2.0)
        (0.5, 2.0)
    """
    near_m, far_m = _beside(near_m, position), _beside(far_m, position)
    lowest = 1 / far_m
    return 1 / (lowest + (1 / near_m - lowest) * position)
