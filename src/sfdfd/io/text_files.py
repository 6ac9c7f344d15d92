"""Read text files that users put next to their photographs."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

__all__ = ["UNITS_M", "decoded", "numbers_with_units"]

UNITS_M = {
    "m": 1.0, "metre": 1.0, "metres": 1.0, "meter": 1.0, "meters": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001,
    "in": 0.0254, "inch": 0.0254, "inches": 0.0254, "ft": 0.3048, "feet": 0.3048,
    "dpt": None, "dioptre": None, "dioptres": None, "diopter": None, "diopters": None, "d": None, "1/m": None,
}  # fmt: skip
"""Units in metres; None for dioptres (1/m)."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order marks and their encodings. UTF-32 comes first, because its mark begins like UTF-16's."""
UNIT = re.compile("(?:" + "|".join(sorted(map(re.escape, UNITS_M), key=len, reverse=True)) + r")\.?$", re.IGNORECASE)


def decoded(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 by its byte order mark or zero bytes.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is no text in these encodings.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), None)
    # UTF-16 without a mark: every second byte of a digit is 0
    if encoding is None and len(data) % 2 == 0 and b"\0" in data:
        encoding = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    return data.decode(encoding or "utf-8")


def numbers_with_units(text: str, number: int) -> list[tuple[str, str | None]]:
    """Split a text into numbers with their units.

    Numbers stand on lines of their own, or are separated by spaces, semicolons or commas. A comma is a decimal comma
    (``0,5``) if that gives the expected number of values. ``#`` starts a comment.

    Args:
        text: such as ``"0.5 m\\n50 cm\\n2 dpt"``.
        number: the expected number of values.

    Returns:
        All (number with a decimal point, unit of :data:`UNITS_M` or None).
    """
    lines = [line for line in (line.split("#")[0].strip(" \t,;") for line in text.splitlines()) if line]
    spaced = [word.strip(",") for word in re.split(r"[\s;]+", " ; ".join(lines)) if word.strip(",")]
    by_comma = [word for word in re.split(r"[\s;,]+", " ; ".join(lines)) if word]
    numbers: list[tuple[str, str | None]] = []
    for words in ([_joined(line) for line in lines], spaced, by_comma):
        numbers = _with_units([word for word in words if word])
        if len(numbers) == number:
            break
    return numbers


def _joined(line: str) -> str:
    """Remove the space between a number and its unit, if the line holds nothing else."""
    return re.sub(r"\s+", "", line) if len(line.split()) <= 2 and UNIT.search(line) else line


def _with_units(words: list[str]) -> list[tuple[str, str | None]]:
    """Pair numbers with their units, which may be separate words."""
    numbers: list[tuple[str, str | None]] = []
    for word in words:
        unit = UNIT.search(word)
        bare = word[: unit.start()].strip() if unit else word
        name = unit[0].lower().rstrip(".") if unit else None
        if bare:
            bare = "inf" if bare == "∞" else re.sub(r"^([+-]?\d+),(\d+)$", r"\1.\2", bare)
            numbers.append((bare, name))
        elif numbers and numbers[-1][1] is None:
            numbers[-1] = numbers[-1][0], name
        else:
            numbers.append((word, None))
    return numbers
