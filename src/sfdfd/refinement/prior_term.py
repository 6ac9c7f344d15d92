"""Trust in a depth map from elsewhere: t mean c log(1 + ((p - a q - b) / s)^2 / 2), with q the aligned map and s its std.

The local weight c in [0, 1] is near 1 where the blur says little and 0 where it is sure or contradicts the map
(:mod:`sfdfd.inference.prior`). The logarithm lets a pixel leave the map
at a bounded cost. The line a q + b fits the map to the current depth where the blur is sure, by least squares in each step:
an error that the start and so the alignment had leaves the map as it leaves the depth.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.refinement.start_term import REFERENCE_SPAN_PX, SPAN_LIMITS_PX
from sfdfd.refinement.variables import Level, Stage, Variables, halve

__all__ = ["AlignedPrior", "PriorTerm"]

TRUST, MIN_STD = 2e-4, 0.003
"""Weight t of the term at 10 px of blur difference over the depth range, and the smallest std it counts with."""
LEAST_VARIANCE, LARGEST_SLOPE = 1e-4, 1.5
"""Variance of the map at the anchors below which its scale stays as it is, and the largest change of scale."""


class AlignedPrior(NamedTuple):
    """A depth map from elsewhere in the frame and scale of a stack.

    Attributes:
        inverse_depth_01: (B,H,W) normalized inverse depth in [0, 1].
        std: (B,H,W) its standard deviation.
        share: (B,H,W) in [0, 1], its share in the fusion with the start; 0 where it is unknown.
        weight: (B,H,W) in [0, 1], its local weight c in the energy.
        anchors: (B,H,W) weights, mean 1, of the pixels that fix its scale and shift: where the blur is sure and agrees.
    """

    inverse_depth_01: Tensor
    std: Tensor
    share: Tensor
    weight: Tensor
    anchors: Tensor


class PriorTerm:
    """Hold depth near an aligned prior where the blur says little.

    Args:
        level: the problem at one size.
        prior: at full size.
    """

    def __init__(self, level: Level, prior: AlignedPrior) -> None:
        height, width = level.stack.images.shape[-2:]
        while prior.std.shape[-2:] != (height, width):
            prior = AlignedPrior(*(halve(value[:, None])[:, 0] for value in prior))
        self.prior = prior
        span = (REFERENCE_SPAN_PX / level.full_blur_span_px.clamp(*SPAN_LIMITS_PX)).square()
        self.weight = TRUST * span * level.explained.square()

    def __call__(self, variables: Variables, stage: Stage) -> Float[Tensor, "b"]:
        target = self.fitted_to(variables.inverse_depth_01.detach())
        offset = (variables.inverse_depth_01 - target) / self.prior.std.clamp_min(MIN_STD)
        return self.weight * (self.prior.weight * torch.log1p(0.5 * offset.square())).mean((1, 2))

    def fitted_to(self, inverse_depth_01: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """Return the map, scaled and shifted to fit a depth at the anchors."""
        prior, weight = self.prior.inverse_depth_01, self.prior.anchors

        def mean(values: Tensor) -> Tensor:
            return (weight * values).mean((1, 2), keepdim=True) / weight.mean((1, 2), keepdim=True).clamp_min(1e-9)

        centred = prior - mean(prior)
        variance = mean(centred.square())
        slope = (mean(centred * inverse_depth_01) + LEAST_VARIANCE) / (variance + LEAST_VARIANCE)
        return mean(inverse_depth_01) + slope.clamp(1 / LARGEST_SLOPE, LARGEST_SLOPE) * centred
