"""Convolutions by FFT with real kernels that are even along both axes.

Two channels share one complex image, because such a kernel does not mix real and imaginary parts. One complex transform of a
pair costs as much as two real forward transforms, and half as much as torch's two real inverse transforms on a CPU
(docs/explanation/renderer.md).
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

__all__ = ["channels_from_complex", "complex_from_channels", "full_spectrum"]


def complex_from_channels(images: Float[Tensor, "*b c h w"]) -> Complex[Tensor, "*b p h w"]:
    """Pack pairs of channels as complex images; the last of an odd number has the imaginary part 0.

    Examples:
        >>> complex_from_channels(torch.tensor([1.0, 2.0, 3.0])[:, None, None]).flatten().tolist()
        [(1+2j), (3+0j)]
    """
    real, imaginary = images[..., 0::2, :, :], images[..., 1::2, :, :]
    if real.shape[-3] > imaginary.shape[-3]:
        imaginary = torch.cat([imaginary, torch.zeros_like(real[..., :1, :, :])], -3)
    return torch.complex(real, imaginary)


def channels_from_complex(pairs: Complex[Tensor, "*b p h w"], channels: int) -> Float[Tensor, "*b c h w"]:
    """Unpack the channels of :func:`complex_from_channels`."""
    return torch.view_as_real(pairs).movedim(-1, -3).flatten(-4, -3)[..., :channels, :, :]


def full_spectrum(half: Float[Tensor, "*b h k"], width: int) -> Float[Tensor, "*b h w"]:
    """Complete the half spectrum that ``rfft2`` gives of kernels that are even along both axes."""
    return torch.cat([half, half[..., 1 : width - half.shape[-1] + 1].flip(-1)], -1)
