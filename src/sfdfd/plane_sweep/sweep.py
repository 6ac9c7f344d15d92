"""Estimate depth by a plane sweep without weights; refinement starts from it.

The log of each plane's residual (:mod:`sfdfd.plane_sweep.cost_volume`), in squares of two pixels, is regularised by
semi-global matching, and its minimum refined by a parabola.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.plane_sweep.cost_volume import RESIDUAL_FLOOR, defocus_of, semi_global_matching, sharpest, unexplained
from sfdfd.stack import FocalStack

__all__ = ["SweepOutput", "depth_from_plane_sweep", "fuse_sharpest_slices"]

TRUST = 4.0
"""Natural logarithms of a likelihood per one of the residual, for the std."""


class SweepOutput(NamedTuple):
    """depth_m (B,H,W) in metres, aif (B,3,H,W) in [0, 1], std (B,H,W): the standard deviation of the inverse_depth_01 of inverse
    depth between far (0) and near (1)."""

    depth_m: Float[Tensor, "b h w"]
    aif: Float[Tensor, "b 3 h w"]
    std: Float[Tensor, "b h w"]


def depth_from_plane_sweep(
    stack: FocalStack,
    renderer: Renderer,
    planes: int = 32,
    window_px: int = 2,
    noise: float = 1e-3,
    jump: float = 0.3,
) -> SweepOutput:
    """Depth (metres), AIF and std of a batch of stacks, without a network.

    Where the blur reaches 12 pixels, it is done at half the size: no detail is lost, and three quarters of the time is won.
    Large images are swept by their luminance alone.

    Args:
        stack: the images, and what of them is covered.
        renderer: the optics; its weighting does not matter. Of a renderer without our options the PSF is taken as Gaussian.
        planes: number of inverse depths between far and near.
        window_px: side of the squares that the squared residual is averaged over; their depth is one.
        noise: n, noise over signal.
        jump: price of a step to the next plane; a larger step costs four times that.

    Returns:
        Depth within near and far; as AIF, at each pixel the slices that its depth says are sharpest; as std the standard
        deviation of the normalized inverse depth if the unexplained were the logarithm of a likelihood.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> depth_m = depth_from_plane_sweep(stack, DefocusRenderer(sigma_scale=0.5)).depth_m
        >>> bool(((depth_m - stack.depth_m).abs() / stack.depth_m).median() < 0.1)
        True
    """
    found = []
    for one in stack.in_full_precision():
        height, width = one.images.shape[-2:]
        small = one.without_truth()
        if float(one.blur_radii_at_range_px().abs().max()) >= 12 and min(height, width) >= 96:
            small = small.resized(-(-height // 2), -(-width // 2))
        maps = _position(small, renderer, planes, window_px, noise, jump)
        inverse_depth_01, std = F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[
            0, :, None
        ]
        depth_m = depth_from_normalized(inverse_depth_01, one.near_m, one.far_m)
        found.append((depth_m, fuse_sharpest_slices(one, depth_m), std))
    return SweepOutput(*(torch.cat(values) for values in zip(*found, strict=True)))


def mean_sweep_residual(stack: FocalStack, renderer: Renderer, planes: int = 32) -> float:
    """What a sweep leaves unexplained at best, the mean of its smallest regularised costs: the less, the righter is the
    camera."""
    costs = [_costs(one, renderer, planes).amin(0).mean() for one in stack.without_truth().in_full_precision()]
    return float(torch.stack(costs).mean())


def fuse_sharpest_slices(stack: FocalStack, depth_m: Float[Tensor, "b h w"]) -> Float[Tensor, "b 3 h w"]:
    """At each pixel the slices that its depth says are sharpest, see :func:`sfdfd.plane_sweep.cost_volume.sharpest`."""
    radius_px = defocus_map_px(depth_m, stack.focus_distances_m, stack.camera)
    saturated = stack.saturated()
    return sharpest(stack.images, radius_px, stack.coverage(), saturated if bool(saturated.any()) else None)


def _position(
    stack: FocalStack, renderer: Renderer, planes: int, window_px: int, noise: float, jump: float
) -> Float[Tensor, "2 h w"]:
    """Position of inverse depth and its std."""
    height, width = stack.images.shape[-2:]
    smoothed = _costs(stack, renderer, planes, window_px, noise, jump)
    steps = torch.linspace(0, 1, planes, device=smoothed.device)
    inverse_depth_01 = minimum(smoothed) / (planes - 1)
    share = torch.softmax(-TRUST * smoothed, 0)
    std = (share * (steps[:, None, None] - inverse_depth_01).square()).sum(0).sqrt()
    maps = F.interpolate(
        torch.stack([inverse_depth_01, std])[None], scale_factor=window_px, mode="bilinear", align_corners=False
    )
    return maps[0, :, :height, :width]


def _costs(
    stack: FocalStack, renderer: Renderer, planes: int, window_px: int = 2, noise: float = 1e-3, jump: float = 0.3
) -> Float[Tensor, "d y x"]:
    """The logs of what the planes leave unexplained of one stack, regularised."""
    there = stack.slice_mask[0]
    one, shown = stack.with_slices(torch.nonzero(there)[:, 0].tolist()), stack.coverage()[0][there]
    costs = unexplained(one.images[0], shown, defocus_of(one, renderer), 0, planes, noise, window_px)
    return semi_global_matching(torch.log(costs + RESIDUAL_FLOOR), jump)


def minimum(costs: Float[Tensor, "d h w"]) -> Float[Tensor, "h w"]:
    """Index of the smallest cost, refined by a parabola through its neighbours."""
    best = costs.argmin(0)
    inner = best.clamp(1, len(costs) - 2)
    before, at, after = (costs.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    offset = ((before - after) / (2 * (before - 2 * at + after)).clamp_min(1e-12)).clamp(-0.5, 0.5)
    return torch.where(best == inner, inner + offset, best.to(costs))
