"""Depth prior: second-order total generalized variation of the normalized inverse depth p, released by edges of the AIF.

    E = (1 / m) { phi mean(T p) + mean_o mean[W (alpha_1 h_o(p(x+o) - p(x) - o v') + alpha_2 h_o(o (v(x+o) - v(x))))] }
    h_o(x) = w_o rho(x) + (1 - w_o) q rho(x) / (q + rho(x)),   w_o = exp(-beta |I(x+o) - I(x)|),   rho(x) = sqrt(x^2 + eps^2)

The sums run over both axes, mean_o over the offsets o (``offsets_px``). v are the slopes of p, and v' their mean at both
ends. alpha_1 is ``smoothness``, alpha_2 ``bending``, beta ``edge_sharpness``, eps ``charbonnier_eps``; q is
``ripple_px`` as a difference of p, a tenth of it for bends. m is ``Level.explained``, so that the prior keeps its
balance with the re-weighted data term. T is 1 in textureless regions in the first steps and fades; phi is
``initial_farness``, and W is 1 plus T times (``initial_smoothness`` - 1).

Constant slopes add no cost, and changes of slope are penalized (Bredies, Kunisch, Pock, SIAM J. Imaging Sci. 3, 2010;
less eps, so that zero slopes cost nothing). Offsets have several lengths: a textureless strip beside a foreground
renders alike at both depths, and long offsets tie it to the wall. An edge of the AIF releases a jump of p, but not a
ripple of size q, because texture on a flat wall is no relief. The cost of a jump is bounded by q (Geman, Reynolds, IEEE
PAMI 14, 1992).
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
        textureless_weight = (
            stage.early * textureless(guide) if stage.early else torch.zeros_like(variables.inverse_depth_01)
        )
        return self.energy(variables.inverse_depth_01, guide, variables.slopes, textureless_weight) / self.explained

    def energy(
        self,
        inverse_depth_01: Float[Tensor, "b h w"],
        guide: Float[Tensor, "b 3 h w"],
        slopes: Float[Tensor, "b 2 h w"] | None,
        textureless_weight: Float[Tensor, "b h w"],
    ) -> Float[Tensor, "b"]:
        """Return the prior's energy; ``textureless_weight`` in [0, 1] is where the extra smoothness and farness apply."""
        settings = self.settings
        energy = settings.initial_farness * (textureless_weight * inverse_depth_01).mean((1, 2))
        weights = (1 + (settings.initial_smoothness - 1) * textureless_weight) / len(settings.offsets_px)
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

        edge_weight = torch.exp(-settings.edge_sharpness * difference(guide).abs().mean(1))
        weights = weights.narrow(axis, 0, length)
        step = difference(inverse_depth_01)
        if slope is not None and slopes is not None:
            step = step - offset * (slope.narrow(axis, offset, length) + slope.narrow(axis, 0, length)) / 2
            bends = offset * difference(slopes).movedim(1, 0)
            ripple = None if self.ripple is None else BEND_RIPPLE * self.ripple
            cost = _edge_aware_cost(torch.sqrt(bends * bends + eps**2) - eps, edge_weight, ripple).sum(0)
            terms.append(settings.bending * (weights * cost).mean((1, 2)))
        cost = _edge_aware_cost(torch.sqrt(step * step + eps**2), edge_weight, self.ripple)
        return [*terms, settings.smoothness * (weights * cost).mean((1, 2))]


def _edge_aware_cost(step: Tensor, edge_weight: Tensor, ripple: Tensor | None) -> Tensor:
    """Return h: the cost of a step of which an edge of the AIF leaves the share ``edge_weight``."""
    if ripple is None:
        return edge_weight * step
    return edge_weight * step + (1 - edge_weight) * ripple * step / (ripple + step)


def textureless(image: Float[Tensor, "b 3 h w"], window_px: int = 7, level: float = 0.02) -> Float[Tensor, "b h w"]:
    """Return 1 where some window around a pixel has no texture, falling to 0 where all windows have texture.

    The value is 1 / (1 + (t / level)^2), t the smallest mean absolute difference of the windows that hold the pixel, so that
    a plain strip beside an edge counts as textureless.
    """
    steps = [
        F.pad(torch.diff(image, dim=axis).abs().mean(1), edge) for axis, edge in ((-1, (0, 1)), (-2, (0, 0, 0, 1)))
    ]
    mean = F.avg_pool2d((steps[0] + steps[1])[:, None] / 2, window_px, 1, window_px // 2, count_include_pad=False)
    least = -F.max_pool2d(-mean, window_px, 1, window_px // 2)[:, 0]
    return 1 / (1 + (least / level).square())
