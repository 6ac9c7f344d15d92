"""A network that starts from the slices' sharpness instead of from nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sfdfd.networks.classical import focus_measure
from sfdfd.networks.interface import (
    NetworkOutput,
    bounded_depth_m,
    checked_size,
    convolution,
    max_over_slices,
    pad_to_multiple,
    per_sample,
)
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.registry import part

__all__ = ["FocusAttentionNet"]

WINDOWS_PX = (5, 15, 31)


@part
class FocusAttentionNet(nn.Module):
    """Attention over slices, led by relative sharpness, then a bounded correction of inverse depth.

    Depth from focus in its classical form is an attention over slices whose logits are ``power * log(relative
    sharpness)``; it stands at the level of the published network before any training. Here a small U-Net with
    DAIF-Net's pooling over slices sees the slices and their relative sharpness at three scales and adds what it has
    learned: a logit per slice for depth and one for the AIF, a correction of inverse depth (between and beyond the focus
    distances), and a residual of the AIF. AiFDepthNet (Wang et al., ICCV 2021) takes both outputs from attention over
    slices; the sharpness prior and the correction are ours.

    Args:
        width: channels of the first block, which works at half resolution.
        depth: number of encoder blocks.
        power: exponent of the relative sharpness at the start; learned from there.
        near_m, far_m: depth range in metres where the call does not give one.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> output = FocusAttentionNet()(stack.images, stack.focus_distances_m, near_m=0.5, far_m=10.0)
        >>> output.depth_m.shape, output.aif.shape
        (torch.Size([1, 48, 64]), torch.Size([1, 3, 48, 64]))
    """

    requires_defocus = False

    def __init__(
        self, width: int = 24, depth: int = 4, power: float = 1.0, near_m: float = 0.5, far_m: float = 10.0
    ) -> None:
        super().__init__()
        checked_size(width, depth)
        self.near_m, self.far_m = near_m, far_m
        self.multiple = 2**depth
        widths = [width, *(min(2 * width * (level + 1), 96) for level in range(depth - 1))]
        inputs = [4 * (3 + 1 + 1 + len(WINDOWS_PX)), *(2 * w for w in widths[:-1])]
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(i, w), convolution(w, w)) for i, w in zip(inputs, widths, strict=True)
        )
        below = [*widths[1:], widths[-1]]
        self.decoder = nn.ModuleList(
            nn.Sequential(convolution(w + b, w), convolution(w, w))
            for w, b in zip(reversed(widths), reversed(below), strict=True)
        )
        self.slice_head = nn.Sequential(convolution(2 * width, width), nn.Conv2d(width, 4 * 2, 3, padding=1))
        self.fused_head = nn.Sequential(convolution(width, width), nn.Conv2d(width, 4 * 4, 3, padding=1))
        self.power = nn.Parameter(torch.tensor([float(power), float(power)]))

    def forward(
        self,
        images: Float[Tensor, "b s 3 h w"],
        focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
        *,
        near_m: float | Tensor | None = None,
        far_m: float | Tensor | None = None,
        slice_mask: Bool[Tensor, "b s"] | None = None,
    ) -> NetworkOutput:
        """Predict depth (B,H,W) in metres and the all-in-focus image (B,3,H,W); arguments as in DAIFNet."""
        batch, slices, _, height, width = images.shape
        near = per_sample(self.near_m if near_m is None else near_m, images)
        far = per_sample(self.far_m if far_m is None else far_m, images)
        focus = focus_distances_m.to(images).expand(batch, slices)
        inverse_depth_01 = normalized_inverse_depth(focus, near, far).clamp(0.0, 1.0)
        images = pad_to_multiple(images, self.multiple)
        hidden = None if slice_mask is None else ~slice_mask[:, :, None, None]

        levels, relative = [], []
        for window in WINDOWS_PX:
            level = torch.log(focus_measure(images, window) + 1e-3)  # 1e-3: about the noise of an 8-bit image
            if hidden is not None:
                level = level.masked_fill(hidden, -torch.inf)
            peak = level.amax(1, keepdim=True)
            relative.append(level - peak if hidden is None else (level - peak).masked_fill(hidden, -5.0))
            levels.append(peak.expand_as(level))
        plane = inverse_depth_01[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        cues = torch.stack([plane, 0.2 * levels[1] + 0.5, *relative], dim=2)
        features = F.pixel_unshuffle(torch.cat([images, cues], dim=2).flatten(0, 1), 2)
        features = features.contiguous(memory_format=torch.channels_last)

        skips: list[Tensor] = []
        first: Tensor | None = None
        for number, block in enumerate(self.encoder):
            features = block(features)
            fused = max_over_slices(features.unflatten(0, (batch, slices)), slice_mask)
            skips.append(fused)
            if number == 0:
                first = features
            if number < len(self.encoder) - 1:
                pooled = F.max_pool2d(features, 2)
                shared = F.max_pool2d(fused, 2)
                features = torch.cat([pooled, shared.repeat_interleave(slices, 0)], dim=1)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            if fused.shape[-2:] != skip.shape[-2:]:
                fused = F.interpolate(fused, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            fused = block(torch.cat([skip, fused], dim=1))

        assert first is not None
        per_slice = torch.cat([first, fused.repeat_interleave(slices, 0)], dim=1)
        logits = F.pixel_shuffle(self.slice_head(per_slice), 2).unflatten(0, (batch, slices)).float()
        logits = logits + self.power[:, None, None] * torch.stack([relative[1], relative[0]], dim=2)
        if hidden is not None:
            logits = logits.masked_fill(hidden[:, :, None], -torch.inf)
        depth_weight, aif_weight = torch.softmax(logits[..., :height, :width], dim=1).unbind(2)
        correction = F.pixel_shuffle(self.fused_head(fused), 2)[..., :height, :width].float()

        start = torch.einsum("bshw,bs->bhw", depth_weight, inverse_depth_01.float()).clamp(0.01, 0.99)
        depth_m = bounded_depth_m(torch.logit(start) + correction[:, 3], near, far)
        aif = torch.einsum("bshw,bschw->bchw", aif_weight, images[..., :height, :width].float())
        return NetworkOutput(depth_m, (aif + 0.1 * correction[:, :3]).clamp(0.0, 1.0))
