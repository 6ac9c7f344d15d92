"""Check, convert, resize and pad tensors of images."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError

__all__ = ["as_images", "check_image_values", "full_precision", "is_half", "pad_edges", "pad_slices", "resize_area"]

OVERSHOOT = 1e-2
"""How far renderers and filters may overshoot [0, 1]; the excess is clipped."""


def as_images(values: Tensor | np.ndarray, ndim: int, name: str) -> Tensor:
    """Convert images of common types and layouts to (...,3,H,W), float32 in [0, 1].

    Args:
        values: a tensor or array of floats in [0, 1], or of uint8 or uint16 codes, with the channels before or after H
            and W.
        ndim: number of axes, 3 for an image and 4 for a stack.
        name: what messages call it.

    Raises:
        InputError: another shape or type, or values that are not finite or not in [0, 1].
    """
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(values))
    if not isinstance(values, Tensor):
        raise InputError(f"{name}: expected a tensor or an array, got {type(values).__name__}")
    if values.ndim == ndim and values.shape[-3] != 3 and values.shape[-1] == 3:
        values = values.movedim(-1, -3).contiguous()
    if values.ndim != ndim or values.shape[-3] != 3:
        wanted = "(S,3,H,W)" if ndim == 4 else "(3,H,W)"
        raise InputError(f"{name}: expected RGB of shape {wanted}, got {tuple(values.shape)}")
    largest_code = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(values.dtype)
    if largest_code is not None:
        return values.to(torch.float32) / largest_code
    if not values.is_floating_point():
        raise InputError(f"{name}: expected floats in [0, 1], uint8 or uint16, got {values.dtype}")
    values = values.to(torch.float32)
    low, high = check_image_values(values, name)
    return values.clamp(0, 1) if low < 0 or high > 1 else values


def check_image_values(images: Tensor, name: str) -> tuple[float, float]:
    """Return the smallest and largest value of images, after checking both.

    Raises:
        InputError: no pixels, a value that is not finite (one NaN would spread over a whole prediction), or one far outside
            of [0, 1].
    """
    if not images.numel():
        raise InputError(f"{name}: expected pixels, got shape {tuple(images.shape)}")
    low, high = (float(end) for end in images.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int((~torch.isfinite(images)).sum())
        raise InputError(f"{name}: {count} values are not finite; fill them in, and mark them as not shown (covered)")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        advice = ""
        if high > 1.5:
            advice = "; divide by 255, or give uint8" if high <= 255 else "; divide by 65535, or give uint16"
        raise InputError(f"{name}: expected values in [0, 1], got {low:.4g} to {high:.4g}{advice}")
    return low, high


def resize_area(values: Float[Tensor, "*n h w"], height: int, width: int) -> Float[Tensor, "*n y x"]:
    """Reduce images by averaging over exact areas: a pixel that straddles two targets counts in both by its share.

    The result is that of OpenCV's INTER_AREA on floats, on any device and with a gradient. (``F.interpolate(mode="area")``
    counts whole pixels in both.)
    """
    for axis, size in ((-2, height), (-1, width)):  # rows first, which are contiguous in memory
        length = values.shape[axis]
        if length == size:
            continue
        edges = np.linspace(0, length, size + 1)
        total: Tensor | float = 0.0
        for offset in range(-(-length // size) + 1):
            index = np.minimum(edges[:-1].astype(int) + offset, length)
            share = (np.minimum(edges[1:], index + 1) - np.maximum(edges[:-1], index)).clip(0) * (size / length)
            share[index == length] = 0
            weight = torch.from_numpy(share.astype(np.float32).reshape((-1, 1) if axis == -2 else -1)).to(values)
            source = torch.from_numpy(index.clip(max=length - 1)).to(values.device)
            total = total + weight * values.index_select(axis, source)
        values = cast(Tensor, total)
    return values


def is_half(value: Tensor) -> bool:
    """Return whether a tensor has a floating-point type of 16 bits."""
    return value.dtype in (torch.float16, torch.bfloat16)


def full_precision(value: Tensor) -> Tensor:
    """Convert half precision to float32; other types stay."""
    return value.float() if is_half(value) else value


def pad_edges(values: Tensor, height: int, width: int) -> Tensor:
    """(...,h,w) -> (...,H,W), with the edges repeated down and to the right."""
    padding = (0, width - values.shape[-1], 0, height - values.shape[-2])
    if not any(padding):
        return values
    flat = values.reshape(1, -1, *values.shape[-2:])
    return F.pad(flat, padding, mode="replicate").reshape(*values.shape[:-2], height, width)


def pad_slices(values: Tensor, number: int, *, repeat_last: bool = False) -> Tensor:
    """(B,s,...) -> (B,number,...), padded with zeros or with the last slice."""
    missing = number - values.shape[1]
    if not missing:
        return values
    filler = values[:, -1:] if repeat_last else torch.zeros_like(values[:, -1:])
    return torch.cat([values, *[filler] * missing], dim=1)
