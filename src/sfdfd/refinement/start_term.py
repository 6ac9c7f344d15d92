"""Trust in the start: tau mean log(1 + ((p - p_0) / s)^2 / 2), with p_0 the start and s its standard deviation.

A faint texture has too little light to hold its depth against the priors. A start that was sure of it holds it instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.refinement.variables import Level, Stage, Start, Variables
from sfdfd.stack import FocalStack

__all__ = ["StartTerm", "extremes_nearby", "start_from_depth"]

REFERENCE_SPAN_PX, SPAN_LIMITS_PX = 10.0, (3.0, 30.0)
"""Blur difference over the depth range at which the weight counts as set, and where it stops changing."""
EDGE_REACH_PX = 6
"""Distance from a depth edge within which a start may be on its wrong side."""


class StartTerm:
    """Hold depth near a start that was sure.

    The weight grows with the inverse square of the blur difference over the depth range: what the model cannot explain
    moves depth the farther, the less the blur says of it.

    Args:
        level: the problem at one size; its start may be None.
    """

    def __init__(self, level: Level) -> None:
        self.start, settings = level.start, level.settings
        self.min_std, self.enabled = settings.start_min_std, bool(settings.start_trust)
        span = (REFERENCE_SPAN_PX / level.full_blur_span_px.clamp(*SPAN_LIMITS_PX)).square()
        # the start knows light alone, so it is trusted less where the model explains less
        self.weight = settings.start_trust * span * level.explained.square()

    def __call__(self, variables: Variables, stage: Stage) -> Float[Tensor, "b"] | float:
        if self.start is None or not self.enabled:
            return 0.0
        return stage.start_trust * self.weight * self.departure(variables.inverse_depth_01)

    def departure(self, inverse_depth_01: Float[Tensor, "b h w"]) -> Float[Tensor, "b"]:
        """Return the mean of log(1 + ((p - p_0) / s)^2 / 2)."""
        assert self.start is not None
        offset = (inverse_depth_01 - self.start.inverse_depth_01) / self.start.std.clamp_min(self.min_std)
        return torch.log1p(0.5 * offset.square()).mean((1, 2))


def start_from_depth(stack: FocalStack, depth_m: Float[Tensor, "b h w"], depth_std_m: Float[Tensor, "b h w"]) -> Start:
    """Convert a depth map and its standard deviation in metres, to first order.

    Beside a depth edge a start cannot know on which side a pixel lies. There the standard deviation is at least half the
    range of depth within ``EDGE_REACH_PX``.
    """
    span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
    inverse_depth_01 = normalized_inverse_depth(depth_m, stack.near_m, stack.far_m)
    high, low = extremes_nearby(inverse_depth_01)
    return Start(inverse_depth_01, torch.maximum(depth_std_m / depth_m.square() / span, (high - low) / 2))


def extremes_nearby(inverse_depth_01: Float[Tensor, "b h w"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Return the largest and the smallest value within ``EDGE_REACH_PX``."""
    window = 2 * EDGE_REACH_PX + 1
    high, low = (
        sign * F.max_pool2d(sign * inverse_depth_01[:, None], window, 1, EDGE_REACH_PX)[:, 0] for sign in (1, -1)
    )
    return high, low
