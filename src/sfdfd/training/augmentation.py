"""Augmentation that keeps stacks physically consistent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sfdfd.datasets.sampling import uniforms_for
from sfdfd.stack import FocalStack

__all__ = ["StackAugmentation"]


class StackAugmentation(nn.Module):
    """Random crops, flips and colour changes that keep stacks physically consistent.

    Crops and flips move all slices together. Colour changes (gain per channel, permuted channels) are the same for every
    slice and linear, because rendering is linear in the AIF; a gamma would not be. Images stay within [0, 1].

    Args:
        crop: side of the square crop in pixels, None for none; smaller images are not cropped.
        flip: flip at random in x and in y.
        gain: largest relative change of each colour's gain, in [0, 1).
        permute_colours: put the colour channels in random order.
    """

    def __init__(
        self, crop: int | None = 64, flip: bool = True, gain: float = 0.2, permute_colours: bool = True
    ) -> None:
        super().__init__()
        self.crop, self.flip, self.gain, self.permute_colours = crop, flip, gain, permute_colours

    @torch.no_grad()
    def forward(self, stack: FocalStack) -> FocalStack:
        """Augment an unpadded batch, with its ground truth if there is any.

        Random numbers come from ``stack.random_key``, or from torch's generator if it is None.
        """
        uniforms = uniforms_for(stack.random_key, len(stack), "augmentation", 10)
        moved = FocalStack.collate(
            [self._cropped_flipped(sample, row) for sample, row in zip(stack, uniforms.tolist(), strict=True)]
        )
        uniforms = uniforms.to(stack.images)
        gain = (1 + self.gain * (2 * uniforms[:, 4:7] - 1))[:, None, :, None, None]
        brightest = (moved.images * gain).amax((1, 2, 3, 4), keepdim=True).clamp_min(1.0)
        gain = gain / brightest
        order = uniforms[:, 7:].argsort(1) if self.permute_colours else None

        def recoloured(values: Tensor, factor: Tensor) -> Tensor:
            values = values * factor
            if order is None:
                return values
            index = order.reshape(len(stack), *(1,) * (values.ndim - 4), 3, 1, 1).expand_as(values)
            return values.gather(-3, index)

        changes: dict[str, Any] = {"images": recoloured(moved.images, gain)}
        if moved.aif is not None:
            changes["aif"] = recoloured(moved.aif, gain[:, 0])
        return replace(moved, **changes)

    def _cropped_flipped(self, stack: FocalStack, uniforms: Sequence[float]) -> FocalStack:
        """Crop and flip one sample; the random numbers are the crop's row and column, then the two flips."""
        sides = stack.images.shape[-2:]
        kept = [min(self.crop or side, side) for side in sides]
        top, left = (int(u * (side - keep + 1)) for u, side, keep in zip(uniforms, sides, kept, strict=False))
        stack = stack.cropped(top, top + kept[0], left, left + kept[1])
        axes = [axis for axis, u in zip((-2, -1), uniforms[2:4], strict=True) if self.flip and u < 0.5]
        return stack.flipped(axes) if axes else stack
