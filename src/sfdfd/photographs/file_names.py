"""Focus distances and the focal length in file names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ambiguous_distances", "distances_in_names", "focal_length_in_names", "numbers_in_names"]

UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
WITH_UNIT = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)([\s_]?)(mm|cm|m|dpt)(?![a-z])", re.IGNORECASE)
"""A number, what stands between, and its unit: ``0.5m``, ``50 cm``, ``1.25_dpt``."""
FOCAL_LENGTH = re.compile(r"(?<![a-z])f\s?=?\s?(\d+(?:\.\d+)?)\s?mm(?![a-z])", re.IGNORECASE)
"""Of ``f50mm``; ``50mm`` alone is a focal length only where it stands in every name beside a distance that varies."""
DECIMAL = re.compile(r"(?<![\d.])(\d+\.\d+)(?![\d.])")
UNDERSCORED = re.compile(r"(?<![\d.])(\d+)_(\d+)(?=\s?m(?![a-z]))", re.IGNORECASE)
"""Of ``0_35m``: 0.35 m, or 35 m of a file with the number 0."""
INFINITE = re.compile(r"(?<![a-z])inf(inity)?(?![a-z])", re.IGNORECASE)
COUNTED_INFINITE = re.compile(r"(?<![\d.])(\d+)_inf", re.IGNORECASE)


def _whole_stems(files: Sequence[Path]) -> list[str]:
    """The names without suffix; a comma between digits is decimal."""
    return [re.sub(r"(?<=\d),(?=\d)", ".", file.stem) for file in files]


def _stems(files: Sequence[Path]) -> list[str]:
    """Those, without the focal length where all of them carry the same."""
    stems = _whole_stems(files)
    return stems if _written_focal_mm(stems) is None else [FOCAL_LENGTH.sub(" ", stem) for stem in stems]


def _written_focal_mm(stems: Sequence[str]) -> float | None:
    """Of ``f4.5mm`` in every name; numbers that differ are no lens but where it was focused."""
    said = {tuple(FOCAL_LENGTH.findall(stem)) for stem in stems}
    if len(said) != 1 or len(one := said.pop()) != 1:
        return None
    return float(one[0]) or None


def focal_length_in_names(files: Sequence[Path]) -> float | None:
    """The focal length in metres that every file name carries: ``f4.5mm``, or ``50mm`` where another number with a unit
    varies and so is the distance (``50mm_0.8m.jpg``)."""
    stems = _whole_stems(files)
    if (written := _written_focal_mm(stems)) is not None:
        return written / 1000
    numbers = [WITH_UNIT.findall(stem) for stem in stems]
    if len({len(found) for found in numbers}) != 1:
        return None
    columns = list(zip(*numbers, strict=True))
    fixed = [column[0] for column in columns if len(set(column)) == 1 and column[0][2].lower() == "mm"]
    if len(fixed) != 1 or len(columns) < 2 or distances_in_names(files) is None:
        return None
    return float(fixed[0][0]) / 1000 or None


def _counters_explain(stems: Sequence[str]) -> bool:
    """Whether the digits before every underscore can be the files' own numbers: all names have them, all differ."""
    found = [match for stem in stems if (match := UNDERSCORED.search(stem) or COUNTED_INFINITE.search(stem))]
    return len({int(match[1]) for match in found}) == len(stems)


def ambiguous_distances(files: Sequence[Path]) -> str | None:
    """A sentence on names that can be read in two ways, or None."""
    stems = _stems(files)
    example = next((match for stem in stems if (match := UNDERSCORED.search(stem))), None)
    if example is None or not _counters_explain(stems):
        return None
    whole, part = example.groups()
    return f"the names are ambiguous ({example[0]}m is {whole}.{part} m, or {part} m of file number {whole}): write "


def distances_in_names(files: Sequence[Path]) -> tuple[list[float], bool] | None:
    """Focus distances in file names, and whether they carry their unit (metres then); see :func:`numbers_in_names`."""
    numbers = numbers_in_names(files)
    if numbers is None:
        return None
    with_unit = any(unit is not None for _, unit in numbers)
    return [_metres(number, unit) for number, unit in numbers], with_unit


def numbers_in_names(files: Sequence[Path]) -> list[tuple[float, str | None]] | None:
    """Find the focus distances in file names.

    A number counts if it has a unit (``0.5m``, ``0,5m``, ``120 cm``, ``350_mm``; ``1.25dpt`` are dioptres, 0 is infinity) or
    a decimal point or comma (``image_1_0.35.jpg``), or the name says ``inf``; every file must have one, and
    they must not all be the same. Plain integers are taken for counters, and so are those of ``DSC_0012_M``, where no
    number before ``_m`` has a decimal point. ``0_35m`` is 0.35 m unless a counter in
    front explains the digits before the underscore in every name: then it is ambiguous, and nothing is known.

    Returns:
        (number, unit in lower case) of each file, the unit None where it has none or the number is inf; or None.
    """
    stems = _stems(files)
    if any(UNDERSCORED.search(stem) for stem in stems):
        if _counters_explain(stems):
            return None
        stems = [UNDERSCORED.sub(r"\1.\2", stem) for stem in stems]
    for pattern in (WITH_UNIT, DECIMAL):
        found = [[match.groups() for match in pattern.finditer(stem)] for stem in stems]
        counts = {len(numbers) for numbers in found if numbers}
        if len(counts) != 1:
            continue
        columns = []
        for column in range(counts.pop()):
            groups = [numbers[column] if numbers else None for numbers in found]
            numbers = [_number(one, stem) for one, stem in zip(groups, stems, strict=True)]
            values = [_metres(*one) for one in numbers]
            counters = all(one is not None and _may_be_counter(one) for one in groups)
            if not counters and not any(math.isnan(value) or value <= 0 for value in values) and len(set(values)) > 1:
                columns.append(numbers)
        if columns:
            return columns[-1]
    return None


def _may_be_counter(groups: tuple[str, ...]) -> bool:
    """Whether a number is a whole one before ``_m``."""
    return len(groups) > 1 and groups[1] == "_" and groups[2].lower() == "m" and "." not in groups[0]


def _number(groups: tuple[str, ...] | None, stem: str) -> tuple[float, str | None]:
    """A number and its unit from what a pattern found in a name; NaN where there is none."""
    if groups is None:
        return (math.inf if INFINITE.search(stem) else math.nan), None
    return float(groups[0]), groups[2].lower() if len(groups) > 1 else None


def _metres(number: float, unit: str | None) -> float:
    if unit == "dpt":
        return 1 / number if number else math.inf
    return number * (1.0 if unit is None else UNITS_M[unit])
