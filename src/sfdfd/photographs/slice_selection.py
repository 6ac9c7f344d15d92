"""Select slices of a long stack, or frames of a focal sweep, between which the sharp regions change by equal steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from sfdfd.errors import checked_int

__all__ = ["MAX_SLICES", "count_to_use", "equal_sharpness_steps", "select_slices", "sharpness"]

MAX_SLICES = 12
"""Of a stack with more slices than this, so many are used."""
SHARPNESS_PX = 1280
"""Longer side of the images that sharpness is measured on."""
TILES = 10


def count_to_use(slices: Any, number: int) -> int:
    """Return how many of ``number`` slices are used.

    Args:
        slices: "auto" (at most :data:`MAX_SLICES`), "all", or how many.

    Raises:
        InputError: it is none of these, or there are not so many.
    """
    if slices == "auto":
        return min(number, MAX_SLICES)
    if slices == "all":
        return number
    return checked_int(slices, "slices (or auto, or all)", 2, number)


def select_slices(
    candidates: Sequence[int],
    count: int,
    sharpness_of: Callable[[int], np.ndarray],
    focus_distances_m: Sequence[float] | None,
) -> tuple[int, ...]:
    """Select ``count`` of the candidates, in ascending order; all of them if there are no more.

    Args:
        candidates: indices of slices, ascending.
        count: at least 2.
        sharpness_of: :func:`sharpness` of a slice.
        focus_distances_m: of all slices; None takes the order of the indices for that of focus.
    """
    if count >= len(candidates):
        return tuple(candidates)
    order = list(candidates)
    if focus_distances_m is not None:
        order.sort(key=lambda index: 1 / focus_distances_m[index])
    steps = equal_sharpness_steps([sharpness_of(index) for index in order], count)
    return tuple(sorted(order[step] for step in steps))


def sharpness(image: np.ndarray) -> np.ndarray:
    """Return (T,) the sharpness of each tile of a grid: RMS of the Laplacian over mean brightness.

    Args:
        image: (H,W,3) uint8, uint16 or float in [0, 1]; reduced to at most 1280 px.
    """
    height, width = image.shape[:2]
    factor = min(1.0, SHARPNESS_PX / max(height, width))
    if factor < 1:
        image = cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    top = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
    gray = image.astype(np.float32).mean(-1) / np.float32(top)
    rows, columns = (max(1, min(TILES, size // 8)) for size in gray.shape)
    power = cv2.resize(cv2.Laplacian(gray, cv2.CV_32F) ** 2, (columns, rows), interpolation=cv2.INTER_AREA)
    brightness = cv2.resize(gray, (columns, rows), interpolation=cv2.INTER_AREA)
    return (np.sqrt(power) / (brightness + 0.02)).ravel()


def equal_sharpness_steps(sharp: Sequence[np.ndarray], number: int) -> list[int]:
    """Return ``number`` ascending indices between which the sharpness of tiles changes by equal steps.

    A sweep that rests at its ends, or goes on beyond the scene, has many similar slices; few of them are selected. Near each
    step the frame that is sharpest against its neighbours is taken, because hands shake.

    Args:
        sharp: :func:`sharpness` of every slice, in order of focus or time.
        number: at least 2, at most as many as there are.
    """
    if number == len(sharp):
        return list(range(number))
    values = np.stack(sharp)
    peaks = values.max(0)
    values = values / (peaks + 0.25 * np.median(peaks) + 1e-9)
    sigma = len(values) / 60  # below one slice for a stack of photographs: nothing is smoothed
    smooth = cv2.GaussianBlur(values.astype(np.float32), (1, 2 * math.ceil(3 * sigma) + 1), sigmaX=1e-6, sigmaY=sigma)
    if sigma < 1:
        smooth = values
    change = np.abs(np.diff(smooth, axis=0)).mean(1)
    path = np.concatenate([[0], np.cumsum(change + 1e-6 + 0.02 * change.mean())])
    targets = np.linspace(0, path[-1], number)
    crispness = values.mean(1) / (smooth.mean(1) + 1e-9)
    selected: list[int] = []
    for step, target in enumerate(targets):
        least, most = (selected[-1] + 1 if selected else 0), len(values) - (number - step)
        distance = np.abs(path[least : most + 1] - target) / (targets[1] - targets[0])
        score = np.where(distance <= 0.25, crispness[least : most + 1] - 0.2 * distance, -distance)
        selected.append(least + int(np.argmax(score)))
    return selected
