"""Blur within a small square window, as published renderers do it, to reproduce their protocols exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.optics.psf import PSF

__all__ = ["spread_in_window"]


def spread_in_window(
    light: Float[Tensor, "b c h w"],
    size_px: Float[Tensor, "b s h w"],
    psf: PSF,
    window_px: int,
    weighting: str,
) -> Float[Tensor, "b s c h w"]:
    """Average the light in a window around each pixel x: ``sum_p w_p(x) I(p) / sum_p w_p(x)`` over p inside the image.

    w_p(x) is K_s(|x - p|), with the size s of the source pixel p (``weighting="source"``, DEReD's kernel) or of the output
    pixel x ("target", dfd's). Blur wider than the window saturates, unlike in
    :func:`sfdfd.optics.render.render_focal_stack` without a window.

    Args:
        light: (B,C,H,W) what is blurred.
        size_px: (B,S,H,W) PSF sizes in pixels, > 0.
        psf: the PSF family K.
        window_px: odd side of the window, >= 3.
        weighting: "source" or "target".

    Returns:
        (B,S,C,H,W), differentiable in light and size_px.
    """
    half = window_px // 2
    height, width = light.shape[-2:]
    light = F.pad(
        torch.cat([light, torch.ones_like(light[:, :1])], 1), (half,) * 4
    )  # the ones sum the weights inside the image
    spread_size = F.pad(size_px, (half,) * 4, mode="constant", value=1.0) if weighting == "source" else None
    total: Tensor | None = None
    for row in range(window_px):
        for column in range(window_px):
            part = (..., slice(row, row + height), slice(column, column + width))
            distance_sq = float((row - half) ** 2 + (column - half) ** 2)
            weight = psf.weight(distance_sq, size_px if spread_size is None else spread_size[part])
            term = weight[:, :, None] * light[part][:, None]
            total = term if total is None else total + term
    assert total is not None  # a window has pixels
    return total[:, :, :-1] / total[:, :, -1:]
