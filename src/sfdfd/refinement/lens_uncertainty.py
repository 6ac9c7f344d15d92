"""Standard errors of fitted lens parameters, from how much parts of the image disagree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfdfd.refinement.data_term import DataTerm
from sfdfd.refinement.energy import Energy
from sfdfd.refinement.variables import Variables

__all__ = ["lens_std"]

TILES = 3
STEPS = {"k": 0.02, "shape": 0.1}
"""Steps of the second differences, in the units of ``Lens.values``."""


@torch.no_grad()
def lens_std(energy: Energy, variables: Variables) -> dict[str, Tensor]:
    """Return the standard errors (B,) of the fitted lens parameters, depth and AIF held fixed.

    The image is cut into 3 x 3 tiles. With g_i and h_i the first and second derivative of a tile's data term, the standard
    error is that of an estimate whose samples are the tiles (the sandwich estimator of Huber, 1967):
    sqrt(n / (n - 1) sum_i (g_i + h_i d)^2) / sum_i h_i, d = -sum g / sum h. Unlike a likelihood's curvature alone, it
    includes what the model does not explain. It is infinite where the data term has no minimum.
    """
    data_term = DataTerm(energy.level)

    def tile_costs(name: str, step: float) -> Tensor:
        lens = variables.lens.clone()
        lens.values[name] += step
        return F.adaptive_avg_pool2d(data_term.per_pixel(variables._replace(lens=lens)), TILES).flatten(2)

    errors = {}
    for name in variables.lens.fitted:
        step = STEPS[name]
        low, middle, high = (tile_costs(name, offset) for offset in (-step, 0.0, step))
        slope, bend = ((high - low) / (2 * step)).mean(1), ((high - 2 * middle + low) / step**2).mean(1)
        total = bend.sum(-1, keepdim=True)
        rest = slope - bend * slope.sum(-1, keepdim=True) / total
        error = (TILES**2 / (TILES**2 - 1) * rest.square().sum(-1)).sqrt() / total[..., 0]
        errors[name] = torch.where(total[..., 0] > 0, error, torch.inf)
    return errors
