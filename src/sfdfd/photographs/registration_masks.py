"""Masks of the pixels that registration uses: neither clipped nor covered by dust on the sensor.

A clipped region has no texture, and its border moves with the blur of the slice although the scene does not move. Dust on
the sensor stays in place although the scene moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from sfdfd.measures.exposure import any_clipped

__all__ = ["Gray", "both_usable", "fill", "gray_of", "resize", "smooth", "static_pixels", "tile_votes", "tiles"]

Array = np.ndarray
CLIP_MARGIN = 1 / 64
"""Share of the longer side around a clipped region that is masked too: its light was blurred into its surroundings."""
CONTRAST_PX = 6.0
"""Standard deviation of the Gaussian that local contrast is measured against, at the size motion is estimated on."""
FILL_PX = 8.0
"""Standard deviation of the Gaussian that fills unusable pixels."""
LEAST_CONTRAST = 0.012
"""RMS local contrast below which a pixel has no texture."""
STATIC_STRICT, STATIC_LENIENT = 0.12, 0.5
"""Share of the local contrast by which static pixels of two slices may differ: strictly, and where a motion of the rest of
the picture is known and explains them worse."""
STATIC_BETTER = 0.8
"""A pixel is static only if its difference is below this share of the difference that the motion leaves."""
TILE_BETTER, TILE_WORSE = 0.9, 1.1
"""A motion explains a tile better (worse) if the decorrelation falls below (rises above) this share."""


class Gray(NamedTuple):
    """A slice as motion is estimated on it.

    Attributes:
        image: (h,w) float32 of about unit range; unusable pixels are filled from their surroundings.
        usable: (h,w) bool; None if every pixel is usable.
    """

    image: Array
    usable: Array | None


def gray_of(image: Array, factor: float) -> Gray:
    """Reduce a slice to gray by area averaging, and mask its clipped pixels.

    Args:
        image: (H,W,3) uint8, uint16, or float in [0, 1]; clipped is what reaches the top of its own type.
        factor: at most 1.
    """
    clipped = any_clipped(image).astype(np.float32)
    height, width = image.shape[:2]
    size = (max(16, round(width * factor)), max(16, round(height * factor))) if factor < 1 else (width, height)
    scale = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1 else image
    gray = (small.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)) / np.float32(scale)
    if not clipped.any():
        return Gray(gray, None)
    share = cv2.resize(clipped, size, interpolation=cv2.INTER_AREA)
    side = 2 * max(2, round(CLIP_MARGIN * max(size))) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    usable = cv2.dilate((share > 0).astype(np.uint8), disc) == 0
    return fill(gray, usable)


def resize(gray: Gray, size: tuple[int, int]) -> Gray:
    """Reduce to (width, height) by area averaging over usable pixels; most of a usable pixel was usable."""
    if gray.usable is None:
        return Gray(cv2.resize(gray.image, size, interpolation=cv2.INTER_AREA), None)
    weight = gray.usable.astype(np.float32)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    image, plain = (cv2.resize(i, size, interpolation=cv2.INTER_AREA) for i in (gray.image * weight, gray.image))
    return Gray(np.where(share > 0, image / np.maximum(share, 1e-6), plain), share > 0.5)


def fill(image: Array, usable: Array) -> Gray:
    """Fill unusable pixels from their surroundings, or with the mean far from all usable ones."""
    if not usable.any():
        return Gray(np.zeros_like(image), usable)
    weight = usable.astype(np.float32)
    mean = np.float32(image[usable].mean())
    share = cv2.GaussianBlur(weight, (0, 0), FILL_PX)
    around = cv2.GaussianBlur((image - mean) * weight, (0, 0), FILL_PX) / np.maximum(share, 1e-3)
    return Gray(np.where(usable, image, mean + around).astype(np.float32), usable)


def smooth(gray: Gray, sigma: float = 2.0) -> Array:
    """Blur by a Gaussian over usable pixels only, if there are any near."""
    if gray.usable is None:
        return cv2.GaussianBlur(gray.image, (0, 0), sigma)
    weight = gray.usable.astype(np.float32)
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    total = cv2.GaussianBlur(gray.image * weight, (0, 0), sigma)
    return np.where(share > 1e-3, total / np.maximum(share, 1e-3), gray.image)


def both_usable(first: Array | None, second: Array | None) -> Array | None:
    """Return the intersection of two masks; None stands for a mask that is True everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _local_contrast(gray: Gray) -> Array:
    """Return fine structure over local brightness, which exposure does not change."""
    mean = smooth(gray, CONTRAST_PX)
    return (smooth(gray, 1.0) - mean) / (np.maximum(mean, 0) + 0.02)


def _windowed(values: Array) -> Array:
    return cv2.GaussianBlur(values, (0, 0), 3.0)


def static_pixels(fixed: Gray, moving: Gray, warped: Gray | None = None, strict: bool = True) -> Array | None:
    """Return where two slices show the same fine structure at the same pixel of the sensor.

    Args:
        fixed, moving: two slices as they were photographed.
        warped: ``moving`` warped onto ``fixed`` by a motion; only pixels that the motion explains worse are static.
        strict: use ``STATIC_STRICT`` in place of ``STATIC_LENIENT`` if a motion is known, too.

    Returns:
        (h,w) bool; None if it is most of the texture, because then the scene itself did not move.
    """
    usable = both_usable(fixed.usable, moving.usable)
    contrast, moving_contrast = _local_contrast(fixed), _local_contrast(moving)
    difference, power = _windowed((contrast - moving_contrast) ** 2), _windowed(contrast**2 + moving_contrast**2) / 2
    textured = power > LEAST_CONTRAST**2
    static = textured & (difference < (STATIC_STRICT if strict or warped is None else STATIC_LENIENT) * power)
    if warped is not None:
        static &= difference < STATIC_BETTER * _windowed((contrast - _local_contrast(warped)) ** 2)
    if usable is not None:
        textured, static = textured & usable, static & usable
    return None if static.sum() > 0.5 * max(textured.sum(), 1) else static


def tiles(shape: tuple[int, ...], side: int, margin: int = 0) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of the square tiles of an image."""
    height, width = shape
    for top in range(margin, height - margin - side + 1, side):
        for left in range(margin, width - margin - side + 1, side):
            yield slice(top, top + side), slice(left, left + side)


def tile_votes(fixed: Gray, moving: Gray, warped: Gray) -> tuple[int, int]:
    """Count the textured tiles that a motion explains (better, worse) than no motion.

    Blur alone feigns motions that fit the strongest edges and nothing else.

    Args:
        fixed, moving, warped: as of :func:`static_pixels`, with static pixels masked.
    """
    usable = both_usable(both_usable(fixed.usable, moving.usable), warped.usable)
    side = max(16, min(fixed.image.shape) // 10)
    images = [smooth(gray) for gray in (fixed, moving, warped)]
    better, worse = 0, 0
    for tile in tiles(fixed.image.shape, side, margin=4):
        mask = np.ones((side, side), bool) if usable is None else usable[tile]
        if mask.mean() < 0.5:
            continue
        target, before, after = (image[tile][mask] for image in images)
        if min(float(target.std()), float(before.std()), float(after.std())) < 0.01:
            continue
        before_error, after_error = 1 - np.corrcoef(target, before)[0, 1], 1 - np.corrcoef(target, after)[0, 1]
        better += int(after_error < TILE_BETTER * before_error)
        worse += int(after_error > TILE_WORSE * before_error)
    return better, worse
