"""What the full-size slices say: an AIF blended of them, and depth brought to their size along its edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from kornia.color import rgb_to_grayscale
from kornia.filters import box_blur
from torch import Tensor

from sfdfd.optics.camera import Camera
from sfdfd.optics.render import defocus_map_px
from sfdfd.plane_sweep.cost_volume import CLIPPED_WEIGHT, blend_by_sharpness
from sfdfd.stack import FocalStack, Prediction

__all__ = ["add_residual_detail", "blend_slices", "enlarged", "guided_upsampling", "sharpest_slice_index"]

BEHIND_ALL_PX = 1e4
"""Blur radius larger than any picture's."""


def enlarged(
    prediction: Prediction,
    stack: FocalStack,
    slices: Sequence[Tensor | Callable[[], Tensor]],
    camera: Camera,
    covered: Sequence[Tensor] | None = None,
    defocus: bool = True,
    clipped: Sequence[Tensor] | None = None,
) -> Prediction:
    """A prediction at working size brought to the size of the full slices (a batch of one).

    Args:
        prediction, stack: at the working size.
        slices: (3,H,W) each in [0, 1], or functions that make them, so that not all need to be in memory.
        camera: of the full slices.
        covered: (H,W) each, 0 where a slice shows nothing.
        clipped: (3,H,W) bool each, where a colour says only "at least so bright"; None where none does.
        defocus: whether to keep the (1,S,H,W) defocus maps, S times the depth's memory.
    """
    assert prediction.depth_std_m is not None and prediction.confidence is not None
    focus = stack.focus_distances_m[0]
    low, high = float(1 / stack.far_m), float(1 / stack.near_m)
    size = (slices[0]() if callable(slices[0]) else slices[0]).shape[-2:]
    inverse = (1 / prediction.depth_m)[:, None]
    full = F.interpolate(inverse, size, mode="bilinear", align_corners=False)
    aif = blend_slices(slices, (1 / full)[0, 0], focus, camera, covered, clipped)
    full = guided_upsampling(inverse, rgb_to_grayscale(prediction.aif), rgb_to_grayscale(aif[None]), 4, 1e-3)
    depth_m = 1 / full[:, 0].clamp(low, high)
    aif = blend_slices(slices, depth_m[0], focus, camera, covered, clipped)[None]
    # what the slices have sharp, and from the AIF at working size what they all have blurred
    lacking = prediction.aif - F.interpolate(aif, prediction.aif.shape[-2:], mode="area")
    lacking = F.interpolate(lacking, size, mode="bilinear", align_corners=False)
    blur = _smallest_blur_px(depth_m[0], focus, camera, covered).square()
    aif = aif.addcmul_(lacking, blur / (blur + 1)).clamp_(0, 1)
    std = F.interpolate(prediction.depth_std_m[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    confidence = F.interpolate(prediction.confidence[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    maps = defocus_map_px(depth_m, focus[None], camera) if defocus else prediction.defocus_px
    beyond = prediction.beyond_range
    if beyond is not None:
        beyond = F.interpolate(beyond[:, None], size, mode="nearest")[:, 0]
    return Prediction(depth_m, aif, maps, None, confidence, std, beyond)


def blend_slices(
    slices: Sequence[Tensor | Callable[[], Tensor]],
    depth_m: Float[Tensor, "h w"],
    focus_distances_m: Float[Tensor, "s"],
    camera: Camera,
    covered: Sequence[Tensor] | None = None,
    clipped: Sequence[Tensor] | None = None,
) -> Float[Tensor, "3 h w"]:
    """An all-in-focus image of the slices alone: at each pixel the ones that its depth says are sharpest.

    Weights exp(-(r^2 - r_min^2) / (2 t^2)), r the blur radius in pixels and t = 0.7 px; a tenth of that where ``clipped``
    ((3,H,W) bool each) says that a colour is only known to be at least so bright.
    """
    smallest = _smallest_blur_px(depth_m, focus_distances_m, camera, covered)
    total: Tensor | None = None
    weights: Tensor | None = None
    for index, (item, focus) in enumerate(zip(slices, focus_distances_m, strict=True)):
        image = item() if callable(item) else item
        radius = camera.blur_radius_px(depth_m, focus)
        # a slice that does not show the pixel may be sharper still there
        weight = torch.exp(((smallest.square() - radius.square()) / (2 * 0.7**2)).clamp_max(0)) + 1e-9
        if covered is not None:
            weight = weight * (covered[index] + 1e-12)
        if clipped is not None:
            weight = weight * torch.where(clipped[index], CLIPPED_WEIGHT, 1.0)
        total = weight * image if total is None else total.addcmul_(weight.expand_as(image), image)
        weights = weight if weights is None else weights.add_(weight)
    assert total is not None and weights is not None  # there are slices
    return total / weights


def _smallest_blur_px(
    depth_m: Tensor, focus_distances_m: Tensor, camera: Camera, covered: Sequence[Tensor] | None
) -> Tensor:
    """(H,W) of the sharpest slice that shows a pixel; of all slices where none does."""
    anyway: Tensor | None = None
    shown: Tensor | None = None
    for index, focus in enumerate(focus_distances_m):
        radius = camera.blur_radius_px(depth_m, focus)
        anyway = radius if anyway is None else torch.minimum(anyway, radius)
        if covered is not None:
            radius = torch.where(covered[index] > 0.5, radius, torch.inf)
            shown = radius if shown is None else torch.minimum(shown, radius)
    assert anyway is not None  # there are slices
    return anyway if shown is None else torch.where(torch.isfinite(shown), shown, anyway)


def sharpest_slice_index(
    depth_m: Float[Tensor, "h w"],
    focus_distances_m: Float[Tensor, "s"],
    camera: Camera,
    covered: Sequence[Tensor] | None = None,
) -> Int[Tensor, "h w"]:
    """The index of the slice that is sharpest at each pixel among those that show it; among all where none does."""
    smallest = torch.full_like(depth_m, torch.inf)
    found = torch.zeros(depth_m.shape, dtype=torch.int32, device=depth_m.device)
    for index, focus in enumerate(focus_distances_m):
        radius = camera.blur_radius_px(depth_m, focus)
        if covered is not None:
            radius = radius + BEHIND_ALL_PX * (covered[index] <= 0.5)
        found[radius < smallest] = index
        smallest = torch.minimum(smallest, radius)
    return found


def add_residual_detail(
    stack: FocalStack, prediction: Prediction, share: Float[Tensor, "b"] | float = 1.0
) -> Float[Tensor, "b 3 h w"]:
    """The AIF and, on top of it, a share of what the slices that are sharpest have and their renderings lack:
    I + share sum_s w_s (J_s - R_s), w of :func:`sfdfd.plane_sweep.cost_volume.blend_by_sharpness`.

    One step of Van Cittert's iteration (1931), which needs no renderer. Beside a silhouette, where a slice shows the
    foreground's blur, so does its rendering, and the difference does not.
    """
    assert prediction.rendered is not None
    radius_px = defocus_map_px(prediction.depth_m, stack.focus_distances_m, stack.camera)
    shown = stack.coverage()
    lacking = stack.images - prediction.rendered
    lacking = torch.where(stack.saturated(), lacking.clamp_min(0), lacking)  # brighter than white is no fault
    lacking = blend_by_sharpness(lacking, radius_px, shown)
    seen = shown.amax(1).clamp_max(1) * torch.as_tensor(share).to(shown).reshape(-1, 1, 1)
    return (prediction.aif + seen[:, None] * lacking).clamp(0, 1)


def guided_upsampling(
    values: Float[Tensor, "1 1 h w"],
    guide: Float[Tensor, "1 1 h w"],
    full_guide: Float[Tensor, "1 1 y x"],
    radius_px: int,
    eps: float,
) -> Float[Tensor, "1 1 y x"]:
    """Fast guided filter (He and Sun, arXiv 1505.00996): local linear models ``values = a guide + b``, enlarged and applied.

    Args:
        values, guide: at the small size.
        full_guide: at the full size.
        radius_px: of the window at the small size.
        eps: variance of the guide below which it is not followed.
    """

    def mean(x: Tensor) -> Tensor:
        return box_blur(x, 2 * radius_px + 1, separable=True)

    guide_mean, values_mean = mean(guide), mean(values)
    slope = (mean(guide * values) - guide_mean * values_mean) / (mean(guide * guide) - guide_mean.square() + eps)
    offset = values_mean - slope * guide_mean
    slope, offset = (
        F.interpolate(mean(c), full_guide.shape[-2:], mode="bilinear", align_corners=False) for c in (slope, offset)
    )
    return slope.mul_(full_guide).add_(offset)
