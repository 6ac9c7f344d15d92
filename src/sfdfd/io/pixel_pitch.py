"""The pixel pitch that EXIF means, where software may have turned, cropped or resized the photograph since.

EXIF gives the pitch in two ways: by the sensor's resolution (pixels per length, of the image that the camera wrote) and
by the 35 mm equivalent of the focal length. Either can be wrong: programs resize an image, write its new size into EXIF and
keep the sensor's resolution; phones zoom digitally. So each reading is a hypothesis that says how wide the sensor would be.
What two readings agree on is believed, else the reading whose sensor exists and suits the camera model and the lens. Where
none does, the pitch is unknown, and the blur scale is estimated from the stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags

from sfdfd.io.sensor_sizes import SMALL_MM, SMALLEST_MM, TOLERANCE, Sensor, is_large_format, sensor_of

__all__ = ["PixelPitch", "pixel_pitch", "positive"]

DIAGONAL_35MM_MM = math.hypot(36, 24)
AGREEMENT = 0.14
"""Up to this logarithm two readings agree: 35 mm equivalents are rounded, and Canon's resolution is off by 4 %."""
UNCHANGED = 0.02
SAME_ASPECT = 0.02
LARGEST_CROP = 1.15
"""An image of another aspect that lacks less than this factor of the camera's was cropped, not resized."""
ASPECTS = (1.0, 1.25, 4 / 3, 1.5, 1.6, 16 / 9, 2.0)
"""Aspects that people crop to: then the crop is as large as the image allows."""
WIDEST_EQUIVALENT_MM, LONGEST_EQUIVALENT_MM = 7.0, 3500.0
LARGEST_WIDTH_MM = 58.0
UNITS_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
Tag = ExifTags.Base


def positive(value: Any, *, infinite: bool = False) -> float | None:
    """The value as a positive number; None where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if number > 0 and (infinite or math.isfinite(number)) else None


@dataclass(frozen=True)
class PixelPitch:
    """What EXIF says of the pixel pitch.

    Attributes:
        pitch_m: of the image as it is stored; None where nothing says it, or nothing that can be.
        origin: where it comes from, in words: "EXIF", or "EXIF, ..." with what was done.
        note: a sentence where the plain reading of EXIF was not believed.
    """

    pitch_m: float | None = None
    origin: str = "EXIF"
    note: str | None = None


@dataclass(frozen=True)
class _Reading:
    """One way to read EXIF.

    Attributes:
        pitch_mm: of the stored image.
        width_mm: longer side of the whole sensor that follows.
        words: what was done since the photograph was taken, if this is the right reading.
        equivalent: it follows from the 35 mm equivalent, not from the sensor's resolution.
        likelihood: 3 the model's own sensor, 2 a large format or a crop mode, 1 a small sensor, 0 impossible.
    """

    pitch_mm: float
    width_mm: float
    words: str
    equivalent: bool
    likelihood: int = 0


@dataclass(frozen=True)
class _Exif:
    """The tags that say something of the sensor; lengths in mm, sizes in pixels."""

    size: tuple[int, int]
    focal: float | None
    equivalent: float | None
    per_pixel: float | None
    zoom: float
    f_number: float | None
    shortest_focal: float | None
    sensor: Sensor | None
    model: str
    sizes: tuple[tuple[float, float | None, str], ...]

    @classmethod
    def of(cls, tags: Mapping[int, Any], size: tuple[int, int]) -> _Exif:
        """Args: ``size`` is (width, height) of the stored pixels."""
        resolution, unit = positive(tags.get(Tag.FocalPlaneXResolution)), tags.get(Tag.FocalPlaneResolutionUnit, 2)
        unit_mm = UNITS_MM.get(unit) if isinstance(unit, int) else None
        lens = tags.get(Tag.LensSpecification)
        zoom = positive(tags.get(Tag.DigitalZoomRatio)) or 1.0
        make, model = (str(tags.get(tag, "")).strip("\0 ") for tag in (Tag.Make, Tag.Model))
        return cls(
            size=size,
            focal=positive(tags.get(Tag.FocalLength)),
            equivalent=positive(tags.get(Tag.FocalLengthIn35mmFilm)),
            per_pixel=None if resolution is None or unit_mm is None else unit_mm / resolution,
            zoom=zoom if 1.05 < zoom <= 100 else 1.0,
            f_number=positive(tags.get(Tag.FNumber)),
            shortest_focal=positive(lens[0]) if isinstance(lens, Sequence) and len(lens) else None,
            sensor=sensor_of(make, model),
            model=model,
            sizes=_camera_sizes(tags, size),
        )

    def likelihood(self, reading: _Reading) -> int:
        """Say how well the sensor of a reading suits the model, the lens and what exists."""
        width, focal = reading.width_mm, self.focal
        shorter = width / (self.sensor.aspect if self.sensor is not None else 1.5)
        seen = None if focal is None else focal * DIAGONAL_35MM_MM / math.hypot(width, shorter)
        if seen is not None and not WIDEST_EQUIVALENT_MM <= seen <= LONGEST_EQUIVALENT_MM:
            return 0
        if self.sensor is not None:
            if reading.equivalent and self.sensor.phone:
                return int(width <= self.sensor.range_mm[1])  # a phone's photograph may be any part of its sensor
            rounded = 0.05 + 0.6 / self.equivalent if reading.equivalent and self.equivalent else TOLERANCE
            return self.sensor.fit(width, rounded)
        if width > LARGEST_WIDTH_MM:
            return 0
        if is_large_format(width):
            return 2
        if width < SMALL_MM and self.large_by_lens:
            return 0
        if reading.equivalent:
            return 1
        long, short = max(self.size), min(self.size)
        return int(SMALLEST_MM <= width < SMALL_MM and not _close(long / short, 1.5, SAME_ASPECT))  # those are 4:3

    @property
    def large_by_lens(self) -> bool:
        """Whether no camera with a small sensor has such a lens: its shortest focal length, or its width, is too large."""
        fast_and_long = (self.focal or 0) > 26 and (self.f_number or math.inf) < 2.4
        return fast_and_long or (self.shortest_focal or 0) >= 14


def _close(value: float, expected: float, tolerance: float) -> bool:
    return abs(math.log(value / expected)) <= tolerance


def _camera_sizes(tags: Mapping[int, Any], size: tuple[int, int]) -> tuple[tuple[float, float | None, str], ...]:
    """The sizes that the image may have had when the camera wrote it: (width, height, who says so), the likeliest first."""
    width = positive(tags.get(Tag.ExifImageWidth))
    height = positive(tags.get(Tag.ExifImageHeight))
    said = (float(size[0]), float(size[1]), "") if width is None else (width, height, "EXIF's own size")
    larger = []
    for first, second, words in (
        (Tag.RelatedImageWidth, Tag.RelatedImageLength, "EXIF's RelatedImageWidth"),
        (Tag.ImageWidth, Tag.ImageLength, "the size in TIFF's tags"),
    ):
        across, down = positive(tags.get(first)), positive(tags.get(second))
        if across and down and max(across, down) > 1.05 * max(said[0], said[1] or 0, *size):
            larger.append((across, down, words))
    preview = max(size) > 1.05 * max(said[0], said[1] or 0)  # of some RAW files EXIF's size is the preview's
    return (*larger, said, *([(float(size[0]), float(size[1]), "")] if preview else []))


def _reduction(camera: tuple[float, float | None], size: tuple[int, int]) -> float | None:
    """How many of the camera's pixels make one of the stored image's, along a side; None where a crop hides it."""
    width, height = camera
    if height is None:
        return 1.0 if width in size else width / max(size)
    long, short = max(width, height), min(width, height)
    if _close(long / short, max(size) / min(size), SAME_ASPECT):
        return long / max(size)
    upright = (width / size[0], height / size[1])
    turned = (width / size[1], height / size[0])
    for ratios in (upright, turned):
        if 0.99 <= min(ratios) <= LARGEST_CROP and (max(ratios) < 1.5 * LARGEST_CROP or min(ratios) < 1.01):
            return 1.0  # cropped
    if min(upright) > 1 and any(_close(max(size) / min(size), aspect, SAME_ASPECT) for aspect in ASPECTS):
        return min(upright)
    return None


def _change(camera: tuple[float, float | None, str], reduction: float, size: tuple[int, int]) -> str:
    """What software did to the image, in words; nothing where it did nothing or said so itself."""
    width, height, words = camera
    if words and words != "EXIF's own size":
        return f"the image was resized since: the camera wrote {width:g} x {height:g} pixels by {words}"
    if not _close(width / size[0], reduction, UNCHANGED):
        whole = height is None or _close(max(width, height) / min(width, height), max(size) / min(size), SAME_ASPECT)
        return f"the image was {'turned' if whole else 'cropped'} since it was taken"
    return ""


def _by_resolution(exif: _Exif) -> list[_Reading]:
    if exif.per_pixel is None:
        return []
    found = []
    for camera in exif.sizes:
        reduction = _reduction(camera[:2], exif.size)
        if reduction is None:
            continue
        long = max(camera[0], camera[1] or 0)
        if (
            exif.sensor is not None and exif.sensor.width_mm is not None
        ):  # of a squarer image, the sensor's height is whole
            long = max(long, long * min(exif.size) / max(exif.size) * exif.sensor.aspect)
        width = exif.per_pixel * long
        pitch, words = exif.per_pixel * reduction, _change(camera, reduction, exif.size)
        if exif.zoom > 1:
            part = f"the image is the middle of the sensor, enlarged {exif.zoom:.3g} times (DigitalZoomRatio)"
            found.append(_Reading(pitch / exif.zoom, width, words or part, False))
            width *= exif.zoom
        found.append(_Reading(pitch, width, words, False))
    return found


def _by_equivalent(exif: _Exif) -> list[_Reading]:
    if exif.focal is None or exif.equivalent is None:
        return []
    width, height, _ = exif.sizes[0]
    if height is None:
        width, height = exif.size
    reduction = _reduction((width, height), exif.size)
    if reduction is None:  # what is left of the frame nobody knows
        return []
    long, short = max(width, height), min(width, height)
    diagonal = DIAGONAL_35MM_MM * exif.focal / exif.equivalent
    aspect = _sensor_aspect(exif.sensor, long / short, diagonal)
    words = ""
    if _close(long / short, aspect, 1.5 * SAME_ASPECT):
        across = math.hypot(long, short)
    else:
        across = max(long * math.hypot(1, 1 / aspect), short * math.hypot(1, aspect))
        words = (
            f"the 35 mm equivalent is that of the whole {'4:3' if aspect < 1.4 else '3:2'} sensor, and the image a crop"
        )
    pitch, whole = diagonal / across * reduction, diagonal * aspect / math.hypot(1, aspect)
    found = [_Reading(pitch, whole * exif.zoom, words, True)]
    if exif.zoom > 1:
        not_in = f"the 35 mm equivalent does not have the digital zoom of {exif.zoom:.3g} in it"
        found.append(_Reading(pitch / exif.zoom, whole, not_in, True))
    return found


def _sensor_aspect(sensor: Sensor | None, aspect: float, diagonal_mm: float) -> float:
    """Longer over shorter side of the sensor that took an image of this aspect."""
    if any(_close(aspect, usual, 1.5 * SAME_ASPECT) for usual in (4 / 3, 1.5)):
        return aspect
    if sensor is not None:
        return sensor.aspect
    return 1.5 if diagonal_mm > 24.2 else 4 / 3


def pixel_pitch(tags: Mapping[int, Any], size: tuple[int, int]) -> PixelPitch:
    """Find the pixel pitch of a stored image.

    Args:
        tags: EXIF by tag number, its parts (image, Exif, interoperability) in one.
        size: (width, height) of the stored pixels; for files that are turned upright on reading, (longer, shorter).
    """
    exif = _Exif.of(tags, size)
    readings = [
        _Reading(one.pitch_mm, one.width_mm, one.words, one.equivalent, exif.likelihood(one))
        for one in (*_by_resolution(exif), *_by_equivalent(exif))
    ]
    plain, what = _plain(exif)
    if plain is None:
        return PixelPitch()
    found, why = _believed(readings)
    if found is None:
        model = _by_model(exif, readings)
        if model is None:
            note = f"EXIF's {what} alone would mean a pixel pitch of {1e3 * plain:.3g} um, which cannot be: {why}"
            return PixelPitch(note=f"{note} (camera.pixel_pitch_m=NUMBER gives it)")
        found, why = model
    if _close(found.pitch_mm, plain, UNCHANGED):
        return PixelPitch(found.pitch_mm / 1000)
    note = (
        f"the pixel pitch is {1e3 * found.pitch_mm:.3g} um, not the {1e3 * plain:.3g} um that EXIF's {what} alone means"
    )
    return PixelPitch(found.pitch_mm / 1000, f"EXIF, corrected: {why}", f"{note}: {why}")


def _plain(exif: _Exif) -> tuple[float | None, str]:
    """The pitch in mm by the first tag that gives one, taken literally, and what that tag is called."""
    width = next(one[0] for one in exif.sizes if not one[2] or one[2] == "EXIF's own size")
    if exif.per_pixel is not None:
        return exif.per_pixel * width / exif.size[0], "sensor resolution"
    if exif.focal is not None and exif.equivalent is not None:
        return DIAGONAL_35MM_MM * exif.focal / exif.equivalent / math.hypot(*exif.size), "35 mm equivalent"
    return None, ""


def _believed(readings: Sequence[_Reading]) -> tuple[_Reading | None, str]:
    """The reading to believe and why; None and why not."""
    resolution = [one for one in readings if not one.equivalent]
    equivalent = [one for one in readings if one.equivalent]
    agreeing = [
        (min(a.likelihood, b.likelihood), a.likelihood + b.likelihood, a)
        for a in resolution
        for b in equivalent
        if _close(a.pitch_mm, b.pitch_mm, AGREEMENT)
    ]
    if agreeing:
        best = max(agreeing, key=lambda one: one[:2])[2]
        return best, best.words or "the 35 mm equivalent agrees"
    best_of = [max(kind, key=lambda one: one.likelihood, default=None) for kind in (resolution, equivalent)]
    first, second = (one if one is not None and one.likelihood else None for one in best_of)
    if first is None and second is None:
        widths = " or ".join(f"{one.width_mm:.3g} mm" for one in best_of if one is not None)
        why = f"no sensor of this camera is {widths} wide" if widths else "a crop hides how far the image was resized"
        return None, why
    if first is None or second is None:
        one = first or second
        assert one is not None
        other = best_of[0] if one is second else best_of[1]
        return one, one.words or (_too_wide(other) if other is not None else "")
    if second.likelihood > first.likelihood or (
        second.likelihood == first.likelihood and first.width_mm < second.width_mm
    ):
        return second, second.words or _too_wide(first)
    if first.likelihood > second.likelihood:
        return first, first.words or _too_wide(second)
    return (
        None,
        f"the sensor would be {first.width_mm:.3g} mm wide by its resolution, {second.width_mm:.3g} by the 35 mm equivalent",
    )


def _too_wide(other: _Reading) -> str:
    """Why a reading was not believed."""
    if other.equivalent:
        return f"the 35 mm equivalent would mean a sensor {other.width_mm:.3g} mm wide"
    words = f"the sensor's resolution would mean a sensor {other.width_mm:.3g} mm wide"
    return f"{words}, so the image was resized since it was taken"


def _by_model(exif: _Exif, readings: Sequence[_Reading]) -> tuple[_Reading, str] | None:
    """The model's sensor, where EXIF's figures are impossible and the whole sensor is in the image."""
    sensor, (long, short) = exif.sensor, (max(exif.size), min(exif.size))
    if sensor is None or sensor.width_mm is None or not readings:
        return None
    if not _close(long / short, sensor.aspect, SAME_ASPECT):
        return None
    why = f"{exif.model} has a sensor {sensor.width_mm:g} mm wide, and {_too_wide(readings[0])}"
    return _Reading(sensor.width_mm / long, sensor.width_mm, why, False), why
