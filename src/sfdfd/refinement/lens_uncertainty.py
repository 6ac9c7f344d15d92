"""How sure what was fitted of the lens is: by how much parts of the image disagree about it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.refinement.energy import Energy
from sfdfd.refinement.lens import Lens

__all__ = ["lens_std"]

TILES = 3
STEPS = {"k": 0.02, "shape": 0.1, "softness": 0.02, "curvature": 0.02, "shift": 0.1, "exposure": 0.005}
"""For second differences, in the units of the values; of the scale in "shift", as many pixels at the border."""
PER_SLICE = ("shift", "exposure")


@torch.no_grad()
def lens_std(
    problem: Energy,
    inverse_depth_01: Float[Tensor, "b h w"],
    aif: Float[Tensor, "b 3 h w"],
    lens: Lens,
    hidden: Tensor | None,
) -> dict[str, Tensor]:
    """Standard errors of what was fitted, shaped as ``lens.values``, with depth and AIF as they are.

    The image is cut into 3 x 3 tiles. With g_i and h_i the slope and the curvature of a tile's misfit along a value, the
    standard error is that of an estimate whose samples are the tiles (the sandwich of Huber, 1967):
    sqrt(n / (n - 1) sum_i (g_i + h_i d)^2) / sum_i h_i, d = -sum g / sum h. It holds what the model does not explain, which
    a likelihood's curvature alone would not. Infinite where the misfit does not say.
    """
    if not lens.fitted:
        return {}

    def tiles(values: Lens) -> Tensor:
        return F.adaptive_avg_pool2d(problem.misfit(inverse_depth_01, aif, values, hidden), TILES).flatten(2)

    found, at = {}, tiles(lens)
    for name in lens.fitted:
        value = lens.values[name]
        components = range(3) if name in PER_SLICE else [slice(None)]
        std = torch.full_like(value, torch.inf)
        for component in components:
            step = STEPS[name] * (2 / aif.shape[-1] if (name, component) == ("shift", 2) else 1.0)
            before, after = lens.clone(), lens.clone()
            before.values[name][..., component] -= step
            after.values[name][..., component] += step
            low, high = tiles(before), tiles(after)
            slope, bend = (high - low) / (2 * step), (high - 2 * at + low) / step**2
            if name not in PER_SLICE:
                slope, bend = slope.mean(1, keepdim=True), bend.mean(1, keepdim=True)
            total = bend.sum(-1, keepdim=True)
            rest = slope - bend * slope.sum(-1, keepdim=True) / total
            error = (TILES**2 / (TILES**2 - 1) * rest.square().sum(-1)).sqrt() / total[..., 0]
            error = torch.where(total[..., 0] > 0, error, torch.inf)
            std[..., component] = error if name in PER_SLICE else error[:, 0]
        found[name] = std
    return found
