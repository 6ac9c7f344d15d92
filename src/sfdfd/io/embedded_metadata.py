"""What pictures that are written say of themselves: that they are in sRGB, and which camera took the photographs.

Programs for photogrammetry take the focal length in pixels from EXIF, so what is carried fits the pixels that are written:
no orientation (they are upright), their own width and height, and the sensor's resolution and the 35 mm equivalent of the
part of the sensor that they show. Places (GPS), serial numbers, thumbnails and makers' notes stay behind.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from sfdfd.io.colour_spaces import srgb_profile
from sfdfd.io.exif import PhotoFacts, positive
from sfdfd.io.pixel_pitch import DIAGONAL_35MM_MM

__all__ = ["carried_exif", "encoded_png", "write_float_tiff"]

Tag = ExifTags.Base
TEXTS = (Tag.Make, Tag.Model, Tag.DateTime)
TEXTS_OF_EXIF = (
    Tag.DateTimeOriginal, Tag.DateTimeDigitized, Tag.SubsecTimeOriginal, Tag.OffsetTimeOriginal, Tag.LensMake, Tag.LensModel,
)  # fmt: skip
NUMBERS_OF_EXIF = (Tag.FNumber, Tag.FocalLength, Tag.ExposureTime)
CENTIMETRE = 3
"""Unit of EXIF's sensor resolution."""
STAND_IN = 34664
"""The tag that stands in a TIFF where EXIF's directory (34665) will be named: tifffile writes no such directories."""


def carried_exif(
    facts: PhotoFacts | None,
    size: tuple[int, int],
    uncropped: tuple[int, int] | None = None,
    camera: Mapping[str, float | None] | None = None,
) -> Image.Exif:
    """Build the EXIF of a picture that is made of photographs.

    Args:
        facts: of the photograph in whose place the picture stands, where there is one.
        size: height and width of the picture.
        uncropped: height and width of the photograph, where the picture is a part of it.
        camera: focal_length_m, f_number and pixel_pitch_m as far as they are known; they come before EXIF's.
    """
    tags: Mapping[int, Any] = {} if facts is None else facts.tags
    known = {} if camera is None else {key: value for key, value in camera.items() if value is not None}
    exif = Image.Exif()
    exif[Tag.Software] = "sfdfd"
    about = exif.get_ifd(ExifTags.IFD.Exif)
    for where, names in ((exif, TEXTS), (about, TEXTS_OF_EXIF)):
        for name in names:
            if text := _text(tags.get(name)):
                where[name] = text
    for name in NUMBERS_OF_EXIF:
        if (number := positive(tags.get(name))) is not None:
            about[name] = _rational(number)
    iso = tags.get(Tag.ISOSpeedRatings)
    if isinstance(iso, int) and 0 < iso < 65536:
        about[Tag.ISOSpeedRatings] = iso
    if facts is not None and facts.f_number is not None and "f_number" not in known:
        about[Tag.FNumber] = _rational(facts.f_number)  # of files that have the aperture in APEX
    if "f_number" in known:
        about[Tag.FNumber] = _rational(known["f_number"])
    if "focal_length_m" in known:
        about[Tag.FocalLength] = _rational(1000 * known["focal_length_m"])
    about[Tag.ColorSpace] = 1  # sRGB
    about[Tag.ExifImageWidth], about[Tag.ExifImageHeight] = size[1], size[0]
    if "pixel_pitch_m" in known:
        for name in (Tag.FocalPlaneXResolution, Tag.FocalPlaneYResolution):
            about[name] = _rational(0.01 / known["pixel_pitch_m"])
        about[Tag.FocalPlaneResolutionUnit] = CENTIMETRE
    if (equivalent := _equivalent_mm(tags, known, size, uncropped)) is not None:
        about[Tag.FocalLengthIn35mmFilm] = min(max(1, round(equivalent)), 65535)
    return exif


def _equivalent_mm(
    tags: Mapping[int, Any], known: Mapping[str, float], size: tuple[int, int], uncropped: tuple[int, int] | None
) -> float | None:
    """The focal length that shows as much on 35 mm film as the picture shows."""
    if "focal_length_m" in known and "pixel_pitch_m" in known:
        return known["focal_length_m"] * DIAGONAL_35MM_MM / (known["pixel_pitch_m"] * math.hypot(*size))
    said = positive(tags.get(Tag.FocalLengthIn35mmFilm))
    return None if said is None else said * math.hypot(*(uncropped or size)) / math.hypot(*size)


def _text(value: Any) -> str:
    """A text of EXIF as ASCII without control characters; empty where it is none."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return ""
    return "".join(one for one in value.strip("\0 ") if one.isprintable() and one.isascii())[:200]


def _rational(value: float) -> TiffImagePlugin.IFDRational:
    part = Fraction(value).limit_denominator(1_000_000 if value < 1000 else 1000)
    return TiffImagePlugin.IFDRational(part.numerator or 1, part.denominator)


def encoded_png(image: np.ndarray, exif: Image.Exif | None = None) -> bytes:
    """Encode (H,W,3) RGB uint8 or uint16 as a PNG that says it is in sRGB, with its EXIF."""
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    data = encoded.tobytes()
    chunks = _chunk(b"sRGB", b"\0")  # perceptual intent
    if exif is not None:
        chunks += _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    behind_head = 33
    return data[:behind_head] + chunks + data[behind_head:]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_float_tiff(path: Path, image: np.ndarray, exif: Image.Exif | None = None) -> None:
    """Write (H,W,3) float32 in [0, 1] as a TIFF that says it is in sRGB, with its EXIF."""
    exif = Image.Exif() if exif is None else exif
    texts = [(int(name), "s", 0, exif[name], True) for name in TEXTS if name in exif]
    file = io.BytesIO()
    tifffile.imwrite(
        file, image, photometric="rgb", compression="zlib", predictor=True, iccprofile=srgb_profile(), metadata=None,
        software="sfdfd", byteorder="<", extratags=[*texts, (STAND_IN, "I", 1, 0, True)],
    )  # fmt: skip
    file.seek(0)
    with tifffile.TiffFile(file) as written:
        entry = written.pages.first.tags[STAND_IN].offset
    data = bytearray(file.getvalue())
    data += bytes(len(data) % 2)
    data[entry : entry + 2] = struct.pack("<H", ExifTags.IFD.Exif)
    data[entry + 8 : entry + 12] = struct.pack("<I", len(data))
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    for name, value in exif.get_ifd(ExifTags.IFD.Exif).items():
        directory[name] = value
    directory[Tag.ColorSpace] = 1
    path.write_bytes(bytes(data) + directory.tobytes(len(data)))
