"""Area averaging of NumPy images by OpenCV, on their own codes: integers are rounded."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch import Tensor

__all__ = ["resize_array", "resize_clipped", "resize_coverage"]


def resize_array(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image at another (height, width) by area averaging; the image itself if it has that size."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def resize_clipped(clipped: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an (H,W,3) bool mask at another (height, width): True if any of the averaged pixels is clipped."""
    if clipped.shape[:2] == size or not clipped.any():
        return clipped if clipped.shape[:2] == size else np.zeros((*size, 3), bool)
    return cv2.resize(clipped.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_AREA) > 0


def resize_coverage(covered: Iterable[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Return (S,H,W) float32, the covered share of each pixel at another (height, width)."""
    return torch.stack([torch.from_numpy(resize_array(mask.astype(np.float32), size)) for mask in covered])
