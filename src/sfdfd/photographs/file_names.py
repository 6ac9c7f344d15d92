"""Find focus distances and the focal length in file names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["NumberWithUnit", "ambiguous_distances", "focal_length_in_names", "numbers_in_names"]

UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
WITH_UNIT = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)([\s_]?)(mm|cm|m|dpt)(?![a-z])", re.IGNORECASE)
"""A number, the separator, and its unit: ``0.5m``, ``50 cm``, ``1.25_dpt``."""
FOCAL_LENGTH = re.compile(r"(?<![a-z])f\s?=?\s?(\d+(?:\.\d+)?)\s?mm(?![a-z])", re.IGNORECASE)
"""``f50mm``; ``50mm`` alone is a focal length only if it is in every name together with a distance that varies."""
DECIMAL = re.compile(r"(?<![\d.])(\d+\.\d+)(?![\d.])")
UNDERSCORED = re.compile(r"(?<![\d.])(\d+)_(\d+)(?=\s?m(?![a-z]))", re.IGNORECASE)
"""``0_35m``: 0.35 m, or 35 m of a file with the number 0."""
INFINITE = re.compile(r"(?<![a-z])inf(inity)?(?![a-z])", re.IGNORECASE)
COUNTED_INFINITE = re.compile(r"(?<![\d.])(\d+)_inf", re.IGNORECASE)


class NumberWithUnit(NamedTuple):
    """A number in a file name, and its unit in lower case; the unit is None if there is none or the number is inf."""

    number: float
    unit: str | None

    @property
    def metres(self) -> float:
        """The number as a distance in metres; without a unit it is taken for metres."""
        if self.unit == "dpt":
            return 1 / self.number if self.number else math.inf
        return self.number * (1.0 if self.unit is None else UNITS_M[self.unit])


def _whole_stems(files: Sequence[Path]) -> list[str]:
    """Return the names without suffix, with decimal commas replaced by points."""
    return [re.sub(r"(?<=\d),(?=\d)", ".", file.stem) for file in files]


def _stems(files: Sequence[Path]) -> list[str]:
    """Return the names without suffix, and without the focal length if all of them carry the same."""
    stems = _whole_stems(files)
    return stems if _explicit_focal_mm(stems) is None else [FOCAL_LENGTH.sub(" ", stem) for stem in stems]


def _explicit_focal_mm(stems: Sequence[str]) -> float | None:
    """Return the focal length of ``f4.5mm`` in every name; numbers that differ are focus distances."""
    matches = {tuple(FOCAL_LENGTH.findall(stem)) for stem in stems}
    if len(matches) != 1 or len(numbers := matches.pop()) != 1:
        return None
    return float(numbers[0]) or None


def focal_length_in_names(files: Sequence[Path]) -> float | None:
    """Return the focal length in metres that every file name carries, or None.

    It is written ``f4.5mm``, or ``50mm`` if another number with a unit varies, which is then the focus distance
    (``50mm_0.8m.jpg``).
    """
    stems = _whole_stems(files)
    if (explicit_mm := _explicit_focal_mm(stems)) is not None:
        return explicit_mm / 1000
    matches = [WITH_UNIT.findall(stem) for stem in stems]
    if len({len(numbers) for numbers in matches}) != 1:
        return None
    columns = list(zip(*matches, strict=True))
    fixed = [column[0] for column in columns if len(set(column)) == 1 and column[0][2].lower() == "mm"]
    if len(fixed) != 1 or len(columns) < 2 or numbers_in_names(files) is None:
        return None
    return float(fixed[0][0]) / 1000 or None


def _counters_explain(stems: Sequence[str]) -> bool:
    """Whether the digits before every underscore can be file counters: all names have them, and all differ."""
    matches = [match for stem in stems if (match := UNDERSCORED.search(stem) or COUNTED_INFINITE.search(stem))]
    return len({int(match[1]) for match in matches}) == len(stems)


def ambiguous_distances(files: Sequence[Path]) -> str | None:
    """Return a sentence on names that can be read in two ways, or None."""
    stems = _stems(files)
    example = next((match for stem in stems if (match := UNDERSCORED.search(stem))), None)
    if example is None or not _counters_explain(stems):
        return None
    whole, part = example.groups()
    return f"the names are ambiguous ({example[0]}m is {whole}.{part} m, or {part} m of file number {whole}): write "


def numbers_in_names(files: Sequence[Path]) -> list[NumberWithUnit] | None:
    """Find the focus distances in file names.

    A number counts if it has a unit (``0.5m``, ``0,5m``, ``120 cm``, ``350_mm``; ``1.25dpt`` are dioptres, 0 is infinity) or
    a decimal point or comma (``image_1_0.35.jpg``); ``inf`` in the name counts, too. Every file must have one, and they must
    not all be the same. Plain integers are taken for counters, and so are those of ``DSC_0012_M``, if no number before
    ``_m`` has a decimal point. ``0_35m`` is 0.35 m, unless the digits before the underscore can be counters in every name:
    then the names are ambiguous.

    Returns:
        The number of each file, or None.
    """
    stems = _stems(files)
    if any(UNDERSCORED.search(stem) for stem in stems):
        if _counters_explain(stems):
            return None
        stems = [UNDERSCORED.sub(r"\1.\2", stem) for stem in stems]
    for pattern in (WITH_UNIT, DECIMAL):
        columns = [column for column in _columns(pattern, stems) if not _are_counters(column)]
        candidates = [_numbers(column, stems) for column in columns]
        distances = [numbers for numbers in candidates if _can_be_distances(numbers)]
        if distances:
            return distances[-1]
    return None


Groups = tuple[str, ...] | None
"""The groups of a match in one name; None without a match."""


def _columns(pattern: re.Pattern[str], stems: Sequence[str]) -> list[list[Groups]]:
    """Return the first match of every name, the second, ...; nothing if the names with matches differ in their number."""
    rows = [[match.groups() for match in pattern.finditer(stem)] for stem in stems]
    counts = {len(row) for row in rows if row}
    if len(counts) != 1:
        return []
    return [[row[column] if row else None for row in rows] for column in range(counts.pop())]


def _are_counters(column: Sequence[Groups]) -> bool:
    """Whether all names have a whole number before ``_m``."""
    return all(
        groups is not None and len(groups) > 1 and (groups[1], groups[2].lower()) == ("_", "m") and "." not in groups[0]
        for groups in column
    )


def _numbers(column: Sequence[Groups], stems: Sequence[str]) -> list[NumberWithUnit]:
    """Return the numbers of a column; inf for a name without a match that says so, else NaN."""
    return [
        NumberWithUnit(math.inf if INFINITE.search(stem) else math.nan, None)
        if groups is None
        else NumberWithUnit(float(groups[0]), groups[2].lower() if len(groups) > 1 else None)
        for groups, stem in zip(column, stems, strict=True)
    ]


def _can_be_distances(numbers: Sequence[NumberWithUnit]) -> bool:
    """Whether all are positive and not all are the same."""
    values = [number.metres for number in numbers]
    return all(value > 0 for value in values) and len(set(values)) > 1
