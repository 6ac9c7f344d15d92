"""Read EXIF of files that Pillow cannot open, and focus distances in maker notes, by exifread or exiftool."""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from sfdfd.io.exif import positive

__all__ = ["MakerDistance", "maker_note_distances", "maker_note_reader", "read_exif"]

EXIFTOOL_TIMEOUT_S = 60
EXIFTOOL_TAGS = ("FocusDistanceLower", "FocusDistanceUpper", "FocusDistance", "FocusDistance2", "ManualFocusDistance")
"""In metres (``-n``). Canon gives bounds; Nikon, Olympus and others FocusDistance; Sony FocusDistance2."""
GUESSED_TAGS = ("FocusDistance2",)
"""Distances that exiftool computes from a Sony lens's position by a formula fitted to one lens."""
CANON_INFINITE_M = 655.345
"""Above this, Canon's 16 bits of centimetres are saturated, which means infinity."""
EXIFREAD_TAGS = {
    "MakerNote SubjectDistance": 0.01,
    "MakerNote ManualFocusDistance": 1.0,
    "MakerNote Object Distance": 0.001,
}
"""exifread's names for the distances of Canon, Nikon and Casio, and their units in metres."""


class MakerDistance(NamedTuple):
    """A focus distance in a maker note, in metres; inf is possible.

    Attributes:
        nearest_m, farthest_m: its bounds; equal if only one distance is given.
        guess: whether it is computed by an approximate formula.
    """

    nearest_m: float
    farthest_m: float
    guess: bool = False


def _exifread(path: Path, details: bool) -> Mapping[str, Any]:
    """Return exifread's tags by its names; none if it is not installed or cannot read the file."""
    try:
        import exifread
    except ImportError:
        return {}
    logging.getLogger("exifread").setLevel(logging.CRITICAL)
    try:
        with path.open("rb") as file:
            return exifread.process_file(file, details=details, extract_thumbnail=False)
    except Exception:  # it raises anything on broken files; EXIF is optional
        return {}


def read_exif(path: Path) -> dict[int, Any]:
    """Return EXIF by tag number (RAW, DNG and HEIC, too); empty if exifread is missing."""
    tags = {}
    for name, tag in _exifread(path, details=False).items():
        if name.split(" ")[0] not in ("Image", "EXIF"):
            continue
        value = getattr(tag, "values", None)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if value is not None:
            tags[tag.tag] = value
    return tags


def maker_note_reader() -> str | None:
    """Return "exiftool" if that command exists, else "exifread" if that package is installed, else None."""
    if shutil.which("exiftool"):
        return "exiftool"
    try:
        import exifread  # noqa: F401
    except ImportError:
        return None
    return "exifread"


def maker_note_distances(files: Sequence[Path]) -> list[MakerDistance] | None:
    """Read each photograph's focus distance from its maker note; None unless every file has one."""
    reader = maker_note_reader()
    if reader is None:
        return None
    distances = _by_exiftool(files) if reader == "exiftool" else [_by_exifread(file) for file in files]
    known = [distance for distance in distances if distance is not None]
    return known if len(known) == len(distances) else None


def _by_exifread(path: Path) -> MakerDistance | None:
    tags = _exifread(path, details=True)
    for name, unit_m in EXIFREAD_TAGS.items():
        value = getattr(tags.get(name), "values", None)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        value = float(value) if isinstance(value, Fraction) and value.denominator else value
        if (number := positive(value)) is not None:
            metres = math.inf if number >= 65535 else unit_m * number
            return MakerDistance(metres, metres)
    return None


def _by_exiftool(files: Sequence[Path]) -> list[MakerDistance | None]:
    command = [
        "exiftool",
        "-json",
        "-n",
        *(f"-{tag}" for tag in EXIFTOOL_TAGS),
        *(str(file.absolute()) for file in files),
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=EXIFTOOL_TIMEOUT_S, check=False)
        rows = json.loads(done.stdout.decode("utf-8", "replace") or "[]")
    except (OSError, subprocess.SubprocessError, ValueError):
        return [None] * len(files)
    if not isinstance(rows, list) or len(rows) != len(files):
        return [None] * len(files)
    return [_bounds(row) for row in rows]


def _bounds(row: Mapping[str, Any]) -> MakerDistance | None:
    distances = {tag: value for tag in EXIFTOOL_TAGS if (value := positive(row.get(tag), infinite=True)) is not None}
    distances = {tag: math.inf if value > CANON_INFINITE_M else value for tag, value in distances.items()}
    if "FocusDistanceLower" in distances and "FocusDistanceUpper" in distances:
        nearest, farthest = sorted((distances["FocusDistanceLower"], distances["FocusDistanceUpper"]))
        return MakerDistance(nearest, farthest)
    for tag, metres in distances.items():
        return MakerDistance(metres, metres, tag in GUESSED_TAGS)
    return None
