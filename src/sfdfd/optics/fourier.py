"""Convolutions with real kernels that are even along both axes, by FFT.

Channels go in pairs, as the real and imaginary part of one image, which such a kernel does not mix. A complex
transform of a pair takes as long as the real transforms of both forward, and half as long as torch's inverse real ones on a
CPU (docs/explanation/renderer.md).
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

__all__ = ["mirrored", "paired", "unpaired"]


def paired(images: Float[Tensor, "*b c h w"]) -> Complex[Tensor, "*b p h w"]:
    """Channels two by two as complex images; the last of an odd number has nothing beside it.

    Examples:
        >>> paired(torch.tensor([1.0, 2.0, 3.0])[:, None, None]).flatten().tolist()
        [(1+2j), (3+0j)]
    """
    real, imaginary = images[..., 0::2, :, :], images[..., 1::2, :, :]
    if real.shape[-3] > imaginary.shape[-3]:
        imaginary = torch.cat([imaginary, torch.zeros_like(real[..., :1, :, :])], -3)
    return torch.complex(real, imaginary)


def unpaired(pairs: Complex[Tensor, "*b p h w"], channels: int) -> Float[Tensor, "*b c h w"]:
    """The channels that were :func:`paired`."""
    return torch.view_as_real(pairs).movedim(-1, -3).flatten(-4, -3)[..., :channels, :, :]


def mirrored(half: Float[Tensor, "*b h k"], width: int) -> Float[Tensor, "*b h w"]:
    """The whole spectrum of kernels that are even along both axes, from the half of it that ``rfft2`` gives."""
    return torch.cat([half, half[..., 1 : width - half.shape[-1] + 1].flip(-1)], -1)
