"""Where a stack's focus distances come from: the sources in the order in which they are asked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sfdfd.data.description import Description
from sfdfd.data.exif import PhotoFacts
from sfdfd.data.formats.makernotes import maker_distances, reader_of_maker_notes
from sfdfd.data.names import ambiguous_distances, distances_in_names
from sfdfd.errors import InputError, checked_number

__all__ = ["FocusDistances", "focus_distances", "how_to_give_distances"]

NEAREST_M, FARTHEST_M = 1e-3, 100.0
"""A stack whose focus distances all lie below or beyond these is one in wrong units."""
PRACTICALLY_INFINITE_M = 1000.0


@dataclass(frozen=True)
class FocusDistances:
    """Focus distances and what is known of them.

    Attributes:
        values_m: one per slice, inf possible.
        origin: where they come from, in words.
        std_dpt: standard deviation of each inverse distance in dioptres (1/m), where something says it.
    """

    values_m: tuple[float, ...]
    origin: str
    std_dpt: tuple[float, ...] | None = None


def _from_description(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    return None if said.focus is None else FocusDistances(tuple(said.focus[0]), said.focus[1])


def _from_exif(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    subject = [metres for fact in facts if (metres := fact.subject_distance_m) is not None]
    if not subject or len(subject) < len(facts) or len(set(subject)) == 1:
        return None
    return FocusDistances(tuple(subject), "EXIF subject distance")


def _words(path: Path, number: int, what: str) -> list[str] | None:
    """The numbers of a text file, one per slice."""
    if not path.is_file():
        return None
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from None
    if len(lines) == number:  # one number a line: a comma in it is decimal
        lines = [re.sub(r"^(\d+),(\d+)$", r"\1.\2", line) for line in lines]
    words = " ".join(lines).replace(",", " ").split()
    if len(words) != number:
        raise InputError(f"{path}: expected {number} {what}, one per slice, got {len(words)}")
    return words


def _from_text(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    path = said.beside("focus_distance.txt")
    words = None if path is None else _words(path, len(said.files), "focus distances")
    return None if words is None else FocusDistances(tuple(said.metres(word, str(path)) for word in words), str(path))


def _from_dioptres(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    path = said.beside("dioptres.txt")
    words = None if path is None else _words(path, len(said.files), "focus distances in dioptres")
    if words is None:
        return None
    values = [checked_number(word, f"{path} (dioptres)", least=0) for word in words]
    return FocusDistances(tuple(1 / value if value else math.inf for value in values), str(path))


def _from_names(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    found = distances_in_names(said.files)
    if found is None:
        return None
    values, in_metres = found
    return FocusDistances(tuple(v if in_metres else said.metres(v, "file names") for v in values), "file names")


def _from_maker_notes(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    if said.video is not None or not any(fact.maker_note for fact in facts):
        return None
    bounds = maker_distances(said.files)
    if bounds is None or len(set(bounds)) == 1:
        return None
    dioptres = [(1 / nearest, 1 / farthest) for nearest, farthest in bounds]
    values = tuple(2 / (high + low) if high + low else math.inf for high, low in dioptres)
    std = tuple((high - low) / math.sqrt(12) for high, low in dioptres)  # anywhere between the bounds
    return FocusDistances(values, f"the maker's notes, by {reader_of_maker_notes()}", std if any(std) else None)


SOURCES = (_from_description, _from_exif, _from_text, _from_dioptres, _from_names, _from_maker_notes)
"""The first that knows the distances is believed."""


def focus_distances(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """What the first source that knows it says, checked; None where none does.

    Practically infinite distances become inf.

    Raises:
        InputError: wrong units, or all distances are equal.
    """
    found = next((one for source in SOURCES if (one := source(said, facts)) is not None), None)
    if found is None:
        return None
    values = _checked(found.values_m, found.origin)
    return FocusDistances(values, found.origin, said.std_dpt(values) or found.std_dpt)


def how_to_give_distances(said: Description, facts: Sequence[PhotoFacts]) -> str:
    """Where focus distances can be written, for whoever has none."""
    notes = any(fact.maker_note for fact in facts) and reader_of_maker_notes() is None
    return (
        (ambiguous_distances(said.files) or "")
        + "'focus_distances_m=[0.5,1,2]', stack.yaml, focus_distance.txt or dioptres.txt (one number a line), or file names "
        "such as 0.5m.jpg or 1.25dpt.jpg"
        + (" (the maker's notes may have them: pip install 'sfdfd[photo]' reads some)" if notes else "")
    )


def _checked(values: Sequence[float], where: str) -> tuple[float, ...]:
    nearest = min(values)
    if nearest < NEAREST_M or (math.isfinite(nearest) and nearest > FARTHEST_M):
        raise InputError(
            f"{where}: the nearest focus distance is {nearest:.4g} m; are these metres? Say what one unit is with "
            "focus_distance_unit_m (millimetres: 0.001), or focus_unit=dioptre"
        )
    values = tuple(math.inf if value > PRACTICALLY_INFINITE_M else value for value in values)
    if len(set(values)) == 1:
        raise InputError(f"{where}: every focus distance is {values[0]:.6g} m; depth needs two different ones")
    return values
