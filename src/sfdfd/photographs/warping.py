"""Motions of slices: a matrix and the lens' distortion before it; where they put points, and images drawn by them."""

from __future__ import annotations

import math

import cv2
import numpy as np

__all__ = ["corners", "displacement", "drawn", "drawn_out", "motions", "warp"]

Array = np.ndarray
BAND_PX = 128


def corners(height: int, width: int) -> Array:
    return np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], float).T


def displacement(matrix: Array, points: Array) -> Array:
    moved = matrix @ points
    return moved[:2] / moved[2:] - points[:2]


def drawn_out(x: Array, y: Array, radial: float, height: int, width: int) -> Array:
    """Homogeneous points (3,...) of an image where its distortion puts them."""
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = x - middle_x, y - middle_y
    factor = 1 + radial * (x * x + y * y) / (middle_x**2 + middle_y**2)
    return np.stack([x * factor + middle_x, y * factor + middle_y, np.ones_like(factor)])


def motions(matrices: Array, radial: Array, height: int, width: int) -> dict[str, Array]:
    """``shift_px``, ``scale`` and ``motion_px`` of an :class:`Alignment` of these matrices and distortions."""
    center = np.array([[(width - 1) / 2], [(height - 1) / 2], [1.0]])
    ends = corners(height, width)
    points = np.concatenate([ends, (ends + center) / 2], 1)
    bent = [drawn_out(points[0], points[1], float(bend), height, width) for bend in radial]
    moved = [displacement(matrix, one) + (one - points)[:2] for matrix, one in zip(matrices, bent, strict=True)]
    return {
        "shift_px": np.stack([displacement(matrix, center)[:, 0] for matrix in matrices]),
        "scale": np.array([math.sqrt(abs(np.linalg.det(matrix[:2, :2]))) for matrix in matrices]),
        "motion_px": np.array([np.hypot(*one).max() for one in moved]),
    }


def warp(image: Array, matrix: Array, radial: float = 0.0) -> Array:
    """An image as the reference sees it, the border repeated."""
    return drawn(image, matrix, radial, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def drawn(image: Array, matrix: Array, radial: float, how: int, border: int) -> Array:
    size = image.shape[1::-1]
    if not radial:
        return cv2.warpPerspective(image, matrix, size, flags=how | cv2.WARP_INVERSE_MAP, borderMode=border)
    width, height = size
    x, canvas = np.arange(width)[None], np.empty_like(image)
    for top in range(0, height, BAND_PX):  # the maps of a whole photograph would be larger than it
        y = np.arange(top, min(top + BAND_PX, height))[:, None]
        across, down, unit = np.tensordot(matrix, drawn_out(x, y, radial, height, width), 1)
        maps = [(one / unit).astype(np.float32) for one in (across, down)]
        canvas[top : top + len(y)] = cv2.remap(image, maps[0], maps[1], how, borderMode=border)
    return canvas
