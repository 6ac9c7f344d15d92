"""Real spectra of point spread functions on periodic grids, and their derivative in the PSF's size.

Kernels are even along both axes, so their spectra are real and even, too: a quarter of each is computed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.special
import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.optics.psf import PSF, DiscPSF, GaussianPSF, floored_size_px

__all__ = [
    "cached_quarter_spectra",
    "kernel_reach_px",
    "kernel_sizes_px",
    "mirrored",
    "psf_spectra",
    "quarter_spectra",
    "quarter_spectra_slopes",
]


LARGEST_CACHED_SPECTRA = 1 << 20
"""Spectra of at most so many numbers are cached."""


def kernel_reach_px(psf: PSF, size_px: float) -> int:
    """Return the half width of what a kernel spreads over."""
    return max(1, psf.reach_px(size_px)) + (1 if isinstance(psf, DiscPSF) else 0)


def kernel_sizes_px(psf: PSF, sizes: Tensor) -> Tensor:
    """Floor PSF sizes for the Fourier domain, where a disc needs no floor: its spectrum at radius 0 is the identity."""
    return sizes if isinstance(psf, DiscPSF) else floored_size_px(sizes, psf.floor_px)


def psf_spectra(psf: PSF, sizes: Float[Tensor, "*n"], shape: tuple[int, int]) -> Float[Tensor, "*n h w2"]:
    """Return the half spectra, as of ``rfft2``, of PSFs of integral 1 on a periodic grid (h,w); w2 = w//2+1.

    The disc's is its continuous transform ``2 J_1(x) / x``, ``x = 2 pi f s``, which also holds for radii below a pixel. A
    sampled disc spreads too little there and biases depth near the focus planes by tenths of a pixel of blur. Other PSFs are
    sampled, as in :mod:`sfdfd.optics.render`.
    """
    return mirrored(quarter_spectra(psf, sizes, shape), -2, shape[0])


def mirrored(spectra: Tensor, dim: int, length: int) -> Tensor:
    """Complete frequencies from 0 to the Nyquist frequency by those that mirror them."""
    known = spectra.shape[dim]
    return torch.cat([spectra, spectra.narrow(dim, 1, length - known).flip(dim)], dim)


def quarter_spectra(psf: PSF, sizes: Float[Tensor, "*n"], shape: tuple[int, int]) -> Float[Tensor, "*n h2 w2"]:
    """Return :func:`psf_spectra` at the frequencies from 0 to the Nyquist frequency of both axes, h//2+1 by w//2+1.

    Args:
        psf: the PSF family.
        sizes: PSF sizes in pixels, floored by :func:`kernel_sizes_px`.
        shape: h, w.
    """
    if isinstance(psf, DiscPSF):
        return _of_bessel_functions("value", sizes[..., None, None] * _frequencies(shape).to(sizes))
    if isinstance(psf, GaussianPSF):
        (rows, columns), _ = _gaussian_lines(sizes, shape)
        return rows[..., :, None] * columns[..., None, :]
    kernel, norm, _ = _sampled(psf, sizes, shape)
    return _even_transform(kernel / norm, shape)


def cached_quarter_spectra(
    psf: PSF, sizes: np.ndarray, shape: tuple[int, int], like: Tensor
) -> Float[Tensor, "*n h2 w2"]:
    """Return :func:`quarter_spectra` in the type of a tensor, of sizes on the host; do not write into it."""
    numbers = sizes.size * (shape[0] // 2 + 1) * (shape[1] // 2 + 1)
    compute = _cached_spectra if numbers <= LARGEST_CACHED_SPECTRA else _cached_spectra.__wrapped__
    return compute(psf, sizes.tobytes(), sizes.shape, shape, like.dtype, like.device)


@lru_cache(maxsize=24)
@torch.inference_mode(False)  # cached spectra must serve gradients, too
def _cached_spectra(
    psf: PSF,
    sizes: bytes,
    sizes_shape: tuple[int, ...],
    shape: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    values = torch.from_numpy(np.frombuffer(sizes).reshape(sizes_shape).copy())
    return quarter_spectra(psf, values.to(dtype).to(device), shape)


def quarter_spectra_slopes(psf: PSF, sizes: Float[Tensor, "*n"], shape: tuple[int, int]) -> Float[Tensor, "*n h2 w2"]:
    """Return the derivative of :func:`quarter_spectra` in the sizes."""
    if isinstance(psf, DiscPSF):
        frequencies = _frequencies(shape).to(sizes)
        return 2 * math.pi * frequencies * _of_bessel_functions("slope", sizes[..., None, None] * frequencies)
    if isinstance(psf, GaussianPSF):
        (rows, columns), (row_slopes, column_slopes) = _gaussian_lines(sizes, shape)
        return row_slopes[..., :, None] * columns[..., None, :] + rows[..., :, None] * column_slopes[..., None, :]
    kernel, norm, total = _sampled(psf, sizes, shape)
    distance_sq = _distances_sq(shape).to(sizes)
    slope = psf.slope(distance_sq, sizes[..., None, None], kernel)
    slope = slope - kernel * torch.where(norm == total, _sum_over_grid(slope, shape) / norm, 0.0)
    return _even_transform(slope / norm, shape)


def _gaussian_lines(sizes: Tensor, shape: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the spectra of the Gaussian along rows and columns, and their derivatives in the sizes.

    The sum of a Gaussian wider than the grid is its integral.
    """
    sizes = sizes[..., None]
    lines: list[Tensor] = []
    slopes: list[Tensor] = []
    for length in shape:
        offsets = torch.arange(length // 2 + 1, device=sizes.device, dtype=sizes.dtype)
        copies = _copies(length, sizes)
        reach = (4.5 * sizes).ceil().clamp_min(1)
        line = torch.where(offsets <= reach, torch.exp(-0.5 * (offsets / sizes).square()), 0.0)
        slope = line * offsets.square() / sizes.pow(3)
        is_whole = reach <= length // 2
        total = torch.where(is_whole, (copies * line).sum(-1, keepdim=True), math.sqrt(2 * math.pi) * sizes)
        total_slope = torch.where(is_whole, (copies * slope).sum(-1, keepdim=True), math.sqrt(2 * math.pi))
        line = line / total
        slope = slope / total - line * (total_slope / total)
        for values, spectra in ((line, lines), (slope, slopes)):
            spectra.append(torch.fft.rfft(mirrored(values, -1, length)).real)
    return lines, slopes


def _sampled(psf: PSF, sizes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a quarter of the kernels, what they are divided by, and their sum; they differ if a kernel exceeds the grid."""
    kernel = psf.weight(_distances_sq(shape).to(sizes), sizes[..., None, None])
    total = _sum_over_grid(kernel, shape)
    edge = torch.maximum(kernel[..., -1, 0], kernel[..., 0, -1]) / kernel[..., 0, 0]
    return kernel, torch.where((edge < 1e-6)[..., None, None], total, psf.mass), total


def _sum_over_grid(quarter: Tensor, shape: tuple[int, int]) -> Tensor:
    return (quarter * _copies(shape[0], quarter)[:, None] * _copies(shape[1], quarter)).sum((-2, -1), keepdim=True)


def _even_transform(quarter: Tensor, shape: tuple[int, int]) -> Tensor:
    whole = mirrored(mirrored(quarter, -2, shape[0]), -1, shape[1])
    return torch.fft.rfft2(whole).real[..., : shape[0] // 2 + 1, :]


def _copies(length: int, like: Tensor) -> Tensor:
    """How often each offset from 0 up occurs on a periodic grid."""
    copies = like.new_full((length // 2 + 1,), 2.0)
    copies[0] = 1
    if length % 2 == 0:
        copies[-1] = 1
    return copies


def _distances_sq(shape: tuple[int, int]) -> Tensor:
    """(h//2+1, w//2+1) squared distances in pixels of a periodic grid, from 0 up."""
    rows, columns = (torch.arange(n // 2 + 1, dtype=torch.float64) for n in shape)
    return rows[:, None].square() + columns.square()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _frequencies(shape: tuple[int, int]) -> Tensor:
    """(h//2+1, w//2+1) radial frequencies in cycles per pixel, from 0 up."""
    rows, columns = (torch.arange(n // 2 + 1, dtype=torch.float64) / n for n in shape)
    return torch.hypot(rows[:, None], columns)


SAMPLES_PER_UNIT = 256


def _of_bessel_functions(kind: str, cycles: Tensor) -> Tensor:
    """Return 2 J_1(x) / x ("value") of x = 2 pi ``cycles`` >= 0, or its derivative in x ("slope").

    On a CPU, float32 comes from a table, to 1e-6, because Bessel functions are slow there.
    """
    if cycles.dtype == torch.float64 or cycles.device.type != "cpu":
        return _bessel_functions(kind, 2 * math.pi * cycles)
    sample = cycles.mul_(2 * math.pi * SAMPLES_PER_UNIT)
    index = sample.to(torch.int32)
    table, steps = _bessel_table(kind, 1 << (int(sample.max()) + 1).bit_length())
    return torch.addcmul(table[index], sample.sub_(index), steps[index])


def _bessel_functions(kind: str, x: Tensor) -> Tensor:
    if kind == "value":
        x = x.clamp_min(1e-6 if x.dtype == torch.float64 else 1e-4)
        return 2 * _bessel_j(1, x) / x
    square = x.square()
    series = (
        -x / 4 * (1 - square / 12 * (1 - square / 32 * (1 - square / 60)))
    )  # -2 J_2(x) / x, where both terms cancel
    far = x.clamp_min(0.3)
    return torch.where(x < 0.3, series, 2 / far * (_bessel_j(0, far) - 2 * _bessel_j(1, far) / far))


def _bessel_j(order: int, x: Tensor) -> Tensor:
    if x.device.type == "cpu" and x.dtype == torch.float64:  # torch's are of single precision
        return torch.from_numpy((scipy.special.j0, scipy.special.j1)[order](x.numpy()))
    return (torch.special.bessel_j0, torch.special.bessel_j1)[order](x)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _bessel_table(kind: str, length: int) -> tuple[Tensor, Tensor]:
    table = _bessel_functions(kind, torch.arange(length + 1, dtype=torch.float64) / SAMPLES_PER_UNIT)
    return table[:-1].float(), table.diff().float()
