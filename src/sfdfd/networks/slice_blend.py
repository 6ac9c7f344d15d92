"""A learned blend of the slices: the AIF from sharpness and depth together.

It starts as the blend by depth alone, so that weights trained without it keep their predictions.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from kornia.filters import laplacian
from torch import Tensor, nn

from sfdfd.networks.interface import conv_relu
from sfdfd.plane_sweep.cost_volume import box_mean

__all__ = ["SliceBlend"]

SHARPNESS_WINDOWS_PX, NOISE_ENERGY = (3, 9), 3e-5
"""Windows of the measures of sharpness, and the energy of the Laplacian that noise has in photographs."""
LARGEST_LOGIT = 30.0


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
