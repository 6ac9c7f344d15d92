"""Which slices of a long stack, or frames of a focal sweep, say most: steps of equal change in what is sharp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from sfdfd.errors import checked_whole

__all__ = ["MANY", "informative", "sharpness", "wanted_slices"]

MANY = 12
"""More slices than this are a long stack; so many of it are chosen."""
LOOKED_AT_PX = 1280
TILES = 10


def wanted_slices(slices: Any, number: int) -> int:
    """How many of ``number`` slices are worked on.

    Args:
        slices: "auto" (all of at most :data:`MANY`, else so many), "all", or how many.

    Raises:
        InputError: it is none of these, or there are not so many.
    """
    if slices == "auto":
        return min(number, MANY)
    if slices == "all":
        return number
    return checked_whole(slices, "slices (or auto, or all)", 2, number)


def sharpness(image: np.ndarray) -> np.ndarray:
    """(T,) how sharp each tile of a grid is: root mean square of the Laplacian over mean brightness, of an image reduced to
    at most 1280 px.

    Args:
        image: (H,W,3) uint8, uint16 or float in [0, 1].
    """
    height, width = image.shape[:2]
    factor = min(1.0, LOOKED_AT_PX / max(height, width))
    if factor < 1:
        image = cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    top = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0
    gray = image.astype(np.float32).mean(-1) / np.float32(top)
    rows, columns = (max(1, min(TILES, size // 8)) for size in gray.shape)
    power = cv2.resize(cv2.Laplacian(gray, cv2.CV_32F) ** 2, (columns, rows), interpolation=cv2.INTER_AREA)
    light = cv2.resize(gray, (columns, rows), interpolation=cv2.INTER_AREA)
    return (np.sqrt(power) / (light + 0.02)).ravel()


def informative(sharp: Sequence[np.ndarray], number: int) -> list[int]:
    """``number`` slices between which what is sharp changes by equal steps, ascending.

    A sweep that rests at its ends, or goes on beyond the scene, has many slices that are alike; they are passed over. Of
    the frames about a step the sharpest against its neighbours is taken: hands shake.

    Args:
        sharp: of every slice, in order of focus or time, as of :func:`sharpness`.
        number: at least 2, at most as many as there are.
    """
    if number == len(sharp):
        return list(range(number))
    values = np.stack(sharp)
    peaks = values.max(0)
    values = values / (peaks + 0.25 * np.median(peaks) + 1e-9)
    spread = len(values) / 60  # below one slice for a stack of photographs: nothing is smoothed
    smooth = cv2.GaussianBlur(values.astype(np.float32), (1, 2 * math.ceil(3 * spread) + 1), sigmaX=1e-6, sigmaY=spread)
    if spread < 1:
        smooth = values
    change = np.abs(np.diff(smooth, axis=0)).mean(1)
    way = np.concatenate([[0], np.cumsum(change + 1e-6 + 0.02 * change.mean())])
    targets = np.linspace(0, way[-1], number)
    crispness = values.mean(1) / (smooth.mean(1) + 1e-9)
    chosen: list[int] = []
    for place, target in enumerate(targets):
        least, most = (chosen[-1] + 1 if chosen else 0), len(values) - (number - place)
        away = np.abs(way[least : most + 1] - target) / (targets[1] - targets[0])
        score = np.where(away <= 0.25, crispness[least : most + 1] - 0.2 * away, -away)
        chosen.append(least + int(np.argmax(score)))
    return chosen
