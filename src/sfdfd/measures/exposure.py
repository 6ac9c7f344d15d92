"""Equalize exposure and white balance of photographs of one scene."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from sfdfd.io.threads import in_threads
from sfdfd.stack import SATURATED

__all__ = ["any_clipped", "apply_gain", "clipped_pixels", "equalize_exposure", "exposure_gains"]

Array = np.ndarray


def clipped_pixels(image: Array) -> Array:
    """Return (H,W,3) bool, true where a photograph's value is a lower bound of the brightness: at the top of its type.

    Args:
        image: (H,W,3) uint8, uint16, or float in [0, 1], before any gain is applied.
    """
    if image.dtype.kind == "u":
        return image >= image.dtype.type(math.ceil(SATURATED * np.iinfo(image.dtype).max))
    return image >= SATURATED


def any_clipped(image: Array) -> Array:
    """Return (H,W) bool, true where any colour is clipped (:func:`clipped_pixels`)."""
    red, green, blue = clipped_pixels(image).transpose(2, 0, 1)  # ten times as fast as any(-1)
    return red | green | blue


def equalize_exposure(
    images: Sequence[Array], reference: int, covered: Sequence[Array] | Array
) -> tuple[list[Array], Array]:
    """Bring every slice to the reference's exposure and white balance by one gain per colour (:func:`exposure_gains`).

    Returns:
        The slices, of their type, and (S,3) gains.
    """
    gains = exposure_gains(images, reference, covered)
    return [apply_gain(image, gain) for image, gain in zip(images, gains, strict=True)], gains


def apply_gain(image: Array, gain: Array) -> Array:
    """Multiply (H,W,3) by a gain per colour and keep its type; return the image itself where every gain is 1."""
    if (gain == 1).all():
        return image
    top = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
    scaled = np.clip(image.astype(np.float32) * gain.astype(np.float32), 0, top)
    return (scaled.round() if image.dtype.kind == "u" else scaled).astype(image.dtype)


def exposure_gains(images: Sequence[Array], reference: int, covered: Sequence[Array] | Array) -> Array:
    """Return (S,3) gains that bring every slice to the reference's exposure and white balance.

    The gain is the median ratio of strongly smoothed images where both slices are covered, because blur keeps local means. A
    blurred slice shows more of clipped light than a sharp one, so only the half of the image that is farthest from clipped
    pixels of any slice is used. Slices that would change by less than 2 % are not changed.

    Args:
        images: (H,W,3) each; each is read once.
        reference: index of the slice that is not changed.
        covered: (H,W) bool each, where a slice shows the scene.
    """
    small, clipped = zip(*in_threads(lambda index: _reduced(images[index]), range(len(images))), strict=True)
    is_unclipped = _far_from(np.logical_or.reduce(clipped))
    smooth = [_smoothed(image, is_unclipped) for image in small]
    target, gains = smooth[reference], np.ones((len(small), 3))
    for index, image in enumerate(smooth):
        if index == reference:
            continue
        mask = cv2.resize(covered[index].astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        in_range = (np.maximum(image, target).max(-1) < 0.92) & (np.minimum(image, target).min(-1) > 0.02)
        usable = is_unclipped & mask & in_range
        if usable.sum() < 50:
            continue
        gain = np.median(target[usable] / image[usable], axis=0)
        if np.abs(gain - 1).max() > 0.02 and gain.min() > 0.2 and gain.max() < 5:
            gains[index] = gain
    return gains


def _reduced(image: Array) -> tuple[Array, Array]:
    """Return an image (h,w,3) in [0, 1], its longer side at most 256, and (h,w) bool where any of its pixels was clipped."""
    height, width = image.shape[:2]
    factor = min(1.0, 256 / max(height, width))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    scale = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(scale)
    clipped = cv2.resize(any_clipped(image).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return small, clipped > 0


def _far_from(clipped: Array) -> Array:
    """Return (h,w) bool: the half of the unclipped pixels that is farthest from clipped ones; all if none is clipped."""
    if not clipped.any() or clipped.all():
        return ~clipped
    distance = cv2.distanceTransform((~clipped).astype(np.uint8), cv2.DIST_L2, 5)
    return distance >= np.median(distance[~clipped])


def _smoothed(image: Array, usable: Array) -> Array:
    """Blur an image over usable pixels only."""
    sigma = max(2.0, image.shape[1] / 32)
    if usable.all():
        return cv2.GaussianBlur(image, (0, 0), sigma)
    weight = usable.astype(np.float32)
    share = np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
    return cv2.GaussianBlur(image * weight[..., None], (0, 0), sigma) / share[..., None]
