"""Warps between slices: a homogeneous matrix after a third-order radial distortion about the image centre."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

__all__ = ["corners", "displacement", "distort", "magnification", "max_displacement", "resample", "warp"]

Array = np.ndarray
BAND_PX = 128


def corners(height: int, width: int) -> Array:
    """Return the homogeneous corner pixels of an image, (3,4)."""
    return np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], float).T


def displacement(matrix: Array, points: Array) -> Array:
    """Return how far a matrix moves homogeneous points, (2,...)."""
    moved = matrix @ points
    return moved[:2] / moved[2:] - points[:2]


def distort(x: Array, y: Array, radial: float, height: int, width: int) -> Array:
    """Return homogeneous points (3,...) after radial distortion about the centre of an image."""
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = x - middle_x, y - middle_y
    factor = 1 + radial * (x * x + y * y) / (middle_x**2 + middle_y**2)
    return np.stack([x * factor + middle_x, y * factor + middle_y, np.ones_like(factor)])


def max_displacement(matrix: Array, radial: float, height: int, width: int) -> float:
    """Return the largest displacement in pixels of an image corner, or of a point halfway to it."""
    center = np.array([[(width - 1) / 2], [(height - 1) / 2], [1.0]])
    ends = corners(height, width)
    points = np.concatenate([ends, (ends + center) / 2], 1)
    distorted = distort(points[0], points[1], radial, height, width)
    return float(np.hypot(*(displacement(matrix, distorted) + (distorted - points)[:2])).max())


def magnification(matrix: Array) -> float:
    """Return the scale of a matrix: the square root of its area factor."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))


def warp(image: Array, matrix: Array, radial: float = 0.0) -> Array:
    """Resample an image on the canvas of the reference by bicubic interpolation, with the border repeated."""
    return resample(image, matrix, radial, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def resample(image: Array, matrix: Array, radial: float, interpolation: int, border: int) -> Array:
    """Resample an image on the canvas of the reference.

    Args:
        image: (H,W) or (H,W,C).
        matrix, radial: from pixels of the reference to pixels of the image.
        interpolation, border: flags of OpenCV.
    """
    size = image.shape[1::-1]
    if not radial:
        return cv2.warpPerspective(image, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=border)
    width, height = size
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    centred = matrix @ np.array([[1, 0, middle_x], [0, 1, middle_y], [0, 0, 1]])  # takes offsets from the centre
    x = np.arange(width, dtype=np.float32)[None] - np.float32(middle_x)
    canvas = np.empty_like(image)
    for top in range(0, height, BAND_PX):  # the maps of a whole photograph would be larger than it
        y = np.arange(top, min(top + BAND_PX, height), dtype=np.float32)[:, None] - np.float32(middle_y)
        factor = 1 + np.float32(radial / (middle_x**2 + middle_y**2)) * (x * x + y * y)
        maps = _project(centred.astype(np.float32), x * factor, y * factor)
        canvas[top : top + len(y)] = cv2.remap(image, *maps, interpolation, borderMode=border)
    return canvas


def _project(matrix: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Apply a homogeneous matrix to points; entries that are 0 cost nothing."""

    def row(scale_x: Any, scale_y: Any, offset: Any) -> Array:
        values = x * scale_x + offset if scale_x else np.full_like(x, offset)
        return values + y * scale_y if scale_y else values

    mapped_x, mapped_y = row(*matrix[0]), row(*matrix[1])
    if tuple(matrix[2]) == (0, 0, 1):
        return mapped_x, mapped_y
    w = row(*matrix[2])
    return mapped_x / w, mapped_y / w
