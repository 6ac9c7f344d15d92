"""An occlusion-aware renderer: layers of constant depth, blurred and composited from back to front.

A blurred foreground bleeds over a sharp background; a sharp foreground hides a blurred background. It shares no code
with the weighted sums of :mod:`sfdfd.optics.render`, so stacks that it synthesises are no inverse crime.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

from sfdfd.optics.psf import PSF, floored_size_px

__all__ = ["composite_layers"]


def _kernel(psf: PSF, size_px: float) -> np.ndarray:
    """The sampled PSF of one size, (2R+1, 2R+1), of sum 1."""
    size_px = float(floored_size_px(torch.tensor(size_px, dtype=torch.float64), psf.floor_px))
    reach = max(1, psf.reach_px(size_px))
    offsets = np.arange(-reach, reach + 1)
    kernel = psf.weight((offsets[:, None] ** 2 + offsets[None, :] ** 2).astype(float), size_px)
    return kernel / kernel.sum()


def composite_layers(
    aif: Float[Tensor, "b c h w"],
    depth_m: Float[Tensor, "b h w"],
    layer_sizes: Callable[[Tensor], Float[Tensor, "b s l"]],
    psf: PSF,
    layers: int,
) -> Float[Tensor, "b s c h w"]:
    """Blur each depth layer's colour and opacity with its own PSF and composite them, farthest first.

    ``C = sum_l blur_l(m_l I) prod_{nearer k} (1 - blur_k(m_k))`` and the same with I = 1 for the opacity A; the result is
    C / A: where a nearer layer turned transparent over a place that nobody has seen, what is visible around it counts.

    Args:
        aif: (B,C,H,W) the sharp image.
        depth_m: (B,H,W) depth in metres; each pixel belongs to the nearest of the layers, which are evenly spaced in
            inverse depth between the image's extremes. There is no gradient in depth.
        layer_sizes: (B,L) layer depths in metres -> (B,S,L) PSF sizes in pixels.
        psf: the family.
        layers: number of layers; two depths are represented exactly.

    Returns:
        (B,S,C,H,W) the stack.
    """
    batch, channels, height, width = aif.shape
    inverse = 1.0 / depth_m.detach()
    farthest, nearest = inverse.amin((1, 2)), inverse.amax((1, 2))
    steps = torch.linspace(0, 1, layers, dtype=aif.dtype, device=aif.device)
    levels = farthest[:, None] + (nearest - farthest)[:, None] * steps
    span = (nearest - farthest).clamp_min(1e-12)[:, None, None]
    index = ((inverse - farthest[:, None, None]) / span * (layers - 1)).round().long()
    sizes = layer_sizes(1.0 / levels)
    slices = sizes.shape[1]
    light = torch.cat([aif, torch.ones_like(aif[:, :1])], dim=1)
    result = []
    for b in range(batch):
        colour = [aif.new_zeros(channels + 1, height, width)] * slices
        for number in torch.unique(index[b]).tolist():  # ascending inverse depth: from back to front
            layer = light[b] * (index[b] == number)
            for s in range(slices):
                blurred = _convolve(layer, _kernel(psf, float(sizes[b, s, number])))
                colour[s] = colour[s] * (1 - blurred[-1:]) + blurred
        result.append(torch.stack([one[:-1] / one[-1:].clamp_min(1e-6) for one in colour]))
    return torch.stack(result)


def _convolve(image: Float[Tensor, "c h w"], kernel: np.ndarray) -> Float[Tensor, "c h w"]:
    """Linear convolution, zero outside, by FFT."""
    height, width = image.shape[-2:]
    reach = kernel.shape[0] // 2
    shape = next_fast_len(height + 2 * reach, real=True), next_fast_len(width + 2 * reach, real=True)
    spectrum = torch.fft.rfft2(torch.from_numpy(kernel).to(image), s=shape)
    full = torch.fft.irfft2(torch.fft.rfft2(image, s=shape) * spectrum, s=shape)
    return full[..., reach : reach + height, reach : reach + width]
