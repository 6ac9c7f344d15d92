"""Depth prior: second-order total generalized variation of the normalized inverse depth p, released by edges of the AIF.

    E = sum_o mean [alpha_1 h_o(p(x+o) - p(x) - o v) + alpha_2 h_o(o (v(x+o) - v(x)))]
    h_o(x) = w_o rho(x) + (1 - w_o) q rho(x) / (q + rho(x)),   w_o = exp(-beta |I(x+o) - I(x)|),   rho(x) = sqrt(x^2 + eps^2)

v are the slopes of p (Bredies, Kunisch, Pock, SIAM J. Imaging Sci. 3, 2010): surfaces may slant for free and pay for bends
(less eps, so that zero slopes cost nothing). Offsets o have several lengths: beside a foreground in front of a plain wall
both explanations of a strip of wall colour render alike, and the wall's colour farther away decides. An edge of the AIF
releases a jump of p, but not a ripple of size q: texture on a flat wall is no relief. What a jump costs is bounded by q
(Geman, Reynolds, IEEE PAMI 14, 1992). For bends q is a tenth, or the slopes on both sides of a true edge would be tied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.refinement.settings import RefinementSettings
from sfdfd.refinement.variables import Level, Stage, Variables

__all__ = ["DepthPrior", "textureless"]

BEND_RIPPLE = 0.1
"""q of bends as a share of that of steps."""


class DepthPrior:
    """Smoothness of inverse depth and of its slopes, guided by the AIF.

    Args:
        level: the problem at one size.
    """

    def __init__(self, level: Level) -> None:
        self.settings: RefinementSettings = level.settings
        self.explained = level.explained
        ripple_px = self.settings.ripple_px
        self.ripple = (ripple_px / level.blur_span_px.clamp_min(1e-6))[:, None, None] if ripple_px else None

    def __call__(self, variables: Variables, stage: Stage) -> Float[Tensor, "b"]:
        guide = variables.aif.detach()
        plain = stage.early * textureless(guide) if stage.early else torch.zeros_like(variables.inverse_depth_01)
        return self.energy(variables.inverse_depth_01, guide, variables.slopes, plain) / self.explained

    def energy(
        self,
        inverse_depth_01: Float[Tensor, "b h w"],
        guide: Float[Tensor, "b 3 h w"],
        slopes: Float[Tensor, "b 2 h w"] | None,
        plain: Float[Tensor, "b h w"],
    ) -> Float[Tensor, "b"]:
        """Return the prior's energy; ``plain`` in [0, 1] is where the extra smoothness and farness apply."""
        settings = self.settings
        energy = settings.initial_farness * (plain * inverse_depth_01).mean((1, 2))
        weights = (1 + (settings.initial_smoothness - 1) * plain) / len(settings.offsets_px)
        for direction, axis in enumerate((-1, -2)):
            for offset in settings.offsets_px:
                if offset < inverse_depth_01.shape[axis]:
                    slope = None if slopes is None else slopes[:, direction]
                    for term in self._steps(inverse_depth_01, guide, slopes, slope, weights, axis, offset):
                        energy = energy + term
        return energy

    def _steps(
        self,
        inverse_depth_01: Tensor,
        guide: Tensor,
        slopes: Tensor | None,
        slope: Tensor | None,
        weights: Tensor,
        axis: int,
        offset: int,
    ) -> list[Tensor]:
        """Return the energies of bends and steps between pixels ``offset`` apart along one axis."""
        settings, length = self.settings, inverse_depth_01.shape[axis] - offset
        eps, terms = settings.charbonnier_eps, []

        def difference(values: Tensor) -> Tensor:
            return values.narrow(axis, offset, length) - values.narrow(axis, 0, length)

        held = torch.exp(-settings.edge_sharpness * difference(guide).abs().mean(1))
        weights = weights.narrow(axis, 0, length)
        step = difference(inverse_depth_01)
        if slope is not None and slopes is not None:
            step = step - offset * (slope.narrow(axis, offset, length) + slope.narrow(axis, 0, length)) / 2
            bends = offset * difference(slopes).movedim(1, 0)
            ripple = None if self.ripple is None else BEND_RIPPLE * self.ripple
            cost = _release(torch.sqrt(bends * bends + eps**2) - eps, held, ripple).sum(0)
            terms.append(settings.bending * (weights * cost).mean((1, 2)))
        cost = _release(torch.sqrt(step * step + eps**2), held, self.ripple)
        return [*terms, settings.smoothness * (weights * cost).mean((1, 2))]


def _release(step: Tensor, held: Tensor, ripple: Tensor | None) -> Tensor:
    """Return h: the cost of a step of which an edge of the AIF leaves the share ``held``."""
    if ripple is None:
        return held * step
    return held * step + (1 - held) * ripple * step / (ripple + step)


def textureless(image: Float[Tensor, "b 3 h w"], window_px: int = 7, level: float = 0.02) -> Float[Tensor, "b h w"]:
    """Return 1 where some window around a pixel has no texture, falling to 0 where all windows have texture.

    The value is 1 / (1 + (t / level)^2), t the smallest mean absolute difference of the windows that hold the pixel, so that
    a plain strip beside an edge counts as plain.
    """
    steps = [
        F.pad(torch.diff(image, dim=axis).abs().mean(1), edge) for axis, edge in ((-1, (0, 1)), (-2, (0, 0, 0, 1)))
    ]
    mean = F.avg_pool2d((steps[0] + steps[1])[:, None] / 2, window_px, 1, window_px // 2, count_include_pad=False)
    least = -F.max_pool2d(-mean, window_px, 1, window_px // 2)[:, 0]
    return 1 / (1 + (least / level).square())
