"""What ``stack.yaml`` and the command line say of a folder of photographs, checked before any pixel is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sfdfd.errors import InputError, checked_choice, checked_number, checked_whole, short_repr
from sfdfd.io.duplicate_shots import has_pages, without_twins
from sfdfd.io.formats.tiff import TIFF_SUFFIXES, tiff_slices
from sfdfd.io.formats.video import VIDEO_SUFFIXES
from sfdfd.io.images import list_images
from sfdfd.io.text_files import UNITS_M, decoded
from sfdfd.optics.options import RenderOptions

__all__ = ["CAMERA_KEYS", "OPTICS_KEYS", "PLAUSIBLE", "STACK_KEYS", "Description", "checked_keys", "described_optics"]

STACK_KEYS = (
    "camera", "focus_distances_m", "focus_distance_unit_m", "focus_unit", "focus_distances_std", "near_m", "far_m", "files",
    "crop", "frames",
)  # fmt: skip
CAMERA_KEYS = ("focal_length_m", "f_number", "pixel_pitch_m")
OPTICS_KEYS = ("psf", "linear_light", "weighting", "sigma_scale")
"""What ``stack.yaml`` may say under optics of how its photographs are blurred."""
USUAL_FRAMES = 10
"""So many frames are picked from a video where nothing says how many."""
PLAUSIBLE = {"focal_length_m": (1e-4, 10.0), "f_number": (0.1, 300.0), "pixel_pitch_m": (1e-7, 1e-3)}


@dataclass(frozen=True)
class Description:
    """What ``stack.yaml`` and the command line say, checked.

    Attributes:
        folder, files: the slices, in order; of a video, itself once for each frame.
        video: the video that the slices are frames of, where it is one.
        frames: which of its frames, where they are named; else they are picked, as many as ``files``.
        apart: the video is one of several things in its folder, whose text files say nothing of it.
        camera: key -> (value, where it was said).
        focus: (distances in metres, where they were said), or None.
        unit_m: of distances without a unit; None where nobody says it.
        dioptres: distances without a unit are inverse metres.
        std: (standard deviation of the distances in their unit, one for all or one each, where it was said), or None.
        near_m, far_m: depth range.
        range_origins: where they were said.
        crop: ([left, top, right, bottom], where it was said).
        truth: as in ``stack.yaml``.
        optics: what ``stack.yaml`` says of :data:`OPTICS_KEYS`.
        principal_point_px: (x, y) where the optical axis meets the images as they lie in the folder, from the corner of the
            first pixel; None is their middle.
        pages: the TIFF that the slices are pages of, where it is one; ``files`` are names that its pages are given.
        notes: what was found out about the files, in words.
    """

    folder: Path
    files: list[Path]
    camera: dict[str, tuple[float, str]]
    focus: tuple[list[float], str] | None
    unit_m: float | None
    dioptres: bool
    std: tuple[list[float], str] | None
    near_m: float | None
    far_m: float | None
    range_origins: dict[str, str]
    crop: tuple[Any, str]
    truth: Any
    optics: dict[str, Any]
    video: Path | None = None
    frames: tuple[int, ...] | None = None
    apart: bool = False
    principal_point_px: tuple[float, float] | None = None
    pages: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def yaml(self) -> Path:
        return self.folder / "stack.yaml"

    def beside(self, name: str) -> Path | None:
        """A text file that belongs to the stack, there or not."""
        return None if self.apart else self.folder / name

    @property
    def unit_in_words(self) -> str:
        """What is to be said behind a source of distances, where their unit was given."""
        return " (dioptres)" if self.dioptres else "" if self.unit_m is None else f" (unit {self.unit_m:g} m)"

    def metres(self, value: Any, where: str) -> float:
        """A distance that carries no unit, in metres; inf is possible.

        Raises:
            InputError: it is no positive number (a dioptre may be 0: infinity).
        """
        return _in_metres(value, where, self.unit_m, self.dioptres)

    def std_dpt(
        self, focus_distances_m: Sequence[float], units: Sequence[str | None] | None = None
    ) -> tuple[float, ...] | None:
        """Return the standard deviations that were said, of inverse distances in dioptres.

        Args:
            focus_distances_m: in metres.
            units: the unit each distance was written in, a key of :data:`sfdfd.io.text_files.UNITS_M`; where None, the
                unit of distances without one.
        """
        if self.std is None:
            return None
        number = len(focus_distances_m)
        values = self.std[0] * number if len(self.std[0]) == 1 else self.std[0]
        usual_m = None if self.dioptres else 1.0 if self.unit_m is None else self.unit_m
        units_m = [usual_m if unit is None else UNITS_M[unit] for unit in units or [None] * number]
        return tuple(
            value if unit_m is None else unit_m * value / metres**2
            for value, unit_m, metres in zip(values, units_m, focus_distances_m, strict=True)
        )

    @classmethod
    def read(cls, folder: Path, overrides: Mapping[str, Any] | None) -> Description:
        folder, video, pages = _folder_and_file(folder)
        apart = (video is not None and _videos(folder) != [video]) or (
            pages is not None and list_images(folder) != [pages]
        )
        described = folder / "stack.yaml"
        content = _load_yaml(described) if described.exists() and not apart else {}
        checked_keys(content, (*STACK_KEYS, "truth", "optics", "principal_point_px"), str(described))
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        checked_keys(given, STACK_KEYS, "command line")

        def said(key: str) -> tuple[Any, str]:
            return (given[key], "command line") if key in given else (content.get(key), str(described))

        found = _FoundSlices.of(folder, video, pages, said)
        files = found.files
        unit, where = said("focus_distance_unit_m")
        unit_m = None if unit is None else checked_number(unit, f"{where}: focus_distance_unit_m")
        kind, where = said("focus_unit")
        dioptres = checked_choice(kind or "metre", f"{where}: focus_unit", ("metre", "dioptre")) == "dioptre"
        if dioptres and unit_m is not None:
            raise InputError(f"{where}: focus_unit=dioptre and focus_distance_unit_m={unit_m:g} contradict each other")
        bounds: dict[str, float | None] = {}
        origins: dict[str, str] = {}
        for key in ("near_m", "far_m"):
            value, where = said(key)
            bounds[key] = None if value is None else checked_number(value, f"{where}: {key}")
            if value is not None:
                origins[key] = where
        near_m, far_m = bounds["near_m"], bounds["far_m"]
        if near_m is not None and far_m is not None and near_m >= far_m:
            raise InputError(f"{where}: expected near_m < far_m, got {near_m:g} and {far_m:g}")
        return cls(
            folder=folder,
            files=files,
            camera=_said_camera(content.get("camera"), given.get("camera"), described),
            focus=_said_distances(*said("focus_distances_m"), len(files), unit_m, dioptres),
            unit_m=unit_m,
            dioptres=dioptres,
            std=_said_std(*said("focus_distances_std"), len(files)),
            **bounds,
            range_origins=origins,
            crop=said("crop"),
            truth=content.get("truth"),
            optics=_said_optics(content.get("optics"), described),
            video=found.video,
            frames=found.frames,
            apart=apart,
            principal_point_px=_said_point(content.get("principal_point_px"), described),
            pages=found.pages,
            notes=tuple(found.notes),
        )

    def crop_of(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns that the crop leaves."""
        crop, where = self.crop
        crop = crop or [0, 0, 0, 0]
        if not (isinstance(crop, Sequence) and len(crop) == 4 and all(isinstance(c, int) and c >= 0 for c in crop)):
            raise InputError(f"{where}: crop: expected [left, top, right, bottom] pixels, got {short_repr(crop)}")
        left, top, right, bottom = crop
        if left + right > width - 16 or top + bottom > height - 16:
            raise InputError(f"{where}: crop {crop} leaves less than 16 pixels of {width} x {height}")
        return slice(top, height - bottom), slice(left, width - right)


@dataclass(frozen=True)
class _FoundSlices:
    """Which files are the slices, by what is said and what lies in the folder.

    Attributes:
        files, video, pages, frames, notes: as of :class:`Description`.
    """

    files: list[Path]
    video: Path | None = None
    pages: Path | None = None
    frames: tuple[int, ...] | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, folder: Path, video: Path | None, pages: Path | None, said: Callable[[str], tuple[Any, str]]
    ) -> _FoundSlices:
        names, where = said("files")
        if video is None and pages is None and names is None:
            if not list_images(folder):
                video = next(iter(_videos(folder)), None)
                if len(_videos(folder)) > 1:
                    raise InputError(f"{folder}: {len(_videos(folder))} videos; name one of them: stack={video}")
            pages = _only_tiff_with_pages(folder)
        if video is not None:
            frames, number = _frames(*said("frames"), said("focus_distances_m")[0])
            return cls([video] * number, video=video, frames=frames)
        if pages is not None:
            return cls(_page_names(pages), pages=pages)._without_frames(*said("frames"), folder)
        files, notes = _files(folder, names, where)
        return cls(files, notes=notes)._without_frames(*said("frames"), folder)

    def _without_frames(self, frames: Any, where: str, folder: Path) -> _FoundSlices:
        if frames is not None:
            raise InputError(f"{where}: frames: of a video, and {folder} holds photographs")
        return self


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(decoded(path))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if content is None:  # nothing but comments: every key is optional
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with camera and focus_distances_m, got {short_repr(content)}")
    return content


def checked_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse a key that nothing reads."""
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {short_repr(unknown[0])}; known are {', '.join(known)}")


def _files(folder: Path, names: Any, where: str) -> tuple[list[Path], list[str]]:
    """The slices, those that are listed, or one file of every shot in the order of the names; and what was left out."""
    notes: list[str] = []
    if names:
        if not isinstance(names, list):
            raise InputError(f"{where}: files: expected a list of file names, got {short_repr(names)}")
        files = [folder / str(name) for name in names]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: listed in files of {where}, but not there")
    else:
        files, notes = without_twins(list_images(folder))
    if len(files) < 2:
        raise InputError(f"{folder}: expected two or more slices (JPEG, PNG, TIFF, HEIC or RAW), got {len(files)}")
    return files, notes


def _only_tiff_with_pages(folder: Path) -> Path | None:
    """The TIFF whose pages are the slices, where a folder holds nothing else.

    Raises:
        InputError: it is one of several pictures: each page is a slice, so they are several stacks.
    """
    files, _ = without_twins(list_images(folder))
    paged = [file for file in files if has_pages(file)]
    if paged and len(files) > 1:
        raise InputError(
            f"{folder}: {paged[0].name} holds {tiff_slices(paged[0])} pages, which are a stack of their own, and is one of "
            f"{len(files)} pictures; name it (stack={paged[0]}), or predict every stack (stacks={folder})"
        )
    return next(iter(paged), None)


def _page_names(pages: Path) -> list[Path]:
    """Names for the pages of a TIFF, which count from 1."""
    number = tiff_slices(pages)
    if number < 2:
        raise InputError(
            f"stack={pages}: one page is no stack; give the folder with the slices, or a TIFF of several pages"
        )
    width = max(2, len(str(number)))
    return [pages.with_name(f"{pages.stem}_page_{index + 1:0{width}d}{pages.suffix}") for index in range(number)]


def _said_camera(content: Any, given: Any, described: Path) -> dict[str, tuple[float, str]]:
    """Key -> (value, where it was said); the command line comes before ``stack.yaml``."""
    camera: dict[str, tuple[float, str]] = {}
    for part, origin in ((content, str(described)), (given, "command line")):
        if part is None:
            continue
        if not isinstance(part, Mapping):
            raise InputError(f"{origin}: camera: expected {', '.join(CAMERA_KEYS)}, got {short_repr(part)}")
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
        raise InputError(f"{described}: optics: expected {', '.join(OPTICS_KEYS)}, got {short_repr(content)}")
    checked_keys(content, OPTICS_KEYS, f"{described}: optics")
    given = {key: value for key, value in content.items() if value is not None}
    try:
        if not isinstance(given.get("psf", ""), str):
            raise InputError(f"psf (optics.psf): expected a name, got {short_repr(given['psf'])}")
        checked_choice(given.get("linear_light", False), "linear_light (optics.linear_light)", (True, False))
        RenderOptions(**given)
    except InputError as error:
        raise InputError(f"{described}: {error}") from None
    return given


def _in_metres(value: Any, where: str, unit_m: float | None, dioptres: bool) -> float:
    if dioptres:
        number = checked_number(value, f"{where} (dioptres)", least=0)
        return 1 / number if number else math.inf
    return (1.0 if unit_m is None else unit_m) * checked_number(value, where, infinite=True)


def _said_distances(
    listed: Any, where: str, number: int, unit_m: float | None, dioptres: bool
) -> tuple[list[float], str] | None:
    if listed is None:
        return None
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise InputError(f"{where}: focus_distances_m: expected a list of metres, got {short_repr(listed)}")
    if len(listed) != number:
        raise InputError(
            f"{where}: expected {number} focus distances, one per slice, got {len(listed)} (focus_distances_m)"
        )
    return [_in_metres(value, f"{where}: focus_distances_m", unit_m, dioptres) for value in listed], where


def _said_std(said: Any, where: str, number: int) -> tuple[list[float], str] | None:
    """One standard deviation for all distances, or one each."""
    if said is None:
        return None
    listed = list(said) if isinstance(said, Sequence) and not isinstance(said, str) else [said]
    if len(listed) not in (1, number):
        raise InputError(f"{where}: focus_distances_std: expected one number or {number}, got {len(listed)}")
    return [checked_number(value, f"{where}: focus_distances_std", least=0) for value in listed], where


def _folder_and_file(named: Path) -> tuple[Path, Path | None, Path | None]:
    """The folder that ``stack`` names; or the video or the TIFF that it names, behind its folder."""
    if named.is_dir():
        return named, None, None
    if not named.exists():
        raise InputError(f"stack={named}: no such folder")
    if named.suffix.lower() in TIFF_SUFFIXES:
        return named.parent, None, named
    if named.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(
            f"stack={named}: expected a folder with slices, a TIFF of several pages, or a video "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    return named.parent, named, None


def _videos(folder: Path) -> list[Path]:
    """What is in a folder of one focal sweep: its videos; nothing where there are photographs."""
    if list_images(folder):
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))


def _said_point(said: Any, described: Path) -> tuple[float, float] | None:
    """Read a point of the images, in pixels."""
    if said is None:
        return None
    if not isinstance(said, Sequence) or isinstance(said, str) or len(said) != 2:
        raise InputError(f"{described}: principal_point_px: expected [x, y] in pixels, got {short_repr(said)}")
    x, y = (checked_number(value, f"{described}: principal_point_px", least=0) for value in said)
    return x, y


def _frames(said: Any, where: str, distances: Any) -> tuple[tuple[int, ...] | None, int]:
    """Which frames of a video, or None, and how many: as many as there are distances, where nothing else says it."""
    if said is None:
        listed = isinstance(distances, Sequence) and not isinstance(distances, str)
        return None, max(2, len(distances)) if listed else USUAL_FRAMES
    if isinstance(said, Sequence) and not isinstance(said, str):
        frames = tuple(checked_whole(index, f"{where}: frames", 0) for index in said)
        if len(frames) < 2 or len(set(frames)) < len(frames):
            raise InputError(f"{where}: frames: expected two or more different frames, got {short_repr(list(said))}")
        return frames, len(frames)
    return None, checked_whole(said, f"{where}: frames (or a list of them)", 2)
