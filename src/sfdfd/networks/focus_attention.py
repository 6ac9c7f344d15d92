"""A network that starts from the slices' relative sharpness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sfdfd.networks.classical import focus_measure
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

__all__ = ["FocusAttentionNet"]

WINDOWS_PX = (5, 15, 31)


@part
class FocusAttentionNet(NetworkModule):
    """Attention over slices that starts from their relative sharpness, then a bounded correction of inverse depth.

    Classical depth from focus is an attention over slices with the logits ``power * log(relative sharpness)``, which without
    training is as good as the published network. A small U-Net with DAIF-Net's pooling over slices sees the slices and their
    relative sharpness at three scales. It adds learned logits per slice for depth and for the AIF, a correction of inverse
    depth (between and beyond the focus distances), and a residual of the AIF. AiFDepthNet (Wang et al., ICCV 2021)
    takes both outputs from attention over slices; the sharpness prior and the correction are ours.

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
            nn.Sequential(conv_relu(i, w), conv_relu(w, w)) for i, w in zip(inputs, widths, strict=True)
        )
        below = [*widths[1:], widths[-1]]
        self.decoder = nn.ModuleList(
            nn.Sequential(conv_relu(w + b, w), conv_relu(w, w))
            for w, b in zip(reversed(widths), reversed(below), strict=True)
        )
        self.slice_head = nn.Sequential(conv_relu(2 * width, width), nn.Conv2d(width, 4 * 2, 3, padding=1))
        self.fused_head = nn.Sequential(conv_relu(width, width), nn.Conv2d(width, 4 * 4, 3, padding=1))
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
        near, far = expand_to_batch(near_m, images, self.near_m), expand_to_batch(far_m, images, self.far_m)
        focus = focus_distances_m.to(images).expand(batch, slices)
        focus_01 = normalized_inverse_depth(focus, near, far).clamp(0.0, 1.0)
        images = pad_to_multiple(images, self.multiple)
        is_padding = None if slice_mask is None else ~slice_mask[:, :, None, None]

        relative, peak = _relative_sharpness(images, is_padding)
        focus_channel = focus_01[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        cues = torch.stack([focus_channel, 0.2 * peak.expand_as(focus_channel) + 0.5, *relative], dim=2)
        features = F.pixel_unshuffle(torch.cat([images, cues], dim=2).flatten(0, 1), 2)
        slice_features, fused = self._unet(features.contiguous(memory_format=torch.channels_last), slices, slice_mask)

        per_slice = torch.cat([slice_features, fused.repeat_interleave(slices, 0)], dim=1)
        logits = F.pixel_shuffle(self.slice_head(per_slice), 2).unflatten(0, (batch, slices)).float()
        logits = logits + self.power[:, None, None] * torch.stack([relative[1], relative[0]], dim=2)
        if is_padding is not None:
            logits = logits.masked_fill(is_padding[:, :, None], -torch.inf)
        depth_weight, aif_weight = torch.softmax(logits[..., :height, :width], dim=1).unbind(2)
        correction = F.pixel_shuffle(self.fused_head(fused), 2)[..., :height, :width].float()

        attended = torch.einsum("bshw,bs->bhw", depth_weight, focus_01.float()).clamp(0.01, 0.99)
        depth_m = bounded_depth_m(torch.logit(attended) + correction[:, 3], near, far)
        aif = torch.einsum("bshw,bschw->bchw", aif_weight, images[..., :height, :width].float())
        return NetworkOutput(depth_m, (aif + 0.1 * correction[:, :3]).clamp(0.0, 1.0))

    def _unet(
        self, features: Tensor, slices: int | torch.SymInt, slice_mask: Bool[Tensor, "b s"] | None
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "b c h w"]]:
        """Return the first block's features of each slice (B*S,...) and the decoder's features of the stack."""
        per_level: list[Tensor] = []
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            if level:
                shared = F.max_pool2d(skips[-1], 2).repeat_interleave(slices, 0)
                features = torch.cat([F.max_pool2d(features, 2), shared], dim=1)
            features = block(features)
            per_level.append(features)
            skips.append(max_over_slices(features.unflatten(0, (-1, slices)), slice_mask))
        fused = skips[-1]
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            if fused.shape[-2:] != skip.shape[-2:]:
                fused = F.interpolate(fused, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            fused = block(torch.cat([skip, fused], dim=1))
        return per_level[0], fused


def _relative_sharpness(images: Tensor, is_padding: Tensor | None) -> tuple[list[Tensor], Float[Tensor, "b 1 h w"]]:
    """Return log sharpness relative to the sharpest slice, for each window, and the largest for the middle window."""
    relative, peaks = [], []
    for window in WINDOWS_PX:
        sharpness = torch.log(focus_measure(images, window) + 1e-3)  # 1e-3: about the noise of an 8-bit image
        if is_padding is not None:
            sharpness = sharpness.masked_fill(is_padding, -torch.inf)
        peak = sharpness.amax(1, keepdim=True)
        difference = sharpness - peak
        relative.append(difference if is_padding is None else difference.masked_fill(is_padding, -5.0))
        peaks.append(peak)
    return relative, peaks[1]
