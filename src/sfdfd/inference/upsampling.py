"""Upsampling to the size of the slices: an AIF blended from them, and depth that follows its edges."""

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

__all__ = [
    "add_residual_detail",
    "blend_slices",
    "guided_upsampling",
    "sharpest_slice_index",
    "upsample_prediction",
]

UNCOVERED_PX = 1e4
"""Added to the blur radius where a slice shows nothing: more than the blur of any image."""


def upsample_prediction(
    prediction: Prediction,
    stack: FocalStack,
    slices: Sequence[Tensor | Callable[[], Tensor]],
    size: tuple[int, int],
    camera: Camera,
    covered: Sequence[Tensor] | None = None,
    defocus: bool = True,
    clipped: Sequence[Tensor] | None = None,
) -> Prediction:
    """Upsample a prediction to the size of the full slices (a batch of one).

    Args:
        prediction, stack: at the working size.
        slices: (3,H,W) each in [0, 1], or functions that load them, so that not all need to be in memory.
        size: (H, W) of the full slices.
        camera: of the full slices.
        covered: (H,W) each, 0 where a slice shows nothing.
        clipped: (3,H,W) bool each, true where a colour value is clipped; None where none is.
        defocus: whether to compute full-size (1,S,H,W) defocus maps, S times the memory of depth.
    """
    assert prediction.depth_std_m is not None and prediction.confidence is not None
    focus = stack.focus_distances_m[0]
    low, high = float(1 / stack.far_m), float(1 / stack.near_m)
    inverse = (1 / prediction.depth_m)[:, None]
    full = F.interpolate(inverse, size, mode="bilinear", align_corners=False)
    aif = blend_slices(slices, (1 / full)[0, 0], focus, camera, covered, clipped)
    full = guided_upsampling(inverse, rgb_to_grayscale(prediction.aif), rgb_to_grayscale(aif[None]), 4, 1e-3)
    depth_m = 1 / full[:, 0].clamp(low, high)
    aif = blend_slices(slices, depth_m[0], focus, camera, covered, clipped)[None]
    # where all slices are blurred, the AIF of the working size is sharper than their blend
    missing = prediction.aif - F.interpolate(aif, prediction.aif.shape[-2:], mode="area")
    missing = F.interpolate(missing, size, mode="bilinear", align_corners=False)
    blur = _smallest_blur_px(depth_m[0], focus, camera, covered).square()
    aif = aif.addcmul_(missing, blur / (blur + 1)).clamp_(0, 1)
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
    """Blend an all-in-focus image from the slices: each pixel from those that are sharpest at its depth.

    The weights are exp(-(r^2 - r_min^2) / (2 t^2)), with r the blur radius in pixels and t = 0.7 px; a tenth of that where a
    colour value is ``clipped`` ((3,H,W) bool each).
    """
    smallest = _smallest_blur_px(depth_m, focus_distances_m, camera, covered)
    total: Tensor | None = None
    weights: Tensor | None = None
    cameras = camera.per_slice(len(focus_distances_m))
    for index, (source, focus, lens) in enumerate(zip(slices, focus_distances_m, cameras, strict=True)):
        image = source() if callable(source) else source
        radius = lens.blur_radius_px(depth_m, focus)
        # a slice that does not cover the pixel may be sharper than the sharpest that does
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
    """Return (H,W) blur radii of the sharpest slice that covers each pixel; of all slices where none does."""
    of_all: Tensor | None = None
    of_covering: Tensor | None = None
    for index, (focus, lens) in enumerate(
        zip(focus_distances_m, camera.per_slice(len(focus_distances_m)), strict=True)
    ):
        radius = lens.blur_radius_px(depth_m, focus)
        of_all = radius if of_all is None else torch.minimum(of_all, radius)
        if covered is not None:
            radius = torch.where(covered[index] > 0.5, radius, torch.inf)
            of_covering = radius if of_covering is None else torch.minimum(of_covering, radius)
    assert of_all is not None  # there are slices
    return of_all if of_covering is None else torch.where(torch.isfinite(of_covering), of_covering, of_all)


def sharpest_slice_index(
    depth_m: Float[Tensor, "h w"],
    focus_distances_m: Float[Tensor, "s"],
    camera: Camera,
    covered: Sequence[Tensor] | None = None,
) -> Int[Tensor, "h w"]:
    """Return the index of the sharpest slice that covers each pixel; of all slices where none does."""
    smallest = torch.full_like(depth_m, torch.inf)
    sharpest_index = torch.zeros(depth_m.shape, dtype=torch.int32, device=depth_m.device)
    for index, (focus, lens) in enumerate(
        zip(focus_distances_m, camera.per_slice(len(focus_distances_m)), strict=True)
    ):
        radius = lens.blur_radius_px(depth_m, focus)
        if covered is not None:
            radius = radius + UNCOVERED_PX * (covered[index] <= 0.5)
        sharpest_index[radius < smallest] = index
        smallest = torch.minimum(smallest, radius)
    return sharpest_index


def add_residual_detail(
    stack: FocalStack, prediction: Prediction, share: Float[Tensor, "b"] | float = 1.0
) -> Float[Tensor, "b 3 h w"]:
    """Add to the AIF a share of the residuals of the sharpest slices.

    The result is I + share sum_s w_s (J_s - R_s), with the weights w of
    :func:`sfdfd.plane_sweep.cost_volume.blend_by_sharpness`: one step of Van Cittert's iteration (1931), which needs no
    renderer. Beside a silhouette, slice and rendering both show the blur of the foreground, so that it cancels.
    """
    assert prediction.rendered is not None
    radius_px = defocus_map_px(prediction.depth_m, stack.focus_distances_m, stack.camera)
    coverage = stack.coverage()
    residual = stack.images - prediction.rendered
    residual = torch.where(stack.saturated(), residual.clamp_min(0), residual)  # a rendering may be brighter than white
    residual = blend_by_sharpness(residual, radius_px, coverage)
    weight = coverage.amax(1).clamp_max(1) * torch.as_tensor(share).to(coverage).reshape(-1, 1, 1)
    return (prediction.aif + weight[:, None] * residual).clamp(0, 1)


def guided_upsampling(
    values: Float[Tensor, "1 1 h w"],
    guide: Float[Tensor, "1 1 h w"],
    full_guide: Float[Tensor, "1 1 y x"],
    radius_px: int,
    eps: float,
) -> Float[Tensor, "1 1 y x"]:
    """Upsample with the fast guided filter (He and Sun, arXiv 1505.00996): local linear models ``values = a guide + b``.

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
