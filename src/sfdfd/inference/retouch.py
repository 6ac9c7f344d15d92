"""Apply the strokes of ``retouch.json`` to a prediction; the page's preview only approximates this.

Depth strokes come first: they change depth at the working and the full size, and the all-in-focus image (AIF) takes the
slices that are sharpest at the new depth. Then strokes of slices change the AIF. A blurred background changes neither: it
is a picture of its own, because refocusing and left-out slices need an image that is sharp everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.inference.estimator import Solution
from sfdfd.inference.upsampling import blend_slices
from sfdfd.io.images import to_bytes, to_float, working_size
from sfdfd.io.retouch_file import Retouch, Stroke
from sfdfd.networks.interface import NetworkOutput, render_prediction
from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.report.refocus import LARGEST_BLUR, FinishedPrediction
from sfdfd.stack import Prediction, renderer_for

__all__ = ["FullSlices", "Retouched", "fit_plane", "fitted_retouch", "retouched_solution", "stroke_weight"]

THINNED = 0.05
"""Points nearer to the one before than this share of the radius are dropped."""
PLANE_SAMPLES, PLANE_TRIPLES = 4096, 300
"""Pixels that a plane is fitted to, and triples of them that are tried."""
TUKEY = 4.685
"""Residuals of more standard deviations have no weight in a plane (95 % efficiency for normal noise)."""
PREVIEW_PX, MANY_SLICES = 1024, 16
"""Longer side of the slices on the page; half of it where there are more slices than these."""
Area = tuple[slice, slice]


@dataclass(frozen=True)
class FullSlices:
    """The registered slices at full size.

    Attributes:
        load: one function per slice that returns (3,H,W) in [0, 1].
        covered: (H,W) each, 0 where a slice shows nothing; None: every slice shows everything.
        clipped: (3,H,W) bool each, true where a colour is clipped; None: nowhere.
        previews: (3,h,w) uint8 by index, of the slices that were loaded.
    """

    load: Sequence[Callable[[], Tensor]]
    covered: Sequence[Tensor] | None = None
    clipped: Sequence[Tensor] | None = None
    previews: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        images: Sequence[np.ndarray],
        covered: Sequence[Tensor] | None = None,
        clipped: Sequence[Tensor] | None = None,
    ) -> FullSlices:
        """Return slices from (H,W,3) images; each is reduced to its preview when it is first loaded."""
        previews: dict[int, Tensor] = {}
        longer_px = PREVIEW_PX if len(images) <= MANY_SLICES else PREVIEW_PX // 2

        def load(index: int) -> Tensor:
            image = images[index]
            if index not in previews:
                height, width = working_size(image.shape[0], image.shape[1], longer_px)
                reduced = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)
                previews[index] = to_bytes(to_float(reduced))
            return to_float(image)

        return cls([partial(load, index) for index in range(len(images))], covered, clipped, previews)

    def all_previews(self) -> list[Tensor]:
        """Return (3,h,w) uint8 per slice, at most ``PREVIEW_PX`` long; loads the slices that nobody has loaded."""
        for index, load in enumerate(self.load):
            if index not in self.previews:
                load()
        return [self.previews[index] for index in range(len(self.load))]

    def cropped(self, area: Area) -> FullSlices:
        """Return the slices within rows and columns."""

        def cut(values: Sequence[Tensor] | None) -> list[Tensor] | None:
            return None if values is None else [value[..., area[0], area[1]] for value in values]

        load = [lambda i=i: self.load[i]()[..., area[0], area[1]] for i in range(len(self.load))]
        return FullSlices(load, cut(self.covered), cut(self.clipped))


@dataclass(frozen=True)
class Retouched:
    """A prediction with strokes.

    Attributes:
        solution: depth and AIF with the strokes.
        picture: (3,H,W) the AIF with a blurred background; None without one.
        facts: for ``prediction.json``: the number of strokes by operation, and the shares of pixels that they changed.
    """

    solution: Solution
    picture: Float[Tensor, "3 h w"] | None
    facts: dict[str, Any]


def retouched_solution(
    solution: Solution,
    retouch: Retouch,
    slices: FullSlices,
    camera: Camera,
    renderer: Renderer,
    *,
    relative: bool = False,
    device: torch.device | str = "cpu",
) -> Retouched:
    """Apply strokes to a prediction, at its working and its full size.

    Args:
        solution: the prediction without strokes.
        retouch: of these slices, see :func:`fitted_retouch`.
        slices: at full size.
        camera: of the full-size images.
        renderer: the optics, where the stack carries none.
        relative: whether depths are relative to the slices and not in metres.
        device: where stacks are rendered.
    """
    focus = solution.stack.focus_distances_m[0].cpu()
    full, working = solution.full, solution.working
    retouch = retouch.scaled((full.depth_m.shape[-2], full.depth_m.shape[-1]))
    if relative:
        retouch = _in_metres(retouch, (float(focus[0]), float(focus[-1])))
    if not retouch.strokes:
        return Retouched(solution, None, {"strokes": {}, "depth_share": 0.0, "aif_share": 0.0})
    renderer = renderer_for(solution.stack, renderer)
    depth_m, planes = _edited_depth(full.depth_m[0].cpu(), retouch, solution)
    new_full, shares = _edited(full, depth_m, retouch, slices, focus, camera)
    new_working = new_full
    if working is not full:
        own = retouch.scaled((working.depth_m.shape[-2], working.depth_m.shape[-1]))
        stack = solution.stack
        small = FullSlices(
            [image.clone for image in stack.images[0].cpu()],
            None if stack.covered is None else list(stack.covered[0].cpu()),
            list(stack.saturated()[0].cpu()),
        )
        own_depth_m = working.depth_m[0].cpu()
        for stroke, plane in zip((one for one in own.strokes if one.edits_depth), planes, strict=True):
            own_depth_m = _with_plane(own_depth_m, stroke, plane)
        new_working, _ = _edited(working, own_depth_m, own, small, focus, stack.camera[0])
    new_working = _rendered_again(new_working, solution, renderer, device)
    if working is full:
        new_full = new_working
    picture = _picture(new_full, retouch, slices, camera, renderer)
    facts = {"strokes": retouch.counts(), **shares}
    return Retouched(Solution(solution.stack, new_working, new_full, solution.refinement), picture, facts)


def fitted_retouch(
    retouch: Retouch, names: Sequence[str], size: tuple[int, int], camera: Camera, relative: bool
) -> Retouch:
    """Return strokes for the slices and the size of this run.

    Args:
        retouch: as read.
        names: file names of the slices of this run.
        size: (H, W) of the full-size images.
        camera: of these images.
        relative: whether depths are relative to the slices and not in metres.

    Raises:
        InputError: a slice is missing, the picture, its unit or its camera is another.
    """
    retouch.check_unit(relative)
    for index, stroke in enumerate(retouch.strokes):
        if not relative and stroke.depth is not None and stroke.depth <= camera.focal_length_m:
            raise InputError(
                f"retouch: strokes[{index}].depth: expected a distance beyond the focal length "
                f"({camera.focal_length_m:g} m), got {stroke.depth:g}"
            )
    return retouch.for_slices(names).scaled(size)


def _in_metres(retouch: Retouch, ends: tuple[float, float]) -> Retouch:
    """Return relative depths in the unit of the focus distances, of which the first and the last are given."""

    def converted(depth: float | None) -> float | None:
        return None if depth is None else float(depth_from_normalized(1 - depth, *ends))

    return replace(retouch, strokes=tuple(replace(one, depth=converted(one.depth)) for one in retouch.strokes))


def stroke_weight(stroke: Stroke, size: tuple[int, int]) -> tuple[Area, Float[Tensor, "h w"]] | None:
    """Return the rows and columns that a stroke touches, and its weight there.

    The weight is 1 up to ``radius_px`` from the stroke (and inside a filled outline) and falls linearly to 0 over
    ``feather_px``.

    Args:
        stroke: with points in pixels of this size.
        size: (H, W) of the picture.

    Returns:
        None if the stroke lies outside of the picture.
    """
    points = _thinned(np.array(stroke.points, np.float64), THINNED * stroke.radius_px)
    reach = stroke.radius_px + stroke.feather_px
    rows, columns = _within(points, reach, size)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    distance = np.full((rows.stop - rows.start, columns.stop - columns.start), np.inf, np.float32)
    for start, end in zip(points, points[1:] if len(points) > 1 else points, strict=False):
        own_rows, own_columns = _within(np.stack([start, end]), reach, size)
        y, x = np.mgrid[own_rows, own_columns].astype(np.float32) + 0.5
        along, offset = end - start, (x - start[0], y - start[1])
        share = np.clip((offset[0] * along[0] + offset[1] * along[1]) / max(float(along @ along), 1e-12), 0, 1)
        part = distance[_shifted(own_rows, rows), _shifted(own_columns, columns)]
        np.minimum(part, np.hypot(offset[0] - share * along[0], offset[1] - share * along[1]), out=part)
    if stroke.fill:
        distance[_inside(points - [columns.start, rows.start], distance.shape)] = 0
    if stroke.feather_px == 0:
        weight = (distance <= stroke.radius_px).astype(np.float32)
    else:
        weight = np.clip(1 - (distance - stroke.radius_px) / np.float32(stroke.feather_px), 0, 1)
    return (rows, columns), torch.from_numpy(weight)


def _inside(corners: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixel centres lie inside a closed outline, by the even-odd rule."""
    inside = np.zeros(shape, bool)
    x = np.arange(shape[1]) + 0.5
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
        first, last = (int(np.clip(math.ceil(y - 0.5), 0, shape[0])) for y in sorted((y1, y2)))
        if first < last:  # rows whose centres the edge crosses; everything to its right changes sides
            crossing = x1 + (np.arange(first, last) + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            inside[first:last] ^= x >= crossing[:, None]
    return inside


def _within(points: np.ndarray, reach_px: float, size: tuple[int, int]) -> Area:
    """Return the rows and columns of a picture that are within reach of any of the points."""
    low, high = np.floor(points.min(0) - reach_px), np.ceil(points.max(0) + reach_px)
    limits = [
        slice(int(np.clip(low[axis], 0, length)), int(np.clip(high[axis], 0, length)))
        for axis, length in ((1, size[0]), (0, size[1]))
    ]
    return limits[0], limits[1]


def _shifted(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _thinned(points: np.ndarray, spacing_px: float) -> np.ndarray:
    """Drop points that are nearer to the last kept one than a spacing; the ends stay."""
    kept = [points[0]]
    for point in points[1:-1]:
        if np.hypot(*(point - kept[-1])) >= spacing_px:
            kept.append(point)
    return np.array([*kept, *points[1:][-1:]])


def fit_plane(
    x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], values: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "3"]:
    """Fit ``values = a x + b y + c`` robustly to up to half of the points being wrong; return (a, b, c).

    The least median of squares over triples (Rousseeuw 1984, with a fixed seed) starts an M-estimate with Tukey's weights.
    A plane in space is one in inverse depth over the pixels.
    """
    kept = np.linspace(0, len(values) - 1, min(len(values), PLANE_SAMPLES)).round().astype(int)
    design = np.stack([x[kept], y[kept], np.ones(len(kept))], 1).astype(np.float64)
    target = values[kept].astype(np.float64)
    if len(kept) < 3:
        return np.array([0.0, 0.0, float(np.median(target))])
    triples = np.random.default_rng(0).integers(0, len(kept), (PLANE_TRIPLES, 3))
    candidates = np.stack([np.linalg.lstsq(design[three], target[three], rcond=None)[0] for three in triples])
    medians = np.median(np.abs(candidates @ design.T - target), 1)
    plane, deviation = candidates[medians.argmin()], 1.4826 * medians.min()
    deviation = max(float(deviation), 1e-6 * float(np.abs(target).max()))
    for _ in range(10):
        ratio = (design @ plane - target) / (TUKEY * deviation)
        weight = np.where(np.abs(ratio) < 1, 1 - ratio**2, 0)  # the root of Tukey's weight
        plane = np.linalg.lstsq(design * weight[:, None], target * weight, rcond=None)[0]
    return plane


@dataclass(frozen=True)
class _Plane:
    """An inverse depth over normalized coordinates (0 to 1), and the range that it is kept in."""

    coefficients: Float[np.ndarray, "3"]
    low: float
    high: float

    def at(self, area: Area, size: tuple[int, int]) -> Tensor:
        x, y = _normalized(area, size)
        a, b, c = (float(value) for value in self.coefficients)
        return (a * x + b * y + c).clamp(self.low, self.high).float()


def _normalized(area: Area, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the coordinates of pixel centres as shares of the picture's width and height, in double precision."""
    rows, columns = (torch.arange(part.start, part.stop, dtype=torch.float64) + 0.5 for part in area)
    y, x = torch.meshgrid(rows / size[0], columns / size[1], indexing="ij")
    return x, y


def _edited_depth(depth_m: Tensor, retouch: Retouch, solution: Solution) -> tuple[Tensor, list[_Plane]]:
    """Return full-size depth with the depth strokes, and the plane of each, fitted to what earlier strokes left."""
    low, high = 0.1 / float(solution.stack.far_m), 1 / float(solution.stack.near_m)
    planes: list[_Plane] = []
    for stroke in (stroke for stroke in retouch.strokes if stroke.edits_depth):
        if stroke.depth is not None:
            inverse = 1 / stroke.depth
            plane = _Plane(np.array([0.0, 0.0, inverse]), inverse, inverse)
        else:
            plane = _Plane(_plane_below(stroke, depth_m), low, high)
        planes.append(plane)
        depth_m = _with_plane(depth_m, stroke, plane)
    return depth_m, planes


def _plane_below(stroke: Stroke, depth_m: Tensor) -> np.ndarray:
    """Return the plane of the depth below a stroke; 0 where it covers no pixel."""
    found = stroke_weight(stroke, (depth_m.shape[0], depth_m.shape[1]))
    if found is None or not bool((inside := found[1] == 1).any()):
        return np.zeros(3)
    x, y = (axis[inside].numpy() for axis in _normalized(found[0], (depth_m.shape[0], depth_m.shape[1])))
    return fit_plane(x, y, (1 / depth_m[found[0]][inside].double()).numpy())


def _with_plane(depth_m: Tensor, stroke: Stroke, plane: _Plane) -> Tensor:
    """Return (H,W) depth that is moved towards a plane by the stroke's weight and strength, in inverse depth."""
    size = (depth_m.shape[0], depth_m.shape[1])
    found = stroke_weight(stroke, size)
    if found is None:
        return depth_m
    area, weight = found
    before = depth_m[area]
    inverse = torch.lerp(1 / before, plane.at(area, size), stroke.strength * weight)
    edited = depth_m.clone()
    edited[area] = torch.where(stroke.strength * weight > 0, 1 / inverse, before)
    return edited


def _edited(
    prediction: Prediction,
    depth_m: Tensor,
    retouch: Retouch,
    slices: FullSlices,
    focus_distances_m: Tensor,
    camera: Camera,
) -> tuple[Prediction, dict[str, float]]:
    """Return a prediction with new depth, an AIF that follows it, and the strokes of slices; and what share changed."""
    device = prediction.depth_m.device
    old_depth_m, old_aif = prediction.depth_m[0].cpu(), prediction.aif[0].cpu()
    is_new = depth_m != old_depth_m
    aif = _blended_where_new(old_aif, old_depth_m, depth_m, is_new, slices, focus_distances_m, camera)
    aif = _with_slices(aif, retouch.strokes, slices)
    shares = {"depth_share": float(is_new.float().mean()), "aif_share": float((aif != old_aif).any(0).float().mean())}
    beyond = prediction.beyond_range
    if beyond is not None:
        beyond = torch.where(is_new[None].to(beyond.device), 0.0, beyond)
    maps = prediction.defocus_px
    if maps.shape[-2:] == depth_m.shape:  # else those of the working size, which are rendered again
        maps = defocus_map_px(depth_m[None].to(device), focus_distances_m[None].to(device), camera)
    new_depth_m, new_aif = depth_m[None].to(device), aif[None].to(device)
    return replace(prediction, depth_m=new_depth_m, aif=new_aif, defocus_px=maps, beyond_range=beyond), shares


def _blended_where_new(
    aif: Tensor,
    old_depth_m: Tensor,
    depth_m: Tensor,
    is_new: Bool[Tensor, "h w"],
    slices: FullSlices,
    focus_distances_m: Tensor,
    camera: Camera,
) -> Tensor:
    """Return the AIF with the slices that are sharpest at the new depth, where it is new.

    With s the change of blur in pixels and r the smallest blur radius at the new depth, the blend has the share
    s^2 / (1 + s^2) / (1 + r^2): where depth hardly moved or no slice is sharp, the AIF is the better one.
    """
    if not bool(is_new.any()):
        return aif
    lines = (is_new.any(1).nonzero()[:, 0], is_new.any(0).nonzero()[:, 0])
    area = (slice(int(lines[0][0]), int(lines[0][-1]) + 1), slice(int(lines[1][0]), int(lines[1][-1]) + 1))
    inside, new_m = slices.cropped(area), depth_m[area]
    blended = blend_slices(inside.load, new_m, focus_distances_m, camera, inside.covered, inside.clipped)
    shift_px = camera.blur_scale_px_m * (1 / new_m - 1 / old_depth_m[area])
    smallest_px = torch.full_like(new_m, torch.inf)
    for distance, lens in zip(focus_distances_m, camera.per_slice(len(focus_distances_m)), strict=True):
        smallest_px = torch.minimum(smallest_px, lens.blur_radius_px(new_m, distance))
    share = shift_px.square() / (1 + shift_px.square()) / (1 + smallest_px.square())
    edited = aif.clone()
    edited[:, area[0], area[1]] = torch.lerp(aif[:, area[0], area[1]], blended, share * is_new[area])
    return edited


def _with_slices(aif: Tensor, strokes: Sequence[Stroke], slices: FullSlices) -> Tensor:
    """Return (3,H,W) with the strokes of slices; a slice that shows nothing at a pixel leaves it."""
    edited, loaded_index, image = aif, -1, aif
    for stroke in strokes:
        found = stroke_weight(stroke, (aif.shape[1], aif.shape[2])) if stroke.operation == "slice" else None
        if found is None:
            continue
        assert stroke.slice is not None  # the schema requires it
        area, weight = found
        if slices.covered is not None:
            weight = weight * (slices.covered[stroke.slice][area] > 0.5)
        if edited is aif:
            edited = aif.clone()
        if stroke.slice != loaded_index:  # neighbouring strokes often take from one slice
            loaded_index, image = stroke.slice, slices.load[stroke.slice]()
        part = edited[:, area[0], area[1]]
        part.copy_(torch.lerp(part, image[:, area[0], area[1]], weight))
    return edited


def _rendered_again(
    prediction: Prediction, solution: Solution, renderer: Renderer, device: torch.device | str
) -> Prediction:
    """Return the prediction at the working size with the stack that its depth and AIF render."""
    with torch.no_grad():
        output = NetworkOutput(prediction.depth_m.to(device), prediction.aif.to(device))
        rendered = render_prediction(output, renderer, solution.stack.to(device))
    home = prediction.depth_m.device
    return replace(prediction, rendered=_moved(rendered.rendered, home), defocus_px=rendered.defocus_px.to(home))


def _moved(values: Tensor | None, device: torch.device) -> Tensor | None:
    return None if values is None else values.to(device)


def _picture(
    full: Prediction, retouch: Retouch, slices: FullSlices, camera: Camera, renderer: Renderer
) -> Tensor | None:
    """Return the AIF with the background blurred, and the strokes of slices that come after it; None without one."""
    index = next((i for i, stroke in enumerate(retouch.strokes) if stroke.operation == "background"), None)
    if index is None:
        return None
    stroke, aif, depth_m = retouch.strokes[index], full.aif[0].cpu(), full.depth_m[0].cpu()
    camera = camera.widest()
    assert stroke.depth is not None  # the schema requires it
    if stroke.slice is None:
        picture = _rendered_background(aif, depth_m, stroke.depth, stroke.aperture, camera, renderer)
    else:
        weight = _background_weight(depth_m, stroke.depth, camera)
        if slices.covered is not None:
            weight = weight * (slices.covered[stroke.slice] > 0.5)
        picture = torch.lerp(aif, slices.load[stroke.slice](), weight)
    return _with_slices(picture, retouch.strokes[index + 1 :], slices)


def _rendered_background(
    aif: Tensor, depth_m: Tensor, beyond_m: float, aperture: float, camera: Camera, renderer: Renderer
) -> Tensor:
    """Render with the focus where the background begins and all nearer surfaces moved there, so that they stay sharp.

    The aperture is reduced where the blur would be wider than can be rendered.
    """
    background_m = depth_m.clamp_min(beyond_m)
    largest_px = float(camera.blur_radius_px(background_m, torch.tensor(beyond_m)).max())
    if largest_px == 0:
        return aif
    aperture = min(aperture, 0.999 * LARGEST_BLUR * max(depth_m.shape) / largest_px)
    finished = FinishedPrediction(aif, background_m, camera, renderer, False, (beyond_m, beyond_m))
    return torch.where(depth_m > beyond_m, finished.refocused(beyond_m, aperture), aif)


def _background_weight(depth_m: Tensor, beyond_m: float, camera: Camera) -> Tensor:
    """Return (H,W): 0 up to a depth, 1 from where a focus on it would blur by a pixel, feathered on the far side only."""
    sharp = camera.blur_radius_px(depth_m, torch.tensor(beyond_m)).clamp_max(1.0) * (depth_m > beyond_m)
    side = 2 * max(1, math.ceil(max(depth_m.shape) / 1000)) + 1
    feathered = torch.from_numpy(cv2.blur(sharp.numpy(), (side, side)))
    return torch.minimum(sharp, feathered)
