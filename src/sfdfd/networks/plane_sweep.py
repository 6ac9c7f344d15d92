"""A network that regularises a plane sweep: it sees the camera only through the residuals of the planes."""

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

from sfdfd.errors import InputError, checked_int
from sfdfd.networks.interface import (
    NetworkModule,
    NetworkOutput,
    checked_size,
    conv_relu,
    expand_to_batch,
    pad_to_multiple,
)
from sfdfd.networks.slice_blend import SliceBlend
from sfdfd.networks.volume_layers import (
    InPlaneConv,
    Residual,
    broadcast_over_planes,
    pool_volume,
    upsample_volume,
)
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.plane_sweep.cost_volume import (
    LARGE_PX,
    RESIDUAL_FLOOR,
    StackDefocus,
    blend_by_logits,
    box_mean,
    clipped_light_share,
    semi_global_matching,
    sharpness_logits,
    sweep_residuals,
)
from sfdfd.registry import part

__all__ = ["PlaneSweepNet"]

SQUARE_PX = 2
"""Side of the squares of pixels that are one point of the volume."""
FULL_SIZE_CHANNELS = 16
TILE_PX, OVERLAP_PX = 384, 64
"""Sides of tiles of large images, even, and their overlap with their neighbours."""
NOISY, SMOOTHING_PX = 0.004, 0.6
"""Standard deviation of the noise (values in [0, 1]) from which a stack is smoothed, and the std of that filter."""
LARGEST_RELATIVE_VARIANCE = 0.1
"""Largest relative variance of inverse depth that corrects the depth; beyond it, there are two surfaces, not one."""
PLANES_AROUND_MEDIAN = 3
"""Planes on either side of the median over which inverse depth is averaged."""


@part
class PlaneSweepNet(NetworkModule):
    """A plane sweep, regularised by a U-Net over the volume of its planes.

    The volume's points are squares of 2 pixels at ``planes`` inverse depths. Each has four features:

    * the residual of :mod:`sfdfd.plane_sweep.cost_volume` as a log, relative to the smallest there;
    * the same, regularised by semi-global matching;
    * a focus measure: how much detail the slices have that would be in focus there;
    * how near it is to the focus of some slice.

    They mean the same at every plane, so the network is convolved along the planes as well as within them. The slices that
    the sweep finds sharpest guide it. It predicts a logit for each plane, and the weight of the sweep's own costs. The mean
    of the softmax around its median is upsampled to full size as a convex combination of neighbours, with weights that see
    the guide (Teed and Deng, RAFT, ECCV 2020). The AIF is a blend of the slices that are sharpest there. No input depends on
    the camera, the focus distances or the PSF, so the network holds for all. Outside of training, noisy stacks are smoothed
    first (:func:`denoise_if_noisy`).

    Args:
        width: channels at half the size; doubled at each resolution below, to eight times that.
        depth: number of resolutions, at least 3.
        planes: number of inverse depths, a multiple of 8.
        near_m, far_m: depth range in metres where the call does not give one.
        learned_blend: blend the AIF by sharpness as well as by depth (:class:`sfdfd.networks.slice_blend.SliceBlend`).

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
        self,
        width: int = 16,
        depth: int = 5,
        planes: int = 32,
        near_m: float = 0.5,
        far_m: float = 10.0,
        learned_blend: bool = False,
    ) -> None:
        super().__init__()
        checked_size(width, checked_int(depth, "depth (network.depth)", 3, 7))
        self.planes = checked_int(planes, "planes (network.planes)", 8, 256)
        if planes % 8:
            raise InputError(f"expected a multiple of 8, got {planes} planes (network.planes)")
        self.near_m, self.far_m, self.multiple = near_m, far_m, 2**depth
        widths = [width * min(2**level, 8) for level in range(depth)]
        self.stem = nn.Sequential(conv_relu(5, FULL_SIZE_CHANNELS), conv_relu(FULL_SIZE_CHANNELS, FULL_SIZE_CHANNELS))
        self.guide = nn.Conv2d(4 * FULL_SIZE_CHANNELS + 2, 2 * width, 3, padding=1)
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
        self.neighbours = nn.Sequential(conv_relu(2 * width + 4 * FULL_SIZE_CHANNELS, 64), nn.Conv2d(64, 4 * 9, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # without normalization layers, keep the variance
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, module.bias))
        neighbours = cast(nn.Conv2d, self.neighbours[-1])
        for last in (self.head, self.belief, neighbours):
            nn.init.normal_(last.weight, std=1e-3)
        with torch.no_grad():
            cast(Tensor, neighbours.bias).view(9, 4)[4] = 4.0
        self.trust = nn.Parameter(torch.tensor(8.0))
        self.blend = SliceBlend() if learned_blend else None

    def costs(
        self, images: Tensor, defocus: StackDefocus, shown: Float[Tensor, "b s h w"]
    ) -> Float[Tensor, "b 2 d y x"]:
        """Return the log residuals at half the size, plain and regularised by semi-global matching, without gradient."""
        with torch.no_grad():
            costs = []
            for index in range(len(images)):
                is_real = shown[index].flatten(1).any(1)
                clipped = None if defocus.clipped is None else defocus.clipped[index][is_real][None]
                sample = defocus._replace(ends_px=defocus.ends_px[index][is_real][None], clipped=clipped)
                costs.append(log_sweep_residuals(images[index][is_real], shown[index][is_real], sample, self.planes))
            return torch.stack(costs)

    def forward(
        self,
        images: Float[Tensor, "b s 3 h w"],
        focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
        *,
        near_m: float | Tensor | None = None,
        far_m: float | Tensor | None = None,
        slice_mask: Bool[Tensor, "b s"] | None = None,
        defocus: StackDefocus | None = None,
        costs: Float[Tensor, "b 2 d y x"] | None = None,
    ) -> NetworkOutput:
        """Predict depth (B,H,W) in metres and the all-in-focus image (B,3,H,W); arguments as in DAIFNet.

        Args:
            defocus: how the slices are blurred; required.
            costs: (B,2,D,H/2,W/2) the result of :meth:`costs`, sides rounded up, where it is known already.
        """
        if defocus is None:
            raise InputError("PlaneSweepNet needs to know how the slices are blurred (defocus)")
        batch, slices, _, height, width = images.shape
        near, far = expand_to_batch(near_m, images, self.near_m), expand_to_batch(far_m, images, self.far_m)
        slice_weight = images.new_ones(batch, slices) if slice_mask is None else slice_mask.to(images)
        covered = slice_weight[:, :, None, None].expand(-1, -1, height, width)
        if defocus.covered is not None:
            covered = covered * defocus.covered
        denoised = images if self.training else denoise_if_noisy(images, slice_weight)
        if costs is None:
            costs = self.costs(denoised, defocus, covered)
        if height * width > LARGE_PX and not self.training:
            return self._forward_in_tiles(images, focus_distances_m, near, far, slice_mask, defocus, costs)
        smallest = costs.amin(2)
        relative_costs = costs - smallest[:, :, None]
        guide = self._guide_features(denoised, relative_costs, smallest, defocus, covered)
        radii_px = self._radii_px(defocus)
        volume = self._volume(denoised, relative_costs, radii_px, slice_weight)
        features = self._regularise(volume, guide, smallest, self._stack_features(radii_px, slice_weight))
        summary = torch.cat([features.amax(1), features.mean(1)], -1).permute(0, 3, 1, 2)
        logits = self._plane_logits(features, summary, volume)
        if defocus.clipped is not None and not self.training:
            logits = self._sweep_logits_near_lamps(logits, volume, images, defocus)
        inverse_depth_01, std = self._full_size_depth(logits, summary, guide, height, width)
        if not self.training:
            inverse_depth_01 = _median_depth_correction(inverse_depth_01, std, near, far)
        # a learned blend does not teach depth: beside a silhouette the blend at the true depth is not the best one
        blended_at = inverse_depth_01 if self.blend is None else inverse_depth_01.detach()
        aif = self._blend_sharpest(images, blended_at, defocus, covered, self.blend)
        scores = logits[..., : costs.shape[-2], : costs.shape[-1]] if self.training else None
        return NetworkOutput(depth_from_normalized(inverse_depth_01, near, far), aif, std, scores)

    def _guide_features(
        self, images: Tensor, relative_costs: Tensor, smallest: Tensor, defocus: StackDefocus, covered: Tensor
    ) -> Float[Tensor, "b c y x"]:
        """Return features of the slices that the sweep finds sharpest, of full size and folded to half of it."""
        height, width = images.shape[-2:]
        probability = torch.softmax(-2 * self.trust.detach() * relative_costs[:, 1], 1)
        half_size = torch.cat([self._mean_near_median(probability)[:, None], _scaled(smallest)], 1)
        maps = F.interpolate(half_size, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        sharpest = self._blend_sharpest(images, maps[:, 0], defocus, covered)
        full_size = self.stem(pad_to_multiple(torch.cat([sharpest, maps[:, 1:]], 1), self.multiple))
        return F.pixel_unshuffle(full_size, 2)

    def _regularise(
        self, volume: Tensor, guide: Tensor, smallest: Tensor, stack_features: Tensor
    ) -> Float[Tensor, "b d h w c"]:
        """Run the U-Net over the volume of planes."""
        smallest = pad_to_multiple(_scaled(smallest), self.multiple // 2)
        guide_in, guide_out = (
            broadcast_over_planes(half) for half in self.guide(torch.cat([guide, smallest], 1)).chunk(2, 1)
        )
        features = self.entry(volume.permute(0, 2, 3, 4, 1)) + guide_in + stack_features
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            features = block(self.down[level - 1](pool_volume(features, level < 4)) if level else features)
            skips.append(features)
        for level, block, up in zip(range(len(skips) - 1, 0, -1), self.decoder, self.up, strict=True):
            features = block(skips[level - 1] + upsample_volume(up(features), level < 4))
        return features + guide_out

    def _plane_logits(self, features: Tensor, summary: Tensor, volume: Tensor) -> Float[Tensor, "b d h w"]:
        """Return the logits of the planes: learned ones, and the sweep's costs with a learned weight."""
        cost_weight = 2 * torch.sigmoid(self.belief(summary).float()) * self.trust
        learned = self.head(F.relu(features))[..., 0].float()
        return 10 * learned - 2 * cost_weight * volume[:, 1]

    def _sweep_logits_near_lamps(
        self, logits: Tensor, volume: Tensor, images: Tensor, defocus: StackDefocus
    ) -> Float[Tensor, "b d h w"]:
        """Take the sweep's own logits where light comes from clipped pixels, which the network has not learned of."""
        share = clipped_light_share(images, defocus)[:, None]
        share = pad_to_multiple(F.max_pool2d(share, 2, ceil_mode=True), self.multiple // 2)
        return torch.lerp(logits, -2 * self.trust.detach() * volume[:, 1].float(), share)

    def _full_size_depth(
        self, logits: Tensor, summary: Tensor, guide: Tensor, height: int, width: int
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
        """Return the normalized inverse depth and its std at full size."""
        probability = torch.softmax(logits, 1)
        mean, mean_square = (
            torch.einsum("bdhw,d->bhw", probability, self._steps(probability) ** power) for power in (1, 2)
        )
        near_median, variance = self._mean_near_median(probability), mean_square - mean.square()
        weights = self.neighbours(torch.cat([summary, guide], 1)).float()
        moments = torch.stack([near_median, variance + near_median.square()], 1)
        inverse_depth_01, square = self._convex_upsample(moments, weights, height, width)
        return inverse_depth_01, (square - inverse_depth_01.square()).clamp_min(1e-8).sqrt()

    def _forward_in_tiles(
        self, images: Tensor, focus_distances_m: Tensor, near_m: Tensor, far_m: Tensor, slice_mask: Tensor | None,
        defocus: StackDefocus, costs: Tensor,
    ) -> NetworkOutput:  # fmt: skip
        """Predict a large image, whose volume would not fit into memory, in tiles that overlap."""
        height, width = images.shape[-2:]
        results: list[Tensor] = [images.new_empty(len(images), *lead, height, width) for lead in ((), (3,), ())]
        for rows, columns in product(_tiles(height), _tiles(width)):
            window = (..., slice(*rows.padded), slice(*columns.padded))
            tile_defocus = defocus._replace(
                covered=None if defocus.covered is None else defocus.covered[window],
                clipped=None if defocus.clipped is None else defocus.clipped[window],
            )
            output = self(
                images[window], focus_distances_m, near_m=near_m, far_m=far_m, slice_mask=slice_mask,
                defocus=tile_defocus, costs=costs[..., rows.padded_at_half_size, columns.padded_at_half_size],
            )  # fmt: skip
            for result, tile in zip(results, output[:3], strict=True):
                core = tile[..., rows.core_in_padded, columns.core_in_padded]
                result[..., slice(*rows.core), slice(*columns.core)] = core
        return NetworkOutput(*results)

    def _volume(
        self, images: Tensor, relative_costs: Tensor, radii_px: Tensor, slice_weight: Tensor
    ) -> Float[Tensor, "b 4 d y x"]:
        """Return the four features of each point, padded to the U-Net's size."""
        detail = self._focus_measure(images, radii_px, slice_weight)
        detail = F.avg_pool2d(detail, 2, ceil_mode=True, count_include_pad=False)
        maps = torch.stack([0.5 * relative_costs[:, 0], relative_costs[:, 1], detail], 1).flatten(1, 2)
        maps = pad_to_multiple(maps, self.multiple // 2).unflatten(1, (3, self.planes))
        in_focus = 1 / (1 + (radii_px.abs() + 99 * (1 - slice_weight[..., None])).amin(1))
        return torch.cat([maps, in_focus[:, None, :, None, None].expand_as(maps[:, :1])], 1)

    def _steps(self, like: Tensor) -> Float[Tensor, "d"]:
        """Return the normalized inverse depths of the planes."""
        return torch.linspace(0, 1, self.planes, device=like.device)

    def _mean_near_median(self, probability: Float[Tensor, "b d h w"]) -> Float[Tensor, "b h w"]:
        """Return the mean of a distribution within a few planes of its median, which does not average two surfaces."""
        median = (probability.cumsum(1) < 0.5).sum(1, keepdim=True)
        planes = torch.arange(self.planes, device=probability.device)[:, None, None]
        probability = probability * ((planes - median).abs() <= PLANES_AROUND_MEDIAN)
        mean = torch.einsum("bdhw,d->bhw", probability, self._steps(probability))
        return mean / probability.sum(1).clamp_min(1e-12)

    def _radii_px(self, defocus: StackDefocus) -> Float[Tensor, "b s d"]:
        """Return the signed blur radius of each slice at each plane."""
        near_px, far_px = defocus.ends_px[..., None].unbind(2)
        return far_px + torch.linspace(0, 1, self.planes, device=far_px.device) * (near_px - far_px)

    def _stack_features(
        self, radii_px: Float[Tensor, "b s d"], slice_weight: Float[Tensor, "b s"]
    ) -> Float[Tensor, "b 1 1 1 c"]:
        """Embed what holds for the whole stack: the span of the blur and the number of slices."""
        span = ((radii_px[..., -1] - radii_px[..., 0]).abs() * slice_weight).amax(1)
        numbers = torch.stack([torch.log2(span.clamp_min(0.1)) / 4, slice_weight.sum(1) / 8], 1)
        return self.numbers(numbers)[:, None, None, None]

    @staticmethod
    def _focus_measure(
        images: Tensor, radii_px: Float[Tensor, "b s d"], slice_weight: Float[Tensor, "b s"]
    ) -> Float[Tensor, "b d h w"]:
        """Return the log energy of the Laplacian of the slices that are sharpest at each plane, relative to the largest."""
        log_weight = -radii_px.square() / (2 * 0.7**2)
        weights = torch.softmax(log_weight.masked_fill(slice_weight[..., None] == 0, -torch.inf), 1)
        edges = laplacian(rgb_to_grayscale(images.flatten(0, 1)), 3, normalized=False)
        energy = torch.log(box_mean(edges.square(), 3)[:, 0] + 3e-5).unflatten(0, images.shape[:2])
        measure = torch.einsum("bsd,bshw->bdhw", weights, energy)
        return 0.5 * (measure - measure.amax(1, keepdim=True))

    @staticmethod
    def _convex_upsample(
        maps: Tensor, weights: Float[Tensor, "b 36 h w"], height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Double the size of two maps: each pixel is a convex combination of the 3 x 3 around it."""
        batch, _, rows, columns = maps.shape
        around = F.unfold(F.pad(maps, (1, 1, 1, 1), mode="replicate"), 3).view(batch, 2, 9, 1, rows, columns)
        shares = torch.softmax(weights.view(batch, 1, 9, 4, rows, columns), 2)
        first, second = F.pixel_shuffle((shares * around).sum(2).flatten(1, 2), 2)[..., :height, :width].unbind(1)
        return first, second

    @staticmethod
    def _blend_sharpest(
        images: Tensor,
        inverse_depth_01: Tensor,
        defocus: StackDefocus,
        covered: Tensor,
        correct: SliceBlend | None = None,
    ) -> Tensor:
        near_px, far_px = defocus.ends_px[..., None, None].unbind(2)
        radii_px = far_px + inverse_depth_01[:, None] * (near_px - far_px)
        log_weight = sharpness_logits(radii_px, covered)
        if correct is not None:
            log_weight = correct(images, log_weight, covered)
        return blend_by_logits(images, log_weight, defocus.clipped)


class Tile(NamedTuple):
    """A tile along one axis: the pixels that it predicts (``core``) and those that it sees (``padded``)."""

    core: tuple[int, int]
    padded: tuple[int, int]

    @property
    def padded_at_half_size(self) -> slice:
        return slice(self.padded[0] // 2, (self.padded[1] + 1) // 2)

    @property
    def core_in_padded(self) -> slice:
        return slice(self.core[0] - self.padded[0], self.core[1] - self.padded[0])


def _tiles(size: int) -> list[Tile]:
    ends = [*range(0, size, TILE_PX), size]
    return [Tile((a, b), (max(a - OVERLAP_PX, 0), min(b + OVERLAP_PX, size))) for a, b in pairwise(ends)]


def _scaled(log_residual: Tensor) -> Tensor:
    """Bring log residuals, about -12 to -4, to the scale of a network's inputs."""
    return (log_residual + 8) / 4


def _median_depth_correction(
    inverse_depth_01: Float[Tensor, "b h w"], std: Tensor, near_m: Tensor, far_m: Tensor
) -> Tensor:
    """Return the normalized inverse depth of the median depth instead of the mean inverse depth, which is too near.

    If inverse depth is log-normal with mean u and variance v, the median depth is sqrt(1 + v / u^2) / u. The network's
    std is
    too large: v is half of its square, and v / u^2 counts up to ``LARGEST_RELATIVE_VARIANCE``.
    """
    far, span = (1 / far_m)[:, None, None], (1 / near_m - 1 / far_m)[:, None, None]
    inverse = far + inverse_depth_01 * span
    factor = 1 + (0.5 * (std * span / inverse).square()).clamp_max(LARGEST_RELATIVE_VARIANCE)
    return ((inverse / factor.sqrt() - far) / span).clamp_min(0)


def denoise_if_noisy(
    images: Float[Tensor, "b s 3 h w"], slice_weight: Float[Tensor, "b s"]
) -> Float[Tensor, "b s 3 h w"]:
    """Smooth stacks with more noise than ``NOISY``.

    Blurs commute, so equally smoothed slices are those of a smoother scene at the same depth.
    """
    flat = images.flatten(0, 1)
    smooth = gaussian_blur2d(flat, (5, 5), (SMOOTHING_PX, SMOOTHING_PX)).view_as(images)
    is_noisy = estimate_noise_std(images, slice_weight) > NOISY
    return torch.where(is_noisy[:, None, None, None, None], smooth, images)


def estimate_noise_std(
    images: Float[Tensor, "b s 3 h w"], slice_weight: Float[Tensor, "b s"], block_px: int = 16
) -> Float[Tensor, "b"]:
    """Return the standard deviation of the noise of the least noisy slice (Immerkaer, CVIU 64, 1996).

    It is the mean of a difference that vanishes on slopes and straight edges, over blocks; of these the first decile, where
    there is least texture. ``slice_weight`` is 0 for padding slices.
    """
    kernel = images.new_tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
    difference = F.conv2d(images.flatten(0, 2)[:, None], kernel[None, None]).abs()
    side = min(block_px, *difference.shape[-2:])
    blocks = F.avg_pool2d(difference, side).view(*images.shape[:3], -1).mean(2)
    slice_noise = torch.quantile(blocks, 0.1, dim=-1).masked_fill(slice_weight == 0, torch.inf)
    return math.sqrt(math.pi / 2) * slice_noise.amin(1)


def log_sweep_residuals(
    images: Float[Tensor, "s 3 h w"], covered: Float[Tensor, "s h w"], defocus: StackDefocus, planes: int
) -> Float[Tensor, "2 d y x"]:
    """Return the costs that :class:`PlaneSweepNet` sees of one stack: :func:`log_residuals` of a sweep's residuals."""
    return log_residuals(sweep_residuals(images, covered, defocus, 0, planes, window_px=SQUARE_PX))


def log_residuals(residuals: Float[Tensor, "*b d y x"]) -> Float[Tensor, "*b 2 d y x"]:
    """Return the logs of residuals, plain and regularised by semi-global matching."""
    return torch.stack([torch.log(residuals + 4e-6), semi_global_matching(torch.log(residuals + RESIDUAL_FLOOR))], -4)
