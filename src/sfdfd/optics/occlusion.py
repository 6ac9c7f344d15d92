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

The levels are evenly spaced in blur, with the slices' own planes of focus among them. The scheme follows the layered
occlusion of depth-of-field rendering (Barsky et al. 2003; Sheng et al., "Dr.Bokeh", CVPR 2024), with sums in the place of
products (docs/explanation/renderer.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.special
import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfdfd.optics.psf import PSF, DiscPSF, GaussianPSF, floored_size_px

__all__ = ["accumulate_levels", "kernel_sizes_px", "psf_spectra", "psf_spectrum", "render_occlusion", "share_levels"]

GRAIN_PX = 16
"""Boxes around a level's pixels grow to multiples of this, so that few kernels' spectra are ever needed."""
EMPTY, SLIVER = 1e-5, 1e-3
"""Coverage below the first is nothing; what closes the aperture with less than the second has no say in gradients."""
PLANE_SHARE = 0.01
"""A scene's nearest or farthest depth that so many pixels share is a plane, with a level of its own."""
CACHED_NUMBERS = 1 << 17
"""Spectra of at most so many numbers are kept."""


def level_grid(inverse: Tensor, in_focus: Float[Tensor, "s"], step: float, most: int) -> Float[Tensor, "l"]:
    """Ascending inverse depths in 1/m that span those of a scene: where the slices are in focus, and multiples of ``step``
    (doubled until there are at most ``most`` of all).

    They do not move with the scene, so that their kernels' spectra are computed once, and gradients are those of the
    interpolation. A scene of nearly one depth has that depth among its levels.

    Args:
        inverse: inverse depths in 1/m, any shape.
        in_focus: (S,) inverse focus distances in 1/m; their levels' gradient goes there.
        step: distance in 1/m.
        most: number of levels, 4 or more.
    """
    seen = inverse.detach()
    low, high = (float(end) for end in torch.aminmax(seen))
    if high - low < 0.01 * step:  # neighbours on both sides, or there would be no slope
        beside = {max(low - 0.5 * step, 0.0), low, high, high + 0.5 * step}
        return torch.tensor(sorted(beside), dtype=inverse.dtype, device=inverse.device)
    planes = [end for end in (low, high) if int((seen == end).sum()) > 16 + PLANE_SHARE * seen.numel()]
    focus = in_focus.detach().tolist()
    while True:
        kept: list[int] = []
        for one in sorted(range(len(focus)), key=focus.__getitem__):
            others = planes + [focus[other] for other in kept]
            if low < focus[one] < high and all(abs(focus[one] - other) > 0.25 * step for other in others):
                kept.append(one)
        fixed = sorted(planes + [focus[one] for one in kept])
        multiples = [k * step for k in range(math.floor(low / step), math.ceil(high / step) + 1)]
        between = [u for u in multiples if low < u < high and all(abs(u - other) > 0.25 * step for other in fixed)]
        ends = [multiples[0]] * (low not in planes) + [multiples[-1]] * (high not in planes)
        if len(planes) + len(between) + len(ends) + len(kept) <= most:  # in the end three do: both ends and a focus
            break
        step *= 2
    levels = torch.cat(
        [
            torch.tensor([*planes, *ends, *between], dtype=inverse.dtype, device=inverse.device),
            in_focus[kept].to(inverse),
        ]
    )
    return levels[levels.detach().argsort()]


def share_levels(inverse: Float[Tensor, "h w"], levels: Float[Tensor, "l"]) -> Float[Tensor, "l h w"]:
    """Hat weights of every pixel over ascending levels that span them; they sum to 1. Their gradient on a level is the mean
    of those on both sides."""
    index = torch.arange(len(levels), device=inverse.device)[:, None, None]
    weights: Any = 0.0
    for right in (True, False):
        upper = torch.searchsorted(levels.detach(), inverse.detach().contiguous(), right=right)
        upper = upper.clamp(1, len(levels) - 1)
        low, high = levels[upper - 1], levels[upper]
        share = 0.5 * (inverse - low) / (high - low)
        weights = weights + torch.where(index == upper, share, 0.0) + torch.where(index == upper - 1, 0.5 - share, 0.0)
    return weights


def render_occlusion(
    light: Float[Tensor, "b c h w"],
    inverse: Float[Tensor, "b h w"],
    in_focus: Float[Tensor, "b s"],
    level_sizes: Callable[[int, Tensor], Float[Tensor, "s l"]],
    steps: list[float],
    psf: PSF,
    most: int,
    hidden: Sequence[tuple[Float[Tensor, "b c h w"], Float[Tensor, "b h w"], Float[Tensor, "b h w"]]] = (),
) -> Float[Tensor, "b s c h w"]:
    """The stack of a sharp image with depth, occlusion included; differentiable in all tensors.

    Args:
        light: (B,C,H,W) sharp image, in linear light for true defocus.
        inverse: (B,H,W) inverse depth in 1/m, >= 0.
        in_focus: (B,S) inverse focus distances in 1/m, >= 0.
        level_sizes: (number of the sample, (L,) inverse depths) -> (S,L) PSF sizes in pixels.
        steps: for each sample, the distance between levels in 1/m.
        psf: the family.
        most: number of levels that is not exceeded; the step is doubled until it holds.
        hidden: surfaces behind the first where they are known: light, inverse depth and its coverage in [0, 1] of each.
    """
    stacks = []
    for b, step in enumerate(steps):
        levels = level_grid(torch.stack([inverse[b], *(there[b] for _, there, _ in hidden)]), in_focus[b], step, most)
        counted = torch.cat([light[b], torch.ones_like(light[b, :1])])
        weights = share_levels(inverse[b], levels)
        planes, touched = weights[:, None] * counted, _touched(weights.detach())
        for colours, where, coverage in hidden:
            behind = torch.cat([colours[b], torch.ones_like(colours[b, :1])])
            weights = share_levels(where[b], levels) * coverage[b]
            planes, touched = planes + weights[:, None] * behind, touched | _touched(weights.detach())
        stacks.append(accumulate_levels(planes, level_sizes(b, levels), psf, touched))
    return torch.stack(stacks)


def _touched(weights: Float[Tensor, "l h w"]) -> Tensor:
    """(L,H,W) levels that a pixel's gradient reaches: its own and, where it lies on one, those beside it."""
    there = weights != 0
    beside = torch.zeros_like(there)
    beside[1:] |= weights[:-1] == 1
    beside[:-1] |= weights[1:] == 1
    return there | beside


def accumulate_levels(
    planes: Float[Tensor, "l c1 h w"], sizes: Float[Tensor, "s l"], psf: PSF, touched: Tensor | None = None
) -> Float[Tensor, "s c h w"]:
    """Blur each level and accumulate from front to back; see the module.

    Args:
        planes: (L,C+1,H,W) light times coverage and, last, coverage of each level, from far to near.
        sizes: (S,L) PSF sizes in pixels.
        psf: the family.
        touched: (L,H,W) where a gradient is wanted; by default where there is coverage.
    """
    sizes = kernel_sizes_px(psf, sizes.abs())
    touched = planes[:, -1].detach() > 0 if touched is None else touched
    return _Accumulate.apply(planes, sizes, psf, touched)


class _Accumulate(torch.autograd.Function):
    """planes (L,C+1,H,W), sizes (S,L) -> (S,C,H,W)."""

    @staticmethod
    def forward(ctx, planes: Tensor, sizes: Tensor, psf: PSF, touched: Tensor) -> Tensor:
        boxes = _boxes(touched, sizes, psf)
        slices, (channels, height, width) = sizes.shape[0], planes.shape[1:]
        total = planes.new_zeros(slices, channels - 1, height, width)
        closing = torch.zeros_like(total)
        cover = planes.new_zeros(slices, height, width)
        closed = torch.zeros_like(cover, dtype=torch.bool)
        shares: dict[int, Tensor] = {}
        for level in range(len(planes) - 1, -1, -1):
            if (box := boxes[level]) is None:
                continue
            if not bool(planes[level, -1].any()):  # nothing is there yet, but a gradient may bring something
                shares[level] = (cover[(slice(None), *box.target)] < 1 - EMPTY).to(planes)
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
        return planes_grad, sizes_grad, None, None


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
        padded[..., rows, columns] = image[..., self.source[0], self.source[1]]
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
        return psf_spectra(psf, sizes, self.shape)

    def slope(self, psf: PSF, sizes: Tensor, correlated: Tensor) -> Tensor:
        """Gradient in the sizes, given sum conj(light) grad of the spectra (S,h,w): (S,)."""
        double = correlated.real * 2
        double[..., 0] /= 2
        if self.shape[1] % 2 == 0:
            double[..., -1] /= 2
        slopes = [_spectrum_slope(psf, size, self.shape, sizes.dtype, sizes.device) for size in sizes.tolist()]
        return (torch.stack(slopes) * double).sum((1, 2)) / math.prod(self.shape)


def _boxes(touched: Tensor, sizes: Float[Tensor, "s l"], psf: PSF) -> list[_Box | None]:
    """A box around each level's pixels; none for an empty level."""
    extent = touched.shape[-2], touched.shape[-1]
    reaches = [reach_px(psf, size) for size in sizes.amax(0).tolist()]
    ends: list[tuple[Any, Any, Any]] = []
    for axis, n in ((2, extent[0]), (1, extent[1])):
        present = touched.any(axis).cpu().numpy()
        low, high = present.argmax(1), n - present[:, ::-1].argmax(1)
        ends.append((present.any(1), low // GRAIN_PX * GRAIN_PX, np.minimum(-(-high // GRAIN_PX) * GRAIN_PX, n)))
    (there, top, bottom), (_, left, right) = ends
    return [
        _Box(((int(top[k]), int(bottom[k])), (int(left[k]), int(right[k]))), reach, extent) if there[k] else None
        for k, reach in enumerate(reaches)
    ]


def reach_px(psf: PSF, size_px: float) -> int:
    """Half width of what a kernel spreads over."""
    return max(1, psf.reach_px(size_px)) + (1 if isinstance(psf, DiscPSF) else 0)


def psf_spectrum(psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The real spectrum (h, w//2+1) of a PSF of integral 1 on a periodic grid.

    The disc's is its continuous transform ``2 J_1(x) / x``, ``x = 2 pi f s``: right for radii of a fraction of a pixel too,
    where a sampled disc spreads too little (depth near the focus planes comes out biased by tenths of a pixel of blur).
    Other families are sampled, as :mod:`sfdfd.optics.render` has them.
    """
    keep = shape[0] * (shape[1] // 2 + 1) <= CACHED_NUMBERS
    return (_kept_spectrum if keep else _spectrum)(psf, size_px, shape, dtype, device)


def kernel_sizes_px(psf: PSF, sizes: Tensor) -> Tensor:
    """Sizes of kernels in the Fourier domain: a disc of radius 0 is the identity, flat in its radius, and needs no floor."""
    return sizes if isinstance(psf, DiscPSF) else floored_size_px(sizes, psf.floor_px)


def psf_spectra(psf: PSF, sizes: Float[Tensor, "*n"], shape: tuple[int, int]) -> Float[Tensor, "*n h w"]:
    """:func:`psf_spectrum` of many sizes, computed where they lie: on a CPU from what is kept, elsewhere in one go."""
    if sizes.device.type == "cpu" or not isinstance(psf, DiscPSF | GaussianPSF):
        rows = [psf_spectrum(psf, size, shape, sizes.dtype, sizes.device) for size in sizes.flatten().tolist()]
        return torch.stack(rows).unflatten(0, sizes.shape)
    if isinstance(psf, DiscPSF):
        half = _frequencies(shape).to(sizes)
        rises = 2 * math.pi * sizes[..., None, None] * torch.cat([half, half[1 : shape[0] - len(half) + 1].flip(0)])
        rises = rises.clamp_min(1e-4)
        return 2 * torch.special.bessel_j1(rises) / rises
    lines = []
    for count in shape:
        places = torch.arange(count, device=sizes.device, dtype=sizes.dtype)
        places = torch.minimum(places, count - places)
        line = torch.exp(-0.5 * (places / sizes[..., None]).square())
        line = torch.where(places <= (4.5 * sizes).ceil().clamp_min(1)[..., None], line, 0.0)
        lines.append(torch.fft.fft(line / line.sum(-1, keepdim=True)).real)
    return lines[0][..., :, None] * lines[1][..., None, : shape[1] // 2 + 1]


@torch.inference_mode(False)  # what is kept serves gradients, too, whoever asked first
def _spectrum(psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(psf, DiscPSF):
        half = _frequencies(shape)  # of the rows up to the Nyquist frequency; the others mirror them
        values = _jinc(2 * math.pi * size_px * half.to(dtype))
        return torch.cat([values, values[1 : shape[0] - len(values) + 1].flip(0)]).to(device)
    reach = reach_px(psf, size_px)
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    if isinstance(psf, GaussianPSF):  # separable
        parts = [np.where(n <= reach, np.exp(-0.5 * (n / size_px) ** 2), 0.0) for n in (rows, columns)]
        down, along = np.fft.fft(parts[0]).real / parts[0].sum(), np.fft.rfft(parts[1]).real / parts[1].sum()
        spectrum = down[:, None] * along[None]
    else:
        with np.errstate(under="ignore"):
            kernel = psf.weight((rows[:, None] ** 2 + columns[None, :] ** 2).astype(float), size_px)
        kernel = np.where((rows[:, None] <= reach) & (columns[None, :] <= reach), kernel, 0.0)
        spectrum = np.fft.rfft2(kernel / kernel.sum()).real
    return torch.from_numpy(spectrum.copy()).to(device=device, dtype=dtype)


_kept_spectrum = lru_cache(maxsize=512)(_spectrum)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _frequencies(shape: tuple[int, int]) -> Tensor:
    """(h//2+1, w//2+1) cycles per pixel, from 0 up."""
    rows, columns = (np.arange(n // 2 + 1) / n for n in shape)
    return torch.from_numpy(np.hypot(rows[:, None], columns[None]))


def _jinc(x: Tensor) -> Tensor:
    """2 J_1(x) / x for x >= 0; in float32 from a table, to 1e-6, as the Bessel function is slow."""
    if x.dtype == torch.float64:
        x = x.clamp_min(1e-6)
        return 2 * torch.from_numpy(scipy.special.j1(x.numpy())) / x
    inverse_depth_01 = x * _TABLE_DENSITY
    index = inverse_depth_01.to(torch.int64)
    table, steps = _jinc_table(1 << (int(index.max()) + 1).bit_length())
    return torch.addcmul(table[index], inverse_depth_01 - index, steps[index])


_TABLE_DENSITY = 256


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _jinc_table(length: int) -> tuple[Tensor, Tensor]:
    table = _jinc(torch.arange(length + 1, dtype=torch.float64) / _TABLE_DENSITY)
    return table[:-1].float(), table.diff().float()


def _spectrum_slope(
    psf: PSF, size_px: float, shape: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Its derivative in the size, by a central difference in float64, on the CPU: not every device has that."""
    step, cpu = 1e-4 * max(size_px, 0.1), torch.device("cpu")
    more, less = (_spectrum(psf, size, shape, torch.float64, cpu) for size in (size_px + step, size_px - step))
    return ((more - less) / (2 * step)).to(dtype).to(device)
