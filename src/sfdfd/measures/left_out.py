"""Score predictions without ground truth, on a slice that was left out.

Depth and AIF, predicted without the slice, are rendered at its focus distance and compared with its photograph. Two
baselines
use the input slices alone: the one nearest in inverse focus distance, and the best blend of the two around it, with a weight
fitted to the left-out photograph. All three are measured on the same pixels of the same registered photograph, with its
exposure equalized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.measures.exposure import equalize_exposure
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "FIGURES",
    "HOW_TO_READ",
    "LeftOutPSNR",
    "LeftOutScore",
    "judge",
    "mean_left_out_psnr",
    "neighbours",
    "render_slice",
    "score_left_out_slices",
]

BORDER = 0.03
"""Share of each side's length that figures ignore at each border."""
TILE_PX = 1024
"""Side of the tiles in which larger images are rendered, so that memory does not grow with the photograph."""
FIGURES = {
    "psnr_db": "rendered",
    "nearest_slice_psnr_db": "nearest slice",
    "best_blend_psnr_db": "best blend of two",
}
"""Each figure, and the image that it measures."""
HOW_TO_READ = (
    "These slices were left out and predicted from the others. Higher is better. Below the nearest slice, depth, lens or "
    "registration is wrong. The best blend of the two neighbours chooses its weight by the photograph itself, so it is hard "
    "to beat."
)


@dataclass(frozen=True)
class LeftOutPSNR:
    """PSNR of one left-out slice in dB, peak 1.0, capped at 100: of the rendered slice and of its baselines.

    Attributes:
        psnr_db: the slice rendered from predicted depth and AIF.
        nearest_slice_psnr_db: the input slice nearest in inverse focus distance.
        best_blend_psnr_db: w a + (1 - w) b of the two neighbouring input slices, with the least-squares w in [0, 1].
    """

    psnr_db: float
    nearest_slice_psnr_db: float
    best_blend_psnr_db: float

    def as_dict(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class LeftOutScore:
    """A left-out slice and its figures.

    Attributes:
        figures: see :class:`LeftOutPSNR`.
        rendered: (3,H,W) the prediction.
        photograph: (3,H,W) what it was compared with, its exposure equalized.
        gain: (3,) the factors on the photograph's colours that did so.
    """

    figures: LeftOutPSNR
    rendered: Float[Tensor, "3 h w"]
    photograph: Float[Tensor, "3 h w"]
    gain: tuple[float, ...]


def mean_left_out_psnr(figures: Sequence[LeftOutPSNR]) -> dict[str, float]:
    """Return the unweighted mean of each figure over slices."""
    return {
        field.name: sum(getattr(one, field.name) for one in figures) / len(figures) for field in fields(LeftOutPSNR)
    }


def neighbours(focus_distance_m: float, inputs_m: Sequence[float]) -> tuple[int, tuple[int, int]]:
    """Return the index of the input slice nearest in inverse focus distance, and those of the two around it.

    Beyond the first or the last input slice, it is the two at that end.

    Args:
        focus_distance_m: of the left-out slice, in metres.
        inputs_m: two or more focus distances in metres.
    """
    target, inverse = 1 / focus_distance_m, [1 / value for value in inputs_m]
    order = sorted(range(len(inverse)), key=inverse.__getitem__)
    above = sum(value <= target for value in inverse)  # position of the first that is focused nearer
    first = min(max(above - 1, 0), len(order) - 2)
    nearest = min(order, key=lambda index: abs(inverse[index] - target))
    return nearest, (order[first], order[first + 1])


def judge(
    photograph: Float[Tensor, "3 h w"],
    rendered: Float[Tensor, "3 h w"],
    nearest: Float[Tensor, "3 h w"],
    pair: tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]],
    covered: Bool[Tensor, "h w"] | None = None,
    exposure: bool = True,
) -> LeftOutScore:
    """Score a rendered slice against a left-out photograph.

    Its exposure is equalized to the nearest input slice first, as that of an input slice would have been.

    Args:
        photograph: the left-out slice on the canvas of the others, in [0, 1].
        rendered: its prediction.
        nearest, pair: the input slices of :func:`neighbours`.
        covered: (H,W) true where the photograph shows the scene; everywhere by default.
        exposure: whether to equalize the exposure.

    Returns:
        The score, with NaN figures if the photograph covers nothing.
    """
    gain: tuple[float, ...] = (1.0, 1.0, 1.0)
    if exposure:
        photograph, gain = _equalized(photograph, nearest, covered)
    height, width = photograph.shape[-2:]
    top, left = (math.ceil(BORDER * side) for side in (height, width))
    is_used = torch.zeros(height, width, dtype=torch.bool)
    is_used[top : height - top, left : width - left] = True
    if covered is not None:
        is_used &= covered.cpu()

    def error(channel: Callable[[int], Tensor]) -> Tensor:
        """Sum the squares over the used pixels, one colour after the other to save memory."""
        return cast(Tensor, sum(channel(c)[is_used].square().sum(dtype=torch.float64) for c in range(3)))

    def psnr_db(image: Tensor) -> float:
        return _psnr_db(error(lambda c: (image[c] - photograph[c]).cpu()), 3 * int(is_used.sum()))

    first, second = pair
    difference = error(lambda c: (first[c] - second[c]).cpu())
    projection = sum(
        ((first[c] - second[c]) * (photograph[c] - second[c])).cpu()[is_used].sum(dtype=torch.float64) for c in range(3)
    )
    weight = float((projection / difference).clamp(0, 1)) if difference > 0 else 0.5
    figures = LeftOutPSNR(psnr_db(rendered), psnr_db(nearest), psnr_db(torch.lerp(second, first, weight)))
    return LeftOutScore(figures, rendered.cpu(), photograph.cpu(), gain)


def _psnr_db(error: Tensor, count: int) -> float:
    return min(100.0, -10 * math.log10(max(float(error) / count, 1e-10))) if count else math.nan


def _equalized(photograph: Tensor, reference: Tensor, covered: Tensor | None) -> tuple[Tensor, tuple[float, ...]]:
    images = [image.detach().cpu().permute(1, 2, 0).numpy() for image in (photograph, reference)]
    is_covered = np.ones((2, *images[0].shape[:2]), bool)
    if covered is not None:
        is_covered[0] = covered.cpu().numpy()
    equalized, gains = equalize_exposure(images, 1, is_covered)
    return torch.from_numpy(equalized[0]).permute(2, 0, 1).to(reference.device), tuple(float(g) for g in gains[0])


def render_slice(
    renderer: Renderer,
    aif: Float[Tensor, "3 h w"],
    depth_m: Float[Tensor, "h w"],
    focus_distance_m: float,
    camera: Camera,
    *,
    blur_factor: float = 1.0,
    device: torch.device | str | None = None,
    tile_px: int = TILE_PX,
) -> Float[Tensor, "3 h w"]:
    """Render one slice of an image of any size, in tiles that overlap by the reach of the blur.

    Args:
        renderer: the model's optics.
        aif, depth_m, focus_distance_m, camera, blur_factor: as for :class:`sfdfd.optics.render.Renderer`.
        device: where tiles are rendered; the AIF's by default.
        tile_px: side of a tile.

    Returns:
        On the AIF's device, in [0, 1].
    """
    device = aif.device if device is None else device
    height, width = depth_m.shape
    focus = torch.tensor([focus_distance_m], dtype=torch.float32)
    largest = blur_factor * float(camera.blur_radius_px(depth_m, focus.to(depth_m)).max())
    margin = min(_reach_px(renderer, largest), max(height, width))
    side = max(tile_px, 2 * margin)  # or most of the work would be margins
    rendered = torch.empty_like(aif)
    for top in range(0, height, side):
        for left in range(0, width, side):
            above, before = max(0, top - margin), max(0, left - margin)
            rows, columns = slice(above, top + side + margin), slice(before, left + side + margin)
            light, depths = aif[None, :, rows, columns].to(device), depth_m[None, rows, columns].to(device)
            with torch.no_grad():
                part = renderer(light, depths, focus.to(device), camera, blur_factor=blur_factor)
            bottom, right = min(height, top + side), min(width, left + side)
            inner = part[0, 0, :, top - above : bottom - above, left - before : right - before]
            rendered[:, top:bottom, left:right] = inner.clamp(0, 1).to(aif)
    return rendered


def _reach_px(renderer: Renderer, radius_px: float) -> int:
    """Return how far a blur of that radius spreads, with a margin."""
    return renderer.psf.reach_px(float(renderer.psf.size_px(radius_px, renderer.sigma_scale))) + 8


def score_left_out_slices(
    stack: FocalStack, prediction: Prediction, renderer: Renderer, aside: FocalStack, camera: Camera | None = None
) -> list[LeftOutScore]:
    """Score a prediction on every left-out slice of a stack that is registered already.

    Args:
        stack: the input slices (a batch of one).
        prediction: the method's prediction from them.
        renderer: the model's optics.
        aside: the left-out slices, on the same canvas.
        camera: the model's own, if it differs from the stack's.
    """
    cameras = (aside.camera[0] if camera is None else camera).per_slice(aside.images.shape[1])
    inputs, focus, scores = stack.images[0], stack.focus_distances_m[0].tolist(), []
    for index, distance in enumerate(aside.focus_distances_m[0].tolist()):
        rendered = render_slice(renderer, prediction.aif[0], prediction.depth_m[0], distance, cameras[index])
        nearest, (first, second) = neighbours(distance, focus)
        covered = None if aside.covered is None else aside.covered[0, index] > 0.5
        scores.append(
            judge(aside.images[0, index], rendered, inputs[nearest], (inputs[first], inputs[second]), covered)
        )
    return scores
