"""Regions of an image for which metrics are reported: near depth edges, between them, without texture, at the border."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.optics.camera import Camera

__all__ = ["REGIONS", "border", "near_depth_edges", "occluded", "plain", "regions"]

REGIONS = ("edges", "interior", "plain", "border")
EDGE_STEP = 0.03
"""A step of inverse depth between neighbours above this share of the nearer one's is an edge."""
REACH_PX = 8
BORDER_PX = 16
PLAIN_STD = 0.02
"""Standard deviation of the AIF's grey value in a window, five levels of 255, below which it is plain."""
PLAIN_WINDOW_PX = 9


def near_depth_edges(depth_m: Float[Tensor, "b h w"], reach_px: int = REACH_PX) -> Bool[Tensor, "b h w"]:
    """Return the pixels within ``reach_px`` (rows, columns) of a depth edge: |1/z - 1/z'| > .03 / min(z, z').

    Args:
        depth_m: (B,H,W) in metres, > 0; 0 or NaN where it is unknown, which is no edge.
        reach_px: distance in pixels.
    """
    edge = torch.zeros_like(depth_m, dtype=torch.bool)
    for axis in (1, 2):
        count = depth_m.shape[axis] - 1
        first, second = depth_m.narrow(axis, 0, count), depth_m.narrow(axis, 1, count)
        is_step = (1 / first - 1 / second).abs() > EDGE_STEP / torch.minimum(first, second)
        step = is_step & (first > 0) & (second > 0)
        edge.narrow(axis, 0, count).logical_or_(step)
        edge.narrow(axis, 1, count).logical_or_(step)
    return F.max_pool2d(edge[:, None].float(), 2 * reach_px + 1, 1, reach_px)[:, 0] > 0


def occluded(depth_m: Float[Tensor, "b h w"], camera: Camera) -> Bool[Tensor, "b h w"]:
    """Return the pixels whose surface point is hidden from a part of the aperture by a nearer surface.

    A thin lens of aperture radius a sees the point of pixel p at depth z past a point at depth z' < z of pixel q, unless
    |p - q| < a f (1/z' - 1/z) / pitch, in pixels. The test uses what the pinhole sees: a surface that shows nowhere in the
    all-in-focus image hides nothing.

    Args:
        depth_m: (B,H,W) true depth in metres, > 0.
        camera: of these pixels.
    """
    factor = camera.blur_scale_px_m
    reach = factor / depth_m  # pixels of blur per unit of inverse depth, at the focus distance infinity
    largest = int((reach.amax() - reach.amin()).ceil())
    height, width = depth_m.shape[-2:]
    padded = F.pad(reach, (largest,) * 4, value=-torch.inf)
    hidden = torch.zeros_like(depth_m, dtype=torch.bool)
    for down in range(-largest, largest + 1):
        for right in range(-largest, largest + 1):
            distance = (down**2 + right**2) ** 0.5
            if 0 < distance <= largest:
                other = padded[:, largest + down :, largest + right :][:, :height, :width]
                hidden |= other - reach > distance
    return hidden


def plain(aif: Float[Tensor, "b 3 h w"]) -> Bool[Tensor, "b h w"]:
    """Return the pixels around which the AIF has almost no texture.

    There the standard deviation of its grey value (the channels' mean) in a window of 9x9 pixels, smaller at the border, is
    below .02.
    """
    grey = aif.cpu().float().mean(1, keepdim=True).double()  # float64 for the variance; not every device has it

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, PLAIN_WINDOW_PX, 1, PLAIN_WINDOW_PX // 2, count_include_pad=False)

    return (mean(grey.square()) - mean(grey).square() < PLAIN_STD**2)[:, 0].to(aif.device)


def border(height: int, width: int, px: int = BORDER_PX) -> Bool[Tensor, "h w"]:
    """Return the pixels within ``px`` of the image's border."""
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[px : max(height - px, px), px : max(width - px, px)] = False
    return mask


def regions(depth_m: Float[Tensor, "b h w"], aif: Float[Tensor, "b 3 h w"] | None) -> dict[str, Bool[Tensor, "b h w"]]:
    """Return every region of :data:`REGIONS` by name from the truth; "plain" only if the true AIF is known.

    "edges" and "interior" complement each other; the others overlap with them.
    """
    edges = near_depth_edges(depth_m)
    masks = {"edges": edges, "interior": ~edges}
    if aif is not None:
        masks["plain"] = plain(aif)
    return {**masks, "border": border(*depth_m.shape[-2:]).to(edges.device).expand_as(edges)}
