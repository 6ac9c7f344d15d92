"""Flatness of depth on a surface that is known to be a plane."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["plane_deviation"]


def plane_deviation(
    depth_m: Float[Tensor, "h w"], near_m: float, far_m: float, rectangle: tuple[float, float, float, float]
) -> float:
    """Return the RMS deviation of inverse depth from a plane, as a share of the range 1/near - 1/far.

    On a plane in space, inverse depth is an affine function of the pixel. Scale and shift of inverse depth keep it one,
    so that the figure also serves depth without metres. A constant depth is a plane: read it beside the left-out score.

    Args:
        depth_m: depth in metres, > 0.
        near_m, far_m: the stack's depth range.
        rectangle: top, bottom, left and right of the plane, as shares of height and width.

    Examples:
        >>> x = torch.linspace(1, 2, 32).expand(24, 32)
        >>> plane_deviation(1 / x, 0.5, 1.0, (0, 1, 0, 1)) < 1e-5
        True
    """
    height, width = depth_m.shape
    top, bottom, left, right = rectangle
    rows, columns = slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))
    inverse = 1 / depth_m[rows, columns].double()
    y, x = torch.meshgrid(
        *(torch.linspace(-1, 1, count, dtype=torch.float64) for count in inverse.shape), indexing="ij"
    )
    design = torch.stack([x.flatten(), y.flatten(), torch.ones(x.numel(), dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(design, inverse.flatten()[:, None]).solution
    residual = inverse.flatten() - (design @ solution)[:, 0]
    return float(residual.square().mean().sqrt() / (1 / near_m - 1 / far_m))
