"""Facts about a photograph and its camera, from EXIF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

from sfdfd.io.pixel_pitch import pixel_pitch, positive

__all__ = ["PhotoFacts", "all_exif_tags", "exif_capture_time", "photo_facts", "positive"]

Tag = ExifTags.Base


@dataclass(frozen=True)
class PhotoFacts:
    """Facts about a photograph and its camera; None for what EXIF does not say.

    Attributes:
        focal_length_m, f_number: of the lens.
        pixel_pitch_m: of the stored image, see :mod:`sfdfd.io.pixel_pitch`.
        subject_distance_m: the focus distance; inf is possible.
        maker_note: whether EXIF contains a maker note.
        pixel_pitch_origin, pixel_pitch_note: as in :class:`sfdfd.io.pixel_pitch.PixelPitch`.
        orientation: the file's EXIF orientation, 1 to 8.
        tags: all of EXIF, by number.
        colour_space, colour_source: name of the file's colour space and where it comes from; the pixels are in sRGB.
        outside_srgb: share of the pixels whose colours sRGB lacks.
    """

    focal_length_m: float | None = None
    f_number: float | None = None
    pixel_pitch_m: float | None = None
    subject_distance_m: float | None = None
    maker_note: bool = False
    pixel_pitch_origin: str = "EXIF"
    pixel_pitch_note: str | None = None
    orientation: int = 1
    tags: Mapping[int, Any] = field(default_factory=dict, repr=False, compare=False)
    colour_space: str = ""
    colour_source: str = ""
    outside_srgb: float = 0.0


def all_exif_tags(exif: Image.Exif) -> dict[int, Any]:
    """Return the tags of the image, Exif and interoperability directories by number; the last ones as a mapping, too."""
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    try:
        interoperability = exif.get_ifd(ExifTags.IFD.Interop)
    except Exception:  # Pillow raises anything on broken offsets; these tags only help to find the pixel pitch
        interoperability = {}
    return {**interoperability, **exif, **tags, ExifTags.IFD.Interop: dict(interoperability)}


def photo_facts(exif: Mapping[int, Any], size: tuple[int, int]) -> PhotoFacts:
    """Extract the facts from EXIF tags by number; ``size`` is (width, height) of the stored pixels."""
    focal_mm = positive(exif.get(Tag.FocalLength))
    f_number = positive(exif.get(Tag.FNumber))
    aperture = positive(exif.get(Tag.ApertureValue))
    if f_number is None and aperture is not None:
        f_number = 2 ** (aperture / 2)  # APEX
    pitch = pixel_pitch(exif, size)
    distance = exif.get(Tag.SubjectDistance)
    infinite = getattr(distance, "numerator", None) == 0xFFFFFFFF
    return PhotoFacts(
        focal_length_m=None if focal_mm is None else focal_mm / 1000,
        f_number=f_number,
        pixel_pitch_m=pitch.pitch_m,
        subject_distance_m=math.inf if infinite else positive(distance, infinite=True),
        maker_note=Tag.MakerNote in exif,
        pixel_pitch_origin=pitch.origin,
        pixel_pitch_note=pitch.note,
    )


def exif_capture_time(exif: Mapping[int, Any]) -> datetime | None:
    """Return when a photograph was taken, with fractions of a second if EXIF has them; None if it is unknown."""
    try:
        moment = datetime.strptime(str(exif[Tag.DateTimeOriginal]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except (KeyError, ValueError):
        return None
    fraction = str(exif.get(Tag.SubsecTimeOriginal, "")).strip("\0 ")
    return moment.replace(microsecond=int(fraction[:6].ljust(6, "0"))) if fraction.isdecimal() else moment
