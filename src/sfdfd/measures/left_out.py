"""The judge that needs no truth: a slice that was kept aside, predicted from the rest.

Depth and AIF, found without it, are rendered at its focus distance and compared with the photograph. Two figures say what
that is worth, from the input slices alone: the nearest of them in inverse focus distance as it is, and the best blend of the
two around it, whose weight an oracle chooses with the left-out photograph before its eyes. All three are measured on
the same pixels of the same registered photograph of even exposure.
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
"""Share of each side's length that is left out of the figures at each border."""
TILE_PX = 1024
"""Side of the tiles in which larger images are rendered, so that memory does not grow with the photograph."""
FIGURES = {
    "psnr_db": "rendered",
    "nearest_slice_psnr_db": "nearest slice",
    "best_blend_psnr_db": "best blend of two",
}
"""Each figure, and what it is of, in words."""
HOW_TO_READ = (
    "Slices that were kept aside, predicted from the others: higher is better; a prediction worse than the nearest slice "
    "says that depth, lens or registration is wrong, and the best blend of the two neighbours, whose weight is chosen with "
    "the photograph in view, is hard to reach where the slices stand close."
)


@dataclass(frozen=True)
class LeftOutPSNR:
    """PSNR of one left-out slice in dB, peak 1.0, capped at 100: of the rendered slice, and of what it has to beat.

    Attributes:
        psnr_db: the slice that predicted depth and AIF render.
        nearest_slice_psnr_db: the input slice nearest in inverse focus distance, as it is.
        best_blend_psnr_db: w a + (1 - w) b of the two neighbouring input slices, with the w in [0, 1] of least squares.
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
        photograph: (3,H,W) what it was compared with, its exposure evened.
        gain: (3,) factors on the photograph's colours that did so.
    """

    figures: LeftOutPSNR
    rendered: Float[Tensor, "3 h w"]
    photograph: Float[Tensor, "3 h w"]
    gain: tuple[float, ...]


def mean_left_out_psnr(figures: Sequence[LeftOutPSNR]) -> dict[str, float]:
    """The unweighted mean of each figure over slices."""
    return {
        field.name: sum(getattr(one, field.name) for one in figures) / len(figures) for field in fields(LeftOutPSNR)
    }


def neighbours(focus_distance_m: float, inputs_m: Sequence[float]) -> tuple[int, tuple[int, int]]:
    """The nearest input slice in inverse focus distance, and the two around it.

    Beyond the first or the last input slice, the two at that end.

    Args:
        focus_distance_m: of the left-out slice, in metres.
        inputs_m: two or more focus distances in metres.
    """
    target, inverse = 1 / focus_distance_m, [1 / value for value in inputs_m]
    order = sorted(range(len(inverse)), key=inverse.__getitem__)
    above = sum(value <= target for value in inverse)  # the first in order that is focused nearer
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
    """Even the photograph's exposure out against the nearest input slice, as an input's would have been, and measure.

    Args:
        photograph: the left-out slice on the canvas of the others, in [0, 1].
        rendered: its prediction.
        nearest, pair: the input slices of :func:`neighbours`.
        covered: (H,W) what of the canvas the photograph shows; all by default.
        exposure: False leaves the exposure as it is.

    Returns:
        See :class:`LeftOutScore`; NaN where the photograph shows nothing.
    """
    gain: tuple[float, ...] = (1.0, 1.0, 1.0)
    if exposure:
        photograph, gain = _evened(photograph, nearest, covered)
    height, width = photograph.shape[-2:]
    top, left = (math.ceil(BORDER * side) for side in (height, width))
    counted = torch.zeros(height, width, dtype=torch.bool)
    counted[top : height - top, left : width - left] = True
    if covered is not None:
        counted &= covered.cpu()

    def error(channel: Callable[[int], Tensor]) -> Tensor:
        """Sum of squares over what counts, one colour after the other: photographs are large."""
        return cast(Tensor, sum(channel(c)[counted].square().sum(dtype=torch.float64) for c in range(3)))

    def of(image: Tensor) -> float:
        return _psnr_db(error(lambda c: (image[c] - photograph[c]).cpu()), 3 * int(counted.sum()))

    first, second = pair
    between = error(lambda c: (first[c] - second[c]).cpu())
    along = sum(
        ((first[c] - second[c]) * (photograph[c] - second[c])).cpu()[counted].sum(dtype=torch.float64) for c in range(3)
    )
    weight = float((along / between).clamp(0, 1)) if between > 0 else 0.5
    figures = LeftOutPSNR(of(rendered), of(nearest), of(_blend(first, second, weight)))
    return LeftOutScore(figures, rendered.cpu(), photograph.cpu(), gain)


def _blend(first: Tensor, second: Tensor, weight: float) -> Tensor:
    return torch.lerp(second, first, weight)


def _psnr_db(error: Tensor, count: int) -> float:
    return min(100.0, -10 * math.log10(max(float(error) / count, 1e-10))) if count else math.nan


def _evened(photograph: Tensor, reference: Tensor, covered: Tensor | None) -> tuple[Tensor, tuple[float, ...]]:
    images = [image.detach().cpu().permute(1, 2, 0).numpy() for image in (photograph, reference)]
    reach = np.ones((2, *images[0].shape[:2]), bool)
    if covered is not None:
        reach[0] = covered.cpu().numpy()
    evened, gains = equalize_exposure(images, 1, reach)
    return torch.from_numpy(evened[0]).permute(2, 0, 1).to(reference.device), tuple(float(g) for g in gains[0])


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
    """One slice of an image of any size, in tiles that overlap by the reach of the blur.

    Args:
        renderer: the model's optics.
        aif, depth_m, focus_distance_m, camera, blur_factor: as of :class:`sfdfd.optics.render.Renderer`.
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
    side = max(tile_px, 2 * margin)  # else most of the work would be margins
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
    """How far a blur of that radius spreads; four radii for a renderer that is none of ours."""
    checked = getattr(renderer, "checked", None)
    if checked is None:
        return math.ceil(4 * radius_px) + 8
    return checked.family.reach_px(float(checked.family.size_px(radius_px, checked.sigma_scale))) + 8


def score_left_out_slices(
    stack: FocalStack, prediction: Prediction, renderer: Renderer, aside: FocalStack, camera: Camera | None = None
) -> list[LeftOutScore]:
    """The figures of every left-out slice of a stack that is registered already.

    Args:
        stack: the slices that the method saw (a batch of one).
        prediction: what it said.
        renderer: the model's optics.
        aside: the slices that it did not see, on the same canvas.
        camera: the model's own, where it is not the stack's.
    """
    camera = stack.camera[0] if camera is None else camera
    inputs, focus, judged = stack.images[0], stack.focus_distances_m[0].tolist(), []
    for index, distance in enumerate(aside.focus_distances_m[0].tolist()):
        rendered = render_slice(renderer, prediction.aif[0], prediction.depth_m[0], distance, camera)
        nearest, (first, second) = neighbours(distance, focus)
        covered = None if aside.covered is None else aside.covered[0, index] > 0.5
        judged.append(
            judge(aside.images[0, index], rendered, inputs[nearest], (inputs[first], inputs[second]), covered)
        )
    return judged
