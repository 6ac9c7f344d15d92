"""A network that regularises a plane sweep: it knows the camera through what each plane leaves unexplained alone."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d, laplacian
from torch import Tensor, nn

from sfdfd.errors import InputError, checked_whole
from sfdfd.networks.interface import NetworkOutput, checked_size, convolution, pad_to_multiple, per_sample
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.plane_sweep.cost_volume import (
    LARGE_PX,
    RESIDUAL_FLOOR,
    Defocus,
    box,
    lit_by_clipped,
    semi_global_matching,
    sharpest,
    unexplained,
)
from sfdfd.registry import part

__all__ = ["PlaneSweepNet"]

SQUARE_PX = 2
"""Side of the squares that are points of the volume."""
FINE = 16
"""Channels at full size."""
TILE_PX, OVERLAP_PX = 384, 64
"""Sides of tiles of large images, even, and how much of their neighbours they see."""
NOISY, SMOOTHING_PX = 0.004, 0.6
"""Standard deviation of the noise (of codes of a range of 1) from which a stack is smoothed, and by how much."""
MOST_VARIANCE = 0.1
"""Largest relative variance of inverse depth that moves the answer: beyond it, two surfaces are meant and not one."""
ABOUT = 3
"""Planes on either side of the median that a inverse_depth_01 is the mean of."""


@part
class PlaneSweepNet(nn.Module):
    """Plane sweep, then a U-Net over the volume of its planes in the place of its regularisation.

    The volume's points are squares of 2 pixels at ``planes`` inverse depths. What is known of one (the residual of
    :mod:`sfdfd.plane_sweep.cost_volume` as a log, relative to the smallest there, plain and regularised by semi-global
    matching; a focus measure: how much detail the slices have that would be in focus there; how near it is to being in focus
    in some slice) says the same at every plane, so the network is convolved along the planes as well as within them: what it
    learns of one depth it knows of all. The slices that the sweep finds sharpest are its guide. It answers with a logit for
    each plane, and how far the sweep's own are to be believed; the mean of the softmax about its median is brought to full
    size as a convex combination of its neighbours, with weights that see the guide (Teed and Deng, RAFT, ECCV 2020). The AIF
    is the sharpest slices there. Nothing in it is of a camera, a focus set or a PSF: it holds for all. It does
    not bear more noise than it has learnt, so noisy stacks are smoothed first, but in training (:func:`denoise_if_noisy`).

    Args:
        width: channels at half the size; doubled at each resolution below, to eight times that.
        depth: number of resolutions, at least 3.
        planes: number of inverse depths, a multiple of 8.
        near_m, far_m: depth range in metres where the call does not give one.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.networks.interface import predict_stack
        >>> predict_stack(PlaneSweepNet(), DefocusRenderer(sigma_scale=0.5), stack).depth_std_m.shape
        torch.Size([1, 48, 64])
    """

    requires_defocus = True

    def __init__(
        self, width: int = 16, depth: int = 5, planes: int = 32, near_m: float = 0.5, far_m: float = 10.0
    ) -> None:
        super().__init__()
        checked_size(width, checked_whole(depth, "depth (network.depth)", 3, 7))
        self.planes = checked_whole(planes, "planes (network.planes)", 8, 256)
        if planes % 8:
            raise InputError(f"expected a multiple of 8, got {planes} planes (network.planes)")
        self.near_m, self.far_m, self.multiple = near_m, far_m, 2**depth
        widths = [width * min(2**level, 8) for level in range(depth)]
        self.stem = nn.Sequential(convolution(5, FINE), convolution(FINE, FINE))
        self.guide = nn.Conv2d(4 * FINE + 2, 2 * width, 3, padding=1)
        self.entry = InPlaneConv(4, width)
        self.numbers = nn.Linear(2, width)
        self.encoder = nn.ModuleList(
            nn.Sequential(*(Residual(w) for _ in range(1 + (n > 1)))) for n, w in enumerate(widths)
        )
        self.down = nn.ModuleList(nn.Linear(w, n) for w, n in pairwise(widths))
        self.decoder = nn.ModuleList(Residual(w) for w in reversed(widths[:-1]))
        self.up = nn.ModuleList(nn.Linear(n, w) for w, n in reversed(list(pairwise(widths))))
        self.head = InPlaneConv(width, 1)
        self.belief = nn.Conv2d(2 * width, 1, 3, padding=1)
        self.neighbours = nn.Sequential(convolution(2 * width + 4 * FINE, 64), nn.Conv2d(64, 4 * 9, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # nothing normalises: variance is kept from layer to layer
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, module.bias))
        neighbours = cast(nn.Conv2d, self.neighbours[-1])
        for last in (self.head, self.belief, neighbours):
            nn.init.normal_(last.weight, std=1e-3)
        with torch.no_grad():
            cast(Tensor, neighbours.bias).view(9, 4)[4] = 4.0
        self.trust = nn.Parameter(torch.tensor(8.0))

    def costs(self, images: Tensor, defocus: Defocus, shown: Float[Tensor, "b s h w"]) -> Float[Tensor, "b 2 d y x"]:
        """The planes' residuals at half the size as logs, and regularised by semi-global matching; no gradient."""
        with torch.no_grad():
            found = []
            for index in range(len(images)):
                there = shown[index].flatten(1).any(1)
                clipped = None if defocus.clipped is None else defocus.clipped[index][there][None]
                one = defocus._replace(ends_px=defocus.ends_px[index][there][None], clipped=clipped)
                found.append(log_sweep_residuals(images[index][there], shown[index][there], one, self.planes))
            return torch.stack(found)

    def forward(
        self,
        images: Float[Tensor, "b s 3 h w"],
        focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
        *,
        near_m: float | Tensor | None = None,
        far_m: float | Tensor | None = None,
        slice_mask: Bool[Tensor, "b s"] | None = None,
        defocus: Defocus | None = None,
        costs: Float[Tensor, "b 2 d y x"] | None = None,
    ) -> NetworkOutput:
        """Predict depth (B,H,W) in metres and the all-in-focus image (B,3,H,W); arguments as in DAIFNet.

        Args:
            defocus: how the slices are blurred; needed.
            costs: (B,2,D,H/2,W/2) those of :meth:`costs`, sides rounded up, where known already.
        """
        if defocus is None:
            raise InputError("PlaneSweepNet needs to know how the slices are blurred (defocus)")
        batch, slices, _, height, width = images.shape
        near = per_sample(self.near_m if near_m is None else near_m, images)
        far = per_sample(self.far_m if far_m is None else far_m, images)
        there = images.new_ones(batch, slices) if slice_mask is None else slice_mask.to(images)
        shown = there[:, :, None, None].expand(-1, -1, height, width)
        if defocus.shown is not None:
            shown = shown * defocus.shown
        seen = images if self.training else denoise_if_noisy(images, there)
        if costs is None:
            costs = self.costs(seen, defocus, shown)
        if height * width > LARGE_PX and not self.training:
            return self._in_tiles(images, focus_distances_m, near, far, slice_mask, defocus, costs)
        least = costs.amin(2)
        relative = costs - least[:, :, None]
        start = self._position(torch.softmax(-2 * self.trust.detach() * relative[:, 1], 1))[:, None]
        known = torch.cat([start, (least + 8) / 4], 1)
        known = F.interpolate(known, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        guide = self._sharpest(seen, known[:, 0], defocus, shown)
        fine = self.stem(pad_to_multiple(torch.cat([guide, known[:, 1:]], 1), self.multiple))
        folded = F.pixel_unshuffle(fine, 2)
        least = pad_to_multiple((least + 8) / 4, self.multiple // 2)
        before, after = (planar(part) for part in self.guide(torch.cat([folded, least], 1)).chunk(2, 1))
        radii_px = self._radii_px(defocus)
        volume = self._volume(seen, relative, radii_px, there)
        features = self.entry(volume.permute(0, 2, 3, 4, 1)) + before + self._numbers(radii_px, there)
        skips = []
        for level, block in enumerate(self.encoder):
            features = block(self.down[level - 1](pooled(features, level < 4)) if level else features)
            skips.append(features)
        for level, block, up in zip(range(len(skips) - 1, 0, -1), self.decoder, self.up, strict=True):
            features = block(skips[level - 1] + enlarged(up(features), level < 4))
        features = features + after
        summary = torch.cat([features.amax(1), features.mean(1)], -1).permute(0, 3, 1, 2)
        believed = 2 * torch.sigmoid(self.belief(summary).float()) * self.trust
        answer = self.head(F.relu(features))[..., 0].float()
        logits = 10 * answer - 2 * believed * volume[:, 1]
        if defocus.clipped is not None and not self.training:  # lamps are no texture it has learnt of: the sweep itself
            lit = lit_by_clipped(images, defocus)[:, None]
            lit = pad_to_multiple(F.max_pool2d(lit, 2, ceil_mode=True), self.multiple // 2)
            logits = torch.lerp(logits, -2 * self.trust.detach() * volume[:, 1].float(), lit)
        share = torch.softmax(logits, 1)
        mean, about = (torch.einsum("bdhw,d->bhw", share, self._steps(share) ** power) for power in (1, 2))
        halves, variance = self._position(share), about - mean.square()
        weights = self.neighbours(torch.cat([summary, folded], 1)).float()
        inverse_depth_01, square = self._enlarged(
            torch.stack([halves, variance + halves.square()], 1), weights, height, width
        )
        std = (square - inverse_depth_01.square()).clamp_min(1e-8).sqrt()
        if not self.training:
            inverse_depth_01 = _at_median_depth(inverse_depth_01, std, near, far)
        aif = self._sharpest(images, inverse_depth_01, defocus, shown)
        scores = logits[..., : costs.shape[-2], : costs.shape[-1]] if self.training else None
        return NetworkOutput(depth_from_normalized(inverse_depth_01, near, far), aif, std, scores)

    def _in_tiles(
        self, images: Tensor, focus_distances_m: Tensor, near_m: Tensor, far_m: Tensor, slice_mask: Tensor | None,
        defocus: Defocus, costs: Tensor,
    ) -> NetworkOutput:  # fmt: skip
        """The same of a large image, of which the volume would not fit into memory: tiles that overlap."""
        height, width = images.shape[-2:]
        found: list[Tensor] = [images.new_empty(len(images), *lead, height, width) for lead in ((), (3,), ())]
        for rows, columns in product(_tiles(height), _tiles(width)):
            cut = (..., slice(*rows.around), slice(*columns.around))
            told = defocus._replace(
                shown=None if defocus.shown is None else defocus.shown[cut],
                clipped=None if defocus.clipped is None else defocus.clipped[cut],
            )
            output = self(
                images[cut], focus_distances_m, near_m=near_m, far_m=far_m, slice_mask=slice_mask, defocus=told,
                costs=costs[..., rows.halves, columns.halves],
            )  # fmt: skip
            for whole, tile in zip(found, output[:3], strict=True):
                whole[..., slice(*rows.own), slice(*columns.own)] = tile[..., rows.within, columns.within]
        return NetworkOutput(*found)

    def _volume(self, images: Tensor, relative: Tensor, radii_px: Tensor, there: Tensor) -> Float[Tensor, "b 4 d y x"]:
        """What is known of each point."""
        detail = F.avg_pool2d(self._detail(images, radii_px, there), 2, ceil_mode=True, count_include_pad=False)
        known = torch.stack([0.5 * relative[:, 0], relative[:, 1], detail], 1).flatten(1, 2)
        known = pad_to_multiple(known, self.multiple // 2).unflatten(1, (3, self.planes))
        in_focus = 1 / (1 + (radii_px.abs() + 99 * (1 - there[..., None])).amin(1))
        return torch.cat([known, in_focus[:, None, :, None, None].expand_as(known[:, :1])], 1)

    def _steps(self, like: Tensor) -> Float[Tensor, "d"]:
        return torch.linspace(0, 1, self.planes, device=like.device)

    def _position(self, share: Float[Tensor, "b d h w"]) -> Float[Tensor, "b h w"]:
        """The mean of a distribution within ``ABOUT`` planes of its median: two surfaces are not averaged."""
        median = (share.cumsum(1) < 0.5).sum(1, keepdim=True)
        planes = torch.arange(self.planes, device=share.device)[:, None, None]
        share = share * ((planes - median).abs() <= ABOUT)
        return torch.einsum("bdhw,d->bhw", share, self._steps(share)) / share.sum(1).clamp_min(1e-12)

    def _radii_px(self, defocus: Defocus) -> Float[Tensor, "b s d"]:
        """Signed blur radius of each slice at each plane."""
        near_px, far_px = defocus.ends_px[..., None].unbind(2)
        return far_px + torch.linspace(0, 1, self.planes, device=far_px.device) * (near_px - far_px)

    def _numbers(self, radii_px: Float[Tensor, "b s d"], there: Float[Tensor, "b s"]) -> Float[Tensor, "b 1 1 1 c"]:
        """What holds for the whole stack: span of the blur, number of slices."""
        span = ((radii_px[..., -1] - radii_px[..., 0]).abs() * there).amax(1)
        known = torch.stack([torch.log2(span.clamp_min(0.1)) / 4, there.sum(1) / 8], 1)
        return self.numbers(known)[:, None, None, None]

    @staticmethod
    def _detail(
        images: Tensor, radii_px: Float[Tensor, "b s d"], there: Float[Tensor, "b s"]
    ) -> Float[Tensor, "b d h w"]:
        """Logs of the energy of the Laplacian of the slices that are sharpest at each plane, below the largest (0)."""
        sharpness = -radii_px.square() / (2 * 0.7**2)
        shares = torch.softmax(sharpness.masked_fill(there[..., None] == 0, -torch.inf), 1)
        edges = laplacian(rgb_to_grayscale(images.flatten(0, 1)), 3, normalized=False)
        energy = torch.log(box(edges.square(), 3)[:, 0] + 3e-5).unflatten(0, images.shape[:2])
        measure = torch.einsum("bsd,bshw->bdhw", shares, energy)
        return 0.5 * (measure - measure.amax(1, keepdim=True))

    @staticmethod
    def _enlarged(maps: Tensor, weights: Float[Tensor, "b 36 h w"], height: int, width: int) -> tuple[Tensor, Tensor]:
        """Two maps at twice the size: each pixel a convex combination of the 3 x 3 about it."""
        batch, _, rows, columns = maps.shape
        about = F.unfold(F.pad(maps, (1, 1, 1, 1), mode="replicate"), 3).view(batch, 2, 9, 1, rows, columns)
        shares = torch.softmax(weights.view(batch, 1, 9, 4, rows, columns), 2)
        first, second = F.pixel_shuffle((shares * about).sum(2).flatten(1, 2), 2)[..., :height, :width].unbind(1)
        return first, second

    @staticmethod
    def _sharpest(images: Tensor, inverse_depth_01: Tensor, defocus: Defocus, shown: Tensor) -> Tensor:
        near_px, far_px = defocus.ends_px[..., None, None].unbind(2)
        return sharpest(images, far_px + inverse_depth_01[:, None] * (near_px - far_px), shown, defocus.clipped)


class Tile(NamedTuple):
    """Where one lies along an axis, and where what it sees lies."""

    own: tuple[int, int]
    around: tuple[int, int]

    @property
    def halves(self) -> slice:
        return slice(self.around[0] // 2, (self.around[1] + 1) // 2)

    @property
    def within(self) -> slice:
        return slice(self.own[0] - self.around[0], self.own[1] - self.around[0])


def _tiles(size: int) -> list[Tile]:
    ends = [*range(0, size, TILE_PX), size]
    return [Tile((a, b), (max(a - OVERLAP_PX, 0), min(b + OVERLAP_PX, size))) for a, b in pairwise(ends)]


class InPlaneConv(nn.Conv2d):
    """A 3 x 3 convolution within each plane of a volume (B,D,H,W,C): channels last, so that no number is moved."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, volume: Float[Tensor, "b d h w c"]) -> Float[Tensor, "b d h w k"]:
        planes = super().forward(volume.flatten(0, 1).permute(0, 3, 1, 2))
        return planes.permute(0, 2, 3, 1).unflatten(0, volume.shape[:2])


class CrossPlaneConv(nn.Conv2d):
    """A convolution of three planes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, (3, 1), padding=(1, 0))

    def forward(self, volume: Float[Tensor, "b d h w c"]) -> Float[Tensor, "b d h w k"]:
        lines = super().forward(volume.flatten(2, 3).permute(0, 3, 1, 2))
        return lines.permute(0, 2, 3, 1).unflatten(2, volume.shape[2:4])


class Residual(nn.Module):
    """x + convolutions within, across and within the planes, with ReLU between; then ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            InPlaneConv(width, width),
            nn.ReLU(inplace=True),
            CrossPlaneConv(width, width),
            nn.ReLU(inplace=True),
            InPlaneConv(width, width),
        )

    def forward(self, features: Float[Tensor, "b d h w c"]) -> Float[Tensor, "b d h w c"]:
        return F.relu(features + 0.5 * self.inner(features), inplace=True)


def planar(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w c"]:
    """The same for every plane of a volume."""
    return features.permute(0, 2, 3, 1)[:, None]


def pooled(volume: Float[Tensor, "b d h w c"], planes: bool) -> Tensor:
    """Half the size, and half the planes where asked."""
    smaller = F.avg_pool2d(volume.flatten(0, 1).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    volume = smaller.unflatten(0, volume.shape[:2])
    return volume.unflatten(1, (-1, 2)).mean(2) if planes else volume


def enlarged(volume: Float[Tensor, "b d h w c"], planes: bool) -> Tensor:
    """Twice the size, and twice the planes where asked, linear between the middles of what is enlarged."""
    for axis in (1, 2, 3) if planes else (2, 3):
        number = volume.shape[axis]
        before = torch.cat([volume.narrow(axis, 0, 1), volume.narrow(axis, 0, number - 1)], axis)
        after = torch.cat([volume.narrow(axis, 1, number - 1), volume.narrow(axis, number - 1, 1)], axis)
        both = torch.stack([torch.lerp(volume, before, 0.25), torch.lerp(volume, after, 0.25)], axis + 1)
        volume = both.flatten(axis, axis + 1)
    return volume


def _at_median_depth(inverse_depth_01: Float[Tensor, "b h w"], std: Tensor, near_m: Tensor, far_m: Tensor) -> Tensor:
    """The inverse_depth_01 of the median depth, sqrt(1 + v / u^2) / u if inverse depth is log-normal with the mean u and variance v.
    Read as it is, a mean of inverse depths is too near, the farther the more. The network's std is too large: v is half
    of its square; v / u^2 counts up to ``MOST_VARIANCE``."""
    far, span = (1 / far_m)[:, None, None], (1 / near_m - 1 / far_m)[:, None, None]
    inverse = far + inverse_depth_01 * span
    wide = 1 + (0.5 * (std * span / inverse).square()).clamp_max(MOST_VARIANCE)
    return ((inverse / wide.sqrt() - far) / span).clamp_min(0)


def denoise_if_noisy(images: Float[Tensor, "b s 3 h w"], there: Float[Tensor, "b s"]) -> Float[Tensor, "b s 3 h w"]:
    """Stacks with more noise than ``NOISY`` smoothed, each slice alike: as blurs commute, those are the slices of a smoother
    scene, and the depth is the same."""
    flat = images.flatten(0, 1)
    smooth = gaussian_blur2d(flat, (5, 5), (SMOOTHING_PX, SMOOTHING_PX)).view_as(images)
    return torch.where(estimate_noise_std(images, there)[:, None, None, None, None] > NOISY, smooth, images)


def estimate_noise_std(
    images: Float[Tensor, "b s 3 h w"], there: Float[Tensor, "b s"], block_px: int = 16
) -> Float[Tensor, "b"]:
    """Standard deviation of the noise of the calmest slice, after Immerkaer (CVIU 64, 1996): the mean of a difference that
    no slant and no straight edge answers to, over blocks; of these the first decile, where there is
    least texture. ``there`` is 0 where a slice is padding."""
    kernel = images.new_tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
    rough = F.conv2d(images.flatten(0, 2)[:, None], kernel[None, None]).abs()
    side = min(block_px, *rough.shape[-2:])
    blocks = F.avg_pool2d(rough, side).view(*images.shape[:3], -1).mean(2)
    found = torch.quantile(blocks, 0.1, dim=-1).masked_fill(there == 0, torch.inf)
    return math.sqrt(math.pi / 2) * found.amin(1)


def log_sweep_residuals(
    images: Float[Tensor, "s 3 h w"], shown: Float[Tensor, "s h w"], defocus: Defocus, planes: int
) -> Float[Tensor, "2 d y x"]:
    """What :class:`PlaneSweepNet` sees of one stack: :func:`log_residuals` of the planes' residuals in squares."""
    return log_residuals(unexplained(images, shown, defocus, 0, planes, window_px=SQUARE_PX))


def log_residuals(residuals: Float[Tensor, "*b d y x"]) -> Float[Tensor, "*b 2 d y x"]:
    """Logs of residuals, plain and regularised by semi-global matching."""
    return torch.stack([torch.log(residuals + 4e-6), semi_global_matching(torch.log(residuals + RESIDUAL_FLOOR))], -4)
