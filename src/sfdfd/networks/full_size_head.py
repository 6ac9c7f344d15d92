"""Heads at full size: silhouettes that move onto edges of the image, and a learned blend of the slices.

Both start as the identity, so that weights trained without them keep their predictions.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from kornia.filters import laplacian
from torch import Tensor, nn

from sfdfd.networks.interface import conv_relu
from sfdfd.plane_sweep.cost_volume import box_mean

__all__ = ["EdgeSnap", "SliceBlend"]

STEPS_PX = (1, 3)
"""Distances of the neighbours, eight at each, from which a pixel may take its depth."""
KEEP_LOGIT = 7.0
"""Logit of a pixel's own depth before training: it has 98.6 % of the weight."""
SHARPNESS_WINDOWS_PX, NOISE_ENERGY = (3, 9), 3e-5
"""Windows of the measures of sharpness, and the energy of the Laplacian that noise has in photographs."""
LARGEST_LOGIT = 30.0


class EdgeSnap(nn.Module):
    """Give each pixel a convex combination of its own and its neighbours' inverse depth, by weights that see the image.

    Args:
        guide_channels: of the features at full size.
        width: channels of the hidden layers.
    """

    def __init__(self, guide_channels: int, width: int = 24) -> None:
        super().__init__()
        neighbours = 8 * len(STEPS_PX)
        self.inner = nn.Sequential(conv_relu(guide_channels + 4 + neighbours, width), conv_relu(width, width))
        self.last = nn.Conv2d(width, neighbours + 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            bias = cast(Tensor, self.last.bias)
            bias.zero_()
            bias[0] = KEEP_LOGIT

    def forward(
        self, moments: Float[Tensor, "b 2 h w"], image: Float[Tensor, "b 3 h w"], guide: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b 2 h w"]:
        """Return the moved moments (mean and mean square of inverse depth) of each pixel."""
        around = _neighbours(moments)
        differences = (around[:, :, 0] - moments[:, None, 0]) * 4
        features = torch.cat([guide, image - 0.5, moments[:, :1] - 0.5, differences[:, 1:]], 1)
        weights = torch.softmax(self.last(self.inner(features)).float(), 1)
        return (weights[:, :, None] * around).sum(1)


def _neighbours(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c h w"]:
    """Return each pixel and its neighbours at ``STEPS_PX``, the border repeated."""
    height, width = maps.shape[-2:]
    reach = max(STEPS_PX)
    padded = F.pad(maps, (reach,) * 4, mode="replicate")
    shifts = [(0, 0)] + [(y * n, x * n) for n in STEPS_PX for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y]
    return torch.stack(
        [padded[..., reach + y : reach + y + height, reach + x : reach + x + width] for y, x in shifts], 1
    )


class SliceBlend(nn.Module):
    """Correct the logits with which slices are blended into the AIF: by what is sharp there, not by depth alone.

    The same layers see every slice, and the largest features of all slices, so the order of slices does not matter.

    Args:
        width: channels of the hidden layers.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.entry = conv_relu(3 + len(SHARPNESS_WINDOWS_PX), width)
        self.inner = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(
        self,
        images: Float[Tensor, "b s 3 h w"],
        log_weight: Float[Tensor, "b s h w"],
        covered: Float[Tensor, "b s h w"],
    ) -> Float[Tensor, "b s h w"]:
        """Return logits of the slices.

        Args:
            images: the slices.
            log_weight: logits by depth alone.
            covered: weight of each pixel, 0 where a slice shows nothing.
        """
        batch, slices = images.shape[:2]
        known = log_weight.clamp_min(-LARGEST_LOGIT)
        known = known - known.amax(1, keepdim=True)
        grey = rgb_to_grayscale(images.flatten(0, 1))
        energy = laplacian(grey, 3, normalized=False).square()
        features = [known / 5, *(_sharpness(energy, side, covered) for side in SHARPNESS_WINDOWS_PX)]
        first = (torch.softmax(known, 1)[:, :, None] * images).sum(1, keepdim=True)
        light = rgb_to_grayscale(images)[:, :, 0] - rgb_to_grayscale(first)[:, :, 0]
        features += [light * 5, covered.expand_as(known)]
        entry = self.entry(torch.stack(features, 2).flatten(0, 1)).unflatten(0, (batch, slices))
        largest = entry.masked_fill(covered[:, :, None] == 0, 0).amax(1, keepdim=True).expand_as(entry)
        inner = self.inner(torch.cat([entry, largest], 2).flatten(0, 1))
        return log_weight + 4 * self.last(inner)[:, 0].float().unflatten(0, (batch, slices))


def _sharpness(energy: Tensor, side: int, covered: Float[Tensor, "b s h w"]) -> Float[Tensor, "b s h w"]:
    """Return half the log of the mean energy of the Laplacian in a window, relative to the sharpest slice."""
    sharpness = 0.5 * torch.log(box_mean(energy, side)[:, 0] + NOISE_ENERGY).unflatten(0, covered.shape[:2])
    sharpness = sharpness.masked_fill(covered == 0, -6.0)
    return sharpness - sharpness.amax(1, keepdim=True)
