"""What refinement optimizes, and what its schedule tells the energy's terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.optics.render import Renderer
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.settings import RefinementSettings
from sfdfd.stack import FocalStack

__all__ = ["EnergyTerm", "Level", "Stage", "Start", "TermBuilder", "Variables", "halve", "resize_to"]


class Variables(NamedTuple):
    """What is optimized, at one size.

    Attributes:
        inverse_depth_01: (B,H,W) normalized inverse depth, 0 at far and 1 at near.
        aif: (B,3,H,W) all-in-focus image in [0, 1].
        lens: parameters of the lens.
        slopes: (B,2,H,W) slopes of the inverse depth to the right and downwards, per pixel; None for zero.
        hidden_colours: (B,3,H,W) colours of the surface behind silhouettes; None for none.
    """

    inverse_depth_01: Tensor
    aif: Tensor
    lens: Lens
    slopes: Tensor | None = None
    hidden_colours: Tensor | None = None


@dataclass(frozen=True)
class Stage:
    """What the schedule says of one step.

    Attributes:
        early: from 1 at the beginning to 0: share of the extra smoothness and farness of textureless regions.
        start_trust: share of the trust in the start.
        draft: whether the renderer's draft is used.
    """

    early: float = 0.0
    start_trust: float = 1.0
    draft: bool = False


class Start(NamedTuple):
    """Where refinement starts: (B,H,W) normalized inverse depth and its standard deviation."""

    inverse_depth_01: Tensor
    std: Tensor


@dataclass(frozen=True)
class Level:
    """The problem at one image size: what an energy term may be built from.

    Attributes:
        stack: the slices, without truth.
        renderer: the model's optics.
        settings: weights and rates.
        start: the start and how sure it is; None where that is not known.
        slice_weights: (B,S,1,1,1) weight of each slice, 1 in the mean.
        explained: (B,) mean share of the slices that the start explains, in (0, 1].
        blur_span_px: (B,) difference in blur radius over the depth range, the largest of the slices, at this size.
        full_blur_span_px: (B,) the same at full size.
    """

    stack: FocalStack
    renderer: Renderer
    settings: RefinementSettings
    start: Start | None
    slice_weights: Tensor | float
    explained: Float[Tensor, "b"]
    blur_span_px: Float[Tensor, "b"]
    full_blur_span_px: Float[Tensor, "b"]


@runtime_checkable
class EnergyTerm(Protocol):
    """One summand of the energy."""

    def __call__(self, variables: Variables, stage: Stage) -> Float[Tensor, "b"] | float:
        """Return the term's energy per sample (B,), with gradients in the variables; 0.0 where it does not apply."""


TermBuilder = Callable[[Level], list[EnergyTerm]]
"""Builds the terms of one level, see :func:`sfdfd.refinement.energy.default_terms`."""


def halve(values: Tensor) -> Tensor:
    """Average (B,C,H,W) over squares of 2 x 2 pixels, sides rounded up."""
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def resize_to(values: Float[Tensor, "b c h w"], like: Tensor) -> Tensor:
    """Resize to the height and width of ``like``, bilinearly."""
    return F.interpolate(values, size=like.shape[-2:], mode="bilinear", align_corners=False)
