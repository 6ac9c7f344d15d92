"""Images as sums of images of several sizes, so that gradient descent moves plain regions as a whole."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.refinement.variables import resize_to

__all__ = ["ImagePyramid", "SlopePyramids"]


class ImagePyramid:
    """A map (B,H,W) as the sum of images, each half the size of the one before; only the first is not zero at first.

    Args:
        values: (B,H,W).
        levels: number of images.
    """

    def __init__(self, values: Float[Tensor, "b h w"], levels: int) -> None:
        height, width = values.shape[-2:]
        sizes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(1, levels)]
        coarser = [values.new_zeros(values.shape[0], 1, *size).requires_grad_() for size in sizes]
        self.images = [values[:, None].clone().requires_grad_(), *coarser]

    def values(self) -> Float[Tensor, "b h w"]:
        total = self.images[0]
        for image in self.images[1:]:
            total = total + resize_to(image, total)
        return total[:, 0]

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the sum to [0, 1] by changing the finest image."""
        values = self.values()
        self.images[0] += (values.clamp(0, 1) - values)[:, None]


class SlopePyramids:
    """Slopes (B,2,H,W) of a map as two pyramids.

    Args:
        coarse: slopes at another size; None for zero.
        like: (B,H,W) the map at this size.
        levels: number of images of each pyramid.
    """

    def __init__(self, coarse: Float[Tensor, "b 2 y x"] | None, like: Float[Tensor, "b h w"], levels: int) -> None:
        if coarse is None:
            slopes = like.new_zeros(like.shape[0], 2, *like.shape[1:])
        else:
            slopes = resize_to(coarse.detach(), like[:, None]) * (coarse.shape[-1] / like.shape[-1])
        self.pyramids = [ImagePyramid(slopes[:, direction], levels) for direction in (0, 1)]
        self.images = [image for pyramid in self.pyramids for image in pyramid.images]

    def values(self) -> Float[Tensor, "b 2 h w"]:
        return torch.stack([pyramid.values() for pyramid in self.pyramids], 1)
