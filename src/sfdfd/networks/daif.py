"""DAIF-Net as published (CVPR 2023, "DAIF-Net"; 1,963,332 parameters)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sfdfd.errors import checked_choice
from sfdfd.networks.interface import (
    NetworkModule,
    NetworkOutput,
    bounded_depth_m,
    checked_size,
    conv_relu,
    expand_to_batch,
    max_over_slices,
    pad_to_multiple,
)
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.registry import part

__all__ = ["DAIFNet"]


@part
class DAIFNet(NetworkModule):
    """A U-Net whose encoder is shared by all slices; maxima over slices fuse them for one decoder.

    At each level, the maximum over slices of the pooled features is concatenated to those of each slice ("layer-wise global
    pooling"). Skips and the bottleneck are maxima over slices.

    Args:
        width: channels of the first block.
        depth: number of encoder blocks, each at half the resolution of the one before.
        head: "inverse_depth": bounded inverse depth between near and far, AIF through a logistic. "paper", as in DEReD's
            code: ReLU divided by its maximum over the image, times far (at least 0.1 m), AIF through a ReLU.
        focus_encoding: the fourth input channel: "inverse" is (1/F - 1/far) / (1/near - 1/far); "metres" is F / far, as in
            the paper's code, with far for an infinite F.
        near_m, far_m: depth range in metres where the call does not give one.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> network = DAIFNet()
        >>> sum(p.numel() for p in network.parameters())  # as published, with the depth head of one channel
        1963332
        >>> network(stack.images, stack.focus_distances_m).depth_m.shape
        torch.Size([1, 48, 64])
    """

    def __init__(
        self,
        width: int = 16,
        depth: int = 4,
        head: str = "inverse_depth",
        focus_encoding: str = "inverse",
        near_m: float = 0.5,
        far_m: float = 10.0,
    ) -> None:
        super().__init__()
        checked_size(width, depth)
        checked_choice(head, "head (network.head)", ("inverse_depth", "paper"))
        checked_choice(focus_encoding, "focus_encoding (network.focus_encoding)", ("inverse", "metres"))
        self.head_kind, self.focus_encoding = head, focus_encoding
        self.near_m, self.far_m = near_m, far_m
        self.multiple = 2**depth
        widths = [width * 2**level for level in range(depth)]
        inputs = [4, *widths[1:]]
        self.encoder = nn.ModuleList(
            nn.Sequential(conv_relu(i, w), conv_relu(w, w)) for i, w in zip(inputs, widths, strict=True)
        )
        self.bottleneck = conv_relu(2 * widths[-1], 2 * widths[-1])
        self.up = nn.ModuleList(conv_relu(2 * w, w) for w in reversed(widths))
        self.joint = nn.ModuleList(nn.Sequential(conv_relu(2 * w, w), conv_relu(w, w)) for w in reversed(widths))
        self.head = nn.Sequential(conv_relu(width, width), nn.Conv2d(width, 4, 3, padding=1))
        if head == "inverse_depth":
            bias = cast(Tensor, self.head[-1].bias)
            nn.init.constant_(bias[3], -1.5)  # start in the middle of the depth range, not at near

    def forward(
        self,
        images: Float[Tensor, "b s 3 h w"],
        focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
        *,
        near_m: float | Tensor | None = None,
        far_m: float | Tensor | None = None,
        slice_mask: Bool[Tensor, "b s"] | None = None,
    ) -> NetworkOutput:
        """Predict depth (B,H,W) in metres and the all-in-focus image (B,3,H,W).

        Args:
            images: (B,S,3,H,W) RGB in [0, 1], S >= 1, any H and W.
            focus_distances_m: (B,S) or (S,) metres; inf is allowed.
            near_m, far_m: depth range in metres, a number or (B,); the constructor's by default.
            slice_mask: (B,S) true for real slices; all by default.
        """
        batch, slices, _, height, width = images.shape
        near, far = expand_to_batch(near_m, images, self.near_m), expand_to_batch(far_m, images, self.far_m)
        focus = focus_distances_m.to(images).expand(batch, slices)
        if self.focus_encoding == "inverse":
            focus = normalized_inverse_depth(focus, near, far)
        else:
            focus = torch.minimum(focus, far[:, None]) / far[:, None]
        images = pad_to_multiple(images, self.multiple)
        focus_channel = focus[:, :, None, None, None].expand(-1, -1, 1, *images.shape[-2:])
        features = torch.cat([images, focus_channel], dim=2).flatten(0, 1)
        features = features.contiguous(memory_format=torch.channels_last)
        skips = []
        for block in self.encoder:
            features = block(features)
            skips.append(max_over_slices(features.unflatten(0, (batch, slices)), slice_mask))
            pooled = F.max_pool2d(features, 2)
            shared = max_over_slices(pooled.unflatten(0, (batch, slices)), slice_mask)
            features = torch.cat([pooled, shared.repeat_interleave(slices, 0)], dim=1)
        fused = max_over_slices(self.bottleneck(features).unflatten(0, (batch, slices)), slice_mask)
        for up, joint, skip in zip(self.up, self.joint, reversed(skips), strict=True):
            fused = up(F.interpolate(fused, scale_factor=2, mode="bilinear", align_corners=False))
            fused = joint(torch.cat([skip, fused], dim=1))
        output = self.head(fused)[..., :height, :width].float()
        if self.head_kind == "inverse_depth":
            return NetworkOutput(bounded_depth_m(output[:, 3], near, far), torch.sigmoid(output[:, :3]))
        raw = F.relu(output[:, 3])
        depth_m = far[:, None, None] * raw / raw.amax((1, 2), keepdim=True).clamp_min(1e-6)
        return NetworkOutput(depth_m.clamp_min(0.1), F.relu(output[:, :3]))
