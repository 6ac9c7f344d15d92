"""A network that regularises a plane sweep: it knows the camera through what each plane leaves unexplained alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
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
    are the U-Net's input, with the slices that the sweep finds sharpest as a guide, and how many pixels of blur the depth
    range spans. It answers with a logit for each plane, added to the residuals' own; depth is the mean of the softmax in
    inverse depth, the AIF the sharpest slices there and a residual. Nothing in it is of a camera, a focus set or a PSF:
    it holds for all.

    Args:
        width: twice the channels at full resolution.
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
        self, width: int = 32, depth: int = 5, planes: int = 32, near_m: float = 0.5, far_m: float = 10.0
    ) -> None:
        super().__init__()
        checked_size(width, checked_whole(depth, "depth (network.depth)", 3, 8))
        self.planes = checked_whole(planes, "planes (network.planes)", 4, 256)
        self.near_m, self.far_m, self.multiple = near_m, far_m, 2 ** (depth - 1)
        widths = [width // 2, width * 3 // 2, *(2 * width for _ in range(depth - 2))]
        inputs = [planes + 4, widths[0] + planes + 3, *widths[1:-1]]
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(i, w), convolution(w, w)) for i, w in zip(inputs, widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(convolution(w + b, w), convolution(w, w)) for w, b in reversed(list(pairwise(widths)))
        )
        self.head = nn.Conv2d(widths[0], planes, 3, padding=1)
        self.coarse_head = nn.Conv2d(widths[1], planes, 3, padding=1)
        self.image_head = nn.Sequential(convolution(widths[0] + 3, widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1))
        for last in (self.head, self.coarse_head, cast(nn.Conv2d, self.image_head[-1])):
            nn.init.zeros_(cast(Tensor, last.bias))
            nn.init.normal_(last.weight, std=1e-3)
        self.trust = nn.Parameter(torch.tensor(8.0))

    def costs(self, images: Tensor, defocus: Defocus, shown: Float[Tensor, "b s h w"]) -> Float[Tensor, "b 2 d h w"]:
        """The planes' residuals as logs, averaged over 3 pixels, and regularised by semi-global matching; no gradient."""
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
        costs: Float[Tensor, "b 2 d h w"] | None = None,
    ) -> NetworkOutput:
        """Predict depth (B,H,W) in metres and the all-in-focus image (B,3,H,W); arguments as in DAIFNet.

        Args:
            defocus: how the slices are blurred; needed.
            costs: (B,2,D,H,W) those of :meth:`costs`, where known already.
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
        logs = costs.unbind(1)
        least = [log.amin(1, keepdim=True) for log in logs]
        relative = [log - low for log, low in zip(logs, least, strict=True)]
        start = torch.softmax(-self.trust.detach() * relative[1], 1)
        near_px, far_px = defocus.ends_px.unbind(-1)
        span = ((near_px - far_px).abs() * there).amax(1)
        numbers = torch.stack([torch.log2(span.clamp_min(0.1)) / 4, there.sum(1) / 8], 1)
        guide = self._sharpest(images, self._position(start), defocus, shown)
        maps = numbers[:, :, None, None].expand(-1, -1, height, width)
        fine: Any
        coarse: Any
        fine, coarse = ([0.5 * r, (low + 8) / 4] for r, low in zip(relative, least, strict=True))
        fine = pad_to_multiple(torch.cat([*fine, guide], 1), self.multiple)
        coarse = F.avg_pool2d(pad_to_multiple(torch.cat([*coarse, maps], 1), self.multiple), 2)
        features, skips = fine.contiguous(memory_format=torch.channels_last), []
        for number, block in enumerate(self.encoder):
            if number:
                features = F.max_pool2d(features, 2)
            features = block(torch.cat([features, coarse], 1) if number == 1 else features)
            skips.append(features)
        for number, (block, skip) in enumerate(zip(self.decoder, reversed(skips[:-1]), strict=True)):
            features = F.interpolate(features, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            features = block(torch.cat([skip, features], 1))
            if number == len(self.decoder) - 2:
                half = self.coarse_head(features)
        logits = self.head(features) + F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
        logits = logits[..., :height, :width].float()
        share = torch.softmax(logits - self.trust * relative[1], 1)
        position = self._position(share)
        image = self._sharpest(images, position, defocus, shown)
        correction = self.image_head(torch.cat([features[..., :height, :width], image], 1))
        steps = torch.linspace(0, 1, self.planes, device=share.device)
        spread = (share * (steps[:, None, None] - position[:, None]).square()).sum(1).clamp_min(1e-8).sqrt()
        depth_m = depth_at(position, near, far)
        return NetworkOutput(depth_m, (image + 0.1 * correction).clamp(0.0, 1.0), spread)

    def _position(self, share: Float[Tensor, "b d h w"]) -> Float[Tensor, "b h w"]:
        steps = torch.linspace(0, 1, self.planes, device=share.device)
        return torch.einsum("bdhw,d->bhw", share, steps)

    @staticmethod
    def _sharpest(images: Tensor, position: Tensor, defocus: Defocus, shown: Tensor) -> Tensor:
        near_px, far_px = defocus.ends_px[..., None, None].unbind(2)
        return sharpest(images, far_px + position[:, None] * (near_px - far_px), shown)


def sweep_logs(
    images: Float[Tensor, "s 3 h w"], shown: Float[Tensor, "s h w"], defocus: Defocus, planes: int
) -> Float[Tensor, "2 d h w"]:
    """What :class:`PlaneSweepNet` sees of one stack: logs of the planes' residuals, plain and regularised."""
    costs = unexplained(images, shown, defocus, 0, planes, grey=True)[:, None]
    fine, wide = (torch.log(box(costs, window)[:, 0] + floor) for window, floor in ((3, 4e-6), (5, RESIDUAL_FLOOR)))
    return torch.stack([fine, semi_global(wide)])
