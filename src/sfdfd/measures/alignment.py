"""Align relative depth with the truth: by scale and shift in inverse depth."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.errors import InputError

__all__ = ["DEPTH_KINDS", "align_inverse_depth", "as_depth_m"]

DEPTH_KINDS = ("metric", "relative", "inverse", "index")
"""What a method's depth map holds: metres; depth up to a scale; inverse depth up to scale and shift; the index of the slice
in focus, which the focus distances make metric."""


def align_inverse_depth(
    inverse: Float[Tensor, "h w"], truth_m: Float[Tensor, "h w"], valid: Bool[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """Return scale * inverse + shift with the least squares against the true inverse depth over valid pixels.

    The scale is not negative: where a map runs the wrong way, a constant fits better.

    Args:
        inverse: inverse depth up to scale and shift.
        truth_m: true depth in metres.
        valid: pixels that count.

    Returns:
        Inverse depth in 1/m; it may be negative.

    Examples:
        >>> truth = torch.tensor([[1.0, 2.0, 4.0]])
        >>> aligned = align_inverse_depth(3 / truth - 7, truth, torch.ones(1, 3, dtype=torch.bool))
        >>> [round(value, 3) for value in (1 / aligned)[0].tolist()]
        [1.0, 2.0, 4.0]
    """
    given, target = inverse[valid].double(), 1 / truth_m[valid].double()
    deviation = given - given.mean()
    variance = deviation.square().sum()
    covariance = (deviation * (target - target.mean())).sum()
    # a map that is constant but for rounding has nothing to scale
    varies = variance > 1e-14 * given.square().sum()
    scale = torch.where(varies, covariance / variance.clamp_min(1e-300), torch.zeros_like(variance)).clamp_min(0)
    return (target.mean() + scale * (inverse.double() - given.mean())).to(inverse)


def as_depth_m(
    depth: Float[Tensor, "h w"],
    kind: str,
    focus_distances_m: Float[Tensor, "s"],
    truth_m: Float[Tensor, "h w"] | None,
    valid: Bool[Tensor, "h w"] | None,
    near_m: float,
    far_m: float,
    aligned: bool | None = None,
) -> Float[Tensor, "h w"]:
    """Return a method's depth map as metres in [near_m, far_m].

    Args:
        depth: the map.
        kind: of ``DEPTH_KINDS``.
        focus_distances_m: of the slices, for an index.
        truth_m, valid: what relative maps are aligned with.
        near_m, far_m: depth range, to which the result is clamped.
        aligned: whether to align; None: the relative kinds alone.

    Raises:
        InputError: an alignment is needed and there is no truth.
    """
    if kind == "index":
        depth = _from_index(depth, focus_distances_m, near_m, far_m)
    if kind in ("relative", "inverse") if aligned is None else aligned:
        if truth_m is None or valid is None:
            raise InputError(f"depth of kind {kind!r} can be judged only where the true depth is known")
        inverse = align_inverse_depth(depth if kind == "inverse" else 1 / depth, truth_m, valid)
        return 1 / inverse.clamp(1 / far_m, 1 / near_m)
    return depth.clamp(near_m, far_m)


def _from_index(index: Tensor, focus_distances_m: Tensor, near_m: float, far_m: float) -> Tensor:
    """Interpolate the slices' inverse focus distances at a fractional index."""
    inverse = (1 / focus_distances_m.to(index)).clamp(1 / far_m, 1 / near_m)
    position = index.clamp(0, len(inverse) - 1)
    first = position.floor().long().clamp(0, max(len(inverse) - 2, 0))
    second = (first + 1).clamp_max(len(inverse) - 1)
    share = position - first
    return 1 / ((1 - share) * inverse[first] + share * inverse[second])
