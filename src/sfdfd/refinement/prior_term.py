"""Trust in a depth map from elsewhere: t mean c log(1 + ((p - q) / s)^2 / 2), with q the aligned map and s its std.

The local weight c in [0, 1] is near 1 where the blur says little and 0 where it is sure or contradicts the map
(:mod:`sfdfd.inference.prior`). The logarithm lets a pixel leave the map at a bounded cost.
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


class AlignedPrior(NamedTuple):
    """A depth map from elsewhere in the frame and scale of a stack.

    Attributes:
        inverse_depth_01: (B,H,W) normalized inverse depth in [0, 1].
        std: (B,H,W) its standard deviation.
        share: (B,H,W) in [0, 1], its share in the fusion with the start; 0 where it is unknown.
        weight: (B,H,W) in [0, 1], its local weight c in the energy.
    """

    inverse_depth_01: Tensor
    std: Tensor
    share: Tensor
    weight: Tensor


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
        offset = (variables.inverse_depth_01 - self.prior.inverse_depth_01) / self.prior.std.clamp_min(MIN_STD)
        return self.weight * (self.prior.weight * torch.log1p(0.5 * offset.square())).mean((1, 2))
