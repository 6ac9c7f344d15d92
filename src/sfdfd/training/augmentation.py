"""Random crops, flips and light that keep the physics of a stack true."""

from __future__ import annotations

from dataclasses import replace

import kornia.augmentation as augment
import torch
from torch import Tensor, nn

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
        self.crop, self.gain, self.permute_colours = crop, gain, permute_colours
        self.flips = nn.ModuleList([augment.RandomHorizontalFlip(), augment.RandomVerticalFlip()] if flip else [])

    @torch.no_grad()
    def forward(self, stack: FocalStack) -> FocalStack:
        """A new batch of the same scenes; truth, where there is any, moves along. The batch is not padded."""
        batch, slices = stack.images.shape[:2]
        planes = [stack.images.flatten(1, 2)]
        for value in (stack.depth_m, stack.aif, stack.valid, stack.covered):
            if value is not None:
                planes.append(value.to(planes[0]) if value.ndim == 4 else value.to(planes[0])[:, None])
        moved = torch.cat(planes, dim=1)
        height, width = moved.shape[-2:]
        if self.crop and (height > self.crop or width > self.crop):
            rows, columns = min(self.crop, height), min(self.crop, width)
            moved = augment.RandomCrop((rows, columns))(moved)
        for flip in self.flips:
            moved = flip(moved)
        images, *truth = moved.split([plane.shape[1] for plane in planes], dim=1)
        images = images.unflatten(1, (slices, 3))
        gain = 1 + self.gain * (2 * torch.rand(batch, 1, 3, 1, 1, device=images.device) - 1)
        brightest = (images * gain).amax((1, 2, 3, 4), keepdim=True).clamp_min(1.0)
        gain = gain / brightest
        order = torch.rand(batch, 3, device=images.device).argsort(1) if self.permute_colours else None

        def relit(values: Tensor, factor: Tensor) -> Tensor:
            values = values * factor
            if order is None:
                return values
            index = order.reshape(batch, *(1,) * (values.ndim - 4), 3, 1, 1).expand_as(values)
            return values.gather(-3, index)

        changes: dict[str, Tensor] = {"images": relit(images, gain)}
        if stack.depth_m is not None:
            changes["depth_m"] = truth.pop(0)[:, 0]
        if stack.aif is not None:
            changes["aif"] = relit(truth.pop(0), gain[:, 0])
        if stack.valid is not None:
            changes["valid"] = truth.pop(0)[:, 0] > 0.5
        if stack.covered is not None:
            changes["covered"] = truth.pop(0)
        return replace(stack, **changes)
