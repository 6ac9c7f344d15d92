"""Image files in and out, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "list_images", "read_array", "read_image", "write_image"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder, sorted by name; hidden files are passed over."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def read_array(path: Path) -> np.ndarray:
    """The pixels as they are stored, any type and channels.

    Raises:
        InputError: the file is missing, empty, truncated or no image.
    """
    try:
        return iio.imread(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # the readers raise whatever they like on broken files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable image ({reason})") from None


def read_image(path: Path) -> Float[Tensor, "3 h w"]:
    """An RGB image in [0, 1]; grey becomes three equal channels, alpha is dropped, 8 and 16 bit are scaled."""
    array = read_array(path)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if not np.issubdtype(array.dtype, np.integer) and array.dtype.kind != "f":
        raise InputError(f"{path}: expected an 8 or 16 bit image, got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise InputError(f"{path}: expected a grey or RGB image, got an array of shape {array.shape}")
    scale = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1.0
    if array.dtype == np.int32:  # 16-bit greys that Pillow widens
        scale = 65535
    colour = array[..., :3] if array.shape[2] >= 3 else array[..., :1].repeat(3, axis=2)
    image = torch.from_numpy(colour.astype(np.float32) / np.float32(scale)).permute(2, 0, 1).contiguous()
    if not bool(torch.isfinite(image).all()):
        raise InputError(f"{path}: holds values that are not finite")
    return image


def write_image(path: Path, image: Float[Tensor, "3 h w"]) -> None:
    """Write RGB in [0, 1] as an 8-bit image."""
    array = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    iio.imwrite(path, array.permute(1, 2, 0).numpy())
