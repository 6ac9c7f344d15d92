"""Layers for volumes of planes (B,D,H,W,C): channels last, so that convolutions along either direction move no data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CrossPlaneConv", "InPlaneConv", "Residual", "broadcast_over_planes", "pool_volume", "upsample_volume"]


class InPlaneConv(nn.Conv2d):
    """A 3 x 3 convolution within each plane of a volume."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, volume: Float[Tensor, "b d h w c"]) -> Float[Tensor, "b d h w k"]:
        planes = super().forward(volume.flatten(0, 1).permute(0, 3, 1, 2))
        return planes.permute(0, 2, 3, 1).unflatten(0, volume.shape[:2])


class CrossPlaneConv(nn.Conv2d):
    """A convolution over three neighbouring planes."""

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


def broadcast_over_planes(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w c"]:
    """Reshape image features to add them to every plane of a volume."""
    return features.permute(0, 2, 3, 1)[:, None]


def pool_volume(volume: Float[Tensor, "b d h w c"], planes: bool) -> Tensor:
    """Halve the image size by averaging, and with ``planes`` the number of planes."""
    smaller = F.avg_pool2d(volume.flatten(0, 1).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    volume = smaller.unflatten(0, volume.shape[:2])
    return volume.unflatten(1, (-1, 2)).mean(2) if planes else volume


def upsample_volume(volume: Float[Tensor, "b d h w c"], planes: bool) -> Tensor:
    """Double the image size by linear interpolation, and with ``planes`` the number of planes."""
    for axis in (1, 2, 3) if planes else (2, 3):
        number = volume.shape[axis]
        before = torch.cat([volume.narrow(axis, 0, 1), volume.narrow(axis, 0, number - 1)], axis)
        after = torch.cat([volume.narrow(axis, 1, number - 1), volume.narrow(axis, number - 1, 1)], axis)
        both = torch.stack([torch.lerp(volume, before, 0.25), torch.lerp(volume, after, 0.25)], axis + 1)
        volume = both.flatten(axis, axis + 1)
    return volume
