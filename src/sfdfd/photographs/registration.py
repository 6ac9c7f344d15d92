"""Estimate how a slice has moved against its neighbour, and decide whether it is a motion at all.

The motion maximises the enhanced correlation coefficient (ECC; Evangelidis and Psarakis, PAMI 2008; OpenCV) over usable
pixels. Blur that differs between slices feigns small motions, so a motion must explain most of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from sfdfd.io.threads import in_threads
from sfdfd.photographs.registration_masks import (
    Gray,
    both_usable,
    fill,
    resize,
    smooth,
    static_pixels,
    tile_votes,
    tiles,
)
from sfdfd.photographs.warping import corners, displacement, distort, magnification, max_displacement, resample, warp

__all__ = ["LEAST_GAIN_OTHERS", "Motion", "register", "residual_px", "warped"]

Array = np.ndarray
LEAST_GAIN, LEAST_GAIN_OTHERS = 0.15, 0.04
"""A stack has moved if a motion removes the first share of the decorrelation between some pair of neighbours; then the
second share is enough for the other pairs. Unequal blur alone feigns motions of a pixel or two, but removes at most 0.1."""
LEAST_VOTE_RATIO = 2.0
"""A certain motion explains so many times more tiles better than worse. Defocus of contrasty scenes, and clipped ones, can
feign motions that remove more than ``LEAST_GAIN``, but at a few strong edges only."""
SAME_PX = 0.3
"""Motions with and without static pixels that differ by less than this are the same: the dust does no harm."""
STATIC_PX, STATIC_MARGIN_PX = 1.5, 4
"""The least motion at which dust is told from the scene, and the margin around dust that is masked with it."""
DUST_PX, DUST_ROUNDS = 512, 2
"""Longer side of the images on which dust is looked for, and the number of rounds."""
LEAST_DUST = 0.002
"""Share of the pixels from which dust matters."""
LEAST_USABLE = 0.02
"""Share of the pixels that must be usable."""
LEAST_RADIAL_GAIN = 0.03
"""Distortion is kept if it removes this share of the decorrelation that scale and shift have left."""


@dataclass(frozen=True)
class Motion:
    """How a slice lies against its neighbour.

    Attributes:
        matrix, radial: from pixels of the neighbour to pixels of the slice, see :class:`sfdfd.photographs.align.Alignment`.
        gain: the share of the decorrelation that the motion removes; None if nothing could be registered.
        better, worse: how many textured tiles the motion explains better and worse than no motion does.
    """

    matrix: Array
    radial: float = 0.0
    gain: float | None = None
    better: int = 0
    worse: int = 0

    def is_plausible(self, least_gain: float) -> bool:
        """Whether the gain is large enough and comes from most of the picture, not only from a few strong edges."""
        return self.gain is not None and self.gain >= least_gain and self.better > self.worse

    @property
    def is_certain(self) -> bool:
        """Whether it is a motion regardless of the other slices."""
        chance = 2 * math.sqrt(self.better + self.worse)  # two standard deviations of as many tosses of a coin
        by_votes = self.better > LEAST_VOTE_RATIO * self.worse and self.better - self.worse > chance
        return self.is_plausible(LEAST_GAIN) and by_votes


def register(pairs: Sequence[tuple[Gray, Gray]], model: str) -> list[Motion]:
    """Estimate the motion of the second of each pair against the first.

    Dust stays in place while the scene moves, so it pulls towards no motion. It is the same in every slice: dust found in
    half of the pairs is masked in all of them.
    """
    fixed, moving = zip(*pairs, strict=True) if pairs else ((), ())
    motions = in_threads(partial(_register_pair, model=model), fixed, moving)
    dust_of_pairs = in_threads(partial(_find_dust, model=model), fixed, moving, motions)
    masks = [_with_margin(dust) for dust in dust_of_pairs if dust is not None]
    static = np.sum(masks, 0) >= len(pairs) / 2 if masks else np.zeros(1, bool)
    if not static.any():
        return motions

    def register_masked(first: Gray, second: Gray) -> Motion:
        return _register_pair(*_mask_static(first, second, static), model)

    return in_threads(register_masked, fixed, moving)


def warped(moving: Gray, motion: Motion) -> Gray:
    """Return a slice on the canvas of its neighbour, with the border repeated."""
    usable = moving.usable
    if usable is not None:
        mask = usable.astype(np.uint8)
        usable = resample(mask, motion.matrix, motion.radial, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE) > 0
    return Gray(warp(moving.image, motion.matrix, motion.radial), usable)


def residual_px(fixed: Gray, moving: Gray) -> float:
    """Return the median displacement by phase correlation over textured, mostly usable tiles, in pixels; NaN without any."""
    side = max(32, min(fixed.image.shape) // 4)
    window = cv2.createHanningWindow((side, side), cv2.CV_32F)
    usable = both_usable(fixed.usable, moving.usable)
    images, displacements = [smooth(fixed, 1.5), smooth(moving, 1.5)], []
    for tile in tiles(fixed.image.shape, side):
        if usable is not None and usable[tile].mean() < 0.75:
            continue
        first, second = (np.ascontiguousarray(image[tile]) for image in images)
        if min(float(first.std()), float(second.std())) < 0.01:
            continue
        (dx, dy), response = cv2.phaseCorrelate(first, second, window)
        if response > 0.1:
            displacements.append(math.hypot(dx, dy))
    return float(np.median(displacements)) if displacements else math.nan


def _find_dust(fixed: Gray, moving: Gray, motion: Motion, model: str) -> Array | None:
    """Return (h,w) bool, the pixels that stay in place while the scene moves; None if there are none.

    Static pixels are masked on trial, at ``DUST_PX``. If the rest of the picture then moves as one, they were dust.

    Args:
        fixed, moving: two slices.
        motion: estimated from all of their pixels.
        model: as of :func:`sfdfd.photographs.align.estimate_alignment`.
    """
    height, width = fixed.image.shape
    factor = min(1.0, DUST_PX / max(height, width))
    size = (round(width * factor), round(height * factor))
    small = resize(fixed, size), resize(moving, size)
    zoom = np.diag([size[0] / width, size[1] / height, 1.0])
    trial = replace(motion, matrix=zoom @ motion.matrix @ np.linalg.inv(zoom))
    if motion.is_certain and _largest_px(trial, size) > STATIC_PX and _static_dust(*small, trial, strict=True) is None:
        return None
    static, before = static_pixels(*small), trial
    for _ in range(DUST_ROUNDS):
        if static is None or static.mean() < LEAST_DUST:
            return None
        trial = _register_pair(*_mask_static(*small, _with_margin(static)), model)
        if not (trial.is_certain and _largest_px(trial, size) > STATIC_PX):
            return None
        if motion.is_certain and _difference_px(before, trial, size) < SAME_PX:
            return None  # it does no harm
        static = _static_dust(*small, trial)
    return None if static is None else cv2.resize(static.astype(np.uint8), (width, height)) > 0


def _static_dust(fixed: Gray, moving: Gray, motion: Motion, strict: bool = False) -> Array | None:
    """Return the static pixels that a motion should have moved; None if they are too few to matter."""
    static = static_pixels(fixed, moving, warped(moving, motion), strict)
    if static is None:
        return None
    height, width = fixed.image.shape
    x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    moved = np.tensordot(motion.matrix, distort(x, y, motion.radial, height, width), 1)
    static &= np.hypot(moved[0] / moved[2] - x, moved[1] / moved[2] - y) > STATIC_PX
    return None if static.mean() < LEAST_DUST else static


def _mask_static(fixed: Gray, moving: Gray, static: Array) -> tuple[Gray, Gray]:
    """Return both slices without static pixels."""
    first, second = (~static if gray.usable is None else gray.usable & ~static for gray in (fixed, moving))
    return fill(fixed.image, first), fill(moving.image, second)


def _with_margin(static: Array) -> Array:
    """Return static pixels grown by ``STATIC_MARGIN_PX``."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * STATIC_MARGIN_PX + 1,) * 2)
    return cv2.dilate(static.astype(np.uint8), disc) > 0


def _largest_px(motion: Motion, size: tuple[int, int]) -> float:
    """Return the largest displacement in an image of (width, height), in pixels."""
    return max_displacement(motion.matrix, motion.radial, size[1], size[0])


def _difference_px(first: Motion, second: Motion, size: tuple[int, int]) -> float:
    """Return how far apart two motions put a corner or the centre of an image of (width, height), at most."""
    width, height = size
    ends = corners(height, width)
    x, y = np.append(ends[0], (width - 1) / 2), np.append(ends[1], (height - 1) / 2)
    a, b = (motion.matrix @ distort(x, y, motion.radial, height, width) for motion in (first, second))
    return float(np.hypot(*(a[:2] / a[2] - b[:2] / b[2])).max())


def _register_pair(fixed: Gray, moving: Gray, model: str) -> Motion:
    """Estimate the motion over usable pixels, from coarse to fine."""
    matrix, is_registered = np.eye(3), False
    usable = both_usable(fixed.usable, moving.usable)
    if usable is not None and usable.mean() < LEAST_USABLE:
        return Motion(matrix)
    if min(_deviation(gray) for gray in (fixed, moving)) < 1e-3:
        return Motion(matrix)  # no texture
    height, width = fixed.image.shape
    levels = [factor for factor in (0.125, 0.25, 0.5, 1.0) if min(height, width) * factor >= 48] or [1.0]
    for factor in levels:
        size = (round(width * factor), round(height * factor))
        zoom = np.diag([size[0] / width, size[1] / height, 1.0])
        guess = zoom @ matrix @ np.linalg.inv(zoom)
        result = _maximise_ecc(resize(fixed, size), resize(moving, size), guess, model)
        if result is None:
            continue  # no texture at this size
        candidate = _project_onto_model(np.linalg.inv(zoom) @ result @ zoom, fixed, model)
        if np.isfinite(candidate).all() and 0.7 < magnification(candidate) < 1.4:
            matrix, is_registered = candidate, True
    return _with_distortion(fixed, moving, matrix, model) if is_registered else Motion(matrix)


def _maximise_ecc(fixed: Gray, moving: Gray, guess: Array, model: str) -> Array | None:
    """Return the matrix near a guess that maximises the ECC; None if OpenCV finds none."""
    kind = cv2.MOTION_HOMOGRAPHY if model == "homography" else cv2.MOTION_AFFINE
    start = (guess if kind == cv2.MOTION_HOMOGRAPHY else guess[:2]).astype(np.float32)
    usable = moving.usable
    if fixed.usable is not None:  # OpenCV takes one mask, of the slice that is moved
        size = moving.image.shape[1::-1]
        fixed_usable = cv2.warpPerspective(fixed.usable.astype(np.uint8), guess, size, flags=cv2.INTER_NEAREST) > 0
        usable = both_usable(usable, fixed_usable)
    mask = None if usable is None else usable.astype(np.uint8) * 255
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-6)
    try:
        _, result = cv2.findTransformECC(smooth(fixed), smooth(moving), start, kind, criteria, mask, 5)  # type: ignore[arg-type, call-overload] # None is no mask
    except cv2.error:
        return None
    full = np.eye(3)
    full[: result.shape[0]] = result
    return full


def _project_onto_model(matrix: Array, gray: Gray, model: str) -> Array:
    """Return the nearest matrix of the model, in the least squares over textured usable pixels."""
    if model not in ("radial", "scale_shift"):
        return matrix
    height, width = gray.image.shape
    ys, xs = np.mgrid[0 : height - 1 : 24j, 0 : width - 1 : 24j]
    points = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    texture = np.abs(cv2.Laplacian(gray.image, cv2.CV_32F))
    texture = cv2.boxFilter(texture if gray.usable is None else texture * gray.usable, -1, (31, 31))
    weight = texture[ys.round().astype(int).ravel(), xs.round().astype(int).ravel()].astype(float) + 1e-6
    weight /= weight.sum()
    moved = points[:2] + displacement(matrix, points)
    center, target = (points[:2] * weight).sum(1, keepdims=True), (moved * weight).sum(1, keepdims=True)
    scale = float((((moved - target) * (points[:2] - center)).sum(0) * weight).sum())
    scale /= float((((points[:2] - center) ** 2).sum(0) * weight).sum())
    shift = (target - scale * center)[:, 0]
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def _with_distortion(fixed: Gray, moving: Gray, matrix: Array, model: str) -> Motion:
    """Return the motion of a matrix with its gain, refined by radial distortion if the model has it and it pays."""
    motion = Motion(matrix)
    result = warped(moving, motion)
    after = _decorrelation(fixed, result, moving.usable)
    if model == "radial":
        distorted = Motion(*_fit_distortion(fixed, moving, matrix))
        candidate = warped(moving, distorted)
        remaining = _decorrelation(fixed, candidate, moving.usable)
        if remaining < (1 - LEAST_RADIAL_GAIN) * after:
            motion, after, result = distorted, remaining, candidate
    before = _decorrelation(fixed, moving, result.usable)
    gain = float(1 - after / before) if before > 1e-9 else 0.0
    better, worse = tile_votes(fixed, moving, result)
    return replace(motion, gain=gain, better=better, worse=worse)


def _deviation(gray: Gray) -> float:
    image = smooth(gray)
    return float((image if gray.usable is None else image[gray.usable]).std())


def _decorrelation(fixed: Gray, moving: Gray, usable: Array | None) -> float:
    """Return one minus the ECC of two smoothed images over the pixels that both and ``usable`` allow."""
    usable = both_usable(both_usable(fixed.usable, moving.usable), usable)
    mask = None if usable is None else usable.astype(np.uint8)
    return 1 - cv2.computeECC(smooth(fixed), smooth(moving), mask)  # type: ignore[call-overload] # None is no mask


def _fit_distortion(fixed: Gray, moving: Gray, matrix: Array, iterations: int = 10) -> tuple[Array, float]:
    """Fit scale, shift and third-order distortion together, starting from a matrix.

    Gauss-Newton on smoothed images, with a gain and an offset of brightness. (Robust weights leave more decorrelation.)
    """
    height, width = fixed.image.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = columns - middle_x, rows - middle_y
    square = (x * x + y * y) / (middle_x**2 + middle_y**2)
    inner = (slice(8, -8, 2), slice(8, -8, 2))
    target, radial = cv2.GaussianBlur(fixed.image, (0, 0), 2.0), 0.0
    for _ in range(iterations):
        current = warped(moving, Motion(matrix, radial))
        image, usable = cv2.GaussianBlur(current.image, (0, 0), 2.0), both_usable(fixed.usable, current.usable)
        slope_y, slope_x = np.gradient(image)
        outward = slope_x * x + slope_y * y
        derivatives = [slope_x, slope_y, outward, outward * square, image, np.ones_like(image)]
        jacobian = np.stack([values[inner].ravel() for values in derivatives], 1).astype(float)
        error = (target - image)[inner].ravel().astype(float)
        if usable is not None:
            mask = usable[inner].ravel()
            jacobian, error = jacobian[mask], error[mask]
        try:
            dx, dy, scale, bend, *_ = np.linalg.solve(jacobian.T @ jacobian, jacobian.T @ error)
        except np.linalg.LinAlgError:
            break
        if not max(abs(scale), abs(bend)) < 0.1:
            break  # it diverges
        step = np.array([[1 + scale, 0, dx - scale * middle_x], [0, 1 + scale, dy - scale * middle_y], [0, 0, 1]])
        matrix, radial = matrix @ step, radial + float(bend)
        if max(abs(dx), abs(dy), abs(scale) * width, abs(bend) * width) < 0.01:
            break
    return matrix, radial
