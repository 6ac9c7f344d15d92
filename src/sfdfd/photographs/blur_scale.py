"""The camera's one missing number, from the stack itself.

With known focus distances F the blur radius is ``k |1/F - 1/d| / (1 - f/F)``, k = f^2 / (2 N p) in pixel metres. A camera
that nobody knows is one number, k. Depth shows as the relation between slices and k as their absolute blur, so the two can
be told apart from three slices on (two slices know only a product). Patches are solved apart, each with a k of its own:
their median is the estimate and their spread says how far to trust it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.networks.classical import focus_measure
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep, mean_sweep_residual, parabolic_argmin
from sfdfd.refinement.refiner import Refiner
from sfdfd.stack import FocalStack

__all__ = ["BlurScale", "camera_for", "estimate_blur_scale", "scale_std"]


@dataclass(frozen=True)
class BlurScale:
    """k = f^2 / (2 N p) of the images it was estimated on.

    Attributes:
        value_px_m: the estimate in pixel metres.
        relative_std: its standard error over its value, from the spread of the patches.
        patches_px_m: the patches' own estimates.
    """

    value_px_m: float
    relative_std: float
    patches_px_m: tuple[float, ...]


def camera_for(
    blur_scale_px_m: float,
    nearest_focus_m: float,
    focal_length_m: float | None = None,
    f_number: float | None = None,
    pixel_pitch_m: float | None = None,
) -> Camera:
    """A camera of this k that agrees with whatever is known of it.

    An unknown focal length becomes short against every focus distance (then k is all that matters), other unknowns what
    k leaves them; where everything is known but k contradicts it, the pixel pitch gives way.
    """
    focal = focal_length_m or 1e-3 * nearest_focus_m
    if f_number is None and pixel_pitch_m is not None and focal_length_m is not None:
        return Camera(focal, focal**2 / (2 * blur_scale_px_m * pixel_pitch_m), pixel_pitch_m)
    number = f_number or 2.0
    return Camera(focal, number, focal**2 / (2 * number * blur_scale_px_m))


def scale_std(focus_distances_m: Sequence[float], std_dpt: Sequence[float] | None) -> float:
    """Relative standard deviation of k from that of the focus distances alone: k |1/F - 1/d| is what the images show, so k
    errs as the scale of the 1/F does, the slope of a regression on them.

    Args:
        focus_distances_m: two or more, in metres.
        std_dpt: standard deviation of each 1/F in dioptres; None for none.
    """
    if std_dpt is None:
        return 0.0
    inverse = torch.tensor([1 / value for value in focus_distances_m], dtype=torch.float64)
    away = inverse - inverse.mean()
    return float((away * torch.tensor(std_dpt, dtype=torch.float64)).norm() / away.square().sum())


def estimate_blur_scale(
    images: Float[Tensor, "s 3 h w"],
    focus_distances_m: Float[Tensor, "s"],
    near_m: float,
    far_m: float,
    renderer: Renderer,
    *,
    focal_length_m: float | None = None,
    covered: Float[Tensor, "s h w"] | None = None,
    patches: int = 8,
    patch_px: int = 96,
    steps: int = 160,
) -> BlurScale:
    """Estimate k together with depth and AIF.

    Args:
        images: (S,3,H,W) aligned slices.
        focus_distances_m: (S,) in metres.
        near_m, far_m: depth range in metres.
        renderer: the model's optics.
        focal_length_m: where it is known, the thin lens' factor 1 / (1 - f/F) is exact; else it is taken as 1.
        covered: (S,H,W) in [0, 1], what of the slices counts; all by default.
        patches, patch_px: how many patches are solved, and their side (at most half the image's, from 64 pixels up, so
            that there are enough for a spread); the ones with the most texture are taken.
        steps: gradient steps of the joint solution.
    """
    nearest = float(focus_distances_m.min())
    height, width = images.shape[-2:]
    side_y, side_x = (min(patch_px, max(size // 2, 32), size) for size in (height, width))

    def stack_of(k: float) -> FocalStack:
        camera = camera_for(k, nearest, focal_length_m)
        whole = FocalStack.single(images, focus_distances_m, camera, near_m, far_m, covered=covered)
        return FocalStack.collate([whole.cropped(y, y + side_y, x, x + side_x) for y, x in chosen])

    chosen = _textured(images, covered, side_y, side_x, patches)
    inverse = [1 / near_m, 1 / far_m, *(1 / focus_distances_m).tolist()]
    spread = max(inverse) - min(inverse)
    largest = torch.logspace(math.log10(1.0), math.log10(0.3 * min(side_y, side_x)), 12)
    candidates = [float(px) / spread for px in largest]
    costs = torch.tensor([mean_sweep_residual(stack_of(k), renderer) for k in candidates])
    start = candidates[0] * (candidates[1] / candidates[0]) ** float(parabolic_argmin(costs[:, None, None]))
    depth_m, aif, *_ = depth_from_plane_sweep(stack_of(start), renderer)
    solver = Refiner(seconds=0, steps=steps, coarse_share=0.0)
    result = solver(stack_of(start), renderer, depth_m, aif, fit_blur=True)
    values = (start * result.blur_factor).tolist()
    logs = torch.tensor(values, dtype=torch.float64).log()
    middle = logs.median()
    spread = 1.4826 * float((logs - middle).abs().median())  # as robust as the median itself
    return BlurScale(
        value_px_m=float(middle.exp()),
        relative_std=1.2533 * spread / math.sqrt(len(values)) if len(values) > 2 else math.inf,
        patches_px_m=tuple(values),
    )


def _textured(
    images: Float[Tensor, "s 3 h w"], covered: Float[Tensor, "s h w"] | None, side_y: int, side_x: int, number: int
) -> list[tuple[int, int]]:
    """Corners of the patches whose sharpness changes most over the slices, without overlap; those that every slice shows
    come first."""
    sharpness = focus_measure(images[None], 9)[0]
    signal = (sharpness.amax(0) - sharpness.amin(0))[None, None]
    height, width = images.shape[-2:]
    rows = torch.linspace(0, height - side_y, max(1, height // side_y)).round().int().tolist()
    columns = torch.linspace(0, width - side_x, max(1, width // side_x)).round().int().tolist()

    def rank(corner: tuple[int, int]) -> tuple[bool, float]:
        part = (..., slice(corner[0], corner[0] + side_y), slice(corner[1], corner[1] + side_x))
        hidden = covered is not None and bool((covered[part] < 0.999).any())
        return hidden, -float(signal[part].median())

    return sorted(((y, x) for y in rows for x in columns), key=rank)[:number]
