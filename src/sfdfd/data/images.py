"""Image files in and out, with errors that name the file."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image
from torch import Tensor

from sfdfd.data.exif import PhotoFacts, photo_facts, taken_at
from sfdfd.data.formats.heic import HEIC_SUFFIXES, is_heic, read_heic
from sfdfd.data.formats.makernotes import exif_of
from sfdfd.data.formats.raw import RAW_SUFFIXES, raw_is_readable, read_raw
from sfdfd.errors import InputError, checked_whole, one_line

__all__ = [
    "IMAGE_SUFFIXES",
    "list_images",
    "moment_of",
    "natural_key",
    "read_array",
    "read_image",
    "read_npy",
    "read_photograph",
    "to_bytes",
    "to_float",
    "without_twins",
    "working_px_for",
    "working_size",
    "write_image",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *HEIC_SUFFIXES, *RAW_SUFFIXES)
LARGEST_PIXELS = 120e6
# broken files are reported by us, in one line; OpenCV has moved the switch between 4 and 5
(getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)


def natural_key(path: Path) -> list[tuple[int, Any]]:
    """Sorts names by the value of their numbers: 2 before 10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path.name.lower()) if part]


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder, sorted by name, numbers by value (2 before 10); hidden files are passed over."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(found, key=lambda path: (natural_key(path), path.name))


_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""EXIF orientation -> quarter turns against the clock, and whether to mirror left and right afterwards."""


def without_twins(files: Sequence[Path]) -> list[Path]:
    """Of a RAW file and the picture that the camera made of it (one name, two suffixes) the RAW file, if it can be read."""
    raw = {file.with_suffix("") for file in files if file.suffix.lower() in RAW_SUFFIXES}
    others = {file.with_suffix("") for file in files if file.suffix.lower() not in RAW_SUFFIXES}
    wanted = raw_is_readable()
    return [
        file
        for file in files
        if file.with_suffix("") not in raw & others or (file.suffix.lower() in RAW_SUFFIXES) is wanted
    ]


def read_photograph(path: Path) -> tuple[np.ndarray, PhotoFacts]:
    """An image file as (H,W,3) uint8, uint16 or float32 and what its EXIF says.

    JPEG, PNG and TIFF, 8 or 16 bit (or float TIFF in [0, 1]), grey or colour; RAW and DNG
    (:func:`sfdfd.data.formats.raw.read_raw`) and HEIC (:func:`sfdfd.data.formats.heic.read_heic`), each with a package of
    its own. Alpha is dropped, rotation applied.

    Raises:
        InputError: the file is missing, empty, truncated, too large, or no image; or the package for it is missing.
    """

    def check_size(width: int, height: int) -> None:
        if width * height > LARGEST_PIXELS:
            raise InputError(f"{path}: {width} x {height} pixels are more than this reads; resize the slices")

    data = _bytes_of(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        array, exif = read_raw(path, check_size)
    elif is_heic(data):
        array, exif = read_heic(data, path, check_size)
        exif = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    else:
        array, exif = _read_usual(data, path, check_size)
    array = _three_colours(array, path)
    turns, mirrored = 0, False
    if path.suffix.lower() in RAW_SUFFIXES or is_heic(data):  # upright already; EXIF counts as the sensor lies
        size = (max(array.shape[:2]), min(array.shape[:2]))
    else:
        size = (array.shape[1], array.shape[0])
        turns, mirrored = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1), (0, False))
    array = np.rot90(array, turns)
    return np.ascontiguousarray(array[:, ::-1] if mirrored else array), photo_facts(exif, size)


def moment_of(path: Path) -> datetime | None:
    """When a photograph was taken (EXIF), without reading its pixels; None where it does not say or cannot be read."""
    if path.suffix.lower() in (*RAW_SUFFIXES, *HEIC_SUFFIXES):
        return taken_at(exif_of(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return taken_at(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except Exception:  # Pillow raises whatever it likes on broken files
        return None


def _bytes_of(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None
    if not data:
        raise InputError(f"{path}: not a readable image (the file is empty)")
    return data


def _read_usual(data: bytes, path: Path, check_size: Callable[[int, int], None]) -> tuple[np.ndarray, dict[int, Any]]:
    """JPEG, PNG and TIFF as they are stored, and their EXIF."""
    exif: dict[int, Any] = {}
    array = None
    is_tiff = data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what it cannot read, it raises
            with Image.open(io.BytesIO(data)) as image:
                check_size(image.width, image.height)
                tags = image.getexif()
                exif = {**tags, **tags.get_ifd(ExifTags.IFD.Exif)}
                deep = (data[:4] == b"\x89PNG" and data[24] == 16) or (
                    is_tiff and any(bits > 8 for bits in image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined] # a TIFF's
                )  # Pillow reduces deep colour to 8 bits
                image.load()
                exif[ExifTags.Base.Orientation] = image.getexif().get(
                    ExifTags.Base.Orientation, 1
                )  # TIFFs turn in load
                if not deep:
                    array = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow raises whatever it likes on broken files
        if not is_tiff:
            reason = str(error).splitlines()[0].replace(str(io.BytesIO), "") if str(error) else type(error).__name__
            raise InputError(f"{path}: not a readable image ({re.sub(r' <_io.*?>', '', reason)})") from None
    if array is None:
        try:
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:  # a TIFF that lies about its size
            array = None
        if array is None:
            raise InputError(f"{path}: not a readable image (truncated or of an unknown kind)")
        if array.ndim == 3 and array.shape[2] >= 3:
            array = array[..., 2::-1]  # OpenCV's order is BGR
    return array, exif


def _three_colours(array: np.ndarray, path: Path) -> np.ndarray:
    """(H,W,3) uint8, uint16 or float32 in [0, 1] of what a reader gave."""
    if array.dtype not in (np.uint8, np.uint16):
        if array.dtype.kind != "f":
            raise InputError(f"{path}: expected an 8 or 16 bit image, got {array.dtype}")
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"{path}: holds values that are not finite")
        if array.max() > 1.0 + 1e-3 or array.min() < -1e-3:
            raise InputError(
                f"{path}: a floating-point image must lie in [0, 1], got {array.min():.4g} to {array.max():.4g}"
            )
    if array.ndim == 2 or array.shape[2] < 3:
        array = np.repeat(array.reshape(*array.shape[:2], -1)[..., :1], 3, axis=2)
    return array[..., :3]


def read_array(path: Path) -> np.ndarray:
    """The pixels as they are stored, any type and channels (depth images).

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


def to_float(array: np.ndarray) -> Float[Tensor, "3 h w"]:
    """(H,W,3) uint8, uint16 or float -> (3,H,W) float32 in [0, 1]."""
    scale = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    return torch.from_numpy(array.astype(np.float32) / np.float32(scale)).permute(2, 0, 1).contiguous()


def channels_first(array: np.ndarray) -> Tensor:
    """(H,W,C) -> (C,H,W), of its type."""
    return torch.from_numpy(array).permute(2, 0, 1)


def to_bytes(values: Tensor) -> Tensor:
    """[0, 1] -> uint8, rounded: how a photograph is stored; ``to_bytes(x).float().div(255)`` is what is read back."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def read_npy(path: Path, dtype: Any = None) -> np.ndarray:
    """A NumPy file's array, never unpickling objects; as ``dtype`` where one is given.

    Raises:
        InputError: it is none.
    """
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype)
    except Exception as error:  # NumPy raises whatever it likes on broken files
        raise InputError(f"{path}: not a NumPy array ({one_line(error)})") from None


def read_image(path: Path) -> Float[Tensor, "3 h w"]:
    """An RGB image in [0, 1]; see :func:`read_photograph`."""
    return to_float(read_photograph(path)[0])


def write_image(path: Path, image: Float[Tensor, "3 h w"]) -> None:
    """Write RGB in [0, 1] as an 8-bit image."""
    iio.imwrite(path, to_bytes(image.detach().cpu()).permute(1, 2, 0).numpy())


USUAL_PX, LEAST_PX, MOST_PX = 512, 320, 1280
"""Longer side of the images that are worked on where the blur does not ask for another, and its bounds."""
ENOUGH_BLUR_PX, MUCH_BLUR_PX = 8.0, 12.0
"""Largest blur radius from which depth is well determined, and up to which it is cheap."""


def working_px_for(working_px: int | str, largest_blur_px: float, longer_px: int) -> int:
    """Longer side in pixels at which a stack is worked on.

    "auto" follows the blur: 512 where the largest radius between near and far then is 8 to 12 px (a phone's blurs by less
    than one at that size, and its depth is hardly determined there), else larger or smaller until it is, within 320 to 1280.

    Args:
        working_px: a number of pixels, or "auto".
        largest_blur_px: blur radius in pixels of the images as they are, > 0.
        longer_px: their longer side.

    Raises:
        InputError: it is neither.
    """
    if working_px != "auto":
        return checked_whole(working_px, 'working_px (or "auto")', 32)
    share = max(largest_blur_px, 1e-9) / longer_px
    size = min(max(USUAL_PX, ENOUGH_BLUR_PX / share), MUCH_BLUR_PX / share)
    return round(min(max(size, LEAST_PX), MOST_PX))


def working_size(height: int, width: int, longer_px: int) -> tuple[int, int]:
    """(height, width) reduced so that the longer side is at most ``longer_px``; never enlarged."""
    factor = min(1.0, longer_px / max(height, width))
    return max(16, round(height * factor)), max(16, round(width * factor))
