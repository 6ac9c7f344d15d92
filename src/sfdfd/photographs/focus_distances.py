"""Take the focus distances of a stack from the first source that knows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sfdfd.errors import InputError, checked_number
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.files import readable
from sfdfd.io.formats.maker_notes import maker_note_distances, maker_note_reader
from sfdfd.io.stack_yaml import StackDescription
from sfdfd.io.text_files import UNITS_M, decoded, numbers_with_units
from sfdfd.photographs.camera_values import bracketed_f_numbers
from sfdfd.photographs.distance_rounding import spread_equal_distances_m, uniform_std_dpt, widen_by_rounding
from sfdfd.photographs.file_names import ambiguous_distances, numbers_in_names

__all__ = ["FocusDistances", "focus_distances", "focus_distances_remedy"]

NEAREST_M, FARTHEST_M = 1e-3, 100.0
"""If all focus distances of a stack lie below or beyond these, their unit is wrong."""
PRACTICALLY_INFINITE_M = 1000.0
DISAGREEMENT = 0.05
"""Share by which two sources may differ without a note."""
CONFIRMED = 0.5
"""Share by which EXIF's distances may miss numbers in names that they confirm to be distances."""
GUESSED_STD, LEAST_GUESSED_DPT = 0.3, 0.1
"""Standard deviation of a guessed distance: as a share of its inverse, and at least, in dioptres."""
EXIF_ORIGIN = "EXIF subject distance"


@dataclass(frozen=True)
class FocusDistances:
    """Focus distances and their origin.

    Attributes:
        values_m: one per slice in metres, inf possible.
        origin: where they come from, in words.
        std_dpt: standard deviation of each inverse distance in dioptres (1/m), if known.
        units: the unit of each as written (:data:`sfdfd.io.text_files.UNITS_M`), None if it has no unit of its own.
        notes: in words, for the user.
    """

    values_m: tuple[float, ...]
    origin: str
    std_dpt: tuple[float, ...] | None = None
    units: tuple[str | None, ...] | None = None
    notes: tuple[str, ...] = ()


Source = Callable[[StackDescription, Sequence[PhotoFacts]], FocusDistances | None]


def _from_description(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    return None if description.focus is None else FocusDistances(tuple(description.focus[0]), description.focus[1])


def _from_text(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    return _from_file(description, "focus_distance.txt", "focus distances", None)


def _from_dioptres(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    return _from_file(description, "dioptres.txt", "focus distances in dioptres", "dpt")


def _from_file(
    description: StackDescription, name: str, content: str, default_unit: str | None
) -> FocusDistances | None:
    """Read the distances of a text file, one per slice; numbers without a unit have the default."""
    path, number = description.beside(name), len(description.files)
    if path is None or not path.is_file():
        return None
    try:
        written = numbers_with_units(decoded(path), number)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from None
    if len(written) != number:
        raise InputError(f"{path}: expected {number} {content}, one per slice, got {len(written)}")
    units = [default_unit if unit is None else unit for _, unit in written]
    values = [_in_metres(description, text, unit, str(path)) for (text, _), unit in zip(written, units, strict=True)]
    return FocusDistances(tuple(values), str(path), units=tuple(units))


def _in_metres(description: StackDescription, number: Any, unit: str | None, label: str) -> float:
    """Convert a number to metres by its unit, or by that of the description if it has none."""
    if unit is None:
        return description.metres(number, label)
    unit_m = UNITS_M[unit]
    if unit_m is not None:
        return unit_m * checked_number(number, label, infinite=True)
    value = checked_number(number, f"{label} (dioptres)", least=0)
    return 1 / value if value else math.inf


def _from_names_with_unit(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Read numbers in names that have a unit, or whose unit ``focus_unit`` or ``focus_distance_unit_m`` gives."""
    distances = _from_names(description, facts)
    has_unit = description.dioptres or description.unit_m is not None
    return distances if distances is not None and (has_unit or any(distances.units or ())) else None


def _from_names(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Read numbers in names, with a unit or without."""
    numbers = numbers_in_names(description.files)
    if numbers is None or _are_f_numbers([number for number, _ in numbers], description, facts):
        return None
    values = [
        math.inf if math.isinf(number) else _in_metres(description, number, unit, "file names")
        for number, unit in numbers
    ]
    return FocusDistances(tuple(values), "file names", units=tuple(unit for _, unit in numbers))


def _are_f_numbers(numbers: Sequence[float], description: StackDescription, facts: Sequence[PhotoFacts]) -> bool:
    """Return whether the numbers are the apertures of slices that differ in it (``wall_f2.8.jpg``, ``wall_f11.0.jpg``)."""
    apertures = bracketed_f_numbers(description, facts)
    if apertures is None:
        return False
    return all(math.isclose(a, b, rel_tol=DISAGREEMENT) for a, b in zip(numbers, apertures, strict=True))


def _from_confirmed_names(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Read decimals in names without a unit if EXIF's guesses are close to all of them, which confirms them."""
    named, guessed = _from_names(description, facts), _from_exif(description, facts)
    if named is None or guessed is None:
        return None
    confirmed = all(difference <= CONFIRMED for difference in _differences(named, guessed))
    return named if confirmed else None


def _from_exif(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    distances = [metres for fact in facts if (metres := fact.subject_distance_m) is not None]
    if not distances or len(distances) < len(facts):
        return None
    if len(set(distances)) == 1 and bracketed_f_numbers(description, facts) is None:
        return None
    return FocusDistances(tuple(distances), EXIF_ORIGIN)


def _from_maker_notes(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Read maker notes; equal neighbours are spread within the interval that they were rounded to."""
    if description.video is not None or not any(fact.maker_note for fact in facts):
        return None
    readings, is_bracket = maker_note_distances(description.files), bracketed_f_numbers(description, facts) is not None
    if readings is None or (len(set(readings)) == 1 and not is_bracket):
        return None
    origin = f"the maker's notes, by {maker_note_reader()}"
    intervals = [(reading.nearest_m, reading.farthest_m) for reading in readings]
    values = [near if near == far else 2 / (1 / near + 1 / far) for near, far in intervals]
    if any(reading.guess for reading in readings):
        std = tuple(max(GUESSED_STD / value, LEAST_GUESSED_DPT) for value in values)
        note = (
            "focus distances are Sony's FocusDistance2, a guess from the position of the lens, uncertain by "
            f"{GUESSED_STD:.0%}; better ones can be written in focus_distance.txt"
        )
        return FocusDistances(tuple(values), f"{origin} (FocusDistance2, a guess)", std, notes=(note,))
    return _spread(values, intervals, origin, keep_equal=is_bracket)


def _spread(
    values: Sequence[float], intervals: Sequence[tuple[float, float]], origin: str, *, keep_equal: bool
) -> FocusDistances:
    """Return distances with equal neighbours spread within the intervals that they were rounded to.

    ``keep_equal`` leaves them as they are, because the slices may differ in aperture alone.
    """
    intervals = widen_by_rounding(intervals)
    std = uniform_std_dpt(intervals)
    spread = tuple(values) if keep_equal else spread_equal_distances_m(values, intervals)
    changed = sum(after != before for after, before in zip(spread, values, strict=True))
    note = (
        f"{changed} slices have the focus distance of a neighbour because the maker's notes are rounded; they were spread "
        "within the rounding, in the order of the files"
    )
    return FocusDistances(spread, origin, std if any(std) else None, notes=(note,) if changed else ())


SOURCES: tuple[Source, ...] = (
    _from_description, _from_text, _from_dioptres, _from_names_with_unit, _from_confirmed_names, _from_exif, _from_names,
    _from_maker_notes,
)  # fmt: skip
"""In order of precedence: what a person wrote comes before what a camera guesses."""
COMPARED: tuple[Source, ...] = (_from_description, _from_text, _from_dioptres, _from_names_with_unit, _from_exif)
"""Sources whose contradiction is noted. Numbers without unit may be no distances, and makers round."""


def focus_distances(description: StackDescription, facts: Sequence[PhotoFacts]) -> FocusDistances | None:
    """Return the focus distances of the first source that knows them, checked; None if none does.

    Practically infinite distances become inf. Notes name the other sources that disagree.

    Raises:
        InputError: the unit is wrong, or all distances are equal in a stack of one aperture.
    """
    first = next((found for source in SOURCES if (found := source(description, facts)) is not None), None)
    if first is None:
        return None
    values = _checked(first.values_m, first.origin, bracketed_f_numbers(description, facts) is not None)
    notes = (*first.notes, *_disagreements(first, description, facts))
    std = description.std_dpt(values, first.units) or first.std_dpt
    return replace(first, values_m=values, std_dpt=std, notes=notes)


def _disagreements(used: FocusDistances, description: StackDescription, facts: Sequence[PhotoFacts]) -> list[str]:
    """Return a note for each other source that disagrees with the one that is used."""
    sources = COMPARED if used.origin != EXIF_ORIGIN else (*COMPARED, _from_names)
    notes: list[str] = []
    for source in sources:
        try:
            other = source(description, facts)
        except InputError:  # errors in a source that is not used do not matter
            continue
        if other is None or other.origin == used.origin:
            continue
        differences = _differences(used, other)
        worst = max(range(len(differences)), key=lambda index: differences[index])
        if differences[worst] > DISAGREEMENT:
            number = sum(difference > DISAGREEMENT for difference in differences)
            used_text, other_text = (_in_words(distances.values_m[worst]) for distances in (used, other))
            notes.append(
                f"focus distances disagree in {number} of {len(differences)} slices: {used.origin} says {used_text} for "
                f"{readable(description.files[worst].name)}, {other.origin} {other_text}; {used.origin} was used"
            )
    return notes


def _differences(first: FocusDistances, second: FocusDistances) -> list[float]:
    """Return by how much distances differ, as a share of the smaller; practically infinite ones are equal."""
    pairs = [
        [min(value, PRACTICALLY_INFINITE_M) for value in pair]
        for pair in zip(first.values_m, second.values_m, strict=True)
    ]
    return [max(pair) / min(pair) - 1 for pair in pairs]


def _in_words(metres: float) -> str:
    return f"{metres:.4g} m" if metres < PRACTICALLY_INFINITE_M else "infinity"


def focus_distances_remedy(description: StackDescription, facts: Sequence[PhotoFacts]) -> str:
    """Return how to give focus distances, for a user whose stack has none."""
    unread_notes = any(fact.maker_note for fact in facts) and maker_note_reader() is None
    return (
        (ambiguous_distances(description.files) or "")
        + "'focus_distances_m=[0.5,1,2]', stack.yaml, focus_distance.txt or dioptres.txt (one number a line), or file names "
        "such as 0.5m.jpg or 1.25dpt.jpg"
        + (" (the maker's notes may have them: pip install 'sfdfd[photo]' reads some)" if unread_notes else "")
    )


def _checked(values_m: Sequence[float], origin: str, is_bracket: bool) -> tuple[float, ...]:
    nearest = min(values_m)
    if nearest < NEAREST_M or (math.isfinite(nearest) and nearest > FARTHEST_M):
        raise InputError(
            f"{origin}: the nearest focus distance is {nearest:.4g} m; are these metres? Say what one unit is with "
            "focus_distance_unit_m (millimetres: 0.001), or focus_unit=dioptre"
        )
    values_m = tuple(math.inf if value > PRACTICALLY_INFINITE_M else value for value in values_m)
    if len(set(values_m)) == 1 and not is_bracket:
        raise InputError(
            f"{origin}: every focus distance is {values_m[0]:.6g} m; depth needs two different ones, or different apertures "
            "(camera.f_number=[N,N])"
        )
    return values_m
