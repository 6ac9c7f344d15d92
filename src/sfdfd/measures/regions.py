"""Where in an image a depth is judged: near depth jumps, between them, where nothing has texture, along the border."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["REGIONS", "border", "near_depth_edges", "plain", "regions"]

REGIONS = ("edges", "interior", "plain", "border")
JUMP = 0.03
"""A step of inverse depth between neighbours above this share of the nearer one's is a jump."""
REACH_PX = 8
BORDER_PX = 16
PLAIN_STD = 0.02
"""Of the AIF's grey value in a window: five levels of 255."""
PLAIN_WINDOW_PX = 9


def near_depth_edges(depth_m: Float[Tensor, "b h w"], reach_px: int = REACH_PX) -> Bool[Tensor, "b h w"]:
    """Pixels within ``reach_px`` (rows, columns) of a depth jump: |1/z - 1/z'| > .03 / min(z, z') between neighbours.

    Args:
        depth_m: (B,H,W) in metres, > 0; 0 or NaN where it is unknown, which is no jump.
        reach_px: how far.
    """
    jump = torch.zeros_like(depth_m, dtype=torch.bool)
    for axis in (1, 2):
        count = depth_m.shape[axis] - 1
        one, two = depth_m.narrow(axis, 0, count), depth_m.narrow(axis, 1, count)
        step = ((1 / one - 1 / two).abs() > JUMP / torch.minimum(one, two)) & (one > 0) & (two > 0)
        jump.narrow(axis, 0, count).logical_or_(step)
        jump.narrow(axis, 1, count).logical_or_(step)
    return F.max_pool2d(jump[:, None].float(), 2 * reach_px + 1, 1, reach_px)[:, 0] > 0


def plain(aif: Float[Tensor, "b 3 h w"]) -> Bool[Tensor, "b h w"]:
    """Pixels around which the AIF has next to no texture: the standard deviation of its grey value (the channels' mean) in
    a window of 9x9 pixels, less at the border, is below .02."""
    grey = aif.cpu().float().mean(1, keepdim=True).double()  # a variance; not every device has float64

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, PLAIN_WINDOW_PX, 1, PLAIN_WINDOW_PX // 2, count_include_pad=False)

    return (mean(grey.square()) - mean(grey).square() < PLAIN_STD**2)[:, 0].to(aif.device)


def border(height: int, width: int, px: int = BORDER_PX) -> Bool[Tensor, "h w"]:
    """Pixels within ``px`` of the image's border."""
    found = torch.ones(height, width, dtype=torch.bool)
    found[px : max(height - px, px), px : max(width - px, px)] = False
    return found


def regions(depth_m: Float[Tensor, "b h w"], aif: Float[Tensor, "b 3 h w"] | None) -> dict[str, Bool[Tensor, "b h w"]]:
    """Every region of :data:`REGIONS` by name, from the truth; "plain" only where the true AIF is known.

    They overlap, but for "edges" and "interior", which are all between them.
    """
    jumps = near_depth_edges(depth_m)
    found = {"edges": jumps, "interior": ~jumps}
    if aif is not None:
        found["plain"] = plain(aif)
    return {**found, "border": border(*depth_m.shape[-2:]).to(jumps.device).expand_as(jumps)}
