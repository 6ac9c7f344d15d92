"""Spatially varying blur over the whole image, by a few FFT convolutions on a low-rank PSF basis.

``J(x) = sum_p w_p(x) I(p) / sum_p w_p(x)`` with the blur size of the source pixel p ("source") or of the output pixel x
("target"). K_s(q) = sum_l K_s(q_l) B_l(q), so L convolutions serve a blur that differs at every pixel. Forward and backward
are written by hand (docs/decisions/0001-low-rank-renderer.md).
"""

from __future__ import annotations

import math

import scipy.fft
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfdfd.optics.fourier import channels_from_complex, complex_from_channels, full_spectrum
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.psf import PSF, PSFBasis, psf_basis

__all__ = ["spread_light"]

TOLERANCE = {"exact": 1e-5, "fast": 1.5e-2, "draft": 5e-2}
"""Largest L1 error of the PSF, relative to its mass, in each method (see sfdfd.optics.psf)."""
EXACT_FLOAT64 = 1e-9
AUTO_LIMIT_PX = 8.0
"""Largest size up to which "auto" is exact."""


def spread_light(
    light: Float[Tensor, "b c h w"], size_px: Float[Tensor, "b s h w"], options: RenderOptions, largest_px: float
) -> Float[Tensor, "b s c h w"]:
    """Blur light with a PSF size per pixel and slice, normalised over the pixels inside the image.

    Args:
        light: (B,C,H,W) what is blurred.
        size_px: (B,S,H,W) PSF sizes in pixels, > 0.
        options: of which ``psf``, ``method`` and ``weighting`` are used.
        largest_px: largest of the sizes.

    Returns:
        (B,S,C,H,W), differentiable in light and size_px.
    """
    basis = _basis_for(options.psf_family, largest_px, max(light.shape[-2:]), options.method, light.dtype)
    light_and_weight = torch.cat([light, torch.ones_like(light[:, :1])], dim=1)
    spread = _SourceSpread if options.weighting == "source" else _TargetSpread
    sums = spread.apply(light_and_weight, size_px, basis)
    return sums[:, :, :-1] / sums[:, :, -1:]


def _basis_for(psf: PSF, largest_px: float, extent_px: int, method: str, dtype: torch.dtype) -> PSFBasis:
    # sizes are rounded up to quarters of octaves, so that few distinct bases are computed, each cached
    limit = 2.0 ** (math.ceil(4 * math.log2(max(largest_px, 0.5)) - 1e-6) / 4)
    reach = 1 << (max(extent_px - 1, 1) - 1).bit_length()
    if method == "auto":
        method = "fast" if largest_px > AUTO_LIMIT_PX and dtype != torch.float64 else "exact"
    tolerance = EXACT_FLOAT64 if method == "exact" and dtype == torch.float64 else TOLERANCE[method]
    return psf_basis(psf, limit, reach, tolerance)


def _padded(extent: int, reach: int) -> int:
    return scipy.fft.next_fast_len(extent + min(reach, extent), real=True)


def _spectra(basis: PSFBasis, like: Tensor) -> tuple[Tensor, tuple[int, int]]:
    shape = _padded(like.shape[-2], basis.reach_px), _padded(like.shape[-1], basis.reach_px)
    return basis.spectra(*shape, like.dtype, like.device), shape


def _centre_gradients(psf: PSF, light: Tensor, size: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients in light and size of each pixel's weight on itself."""
    weight = psf.weight(0.0, size)
    light_grad = torch.einsum("bshw,bschw->bchw", weight, grad)
    return light_grad, psf.slope(0.0, size, weight) * (grad * light[:, None]).sum(2)


class _SourceSpread(torch.autograd.Function):
    """light (B,C,H,W), size (B,S,H,W) -> (B,S,C,H,W): sum over p of K_{s_p}(|x-p|) light(p)."""

    @staticmethod
    def forward(ctx, light: Tensor, size: Tensor, basis: PSFBasis) -> Tensor:
        ctx.save_for_backward(light, size)
        ctx.basis = basis
        height, width = light.shape[-2:]
        pairs, (spectra, shape) = complex_from_channels(light), _spectra(basis, light)
        padded = pairs.new_zeros(*size.shape[:2], pairs.shape[1], *shape)
        total = None
        for distance_sq, spectrum in zip(basis.distances_sq, spectra, strict=True):
            weight = basis.psf.weight(distance_sq, size)
            torch.mul(weight[:, :, None], pairs[:, None], out=padded[..., :height, :width])
            part = torch.fft.fft2(padded).mul_(full_spectrum(spectrum, shape[1]))
            total = part if total is None else total.add_(part)
        spread = channels_from_complex(torch.fft.ifft2(total)[..., :height, :width], light.shape[1])
        return spread + basis.psf.weight(0.0, size)[:, :, None] * light[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        light, size = ctx.saved_tensors
        basis = ctx.basis
        height, width = light.shape[-2:]
        pairs, (spectra, shape) = complex_from_channels(light), _spectra(basis, light)
        light_grad, size_grad = _centre_gradients(basis.psf, light, size, grad)
        transformed, gathered = torch.fft.fft2(complex_from_channels(grad), s=shape), torch.zeros_like(pairs)
        for distance_sq, spectrum in zip(basis.distances_sq, spectra, strict=True):
            arrived = torch.fft.ifft2(transformed * full_spectrum(spectrum, shape[1]))[..., :height, :width]
            weight = basis.psf.weight(distance_sq, size)
            if ctx.needs_input_grad[1]:
                size_grad += basis.psf.slope(distance_sq, size, weight) * _dot(arrived, pairs[:, None])
            if ctx.needs_input_grad[0]:
                gathered += (weight[:, :, None] * arrived).sum(1)
        return light_grad + channels_from_complex(gathered, light.shape[1]), size_grad, None


class _TargetSpread(torch.autograd.Function):
    """light (B,C,H,W), size (B,S,H,W) -> (B,S,C,H,W): sum over p of K_{s_x}(|x-p|) light(p)."""

    @staticmethod
    def forward(ctx, light: Tensor, size: Tensor, basis: PSFBasis) -> Tensor:
        ctx.save_for_backward(light, size)
        ctx.basis = basis
        height, width = light.shape[-2:]
        pairs, (spectra, shape) = complex_from_channels(light), _spectra(basis, light)
        transformed = torch.fft.fft2(pairs, s=shape)
        total = basis.psf.weight(0.0, size)[:, :, None] * pairs[:, None]
        for distance_sq, spectrum in zip(basis.distances_sq, spectra, strict=True):
            blurred = torch.fft.ifft2(transformed * full_spectrum(spectrum, shape[1]))[..., :height, :width]
            total += basis.psf.weight(distance_sq, size)[:, :, None] * blurred[:, None]
        return channels_from_complex(total, light.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        light, size = ctx.saved_tensors
        basis = ctx.basis
        height, width = light.shape[-2:]
        pairs, (spectra, shape) = complex_from_channels(light), _spectra(basis, light)
        light_grad, size_grad = _centre_gradients(basis.psf, light, size, grad)
        transformed, arrived = torch.fft.fft2(pairs, s=shape), complex_from_channels(grad)
        total = torch.zeros_like(transformed)
        for distance_sq, half in zip(basis.distances_sq, spectra, strict=True):
            weight, spectrum = basis.psf.weight(distance_sq, size), full_spectrum(half, shape[1])
            if ctx.needs_input_grad[1]:
                blurred = torch.fft.ifft2(transformed * spectrum)[..., :height, :width]
                size_grad += basis.psf.slope(distance_sq, size, weight) * _dot(arrived, blurred[:, None])
            if ctx.needs_input_grad[0]:
                gathered = (weight[:, :, None] * arrived).sum(1)
                total += torch.fft.fft2(gathered, s=shape).mul_(spectrum)
        light_grad = light_grad + channels_from_complex(torch.fft.ifft2(total)[..., :height, :width], light.shape[1])
        return light_grad, size_grad, None


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Sum the products of packed images (B,S,P,H,W) over channels: (B,S,H,W)."""
    return (first * second.conj()).sum(2).real
