"""Random crops, flips and light that keep the physics of a stack true."""

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
    """Random crops, flips and light that keep the physics of a stack true.

    Crops and flips move all slices together. Light changes are linear (gain per colour, mixed channels), the same for
    every slice, because rendering is linear in the AIF; a gamma would not be. They stay within [0, 1].

    Args:
        crop: side of the square crop in pixels, None for none; smaller images stay whole.
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
        """A new batch of the same scenes; truth, where there is any, moves along. The batch is not padded.

        What is random about a sample comes from ``stack.random_key``, from torch's own generator where there is none.
        """
        chances = uniforms_for(stack.random_key, len(stack), "augmentation", 10)
        moved = FocalStack.collate(
            [self._moved(one, chance) for one, chance in zip(stack, chances.tolist(), strict=True)]
        )
        chances = chances.to(stack.images)
        gain = (1 + self.gain * (2 * chances[:, 4:7] - 1))[:, None, :, None, None]
        brightest = (moved.images * gain).amax((1, 2, 3, 4), keepdim=True).clamp_min(1.0)
        gain = gain / brightest
        order = chances[:, 7:].argsort(1) if self.permute_colours else None

        def relit(values: Tensor, factor: Tensor) -> Tensor:
            values = values * factor
            if order is None:
                return values
            index = order.reshape(len(stack), *(1,) * (values.ndim - 4), 3, 1, 1).expand_as(values)
            return values.gather(-3, index)

        changes: dict[str, Any] = {"images": relit(moved.images, gain)}
        if moved.aif is not None:
            changes["aif"] = relit(moved.aif, gain[:, 0])
        return replace(moved, **changes)

    def _moved(self, stack: FocalStack, chances: Sequence[float]) -> FocalStack:
        """One sample cropped and flipped: the first two chances are the crop's row and column, the next two the flips'."""
        sides = stack.images.shape[-2:]
        kept = [min(self.crop or side, side) for side in sides]
        top, left = (int(chance * (side - keep + 1)) for chance, side, keep in zip(chances, sides, kept, strict=False))
        stack = stack.cropped(top, top + kept[0], left, left + kept[1])
        axes = [axis for axis, chance in zip((-2, -1), chances[2:4], strict=True) if self.flip and chance < 0.5]
        return stack.flipped(axes) if axes else stack
