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

This is the gradient of the image as computed, with one exception: where the closing level has next to no coverage, a disc's
ringing or rounding would decide between the colours of two levels. There K passes over into J.

The levels are evenly spaced in blur, and include the slices' own planes of focus. The scheme follows layered occlusion in
depth-of-field rendering (Barsky et al. 2003; Sheng et al., "Dr.Bokeh", CVPR 2024), with sums in place of products
(docs/explanation/renderer.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfdfd.optics.fourier import channels_from_complex, complex_from_channels
from sfdfd.optics.level_batches import Box, Budget, LevelBatch, LevelPart, level_parts, occupied_cells
from sfdfd.optics.levels import LevelGrid, SceneRange, hat_slopes, hat_weights, hats_of_levels
from sfdfd.optics.psf import PSF
from sfdfd.optics.spectra import (
    cached_quarter_spectra,
    kernel_reach_px,
    kernel_sizes_px,
    mirrored,
    quarter_spectra_slopes,
)

__all__ = ["accumulate_levels", "render_occlusion"]

NO_COVERAGE = 1e-5
"""Coverage below this counts as none."""
LEAST_CLOSING_COVERAGE = 1e-3
"""The colour of a level that closes the aperture with less coverage is, in gradients, mixed with the image's."""
ROUNDING = 1e-6
"""An aperture that is covered to so much has no level that closes it."""
BUDGETS = {"cpu": Budget(pixels=1 << 20, overhead=1 << 17, part_px=384)}
"""By type of device; others have :data:`LARGE_BUDGET`. Larger arrays are mapped and cleared anew by glibc at each use."""
FEW_LEVELS = 3
"""Up to so many levels are added to an image one by one, which passes over fewer arrays than their sum."""
LARGE_BUDGET = Budget(pixels=1 << 26, overhead=1 << 22, part_px=1024)


def render_occlusion(
    light: Float[Tensor, "b c h w"],
    inverse: Float[Tensor, "b h w"],
    in_focus: Float[Tensor, "b s"],
    px_per_inverse: Float[Tensor, "b s"],
    size_px: Callable[[Any], Any],
    psf: PSF,
    scene: SceneRange,
    level_px: float,
    most: int,
    hidden: Sequence[tuple[Float[Tensor, "b c h w"], Float[Tensor, "b h w"], Float[Tensor, "b h w"]]] = (),
) -> Float[Tensor, "b s c h w"]:
    """Render the stack of a sharp image with depth, including occlusion; differentiable in all tensors.

    Args:
        light: (B,C,H,W) sharp image, in linear light for true defocus.
        inverse: (B,H,W) inverse depth in 1/m, >= 0.
        in_focus: (B,S) inverse focus distances in 1/m, >= 0.
        px_per_inverse: (B,S) blur radius in pixels of 1/m beside the focus, > 0.
        size_px: blur radius in pixels -> PSF size in pixels, of tensors and of NumPy arrays.
        psf: the PSF family.
        scene: what these inverse depths (and those hidden) range over.
        level_px: distance of levels in pixels of blur, in the slice that blurs most.
        most: largest number of levels; their distance doubles until it holds.
        hidden: known surfaces behind the first: light, inverse depth and coverage in [0, 1] of each.
    """
    grid = LevelGrid.of(scene, in_focus, level_px, most)
    radius = px_per_inverse[..., None] * (in_focus[..., None] - grid.levels[:, None]).abs()
    radius_np = scene.px_per_inverse[..., None] * np.abs(scene.in_focus[..., None] - grid.positions[:, None])
    ones = torch.ones_like(light[:, :1])
    surfaces = [torch.cat([light, ones], 1), *(torch.cat([colours, ones], 1) * c[:, None] for colours, _, c in hidden)]
    inverses, used = torch.stack([inverse, *(u for _, u, _ in hidden)], 1), None
    if hidden and not any(coverage.requires_grad for _, _, coverage in hidden):
        used = torch.stack(
            [torch.ones_like(inverse, dtype=torch.bool), *(coverage > 0 for _, _, coverage in hidden)], 1
        )
    return accumulate_levels(torch.stack(surfaces, 1), inverses, grid, size_px(radius), size_px(radius_np), psf, used)


def accumulate_levels(
    surfaces: Float[Tensor, "b k c1 h w"],
    inverse: Float[Tensor, "b k h w"],
    grid: LevelGrid,
    sizes: Float[Tensor, "b s l"],
    host_sizes: np.ndarray,
    psf: PSF,
    used: Tensor | None = None,
) -> Float[Tensor, "b s c h w"]:
    """Blur each level and accumulate from front to back, as in the module's docstring.

    Args:
        surfaces: (B,K,C+1,H,W) light times coverage and, last, coverage of each surface.
        inverse: (B,K,H,W) their inverse depths in 1/m.
        grid: levels that span the inverse depths.
        sizes: (B,S,L) PSF sizes in pixels.
        host_sizes: the same in NumPy.
        psf: the PSF family.
        used: (B,K,H,W) pixels that have coverage; by default all.
    """
    cells, present = occupied_cells(inverse, used, grid)
    host_sizes = kernel_sizes_px(psf, torch.from_numpy(host_sizes)).numpy()
    extent, device = (inverse.shape[-2], inverse.shape[-1]), inverse.device
    parts = level_parts(
        cells, present, extent, host_sizes, lambda size: kernel_reach_px(psf, size),
        BUDGETS.get(device.type, LARGE_BUDGET), device,
    )  # fmt: skip
    return _AccumulateLevels.apply(surfaces, inverse, grid.levels, kernel_sizes_px(psf, sizes), grid.counts, psf, parts)


class _AccumulateLevels(torch.autograd.Function):
    """surfaces (B,K,C+1,H,W), inverse (B,K,H,W), levels (B,L), sizes (B,S,L) -> (B,S,C,H,W)."""

    @staticmethod
    def forward(
        ctx,
        surfaces: Tensor,
        inverse: Tensor,
        levels: Tensor,
        sizes: Tensor,
        counts: list[int],
        psf: PSF,
        parts: list[LevelPart],
    ) -> Tensor:
        channels, needs_grad = surfaces.shape[2], any(ctx.needs_input_grad)
        pairs = complex_from_channels(surfaces)
        covered = inverse.new_zeros(len(surfaces), sizes.shape[1], *inverse.shape[2:])
        light = pairs.new_zeros(*covered.shape[:2], *pairs.shape[2:])
        closing = torch.zeros_like(light) if needs_grad else None
        hats, kept = hats_of_levels(levels, counts), []
        for part in parts:
            view = _PartView(part, hats, pairs, inverse)
            for batch in part.batches:
                weights = view.weights(batch)
                spectra = view.spectra(batch, weights) * _kernels(psf, batch, inverse)
                blurred = torch.fft.ifft2(spectra)[(..., *_target(batch))]
                scratch = spectra[(..., *_target(batch))]
                coverage = _last_channel(blurred, channels)
                target = _crop(covered, part.samples, batch.target)
                share, now_covered, closes = _shares(
                    coverage, target, part.is_empty[:, batch.ranks] if batch.has_empty else None
                )
                target.copy_(now_covered)
                _add_weighted(_crop(light, part.samples, batch.target), blurred, share, scratch)
                if closing is not None:
                    _add_weighted(_crop(closing, part.samples, batch.target), blurred, closes, scratch)
                    kept.append((share, weights))
        covered = covered.clamp_(NO_COVERAGE, 1)[:, :, None]
        result = channels_from_complex(light, channels)[:, :, :-1] / covered
        if closing is not None:
            # An aperture that no level closes is divided by its coverage: there the closing colour is the result. So it is,
            # the more the less of the closing level there is, because the quotient of two small numbers is noise.
            colour, coverage = channels_from_complex(closing, channels).split([channels - 1, 1], 2)
            missing = (LEAST_CLOSING_COVERAGE - coverage).clamp_min_(0)
            ctx.closing_colour = torch.addcmul(colour, missing, result) / coverage.clamp_min(LEAST_CLOSING_COVERAGE)
            ctx.covered, ctx.kept, ctx.counts, ctx.psf, ctx.parts = covered, kept, counts, psf, parts
            ctx.save_for_backward(surfaces, inverse, levels, sizes)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        surfaces, inverse, levels, sizes = ctx.saved_tensors
        pairs, hats, kept = complex_from_channels(surfaces), hats_of_levels(levels, ctx.counts), iter(ctx.kept)
        grad = grad / ctx.covered
        arriving = complex_from_channels(torch.cat([grad, -(grad * ctx.closing_colour).sum(2, keepdim=True)], 2))
        gradients = _Gradients(ctx.needs_input_grad, pairs, inverse, levels, sizes)
        for part in ctx.parts:
            view = _PartView(part, hats, pairs, inverse)
            for batch in part.batches:
                share, weights = next(kept)
                padded = arriving.new_zeros(*share.shape[:3], arriving.shape[2], *batch.shape)
                arrived = _crop(arriving, part.samples, batch.target)[:, None]
                torch.mul(arrived, share[:, :, :, None], out=padded[(..., *_target(batch))])
                spectra = torch.fft.fft2(padded)
                if gradients.of_sizes is not None:
                    gradients.add_sizes(view, batch, weights, spectra, ctx.psf)
                spectra = spectra.mul_(_kernels(ctx.psf, batch, inverse)).sum(2)
                gradients.add(view, batch, weights, torch.fft.ifft2(spectra)[(..., *_source(batch))])
        return *gradients.of_inputs(surfaces.shape[2]), None, None, None


def _crop(image: Tensor, samples: slice, box: Box) -> Tensor:
    """Return a view of some samples' rows and columns (last two dimensions)."""
    rows, columns = box.slices
    return image[samples][..., rows, columns]


def _corner(batch: LevelBatch) -> Box:
    """Return what rows and columns of a transform's array are counted from."""
    return Box.around([batch.source, batch.target])


def _source(batch: LevelBatch) -> tuple[slice, slice]:
    return batch.source.seen_from(_corner(batch))


def _target(batch: LevelBatch) -> tuple[slice, slice]:
    return batch.target.seen_from(_corner(batch))


def _kernels(psf: PSF, batch: LevelBatch, like: Tensor) -> Float[Tensor, "t m s 1 h w"]:
    """Return the spectra of the kernels of a batch."""
    quarter = cached_quarter_spectra(psf, batch.sizes, batch.shape, like)
    rows, columns = batch.shape
    return mirrored(mirrored(quarter, -2, rows), -1, columns)[:, :, :, None]


class _PartView:
    """What lies on the levels of a part of the image.

    Args:
        part: the levels.
        hats: of all levels, from :func:`sfdfd.optics.levels.hats_of_levels`.
        pairs: (B,K,P,H,W) complex pairs of light and coverage.
        inverse: (B,K,H,W) inverse depths in 1/m.
    """

    def __init__(self, part: LevelPart, hats: Tensor, pairs: Tensor, inverse: Tensor) -> None:
        self.part, self.pairs, self.inverse = part, pairs, inverse
        self.rows = torch.arange(len(hats), device=hats.device)[part.samples, None]
        self.hats = hats[self.rows, part.levels][..., None, None, None]

    def crop(self, image: Tensor, batch: LevelBatch) -> Tensor:
        """Return a view of the image where the pixels of a batch's levels lie."""
        return _crop(image, self.part.samples, batch.source)

    def weights(self, batch: LevelBatch) -> Float[Tensor, "t m k h w"]:
        """Return the share of the levels of a batch in each pixel."""
        return hat_weights(self.crop(self.inverse, batch)[:, None], self.hats[:, batch.ranks])

    def spectra(self, batch: LevelBatch, weights: Tensor) -> Complex[Tensor, "t m 1 p h w"]:
        """Return the spectra of the light and coverage on the levels of a batch."""
        weights, pairs = weights[:, :, :, None], self.crop(self.pairs, batch)[:, None]
        padded = pairs.new_zeros(*weights.shape[:2], pairs.shape[3], *batch.shape)
        room = padded[(..., *_source(batch))]
        if weights.shape[2] == 1:
            torch.mul(weights[:, :, 0], pairs[:, :, 0], out=room)
        else:
            torch.sum(weights * pairs, 2, out=room)
        return torch.fft.fft2(padded)[:, :, None]


def _last_channel(pairs: Complex[Tensor, "*b p h w"], channels: int) -> Float[Tensor, "*b h w"]:
    last = pairs[..., -1, :, :]
    return (last.real if channels % 2 else last.imag).contiguous()


def _shares(
    coverage: Float[Tensor, "t m s h w"], covered: Float[Tensor, "t s h w"], is_empty: Tensor | None
) -> tuple[Tensor, Float[Tensor, "t s h w"], Tensor]:
    """Return the share of each level's light that passes those before it, the coverage of all, and 1 where a level closes.

    The FFT's ringing is no coverage. All light of a level that no pixel has would pass where the aperture is open. No level
    closes an aperture that is covered to rounding: else that would decide between the colours of two levels.
    """
    visible = F.threshold(coverage, NO_COVERAGE, 0.0)
    totals = torch.cat([covered[:, None], visible], 1).cumsum(1)
    room = 1 - totals[:, :-1]
    share = (room / F.threshold(coverage, NO_COVERAGE, torch.inf)).clamp_(0, 1)
    closes = F.threshold(torch.minimum(room, visible - room), ROUNDING, 0.0).sign_()
    if is_empty is not None:
        share = torch.where(is_empty[:, :, None, None, None], (room > NO_COVERAGE).to(share), share)
    return share, totals[:, -1], closes


def _add_weighted(
    total: Complex[Tensor, "t s p h w"], pairs: Complex[Tensor, "t m s p h w"], weights: Tensor, scratch: Tensor
) -> None:
    """Add the weighted levels to the total; several by way of an array that is no longer needed."""
    if pairs.shape[1] > FEW_LEVELS:
        total.add_(torch.mul(pairs, weights.to(pairs.dtype)[:, :, :, None], out=scratch).sum(1))
        return
    for level, factor in zip(pairs.unbind(1), weights.unbind(1), strict=True):
        total.addcmul_(level, factor[:, :, None])


class _Gradients:
    """Gradients in the inputs of :class:`_AccumulateLevels`, collected over the parts of the image."""

    def __init__(
        self, is_needed: Sequence[bool], pairs: Tensor, inverse: Tensor, levels: Tensor, sizes: Tensor
    ) -> None:
        self.levels, self.sizes = levels, sizes
        self.of_pairs = torch.zeros_like(pairs) if is_needed[0] else None
        self.of_inverse = torch.zeros_like(inverse) if is_needed[1] else None
        count = levels.shape[1] + 1  # the last is of no level
        self.of_levels = levels.new_zeros(len(levels), count + 2) if is_needed[2] else None
        self.of_sizes = sizes.new_zeros(len(levels), count, sizes.shape[1]) if is_needed[3] else None
        first, last = levels[:, :1], levels[:, -1:]
        ends = [torch.nextafter(end, other)[..., None, None] for end, other in ((first, last), (last, first))]
        self.inverse = inverse.clamp(*ends)

    def add(self, view: _PartView, batch: LevelBatch, weights: Tensor, gathered: Complex[Tensor, "t m p h w"]) -> None:
        """Add the gradients in light and coverage, in inverse depth, and in the levels."""
        if self.of_pairs is not None:
            view.crop(self.of_pairs, batch).add_((weights[:, :, :, None] * gathered[:, :, None]).sum(1))
        if self.of_inverse is None and self.of_levels is None:
            return
        pairs = view.crop(view.pairs, batch)[:, None]
        of_weights = (gathered[:, :, None] * pairs.conj()).sum(3).real
        rising, falling = hat_slopes(view.crop(self.inverse, batch)[:, None], view.hats[:, batch.ranks])
        slopes = rising + falling
        if self.of_inverse is not None:
            view.crop(self.of_inverse, batch).add_((of_weights * slopes).sum(1))
        if self.of_levels is not None:
            parts = (weights - 1) * rising, -weights * slopes, (weights - 1) * falling
            for offset, part in enumerate(parts):
                index = view.part.levels[:, batch.ranks] + offset
                self.of_levels[view.part.samples].scatter_add_(1, index, (of_weights * part).sum((2, 3, 4)))

    def add_sizes(
        self, view: _PartView, batch: LevelBatch, weights: Tensor, spectra: Complex[Tensor, "t m s p h w"], psf: PSF
    ) -> None:
        """Add the gradient in the sizes, from the spectra of what arrives at the target."""
        assert self.of_sizes is not None
        sizes = F.pad(self.sizes.transpose(1, 2), (0, 0, 0, 1), value=1.0)[view.rows, view.part.levels[:, batch.ranks]]
        rows, columns = batch.shape
        slopes = quarter_spectra_slopes(psf, sizes, batch.shape)
        slopes = mirrored(mirrored(slopes, -2, rows), -1, columns)
        correlation = (spectra * view.spectra(batch, weights).conj()).sum(3).real
        part = (correlation * slopes).sum((-2, -1)) / (rows * columns)
        index = view.part.levels[:, batch.ranks, None].expand_as(part)
        self.of_sizes[view.part.samples].scatter_add_(1, index, part)

    def of_inputs(self, channels: int) -> tuple[Tensor | None, ...]:
        """Return them in the order of the inputs."""
        surfaces = None if self.of_pairs is None else channels_from_complex(self.of_pairs, channels)
        levels = None if self.of_levels is None else self.of_levels[:, 1:-2]
        sizes = None if self.of_sizes is None else self.of_sizes[:, :-1].transpose(1, 2)
        return surfaces, self.of_inverse, levels, sizes
