"""Registration of the slices of a real stack: handheld shift, focus breathing.

Focusing moves the lens and so changes the field of view ("breathing"): a scale about the image centre; hands add a shift.
The lens' distortion changes with it: on three real phones the corners lag behind that scale by a third to a half of it
(docs/your_own_stack.md), and depth bends into a bowl where that is taken for blur.
Neighbouring slices (by focus distance) are blurred alike, so they are registered pairwise, by maximising the enhanced
correlation coefficient (Evangelidis and Psarakis, PAMI 2008; OpenCV), which exposure does not change, on smoothed images
from coarse to fine, and the motions are chained to a reference slice. Blur that differs from place to place looks like a
little motion; one that explains too little of the difference between the slices is taken for none (``MOVED``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from sfdfd.data.slices import Slices
from sfdfd.errors import InputError

__all__ = ["Alignment", "align", "estimate_alignment", "motions"]

Array = np.ndarray
WORKING_PX = 1024
"""Longer side of the images that motion is estimated on."""
MOVED, MOVED_TOO = 0.15, 0.04
"""A stack has moved where undoing the motion removes this share of the decorrelation between some pair of neighbours; then
the other pairs need only the second. Unequal blur alone feigns motions of a pixel or two, but removes at most a tenth."""
BAND_PX = 128
BENT = 0.03
"""Distortion is taken where it removes this share of the decorrelation that scale and shift have left."""
MODELS = ("radial", "scale_shift", "affine", "homography")


@dataclass(frozen=True)
class Alignment:
    """Where each slice sees what the reference slice sees.

    Attributes:
        reference: index of the reference slice.
        matrices: (S,3,3) homogeneous; pixel (x, y, 1) of the reference -> pixel of the slice.
        radial: (S,) third-order distortion against the reference: before the matrix, a pixel at r half diagonals from the
            image's centre is drawn away from it by ``radial * r^2`` of its distance.
        shift_px: (S,2) horizontal and vertical shift of the image centre in pixels.
        scale: (S,) magnification against the reference, at the centre.
        motion_px: (S,) largest displacement of an image corner, or halfway to it, in pixels.
        residual_px: (S,) displacement against the next slice towards the reference that is left after alignment (median
            over tiles, by phase correlation), in pixels; 0 for the reference; NaN where nothing could be measured.
        notes: what went wrong, in words.
    """

    reference: int
    matrices: Array
    radial: Array
    shift_px: Array
    scale: Array
    motion_px: Array
    residual_px: Array
    notes: tuple[str, ...] = ()

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain numbers per slice, for JSON and tables."""
        return {
            "reference": names[self.reference],
            "slices": [
                {
                    "file": name,
                    "shift_px": [round(float(v), 3) for v in self.shift_px[i]],
                    "scale": round(float(self.scale[i]), 6),
                    "radial": round(float(self.radial[i]), 6),
                    "motion_px": round(float(self.motion_px[i]), 3),
                    "residual_px": round(float(self.residual_px[i]), 3),
                }
                for i, name in enumerate(names)
            ],
            "notes": list(self.notes),
        }


def _gray(image: Array, factor: float) -> Array:
    """(H,W,3) of any type -> (h,w) float32 of about unit range, reduced by area."""
    scale = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
    if factor < 1:
        size = (max(16, round(image.shape[1] * factor)), max(16, round(image.shape[0] * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return (image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)) / np.float32(scale)


def _corners(height: int, width: int) -> Array:
    return np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], float).T


def _displacement(matrix: Array, points: Array) -> Array:
    moved = matrix @ points
    return moved[:2] / moved[2:] - points[:2]


def _drawn_out(x: Array, y: Array, radial: float, height: int, width: int) -> Array:
    """Homogeneous points (3,...) of an image where its distortion puts them."""
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = x - middle_x, y - middle_y
    factor = 1 + radial * (x * x + y * y) / (middle_x**2 + middle_y**2)
    return np.stack([x * factor + middle_x, y * factor + middle_y, np.ones_like(factor)])


def _constrained(matrix: Array, gray: Array, model: str) -> Array:
    """The nearest motion of the model, in the least squares over textured pixels."""
    if model not in ("radial", "scale_shift"):
        return matrix
    height, width = gray.shape
    ys, xs = np.mgrid[0 : height - 1 : 24j, 0 : width - 1 : 24j]
    points = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    slope = cv2.boxFilter(np.abs(cv2.Laplacian(gray, cv2.CV_32F)), -1, (31, 31))
    weight = slope[ys.round().astype(int).ravel(), xs.round().astype(int).ravel()].astype(float) + 1e-6
    weight /= weight.sum()
    moved = points[:2] + _displacement(matrix, points)
    center, target = (points[:2] * weight).sum(1, keepdims=True), (moved * weight).sum(1, keepdims=True)
    scale = float((((moved - target) * (points[:2] - center)).sum(0) * weight).sum())
    scale /= float((((points[:2] - center) ** 2).sum(0) * weight).sum())
    shift = (target - scale * center)[:, 0]
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def _register(fixed: Array, moving: Array, model: str) -> tuple[Array, float, float | None]:
    """Matrix and distortion from pixels of ``fixed`` to pixels of ``moving``, and the share of the decorrelation that they
    remove; None where nothing could be registered."""
    kind = cv2.MOTION_HOMOGRAPHY if model == "homography" else cv2.MOTION_AFFINE
    matrix, found = np.eye(3), False
    if min(float(cv2.GaussianBlur(image, (0, 0), 2.0).std()) for image in (fixed, moving)) < 1e-3:
        return matrix, 0.0, None  # nothing to hold on to
    levels = [factor for factor in (0.125, 0.25, 0.5, 1.0) if min(fixed.shape) * factor >= 48] or [1.0]
    for factor in levels:
        size = (round(fixed.shape[1] * factor), round(fixed.shape[0] * factor))
        pair = [
            cv2.GaussianBlur(cv2.resize(i, size, interpolation=cv2.INTER_AREA), (0, 0), 2.0) for i in (fixed, moving)
        ]
        zoom = np.diag([size[0] / fixed.shape[1], size[1] / fixed.shape[0], 1.0])
        guess = zoom @ matrix @ np.linalg.inv(zoom)
        start = (guess if kind == cv2.MOTION_HOMOGRAPHY else guess[:2]).astype(np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-6)
        try:
            _, result = cv2.findTransformECC(pair[0], pair[1], start, kind, criteria, None, 5)  # type: ignore[call-overload] # None is no mask
        except cv2.error:
            continue  # no texture at this size
        full = np.eye(3)
        full[: result.shape[0]] = result
        candidate = _constrained(np.linalg.inv(zoom) @ full @ zoom, fixed, model)
        scale = math.sqrt(abs(np.linalg.det(candidate[:2, :2])))
        if np.isfinite(candidate).all() and 0.7 < scale < 1.4:
            matrix, found = candidate, True
    if not found:
        return matrix, 0.0, None
    before, after = _decorrelation(fixed, moving), _decorrelation(fixed, _warp(moving, matrix))
    radial = 0.0
    if model == "radial":
        bent, bend = _bent(fixed, moving, matrix)
        left = _decorrelation(fixed, _warp(moving, bent, bend))
        if left < (1 - BENT) * after:
            matrix, radial, after = bent, bend, left
    return matrix, radial, float(1 - after / before) if before > 1e-9 else 0.0


def _decorrelation(fixed: Array, moving: Array) -> float:
    """One minus the enhanced correlation coefficient of two smoothed images."""
    return 1 - cv2.computeECC(*(cv2.GaussianBlur(image, (0, 0), 2.0) for image in (fixed, moving)))


def _bent(fixed: Array, moving: Array, matrix: Array, iterations: int = 10) -> tuple[Array, float]:
    """Scale, shift and third-order distortion together, from a matrix that is near: Gauss-Newton on smoothed images with a
    gain and an offset of brightness. (Weights that give up what does not fit leave more decorrelation.)"""
    height, width = fixed.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = columns - middle_x, rows - middle_y
    square = (x * x + y * y) / (middle_x**2 + middle_y**2)
    inner = (slice(8, -8, 2), slice(8, -8, 2))
    target, radial = cv2.GaussianBlur(fixed, (0, 0), 2.0), 0.0
    for _ in range(iterations):
        seen = cv2.GaussianBlur(_warp(moving, matrix, radial), (0, 0), 2.0)
        down, along = np.gradient(seen)
        outward = along * x + down * y
        columns_of = [along, down, outward, outward * square, seen, np.ones_like(seen)]
        jacobian = np.stack([one[inner].ravel() for one in columns_of], 1).astype(float)
        error = (target - seen)[inner].ravel().astype(float)
        try:
            right, lower, scale, bend, *_ = np.linalg.solve(jacobian.T @ jacobian, jacobian.T @ error)
        except np.linalg.LinAlgError:
            break
        if not max(abs(scale), abs(bend)) < 0.1:
            break  # it runs away
        step = np.array([[1 + scale, 0, right - scale * middle_x], [0, 1 + scale, lower - scale * middle_y], [0, 0, 1]])
        matrix, radial = matrix @ step, radial + float(bend)
        if max(abs(right), abs(lower), abs(scale) * width, abs(bend) * width) < 0.01:
            break
    return matrix, radial


def _residual_px(fixed: Array, moving: Array) -> float:
    """Median displacement over textured tiles, in pixels."""
    height, width = fixed.shape
    side = max(32, min(height, width) // 4)
    window = cv2.createHanningWindow((side, side), cv2.CV_32F)
    found = []
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            tiles = [cv2.GaussianBlur(i[top : top + side, left : left + side], (0, 0), 1.5) for i in (fixed, moving)]
            if min(float(tile.std()) for tile in tiles) < 0.01:
                continue
            (dx, dy), response = cv2.phaseCorrelate(tiles[0], tiles[1], window)
            if response > 0.1:
                found.append(math.hypot(dx, dy))
    return float(np.median(found)) if found else math.nan


def estimate_alignment(
    images: Sequence[Array], focus_distances_m: Sequence[float] | None = None, model: str = "radial"
) -> Alignment:
    """How each slice lies against the reference, the middle one in order of focus.

    Args:
        images: two or more (H,W,3) arrays of one size, uint8, uint16 or float in [0, 1].
        focus_distances_m: gives the order of the chain; None takes the slices as they come.
        model: "radial" (scale about a centre, translation, and the distortion that changes with focus, where it is seen),
            "scale_shift" (without it), "affine" or "homography".

    Returns:
        See :class:`Alignment`; a pair that cannot be registered keeps the identity and is noted.

    Raises:
        InputError: an unknown model.
    """
    if model not in MODELS:
        raise InputError(f"align.model: expected one of {', '.join(MODELS)}, got {model!r}")
    height, width = images[0].shape[:2]
    factor = min(1.0, WORKING_PX / max(height, width))
    grays = [_gray(image, factor) for image in images]
    order = list(range(len(images)))
    if focus_distances_m is not None:
        order.sort(key=lambda i: 1 / focus_distances_m[i])
    middle = len(order) // 2
    reference = order[middle]
    zoom = np.diag([grays[0].shape[1] / width, grays[0].shape[0] / height, 1.0])
    matrices, radial = np.tile(np.eye(3), (len(images), 1, 1)), np.zeros(len(images))
    towards: dict[int, int] = {}
    notes = []
    pairs = [pair for steps in (order[middle::-1], order[middle:]) for pair in pairwise(steps)]
    registered = [_register(grays[near], grays[far], model) for near, far in pairs]  # near is nearer to the reference
    moved = any(gain is not None and gain >= MOVED for *_, gain in registered)
    for (near, far), (pair, bend, gain) in zip(pairs, registered, strict=True):
        if gain is None:
            notes.append(f"slice {far} could not be registered against slice {near}; it is taken as it lies")
        accepted = moved and gain is not None and gain >= MOVED_TOO
        matrices[far] = pair @ matrices[near] if accepted else matrices[near]
        radial[far] = radial[near] + (bend if accepted else 0.0)  # to first order
        towards[far] = near
    small = matrices.copy()
    matrices = np.linalg.inv(zoom) @ matrices @ zoom
    residual = np.zeros(len(images))
    warped = [_warp(gray, matrix, bend) for gray, matrix, bend in zip(grays, small, radial.tolist(), strict=True)]
    for index, neighbour in towards.items():
        residual[index] = _residual_px(warped[neighbour], warped[index]) / factor
    return Alignment(
        reference=reference,
        matrices=matrices,
        radial=radial,
        **motions(matrices, radial, height, width),
        residual_px=residual,
        notes=tuple(notes),
    )


def motions(matrices: Array, radial: Array, height: int, width: int) -> dict[str, Array]:
    """``shift_px``, ``scale`` and ``motion_px`` of an :class:`Alignment` of these matrices and distortions."""
    center = np.array([[(width - 1) / 2], [(height - 1) / 2], [1.0]])
    corners = _corners(height, width)
    points = np.concatenate([corners, (corners + center) / 2], 1)
    bent = [_drawn_out(points[0], points[1], float(bend), height, width) for bend in radial]
    moved = [_displacement(matrix, one) + (one - points)[:2] for matrix, one in zip(matrices, bent, strict=True)]
    return {
        "shift_px": np.stack([_displacement(matrix, center)[:, 0] for matrix in matrices]),
        "scale": np.array([math.sqrt(abs(np.linalg.det(matrix[:2, :2]))) for matrix in matrices]),
        "motion_px": np.array([np.hypot(*one).max() for one in moved]),
    }


def _warp(image: Array, matrix: Array, radial: float = 0.0) -> Array:
    """An image as the reference sees it, the border repeated."""
    return _drawn(image, matrix, radial, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def _drawn(image: Array, matrix: Array, radial: float, how: int, border: int) -> Array:
    size = image.shape[1::-1]
    if not radial:
        return cv2.warpPerspective(image, matrix, size, flags=how | cv2.WARP_INVERSE_MAP, borderMode=border)
    width, height = size
    x, drawn = np.arange(width)[None], np.empty_like(image)
    for top in range(0, height, BAND_PX):  # the maps of a whole photograph would be larger than it
        y = np.arange(top, min(top + BAND_PX, height))[:, None]
        across, down, unit = np.tensordot(matrix, _drawn_out(x, y, radial, height, width), 1)
        maps = [(one / unit).astype(np.float32) for one in (across, down)]
        drawn[top : top + len(y)] = cv2.remap(image, maps[0], maps[1], how, borderMode=border)
    return drawn


def align(images: Sequence[Array], alignment: Alignment) -> tuple[Slices, Slices]:
    """Every slice on the canvas of the reference, made when it is needed.

    Returns:
        The slices, of their type, edges repeated where a slice does not reach, and (H,W) bool each: where it does.
    """
    height, width = images.shape[:2] if isinstance(images, Slices) else images[0].shape[:2]
    size = height, width
    motion: list[tuple[Array, float] | None] = []
    for index, (matrix, radial) in enumerate(zip(alignment.matrices, alignment.radial.tolist(), strict=True)):
        lies = index == alignment.reference or (np.allclose(matrix, np.eye(3)) and not radial)
        motion.append(None if lies else (matrix, radial))
    aligned = Slices([partial(_moved, images, index, one) for index, one in enumerate(motion)])
    return aligned, Slices([partial(_reach, one, size) for one in motion])


def _moved(images: Sequence[Array], index: int, motion: tuple[Array, float] | None) -> Array:
    return images[index] if motion is None else _warp(images[index], *motion)


def _reach(motion: tuple[Array, float] | None, size: tuple[int, int]) -> Array:
    """(H,W) bool, where a slice shows something."""
    if motion is None:
        return np.ones(size, bool)
    return _drawn(np.ones(size, np.uint8), *motion, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0
