"""A network that regularises a plane sweep: it knows the camera through what each plane leaves unexplained alone."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from kornia.color import rgb_to_grayscale
from kornia.filters import laplacian
from torch import Tensor, nn

from sfdfd.errors import InputError, checked_whole
from sfdfd.networks.cost_volume import RESIDUAL_FLOOR, Defocus, box, semi_global, sharpest, unexplained
from sfdfd.networks.interface import NetworkOutput, checked_size, convolution, pad_to_multiple, per_sample
from sfdfd.optics.depth import depth_at
from sfdfd.parts import part

__all__ = ["PlaneSweepNet"]


@part
class PlaneSweepNet(nn.Module):
    """Plane sweep, then a U-Net in the place of its regularisation.

    The residuals of ``planes`` inverse depths (:mod:`sfdfd.networks.cost_volume`) as logs, relative to their smallest,
    are the U-Net's input, in squares of 2 pixels, with how much detail the slices have that would be in focus at each plane
    (a focus measure: it sees past the halo that a blurred edge leaves in the residuals), the slices that the sweep finds
    sharpest as a guide, and as numbers: how many
    pixels of blur the depth range spans, how many slices there are, and how near each plane is to being in focus in some
    slice. It answers with a logit for each plane, and how far the residuals' own are to be believed; the mean of the softmax
    in inverse depth is brought to full size as a convex combination of its neighbours, with weights that see the guide (Teed
    and Deng, RAFT, ECCV 2020). The AIF is the sharpest slices there and a correction. Nothing in it is of a camera, a focus
    set or a PSF: it holds for all.

    Args:
        width: channels at half the size; 3/2 and twice that below.
        depth: number of resolutions, at least 3.
        planes: number of inverse depths.
        near_m, far_m: depth range in metres where the call does not give one.

    Examples:
        >>> from sfdfd.data.example import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.networks.interface import predict_stack
        >>> predict_stack(PlaneSweepNet(), DefocusRenderer(sigma_scale=0.5), stack).depth_std_m.shape
        torch.Size([1, 48, 64])
    """

    needs_defocus = True

    def __init__(
        self, width: int = 64, depth: int = 5, planes: int = 32, near_m: float = 0.5, far_m: float = 10.0
    ) -> None:
        super().__init__()
        checked_size(width, checked_whole(depth, "depth (network.depth)", 3, 8))
        self.planes = checked_whole(planes, "planes (network.planes)", 4, 256)
        self.near_m, self.far_m, self.multiple = near_m, far_m, 2 ** (depth - 1)
        fine = max(width // 4, 4)
        widths = [width, width * 3 // 2, *(2 * width for _ in range(depth - 3))]
        self.stem = nn.Sequential(convolution(5, fine), convolution(fine, fine))
        self.entry = nn.Conv2d(3 * planes + 3 + 4 * fine, width, 3, padding=1)
        self.numbers = nn.Linear(planes + 2, width)
        self.encoder = nn.ModuleList(Residual(w) for w in widths)
        self.down = nn.ModuleList(nn.Conv2d(w, n, 3, stride=2, padding=1) for w, n in pairwise(widths))
        self.decoder = nn.ModuleList(Residual(w) for w in reversed(widths[:-1]))
        self.up = nn.ModuleList(nn.Conv2d(n, w, 1) for w, n in reversed(list(pairwise(widths))))
        self.head = nn.Conv2d(width, planes + 1, 3, padding=1)
        self.neighbours = nn.Sequential(convolution(width + 4 * fine, width), nn.Conv2d(width, 4 * 9, 1))
        self.image_head = nn.Sequential(convolution(fine + 3, fine), nn.Conv2d(fine, 3, 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # nothing normalises: variance is kept from layer to layer
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, module.bias))
        neighbours, image = cast(nn.Conv2d, self.neighbours[-1]), cast(nn.Conv2d, self.image_head[-1])
        for last in (self.head, neighbours, image):
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
                one = defocus._replace(ends_px=defocus.ends_px[index][there][None])
                found.append(sweep_logs(images[index][there], shown[index][there], one, self.planes))
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
        if costs is None:
            costs = self.costs(images, defocus, shown)
        least = costs.amin(2)
        relative = costs - least[:, :, None]
        start = self._position(torch.softmax(-self.trust.detach() * relative[:, 1], 1))[:, None]
        known = torch.cat([start, (least + 8) / 4], 1)
        known = F.interpolate(known, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        guide = self._sharpest(images, known[:, 0], defocus, shown)
        fine = self.stem(pad_to_multiple(torch.cat([guide, known[:, 1:]], 1), self.multiple))
        radii_px = self._radii_px(defocus)
        detail = F.avg_pool2d(self._detail(images, radii_px, there), 2, ceil_mode=True, count_include_pad=False)
        coarse = torch.cat([0.5 * relative.flatten(1, 2), (least + 8) / 4, start, detail], 1)
        coarse = pad_to_multiple(coarse, self.multiple // 2)
        folded = F.pixel_unshuffle(fine, 2)
        features = (
            self.entry(torch.cat([coarse, folded], 1)) + self.numbers(self._numbers(radii_px, there))[..., None, None]
        )
        features, skips = features.contiguous(memory_format=torch.channels_last), []
        for number, block in enumerate(self.encoder):
            features = block(self.down[number - 1](features) if number else features)
            skips.append(features)
        for block, up, skip in zip(self.decoder, self.up, reversed(skips[:-1]), strict=True):
            features = block(skip + F.interpolate(up(features), scale_factor=2, mode="bilinear", align_corners=False))
        answer = self.head(features).float()
        believed = 2 * torch.sigmoid(answer[:, -1:]) * self.trust
        share = torch.softmax(10 * answer[:, :-1] - believed * 2 * coarse[:, self.planes : 2 * self.planes], 1)
        halves = self._position(share)
        steps = torch.linspace(0, 1, self.planes, device=share.device)
        variance = (share * (steps[:, None, None] - halves[:, None]).square()).sum(1)
        weights = self.neighbours(torch.cat([features, folded], 1)).float()
        position, square = self._enlarged(torch.stack([halves, variance + halves.square()], 1), weights, height, width)
        spread = (square - position.square()).clamp_min(1e-8).sqrt()
        image = self._sharpest(images, position, defocus, shown)
        correction = self.image_head(torch.cat([fine[..., :height, :width], image], 1))
        return NetworkOutput(depth_at(position, near, far), (image + 0.1 * correction).clamp(0.0, 1.0), spread)

    def _position(self, share: Float[Tensor, "b d h w"]) -> Float[Tensor, "b h w"]:
        steps = torch.linspace(0, 1, self.planes, device=share.device)
        return torch.einsum("bdhw,d->bhw", share, steps)

    def _radii_px(self, defocus: Defocus) -> Float[Tensor, "b s d"]:
        """Signed blur radius of each slice at each plane."""
        near_px, far_px = defocus.ends_px[..., None].unbind(2)
        return far_px + torch.linspace(0, 1, self.planes, device=far_px.device) * (near_px - far_px)

    @staticmethod
    def _numbers(radii_px: Float[Tensor, "b s d"], there: Float[Tensor, "b s"]) -> Float[Tensor, "b n"]:
        """What holds for the whole stack: span of the blur, number of slices, how sharp some slice is at each plane."""
        span = ((radii_px[..., -1] - radii_px[..., 0]).abs() * there).amax(1)
        nearest = 1 / (1 + (radii_px.abs() + 99 * (1 - there[..., None])).amin(1))
        return torch.cat([torch.log2(span.clamp_min(0.1))[:, None] / 4, there.sum(1, keepdim=True) / 8, nearest], 1)

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
    def _sharpest(images: Tensor, position: Tensor, defocus: Defocus, shown: Tensor) -> Tensor:
        near_px, far_px = defocus.ends_px[..., None, None].unbind(2)
        return sharpest(images, far_px + position[:, None] * (near_px - far_px), shown)


class Residual(nn.Module):
    """x + convolution, ReLU, convolution; then ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(convolution(width, width), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + 0.5 * self.inner(features), inplace=True)


def sweep_logs(
    images: Float[Tensor, "s 3 h w"], shown: Float[Tensor, "s h w"], defocus: Defocus, planes: int
) -> Float[Tensor, "2 d y x"]:
    """What :class:`PlaneSweepNet` sees of one stack: logs of the planes' residuals in squares of 2 pixels, plain and
    regularised."""
    costs = unexplained(images, shown, defocus, 0, planes, window_px=2)
    return torch.stack([torch.log(costs + 4e-6), semi_global(torch.log(costs + RESIDUAL_FLOOR))])
