"""Peak signal-to-noise ratio; apart from the other metrics, which load torchmetrics."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["psnr"]


def psnr(
    image: Float[Tensor, "b *rest"], truth: Float[Tensor, "b *rest"], weight: Float[Tensor, "b *rest"] | None = None
) -> Float[Tensor, "b"]:
    """Return the peak signal-to-noise ratio of each image in dB, peak 1.0, capped at 100 dB.

    Args:
        image, truth: (B,...) in [0, 1].
        weight: (B,...) of each value, >= 0; equal by default.

    Examples:
        >>> round(psnr(torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.6)).item(), 2)
        20.0
    """
    error = (image.cpu().double() - truth.cpu().double()).square().flatten(1)
    if weight is None:
        mean = error.mean(1)
    else:
        weight = weight.cpu().double().flatten(1)
        mean = (torch.where(weight > 0, error, 0.0) * weight).sum(1) / weight.sum(1)
    return -10 * torch.log10(mean.clamp_min(1e-10))
