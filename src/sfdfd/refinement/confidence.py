"""How sure a depth map is, pixel by pixel, from the stack alone.

Two things make depth wrong. Where nothing has texture, depth hardly changes the stack: the Cramer-Rao bound of inverse depth
in a small window, sigma_u^2 = (residual variance + rounding) / sum (dR/du)^2, with R the rendered stack. And beside depth
edges, where surfaces mix: there the standard deviation of inverse depth in a small window is the error that a shift of the
edge would make. The two add as variances; the weight of the second was chosen on NYUv2 frames
(docs/explanation/refinement.md).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from kornia.filters import box_blur
from torch import Tensor

from sfdfd.optics.render import Renderer
from sfdfd.refinement.energy import differentiable_renderer
from sfdfd.stack import FocalStack

__all__ = ["confidence_of", "depth_std_m"]

WINDOW_PX = 5
EDGE_SHARE = 0.35
ROUNDING_STD = 1 / 255 / 12**0.5


def depth_std_m(
    stack: FocalStack,
    renderer: Renderer,
    depth_m: Float[Tensor, "b h w"],
    aif: Float[Tensor, "b 3 h w"],
    rendered: Float[Tensor, "b s 3 h w"] | None = None,
) -> Float[Tensor, "b h w"]:
    """Standard deviation of depth in metres.

    Args:
        stack: the images, and what of them is covered; truth is not looked at.
        renderer: the model's optics.
        depth_m, aif: the answer, (B,H,W) metres and (B,3,H,W).
        rendered: its stack, if it is at hand.

    Returns:
        (B,H,W) in metres, positive.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> depth_std_m(stack, DefocusRenderer(sigma_scale=0.5), stack.depth_m, stack.aif).shape
        torch.Size([1, 48, 64])
    """
    stack = stack.in_full_precision()
    inverse = 1 / depth_m
    span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
    step = 0.001 * span
    shown = stack.coverage()
    renderer = differentiable_renderer(renderer)

    def render(u: Tensor) -> Tensor:
        return renderer(aif, 1 / u, stack.focus_distances_m, stack.camera)

    def box(values: Tensor) -> Tensor:
        return box_blur(values[:, None], WINDOW_PX, separable=True)[:, 0]

    def windowed(values: Tensor) -> Tensor:
        """(B,S,3,H,W) -> (B,H,W): the mean over a window, summed over what the slices show."""
        return box((shown[:, :, None] * values).sum((1, 2))).clamp_min(0)

    with torch.no_grad():
        if rendered is None:
            rendered = render(inverse)
        slope = (render(inverse + step) - render((inverse - step).clamp_min(1e-6))) / (2 * step[:, None, None])
        measurements = 3 * box(shown.sum(1)).clamp_min(1e-3)
        residual = rendered - stack.images
        residual = torch.where(stack.saturated(), residual.clamp_max(0), residual)
        variance = windowed(residual.square()) / measurements + ROUNDING_STD**2
        # three colours say little more than one; pixels of a window are taken as independent
        signal = windowed(slope.square()) * WINDOW_PX**2 / 3
        from_texture = variance / (signal + variance / span.square())  # no worse than knowing nothing
        centred = inverse - inverse.mean((1, 2), keepdim=True)
        from_edges = EDGE_SHARE**2 * (box(centred.square()) - box(centred).square()).clamp_min(0)
        return (from_texture + from_edges).sqrt() * depth_m.square()


def confidence_of(std_m: Float[Tensor, "b h w"], depth_m: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Standard deviation in metres -> confidence in (0, 1]: 1 / (1 + std / (5 % of the image's median depth)).

    The order of the pixels within an image is that of their standard deviations in metres.

    Examples:
        >>> depth_m = torch.full((1, 2, 2), 2.0)
        >>> confidence_of(torch.full((1, 2, 2), 0.1), depth_m)[0, 0, 0].item()  # 5 % of the depth
        0.5
    """
    unit = 0.05 * depth_m.flatten(1).median(1).values[:, None, None]
    return 1 / (1 + std_m / unit)
