"""Where a stack's focus distances come from: the sources in the order in which they are asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfdfd.errors import InputError, checked_number
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.files import readable
from sfdfd.io.formats.maker_notes import maker_distances, reader_of_maker_notes
from sfdfd.io.stack_yaml import Description
from sfdfd.io.text_files import UNITS_M, decoded, numbers_with_units
from sfdfd.photographs.distance_rounding import centres_m, uniform_std_dpt, with_rounding
from sfdfd.photographs.file_names import ambiguous_distances, numbers_in_names

__all__ = ["FocusDistances", "focus_distances", "how_to_give_distances"]

NEAREST_M, FARTHEST_M = 1e-3, 100.0
"""A stack whose focus distances all lie below or beyond these is one in wrong units."""
PRACTICALLY_INFINITE_M = 1000.0
DISAGREEMENT = 0.05
"""Share by which two sources may differ before it is said."""
CONFIRMED = 0.5
"""Share by which EXIF's distances may miss numbers in names that they confirm to be distances."""
GUESSED_STD, LEAST_GUESSED_DPT = 0.3, 0.1
"""Standard deviation of a guessed distance, as a share of its inverse, and in dioptres where it is far."""


@dataclass(frozen=True)
class FocusDistances:
    """Focus distances and what is known of them.

    Attributes:
        values_m: one per slice, inf possible.
        origin: where they come from, in words.
        std_dpt: standard deviation of each inverse distance in dioptres (1/m), where something says it.
        units: what each was written in (:data:`sfdfd.io.text_files.UNITS_M`), None where it has no unit of its own.
        notes: in words, for the user.
    """

    values_m: tuple[float, ...]
    origin: str
    std_dpt: tuple[float, ...] | None = None
    units: tuple[str | None, ...] | None = None
    notes: tuple[str, ...] = ()


def _from_description(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    return None if said.focus is None else FocusDistances(tuple(said.focus[0]), said.focus[1])


def _from_text(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    return _of_file(said, "focus_distance.txt", "focus distances", None)


def _from_dioptres(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    return _of_file(said, "dioptres.txt", "focus distances in dioptres", "dpt")


def _of_file(said: Description, name: str, what: str, usual: str | None) -> FocusDistances | None:
    """Read the distances of a text file, one per slice; ``usual`` is the unit of numbers that have none of their own."""
    path, number = said.beside(name), len(said.files)
    if path is None or not path.is_file():
        return None
    try:
        found = numbers_with_units(decoded(path), number)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from None
    if len(found) != number:
        raise InputError(f"{path}: expected {number} {what}, one per slice, got {len(found)}")
    units = [usual if unit is None else unit for _, unit in found]
    values = [_in_metres(said, word, unit, str(path)) for (word, _), unit in zip(found, units, strict=True)]
    return FocusDistances(tuple(values), str(path), units=tuple(units))


def _in_metres(said: Description, number: Any, unit: str | None, where: str) -> float:
    """Convert a number with its unit; without one it is what the description says."""
    if unit is None:
        return said.metres(number, where)
    unit_m = UNITS_M[unit]
    if unit_m is not None:
        return unit_m * checked_number(number, where, infinite=True)
    value = checked_number(number, f"{where} (dioptres)", least=0)
    return 1 / value if value else math.inf


def _from_names(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Numbers in names that a person has given a unit, there or by ``focus_unit`` or ``focus_distance_unit_m``."""
    found = _from_plain_names(said, facts)
    given = said.dioptres or said.unit_m is not None
    return found if found is not None and (given or any(found.units or ())) else None


def _from_plain_names(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Numbers in names, with a unit or without."""
    numbers = numbers_in_names(said.files)
    if numbers is None:
        return None
    values = [
        math.inf if math.isinf(number) else _in_metres(said, number, unit, "file names") for number, unit in numbers
    ]
    return FocusDistances(tuple(values), "file names", units=tuple(unit for _, unit in numbers))


def _from_confirmed_names(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Decimals in names that have no unit, where EXIF's guesses lie near all of them: then they are distances, and what
    a person wrote is better than a guess."""
    plain, guessed = _from_plain_names(said, facts), _from_exif(said, facts)
    if plain is None or guessed is None:
        return None
    near = all(_apart(one, other) <= CONFIRMED for one, other in zip(plain.values_m, guessed.values_m, strict=True))
    return plain if near else None


def _from_exif(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    subject = [metres for fact in facts if (metres := fact.subject_distance_m) is not None]
    if not subject or len(subject) < len(facts) or len(set(subject)) == 1:
        return None
    return FocusDistances(tuple(subject), "EXIF subject distance")


def _from_maker_notes(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Makers round: to bounds, or to whole centimetres. Equal neighbours are spread within what they were rounded to."""
    if said.video is not None or not any(fact.maker_note for fact in facts):
        return None
    found = maker_distances(said.files)
    if found is None or len(set(found)) == 1:
        return None
    origin = f"the maker's notes, by {reader_of_maker_notes()}"
    told = [(one.nearest_m, one.farthest_m) for one in found]
    values = [near if near == far else 2 / (1 / near + 1 / far) for near, far in told]
    if any(one.guess for one in found):
        std = tuple(max(GUESSED_STD / value, LEAST_GUESSED_DPT) for value in values)
        note = (
            "focus distances are Sony's FocusDistance2, a guess from the position of the lens, uncertain by "
            f"{GUESSED_STD:.0%}; better ones can be written in focus_distance.txt"
        )
        return FocusDistances(tuple(values), f"{origin} (FocusDistance2, a guess)", std, notes=(note,))
    bounds = with_rounding(told)
    spread, std = centres_m(values, bounds), uniform_std_dpt(bounds)
    number = sum(one != other for one, other in zip(spread, values, strict=True))
    note = (
        f"{number} slices have the focus distance of a neighbour because the maker's notes are rounded; they were spread "
        "within the rounding, in the order of the files"
    )
    return FocusDistances(spread, origin, std if any(std) else None, notes=(note,) if number else ())


SOURCES = (
    _from_description, _from_text, _from_dioptres, _from_names, _from_confirmed_names, _from_exif, _from_plain_names,
    _from_maker_notes,
)  # fmt: skip
"""The first that knows the distances is believed: what a person wrote comes before what a camera guesses."""
COMPARED = (_from_description, _from_text, _from_dioptres, _from_names, _from_exif)
"""What contradicts the believed distances is said; numbers without unit may be no distances, and makers round."""


def focus_distances(said: Description, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """What the first source that knows it says, checked; None where none does.

    Practically infinite distances become inf. Notes name the other sources that disagree.

    Raises:
        InputError: wrong units, or all distances are equal.
    """
    found = next((one for source in SOURCES if (one := source(said, facts)) is not None), None)
    if found is None:
        return None
    values = _checked(found.values_m, found.origin)
    notes = (*found.notes, *_disagreements(found, said, facts))
    return FocusDistances(values, found.origin, said.std_dpt(values, found.units) or found.std_dpt, found.units, notes)


def _disagreements(found: FocusDistances, said: Description, facts: Sequence[PhotoFacts]) -> list[str]:
    """Name the other sources that say something else than the one that is believed."""
    others = COMPARED if found.origin != "EXIF subject distance" else (*COMPARED, _from_plain_names)
    notes: list[str] = []
    for source in others:
        try:
            other = source(said, facts)
        except InputError:  # what is not believed need not be right
            continue
        if other is None or other.origin == found.origin:
            continue
        apart = [_apart(one, two) for one, two in zip(found.values_m, other.values_m, strict=True)]
        worst = max(range(len(apart)), key=lambda index: apart[index])
        if apart[worst] > DISAGREEMENT:
            number = sum(one > DISAGREEMENT for one in apart)
            ours, theirs = (_in_words(one.values_m[worst]) for one in (found, other))
            notes.append(
                f"focus distances disagree in {number} of {len(apart)} slices: {found.origin} says {ours} for "
                f"{readable(said.files[worst].name)}, {other.origin} {theirs}; {found.origin} was used"
            )
    return notes


def _apart(one: float, other: float) -> float:
    """By how much two distances differ, as a share of the smaller; practically infinite ones do not."""
    one, other = (min(value, PRACTICALLY_INFINITE_M) for value in (one, other))
    return max(one, other) / min(one, other) - 1


def _in_words(metres: float) -> str:
    return f"{metres:.4g} m" if metres < PRACTICALLY_INFINITE_M else "infinity"


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
