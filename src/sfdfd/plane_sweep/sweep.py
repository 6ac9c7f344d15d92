"""Estimate depth by a plane sweep, without learned weights; refinement starts from it.

The log of each plane's residual (:mod:`sfdfd.plane_sweep.cost_volume`), in squares of two pixels, is regularised by
semi-global matching, and its minimum is refined by a parabola.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.plane_sweep.cost_volume import (
    RESIDUAL_FLOOR,
    blend_by_sharpness,
    semi_global_matching,
    stack_defocus,
    sweep_residuals,
)
from sfdfd.stack import FocalStack

__all__ = [
    "SweepOutput",
    "depth_from_plane_sweep",
    "fuse_sharpest_slices",
    "parabolic_argmin",
]

LOG_LIKELIHOOD_PER_COST = 4.0
"""Factor from the regularised log residual to a log-likelihood, for the std."""
WIDE_BLUR_PX, HALVED_SIDE_PX = 12, 96
"""Blur radius and image side from which a sweep works at half the size."""


class SweepOutput(NamedTuple):
    """depth_m (B,H,W) in metres, aif (B,3,H,W) in [0, 1], and std (B,H,W) of the normalized inverse depth."""

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
    colour: bool = True,
) -> SweepOutput:
    """Estimate depth, AIF and std of a batch of stacks without a network.

    Where the blur reaches 12 pixels, the sweep works at half the size: this loses no detail and saves three quarters of the
    time. Large images are swept by their luminance alone.

    Args:
        stack: the images and their coverage.
        renderer: the optics, of which the weighting is not used.
        planes: number of inverse depths between far and near.
        window_px: side of the squares over which squared residuals are averaged; each has one depth.
        noise: n, noise over signal.
        jump: price of a step to the next plane; a larger step costs four times that.
        colour: False sweeps the luminance alone, in a third of the time.

    Returns:
        Depth within near and far; as AIF, at each pixel the slices that are sharpest at its depth; as std the standard
        deviation of the normalized inverse depth if costs were log-likelihoods.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> depth_m = depth_from_plane_sweep(stack, DefocusRenderer(sigma_scale=0.5)).depth_m
        >>> bool(((depth_m - stack.depth_m).abs() / stack.depth_m).median() < 0.1)
        True
    """
    outputs = []
    for sample in stack.in_full_precision():
        height, width = sample.images.shape[-2:]
        small = sample.without_truth()
        is_wide = float(sample.blur_radii_at_range_px().abs().max()) >= WIDE_BLUR_PX
        if is_wide and min(height, width) >= HALVED_SIDE_PX:
            small = small.resized(-(-height // 2), -(-width // 2))
        costs = _regularised_costs(small, renderer, planes, window_px, noise, jump, colour)
        maps = _inverse_depth_and_std(costs, window_px, (small.images.shape[-2], small.images.shape[-1]))
        maps = F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)
        inverse_depth_01, std = maps[0, :, None]
        depth_m = depth_from_normalized(inverse_depth_01, sample.near_m, sample.far_m)
        outputs.append((depth_m, fuse_sharpest_slices(sample, depth_m), std))
    return SweepOutput(*(torch.cat(values) for values in zip(*outputs, strict=True)))


def fuse_sharpest_slices(stack: FocalStack, depth_m: Float[Tensor, "b h w"]) -> Float[Tensor, "b 3 h w"]:
    """Blend at each pixel the slices that are sharpest at its depth
    (:func:`~sfdfd.plane_sweep.cost_volume.blend_by_sharpness`)."""
    radius_px = defocus_map_px(depth_m, stack.focus_distances_m, stack.camera)
    saturated = stack.saturated()
    return blend_by_sharpness(stack.images, radius_px, stack.coverage(), saturated if bool(saturated.any()) else None)


def _inverse_depth_and_std(
    costs: Float[Tensor, "d y x"], window_px: int, size: tuple[int, int]
) -> Float[Tensor, "2 h w"]:
    """Return the normalized inverse depth and its std at a size, from regularised costs of squares of pixels."""
    (height, width), planes = size, len(costs)
    steps = torch.linspace(0, 1, planes, device=costs.device)
    inverse_depth_01 = parabolic_argmin(costs) / (planes - 1)
    probability = torch.softmax(-LOG_LIKELIHOOD_PER_COST * costs, 0)
    std = (probability * (steps[:, None, None] - inverse_depth_01).square()).sum(0).sqrt()
    maps = F.interpolate(
        torch.stack([inverse_depth_01, std])[None], scale_factor=window_px, mode="bilinear", align_corners=False
    )
    return maps[0, :, :height, :width]


def _regularised_costs(
    stack: FocalStack, renderer: Renderer, planes: int, window_px: int, noise: float, jump: float, colour: bool
) -> Float[Tensor, "d y x"]:
    """Return the log residuals of the planes for one stack, regularised by semi-global matching."""
    is_real = stack.slice_mask[0]
    covered = stack.coverage()[0][is_real]
    stack = stack.with_slices(torch.nonzero(is_real)[:, 0].tolist())
    residuals = sweep_residuals(
        stack.images[0], covered, stack_defocus(stack, renderer), 0, planes, noise, window_px, colour
    )
    return semi_global_matching(torch.log(residuals + RESIDUAL_FLOOR), jump)


def parabolic_argmin(costs: Float[Tensor, "d h w"]) -> Float[Tensor, "h w"]:
    """Return the fractional index of the smallest cost, refined by a parabola through its neighbours."""
    best = costs.argmin(0)
    inner = best.clamp(1, len(costs) - 2)
    before, at, after = (costs.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    offset = ((before - after) / (2 * (before - 2 * at + after)).clamp_min(1e-12)).clamp(-0.5, 0.5)
    return torch.where(best == inner, inner + offset, best.to(costs))
