"""Which pixels may say how a slice moved: not the clipped ones, and not those that show the sensor instead of the scene.

A clipped region has no texture, and its border lies where the blur of that slice puts it, so it moves with focus although
the scene does not. Dust on the sensor stays where it is although the scene moves.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from sfdfd.measures.exposure import clipped_pixels

__all__ = ["Gray", "both", "explained_tiles", "filled", "gray_of", "resized", "smoothed", "static_pixels"]

Array = np.ndarray
CLIP_MARGIN = 1 / 64
"""Share of the longer side around a clipped region that is left out too: its light was blurred into its surroundings."""
CONTRAST_PX = 6.0
"""Standard deviation of the Gaussian that a local contrast is measured against, at the size motion is estimated on."""
FILL_PX = 8.0
"""Standard deviation of the Gaussian that unusable pixels are filled by."""
FAINT = 0.012
"""Root mean square of local contrast below which a place has no texture."""
AGREE, LIKELY = 0.12, 0.5
"""Share of the local contrast that may differ between two slices where they show the same: by itself, and where the motion
of the rest of the picture is known and explains it worse."""
CLEARLY = 0.8
"""One motion explains a place better than another where it leaves at most this share of the other's difference."""


class Gray(NamedTuple):
    """A slice as motion is estimated on it.

    Attributes:
        image: (h,w) float32 of about unit range; unusable pixels are filled from their surroundings.
        usable: (h,w) bool; None where every pixel is usable.
    """

    image: Array
    usable: Array | None


def gray_of(image: Array, factor: float) -> Gray:
    """Reduce a slice by area without its clipped pixels.

    Args:
        image: (H,W,3) uint8, uint16, or float in [0, 1]; clipped is what reaches the top of its own type.
        factor: at most 1.
    """
    clipped = np.asarray(clipped_pixels(image).any(-1), np.float32)
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
    return filled(gray, usable)


def resized(gray: Gray, size: tuple[int, int]) -> Gray:
    """Reduced to (width, height) by area; usable is what is so for the most part."""
    if gray.usable is None:
        return Gray(cv2.resize(gray.image, size, interpolation=cv2.INTER_AREA), None)
    weight = gray.usable.astype(np.float32)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    image, plain = (cv2.resize(i, size, interpolation=cv2.INTER_AREA) for i in (gray.image * weight, gray.image))
    return Gray(np.where(share > 0, image / np.maximum(share, 1e-6), plain), share > 0.5)


def filled(image: Array, usable: Array) -> Gray:
    """A slice whose unusable pixels continue what surrounds them; far from all usable ones they are their mean."""
    if not usable.any():
        return Gray(np.zeros_like(image), usable)
    weight = usable.astype(np.float32)
    mean = np.float32(image[usable].mean())
    share = cv2.GaussianBlur(weight, (0, 0), FILL_PX)
    around = cv2.GaussianBlur((image - mean) * weight, (0, 0), FILL_PX) / np.maximum(share, 1e-3)
    return Gray(np.where(usable, image, mean + around).astype(np.float32), usable)


def smoothed(gray: Gray, sigma: float = 2.0) -> Array:
    """Blur by a Gaussian over usable pixels only, where there are any near."""
    if gray.usable is None:
        return cv2.GaussianBlur(gray.image, (0, 0), sigma)
    weight = gray.usable.astype(np.float32)
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    total = cv2.GaussianBlur(gray.image * weight, (0, 0), sigma)
    return np.where(share > 1e-3, total / np.maximum(share, 1e-3), gray.image)


def both(first: Array | None, second: Array | None) -> Array | None:
    """Where two slices are both usable."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _contrast(gray: Gray) -> Array:
    """Local contrast: fine structure over local brightness, which exposure does not change."""
    mean = smoothed(gray, CONTRAST_PX)
    return (smoothed(gray, 1.0) - mean) / (np.maximum(mean, 0) + 0.02)


def _windowed(values: Array) -> Array:
    return cv2.GaussianBlur(values, (0, 0), 3.0)


def static_pixels(fixed: Gray, moving: Gray, explained: Gray | None = None, strict: bool = True) -> Array | None:
    """Where two slices show the same fine structure at the same pixel of the sensor.

    Args:
        fixed, moving: two slices as they were photographed.
        explained: ``moving`` brought onto ``fixed`` by a motion: only what this motion explains worse is static.
        strict: ask for ``AGREE`` where a motion is known, too, in place of ``LIKELY``.

    Returns:
        (h,w) bool; None where it is most of the texture: then it is the scene that lies still.
    """
    usable = both(fixed.usable, moving.usable)
    one, other = _contrast(fixed), _contrast(moving)
    difference, size = _windowed((one - other) ** 2), _windowed(one**2 + other**2) / 2
    textured = size > FAINT**2
    static = textured & (difference < (AGREE if strict or explained is None else LIKELY) * size)
    if explained is not None:
        static &= difference < CLEARLY * _windowed((one - _contrast(explained)) ** 2)
    if usable is not None:
        textured, static = textured & usable, static & usable
    return None if static.sum() > 0.5 * max(textured.sum(), 1) else static


def explained_tiles(fixed: Gray, moving: Gray, explained: Gray) -> tuple[int, int]:
    """How many tiles of the textured area a motion explains (better, worse) than none does.

    Blur alone feigns motions that fit the strongest edges and nothing else.

    Args:
        fixed, moving, explained: as of :func:`static_pixels`; without static pixels, where some are known.
    """
    usable = both(both(fixed.usable, moving.usable), explained.usable)
    side = max(16, min(fixed.image.shape) // 10)
    images = [smoothed(gray) for gray in (fixed, moving, explained)]
    better, worse = 0, 0
    height, width = fixed.image.shape
    for top in range(4, height - side - 3, side):
        for left in range(4, width - side - 3, side):
            tile = (slice(top, top + side), slice(left, left + side))
            told = np.ones((side, side), bool) if usable is None else usable[tile]
            if told.mean() < 0.5:
                continue
            target, before, after = (image[tile][told] for image in images)
            if min(float(target.std()), float(before.std()), float(after.std())) < 0.01:
                continue
            left_before, left_after = 1 - np.corrcoef(target, before)[0, 1], 1 - np.corrcoef(target, after)[0, 1]
            better += int(left_after < 0.9 * left_before)
            worse += int(left_after > 1.1 * left_before)
    return better, worse
