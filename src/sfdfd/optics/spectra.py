"""Real spectra of point spread functions on periodic grids, and their derivative in the PSF's size."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.special
import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.optics.psf import PSF, DiscPSF, GaussianPSF, floored_size_px

__all__ = ["kernel_reach_px", "kernel_sizes_px", "psf_spectra", "psf_spectrum", "psf_spectrum_slope"]

LARGEST_CACHED_SPECTRUM = 1 << 17
"""Spectra of at most so many numbers are cached."""


def kernel_reach_px(psf: PSF, size_px: float) -> int:
    """Return the half width of what a kernel spreads over."""
    return max(1, psf.reach_px(size_px)) + (1 if isinstance(psf, DiscPSF) else 0)


def kernel_sizes_px(psf: PSF, sizes: Tensor) -> Tensor:
    """Floor PSF sizes for the Fourier domain, where a disc needs no floor: its spectrum at radius 0 is the identity."""
    return sizes if isinstance(psf, DiscPSF) else floored_size_px(sizes, psf.floor_px)


def psf_spectrum(psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the real spectrum (h, w//2+1) of a PSF of integral 1 on a periodic grid.

    The disc's is its continuous transform ``2 J_1(x) / x``, ``x = 2 pi f s``, which also holds for radii below a pixel. A
    sampled disc spreads too little there and biases depth near the focus planes by tenths of a pixel of blur. Other PSFs are
    sampled, as in :mod:`sfdfd.optics.render`.
    """
    is_small = shape[0] * (shape[1] // 2 + 1) <= LARGEST_CACHED_SPECTRUM
    return (_cached_spectrum if is_small else _spectrum)(psf, size_px, shape, dtype, device)


def psf_spectra(psf: PSF, sizes: Float[Tensor, "*n"], shape: tuple[int, int]) -> Float[Tensor, "*n h w"]:
    """Return :func:`psf_spectrum` of many sizes: from the cache on a CPU, in one batch on other devices."""
    if sizes.device.type == "cpu" or not isinstance(psf, DiscPSF | GaussianPSF):
        rows = [psf_spectrum(psf, size, shape, sizes.dtype, sizes.device) for size in sizes.flatten().tolist()]
        return torch.stack(rows).unflatten(0, sizes.shape)
    if isinstance(psf, DiscPSF):
        half = _frequencies(shape).to(sizes)
        x = 2 * math.pi * sizes[..., None, None] * torch.cat([half, half[1 : shape[0] - len(half) + 1].flip(0)])
        x = x.clamp_min(1e-4)
        return 2 * torch.special.bessel_j1(x) / x
    lines = []
    for count in shape:
        offsets = torch.arange(count, device=sizes.device, dtype=sizes.dtype)
        offsets = torch.minimum(offsets, count - offsets)
        line = torch.exp(-0.5 * (offsets / sizes[..., None]).square())
        line = torch.where(offsets <= (4.5 * sizes).ceil().clamp_min(1)[..., None], line, 0.0)
        lines.append(torch.fft.fft(line / line.sum(-1, keepdim=True)).real)
    return lines[0][..., :, None] * lines[1][..., None, : shape[1] // 2 + 1]


def psf_spectrum_slope(
    psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the derivative of :func:`psf_spectrum` in the size.

    It is a central difference in float64, computed on the CPU because not every device has that type.
    """
    step, cpu = 1e-4 * max(size_px, 0.1), torch.device("cpu")
    more, less = (_spectrum(psf, size, shape, torch.float64, cpu) for size in (size_px + step, size_px - step))
    return ((more - less) / (2 * step)).to(dtype).to(device)


@torch.inference_mode(False)  # cached spectra must serve gradients, too
def _spectrum(psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(psf, DiscPSF):
        half = _frequencies(shape)  # the rows up to the Nyquist frequency; the others mirror them
        values = _jinc(2 * math.pi * size_px * half.to(dtype))
        return torch.cat([values, values[1 : shape[0] - len(values) + 1].flip(0)]).to(device)
    reach = kernel_reach_px(psf, size_px)
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    if isinstance(psf, GaussianPSF):  # separable
        lines = [np.where(n <= reach, np.exp(-0.5 * (n / size_px) ** 2), 0.0) for n in (rows, columns)]
        down, along = np.fft.fft(lines[0]).real / lines[0].sum(), np.fft.rfft(lines[1]).real / lines[1].sum()
        spectrum = down[:, None] * along[None]
    else:
        with np.errstate(under="ignore"):
            kernel = psf.weight((rows[:, None] ** 2 + columns[None, :] ** 2).astype(float), size_px)
        kernel = np.where((rows[:, None] <= reach) & (columns[None, :] <= reach), kernel, 0.0)
        spectrum = np.fft.rfft2(kernel / kernel.sum()).real
    return torch.from_numpy(spectrum.copy()).to(device=device, dtype=dtype)


_cached_spectrum = lru_cache(maxsize=512)(_spectrum)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _frequencies(shape: tuple[int, int]) -> Tensor:
    """(h//2+1, w//2+1) radial frequencies in cycles per pixel, from 0 up."""
    rows, columns = (np.arange(n // 2 + 1) / n for n in shape)
    return torch.from_numpy(np.hypot(rows[:, None], columns[None]))


JINC_SAMPLES_PER_UNIT = 256


def _jinc(x: Tensor) -> Tensor:
    """Return 2 J_1(x) / x for x >= 0; in float32 from a table, to 1e-6, because the Bessel function is slow."""
    if x.dtype == torch.float64:
        x = x.clamp_min(1e-6)
        return 2 * torch.from_numpy(scipy.special.j1(x.numpy())) / x
    sample = x * JINC_SAMPLES_PER_UNIT
    index = sample.to(torch.int64)
    table, steps = _jinc_table(1 << (int(index.max()) + 1).bit_length())
    return torch.addcmul(table[index], sample - index, steps[index])


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _jinc_table(length: int) -> tuple[Tensor, Tensor]:
    table = _jinc(torch.arange(length + 1, dtype=torch.float64) / JINC_SAMPLES_PER_UNIT)
    return table[:-1].float(), table.diff().float()
