"""The pixel pitch of a photograph by EXIF, also after software has turned, cropped or resized it.

EXIF gives the pitch in two ways: by the sensor's resolution (pixels per length of the image that the camera wrote) and
by the 35 mm equivalent of the focal length. Either can be wrong: programs resize an image, write its new size into EXIF and
keep the sensor's resolution; phones zoom digitally. So each reading is a hypothesis that implies a sensor width.
Two readings that agree are accepted. Otherwise the reading wins whose sensor exists and suits the camera model and the lens.
If there is none, the pitch is unknown, and the blur scale is estimated from the stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from PIL import ExifTags

from sfdfd.io.sensor_sizes import SMALL_MM, SMALLEST_MM, TOLERANCE, Sensor, is_large_format, sensor_of

__all__ = ["PixelPitch", "pixel_pitch", "positive"]

DIAGONAL_35MM_MM = math.hypot(36, 24)
AGREEMENT = 0.14
"""Two readings agree up to this logarithm: 35 mm equivalents are rounded, and Canon's resolution is off by 4 %."""
UNCHANGED = 0.02
SAME_ASPECT = 0.02
LARGEST_CROP = 1.15
"""An image of another aspect that lacks less than this factor of the camera's was cropped, not resized."""
ASPECTS = (1.0, 1.25, 4 / 3, 1.5, 1.6, 16 / 9, 2.0)
"""Aspects that people crop to: then the crop is as large as the image allows."""
WIDEST_EQUIVALENT_MM, LONGEST_EQUIVALENT_MM = 7.0, 3500.0
LARGEST_WIDTH_MM = 58.0
UNITS_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
"""EXIF's unit of the sensor resolution, in mm."""
EXIF_SIZE = "EXIF's own size"
Tag = ExifTags.Base


def positive(value: Any, *, infinite: bool = False) -> float | None:
    """Return the value as a positive number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if number > 0 and (infinite or math.isfinite(number)) else None


@dataclass(frozen=True)
class PixelPitch:
    """The pixel pitch that EXIF gives.

    Attributes:
        pitch_m: of the image as it is stored; None if EXIF gives none, or only impossible ones.
        origin: its source for messages: "EXIF", or "EXIF, corrected: ..." with the reason.
        note: a sentence if the literal reading of EXIF was rejected.
    """

    pitch_m: float | None = None
    origin: str = "EXIF"
    note: str | None = None


@dataclass(frozen=True)
class _Reading:
    """One way to read EXIF.

    Attributes:
        pitch_mm: of the stored image.
        width_mm: implied longer side of the whole sensor.
        explanation: what happened to the photograph if this reading is right; empty if nothing did.
        by_equivalent: the reading follows from the 35 mm equivalent, not from the sensor's resolution.
        plausibility: 3 the model's own sensor, 2 a large format or a crop mode, 1 a small sensor, 0 impossible.
    """

    pitch_mm: float
    width_mm: float
    explanation: str
    by_equivalent: bool
    plausibility: int = 0


class _CameraSize(NamedTuple):
    """A size in pixels that the image may have had when the camera wrote it, and which tag gives it ("" for none)."""

    width: float
    height: float | None
    source: str


@dataclass(frozen=True)
class _SensorTags:
    """The tags that depend on the sensor.

    Attributes:
        size: (width, height) of the stored image in pixels.
        focal_mm, equivalent_mm: focal length, and its 35 mm equivalent.
        resolution_mm: length of a pixel by the sensor's resolution.
        zoom: factor of the digital zoom, 1 without.
        shortest_focal_mm: of the lens.
        camera_sizes: candidates for the size that the camera wrote, the likeliest first.
    """

    size: tuple[int, int]
    focal_mm: float | None
    equivalent_mm: float | None
    resolution_mm: float | None
    zoom: float
    f_number: float | None
    shortest_focal_mm: float | None
    sensor: Sensor | None
    model: str
    camera_sizes: tuple[_CameraSize, ...]

    @classmethod
    def of(cls, tags: Mapping[int, Any], size: tuple[int, int]) -> _SensorTags:
        resolution, unit = positive(tags.get(Tag.FocalPlaneXResolution)), tags.get(Tag.FocalPlaneResolutionUnit, 2)
        unit_mm = UNITS_MM.get(unit) if isinstance(unit, int) else None
        lens = tags.get(Tag.LensSpecification)
        zoom = positive(tags.get(Tag.DigitalZoomRatio)) or 1.0
        make, model = (str(tags.get(tag, "")).strip("\0 ") for tag in (Tag.Make, Tag.Model))
        return cls(
            size=size,
            focal_mm=positive(tags.get(Tag.FocalLength)),
            equivalent_mm=positive(tags.get(Tag.FocalLengthIn35mmFilm)),
            resolution_mm=None if resolution is None or unit_mm is None else unit_mm / resolution,
            zoom=zoom if 1.05 < zoom <= 100 else 1.0,
            f_number=positive(tags.get(Tag.FNumber)),
            shortest_focal_mm=positive(lens[0]) if isinstance(lens, Sequence) and len(lens) else None,
            sensor=sensor_of(make, model),
            model=model,
            camera_sizes=_camera_sizes(tags, size),
        )

    def plausibility(self, reading: _Reading) -> int:
        """Rate how well a reading's sensor suits model, lens and existing formats, as :attr:`_Reading.plausibility`."""
        width = reading.width_mm
        if self.focal_mm is not None:
            height = width / (self.sensor.aspect if self.sensor is not None else 1.5)
            implied_equivalent = self.focal_mm * DIAGONAL_35MM_MM / math.hypot(width, height)
            if not WIDEST_EQUIVALENT_MM <= implied_equivalent <= LONGEST_EQUIVALENT_MM:
                return 0
        if self.sensor is None:
            return self._plausibility_of_unknown_model(reading)
        if reading.by_equivalent and self.sensor.phone:
            return int(width <= self.sensor.range_mm[1])  # a phone's photograph may be any part of its sensor
        rounding = 0.05 + 0.6 / self.equivalent_mm if reading.by_equivalent and self.equivalent_mm else TOLERANCE
        return self.sensor.fit(width, rounding)

    def _plausibility_of_unknown_model(self, reading: _Reading) -> int:
        width = reading.width_mm
        if width > LARGEST_WIDTH_MM:
            return 0
        if is_large_format(width):
            return 2
        if width < SMALL_MM and self.has_large_format_lens:
            return 0
        if reading.by_equivalent:
            return 1
        is_3_to_2 = _close(max(self.size) / min(self.size), 1.5, SAME_ASPECT)
        return int(SMALLEST_MM <= width < SMALL_MM and not is_3_to_2)  # small sensors are 4:3

    @property
    def has_large_format_lens(self) -> bool:
        """Whether the lens is too long or too wide for a camera with a small sensor."""
        fast_and_long = (self.focal_mm or 0) > 26 and (self.f_number or math.inf) < 2.4
        return fast_and_long or (self.shortest_focal_mm or 0) >= 14


def _close(value: float, expected: float, tolerance: float) -> bool:
    return abs(math.log(value / expected)) <= tolerance


def _camera_sizes(tags: Mapping[int, Any], size: tuple[int, int]) -> tuple[_CameraSize, ...]:
    """List the sizes that the image may have had when the camera wrote it, the likeliest first."""
    stored = _CameraSize(float(size[0]), float(size[1]), "")
    width, height = positive(tags.get(Tag.ExifImageWidth)), positive(tags.get(Tag.ExifImageHeight))
    main = stored if width is None else _CameraSize(width, height, EXIF_SIZE)
    longest = max(main.width, main.height or 0)
    larger = []
    for width_tag, height_tag, source in (
        (Tag.RelatedImageWidth, Tag.RelatedImageLength, "EXIF's RelatedImageWidth"),
        (Tag.ImageWidth, Tag.ImageLength, "the size in TIFF's tags"),
    ):
        width, height = positive(tags.get(width_tag)), positive(tags.get(height_tag))
        if width and height and max(width, height) > 1.05 * max(longest, *size):
            larger.append(_CameraSize(width, height, source))
    is_preview = max(size) > 1.05 * longest  # some RAW files give the size of their preview
    return (*larger, main, *([stored] if is_preview else []))


def _reduction(width: float, height: float | None, size: tuple[int, int]) -> float | None:
    """Return how many of the camera's pixels make one stored pixel along a side; None if a crop hides it."""
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


def _change(camera: _CameraSize, reduction: float, size: tuple[int, int]) -> str:
    """Describe what software did to the image; empty if it did nothing or recorded it."""
    width, height, source = camera
    if source and source != EXIF_SIZE:
        return f"the image was resized since: the camera wrote {width:g} x {height:g} pixels by {source}"
    if not _close(width / size[0], reduction, UNCHANGED):
        whole = height is None or _close(max(width, height) / min(width, height), max(size) / min(size), SAME_ASPECT)
        return f"the image was {'turned' if whole else 'cropped'} since it was taken"
    return ""


def _by_resolution(exif: _SensorTags) -> list[_Reading]:
    """Read the pitch from the sensor's resolution, once for each size that the camera may have written."""
    if exif.resolution_mm is None:
        return []
    readings = []
    for camera in exif.camera_sizes:
        reduction = _reduction(camera.width, camera.height, exif.size)
        if reduction is None:
            continue
        long = max(camera.width, camera.height or 0)
        if exif.sensor is not None and exif.sensor.width_mm is not None:
            # a squarer image shows the sensor's whole height
            long = max(long, long * min(exif.size) / max(exif.size) * exif.sensor.aspect)
        width = exif.resolution_mm * long
        pitch, explanation = exif.resolution_mm * reduction, _change(camera, reduction, exif.size)
        if exif.zoom > 1:
            zoomed = f"the image is the middle of the sensor, enlarged {exif.zoom:.3g} times (DigitalZoomRatio)"
            readings.append(_Reading(pitch / exif.zoom, width, explanation or zoomed, False))
            width *= exif.zoom
        readings.append(_Reading(pitch, width, explanation, False))
    return readings


def _by_equivalent(exif: _SensorTags) -> list[_Reading]:
    """Read the pitch from the 35 mm equivalent of the focal length."""
    if exif.focal_mm is None or exif.equivalent_mm is None:
        return []
    width, height, _ = exif.camera_sizes[0]
    if height is None:
        width, height = exif.size
    reduction = _reduction(width, height, exif.size)
    if reduction is None:  # the remaining part of the frame is unknown
        return []
    long, short = max(width, height), min(width, height)
    diagonal = DIAGONAL_35MM_MM * exif.focal_mm / exif.equivalent_mm
    aspect = _sensor_aspect(exif.sensor, long / short, diagonal)
    explanation = ""
    if _close(long / short, aspect, 1.5 * SAME_ASPECT):
        diagonal_px = math.hypot(long, short)
    else:
        diagonal_px = max(long * math.hypot(1, 1 / aspect), short * math.hypot(1, aspect))
        ratio = "4:3" if aspect < 1.4 else "3:2"
        explanation = f"the 35 mm equivalent is that of the whole {ratio} sensor, and the image a crop"
    pitch, sensor_width = diagonal / diagonal_px * reduction, diagonal * aspect / math.hypot(1, aspect)
    readings = [_Reading(pitch, sensor_width * exif.zoom, explanation, True)]
    if exif.zoom > 1:
        excluded = f"the 35 mm equivalent does not have the digital zoom of {exif.zoom:.3g} in it"
        readings.append(_Reading(pitch / exif.zoom, sensor_width, excluded, True))
    return readings


def _sensor_aspect(sensor: Sensor | None, aspect: float, diagonal_mm: float) -> float:
    """Guess longer over shorter side of the sensor that took an image of this aspect."""
    if any(_close(aspect, usual, 1.5 * SAME_ASPECT) for usual in (4 / 3, 1.5)):
        return aspect
    if sensor is not None:
        return sensor.aspect
    return 1.5 if diagonal_mm > 24.2 else 4 / 3


def pixel_pitch(tags: Mapping[int, Any], size: tuple[int, int]) -> PixelPitch:
    """Find the pixel pitch of a stored image.

    Args:
        tags: EXIF by tag number, its parts (image, Exif, interoperability) in one.
        size: (width, height) of the stored pixels; (longer, shorter) for files that are turned upright on reading.
    """
    exif = _SensorTags.of(tags, size)
    readings = [
        replace(reading, plausibility=exif.plausibility(reading))
        for reading in (*_by_resolution(exif), *_by_equivalent(exif))
    ]
    literal, tag_name = _literal_pitch(exif)
    if literal is None:
        return PixelPitch()
    chosen, reason = _choose(readings)
    if chosen is None:
        by_model = _by_model(exif, readings)
        if by_model is None:
            note = (
                f"EXIF's {tag_name} alone would mean a pixel pitch of {1e3 * literal:.3g} um, which cannot be: {reason}"
            )
            return PixelPitch(note=f"{note} (camera.pixel_pitch_m=NUMBER gives it)")
        chosen, reason = by_model
    if _close(chosen.pitch_mm, literal, UNCHANGED):
        return PixelPitch(chosen.pitch_mm / 1000)
    pitch_um, literal_um = 1e3 * chosen.pitch_mm, 1e3 * literal
    note = f"the pixel pitch is {pitch_um:.3g} um, not the {literal_um:.3g} um that EXIF's {tag_name} alone means"
    return PixelPitch(chosen.pitch_mm / 1000, f"EXIF, corrected: {reason}", f"{note}: {reason}")


def _literal_pitch(exif: _SensorTags) -> tuple[float | None, str]:
    """Return the pitch in mm by the first tag that gives one, taken literally, and the name of that tag."""
    width = next(camera.width for camera in exif.camera_sizes if camera.source in ("", EXIF_SIZE))
    if exif.resolution_mm is not None:
        return exif.resolution_mm * width / exif.size[0], "sensor resolution"
    if exif.focal_mm is not None and exif.equivalent_mm is not None:
        return DIAGONAL_35MM_MM * exif.focal_mm / exif.equivalent_mm / math.hypot(*exif.size), "35 mm equivalent"
    return None, ""


def _choose(readings: Sequence[_Reading]) -> tuple[_Reading | None, str]:
    """Return the most credible reading and the reason; or None and the reason why none is credible."""
    by_resolution = [reading for reading in readings if not reading.by_equivalent]
    by_equivalent = [reading for reading in readings if reading.by_equivalent]
    agreed = _agreed(by_resolution, by_equivalent)
    if agreed is not None:
        return agreed, agreed.explanation or "the 35 mm equivalent agrees"
    resolution = max(by_resolution, key=lambda reading: reading.plausibility, default=None)
    equivalent = max(by_equivalent, key=lambda reading: reading.plausibility, default=None)
    if resolution is not None and equivalent is not None:
        return _choose_between(resolution, equivalent)
    only = resolution or equivalent
    if only is None:
        return None, "a crop hides how far the image was resized"
    return (only, only.explanation) if only.plausibility else (None, _no_such_sensor(only))


def _agreed(by_resolution: Sequence[_Reading], by_equivalent: Sequence[_Reading]) -> _Reading | None:
    """Return the most plausible reading of the resolution that one of the equivalent confirms."""
    pairs = [
        (first, second)
        for first in by_resolution
        for second in by_equivalent
        if _close(first.pitch_mm, second.pitch_mm, AGREEMENT)
    ]

    def rank(pair: tuple[_Reading, _Reading]) -> tuple[int, int]:
        scores = [reading.plausibility for reading in pair]
        return min(scores), sum(scores)

    return max(pairs, key=rank)[0] if pairs else None


def _choose_between(resolution: _Reading, equivalent: _Reading) -> tuple[_Reading | None, str]:
    """Choose between the best readings of either kind, which disagree: the more plausible one.

    Of two that are equally plausible, a narrower sensor by the resolution means that the image was resized.
    """
    scores = resolution.plausibility, equivalent.plausibility
    if not any(scores):
        return None, _no_such_sensor(resolution, equivalent)
    if scores[0] > scores[1]:
        return resolution, resolution.explanation or _rejection(equivalent)
    if scores[1] > scores[0] or resolution.width_mm < equivalent.width_mm:
        return equivalent, equivalent.explanation or _rejection(resolution)
    return None, (
        f"the sensor would be {resolution.width_mm:.3g} mm wide by its resolution, "
        f"{equivalent.width_mm:.3g} by the 35 mm equivalent"
    )


def _no_such_sensor(*readings: _Reading) -> str:
    return f"no sensor of this camera is {' or '.join(f'{reading.width_mm:.3g} mm' for reading in readings)} wide"


def _rejection(reading: _Reading) -> str:
    """Say why a reading was rejected."""
    if reading.by_equivalent:
        return f"the 35 mm equivalent would mean a sensor {reading.width_mm:.3g} mm wide"
    width = f"the sensor's resolution would mean a sensor {reading.width_mm:.3g} mm wide"
    return f"{width}, so the image was resized since it was taken"


def _by_model(exif: _SensorTags, readings: Sequence[_Reading]) -> tuple[_Reading, str] | None:
    """Return the model's sensor if EXIF's figures are impossible and the image shows the whole sensor."""
    sensor, (long, short) = exif.sensor, (max(exif.size), min(exif.size))
    if sensor is None or sensor.width_mm is None or not readings:
        return None
    if not _close(long / short, sensor.aspect, SAME_ASPECT):
        return None
    reason = f"{exif.model} has a sensor {sensor.width_mm:g} mm wide, and {_rejection(readings[0])}"
    return _Reading(sensor.width_mm / long, sensor.width_mm, reason, False), reason
