"""Data term: how badly depth and AIF explain the slices.

    E = mean w_s a psi(R(I, p) - J),   psi(x) = c log(1 + sqrt(x^2 + eps^2) / c)

R renders the slices, J are the photographs, w_s the weights of the slices, a their coverage
(mean 1) and c ``outlier_level``. Where a photograph is
clipped, a brighter rendering costs nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.refinement.scene_model import SceneModel
from sfdfd.refinement.variables import Level, Stage, Variables
from sfdfd.stack import FocalStack

__all__ = ["MIN_SLICE_WEIGHT", "DataTerm", "slice_weights"]

MIN_SLICE_WEIGHT = 0.5
"""Smallest weight of a slice before normalization, however large its residual."""
EPS_SQUARED = 1e-5


class DataTerm:
    """Weighted robust residual between rendered and photographed slices.

    Args:
        level: the problem at one size.
    """

    def __init__(self, level: Level) -> None:
        self.level, self.model = level, SceneModel(level)
        coverage = level.stack.coverage()
        self.pixel_weights = (coverage / coverage.mean((1, 2, 3), keepdim=True).clamp_min(1e-12))[:, :, None]
        self.saturated = level.stack.saturated()

    def __call__(self, variables: Variables, stage: Stage) -> Float[Tensor, "b"]:
        return self.per_pixel(variables, stage.draft).mean((1, 2, 3))

    def residual(self, variables: Variables, draft: bool = False) -> Float[Tensor, "b s 3 h w"]:
        """Return rendered minus photographed slices; at most 0 where the photograph is clipped."""
        residual = self.model.render(variables, draft) - self.level.stack.images
        return torch.where(self.saturated, residual.clamp_max(0.0), residual)

    def per_pixel(self, variables: Variables, draft: bool = False) -> Float[Tensor, "b s h w"]:
        """Return the term before its mean over slices and pixels."""
        residual, c = self.residual(variables, draft), self.level.settings.outlier_level
        robust = torch.log1p(torch.sqrt(residual * residual + EPS_SQUARED) / c)
        return (self.level.slice_weights * self.pixel_weights * c * robust).mean(2)


def slice_weights(
    residual: Float[Tensor, "b s 3 h w"], stack: FocalStack, expected_residual: float
) -> tuple[Tensor, Float[Tensor, "b"]]:
    """Down-weight slices with large initial residuals: noise, motion, or lens effects that the model lacks.

    A slice weighs (e / r)^2 between :data:`MIN_SLICE_WEIGHT` and 1, with r the first quartile of its absolute residuals
    and e the expected one. A quartile ignores regions where depth is wrong, as long as a quarter of the image is right.

    Args:
        residual: of the start, at the size of ``stack``.
        stack: gives coverage and which slices are real.
        expected_residual: e, > 0.

    Returns:
        (B,S,1,1,1) weights with mean 1 over the slices, and (B,) their mean before.
    """
    values = residual.abs().masked_fill(stack.coverage()[:, :, None] < 0.5, torch.nan).flatten(2)
    sampled = values[..., :: 1 + values.shape[-1] // 100_000]  # torch.quantile has a largest size
    ordered = sampled.sort(-1).values  # nan last
    index = (ordered.isfinite().sum(-1, keepdim=True) - 1).clamp_min(0) // 4
    quartile = ordered.gather(-1, index)[..., 0].nan_to_num(expected_residual)
    weights = (
        expected_residual / quartile.clamp(expected_residual, expected_residual * MIN_SLICE_WEIGHT**-0.5)
    ).square()
    explained = torch.where(stack.slice_mask, weights, 0.0).sum(1) / stack.slice_mask.sum(1)
    return (weights / explained[:, None])[..., None, None, None], explained
