"""Collect the camera of a stack from its description, EXIF and file names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfdfd.errors import InputError
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.files import readable
from sfdfd.io.stack_yaml import CAMERA_KEYS, PLAUSIBLE_CAMERA, StackDescription
from sfdfd.photographs.file_names import focal_length_in_names

__all__ = ["CameraValue", "CameraValues", "bracketed_f_numbers", "collect_camera"]

AGREEMENT = 0.05
"""Share by which the EXIF of a stack's photographs may differ: lenses breathe, but a stack has one lens."""


CameraValue = float | tuple[float, ...] | None
"""A value of the camera; a tuple for f-numbers that differ from slice to slice; None if unknown."""


@dataclass(frozen=True)
class CameraValues:
    """Camera values by key (None if unknown), the sources of the known ones in words, and notes for the user."""

    values: Mapping[str, CameraValue]
    sources: Mapping[str, str]
    notes: tuple[str, ...]


def bracketed_f_numbers(description: StackDescription, facts: Sequence[PhotoFacts]) -> tuple[float, ...] | None:
    """Return the f-number of every slice if they differ, from the description or else from EXIF; None if they do not.

    Raises:
        InputError: EXIF gives different f-numbers, but not for every slice.
    """
    if "f_number" in description.camera:
        value = description.camera["f_number"][0]
        return value if isinstance(value, tuple) else None
    low, high = PLAUSIBLE_CAMERA["f_number"]
    numbers = [fact.f_number if fact.f_number and low <= fact.f_number <= high else None for fact in facts]
    known = [number for number in numbers if number is not None]
    if not known or max(known) <= (1 + AGREEMENT) * min(known):
        return None
    if len(known) < len(numbers):
        file = readable(description.files[numbers.index(None)].name)
        raise InputError(
            f"EXIF: f-numbers reach from {min(known):g} to {max(known):g}, and {file} has none: give one per slice, "
            f"camera.f_number=[{','.join(['N'] * min(len(numbers), 4))}]"
        )
    return tuple(known)


def collect_camera(description: StackDescription, facts: Sequence[PhotoFacts], kept: Sequence[int]) -> CameraValues:
    """Take each value from the description, else from EXIF, else from the file names (focal length only).

    Args:
        description: of the stack.
        facts: EXIF of its files.
        kept: indices of the files whose EXIF counts. Of apertures that differ, that of every slice counts.

    Raises:
        InputError: the EXIF of the photographs disagree (a phone that switched lenses).
    """
    photographs = [(description.files[i], facts[i]) for i in kept]
    known: dict[str, tuple[float | tuple[float, ...], str]] = dict(description.camera)
    if (bracket := bracketed_f_numbers(description, facts)) is not None:
        known.setdefault("f_number", (bracket, "EXIF"))
    notes: list[str] = []
    for key in CAMERA_KEYS:
        if key in known:
            continue
        if key == "pixel_pitch_m":
            measured, origin, notes = _agreeing_pitches(photographs)
        else:
            measured = [(value, file) for file, facts in photographs if (value := getattr(facts, key))]
            origin = "EXIF"
        if measured:
            _refuse_two_lenses(key, measured)
            _add_if_plausible(known, key, float(np.median([value for value, _ in measured])), origin)
    if "focal_length_m" not in known and (focal_m := focal_length_in_names(description.files)) is not None:
        _add_if_plausible(known, "focal_length_m", focal_m, "file names")
    values = {key: known[key][0] if key in known else None for key in CAMERA_KEYS}
    return CameraValues(values, {key: origin for key, (_, origin) in known.items()}, tuple(notes))


def _add_if_plausible(
    known: dict[str, tuple[float | tuple[float, ...], str]], key: str, value: float, origin: str
) -> None:
    low, high = PLAUSIBLE_CAMERA[key]
    if low <= value <= high:
        known[key] = value, origin


def _refuse_two_lenses(key: str, measured: Sequence[tuple[float, Path]]) -> None:
    (least, first), (most, last) = (pick(measured, key=lambda pair: pair[0]) for pick in (min, max))
    if most > (1 + AGREEMENT) * least:
        raise InputError(
            f"EXIF: {key} is {least:g} in {readable(first.name)} and {most:g} in {readable(last.name)}: these are not "
            f"photographs of one lens; leave the odd ones out (files), or give camera.{key}=NUMBER"
        )


def _agreeing_pitches(
    photographs: Sequence[tuple[Path, PhotoFacts]],
) -> tuple[list[tuple[float, Path]], str, list[str]]:
    """Return the pixel pitches that EXIF gives and that agree, where they come from, and notes.

    All slices have one size, so slices of one lens have one pitch. The majority of the photographs decides; without a
    majority no pitch is used.
    """
    notes = list(
        dict.fromkeys(facts.pixel_pitch_note for _, facts in photographs if facts.pixel_pitch_note is not None)
    )
    known = [
        (facts.pixel_pitch_m, file, facts.pixel_pitch_origin) for file, facts in photographs if facts.pixel_pitch_m
    ]
    if not known:
        return [], "EXIF", notes
    middle = sorted(pitch for pitch, *_ in known)[(len(known) - 1) // 2]
    near = math.sqrt(1 + AGREEMENT)
    agreeing = [row for row in known if middle / near <= row[0] <= middle * near]
    odd = [row for row in known if row not in agreeing]
    if odd:
        comparison = (
            f"EXIF means a pixel pitch of {1e6 * middle:.3g} um in {len(agreeing)} of {len(known)} photographs, "
            f"{1e6 * odd[0][0]:.3g} um in {readable(odd[0][1].name)}"
        )
        if 2 * len(agreeing) <= len(known):
            remedy = "neither was used (camera.pixel_pitch_m=NUMBER gives it)"
            return [], "EXIF", [*notes, f"{comparison}: {remedy}"]
        notes.append(f"{comparison}: the majority's was used")
    origins = [origin for *_, origin in agreeing]
    return [(pitch, file) for pitch, file, _ in agreeing], max(set(origins), key=origins.count), notes
