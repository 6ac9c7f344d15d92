"""Sizes of image sensors, and the sensor of a camera model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

__all__ = ["LARGE_FORMATS_MM", "SMALLEST_MM", "SMALL_MM", "TOLERANCE", "Sensor", "is_large_format", "sensor_of"]

LARGE_FORMATS_MM = (13.2, 17.3, 18.7, 20.7, 22.4, 23.6, 26.8, 28.2, 35.9, 43.9, 53.6)
"""Widths of the sensors larger than a phone's: 1 inch, Four Thirds, 1.5 inch, Foveon, APS-C, APS-H, full frame, medium
format. Below :data:`SMALL_MM` every width exists."""
SMALL_MM = 12.6
TOLERANCE = 0.045
"""Allowed logarithm between a sensor's width and the width by EXIF's resolution: Canon's is off by up to 4 %."""
SMALLEST_MM = 3.0
PHONE_MM = (2.2, 13.8)
COMPACT_MM = (4.3, 24.5)


@dataclass(frozen=True)
class Sensor:
    """The sensor of a camera family.

    Attributes:
        width_mm: its longer side; None if the family has several.
        crops_mm: the longer side in the camera's crop modes.
        range_mm: bounds of the longer side, if ``width_mm`` is None.
        aspect: longer over shorter side.
        phone: whether it is a phone's, whose photographs may show any part of it.
    """

    width_mm: float | None = None
    crops_mm: tuple[float, ...] = ()
    range_mm: tuple[float, float] = (0.0, math.inf)
    aspect: float = 1.5
    phone: bool = False

    def fit(self, width_mm: float, tolerance: float = TOLERANCE) -> int:
        """Rate how well a width fits: 3 the full sensor, 2 a crop mode, 1 within the range, 0 not at all."""
        if self.width_mm is None:
            return int(self.range_mm[0] <= width_mm <= self.range_mm[1])
        if _close(width_mm, self.width_mm, tolerance):
            return 3
        return 2 if any(_close(width_mm, crop, tolerance) for crop in self.crops_mm) else 0


def _close(value: float, expected: float, tolerance: float) -> bool:
    return abs(math.log(value / expected)) <= tolerance


def is_large_format(width_mm: float, tolerance: float = TOLERANCE) -> bool:
    """Return whether a large format of this width exists."""
    return any(_close(width_mm, width, tolerance) for width in LARGE_FORMATS_MM)


FULL_FRAME = Sensor(35.9, (23.6, 22.4, 28.5, 30.0))
APS_C, APS_C_CANON, APS_H = Sensor(23.6), Sensor(22.4), Sensor(28.2)
FOUR_THIRDS, ONE_INCH = Sensor(17.3, aspect=4 / 3), Sensor(13.2)
MEDIUM, LARGE_MEDIUM = Sensor(43.9, (35.9,), aspect=4 / 3), Sensor(53.6, (43.9,), aspect=4 / 3)
PHONE, WIDE_PHONE = (Sensor(range_mm=PHONE_MM, aspect=aspect, phone=True) for aspect in (4 / 3, 16 / 9))
COMPACT = Sensor(range_mm=COMPACT_MM, aspect=4 / 3)
PHONE_MAKERS = (
    "apple|google|samsung|huawei|honor|xiaomi|redmi|poco|oneplus|oppo|vivo|realme|motorola|lge?|htc|nokia|hmd|"
    "asus|zte|nothing|fairphone|meizu|blackberry|microsoft|essential|tecno|infinix"
)
FAMILIES = tuple((re.compile(pattern, re.IGNORECASE), sensor) for pattern, sensor in (
    (r"canon.*eos.?(1d ?[xc]\b|1ds|5d|6d\b|ra\b|rp\b|r\b|r1\b|r[3568](?!\d))", FULL_FRAME),
    (r"canon.*eos.?1d", APS_H),
    (r"canon.*eos", APS_C_CANON),
    (r"nikon (d(3[sx]?|4s?|5|6|f|6[01]0|700|750|780|8[015]0[ea]?)|z ?([5-9](_\d)?|f|r))$", FULL_FRAME),
    (r"nikon (d\d|z)", APS_C),
    (r"nikon 1 ", ONE_INCH),
    (r"coolpix a$", APS_C),
    (r"sony (ilce-[179]|ilme-fx3|ilca-99|slt-a99|dslr-a(850|900)|dsc-rx1(r|rm\d)?$|zv-e1$)", FULL_FRAME),
    (r"sony (ilce|ilca|ilme|slt|nex|dslr|zv-e10)", APS_C),
    (r"sony dsc-rx(0|10|100)", ONE_INCH),
    (r"sony (dsc|zv)", COMPACT),
    (r"sony", PHONE),
    (r"pentax 645|hasselblad (x|cfv|907)|fuji.* gfx|leica s\b", MEDIUM),
    (r"hasselblad h|phase one", LARGE_MEDIUM),
    (r"pentax k-1( mark ii)?$", FULL_FRAME),
    (r"pentax (k|\*ist)", APS_C),
    (r"ricoh.* gr( ii|$)|pentax gr", APS_C),
    (r"fuji.* (x-(t|e|h|a|m|s[12]0|pro)|x100|x70|xf10)", APS_C),
    (r"(olympus|om) (e-[mp]|e-\d|om-\d)", FOUR_THIRDS),
    (r"panasonic d[mc]c?-(g|l1\b|l10|bgh)", FOUR_THIRDS),
    (r"panasonic dc-s(1|5|9)", FULL_FRAME),
    (r"leica.* (m ?(9|10|11|\(typ|monochrom|-[ep])|sl|q)", FULL_FRAME),
    (r"sigma fp", FULL_FRAME),
    (r"samsung (galaxy )?nx ?mini", ONE_INCH),
    (r"samsung (galaxy )?nx", APS_C),
    (r"samsung (sm-g(900|920|925|928|870)|sm-n9(10|15|20))|htc one$|lge? (lg-)?h81", WIDE_PHONE),
    (rf"^({PHONE_MAKERS})\b", PHONE),
    (r"powershot|ixus|ixy|coolpix|finepix|cyber-?shot|lumix|dmc-|casio|kodak|minolta", COMPACT),
))  # fmt: skip
"""Pattern of make and model -> sensor; the first match counts."""


def sensor_of(make: str, model: str) -> Sensor | None:
    """Return the sensor of a camera by EXIF's make and model; None if the table lacks it."""
    maker = make.split()[0] if make.split() else ""
    name = model if model.lower().startswith(f"{maker} ".lower()) else f"{maker} {model}"
    return next((sensor for pattern, sensor in FAMILIES if pattern.search(name)), None)
