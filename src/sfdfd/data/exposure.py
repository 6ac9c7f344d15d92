"""Exposure and white balance of photographs of one scene, evened out."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

__all__ = ["even_exposure"]

Array = np.ndarray


def even_exposure(images: Sequence[Array], reference: int, covered: Array) -> tuple[list[Array], Array]:
    """Bring every slice to the reference's exposure and white balance by one gain per colour.

    The gain is the median ratio of strongly smoothed images where both slices reach and neither is clipped: blur keeps local
    means. Below 2 % of change a slice is left alone.

    Returns:
        The slices, of their type, and (S,3) gains.
    """
    height, width = images[0].shape[:2]
    factor = min(1.0, 256 / max(height, width))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))

    def reduced(image: Array) -> Array:
        scale = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(scale)
        return cv2.GaussianBlur(small, (0, 0), max(2.0, size[0] / 32))

    target = reduced(images[reference])
    gains = np.ones((len(images), 3))
    evened = list(images)
    for index, image in enumerate(images):
        if index == reference:
            continue
        small = reduced(image)
        reach = cv2.resize(covered[index].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        usable = reach & (np.maximum(small, target).max(-1) < 0.92) & (np.minimum(small, target).min(-1) > 0.02)
        if usable.sum() < 50:
            continue
        gain = np.median(target[usable] / small[usable], axis=0)
        if np.abs(gain - 1).max() <= 0.02 or not (gain.min() > 0.2 and gain.max() < 5):
            continue
        gains[index] = gain
        top = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
        scaled = np.clip(image.astype(np.float32) * gain.astype(np.float32), 0, top)
        evened[index] = (scaled.round() if image.dtype.kind == "u" else scaled).astype(image.dtype)
    return evened, gains
