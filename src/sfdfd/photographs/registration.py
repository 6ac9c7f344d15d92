"""How one slice lies against its neighbour: enhanced correlation over the pixels that may say it (Evangelidis and Psarakis,
PAMI 2008; OpenCV), and which of its answers are motions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sfdfd.photographs.registration_masks import Gray, both, explained_tiles, filled, resized, smoothed, static_pixels
from sfdfd.photographs.warping import corners, displacement, drawn, drawn_out, motions, warp

__all__ = ["MOVED_TOO", "Motion", "register", "residual_px", "warped"]

Array = np.ndarray
MOVED, MOVED_TOO = 0.15, 0.04
"""A stack has moved where undoing the motion removes this share of the decorrelation between some pair of neighbours; then
the other pairs need only the second. Unequal blur alone feigns motions of a pixel or two, but removes at most a tenth."""
BORNE_OUT = 2.0
"""A motion explains so many times as much of the textured area better than it explains worse. Defocus of contrasty scenes,
and clipped ones, can feign motions that remove more than ``MOVED``, but at a few strong edges only."""
SAME_PX = 0.3
"""Motions with and without what agrees in place that differ by less than this are one: there is no dust that matters."""
STATIC_PX, STATIC_MARGIN_PX = 1.5, 4
"""A motion from which dust that stays in place can be told from the scene, and how much of its surroundings goes with it."""
DUST_PX, TRIALS = 512, 2
"""Longer side of the images on which dust is looked for, and how often, each time with the motion of the rest."""
LEAST_STATIC = 0.002
"""Share of the pixels from which dust matters."""
LEAST_USABLE = 0.02
"""Share of the pixels that must say something."""
BENT = 0.03
"""Distortion is taken where it removes this share of the decorrelation that scale and shift have left."""


def _constrained(matrix: Array, gray: Gray, model: str) -> Array:
    """The nearest motion of the model, in the least squares over textured usable pixels."""
    if model not in ("radial", "scale_shift"):
        return matrix
    height, width = gray.image.shape
    ys, xs = np.mgrid[0 : height - 1 : 24j, 0 : width - 1 : 24j]
    points = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    slope = np.abs(cv2.Laplacian(gray.image, cv2.CV_32F))
    slope = cv2.boxFilter(slope if gray.usable is None else slope * gray.usable, -1, (31, 31))
    weight = slope[ys.round().astype(int).ravel(), xs.round().astype(int).ravel()].astype(float) + 1e-6
    weight /= weight.sum()
    moved = points[:2] + displacement(matrix, points)
    center, target = (points[:2] * weight).sum(1, keepdims=True), (moved * weight).sum(1, keepdims=True)
    scale = float((((moved - target) * (points[:2] - center)).sum(0) * weight).sum())
    scale /= float((((points[:2] - center) ** 2).sum(0) * weight).sum())
    shift = (target - scale * center)[:, 0]
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


@dataclass(frozen=True)
class Motion:
    """How one slice lies against its neighbour.

    Attributes:
        matrix, radial: from pixels of the neighbour to pixels of the slice, as of :class:`Alignment`.
        gain: the share of the decorrelation that they remove; None where nothing could be registered.
        better, worse: how many textured tiles they explain better and worse than no motion does.
    """

    matrix: Array
    radial: float = 0.0
    gain: float | None = None
    better: int = 0
    worse: int = 0

    def bears(self, gain: float) -> bool:
        """Whether it removes so much of the decorrelation, and over most of the picture, not only at a few strong edges."""
        return self.gain is not None and self.gain >= gain and self.better > self.worse

    @property
    def sure(self) -> bool:
        """Whether it is a motion by itself, whatever the other slices did."""
        chance = 2 * math.sqrt(self.better + self.worse)  # two standard deviations of as many tosses of a coin
        return self.bears(MOVED) and self.better > BORNE_OUT * self.worse and self.better - self.worse > chance


def register(pairs: Sequence[tuple[Gray, Gray]], model: str) -> list[Motion]:
    """How the second of each pair lies against the first; pixels that are clipped or show the sensor's own dust have no say.

    Dust stays where it is while the scene moves, so it pulls towards no motion, the more the more the scene is blurred. It
    is the same in every slice: what is found in half of the pairs is left out of all.
    """
    registered = [_registered(*pair, model) for pair in pairs]
    found = [_dust(*pair, first, model) for pair, first in zip(pairs, registered, strict=True)]
    dust = [_grown(one) for one in found if one is not None]
    static = np.sum(dust, 0) >= len(pairs) / 2 if dust else np.zeros(1, bool)
    if not static.any():
        return registered
    return [_registered(*_without(*pair, static), model) for pair in pairs]


def _dust(fixed: Gray, moving: Gray, first: Motion, model: str) -> Array | None:
    """(h,w) bool, what stays in place while the scene moves; None where nothing does. Looked for at ``DUST_PX``.

    What agrees in place is left out on trial: if the rest of the picture then moves as one, that was dust.

    Args:
        fixed, moving: two slices.
        first: the motion that all of their pixels together ask for.
        model: as of :func:`estimate_alignment`.
    """
    height, width = fixed.image.shape
    factor = min(1.0, DUST_PX / max(height, width))
    size = (round(width * factor), round(height * factor))
    small = resized(fixed, size), resized(moving, size)
    zoom = np.diag([size[0] / width, size[1] / height, 1.0])
    trial = replace(first, matrix=zoom @ first.matrix @ np.linalg.inv(zoom))
    if first.sure and _largest(trial, size) > STATIC_PX and _stays(*small, trial, strict=True) is None:
        return None
    static, before = static_pixels(*small), trial
    for _ in range(TRIALS):
        if static is None or static.mean() < LEAST_STATIC:
            return None
        trial = _registered(*_without(*small, _grown(static)), model)
        if not (trial.sure and _largest(trial, size) > STATIC_PX):
            return None
        if first.sure and _apart(before, trial, size) < SAME_PX:
            return None  # it does no harm
        static = _stays(*small, trial)
    return None if static is None else cv2.resize(static.astype(np.uint8), (width, height)) > 0


def _stays(fixed: Gray, moving: Gray, motion: Motion, strict: bool = False) -> Array | None:
    """Where two slices agree in place although a motion moves the picture there; None where that is next to nowhere."""
    static = static_pixels(fixed, moving, warped(moving, motion), strict)
    if static is None:
        return None
    height, width = fixed.image.shape
    x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    placed = np.tensordot(motion.matrix, drawn_out(x, y, motion.radial, height, width), 1)
    static &= np.hypot(placed[0] / placed[2] - x, placed[1] / placed[2] - y) > STATIC_PX
    return None if static.mean() < LEAST_STATIC else static


def _without(fixed: Gray, moving: Gray, static: Array) -> tuple[Gray, Gray]:
    """Both slices without static pixels."""
    first, second = (~static if gray.usable is None else gray.usable & ~static for gray in (fixed, moving))
    return filled(fixed.image, first), filled(moving.image, second)


def _grown(static: Array) -> Array:
    """Static pixels and what is near them."""
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * STATIC_MARGIN_PX + 1,) * 2)
    return cv2.dilate(static.astype(np.uint8), around) > 0


def _largest(motion: Motion, size: tuple[int, int]) -> float:
    """The largest displacement in an image of (width, height), in pixels."""
    return float(motions(motion.matrix[None], np.array([motion.radial]), size[1], size[0])["motion_px"][0])


def _apart(one: Motion, other: Motion, size: tuple[int, int]) -> float:
    """The largest distance between where two motions put a corner, or the centre, of an image of (width, height)."""
    points = (
        drawn_out(*_points(*size), one.radial, *size[::-1]),
        drawn_out(*_points(*size), other.radial, *size[::-1]),
    )
    placed = [motion.matrix @ point for motion, point in zip((one, other), points, strict=True)]
    return float(np.hypot(*(placed[0][:2] / placed[0][2] - placed[1][:2] / placed[1][2])).max())


def _points(width: int, height: int) -> tuple[Array, Array]:
    """x and y of the corners and the centre."""
    ends = corners(height, width)
    return np.append(ends[0], (width - 1) / 2), np.append(ends[1], (height - 1) / 2)


def _registered(fixed: Gray, moving: Gray, model: str) -> Motion:
    """Motion over the usable pixels, from coarse to fine."""
    matrix, found = np.eye(3), False
    usable = both(fixed.usable, moving.usable)
    if usable is not None and usable.mean() < LEAST_USABLE:
        return Motion(matrix)  # too little is left
    if min(_deviation(gray) for gray in (fixed, moving)) < 1e-3:
        return Motion(matrix)  # nothing to hold on to
    height, width = fixed.image.shape
    levels = [factor for factor in (0.125, 0.25, 0.5, 1.0) if min(height, width) * factor >= 48] or [1.0]
    for factor in levels:
        size = (round(width * factor), round(height * factor))
        zoom = np.diag([size[0] / width, size[1] / height, 1.0])
        result = _maximised(resized(fixed, size), resized(moving, size), zoom @ matrix @ np.linalg.inv(zoom), model)
        if result is None:
            continue  # no texture at this size
        candidate = _constrained(np.linalg.inv(zoom) @ result @ zoom, fixed, model)
        scale = math.sqrt(abs(np.linalg.det(candidate[:2, :2])))
        if np.isfinite(candidate).all() and 0.7 < scale < 1.4:
            matrix, found = candidate, True
    if not found:
        return Motion(matrix)
    return _judged(fixed, moving, matrix, model)


def _maximised(fixed: Gray, moving: Gray, guess: Array, model: str) -> Array | None:
    """The matrix near a guess that maximises the enhanced correlation coefficient; None where there is none."""
    kind = cv2.MOTION_HOMOGRAPHY if model == "homography" else cv2.MOTION_AFFINE
    start = (guess if kind == cv2.MOTION_HOMOGRAPHY else guess[:2]).astype(np.float32)
    usable = moving.usable
    if fixed.usable is not None:  # OpenCV takes one mask, of the slice that is moved
        size = moving.image.shape[1::-1]
        seen = cv2.warpPerspective(fixed.usable.astype(np.uint8), guess, size, flags=cv2.INTER_NEAREST) > 0
        usable = both(usable, seen)
    mask = None if usable is None else usable.astype(np.uint8) * 255
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-6)
    try:
        _, result = cv2.findTransformECC(smoothed(fixed), smoothed(moving), start, kind, criteria, mask, 5)  # type: ignore[arg-type, call-overload] # None is no mask
    except cv2.error:
        return None
    full = np.eye(3)
    full[: result.shape[0]] = result
    return full


def _judged(fixed: Gray, moving: Gray, matrix: Array, model: str) -> Motion:
    """A matrix with the distortion that is left, if any, and how much the two explain."""
    radial, explained = 0.0, warped(moving, Motion(matrix))
    after = _decorrelation(fixed, explained, moving.usable)
    if model == "radial":
        bent, bend = _bent(fixed, moving, matrix)
        bent_too = warped(moving, Motion(bent, bend))
        left = _decorrelation(fixed, bent_too, moving.usable)
        if left < (1 - BENT) * after:
            matrix, radial, after, explained = bent, bend, left, bent_too
    before = _decorrelation(fixed, moving, explained.usable)
    gain = float(1 - after / before) if before > 1e-9 else 0.0
    return Motion(matrix, radial, gain, *explained_tiles(fixed, moving, explained))


def warped(moving: Gray, motion: Motion) -> Gray:
    """A slice on the canvas of its neighbour, the border repeated."""
    place = (motion.matrix, motion.radial)
    usable = moving.usable
    if usable is not None:
        usable = drawn(usable.astype(np.uint8), *place, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE) > 0
    return Gray(warp(moving.image, *place), usable)


def _deviation(gray: Gray) -> float:
    image = smoothed(gray)
    return float((image if gray.usable is None else image[gray.usable]).std())


def _decorrelation(fixed: Gray, moving: Gray, usable: Array | None) -> float:
    """One minus the enhanced correlation coefficient of two smoothed images, where both and ``usable`` say so."""
    usable = both(both(fixed.usable, moving.usable), usable)
    mask = None if usable is None else usable.astype(np.uint8)
    return 1 - cv2.computeECC(smoothed(fixed), smoothed(moving), mask)  # type: ignore[call-overload] # None is no mask


def _bent(fixed: Gray, moving: Gray, matrix: Array, iterations: int = 10) -> tuple[Array, float]:
    """Scale, shift and third-order distortion together, from a matrix that is near: Gauss-Newton on smoothed images with a
    gain and an offset of brightness. (Weights that give up what does not fit leave more decorrelation.)"""
    height, width = fixed.image.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = columns - middle_x, rows - middle_y
    square = (x * x + y * y) / (middle_x**2 + middle_y**2)
    inner = (slice(8, -8, 2), slice(8, -8, 2))
    target, radial = cv2.GaussianBlur(fixed.image, (0, 0), 2.0), 0.0
    for _ in range(iterations):
        tried = warped(moving, Motion(matrix, radial))
        seen, usable = cv2.GaussianBlur(tried.image, (0, 0), 2.0), both(fixed.usable, tried.usable)
        down, along = np.gradient(seen)
        outward = along * x + down * y
        columns_of = [along, down, outward, outward * square, seen, np.ones_like(seen)]
        jacobian = np.stack([one[inner].ravel() for one in columns_of], 1).astype(float)
        error = (target - seen)[inner].ravel().astype(float)
        if usable is not None:
            told = usable[inner].ravel()
            jacobian, error = jacobian[told], error[told]
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


def residual_px(fixed: Gray, moving: Gray) -> float:
    """Median displacement over textured tiles that are usable for the most part, in pixels."""
    height, width = fixed.image.shape
    side = max(32, min(height, width) // 4)
    window = cv2.createHanningWindow((side, side), cv2.CV_32F)
    usable = both(fixed.usable, moving.usable)
    images, found = [smoothed(fixed, 1.5), smoothed(moving, 1.5)], []
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            place = (slice(top, top + side), slice(left, left + side))
            if usable is not None and usable[place].mean() < 0.75:
                continue
            tiles = [np.ascontiguousarray(image[place]) for image in images]
            if min(float(tile.std()) for tile in tiles) < 0.01:
                continue
            (dx, dy), response = cv2.phaseCorrelate(tiles[0], tiles[1], window)
            if response > 0.1:
                found.append(math.hypot(dx, dy))
    return float(np.median(found)) if found else math.nan
