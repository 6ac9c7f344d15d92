"""What ``stack.yaml`` and the command line say of a folder of photographs, checked before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sfdfd.data.images import list_images
from sfdfd.errors import InputError, checked_choice, checked_number
from sfdfd.optics.options import RenderOptions

__all__ = ["CAMERA_KEYS", "OPTICS_KEYS", "PLAUSIBLE", "STACK_KEYS", "Description", "checked_keys", "described_optics"]

STACK_KEYS = ("camera", "focus_distances_m", "near_m", "far_m", "files", "crop", "focus_distance_unit_m")
CAMERA_KEYS = ("focal_length_m", "f_number", "pixel_pitch_m")
OPTICS_KEYS = ("psf", "linear_light", "weighting", "sigma_scale")
"""What ``stack.yaml`` may say under optics of how its photographs are blurred."""
PLAUSIBLE = {"focal_length_m": (1e-4, 10.0), "f_number": (0.1, 300.0), "pixel_pitch_m": (1e-7, 1e-3)}


@dataclass(frozen=True)
class Description:
    """What ``stack.yaml`` and the command line say, checked.

    Attributes:
        folder, files: the slices, in order.
        camera: key -> (value, where it was said).
        focus: (distances in metres, where they were said), or None.
        unit_m: of distances without a unit; None where nobody says it.
        near_m, far_m: depth range.
        range_origins: where they were said.
        crop: ([left, top, right, bottom], where it was said).
        truth: as in ``stack.yaml``.
        optics: what ``stack.yaml`` says of :data:`OPTICS_KEYS`.
    """

    folder: Path
    files: list[Path]
    camera: dict[str, tuple[float, str]]
    focus: tuple[list[float], str] | None
    unit_m: float | None
    near_m: float | None
    far_m: float | None
    range_origins: dict[str, str]
    crop: tuple[Any, str]
    truth: Any
    optics: dict[str, Any]

    @property
    def yaml(self) -> Path:
        return self.folder / "stack.yaml"

    @property
    def factor(self) -> float:
        """Metres per unit of a distance that carries none."""
        return 1.0 if self.unit_m is None else self.unit_m

    @classmethod
    def read(cls, folder: Path, overrides: Mapping[str, Any] | None) -> Description:
        if not folder.is_dir():
            raise InputError(f"stack={folder}: no such folder")
        described = folder / "stack.yaml"
        content = _load_yaml(described) if described.exists() else {}
        checked_keys(content, (*STACK_KEYS, "truth", "optics"), str(described))
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        checked_keys(given, STACK_KEYS, "command line")

        def said(key: str) -> tuple[Any, str]:
            return (given[key], "command line") if key in given else (content.get(key), str(described))

        files = _files(folder, *said("files"))
        unit, where = said("focus_distance_unit_m")
        unit_m = None if unit is None else checked_number(unit, f"{where}: focus_distance_unit_m")
        bounds, origins = {}, {}
        for key in ("near_m", "far_m"):
            value, where = said(key)
            bounds[key] = None if value is None else checked_number(value, f"{where}: {key}")
            if value is not None:
                origins[key] = where
        if None not in bounds.values() and bounds["near_m"] >= bounds["far_m"]:
            raise InputError(f"{where}: expected near_m < far_m, got {bounds['near_m']:g} and {bounds['far_m']:g}")
        return cls(
            folder=folder,
            files=files,
            camera=_said_camera(content.get("camera"), given.get("camera"), described),
            focus=_said_distances(*said("focus_distances_m"), len(files), 1.0 if unit_m is None else unit_m),
            unit_m=unit_m,
            **bounds,
            range_origins=origins,
            crop=said("crop"),
            truth=content.get("truth"),
            optics=_said_optics(content.get("optics"), described),
        )

    def crop_of(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns that the crop leaves."""
        crop, where = self.crop
        crop = crop or [0, 0, 0, 0]
        if not (isinstance(crop, Sequence) and len(crop) == 4 and all(isinstance(c, int) and c >= 0 for c in crop)):
            raise InputError(f"{where}: crop: expected [left, top, right, bottom] pixels, got {crop!r}")
        left, top, right, bottom = crop
        if left + right > width - 16 or top + bottom > height - 16:
            raise InputError(f"{where}: crop {crop} leaves less than 16 pixels of {width} x {height}")
        return slice(top, height - bottom), slice(left, width - right)


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if content is None:  # nothing but comments: every key is optional
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with camera and focus_distances_m, got {content!r}")
    return content


def checked_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse a key that nothing reads."""
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")


def _files(folder: Path, names: Any, where: str) -> list[Path]:
    """The slices: those that are listed, or every image in the order of the names."""
    if names:
        if not isinstance(names, list):
            raise InputError(f"{where}: files: expected a list of file names, got {names!r}")
        files = [folder / str(name) for name in names]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: listed in files of {where}, but not there")
    else:
        files = list_images(folder)
    if len(files) < 2:
        raise InputError(f"{folder}: expected two or more slices (PNG, JPEG or TIFF), got {len(files)}")
    return files


def _said_camera(content: Any, given: Any, described: Path) -> dict[str, tuple[float, str]]:
    """Key -> (value, where it was said); the command line comes before ``stack.yaml``."""
    camera: dict[str, tuple[float, str]] = {}
    for part, origin in ((content, str(described)), (given, "command line")):
        if part is None:
            continue
        if not isinstance(part, Mapping):
            raise InputError(f"{origin}: camera: expected {', '.join(CAMERA_KEYS)}, got {part!r}")
        checked_keys(part, CAMERA_KEYS, f"{origin}: camera")
        for key, value in part.items():
            if value is None:
                continue
            number = checked_number(value, f"{origin}: camera.{key}")
            low, high = PLAUSIBLE[key]
            if not low <= number <= high:
                raise InputError(
                    f"{origin}: camera.{key}: {number:g} is not plausible (expected {low:g} to {high:g}; "
                    "lengths are in metres: 50 mm = 0.05, 2.4 um = 2.4e-6)"
                )
            camera[key] = number, f"{origin}, instead of {described.name}" if key in camera else origin
    return camera


def described_optics(folder: Path) -> dict[str, Any]:
    """What the folder's ``stack.yaml`` says of the optics, checked; nothing where there is none.

    Raises:
        InputError: a key or a value is wrong.
    """
    described = folder / "stack.yaml"
    return _said_optics(_load_yaml(described).get("optics"), described) if described.exists() else {}


def _said_optics(content: Any, described: Path) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise InputError(f"{described}: optics: expected {', '.join(OPTICS_KEYS)}, got {content!r}")
    checked_keys(content, OPTICS_KEYS, f"{described}: optics")
    given = {key: value for key, value in content.items() if value is not None}
    try:
        if not isinstance(given.get("psf", ""), str):
            raise InputError(f"psf (optics.psf): expected a name, got {given['psf']!r}")
        checked_choice(given.get("linear_light", False), "linear_light (optics.linear_light)", (True, False))
        RenderOptions(**given)
    except InputError as error:
        raise InputError(f"{described}: {error}") from None
    return given


def _said_distances(listed: Any, where: str, number: int, unit_m: float) -> tuple[list[float], str] | None:
    if listed is None:
        return None
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise InputError(f"{where}: focus_distances_m: expected a list of metres, got {listed!r}")
    if len(listed) != number:
        raise InputError(
            f"{where}: expected {number} focus distances, one per slice, got {len(listed)} (focus_distances_m)"
        )
    return [unit_m * checked_number(value, f"{where}: focus_distances_m", infinite=True) for value in listed], where
