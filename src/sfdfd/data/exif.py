"""What photographs say of themselves in EXIF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from PIL import ExifTags

__all__ = ["PhotoFacts", "photo_facts", "positive", "taken_at"]

SENSOR_DIAGONAL_35MM_M = math.hypot(0.036, 0.024)
Tag = ExifTags.Base


@dataclass(frozen=True)
class PhotoFacts:
    """What a photograph says about its camera (EXIF); None where it says nothing.

    Attributes:
        focal_length_m, f_number: of the lens.
        pixel_pitch_m: of the image as it is stored, from the sensor's resolution or the 35 mm equivalent.
        subject_distance_m: the focus distance; inf is possible.
        maker_note: whether the camera's maker has added notes of its own.
        orientation: EXIF's, 1 to 8, that was applied to the pixels.
        tags: all of EXIF, by number.
        colour_space, colour_source: of the file, and how it is known, in words; the pixels are in sRGB.
        outside_srgb: share of the pixels whose colours sRGB does not have.
    """

    focal_length_m: float | None = None
    f_number: float | None = None
    pixel_pitch_m: float | None = None
    subject_distance_m: float | None = None
    maker_note: bool = False
    orientation: int = 1
    tags: Mapping[int, Any] = field(default_factory=dict, repr=False, compare=False)
    colour_space: str = ""
    colour_source: str = ""
    outside_srgb: float = 0.0


def positive(value: Any, *, infinite: bool = False) -> float | None:
    """The value as a positive number; None where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if number > 0 and (infinite or math.isfinite(number)) else None


def photo_facts(exif: Mapping[int, Any], size: tuple[int, int]) -> PhotoFacts:
    """EXIF tags by number -> facts; ``size`` is (width, height) of the stored pixels."""
    focal_mm, equivalent_mm = positive(exif.get(Tag.FocalLength)), positive(exif.get(Tag.FocalLengthIn35mmFilm))
    f_number = positive(exif.get(Tag.FNumber))
    aperture = positive(exif.get(Tag.ApertureValue))
    if f_number is None and aperture is not None:
        f_number = 2 ** (aperture / 2)  # APEX
    pitch_m = None
    resolution, unit = positive(exif.get(Tag.FocalPlaneXResolution)), exif.get(Tag.FocalPlaneResolutionUnit, 2)
    unit_m = {2: 0.0254, 3: 0.01, 4: 0.001, 5: 1e-6}.get(unit)
    if resolution is not None and unit_m is not None:
        native = positive(exif.get(Tag.ExifImageWidth)) or size[0]
        pitch_m = unit_m / resolution * native / size[0]
    elif focal_mm and equivalent_mm:
        pitch_m = SENSOR_DIAGONAL_35MM_M * focal_mm / equivalent_mm / math.hypot(*size)
    distance = exif.get(Tag.SubjectDistance)
    infinite = getattr(distance, "numerator", None) == 0xFFFFFFFF
    return PhotoFacts(
        focal_length_m=None if focal_mm is None else focal_mm / 1000,
        f_number=f_number,
        pixel_pitch_m=pitch_m,
        subject_distance_m=math.inf if infinite else positive(distance, infinite=True),
        maker_note=Tag.MakerNote in exif,
    )


def taken_at(exif: Mapping[int, Any]) -> datetime | None:
    """When a photograph was taken, to the fraction of a second where EXIF has it; None where it does not say."""
    try:
        moment = datetime.strptime(str(exif[Tag.DateTimeOriginal]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except (KeyError, ValueError):
        return None
    fraction = str(exif.get(Tag.SubsecTimeOriginal, "")).strip("\0 ")
    return moment.replace(microsecond=int(fraction[:6].ljust(6, "0"))) if fraction.isdecimal() else moment
