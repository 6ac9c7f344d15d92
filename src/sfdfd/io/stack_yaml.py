"""Read and check ``stack.yaml`` and the command line's settings of a stack of photographs, before any pixel is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sfdfd.errors import InputError, checked_choice, checked_int, checked_number, short_repr
from sfdfd.io.duplicate_shots import is_multipage_tiff, one_file_per_shot
from sfdfd.io.formats.tiff import TIFF_SUFFIXES, count_tiff_slices
from sfdfd.io.formats.video import VIDEO_SUFFIXES
from sfdfd.io.images import list_images
from sfdfd.io.text_files import UNITS_M, decoded
from sfdfd.optics.depth import SIDES
from sfdfd.optics.options import RenderOptions

__all__ = [
    "CAMERA_KEYS",
    "OPTICS_KEYS",
    "PLAUSIBLE_CAMERA",
    "STACK_KEYS",
    "StackDescription",
    "read_stack_optics",
    "refuse_unknown_keys",
]

STACK_KEYS = (
    "camera", "focus_distances_m", "focus_distance_unit_m", "focus_unit", "focus_distances_std", "near_m", "far_m", "side",
    "files", "crop", "frames",
)  # fmt: skip
CAMERA_KEYS = ("focal_length_m", "f_number", "pixel_pitch_m")
OPTICS_KEYS = ("psf", "linear_light", "weighting", "sigma_scale")
"""Keys under ``optics`` in ``stack.yaml``: how the photographs are blurred."""
DEFAULT_FRAMES = 10
"""Number of frames that are picked from a video by default."""
PLAUSIBLE_CAMERA = {"focal_length_m": (1e-4, 10.0), "f_number": (0.1, 300.0), "pixel_pitch_m": (1e-7, 1e-3)}


@dataclass(frozen=True)
class StackDescription:
    """The checked settings of a stack of photographs, from ``stack.yaml`` and the command line.

    An origin is the file or "command line", for messages.

    Attributes:
        folder, files: the slices, in order; for a video, the video itself once per frame.
        camera: key -> (value, origin); several f-numbers, one per slice, are a tuple.
        focus: (distances in metres, origin), or None.
        unit_m: unit of distances that have none, or None.
        dioptres: distances without a unit are inverse metres.
        std: (standard deviation of the distances in their unit, one for all or one each; origin), or None.
        near_m, far_m: depth range.
        range_origins: origins of ``near_m``, ``far_m`` and ``side``.
        side: "behind" or "before": where the scene lies if the slices differ in aperture alone; None if it is not set.
        crop: ([left, top, right, bottom] in pixels or None, origin).
        truth: as in ``stack.yaml``.
        optics: values of :data:`OPTICS_KEYS` in ``stack.yaml``.
        video: the video, if the slices are frames of one.
        frames: indices of the frames if they are listed; else ``len(files)`` frames are picked.
        shares_folder: whether other stacks lie in the folder of the video or TIFF; its text files do not count then.
        principal_point_px: (x, y) where the optical axis meets the stored images, from the outer corner of the first pixel;
            None for the centre.
        pages: the TIFF, if the slices are its pages; ``files`` are then names made up for them.
        notes: messages about the files.
    """

    folder: Path
    files: list[Path]
    camera: dict[str, tuple[float | tuple[float, ...], str]]
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
    shares_folder: bool = False
    principal_point_px: tuple[float, float] | None = None
    pages: Path | None = None
    notes: tuple[str, ...] = ()
    side: str | None = None

    @property
    def yaml(self) -> Path:
        return self.folder / "stack.yaml"

    def beside(self, name: str) -> Path | None:
        """Return the path of a text file that would describe the stack, or None; the file need not exist."""
        return None if self.shares_folder else self.folder / name

    @property
    def unit_in_words(self) -> str:
        """The suffix that names the unit in the origin of distances; empty if none is set."""
        return " (dioptres)" if self.dioptres else "" if self.unit_m is None else f" (unit {self.unit_m:g} m)"

    def metres(self, value: Any, where: str) -> float:
        """Convert a distance without a unit to metres; inf is possible.

        Raises:
            InputError: the value is no positive number (0 dioptres are allowed: infinity).
        """
        return _in_metres(value, where, self.unit_m, self.dioptres)

    def std_dpt(
        self, focus_distances_m: Sequence[float], units: Sequence[str | None] | None = None
    ) -> tuple[float, ...] | None:
        """Convert :attr:`std` to standard deviations of inverse distances, in dioptres.

        Args:
            focus_distances_m: in metres.
            units: the unit each distance was written in, a key of :data:`sfdfd.io.text_files.UNITS_M`; None for the unit of
                distances without one.
        """
        if self.std is None:
            return None
        number = len(focus_distances_m)
        values = self.std[0] * number if len(self.std[0]) == 1 else self.std[0]
        default_m = None if self.dioptres else 1.0 if self.unit_m is None else self.unit_m
        units_m = [default_m if unit is None else UNITS_M[unit] for unit in units or [None] * number]
        return tuple(
            value if unit_m is None else unit_m * value / metres**2
            for value, unit_m, metres in zip(values, units_m, focus_distances_m, strict=True)
        )

    @classmethod
    def read(cls, folder: Path, overrides: Mapping[str, Any] | None) -> StackDescription:
        """Read the settings of a stack.

        Args:
            folder: a folder of slices, a video, or a TIFF of several pages.
            overrides: values of :data:`STACK_KEYS` from the command line.

        Raises:
            InputError: a key or a value is wrong, or a slice is missing.
        """
        folder, video, pages = _folder_and_file(folder)
        shares_folder = (video is not None and _videos(folder) != [video]) or (
            pages is not None and list_images(folder) != [pages]
        )
        settings = _Settings.load(folder / "stack.yaml", overrides, skip_file=shares_folder)
        slices = _SliceFiles.find(folder, video, pages, settings)
        number = len(slices.files)
        unit_m, dioptres = settings.unit()
        near_m, far_m, range_origins = settings.depth_range()
        side, side_origin = settings.side()
        range_origins |= {} if side is None else {"side": side_origin}
        return cls(
            folder=folder,
            files=slices.files,
            camera=settings.camera(number),
            focus=_distances(*settings.get("focus_distances_m"), number, unit_m, dioptres),
            unit_m=unit_m,
            dioptres=dioptres,
            std=_distances_std(*settings.get("focus_distances_std"), number),
            near_m=near_m,
            far_m=far_m,
            range_origins=range_origins,
            crop=settings.get("crop"),
            truth=settings.content.get("truth"),
            optics=_optics(settings.content.get("optics"), settings.path),
            video=slices.video,
            frames=slices.frames,
            shares_folder=shares_folder,
            principal_point_px=_principal_point(settings.content.get("principal_point_px"), settings.path),
            pages=slices.pages,
            notes=slices.notes,
            side=side,
        )

    def crop_of(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns that the crop keeps."""
        crop, where = self.crop
        crop = crop or [0, 0, 0, 0]
        if not (isinstance(crop, Sequence) and len(crop) == 4 and all(isinstance(c, int) and c >= 0 for c in crop)):
            raise InputError(f"{where}: crop: expected [left, top, right, bottom] pixels, got {short_repr(crop)}")
        left, top, right, bottom = crop
        if left + right > width - 16 or top + bottom > height - 16:
            raise InputError(f"{where}: crop {crop} leaves less than 16 pixels of {width} x {height}")
        return slice(top, height - bottom), slice(left, width - right)


@dataclass(frozen=True)
class _Settings:
    """The content of ``stack.yaml`` at ``path``, and the command line's values, which override it."""

    path: Path
    content: Mapping[str, Any]
    overrides: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None, skip_file: bool) -> _Settings:
        content = _load_yaml(path) if path.exists() and not skip_file else {}
        refuse_unknown_keys(content, (*STACK_KEYS, "truth", "optics", "principal_point_px"), str(path))
        overrides = {key: value for key, value in (overrides or {}).items() if value is not None}
        refuse_unknown_keys(overrides, STACK_KEYS, "command line")
        return cls(path, content, overrides)

    def get(self, key: str) -> tuple[Any, str]:
        """Return a value (None if it is not set) and its origin."""
        if key in self.overrides:
            return self.overrides[key], "command line"
        return self.content.get(key), str(self.path)

    def unit(self) -> tuple[float | None, bool]:
        """Return the unit of distances in metres, if it is set, and whether distances are dioptres."""
        value, where = self.get("focus_distance_unit_m")
        unit_m = None if value is None else checked_number(value, f"{where}: focus_distance_unit_m")
        kind, where = self.get("focus_unit")
        dioptres = checked_choice(kind or "metre", f"{where}: focus_unit", ("metre", "dioptre")) == "dioptre"
        if dioptres and unit_m is not None:
            raise InputError(f"{where}: focus_unit=dioptre and focus_distance_unit_m={unit_m:g} contradict each other")
        return unit_m, dioptres

    def depth_range(self) -> tuple[float | None, float | None, dict[str, str]]:
        """Return near and far in metres, each None if it is not set, and their origins by key."""
        bounds: dict[str, float | None] = {}
        origins: dict[str, str] = {}
        for key in ("near_m", "far_m"):
            value, where = self.get(key)
            bounds[key] = None if value is None else checked_number(value, f"{where}: {key}")
            if value is not None:
                origins[key] = where
        near_m, far_m = bounds["near_m"], bounds["far_m"]
        if near_m is not None and far_m is not None and near_m >= far_m:
            raise InputError(f"{origins['far_m']}: expected near_m < far_m, got {near_m:g} and {far_m:g}")
        return near_m, far_m, origins

    def side(self) -> tuple[str | None, str]:
        """Return the side of the focus distance, None if it is not set, and its origin."""
        value, where = self.get("side")
        return value if value is None else checked_choice(value, f"{where}: side", SIDES), where

    def camera(self, slices: int) -> dict[str, tuple[float | tuple[float, ...], str]]:
        """Return key -> (value, origin); several f-numbers are one for each of ``slices`` slices."""
        camera: dict[str, tuple[float | tuple[float, ...], str]] = {}
        for source, origin in ((self.content, str(self.path)), (self.overrides, "command line")):
            values = source.get("camera")
            if values is None:
                continue
            if not isinstance(values, Mapping):
                raise InputError(f"{origin}: camera: expected {', '.join(CAMERA_KEYS)}, got {short_repr(values)}")
            refuse_unknown_keys(values, CAMERA_KEYS, f"{origin}: camera")
            for key, value in values.items():
                if value is not None:
                    replaces = f"{origin}, instead of {self.path.name}" if key in camera else origin
                    is_bracket = key == "f_number" and _is_list(value)
                    known = _f_numbers(value, origin) if is_bracket else _camera_number(key, value, origin)
                    camera[key] = known, replaces
        return _with_checked_count(camera, slices)


def _with_checked_count(
    camera: dict[str, tuple[float | tuple[float, ...], str]], slices: int
) -> dict[str, tuple[float | tuple[float, ...], str]]:
    """Return the camera; equal f-numbers become one number.

    Raises:
        InputError: there are several f-numbers, and not as many as slices.
    """
    numbers, origin = camera.get("f_number", (0.0, ""))
    if not isinstance(numbers, tuple):
        return camera
    if len(numbers) != slices:
        where = origin.split(",")[0]
        raise InputError(
            f"{where}: camera.f_number: expected one number, or {slices}, one per slice, got {len(numbers)}"
        )
    return {**camera, "f_number": (numbers[0] if len(set(numbers)) == 1 else numbers, origin)}


def _f_numbers(values: Sequence[Any], origin: str) -> tuple[float, ...]:
    """Return one f-number per slice."""
    return tuple(_camera_number("f_number", value, origin) for value in values)


def _camera_number(key: str, value: Any, origin: str) -> float:
    number = checked_number(value, f"{origin}: camera.{key}")
    low, high = PLAUSIBLE_CAMERA[key]
    if not low <= number <= high:
        raise InputError(
            f"{origin}: camera.{key}: {number:g} is not plausible (expected {low:g} to {high:g}; "
            "lengths are in metres: 50 mm = 0.05, 2.4 um = 2.4e-6)"
        )
    return number


@dataclass(frozen=True)
class _SliceFiles:
    """The slices of a stack; attributes as in :class:`StackDescription`."""

    files: list[Path]
    video: Path | None = None
    pages: Path | None = None
    frames: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def find(cls, folder: Path, video: Path | None, pages: Path | None, settings: _Settings) -> _SliceFiles:
        """Find the slices by the settings and by the folder's content."""
        names, where = settings.get("files")
        if video is None and pages is None and names is None:
            if not list_images(folder):
                video = _only_video(folder)
            pages = _only_tiff_with_pages(folder)
        frames, frames_where = settings.get("frames")
        if video is not None:
            indices, number = _frames(frames, frames_where, settings.get("focus_distances_m")[0])
            return cls([video] * number, video=video, frames=indices)
        if pages is not None:
            slices = cls(_page_names(pages), pages=pages)
        else:
            files, notes = _files(folder, names, where)
            slices = cls(files, notes=tuple(notes))
        if frames is not None:
            raise InputError(f"{frames_where}: frames: of a video, and {folder} holds photographs")
        return slices


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(decoded(path))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if content is None:  # only comments: every key is optional
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with camera and focus_distances_m, got {short_repr(content)}")
    return content


def refuse_unknown_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise InputError for a key that is not known."""
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {short_repr(unknown[0])}; known are {', '.join(known)}")


def _files(folder: Path, names: Any, where: str) -> tuple[list[Path], list[str]]:
    """Return the listed files, or else one file of every shot sorted by name; and notes on what was left out."""
    notes: list[str] = []
    if names:
        if not isinstance(names, list):
            raise InputError(f"{where}: files: expected a list of file names, got {short_repr(names)}")
        files = [folder / str(name) for name in names]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: listed in files of {where}, but not there")
    else:
        files, notes = one_file_per_shot(list_images(folder))
    if len(files) < 2:
        raise InputError(f"{folder}: expected two or more slices (JPEG, PNG, TIFF, HEIC or RAW), got {len(files)}")
    return files, notes


def _only_video(folder: Path) -> Path | None:
    videos = _videos(folder)
    if len(videos) > 1:
        raise InputError(f"{folder}: {len(videos)} videos; name one of them: stack={videos[0]}")
    return videos[0] if videos else None


def _only_tiff_with_pages(folder: Path) -> Path | None:
    """Return the TIFF whose pages are the slices, if it is the folder's only image.

    Raises:
        InputError: the folder has other images too: each TIFF of several pages is a stack of its own.
    """
    files, _ = one_file_per_shot(list_images(folder))
    paged = [file for file in files if is_multipage_tiff(file)]
    if paged and len(files) > 1:
        raise InputError(
            f"{folder}: {paged[0].name} holds {count_tiff_slices(paged[0])} pages, which are a stack of their own, and is "
            f"one of {len(files)} pictures; name it (stack={paged[0]}), or predict every stack (stacks={folder})"
        )
    return paged[0] if paged else None


def _page_names(pages: Path) -> list[Path]:
    """Return names for the pages of a TIFF, counted from 1."""
    number = count_tiff_slices(pages)
    if number < 2:
        raise InputError(
            f"stack={pages}: one page is no stack; give the folder with the slices, or a TIFF of several pages"
        )
    width = max(2, len(str(number)))
    return [pages.with_name(f"{pages.stem}_page_{index + 1:0{width}d}{pages.suffix}") for index in range(number)]


def read_stack_optics(folder: Path) -> dict[str, Any]:
    """Return the checked ``optics`` of the folder's ``stack.yaml``; empty if there are none.

    Raises:
        InputError: a key or a value is wrong.
    """
    path = folder / "stack.yaml"
    return _optics(_load_yaml(path).get("optics"), path) if path.exists() else {}


def _optics(content: Any, path: Path) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: optics: expected {', '.join(OPTICS_KEYS)}, got {short_repr(content)}")
    refuse_unknown_keys(content, OPTICS_KEYS, f"{path}: optics")
    options = {key: value for key, value in content.items() if value is not None}
    try:
        if not isinstance(options.get("psf", ""), str):
            raise InputError(f"psf (optics.psf): expected a name, got {short_repr(options['psf'])}")
        checked_choice(options.get("linear_light", False), "linear_light (optics.linear_light)", (True, False))
        RenderOptions(**options)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return options


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _in_metres(value: Any, where: str, unit_m: float | None, dioptres: bool) -> float:
    if dioptres:
        number = checked_number(value, f"{where} (dioptres)", least=0)
        return 1 / number if number else math.inf
    return (1.0 if unit_m is None else unit_m) * checked_number(value, where, infinite=True)


def _distances(
    values: Any, where: str, number: int, unit_m: float | None, dioptres: bool
) -> tuple[list[float], str] | None:
    if values is None:
        return None
    if not _is_list(values):
        raise InputError(f"{where}: focus_distances_m: expected a list of metres, got {short_repr(values)}")
    if len(values) != number:
        raise InputError(
            f"{where}: expected {number} focus distances, one per slice, got {len(values)} (focus_distances_m)"
        )
    return [_in_metres(value, f"{where}: focus_distances_m", unit_m, dioptres) for value in values], where


def _distances_std(values: Any, where: str, number: int) -> tuple[list[float], str] | None:
    """Read one standard deviation for all distances, or one each."""
    if values is None:
        return None
    values = list(values) if _is_list(values) else [values]
    if len(values) not in (1, number):
        raise InputError(f"{where}: focus_distances_std: expected one number or {number}, got {len(values)}")
    return [checked_number(value, f"{where}: focus_distances_std", least=0) for value in values], where


def _folder_and_file(path: Path) -> tuple[Path, Path | None, Path | None]:
    """Return the stack's folder, and the video or the TIFF of pages if ``path`` is one."""
    if path.is_dir():
        return path, None, None
    if not path.exists():
        raise InputError(f"stack={path}: no such folder")
    if path.suffix.lower() in TIFF_SUFFIXES:
        return path.parent, None, path
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(
            f"stack={path}: expected a folder with slices, a TIFF of several pages, or a video "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    return path.parent, path, None


def _videos(folder: Path) -> list[Path]:
    """List the videos of a folder; none if it holds photographs."""
    if list_images(folder):
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))


def _principal_point(value: Any, path: Path) -> tuple[float, float] | None:
    if value is None:
        return None
    if not _is_list(value) or len(value) != 2:
        raise InputError(f"{path}: principal_point_px: expected [x, y] in pixels, got {short_repr(value)}")
    x, y = (checked_number(number, f"{path}: principal_point_px", least=0) for number in value)
    return x, y


def _frames(value: Any, where: str, distances: Any) -> tuple[tuple[int, ...] | None, int]:
    """Return the listed frames of a video, or None, and their number: by default one for each focus distance."""
    if value is None:
        return None, max(2, len(distances)) if _is_list(distances) else DEFAULT_FRAMES
    if _is_list(value):
        frames = tuple(checked_int(index, f"{where}: frames", 0) for index in value)
        if len(frames) < 2 or len(set(frames)) < len(frames):
            raise InputError(f"{where}: frames: expected two or more different frames, got {short_repr(list(value))}")
        return frames, len(frames)
    return None, checked_int(value, f"{where}: frames (or a list of them)", 2)
