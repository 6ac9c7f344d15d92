"""Read and write image files, with errors that name the file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
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

from sfdfd.errors import InputError, checked_int, one_line
from sfdfd.io.colour_spaces import ColourSpace, cmyk_to_srgb, colour_space, to_srgb
from sfdfd.io.embedded_metadata import encode_png
from sfdfd.io.exif import PhotoFacts, all_exif_tags, exif_capture_time, photo_facts
from sfdfd.io.formats.common import COMMON_SUFFIXES, Decoded, read_common
from sfdfd.io.formats.heic import HEIC_SUFFIXES, is_heic, read_heic
from sfdfd.io.formats.maker_notes import read_exif
from sfdfd.io.formats.raw import RAW_SUFFIXES, read_raw
from sfdfd.io.formats.tiff import TIFF_SUFFIXES, is_tiff, read_tiff

__all__ = [
    "IMAGE_SUFFIXES",
    "capture_time",
    "list_images",
    "natural_sort_key",
    "read_array",
    "read_image",
    "read_npy",
    "read_photograph",
    "resolve_working_px",
    "to_bytes",
    "to_float",
    "working_size",
    "write_image",
]

IMAGE_SUFFIXES = (*COMMON_SUFFIXES, *TIFF_SUFFIXES, *HEIC_SUFFIXES, *RAW_SUFFIXES)
LARGEST_PIXELS = 120e6
"""Largest photograph that is read. The largest common sensors have 61 (full frame) and 102 million."""
# our one-line errors replace OpenCV's log messages; OpenCV moved the switch between versions 4 and 5
(getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)


def natural_sort_key(path: Path) -> list[tuple[int, Any]]:
    """Return a sort key that orders numbers in names by value: 2 before 10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path.name.lower()) if part]


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder, sorted by :func:`natural_sort_key`, without hidden files."""
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(images, key=lambda path: (natural_sort_key(path), path.name))


_ROTATIONS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""EXIF orientation -> counterclockwise quarter turns, and whether to mirror left and right afterwards."""
_INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""EXIF orientation -> the orientation that undoes it."""


def read_photograph(
    path: Path, page: int | None = None, orientation: int | None = None
) -> tuple[np.ndarray, PhotoFacts]:
    """Read an image file as (H,W,3) uint8, uint16 or float32 (in [0, 1]) in sRGB, together with its EXIF facts.

    Formats: JPEG, PNG, BMP, WebP, AVIF, JPEG 2000, PGM and PPM (:mod:`sfdfd.io.formats.common`), TIFF
    (:mod:`sfdfd.io.formats.tiff`), RAW and DNG (:mod:`sfdfd.io.formats.raw`) and HEIC (:mod:`sfdfd.io.formats.heic`); the
    last two need optional packages. Alpha is dropped, the image is turned upright, and colours are converted to sRGB by the
    file's profile (:mod:`sfdfd.io.colour_spaces`).

    Args:
        path: the file.
        page: index of the slice in a TIFF whose pages are slices.
        orientation: EXIF orientation, 1 to 8, to apply instead of the file's.

    Raises:
        InputError: the file is missing, empty, truncated, too large or no image; or its optional package is missing.
    """

    def check_size(width: int, height: int) -> None:
        if width * height > LARGEST_PIXELS:
            raise InputError(
                f"{path}: {_megapixels(width, height)} are more than the {LARGEST_PIXELS / 1e6:.0f} that are read; reduce "
                f"all slices alike first, for example: magick mogrify -resize 50% '*{path.suffix}'"
            )

    decoded, file_orientation = _decode(_bytes_of(path), path, check_size, page)
    array, outside = to_srgb(_three_colours(decoded.pixels, path), decoded.space)
    size = (array.shape[1], array.shape[0])
    orientation = orientation or file_orientation
    if not decoded.upright:
        array = _rotated(array, orientation)
    else:
        size = (max(size), min(size))  # EXIF's sizes are those of the unrotated sensor
        if orientation != file_orientation:
            array = _rotated(_rotated(array, _INVERSE[file_orientation]), orientation)
    facts = replace(
        photo_facts(decoded.exif, size),
        orientation=file_orientation,
        tags=decoded.exif,
        colour_space=decoded.space.name,
        colour_source=decoded.space.source,
        outside_srgb=outside,
    )
    return np.ascontiguousarray(array), facts


def _megapixels(width: int, height: int) -> str:
    size = "" if height == 1 else f"{width} x {height} pixels "
    return f"{size}({width * height / 1e6:.0f} megapixels)"


def _decode(data: bytes, path: Path, check_size: Callable[[int, int], None], page: int | None) -> tuple[Decoded, int]:
    """Decode a file with the reader of its format; return the EXIF orientation, too."""
    if path.suffix.lower() in RAW_SUFFIXES:
        array, tags, orientation = read_raw(path, check_size)
        return Decoded(array, tags, ColourSpace("camera RAW", "developed to sRGB"), upright=True), orientation
    if is_heic(data):
        array, exif, space = read_heic(data, path, check_size)
        decoded = Decoded(array, all_exif_tags(exif), space, upright=True)
        if not any(box in data[: 1 << 16] for box in (b"irot", b"imir")):
            return decoded, 1  # libheif rotates by these boxes, whatever EXIF says
    elif is_tiff(data):
        decoded = _decode_tiff(path, check_size, page)
    else:
        decoded = read_common(data, path, check_size)
    orientation = decoded.exif.get(ExifTags.Base.Orientation, 1)
    return decoded, orientation if orientation in _INVERSE else 1


def _decode_tiff(path: Path, check_size: Callable[[int, int], None], page: int | None) -> Decoded:
    tiff = read_tiff(path, check_size, page)
    if tiff.pixels.ndim < 3 or tiff.pixels.shape[2] != 4:
        return Decoded(tiff.pixels, tiff.exif, colour_space(tiff.icc, tiff.exif, gray=tiff.pixels.ndim == 2))
    if tiff.icc is None or tiff.pixels.dtype != np.uint8:
        raise InputError(f"{path}: CMYK needs a colour profile and 8 bits to define colours; export the slices in RGB")
    pixels = cmyk_to_srgb(tiff.pixels, tiff.icc)
    return Decoded(pixels, tiff.exif, ColourSpace("sRGB", "converted from CMYK by its profile"))


def _rotated(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to stored pixels."""
    quarter_turns, mirrored = _ROTATIONS.get(orientation, (0, False))
    array = np.rot90(array, quarter_turns)
    return array[:, ::-1] if mirrored else array


def capture_time(path: Path) -> datetime | None:
    """Return when a photograph was taken (EXIF) without reading its pixels; None if that is unknown."""
    if path.suffix.lower() in (*RAW_SUFFIXES, *HEIC_SUFFIXES):
        return exif_capture_time(read_exif(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return exif_capture_time(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except Exception:  # Pillow raises anything on broken files
        return None


def _bytes_of(path: Path) -> bytes:
    """Return a file's bytes; only the first four of a TIFF, which its reader opens itself."""
    try:
        with path.open("rb") as file:
            data = file.read(4)
            if not is_tiff(data):  # it may hold gigabytes, and is read page by page
                data += file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None
    if not data:
        raise InputError(f"{path}: not a readable image (the file is empty)")
    return data


def _three_colours(array: np.ndarray, path: Path) -> np.ndarray:
    """Convert decoded pixels to (H,W,3) uint8, uint16 or float32 in [0, 1]."""
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
    """Return the pixels as they are stored, of any type and number of channels (for depth images).

    Raises:
        InputError: the file is missing, empty, truncated or no image.
    """
    try:
        return iio.imread(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # the readers raise anything on broken files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable image ({reason})") from None


def to_float(array: np.ndarray) -> Float[Tensor, "3 h w"]:
    """Convert (H,W,3) uint8, uint16 or float to (3,H,W) float32 in [0, 1]."""
    scale = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    return torch.from_numpy(array.astype(np.float32) / np.float32(scale)).permute(2, 0, 1).contiguous()


def channels_first(array: np.ndarray) -> Tensor:
    """Convert (H,W,C) to (C,H,W) without changing the type."""
    return torch.from_numpy(array).permute(2, 0, 1)


def to_bytes(values: Tensor) -> Tensor:
    """Quantize [0, 1] to uint8 as an 8-bit image file does; ``to_bytes(x).float().div(255)`` inverts it up to rounding."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def read_npy(path: Path, dtype: Any = None) -> np.ndarray:
    """Load a NumPy file without unpickling objects, and convert it to ``dtype`` if given.

    Raises:
        InputError: the file is no NumPy array.
    """
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype)
    except Exception as error:  # NumPy raises anything on broken files
        raise InputError(f"{path}: not a NumPy array ({one_line(error)})") from None


def read_image(path: Path) -> Float[Tensor, "3 h w"]:
    """Read an RGB image in [0, 1]; see :func:`read_photograph`."""
    return to_float(read_photograph(path)[0])


def write_image(path: Path, image: Float[Tensor, "3 h w"], exif: Image.Exif | None = None) -> None:
    """Write RGB in [0, 1] as an 8-bit PNG with an sRGB chunk and optional EXIF."""
    path.write_bytes(encode_png(to_bytes(image.detach().cpu()).permute(1, 2, 0).numpy(), exif))


DEFAULT_WORKING_PX, MIN_WORKING_PX, MAX_WORKING_PX = 512, 320, 1280
"""Longer side of the working images: its preferred value and its bounds."""
MIN_BLUR_PX, MAX_BLUR_PX = 8.0, 12.0
"""Range of the largest blur radius: below it depth is poorly determined, above it rendering is slow."""


def resolve_working_px(working_px: int | str, largest_blur_px: float, longer_px: int) -> int:
    """Return the longer side in pixels to which a stack is resized for processing.

    "auto" chooses it by the blur: 512 if the largest blur radius between near and far is then 8 to 12 px; otherwise
    larger or smaller until it is, from 320 to 1280. A phone blurs by less than a pixel at 512, which hardly determines
    depth.

    Args:
        working_px: a number of pixels, or "auto".
        largest_blur_px: blur radius in pixels of the images as they are, > 0.
        longer_px: their longer side.

    Raises:
        InputError: ``working_px`` is neither.
    """
    if working_px != "auto":
        return checked_int(working_px, 'working_px (or "auto")', 32)
    relative_blur = max(largest_blur_px, 1e-9) / longer_px
    size = min(max(DEFAULT_WORKING_PX, MIN_BLUR_PX / relative_blur), MAX_BLUR_PX / relative_blur)
    return round(min(max(size, MIN_WORKING_PX), MAX_WORKING_PX))


def working_size(height: int, width: int, longer_px: int) -> tuple[int, int]:
    """Return (height, width) reduced so that the longer side is at most ``longer_px``; never enlarged."""
    factor = min(1.0, longer_px / max(height, width))
    return max(16, round(height * factor)), max(16, round(width * factor))
