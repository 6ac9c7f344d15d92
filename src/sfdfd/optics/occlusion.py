"""An occlusion-aware renderer with gradients: coverage accumulated from front to back over levels of inverse depth.

Every pixel is shared by the two levels of inverse depth that enclose its own (hat weights a_l(p), sum 1). In a slice,
level l is blurred by its own normalised kernel k_l, light and coverage alike,

    b_l = k_l * (a_l I),   c_l = k_l * a_l,   M_l = min(1, sum_{nearer or equal j} c_j)
    J = sum_l (M_l - M_{l+1}) b_l / c_l  /  M_last       (l + 1: the next nearer level)

so a level fills the share of the aperture that nearer levels leave free. Coverages are *added*, because the levels of one
surface lie side by side: nothing leaks through a slanted plane. They are clipped at 1, because a closed surface hides what
lies behind it. Where no surface covers the whole aperture (M_last < 1), the rest takes the visible colour. The image is
piecewise linear in the coverages, so the backward pass needs one number per level, slice and pixel,
g_l = (M_l - M_{l+1}) / c_l, and the colour K of the level that closes the aperture. g_l is 1 in front of that level and 0
behind it:

    dJ/db_l = g_l / M_last,   dJ/dc_l = -g_l K / M_last.

The levels are evenly spaced in blur, and include the slices' own planes of focus. The scheme follows layered occlusion in
depth-of-field rendering (Barsky et al. 2003; Sheng et al., "Dr.Bokeh", CVPR 2024), with sums in place of products
(docs/explanation/renderer.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfdfd.optics.psf import PSF
from sfdfd.optics.spectra import kernel_reach_px, kernel_sizes_px, psf_spectra, psf_spectrum_slope

__all__ = ["accumulate_levels", "level_grid", "level_weights", "render_occlusion"]

GRID_PX = 16
"""Regions around a level's pixels grow to multiples of this, so that few distinct kernel spectra are needed."""
NO_COVERAGE, LEAST_CLOSING_COVERAGE = 1e-5, 1e-3
"""Coverage below the first counts as none. Gradients floor the coverage that closes the aperture at the second."""
PLANE_SHARE = 0.01
"""A scene's nearest or farthest depth gets a level of its own if this share of the pixels has it."""


def level_grid(inverse: Tensor, in_focus: Float[Tensor, "s"], step: float, most: int) -> Float[Tensor, "l"]:
    """Return ascending inverse depths in 1/m that span a scene: the planes of focus, and multiples of ``step``.

    The step doubles until there are at most ``most`` levels. Multiples do not move with the scene, so kernel spectra are
    computed once, and gradients are those of the interpolation. A scene of nearly one depth has that depth as a level.

    Args:
        inverse: inverse depths in 1/m, any shape.
        in_focus: (S,) inverse focus distances in 1/m; their levels pass the gradient on.
        step: distance in 1/m.
        most: number of levels, 4 or more.
    """
    depths = inverse.detach()
    low, high = (float(end) for end in torch.aminmax(depths))
    if high - low < 0.01 * step:  # levels on both sides, or there would be no slope
        around = {max(low - 0.5 * step, 0.0), low, high, high + 0.5 * step}
        return torch.tensor(sorted(around), dtype=inverse.dtype, device=inverse.device)
    planes = [end for end in (low, high) if int((depths == end).sum()) > 16 + PLANE_SHARE * depths.numel()]
    focus = in_focus.detach().tolist()
    while True:
        focus_indices = _separate_focus_planes(focus, planes, low, high, step)
        constant = _multiples_of_step([*planes, *(focus[k] for k in focus_indices)], low, high, step)
        if len(planes) + len(constant) + len(focus_indices) <= most:  # at the latest with both ends and one focus plane
            break
        step *= 2
    fixed = torch.tensor([*planes, *constant], dtype=inverse.dtype, device=inverse.device)
    levels = torch.cat([fixed, in_focus[focus_indices].to(inverse)])
    return levels[levels.detach().argsort()]


def _separate_focus_planes(focus: list[float], planes: list[float], low: float, high: float, step: float) -> list[int]:
    """Return the indices of the focus planes inside the scene that keep a quarter step from each other and from planes."""
    kept: list[int] = []
    for index in sorted(range(len(focus)), key=focus.__getitem__):
        others = planes + [focus[other] for other in kept]
        if low < focus[index] < high and _is_separate(focus[index], others, step):
            kept.append(index)
    return kept


def _multiples_of_step(taken: list[float], low: float, high: float, step: float) -> list[float]:
    """Return the multiples of the step that span the scene and keep a quarter step from the levels already taken."""
    multiples = [k * step for k in range(math.floor(low / step), math.ceil(high / step) + 1)]
    ends = [multiples[0]] * (low not in taken) + [multiples[-1]] * (high not in taken)
    return ends + [u for u in multiples if low < u < high and _is_separate(u, taken, step)]


def _is_separate(level: float, others: list[float], step: float) -> bool:
    return all(abs(level - other) > 0.25 * step for other in others)


def level_weights(inverse: Float[Tensor, "h w"], levels: Float[Tensor, "l"]) -> Float[Tensor, "l h w"]:
    """Return the hat weights (sum 1) of every pixel over ascending levels that span the pixels.

    For a pixel exactly on a level, the gradient is the mean of those on both sides.
    """
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
    """Render the stack of a sharp image with depth, including occlusion; differentiable in all tensors.

    Args:
        light: (B,C,H,W) sharp image, in linear light for true defocus.
        inverse: (B,H,W) inverse depth in 1/m, >= 0.
        in_focus: (B,S) inverse focus distances in 1/m, >= 0.
        level_sizes: (sample index, (L,) inverse depths) -> (S,L) PSF sizes in pixels.
        steps: for each sample, the distance between levels in 1/m.
        psf: the PSF family.
        most: largest number of levels; the step doubles until it holds.
        hidden: known surfaces behind the first: light, inverse depth and coverage in [0, 1] of each.
    """
    stacks = []
    for b, step in enumerate(steps):
        surfaces = [(light[b], inverse[b], None), *((c[b], u[b], coverage[b]) for c, u, coverage in hidden)]
        levels = level_grid(torch.stack([surface[1] for surface in surfaces]), in_focus[b], step, most)
        planes: Any = None
        gradient_mask: Any = None
        for colours, inverse_depth, coverage in surfaces:
            weights = level_weights(inverse_depth, levels)
            weights = weights if coverage is None else weights * coverage
            surface_planes = weights[:, None] * torch.cat([colours, torch.ones_like(colours[:1])])
            surface_mask = _gradient_mask(weights.detach())
            planes = surface_planes if planes is None else planes + surface_planes
            gradient_mask = surface_mask if gradient_mask is None else gradient_mask | surface_mask
        stacks.append(accumulate_levels(planes, level_sizes(b, levels), psf, gradient_mask))
    return torch.stack(stacks)


def _gradient_mask(weights: Float[Tensor, "l h w"]) -> Tensor:
    """(L,H,W) levels that a pixel's gradient reaches: its own and, where it lies on a level, the two next to it."""
    has_weight = weights != 0
    is_next = torch.zeros_like(has_weight)
    is_next[1:] |= weights[:-1] == 1
    is_next[:-1] |= weights[1:] == 1
    return has_weight | is_next


def accumulate_levels(
    planes: Float[Tensor, "l c1 h w"], sizes: Float[Tensor, "s l"], psf: PSF, gradient_mask: Tensor | None = None
) -> Float[Tensor, "s c h w"]:
    """Blur each level and accumulate from front to back, as in the module's docstring.

    Args:
        planes: (L,C+1,H,W) light times coverage and, last, coverage of each level, from far to near.
        sizes: (S,L) PSF sizes in pixels.
        psf: the PSF family.
        gradient_mask: (L,H,W) where a gradient is wanted; by default where there is coverage.
    """
    sizes = kernel_sizes_px(psf, sizes.abs())
    gradient_mask = planes[:, -1].detach() > 0 if gradient_mask is None else gradient_mask
    return _AccumulateLevels.apply(planes, sizes, psf, gradient_mask)


class _AccumulateLevels(torch.autograd.Function):
    """planes (L,C+1,H,W), sizes (S,L) -> (S,C,H,W)."""

    @staticmethod
    def forward(ctx, planes: Tensor, sizes: Tensor, psf: PSF, gradient_mask: Tensor) -> Tensor:
        regions = _level_regions(gradient_mask, sizes, psf)
        slices, (channels, height, width) = sizes.shape[0], planes.shape[1:]
        total = planes.new_zeros(slices, channels - 1, height, width)
        closing_colour = torch.zeros_like(total)
        covered = planes.new_zeros(slices, height, width)
        is_closed = torch.zeros_like(covered, dtype=torch.bool)
        shares: dict[int, Tensor] = {}
        for level in range(len(planes) - 1, -1, -1):
            if (region := regions[level]) is None:
                continue
            target = (slice(None), *region.target)
            covered_before = covered[target]
            if not bool(planes[level, -1].any()):  # empty, but a gradient may bring something here
                shares[level] = (covered_before < 1 - NO_COVERAGE).to(planes)
                continue
            blurred = region.blur(planes[level], region.kernels(psf, sizes[:, level]))
            light, coverage = blurred[:, :-1], blurred[:, -1]
            is_covered = coverage > NO_COVERAGE  # the FFT's ringing is not
            coverage = coverage.clamp_min(NO_COVERAGE)
            share = torch.where(is_covered, ((1 - covered_before).clamp_min(0) / coverage).clamp_max(1), 0.0)
            total[(slice(None), *target)] += share[:, None] * light
            closes = (share < 1) & (share > 0)
            is_closed[target] |= closes
            colour = light / coverage.clamp_min(LEAST_CLOSING_COVERAGE)[:, None]
            closing_colour[(slice(None), *target)] += closes[:, None] * colour
            covered_before += is_covered * coverage
            shares[level] = share
        covered = covered.clamp(NO_COVERAGE, 1)[:, None]
        result = total / covered
        if any(ctx.needs_input_grad):
            # an aperture that no level closes is divided by its coverage: there K is the result
            ctx.closing_colour = torch.where(is_closed[:, None], closing_colour, result)
            ctx.covered, ctx.shares, ctx.regions, ctx.psf = covered, shares, regions, psf
            ctx.save_for_backward(planes, sizes)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        planes, sizes = ctx.saved_tensors
        grad = grad / ctx.covered
        plane_grad = torch.cat([grad, -(grad * ctx.closing_colour).sum(1, keepdim=True)], 1)
        planes_grad = torch.zeros_like(planes)
        sizes_grad = torch.zeros_like(sizes) if ctx.needs_input_grad[1] else None
        for level, share in ctx.shares.items():
            region = ctx.regions[level]
            weighted = share[:, None] * plane_grad[(slice(None), slice(None), *region.target)]
            spectrum = region.transform(weighted, at_target=True)
            kernels = region.kernels(ctx.psf, sizes[:, level])
            if sizes_grad is not None:
                correlation = (spectrum * region.transform(planes[level]).conj()).sum(1)
                sizes_grad[:, level] = region.size_gradient(ctx.psf, sizes[:, level], correlation)
            planes_grad[(level, slice(None), *region.source)] = region.gather((spectrum * kernels[:, None]).sum(0))
        return planes_grad, sizes_grad, None, None


class _LevelRegion:
    """Where a level's pixels lie (``source``), where their light goes (``target``), and the FFT between them."""

    def __init__(self, source: tuple[tuple[int, int], ...], reach: int, extent: tuple[int, int]) -> None:
        target = [(max(a - reach, 0), min(b + reach, n)) for (a, b), n in zip(source, extent, strict=True)]
        self.source = tuple(slice(a, b) for a, b in source)
        self.target = tuple(slice(a, b) for a, b in target)
        self.source_in_target = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(source, target, strict=True))
        sizes = [max(t[1] - s[0], s[1] - t[0]) + reach for s, t in zip(source, target, strict=True)]
        self.fft_shape = tuple(next_fast_len(n, real=True) for n in sizes)

    def transform(self, image: Tensor, at_target: bool = False) -> Tensor:
        """Return the spectrum of an image (...,H,W) cut to the source, or of one already cut to the target."""
        if at_target:
            return torch.fft.rfft2(image, s=self.fft_shape)
        padded = image.new_zeros(*image.shape[:-2], *self.fft_shape)
        rows, columns = self.source_in_target
        padded[..., rows, columns] = image[..., self.source[0], self.source[1]]
        return torch.fft.rfft2(padded)

    def blur(self, image: Tensor, kernels: Tensor) -> Tensor:
        """(C,H,W) and kernel spectra (S,h,w) -> (S,C,target)."""
        spectrum = self.transform(image)
        rows, columns = (t.stop - t.start for t in self.target)
        return torch.fft.irfft2(spectrum * kernels[:, None], s=self.fft_shape)[..., :rows, :columns]

    def gather(self, spectrum: Tensor) -> Tensor:
        """Transform a spectrum on the target back to the source's pixels."""
        rows, columns = self.source_in_target
        return torch.fft.irfft2(spectrum, s=self.fft_shape)[..., rows, columns]

    def kernels(self, psf: PSF, sizes: Tensor) -> Tensor:
        """(S,) sizes -> (S,h,w) real spectra."""
        return psf_spectra(psf, sizes, self.fft_shape)

    def size_gradient(self, psf: PSF, sizes: Tensor, correlation: Tensor) -> Tensor:
        """Return the gradient (S,) in the sizes from the sums of conj(light) * gradient in the Fourier domain (S,h,w)."""
        double = correlation.real * 2
        double[..., 0] /= 2
        if self.fft_shape[1] % 2 == 0:
            double[..., -1] /= 2
        slopes = [psf_spectrum_slope(psf, size, self.fft_shape, sizes.dtype, sizes.device) for size in sizes.tolist()]
        return (torch.stack(slopes) * double).sum((1, 2)) / math.prod(self.fft_shape)


def _level_regions(gradient_mask: Tensor, sizes: Float[Tensor, "s l"], psf: PSF) -> list[_LevelRegion | None]:
    """Return a region around each level's pixels, None for an empty level."""
    extent = gradient_mask.shape[-2], gradient_mask.shape[-1]
    reaches = [kernel_reach_px(psf, size) for size in sizes.amax(0).tolist()]
    ends: list[tuple[Any, Any, Any]] = []
    for axis, n in ((2, extent[0]), (1, extent[1])):
        is_used = gradient_mask.any(axis).cpu().numpy()
        low, high = is_used.argmax(1), n - is_used[:, ::-1].argmax(1)
        ends.append(
            (
                is_used.any(1),
                low // GRID_PX * GRID_PX,
                np.minimum(-(-high // GRID_PX) * GRID_PX, n),
            )
        )
    (has_pixels, top, bottom), (_, left, right) = ends
    return [
        _LevelRegion(((int(top[k]), int(bottom[k])), (int(left[k]), int(right[k]))), reach, extent)
        if has_pixels[k]
        else None
        for k, reach in enumerate(reaches)
    ]
