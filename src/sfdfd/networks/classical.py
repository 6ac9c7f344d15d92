"""Baselines with the interface of a network: classical depth from focus, and a constant depth."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from kornia.color import rgb_to_grayscale
from kornia.filters import box_blur, laplacian
from torch import Tensor

from sfdfd.networks.interface import Network, NetworkOutput

__all__ = ["FunctionNetwork", "classical_network", "constant_network", "depth_from_focus", "focus_measure"]


def focus_measure(images: Float[Tensor, "b s 3 h w"], window_px: int = 15) -> Float[Tensor, "b s h w"]:
    """Return the local sharpness of every slice: the absolute Laplacian of its grey image, averaged over a window.

    Args:
        images: (B,S,3,H,W) slices, RGB in [0, 1].
        window_px: side of the window, odd.

    Returns:
        (B,S,H,W) sharpness >= 0, in units of grey levels (1.0 = white - black).
    """
    gray = rgb_to_grayscale(images.flatten(0, 1))
    sharpness = box_blur(laplacian(gray, 3, normalized=False).abs(), window_px, separable=True)
    return sharpness.unflatten(0, images.shape[:2]).squeeze(2)


def depth_from_focus(
    images: Float[Tensor, "b s 3 h w"],
    focus_distances_m: Float[Tensor, "b s"],
    near_m: Float[Tensor, "b"],
    far_m: Float[Tensor, "b"],
    slice_mask: Bool[Tensor, "b s"] | None = None,
    *,
    window_px: int = 15,
    power: float = 4.0,
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b 3 h w"]]:
    """Estimate depth and all-in-focus image as sharpness-weighted means over the slices.

    The weights are ``(sharpness / largest sharpness over the slices)^power``. Depth is the weighted mean of the inverse
    focus distances, the AIF that of the slices.

    Args:
        images: (B,S,3,H,W) slices, RGB in [0, 1].
        focus_distances_m: (B,S) focus distances in metres; inf is allowed.
        near_m, far_m: (B,) depth range in metres; the result is clamped to it.
        slice_mask: (B,S) true for real slices; all by default.
        window_px: side of the window of :func:`focus_measure`.
        power: exponent of the relative sharpness.

    Returns:
        depth_m (B,H,W) in metres and aif (B,3,H,W).
    """
    sharpness = focus_measure(images, window_px)
    if slice_mask is not None:
        sharpness = sharpness * slice_mask[..., None, None]
    weight = (sharpness / sharpness.amax(1, keepdim=True).clamp_min(1e-12)) ** power
    if slice_mask is not None:
        weight = weight * slice_mask[..., None, None]
    flat = weight.sum(1, keepdim=True) < 1e-6  # without texture, every slice weighs the same
    even = torch.ones_like(weight) if slice_mask is None else slice_mask[..., None, None].expand_as(weight).to(weight)
    weight = F.normalize(torch.where(flat, even, weight), p=1.0, dim=1)
    inverse = torch.einsum("bshw,bs->bhw", weight, 1.0 / focus_distances_m)
    inverse = torch.minimum(torch.maximum(inverse, (1.0 / far_m)[:, None, None]), (1.0 / near_m)[:, None, None])
    return 1.0 / inverse, torch.einsum("bshw,bschw->bchw", weight, images)


class FunctionNetwork:
    """A function as a :class:`sfdfd.networks.interface.Network` that needs no knowledge of the blur."""

    requires_defocus = False

    def __init__(self, function: Callable[..., NetworkOutput]) -> None:
        self.function = function
        update_wrapper(self, function)

    def __call__(self, *args, **kwargs) -> NetworkOutput:
        return self.function(*args, **kwargs)


@FunctionNetwork
def classical_network(images, focus_distances_m, *, near_m, far_m, slice_mask=None) -> NetworkOutput:
    """Estimate depth by classical depth from focus.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> output = classical_network(stack.images, stack.focus_distances_m, near_m=stack.near_m, far_m=stack.far_m)
        >>> output.depth_m.shape
        torch.Size([1, 48, 64])
    """
    return NetworkOutput(*depth_from_focus(images, focus_distances_m, near_m, far_m, slice_mask))


def constant_network(depth_m: float) -> Network:
    """Return a network that predicts the same depth everywhere, and the mean of the slices as AIF.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> output = constant_network(2.5)(stack.images, stack.focus_distances_m, near_m=stack.near_m, far_m=stack.far_m)
        >>> output.depth_m.unique()
        tensor([2.5000])
    """

    @FunctionNetwork
    def network(images, focus_distances_m, *, near_m, far_m, slice_mask=None) -> NetworkOutput:
        depth = images.new_full((images.shape[0], *images.shape[-2:]), depth_m)
        mask = images.new_ones(images.shape[:2]) if slice_mask is None else slice_mask.to(images)
        share = mask / mask.sum(1, keepdim=True)
        return NetworkOutput(depth, torch.einsum("bs,bschw->bchw", share, images))

    return network
