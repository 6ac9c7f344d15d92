"""EXIF of files that Pillow cannot open, and focus distances in makers' own notes, by exifread or exiftool."""

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

__all__ = ["MakerDistance", "exif_of", "maker_distances", "reader_of_maker_notes"]

SECONDS = 60
EXIFTOOL_TAGS = ("FocusDistanceLower", "FocusDistanceUpper", "FocusDistance", "FocusDistance2", "ManualFocusDistance")
"""Canon gives bounds; Nikon, Olympus and others a distance, Sony the second kind; metres all (``-n``)."""
GUESSED_TAGS = ("FocusDistance2",)
"""What exiftool computes from the position of Sony's lenses by a formula that was fitted to one of them."""
CANON_INFINITE_M = 655.345
"""Beyond this Canon's 16 bits of centimetres are full, which means infinity."""
EXIFREAD_TAGS = {
    "MakerNote SubjectDistance": 0.01,
    "MakerNote ManualFocusDistance": 1.0,
    "MakerNote Object Distance": 0.001,
}
"""What exifread calls the distances of Canon, Nikon and Casio, and their units in metres."""


class MakerDistance(NamedTuple):
    """What a maker's note says of a focus distance, in metres; inf is possible.

    Attributes:
        nearest_m, farthest_m: its bounds; one number twice where there are none.
        guess: whether it is computed by somebody's formula.
    """

    nearest_m: float
    farthest_m: float
    guess: bool = False


def _exifread(path: Path, details: bool) -> Mapping[str, Any]:
    """exifread's tags by its names; nothing where it is not installed or the file is odd."""
    try:
        import exifread
    except ImportError:
        return {}
    logging.getLogger("exifread").setLevel(logging.CRITICAL)
    try:
        with path.open("rb") as file:
            return exifread.process_file(file, details=details, extract_thumbnail=False)
    except Exception:  # it raises whatever it likes on broken files; EXIF is a help, not a must
        return {}


def exif_of(path: Path) -> dict[int, Any]:
    """EXIF by tag number (0x829D is the f-number), of any file that exifread reads: RAW, DNG, HEIC; empty without it."""
    found = {}
    for name, tag in _exifread(path, details=False).items():
        if name.split(" ")[0] not in ("Image", "EXIF"):
            continue
        value = getattr(tag, "values", None)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if value is not None:
            found[tag.tag] = value
    return found


def reader_of_maker_notes() -> str | None:
    """ "exiftool" where that command is there, else "exifread" where that package is, else None."""
    if shutil.which("exiftool"):
        return "exiftool"
    try:
        import exifread  # noqa: F401
    except ImportError:
        return None
    return "exifread"


def maker_distances(files: Sequence[Path]) -> list[MakerDistance] | None:
    """Read the focus distance of each photograph from its maker's notes; None unless every file has one."""
    reader = reader_of_maker_notes()
    if reader is None:
        return None
    found = _by_exiftool(files) if reader == "exiftool" else [_by_exifread(file) for file in files]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else None


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
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        rows = json.loads(done.stdout.decode("utf-8", "replace") or "[]")
    except (OSError, subprocess.SubprocessError, ValueError):
        return [None] * len(files)
    if not isinstance(rows, list) or len(rows) != len(files):
        return [None] * len(files)
    return [_bounds(row) for row in rows]


def _bounds(row: Mapping[str, Any]) -> MakerDistance | None:
    known = {tag: value for tag in EXIFTOOL_TAGS if (value := positive(row.get(tag), infinite=True)) is not None}
    known = {tag: math.inf if value > CANON_INFINITE_M else value for tag, value in known.items()}
    if "FocusDistanceLower" in known and "FocusDistanceUpper" in known:
        nearest, farthest = sorted((known["FocusDistanceLower"], known["FocusDistanceUpper"]))
        return MakerDistance(nearest, farthest)
    tag, metres = next(iter(known.items()), ("", None))
    return None if metres is None else MakerDistance(metres, metres, tag in GUESSED_TAGS)
