"""An occlusion-aware renderer with gradients: coverage accumulated from front to back over levels of inverse depth.

Every pixel is shared by the two levels of inverse depth that its own lies between (hat weights a_l(p), sum 1). In a slice,
level l is blurred by its own normalised kernel k_l, light and coverage alike,

    b_l = k_l * (a_l I),   c_l = k_l * a_l,   M_l = min(1, sum_{nearer or equal j} c_j)
    J = sum_l (M_l - M_{l+1}) b_l / c_l  /  M_last       (l + 1: the next nearer level)

so that a level shows in the aperture's share that nearer ones leave free. Coverages are *added*, because the levels of one
surface lie beside each other (nothing leaks through a slanted plane), and clipped at 1, because what lies behind a closed
surface is hidden. What nobody has seen (M_last < 1) takes the colour of what is seen there. The image is piecewise linear
in the coverages, so the backward pass needs one number per level, slice and pixel: g_l = (M_l - M_{l+1}) / c_l, which is 1
in front of the level that closes the aperture and 0 behind it, and the colour K of that level:

    dJ/db_l = g_l / M_last,   dJ/dc_l = -g_l K / M_last.

The scheme follows the layered occlusion of depth-of-field rendering (Barsky et al. 2003; Sheng et al., "Dr.Bokeh",
CVPR 2024), with sums in the place of products.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.special
import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfdfd.optics.psf import PSF, DiscPSF, floored_size_px

__all__ = ["accumulate_levels", "level_weights", "levels_between", "render_occlusion"]

GRAIN_PX = 16
"""Boxes around a level's pixels grow to multiples of this, so that few kernels' spectra are ever needed."""
EMPTY, SLIVER = 1e-5, 1e-3
"""Coverage below the first is nothing; a level that closes the aperture with less than the second has no say in gradients."""


def levels_between(low: Tensor, high: Tensor, count: int) -> Float[Tensor, "b l"]:
    """(B,) smallest and largest inverse depth in 1/m -> (B,L) evenly spaced levels from far to near."""
    return low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, count, dtype=low.dtype, device=low.device)


def level_weights(inverse: Float[Tensor, "b h w"], levels: Float[Tensor, "b l"]) -> Float[Tensor, "b l h w"]:
    """Hat weights of every pixel over evenly spaced levels; they sum to 1 within the levels' range."""
    count = levels.shape[1]
    span = (levels[:, -1] - levels[:, 0]).clamp_min(1e-12)[:, None, None]
    position = ((inverse - levels[:, :1, None]) / span * (count - 1)).clamp(0, count - 1)
    steps = torch.arange(count, dtype=inverse.dtype, device=inverse.device)[:, None, None]
    return (1 - (position[:, None] - steps).abs()).clamp_min(0)


def render_occlusion(
    light: Float[Tensor, "b c h w"],
    inverse: Float[Tensor, "b h w"],
    sizes: Float[Tensor, "b s l"],
    levels: Float[Tensor, "b l"],
    psf: PSF,
    hidden: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b h w"], Float[Tensor, "b h w"]] | None = None,
) -> Float[Tensor, "b s c h w"]:
    """The stack of a sharp image with depth, occlusion included; differentiable in everything but the levels.

    Args:
        light: (B,C,H,W) sharp image, in linear light for true defocus.
        inverse: (B,H,W) inverse depth in 1/m.
        sizes: (B,S,L) PSF size of each level in each slice in pixels, not yet floored.
        levels: (B,L) evenly spaced inverse depths in 1/m, ascending.
        psf: the family.
        hidden: a second surface behind the first where one is known: light, inverse depth and its coverage in [0, 1].
    """
    counted = torch.cat([light, torch.ones_like(light[:, :1])], 1)
    planes = level_weights(inverse, levels)[:, :, None] * counted[:, None]
    if hidden is not None:
        behind, behind_inverse, cover = hidden
        counted = torch.cat([behind, torch.ones_like(behind[:, :1])], 1)
        planes = planes + (level_weights(behind_inverse, levels) * cover[:, None])[:, :, None] * counted[:, None]
    return accumulate_levels(planes, sizes, psf)


def accumulate_levels(
    planes: Float[Tensor, "b l c1 h w"], sizes: Float[Tensor, "b s l"], psf: PSF
) -> Float[Tensor, "b s c h w"]:
    """Blur each level and accumulate from front to back; see the module.

    Args:
        planes: (B,L,C+1,H,W) light times coverage and, last, coverage of each level, from far to near.
        sizes: (B,S,L) PSF sizes in pixels.
        psf: the family.
    """
    # a disc of radius 0 is the identity, flat in its radius: it needs no floor
    sizes = sizes.abs() if isinstance(psf, DiscPSF) else floored_size_px(sizes.abs(), psf.floor_px)
    return torch.stack([_Accumulate.apply(one, size, psf) for one, size in zip(planes, sizes, strict=True)])


class _Accumulate(torch.autograd.Function):
    """planes (L,C+1,H,W), sizes (S,L) -> (S,C,H,W)."""

    @staticmethod
    def forward(ctx, planes: Tensor, sizes: Tensor, psf: PSF) -> Tensor:
        boxes = _boxes(planes[:, -1], sizes, psf)
        slices, (channels, height, width) = sizes.shape[0], planes.shape[1:]
        total = planes.new_zeros(slices, channels - 1, height, width)
        closing = torch.zeros_like(total)
        cover = planes.new_zeros(slices, height, width)
        closed = torch.zeros_like(cover, dtype=torch.bool)
        shares: dict[int, Tensor] = {}
        for level in range(len(planes) - 1, -1, -1):
            if (box := boxes[level]) is None:
                continue
            blurred = box.blurred(planes[level], box.kernels(psf, sizes[:, level]))
            part, before = blurred[:, -1], cover[(slice(None), *box.target)]
            there = part > EMPTY  # not the ringing of the FFT
            part = part.clamp_min(EMPTY)
            share = torch.where(there, ((1 - before).clamp_min(0) / part).clamp_max(1), 0.0)
            total[(slice(None), slice(None), *box.target)] += share[:, None] * blurred[:, :-1]
            closes = (share < 1) & (share > 0)
            closed[(slice(None), *box.target)] |= closes
            colour = blurred[:, :-1] / part.clamp_min(SLIVER)[:, None]
            closing[(slice(None), slice(None), *box.target)] += closes[:, None] * colour
            before += there * part
            shares[level] = share
        cover = cover.clamp(EMPTY, 1)[:, None]
        result = total / cover
        if any(ctx.needs_input_grad):
            # an aperture that nothing closes is divided by its cover: there K is the result
            ctx.closing = torch.where(closed[:, None], closing, result)
            ctx.cover, ctx.shares, ctx.boxes, ctx.psf = cover, shares, boxes, psf
            ctx.save_for_backward(planes, sizes)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        planes, sizes = ctx.saved_tensors
        grad = grad / ctx.cover
        counted = torch.cat([grad, -(grad * ctx.closing).sum(1, keepdim=True)], 1)
        planes_grad = torch.zeros_like(planes)
        sizes_grad = torch.zeros_like(sizes) if ctx.needs_input_grad[1] else None
        for level, share in ctx.shares.items():
            box = ctx.boxes[level]
            weighted = share[:, None] * counted[(slice(None), slice(None), *box.target)]
            transformed = box.transform(weighted, at_target=True)
            kernels = box.kernels(ctx.psf, sizes[:, level])
            if sizes_grad is not None:
                correlated = (transformed * box.transform(planes[level]).conj()).sum(1)
                sizes_grad[:, level] = box.slope(ctx.psf, sizes[:, level], correlated)
            planes_grad[(level, slice(None), *box.source)] = box.gathered((transformed * kernels[:, None]).sum(0))
        return planes_grad, sizes_grad, None


class _Box:
    """Where a level's pixels lie (``source``), where their light goes (``target``), and the FFT between them."""

    def __init__(self, source: tuple[tuple[int, int], ...], reach: int, extent: tuple[int, int]) -> None:
        target = [(max(a - reach, 0), min(b + reach, n)) for (a, b), n in zip(source, extent, strict=True)]
        self.source = tuple(slice(a, b) for a, b in source)
        self.target = tuple(slice(a, b) for a, b in target)
        self.reach, self.offset = reach, tuple(s[0] - t[0] for s, t in zip(source, target, strict=True))
        sizes = [max(t[1] - s[0], s[1] - t[0]) + reach for s, t in zip(source, target, strict=True)]
        self.shape = tuple(next_fast_len(n, real=True) for n in sizes)

    def transform(self, image: Tensor, at_target: bool = False) -> Tensor:
        """The spectrum of an image (...,H,W) cut to the source, or of one that lies on the target already."""
        if at_target:
            return torch.fft.rfft2(image, s=self.shape)
        padded = image.new_zeros(*image.shape[:-2], *self.shape)  # the source at its place within the target
        rows, columns = (slice(o, o + s.stop - s.start) for o, s in zip(self.offset, self.source, strict=True))
        padded[..., rows, columns] = image[(..., *self.source)]
        return torch.fft.rfft2(padded)

    def blurred(self, image: Tensor, kernels: Tensor) -> Tensor:
        """(C,H,W), kernels' spectra (S,h,w) -> (S,C,target)."""
        spectrum = self.transform(image)
        rows, columns = (t.stop - t.start for t in self.target)
        return torch.fft.irfft2(spectrum * kernels[:, None], s=self.shape)[..., :rows, :columns]

    def gathered(self, spectrum: Tensor) -> Tensor:
        """A spectrum on the target -> the source's pixels."""
        rows, columns = (slice(o, o + s.stop - s.start) for o, s in zip(self.offset, self.source, strict=True))
        return torch.fft.irfft2(spectrum, s=self.shape)[..., rows, columns]

    def kernels(self, psf: PSF, sizes: Tensor) -> Tensor:
        """(S,) sizes -> (S,h,w) real spectra."""
        rows = [psf_spectrum(psf, size, self.shape, sizes.dtype, sizes.device) for size in sizes.tolist()]
        return torch.stack(rows)

    def slope(self, psf: PSF, sizes: Tensor, correlated: Tensor) -> Tensor:
        """Gradient in the sizes, given sum conj(light) grad of the spectra (S,h,w): (S,)."""
        double = correlated.real * 2
        double[..., 0] /= 2
        if self.shape[1] % 2 == 0:
            double[..., -1] /= 2
        slopes = [_spectrum_slope(psf, size, self.shape, sizes.dtype, sizes.device) for size in sizes.tolist()]
        return (torch.stack(slopes) * double).sum((1, 2)) / math.prod(self.shape)


def _boxes(cover: Float[Tensor, "l h w"], sizes: Float[Tensor, "s l"], psf: PSF) -> list[_Box | None]:
    """A box around each level's pixels; none for an empty level."""
    extent = cover.shape[-2:]
    reaches = [reach_px(psf, size) for size in sizes.amax(0).tolist()]
    ends = []
    for axis, n in ((2, extent[0]), (1, extent[1])):
        present = (cover.amax(axis) > 0).cpu().numpy()
        low, high = present.argmax(1), n - present[:, ::-1].argmax(1)
        ends.append((present.any(1), low // GRAIN_PX * GRAIN_PX, np.minimum(-(-high // GRAIN_PX) * GRAIN_PX, n)))
    (there, top, bottom), (_, left, right) = ends
    return [
        _Box(((int(top[l]), int(bottom[l])), (int(left[l]), int(right[l]))), reach, extent) if there[l] else None
        for l, reach in enumerate(reaches)
    ]


def reach_px(psf: PSF, size_px: float) -> int:
    """Half width of what a kernel spreads over."""
    return max(1, psf.reach_px(size_px)) + (1 if isinstance(psf, DiscPSF) else 0)


@lru_cache(maxsize=4096)
def psf_spectrum(psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The real spectrum (h, w//2+1) of a PSF of integral 1 on a periodic grid.

    The disc's is its continuous transform ``2 J_1(x) / x``, ``x = 2 pi f s``: right for radii of a fraction of a pixel too,
    where a sampled disc spreads too little (depth near the focus planes comes out biased by tenths of a pixel of blur).
    Other families are sampled, as :mod:`sfdfd.optics.render` has them.
    """
    if isinstance(psf, DiscPSF):
        frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
        x = np.maximum(2 * np.pi * size_px * frequency, 1e-6)
        spectrum = 2 * scipy.special.j1(x) / x
    else:
        reach = reach_px(psf, size_px)
        rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
        with np.errstate(under="ignore"):
            kernel = psf.weight((rows[:, None] ** 2 + columns[None, :] ** 2).astype(float), size_px)
        kernel = np.where((rows[:, None] <= reach) & (columns[None, :] <= reach), kernel, 0.0)
        spectrum = np.fft.rfft2(kernel / kernel.sum()).real
    return torch.from_numpy(spectrum.copy()).to(device=device, dtype=dtype)


@lru_cache(maxsize=256)
def _spectrum_slope(psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Its derivative in the size, by a central difference in float64."""
    step = 1e-4 * max(size_px, 0.1)
    more, less = (psf_spectrum(psf, size, shape, torch.float64, device) for size in (size_px + step, size_px - step))
    return ((more - less) / (2 * step)).to(dtype)


def level_count(span_px: float, step_px: float = 1.0, least: int = 6, most: int = 32) -> int:
    """Levels for blur radii that differ by ``span_px`` over the range, so that neighbours differ by ``step_px``."""
    return min(max(math.ceil(span_px / step_px) + 1, least), most)

