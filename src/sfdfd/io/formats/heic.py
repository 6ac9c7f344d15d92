"""Read HEIC, the default format of many phones, by libheif (pillow-heif)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfdfd.errors import InputError, one_line
from sfdfd.io.colour_spaces import ColourSpace, colour_space, space_from_code_points

__all__ = ["HEIC_SUFFIXES", "is_heic", "read_heic"]

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
INSTALL = "pip install 'sfdfd[photo]'"


def is_heic(data: bytes) -> bool:
    """Return whether a file with these first bytes is HEIC."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS and b"avif" not in data[8:40]


def read_heic(
    data: bytes, path: Path, check_size: Callable[[int, int], None]
) -> tuple[np.ndarray, Image.Exif, ColourSpace]:
    """Read a HEIC file as upright (H,W,3) uint8, or uint16 if it has more than 8 bits, with EXIF and colour space.

    Args:
        data: the file's bytes.
        path: for messages.
        check_size: called with width and height before pixels are read; raises if they are too large.

    Raises:
        InputError: pillow-heif is not installed, the file is broken, or it is HDR.
    """
    try:
        import pillow_heif
    except ImportError:
        raise InputError(f"{path}: reading HEIC needs pillow-heif: {INSTALL}") from None
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        primary = file[file.primary_index]
        check_size(*primary.size)
        space = _space(primary, path)
        bits = int(primary.info.get("bit_depth", 8))
        array = np.asarray(primary)
        tags = Image.Exif()
        tags.load(primary.info.get("exif") or b"")
    except InputError:
        raise
    except Exception as error:  # the binding raises anything on broken files
        raise InputError(f"{path}: not a readable HEIC file ({one_line(error)})") from None
    if array.dtype == np.uint16 and bits not in (8, 16):  # stored in the upper bits: scaled to the full range
        array = ((array >> (16 - bits)).astype(np.float32) * (65535 / (2**bits - 1))).round().astype(np.uint16)
    return array, tags, space


def _space(primary: Any, path: Path) -> ColourSpace:
    """Return the colour space of the profile, else of the code points; HDR code points are refused either way."""
    points, icc = primary.info.get("nclx_profile") or {}, primary.info.get("icc_profile")
    try:
        coded = space_from_code_points(
            int(points.get("color_primaries", 2)), int(points.get("transfer_characteristics", 2))
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return colour_space(icc, {}) if icc else coded
