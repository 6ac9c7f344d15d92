"""Read JPEG, PNG, BMP, WebP, AVIF, JPEG 2000 and Netpbm without loss of bit depth.

Pillow reads most of them but reduces deep colour to 8 bits. So deep PNG is read by OpenCV, deep AVIF and JPEG 2000 by
imagecodecs, and Netpbm here.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
from PIL import Image

from sfdfd.errors import InputError, one_line
from sfdfd.io.colour_spaces import (
    ColourSpace,
    cmyk_to_srgb,
    colour_space,
    space_from_chromaticities,
    space_from_code_points,
)
from sfdfd.io.exif import all_exif_tags

__all__ = ["COMMON_SUFFIXES", "Decoded", "read_common"]

COMMON_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".avif", ".jp2", ".j2k", ".jpx", ".pgm", ".ppm", ".pnm"
)  # fmt: skip
PNG, JP2, J2K = b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
NETPBM = re.compile(rb"P([2356])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "AVIF", "JPEG2000", "PPM")


@dataclass(frozen=True)
class Decoded:
    """A decoded image file.

    Attributes:
        pixels: (H,W) or (H,W,3 or 4) uint8, uint16 or float32.
        exif: tags by number, including those of its IFDs.
        space: the colour space.
        upright: whether its EXIF orientation has been applied.
    """

    pixels: np.ndarray
    exif: Mapping[int, Any]
    space: ColourSpace
    upright: bool = False


def read_common(data: bytes, path: Path, check_size: Callable[[int, int], None]) -> Decoded:
    """Decode an image file at its stored bit depth.

    Args:
        data: the file's bytes.
        path: for messages.
        check_size: called with width and height before pixels are read; raises if they are too large.

    Raises:
        InputError: the file is broken, of an unknown format, too large, HDR, or CMYK without a profile.
    """
    netpbm = NETPBM.match(data)
    if netpbm is not None:
        return Decoded(_netpbm(data, netpbm, path, check_size), {}, colour_space(None, {}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and raises if it cannot read it
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(image.width, image.height)
                exif = all_exif_tags(image.getexif())
                bits = _bits(data)
                if bits > 8:
                    pixels = _deep(data, bits)
                else:
                    image.load()
                    exif = {**exif, **all_exif_tags(image.getexif())}  # PNG may store it after the pixels
                    pixels = _eight_bits(image, path)
                icc = image.info.get("icc_profile") or _profile_of_jp2(data)
                space = _space(data, path, image, icc, exif, gray=pixels.ndim == 2)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        pixel_count = re.search(r"\d+", str(error))
        check_size(int(pixel_count[0]) if pixel_count else 10**12, 1)
        raise InputError(f"{path}: not a readable image ({one_line(error)})") from None
    except Exception as error:  # Pillow raises anything on broken files
        reason = str(error).splitlines()[0].replace(str(io.BytesIO), "") if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable image ({re.sub(r' ?<_io.*?>', '', reason)})") from None
    return Decoded(pixels, exif, space)


def _eight_bits(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode == "CMYK":
        icc = image.info.get("icc_profile")
        if not icc:
            raise InputError(f"{path}: CMYK without a colour profile defines no colours; export the slices in RGB")
        return cmyk_to_srgb(np.asarray(image), icc)
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _space(
    data: bytes, path: Path, image: Image.Image, icc: bytes | None, exif: Mapping[int, Any], gray: bool
) -> ColourSpace:
    """Return the colour space by the first that is present: profile, code points, PNG's own chunks, EXIF."""
    if image.mode == "CMYK":
        return ColourSpace("sRGB", "converted from CMYK by its profile")
    points = _code_points(data)
    if points is not None:
        try:
            coded = space_from_code_points(*points)
        except InputError as error:  # HDR is refused even if there is a profile
            raise InputError(f"{path}: {error}") from None
        if not icc and points[0] != 2:
            return coded
    if not icc and data.startswith(PNG) and "srgb" in image.info:
        return ColourSpace("sRGB", "PNG's sRGB chunk")
    if not icc and data.startswith(PNG) and ("gamma" in image.info or "chromaticity" in image.info):
        gamma = image.info.get("gamma")
        return space_from_chromaticities(1 / gamma if gamma else None, image.info.get("chromaticity"))
    return colour_space(icc, exif, gray)


def _code_points(data: bytes) -> tuple[int, int] | None:
    """Return the colour primaries and transfer characteristics (ITU-T H.273) in AVIF or PNG."""
    if data[4:8] == b"ftyp" and (box := data.find(b"colrnclx", 0, 1 << 16)) >= 0:
        return struct.unpack(">HH", data[box + 8 : box + 12])
    if data.startswith(PNG) and (chunk := data.find(b"cICP", 0, data.find(b"IDAT"))) >= 0:
        return data[chunk + 4], data[chunk + 5]
    return None


def _bits(data: bytes) -> int:
    """Return the bits per channel; 8 for every format that Pillow reads without loss."""
    if data.startswith(PNG):
        return data[24]
    if data.startswith((JP2, J2K)) and (start := data.find(J2K)) >= 0:
        return (data[start + 42] & 0x7F) + 1
    if data[4:8] == b"ftyp" and (box := data.find(b"av1C", 0, 1 << 16)) >= 0:
        flags = data[box + 6]
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return 8


def _deep(data: bytes, bits: int) -> np.ndarray:
    """Decode a PNG, AVIF or JPEG 2000 of more than 8 bits to uint16 up to 65535."""
    if data.startswith(PNG):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError("truncated or of an unknown kind")
        return pixels[..., 2::-1] if pixels.ndim == 3 and pixels.shape[2] >= 3 else pixels  # OpenCV's order is BGR
    pixels = imagecodecs.avif_decode(data) if data[4:8] == b"ftyp" else imagecodecs.jpeg2k_decode(data)
    if pixels.dtype.kind != "u" or bits > 16:
        raise ValueError(f"{bits} bits are not read")
    return _full_range(pixels, 2**bits - 1)


def _full_range(values: np.ndarray, white: int) -> np.ndarray:
    """Scale values from [0, ``white``] to the full range of uint8, or of uint16 if ``white`` exceeds 255."""
    top, dtype = (255, np.uint8) if white <= 255 else (65535, np.uint16)
    return values.astype(dtype) if white == top else (values.astype(np.float64) * (top / white)).round().astype(dtype)


def _netpbm(data: bytes, header: re.Match[bytes], path: Path, check_size: Callable[[int, int], None]) -> np.ndarray:
    """Decode a PGM or PPM, binary or text."""
    kind, width, height, white = (int(group) for group in header.groups())
    if not (width and height and 0 < white < 65536):
        raise InputError(f"{path}: not a readable image (its header says {width} x {height}, up to {white})")
    check_size(width, height)
    channels = 3 if kind in (3, 6) else 1
    count = width * height * channels
    try:
        if kind in (5, 6):
            values = np.frombuffer(data, "u1" if white < 256 else ">u2", count, header.end())
        else:
            numbers = re.sub(rb"#[^\n]*", b"", data[header.end() :]).split()[:count]
            values = np.array([int(number) for number in numbers])
    except ValueError:
        values = np.empty(0)
    if values.size != count or values.max(initial=0) > white:
        raise InputError(f"{path}: not a readable image (truncated, or not as its header says)")
    pixels = _full_range(values, white)
    return pixels.reshape((height, width, 3) if channels == 3 else (height, width))


def _profile_of_jp2(data: bytes) -> bytes | None:
    """Return the ICC profile in a JP2's colour box."""
    box = data.find(b"colr\x02", 0, 1 << 20) if data.startswith(JP2) else -1
    if box < 4:
        return None
    length = struct.unpack(">I", data[box - 4 : box])[0]
    return data[box + 7 : box - 4 + length]
