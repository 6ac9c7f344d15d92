"""Depth from focus by the sharpest slice: the operators of focus stackers, as baselines."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from kornia.filters import box_blur, laplacian
from torch import Tensor

from sfdfd.networks.classical import FunctionNetwork
from sfdfd.networks.interface import Network, NetworkOutput

__all__ = ["FOCUS_OPERATORS", "laplacian_response", "ring_difference", "sharpest_slice_network"]

WINDOW_PX = 9
"""Side of the window over which a response is averaged."""
DISC_PX, RING_PX = 1.5, (2.5, 3.5)
"""Radius of the inner disc, and radii of the ring around it."""


def laplacian_response(gray: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Return the absolute Laplacian (3x3) of grey images.

    Examples:
        >>> float(laplacian_response(torch.ones(1, 1, 8, 8)).max())
        0.0
    """
    return laplacian(gray, 3, normalized=False).abs()


def ring_difference(gray: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Return |mean over a small disc - mean over a ring around it| of grey images, with a gap between the two.

    This is the idea of the ring difference filter (Jeon et al., IEEE Transactions on Image Processing 2020) with radii of
    our choice.

    Examples:
        >>> bool(ring_difference(torch.ones(1, 1, 16, 16)).max() < 1e-6)
        True
    """
    reach = int(RING_PX[1])
    axis = torch.arange(-reach, reach + 1, device=gray.device, dtype=gray.dtype)
    radius = torch.hypot(axis[:, None], axis[None])
    disc, ring = radius <= DISC_PX, (radius >= RING_PX[0]) & (radius <= RING_PX[1])
    kernel = disc / disc.sum() - ring / ring.sum()
    padded = F.pad(gray, (reach,) * 4, mode="reflect")
    return F.conv2d(padded, kernel[None, None].to(gray)).abs()


FOCUS_OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "laplacian": laplacian_response,
    "ring_difference": ring_difference,
}
"""Focus operators by the name under which ``evaluate`` knows their method."""


def sharpest_slice_network(operator: str) -> Network:
    """Return a network that takes each pixel from the slice where a focus operator responds most.

    Depth is that slice's focus distance, clamped to the depth range.

    Args:
        operator: of ``FOCUS_OPERATORS``; its response is averaged over 9x9 pixels.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> network = sharpest_slice_network("laplacian")
        >>> output = network(stack.images, stack.focus_distances_m, near_m=stack.near_m, far_m=stack.far_m)
        >>> set(output.depth_m.unique().tolist()) <= set(stack.focus_distances_m[0].tolist())
        True
    """
    response = FOCUS_OPERATORS[operator]

    @FunctionNetwork
    def network(images, focus_distances_m, *, near_m, far_m, slice_mask=None) -> NetworkOutput:
        gray = rgb_to_grayscale(images.flatten(0, 1))
        sharpness = box_blur(response(gray), WINDOW_PX, separable=True).unflatten(0, images.shape[:2]).squeeze(2)
        if slice_mask is not None:
            sharpness = sharpness.masked_fill(~slice_mask[..., None, None], -1)
        index = sharpness.argmax(1, keepdim=True)
        focus = torch.minimum(torch.maximum(focus_distances_m, near_m[:, None]), far_m[:, None])
        depth_m = focus[..., None, None].expand_as(sharpness).gather(1, index)[:, 0]
        aif = images.gather(1, index[:, :, None].expand(-1, -1, 3, -1, -1))[:, 0]
        return NetworkOutput(depth_m, aif)

    return network
