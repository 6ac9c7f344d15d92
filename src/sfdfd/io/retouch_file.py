"""Read and check ``retouch.json``: brush strokes on an all-in-focus image (AIF), as the report page saves them.

The file is one JSON object::

    {"format": "sfdfd-retouch", "version": 1, "size": [H, W], "unit": "m", "slices": ["a.jpg", "b.jpg"], "strokes": [
      {"operation": "slice", "slice": 1, "points": [[x, y], ...], "radius_px": 20, "feather_px": 4},
      {"operation": "plane", "points": [[x, y], ...], "radius_px": 30, "fill": true},
      {"operation": "distance", "depth": 1.25, "points": [[x, y], ...], "radius_px": 30, "strength": 0.5},
      {"operation": "background", "depth": 2.0, "aperture": 1.5}
    ]}

Points are pixels of an AIF of ``size``: x to the right and y down, from the outer corner of the first pixel. ``depth`` is in
``unit``: metres ("m"), or 0 (in focus in the first slice) to 1 (in the last) where it is "relative".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError, checked_choice, checked_int, checked_number, one_line, short_repr

__all__ = ["RETOUCH_FILE", "Retouch", "Stroke"]

RETOUCH_FILE = "retouch.json"
FORMAT, VERSION = "sfdfd-retouch", 1
UNITS = ("m", "relative")
LARGEST_PX = 1e6
MOST_POINTS = 100_000
"""Most points of all strokes together."""
ASPECT_TOLERANCE = 0.01
"""Largest relative difference of aspect ratio between two sizes of one picture; rounding to whole pixels changes it."""
SHAPE_KEYS = ("points", "radius_px", "feather_px", "fill")
KEYS = {
    "slice": (*SHAPE_KEYS, "slice"),
    "plane": (*SHAPE_KEYS, "strength"),
    "distance": (*SHAPE_KEYS, "strength", "depth"),
    "background": ("depth", "slice", "aperture"),
}
"""Operation -> its keys."""
REQUIRED = {
    "slice": ("points", "radius_px", "slice"),
    "plane": ("points", "radius_px"),
    "distance": ("points", "radius_px", "depth"),
    "background": ("depth",),
}


@dataclass(frozen=True)
class Stroke:
    """One operation.

    Attributes:
        operation: "slice" (the AIF takes its pixels from one slice), "plane" (the region is one plane), "distance" (the
            region is at one depth) or "background" (what lies beyond a depth is blurred in the picture).
        points: (x, y) pixels along the stroke; empty for "background".
        radius_px: half the width of the brush, > 0.
        feather_px: over which the effect fades outside of the radius, >= 0.
        fill: whether the points are an outline whose inside belongs to the region, too.
        slice: index of the slice; for "background" None renders the blur.
        depth: see the unit of :class:`Retouch`.
        strength: of a depth edit in (0, 1]: its share beside what was predicted, in inverse depth.
        aperture: aperture diameter of a rendered background, in units of the camera's own.
    """

    operation: str
    points: tuple[tuple[float, float], ...] = ()
    radius_px: float = 0.0
    feather_px: float = 0.0
    fill: bool = False
    slice: int | None = None
    depth: float | None = None
    strength: float = 1.0
    aperture: float = 1.0

    @property
    def edits_depth(self) -> bool:
        """Whether it changes depth."""
        return self.operation in ("plane", "distance")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        content: dict[str, Any] = {"operation": self.operation}
        for key in KEYS[self.operation]:
            value = getattr(self, key)
            if value is not None:
                content[key] = [list(point) for point in value] if key == "points" else value
        return content


@dataclass(frozen=True)
class Retouch:
    """The strokes of ``retouch.json``, in the order in which they are applied.

    Attributes:
        size: (H, W) of the AIF that the coordinates are pixels of.
        strokes: the operations.
        unit: of depths, "m" or "relative".
        slices: file names of the slices, so that a run on other slices finds them; empty where unknown.

    Examples:
        >>> stroke = {"operation": "slice", "slice": 2, "points": [[40, 30]], "radius_px": 12}
        >>> retouch = Retouch.parse({"size": [240, 320], "strokes": [stroke]})
        >>> retouch.scaled((480, 640)).strokes[0].points
        ((80.0, 60.0),)
    """

    size: tuple[int, int]
    strokes: tuple[Stroke, ...] = ()
    unit: str = "m"
    slices: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, source: Retouch | Mapping[str, Any] | str | Path) -> Retouch:
        """Return strokes from a file, from its content, or as they are.

        Raises:
            InputError: see :meth:`read` and :meth:`parse`.
        """
        if isinstance(source, Retouch):
            return source
        return cls.read(Path(source)) if isinstance(source, (str, Path)) else cls.parse(source)

    @classmethod
    def read(cls, path: Path) -> Retouch:
        """Read a file.

        Raises:
            InputError: it is missing or not JSON, or a key is wrong; the message names the key.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"retouch={path}: no such file; the page of a prediction saves one") from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"retouch={path}: not readable as JSON ({one_line(error)})") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Any, where: str = RETOUCH_FILE) -> Retouch:
        """Check the content of a file.

        Args:
            content: the JSON object.
            where: what messages call the file.

        Raises:
            InputError: a key is unknown, missing or wrong.
        """
        known = ("format", "version", "size", "unit", "slices", "strokes")
        _check_keys(content, where, known, ("size", "strokes"))
        if content.get("format", FORMAT) != FORMAT:
            raise InputError(f"{where}: format: expected {FORMAT}, got {short_repr(content['format'])}")
        version = checked_int(content.get("version", VERSION), f"{where}: version", 1)
        if version > VERSION:
            raise InputError(f"{where}: version: this sfdfd reads up to {VERSION}, got {version}; update sfdfd")
        size = _checked_pair(content["size"], f"{where}: size", "[height, width]")
        height, width = (checked_int(side, f"{where}: size", 1, int(LARGEST_PX)) for side in size)
        unit = checked_choice(content.get("unit", "m"), f"{where}: unit", UNITS)
        slices = _checked_list(content.get("slices", []), f"{where}: slices")
        if any(not isinstance(name, str) for name in slices):
            raise InputError(f"{where}: slices: expected file names, got {short_repr(slices)}")
        strokes = tuple(
            _parse_stroke(stroke, f"{where}: strokes[{index}]", unit, len(slices))
            for index, stroke in enumerate(_checked_list(content["strokes"], f"{where}: strokes"))
        )
        if sum(len(stroke.points) for stroke in strokes) > MOST_POINTS:
            raise InputError(f"{where}: strokes: expected {MOST_POINTS} points at most; draw with fewer")
        if sum(stroke.operation == "background" for stroke in strokes) > 1:
            raise InputError(f"{where}: strokes: expected one background at most; keep the last")
        return cls((height, width), strokes, unit, tuple(slices))

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that :meth:`parse` reads."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "size": list(self.size),
            "unit": self.unit,
            "slices": list(self.slices),
            "strokes": [stroke.as_dict() for stroke in self.strokes],
        }

    def scaled(self, size: tuple[int, int]) -> Retouch:
        """Return the strokes in pixels of the same picture at another size (H, W).

        Raises:
            InputError: the aspect ratio differs, so that it is another picture.
        """
        if size == self.size:
            return self
        y_scale, x_scale = size[0] / self.size[0], size[1] / self.size[1]
        if abs(y_scale / x_scale - 1) > max(ASPECT_TOLERANCE, 1.0 / min(*size, *self.size)):
            painted, found = "{1} x {0}".format(*self.size), "{1} x {0}".format(*size)
            raise InputError(f"retouch: size: painted on a picture of {painted} pixels, but this one has {found}")
        scale = (y_scale * x_scale) ** 0.5
        strokes = tuple(
            replace(
                stroke,
                points=tuple((x * x_scale, y * y_scale) for x, y in stroke.points),
                radius_px=stroke.radius_px * scale,
                feather_px=stroke.feather_px * scale,
            )
            for stroke in self.strokes
        )
        return replace(self, size=size, strokes=strokes)

    def for_slices(self, names: Sequence[str]) -> Retouch:
        """Return the strokes with the indices of these slices, found by their file names.

        Raises:
            InputError: a stroke needs a slice that is not among them.
        """
        strokes = []
        for index, stroke in enumerate(self.strokes):
            if stroke.slice is not None:
                number, name = stroke.slice, self.slices[stroke.slice] if self.slices else None
                if name is not None and not (number < len(names) and names[number] == name):
                    number = names.index(name) if name in names else -1
                if not 0 <= number < len(names):
                    wanted = f"slice {stroke.slice}" + ("" if name is None else f" ({name})")
                    raise InputError(
                        f"retouch: strokes[{index}].slice: {wanted} is not among the {len(names)} slices of this run; "
                        "use the same slices and holdout, or undo the stroke"
                    )
                stroke = replace(stroke, slice=number)
            strokes.append(stroke)
        return replace(self, strokes=tuple(strokes), slices=tuple(names))

    def check_unit(self, relative: bool) -> None:
        """Check the unit against that of a prediction; it matters only if a stroke has a depth.

        Raises:
            InputError: they differ.
        """
        unit = "relative" if relative else "m"
        if self.unit != unit and any(stroke.depth is not None for stroke in self.strokes):
            raise InputError(
                f"retouch: unit: the strokes have depths in {self.unit!r}, but this prediction is in {unit!r}; give the "
                "camera and focus distances of the painted run, or paint anew"
            )

    def counts(self) -> dict[str, int]:
        """Return the number of strokes by operation."""
        return dict(Counter(stroke.operation for stroke in self.strokes))


def _check_keys(content: Any, where: str, known: Sequence[str], required: Sequence[str]) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected an object, got {short_repr(content)}")
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {short_repr(unknown[0])}; known are {', '.join(known)}")
    missing = [key for key in required if content.get(key) is None]
    if missing:
        raise InputError(f"{where}: {missing[0]} is missing")


def _checked_list(value: Any, where: str, expected: str = "a list") -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: expected {expected}, got {short_repr(value)}")
    return value


def _checked_pair(value: Any, where: str, expected: str) -> list[Any]:
    if len(_checked_list(value, where, expected)) != 2:
        raise InputError(f"{where}: expected {expected}, got {short_repr(value)}")
    return value


def _parse_stroke(content: Any, where: str, unit: str, slices: int) -> Stroke:
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected an object, got {short_repr(content)}")
    operation = checked_choice(content.get("operation"), f"{where}.operation", tuple(KEYS))
    _check_keys(content, where, ("operation", *KEYS[operation]), REQUIRED[operation])
    checks: dict[str, Callable[[Any, str], Any]] = {
        "points": _checked_points,
        "radius_px": lambda value, key: checked_number(value, key, most=LARGEST_PX),
        "feather_px": lambda value, key: checked_number(value, key, least=0, most=LARGEST_PX),
        "fill": lambda value, key: checked_choice(value, key, (True, False)),
        "slice": lambda value, key: checked_int(value, key, 0, slices - 1 if slices else None),
        "depth": lambda value, key: (
            checked_number(value, key) if unit == "m" else checked_number(value, key, least=0, most=1)
        ),
        "strength": lambda value, key: checked_number(value, key, least=0, most=1),
        "aperture": lambda value, key: checked_number(value, key),
    }
    values = {
        key: checks[key](content[key], f"{where}.{key}")
        for key in KEYS[operation]
        if key in content and not (key == "slice" and content[key] is None)
    }
    return Stroke(operation, **values)


def _checked_points(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    if not _checked_list(value, where, "a list of [x, y]"):
        raise InputError(f"{where}: expected one point or more")

    def checked(value: Any, key: str) -> float:
        return checked_number(value, key, least=-LARGEST_PX, most=LARGEST_PX)

    points = []
    for index, point in enumerate(value):
        key = f"{where}[{index}]"
        x, y = _checked_pair(point, key, "[x, y]")
        points.append((checked(x, key), checked(y, key)))
    return tuple(points)
