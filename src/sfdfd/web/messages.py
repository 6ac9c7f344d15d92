"""What the page says, and what it understands: fields in, sentences out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from sfdfd.errors import InputError, checked_number
from sfdfd.measures.left_out import FIGURES, HOW_TO_READ

__all__ = ["UNITS", "judged", "recognised", "settings_of", "summary", "unrecognised"]

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inches": 0.0254, "dioptres (1/m)": None}
"""Units of focus distances, in metres; dioptres are their inverse."""
KNOWN = {
    "focal_length_m": ("Focal length", 1e3, "mm"),
    "f_number": ("f-number", 1, ""),
    "pixel_pitch_m": ("Pixel pitch", 1e6, "µm"),
}


def settings_of(distances: str, unit: str, focal_mm: Any, f_number: Any, pitch_um: Any) -> dict[str, Any]:
    """The page's fields as keys of the commands; an empty field says nothing.

    Raises:
        InputError: a field holds no such number.
    """
    fields = (("camera.focal_length_m", focal_mm, 1e-3), ("camera.f_number", f_number, 1.0),
              ("camera.pixel_pitch_m", pitch_um, 1e-6))  # fmt: skip
    said: dict[str, Any] = {
        key: checked_number(value, key) * factor for key, value, factor in fields if value not in (None, 0, "")
    }
    words = re.split(r"[\s;]+|,(?!\d)|(?<!\d),", (distances or "").strip())
    if len(words) == 1 and words[0].count(",") > 1:
        words = words[0].split(",")
    numbers = [
        checked_number(word.replace(",", "."), "Focus distances", infinite=True, least=0) for word in words if word
    ]
    if numbers:
        if unit not in UNITS:
            raise InputError(f"Unit: expected one of {', '.join(UNITS)}, got {unit!r}")
        factor = UNITS[unit]
        metres = (
            [math.inf if not one else 1 / one for one in numbers]
            if factor is None
            else [one * factor for one in numbers]
        )
        said["focus_distances_m"] = [one if math.isfinite(one) else 1e9 for one in metres]  # beyond 1 km is infinity
    return said


def recognised(found: Mapping[str, Any]) -> str:
    """What ``diagnose`` found, in Markdown: the pictures, the camera, what is missing, and whether it will work."""
    facts = found["facts"]
    focus = facts["focus_distances_m"]
    files = [_plain(one["file"]) for one in facts["alignment"]["slices"]]
    shown = ["not known"] * len(files) if focus is None else [_metres(one) for one in focus]
    lines = ["| photograph | focused at |", "|---|---|"]
    lines += [f"| {file} | {distance} |" for file, distance in zip(files, shown, strict=True)]
    lines += ["", *_camera(facts)]
    missing = [_missing(key) for key in facts["missing"]]
    if missing:
        lines += ["", f"**Not known:** {', '.join(missing)}. Fill it in below, if you know it; it works without, too."]
    lines += ["", f"**Will it work? {_plain(found['verdict']).capitalize()}.**", ""]
    lines += [f"- {_plain(reason)}" for reason in found["reasons"] if "DEReD" not in reason]
    lines += _notes(facts)
    lines += ["", _plain(facts["statement"])] if facts["camera_source"] != "estimated" else []
    return "\n".join(lines)


def unrecognised(error: Exception) -> str:
    """Return what stops the commands, in Markdown; one of the page's fields may be the cure."""
    return (
        f"**This does not work yet:** {_plain(error)}\n\n"
        "If one of the fields under *What the photographs do not say* mends it, fill it in and press **Go**."
    )


def _notes(facts: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: what the commands print as notes."""
    return [line for note in facts.get("notes") or () for line in ("", f"**Note:** {_plain(note)}")]


def _camera(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, (name, factor, unit) in KNOWN.items():
        value, source = facts["camera"].get(key), facts["sources"].get(key)
        if value is not None:
            lines.append(f"- {name}: {value * factor:.4g} {unit} ({_plain(source or 'given')})".replace("  ", " "))
    return lines


def _missing(key: str) -> str:
    name = key.removeprefix("camera.")
    return KNOWN[name][0].lower() if name in KNOWN else "focus distances"


def _metres(value: Any) -> str:
    number = float(value)
    return "infinity" if math.isinf(number) else f"{number:.4g} m"


def _plain(text: Any) -> str:
    """Text of a file, as text: no HTML, no Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~$&])", lambda match: f"&#{ord(match.group(1))};", str(text))


def summary(facts: Mapping[str, Any]) -> str:
    """What was found, in a few sentences."""
    if facts["metric"]:
        low, middle, high = (facts["depth_m"][key] for key in ("min", "median", "max"))
        lines = [f"The scene lies between {low:.3g} and {high:.3g} m; half of it is nearer than {middle:.3g} m."]
    else:
        lines = ["Depth has an order, but no metres: no focus distance is known."]
    lines.append(_plain(facts["statement"]))
    refinement = facts["refinement"]
    if refinement:
        stopped = " Stopped by you." if refinement["interrupted"] else ""
        lines.append(f"Refined for {refinement['seconds']:.0f} s.{stopped}")
    lines.append(f"{facts['confidence']['share_above_half']:.0%} of the pixels have a confidence above one half.")
    lines += [line for line in _notes(facts) if line]
    return "\n\n".join(lines)


def judged(facts: Mapping[str, Any]) -> str:
    """The left-out check, in Markdown."""
    if not facts["left_out"]:
        return "No photograph was kept aside."
    lines = ["| photograph | " + " | ".join(FIGURES.values()) + " |", "|---|" + "---|" * len(FIGURES)]
    for one in facts["left_out"]:
        lines.append(f"| {_plain(one['file'])} | " + " | ".join(f"{one[key]:.1f} dB" for key in FIGURES) + " |")
    mean = facts["left_out_mean"]
    gain = mean["psnr_db"] - mean["nearest_slice_psnr_db"]
    verdict = (
        f"The photograph that was kept aside was predicted {gain:.1f} dB better than by its neighbour: depth and lens "
        "explain the stack."
        if gain > 0
        else "The photograph that was kept aside was predicted no better than by its neighbour: be careful with depth."
    )
    return "\n".join([f"**{verdict}**", "", *lines, "", HOW_TO_READ])
