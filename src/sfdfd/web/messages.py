"""Text of the page: its fields as settings of the commands, and results as Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sfdfd.errors import InputError, checked_number
from sfdfd.measures.left_out import FIGURES, HOW_TO_READ
from sfdfd.report.prediction_folder import CAMERA_FIELDS, camera_value

__all__ = [
    "UNITS",
    "describe_diagnosis",
    "describe_failure",
    "describe_left_out",
    "describe_prediction",
    "settings_from_fields",
]

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inches": 0.0254, "dioptres (1/m)": None}
"""Units of focus distances, in metres; dioptres are their inverse."""
INFINITY_M = 1e9
"""The focus distance that stands for infinity."""


def settings_from_fields(
    distances: str, unit: str, focal_mm: Any, f_number: Any, pitch_um: Any, side: str | None = None
) -> dict[str, Any]:
    """Return the page's fields as settings of the commands, without empty ones.

    Raises:
        InputError: a field holds no valid number.
    """
    fields = (("camera.focal_length_m", focal_mm, 1e-3), ("camera.pixel_pitch_m", pitch_um, 1e-6))
    settings: dict[str, Any] = {
        key: checked_number(value, key) * factor for key, value, factor in fields if value not in (None, 0, "")
    }
    if f_numbers := _numbers(str(f_number or "").lower().replace("f/", ""), "f-number"):
        settings["camera.f_number"] = f_numbers[0] if len(f_numbers) == 1 else f_numbers
    if numbers := _numbers(distances or "", "Focus distances"):
        settings["focus_distances_m"] = _in_metres(numbers, unit)
    if side:
        settings["side"] = side
    return settings


def _numbers(text: str, field: str) -> list[float]:
    """Read numbers that are separated by spaces, semicolons or commas; a comma may also be a decimal sign."""
    parts = re.split(r"[\s;]+|,(?!\d)|(?<!\d),", text.strip())
    if len(parts) == 1 and parts[0].count(",") > 1:
        parts = parts[0].split(",")
    return [checked_number(part.replace(",", "."), field, infinite=True, least=0) for part in parts if part]


def _in_metres(distances: list[float], unit: str) -> list[float]:
    if unit not in UNITS:
        raise InputError(f"Unit: expected one of {', '.join(UNITS)}, got {unit!r}")
    factor = UNITS[unit]
    if factor is None:
        metres = [1 / distance if distance else math.inf for distance in distances]
    else:
        metres = [distance * factor for distance in distances]
    return [value if math.isfinite(value) else INFINITY_M for value in metres]


def describe_diagnosis(diagnosis: Mapping[str, Any]) -> str:
    """Describe a ``diagnosis.json`` in Markdown: the photographs, the camera, what is missing, and whether it will work."""
    facts = diagnosis["facts"]
    focus = facts["focus_distances_m"]
    files = [_escaped(motion["file"]) for motion in facts["alignment"]["slices"]]
    distances = ["not known"] * len(files) if focus is None else [_metres(value) for value in focus]
    f_number = facts["camera"].get("f_number")
    if isinstance(f_number, Sequence):
        distances = [f"{distance}, f/{number:.3g}" for distance, number in zip(distances, f_number, strict=True)]
    lines = ["| photograph | focused at |", "|---|---|"]
    lines += [f"| {file} | {distance} |" for file, distance in zip(files, distances, strict=True)]
    lines += ["", *_camera(facts)]
    missing = [_missing(key) for key in facts["missing"]]
    if missing:
        lines += ["", f"**Not known:** {', '.join(missing)}. Fill it in below if you know it; it also works without."]
    lines += ["", f"**Will it work? {_escaped(diagnosis['verdict']).capitalize()}.**", ""]
    lines += [f"- {_escaped(reason)}" for reason in diagnosis["reasons"] if "DEReD" not in reason]
    lines += _notes(facts)
    lines += ["", _escaped(facts["statement"])] if facts["camera_source"] != "estimated" else []
    return "\n".join(lines)


def describe_failure(error: Exception) -> str:
    """Describe in Markdown what stopped a command; one of the page's fields may be the remedy."""
    return (
        f"**This does not work yet:** {_escaped(error)}\n\n"
        "If a field under *What the photographs do not say* can correct it, fill it in and press **Go**."
    )


def _notes(facts: Mapping[str, Any]) -> list[str]:
    """Return the notes of the commands as lines of Markdown."""
    return [line for note in facts.get("notes") or () for line in ("", f"**Note:** {_escaped(note)}")]


def _camera(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, (name, factor, unit) in CAMERA_FIELDS.items():
        value, source = facts["camera"].get(key), facts["sources"].get(key)
        if value is not None:
            lines.append(f"- {name}: {camera_value(value, factor, unit)} ({_escaped(source or 'given')})")
    return lines


def _missing(key: str) -> str:
    name = key.removeprefix("camera.")
    return CAMERA_FIELDS[name][0].lower() if name in CAMERA_FIELDS else "focus distances"


def _metres(value: Any) -> str:
    number = float(value)
    return "infinity" if math.isinf(number) else f"{number:.4g} m"


def _escaped(text: Any) -> str:
    """Escape HTML and Markdown in text that comes from files."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~$&])", lambda match: f"&#{ord(match.group(1))};", str(text))


def describe_prediction(facts: Mapping[str, Any]) -> str:
    """Describe a ``prediction.json`` in a few sentences."""
    if facts["metric"]:
        low, middle, high = (facts["depth_m"][key] for key in ("min", "median", "max"))
        lines = [f"The scene lies between {low:.3g} and {high:.3g} m; half of it is nearer than {middle:.3g} m."]
    else:
        lines = ["Depth is relative, not in metres: no focus distance is known."]
    lines.append(_escaped(facts["statement"]))
    refinement = facts["refinement"]
    if refinement:
        stopped = " Stopped by you." if refinement["interrupted"] else ""
        lines.append(f"Refined for {refinement['seconds']:.0f} s.{stopped}")
    lines.append(f"{facts['confidence']['share_above_half']:.0%} of the pixels have a confidence above one half.")
    if facts.get("prior"):
        lines.append(f"**Depth map:** {_escaped(facts['prior']['sentence'])}.")
    lines += [line for line in _notes(facts) if line]
    return "\n\n".join(lines)


def describe_left_out(facts: Mapping[str, Any]) -> str:
    """Describe in Markdown how well the left-out photograph of a ``prediction.json`` was predicted."""
    if not facts["left_out"]:
        return "No photograph was kept aside."
    lines = ["| photograph | " + " | ".join(FIGURES.values()) + " |", "|---|" + "---|" * len(FIGURES)]
    for row in facts["left_out"]:
        lines.append(f"| {_escaped(row['file'])} | " + " | ".join(f"{row[key]:.1f} dB" for key in FIGURES) + " |")
    mean = facts["left_out_mean"]
    gain = mean["psnr_db"] - mean["nearest_slice_psnr_db"]
    verdict = (
        f"The photograph that was kept aside was predicted {gain:.1f} dB better than by its neighbour: depth and lens "
        "explain the stack."
        if gain > 0
        else "The photograph that was kept aside was predicted no better than by its neighbour: be careful with depth."
    )
    return "\n".join([f"**{verdict}**", "", *lines, "", HOW_TO_READ])
