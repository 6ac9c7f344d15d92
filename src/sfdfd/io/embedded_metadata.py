"""Metadata of the images that are written: the sRGB colour space and the camera's EXIF.

Photogrammetry programs compute the focal length in pixels from EXIF. So the tags fit the written pixels: no orientation
(they are upright), their own width and height, and the sensor resolution and 35 mm equivalent of the part of the sensor
that they show. Location (GPS), serial numbers, thumbnails and maker notes are not copied.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
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

__all__ = ["build_exif", "encode_png", "write_float_tiff"]

Tag = ExifTags.Base
TEXT_TAGS = (Tag.Make, Tag.Model, Tag.DateTime)
EXIF_TEXT_TAGS = (
    Tag.DateTimeOriginal, Tag.DateTimeDigitized, Tag.SubsecTimeOriginal, Tag.OffsetTimeOriginal, Tag.LensMake, Tag.LensModel,
)  # fmt: skip
EXIF_NUMBER_TAGS = (Tag.FNumber, Tag.FocalLength, Tag.ExposureTime)
CENTIMETRE = 3
"""Unit of EXIF's sensor resolution."""
PLACEHOLDER = 34664
"""Tag that is written first where EXIF's directory (34665) belongs, because tifffile cannot write such directories."""


def build_exif(
    facts: PhotoFacts | None,
    size: tuple[int, int],
    uncropped: tuple[int, int] | None = None,
    camera: Mapping[str, float | None] | None = None,
) -> Image.Exif:
    """Build the EXIF of an image that is computed from photographs.

    Args:
        facts: of the photograph that the image corresponds to.
        size: height and width of the image.
        uncropped: height and width of the photograph, if the image is a part of it.
        camera: focal_length_m, f_number and pixel_pitch_m as far as they are known; they override EXIF's.
    """
    tags: Mapping[int, Any] = {} if facts is None else facts.tags
    known = {key: value for key, value in (camera or {}).items() if value is not None}
    if facts is not None and facts.f_number is not None:
        known.setdefault("f_number", facts.f_number)  # some files have the aperture only in APEX
    exif = Image.Exif()
    exif[Tag.Software] = "sfdfd"
    directory = exif.get_ifd(ExifTags.IFD.Exif)
    exif.update(_texts(tags, TEXT_TAGS))
    directory.update(_texts(tags, EXIF_TEXT_TAGS))
    for name in EXIF_NUMBER_TAGS:
        if (number := positive(tags.get(name))) is not None:
            directory[name] = _rational(number)
    iso = tags.get(Tag.ISOSpeedRatings)
    if isinstance(iso, int) and 0 < iso < 65536:
        directory[Tag.ISOSpeedRatings] = iso
    directory[Tag.ColorSpace] = 1  # sRGB
    directory[Tag.ExifImageWidth], directory[Tag.ExifImageHeight] = size[1], size[0]
    directory.update(_camera_tags(known))
    if (equivalent := _equivalent_mm(tags, known, size, uncropped)) is not None:
        directory[Tag.FocalLengthIn35mmFilm] = min(max(1, round(equivalent)), 65535)
    return exif


def _texts(tags: Mapping[int, Any], names: Sequence[Tag]) -> dict[int, str]:
    return {name: text for name in names if (text := _text(tags.get(name)))}


def _camera_tags(camera: Mapping[str, float]) -> dict[int, Any]:
    tags: dict[int, Any] = {}
    if "f_number" in camera:
        tags[Tag.FNumber] = _rational(camera["f_number"])
    if "focal_length_m" in camera:
        tags[Tag.FocalLength] = _rational(1000 * camera["focal_length_m"])
    if "pixel_pitch_m" in camera:
        tags[Tag.FocalPlaneXResolution] = tags[Tag.FocalPlaneYResolution] = _rational(0.01 / camera["pixel_pitch_m"])
        tags[Tag.FocalPlaneResolutionUnit] = CENTIMETRE
    return tags


def _equivalent_mm(
    tags: Mapping[int, Any], camera: Mapping[str, float], size: tuple[int, int], uncropped: tuple[int, int] | None
) -> float | None:
    """Return the focal length that has the image's diagonal field of view on 35 mm film."""
    if "focal_length_m" in camera and "pixel_pitch_m" in camera:
        return camera["focal_length_m"] * DIAGONAL_35MM_MM / (camera["pixel_pitch_m"] * math.hypot(*size))
    equivalent = positive(tags.get(Tag.FocalLengthIn35mmFilm))
    return None if equivalent is None else equivalent * math.hypot(*(uncropped or size)) / math.hypot(*size)


def _text(value: Any) -> str:
    """Return an EXIF text as ASCII without control characters; empty if the value is no text."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return ""
    return "".join(letter for letter in value.strip("\0 ") if letter.isprintable() and letter.isascii())[:200]


def _rational(value: float) -> TiffImagePlugin.IFDRational:
    fraction = Fraction(value).limit_denominator(1_000_000 if value < 1000 else 1000)
    return TiffImagePlugin.IFDRational(fraction.numerator or 1, fraction.denominator)


def encode_png(image: np.ndarray, exif: Image.Exif | None = None) -> bytes:
    """Encode (H,W,3) RGB uint8 or uint16 as a PNG with an sRGB chunk and EXIF."""
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    data = encoded.tobytes()
    chunks = _chunk(b"sRGB", b"\0")  # perceptual intent
    if exif is not None:
        chunks += _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    end_of_header = 33
    return data[:end_of_header] + chunks + data[end_of_header:]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_float_tiff(path: Path, image: np.ndarray, exif: Image.Exif | None = None) -> None:
    """Write (H,W,3) float32 in [0, 1] as a TIFF with an sRGB profile and EXIF."""
    exif = Image.Exif() if exif is None else exif
    texts = [(int(name), "s", 0, exif[name], True) for name in TEXT_TAGS if name in exif]
    file = io.BytesIO()
    tifffile.imwrite(
        file, image, photometric="rgb", compression="zlib", predictor=True, iccprofile=srgb_profile(), metadata=None,
        software="sfdfd", byteorder="<", extratags=[*texts, (PLACEHOLDER, "I", 1, 0, True)],
    )  # fmt: skip
    file.seek(0)
    with tifffile.TiffFile(file) as written:
        entry = written.pages.first.tags[PLACEHOLDER].offset
    data = bytearray(file.getvalue())
    data += bytes(len(data) % 2)
    data[entry : entry + 2] = struct.pack("<H", ExifTags.IFD.Exif)
    data[entry + 8 : entry + 12] = struct.pack("<I", len(data))
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    for name, value in exif.get_ifd(ExifTags.IFD.Exif).items():
        directory[name] = value
    directory[Tag.ColorSpace] = 1
    path.write_bytes(bytes(data) + directory.tobytes(len(data)))
