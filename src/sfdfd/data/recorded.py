"""Focal stacks as they were captured: a folder of photographs, and all that is known of their camera."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.utils.data import Dataset

from sfdfd.data.cache import file_identity
from sfdfd.data.images import list_images, read_photograph, to_float
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = [
    "STACK_KEYS",
    "Photographs",
    "RecordedStacks",
    "RerenderedStacks",
    "depth_range_m",
    "read_photographs",
    "read_stack",
    "stack_folders",
]

STACK_KEYS = ("camera", "focus_distances_m", "near_m", "far_m", "files", "crop", "focus_distance_unit_m")
TRUTH_KEYS = ("depth_m", "aif")
CAMERA_KEYS = ("focal_length_m", "f_number", "pixel_pitch_m")
PLAUSIBLE = {"focal_length_m": (1e-4, 10.0), "f_number": (0.1, 300.0), "pixel_pitch_m": (1e-7, 1e-3)}
NEAREST_M, FARTHEST_M = 1e-3, 100.0
"""A stack whose focus distances all lie below or beyond these is one in wrong units."""
PRACTICALLY_INFINITE_M = 1000.0


@dataclass(frozen=True)
class Photographs:
    """A stack as it was photographed.

    Attributes:
        name: of the stack.
        files: the slices, in the order of everything else.
        images: one (H,W,3) uint8, uint16 or float32 each, all of one size.
        camera: focal_length_m, f_number, pixel_pitch_m, each None where nothing says it.
        focus_distances_m: in metres, inf is possible; None where nothing says them.
        near_m, far_m: depth range where it is given, else None.
        sources: key -> where its value comes from, in words.
        missing: what nothing says, and how to give it.
        depth_m, aif: (H,W) float32 metres (0 unknown) and (H,W,3) like the images, where ``stack.yaml`` names the truth.
    """

    name: str
    files: tuple[Path, ...]
    images: tuple[np.ndarray, ...]
    camera: dict[str, float | None]
    focus_distances_m: tuple[float, ...] | None
    near_m: float | None = None
    far_m: float | None = None
    sources: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    depth_m: np.ndarray | None = None
    aif: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images[0].shape[:2]

    def known_camera(self) -> Camera | None:
        """The camera, if all of it is known."""
        return None if None in self.camera.values() else Camera(**self.camera)

    def as_tensor(self) -> Tensor:
        """(S,3,H,W) float32 in [0, 1]."""
        return torch.stack([to_float(image) for image in self.images])

    def with_images(self, images: Sequence[np.ndarray]) -> Photographs:
        """The same with other images (aligned, for example)."""
        return replace(self, images=tuple(images))


def _number(value: Any, where: str, *, infinite: bool = False) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or number <= 0 or (math.isinf(number) and not infinite):
        raise InputError(f"{where}: expected a positive number, got {value!r}")
    return number


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with camera and focus_distances_m, got {content!r}")
    return content


def _checked_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")


def _numbers_in(path: Path) -> list[Any]:
    try:
        words = path.read_text().replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from None
    return words


_UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_WITH_UNIT = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s?(mm|cm|m)(?![a-z])", re.IGNORECASE)
_DECIMAL = re.compile(r"(?<![\d.])(\d+\.\d+)(?![\d.])")
_INFINITE = re.compile(r"(?<![a-z])inf(inity)?(?![a-z])", re.IGNORECASE)


def distances_in_names(files: Sequence[Path]) -> tuple[list[float], bool] | None:
    """Focus distances in file names, and whether they carry their unit (metres then).

    A number counts if it has a unit (``0.5m``, ``120cm``, ``350mm``) or a decimal point (``image_1_0.35.jpg``), or the
    name says ``inf``; every file must have one, and they must not all be the same. Plain integers are taken for counters.
    """
    for pattern in (_WITH_UNIT, _DECIMAL):
        found = [[match.groups() for match in pattern.finditer(file.stem)] for file in files]
        counts = {len(numbers) for numbers in found if numbers}
        if len(counts) != 1:
            continue
        columns = []
        for column in range(counts.pop()):
            values = [
                (float(numbers[column][0]) * (_UNITS_M[numbers[column][1].lower()] if pattern is _WITH_UNIT else 1.0))
                if numbers
                else (math.inf if _INFINITE.search(file.stem) else math.nan)
                for numbers, file in zip(found, files, strict=True)
            ]
            if not any(math.isnan(v) or v <= 0 for v in values) and len(set(values)) > 1:
                columns.append(values)
        if columns:
            return columns[-1], pattern is _WITH_UNIT
    return None


def depth_range_m(
    focus_distances_m: Sequence[float], focal_length_m: float, near_m: float | None = None, far_m: float | None = None
) -> tuple[float, float]:
    """The depth range of a stack whose own is not given, from its focus distances in metres.

    0.6 of the nearest to 1.7 of the farthest; with a slice at infinity to 4 times the farthest finite one.
    """
    finite = [value for value in focus_distances_m if math.isfinite(value)]
    if not finite and (near_m is None or far_m is None):
        raise InputError("every focus distance is infinite; near_m and far_m are needed then (near_m=X far_m=Y)")
    if near_m is None:
        near_m = max(0.6 * min(finite), 1.01 * focal_length_m)
    if far_m is None:
        far_m = max((1.7 if len(finite) == len(focus_distances_m) else 4.0) * max(finite), 1.2 * near_m)
    if not near_m < far_m:
        raise InputError(f"expected near_m < far_m, got {near_m:.6g} and {far_m:.6g} (near_m, far_m)")
    return near_m, far_m


def _checked_distances(values: Sequence[float], where: str) -> tuple[float, ...]:
    """Practically infinite ones become inf; wrong units and equal distances are refused."""
    nearest = min(values)
    if nearest < NEAREST_M or (math.isfinite(nearest) and nearest > FARTHEST_M):
        raise InputError(
            f"{where}: the nearest focus distance is {nearest:.4g} m; are these metres? Say what one unit is with "
            "focus_distance_unit_m (millimetres: 0.001)"
        )
    values = tuple(math.inf if value > PRACTICALLY_INFINITE_M else value for value in values)
    if len(set(values)) == 1:
        raise InputError(f"{where}: every focus distance is {values[0]:.6g} m; depth needs two different ones")
    return values


def read_photographs(folder: str | Path, overrides: Mapping[str, Any] | None = None) -> Photographs:
    """Read the photographs of one stack and whatever is known about them.

    Camera and focus distances come from the command line (``overrides``), ``stack.yaml``, EXIF (focal length, f-number,
    35 mm equivalent or sensor resolution, subject distance), ``focus_distance.txt`` (one number a line), or the file
    names (:func:`distances_in_names`): for each the first that knows it. What none of them knows stays None.

    Args:
        folder: slices (PNG, JPEG, TIFF), perhaps with a ``stack.yaml`` with the keys camera (focal_length_m, f_number,
            pixel_pitch_m of the images as they lie in the folder), focus_distances_m (one per slice in the order of the
            sorted file names, or of ``files``; ``.inf`` is allowed), near_m, far_m, files, crop ([left, top, right,
            bottom] pixels cut off), focus_distance_unit_m (what distances without a unit of their own are multiplied by).
        overrides: the same keys; those that are not None take precedence.

    Raises:
        InputError: naming the file or key and what was expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"stack={folder}: no such folder")
    described = folder / "stack.yaml"
    content = _load_yaml(described) if described.exists() else {}
    _checked_keys(content, (*STACK_KEYS, "truth"), str(described))
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    _checked_keys(given, STACK_KEYS, "command line")

    def from_both(key: str) -> tuple[Any, str]:
        if key in given:
            return given[key], "command line"
        return content.get(key), str(described)

    names, where = from_both("files")
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

    # numbers before pixels: what is wrong with them is said at once
    sources: dict[str, str] = {}
    camera: dict[str, float | None] = dict.fromkeys(CAMERA_KEYS)
    for part, origin in ((content.get("camera"), str(described)), (given.get("camera"), "command line")):
        if part is None:
            continue
        if not isinstance(part, Mapping):
            raise InputError(f"{origin}: camera: expected {', '.join(CAMERA_KEYS)}, got {part!r}")
        _checked_keys(part, CAMERA_KEYS, f"{origin}: camera")
        for key, value in part.items():
            if value is not None:
                camera[key] = _number(value, f"{origin}: camera.{key}")
                low, high = PLAUSIBLE[key]
                if not low <= camera[key] <= high:
                    raise InputError(
                        f"{origin}: camera.{key}: {camera[key]:g} is not plausible (expected {low:g} to {high:g}; "
                        "lengths are in metres: 50 mm = 0.05, 2.4 um = 2.4e-6)"
                    )
                sources[key] = f"{origin}, instead of {described.name}" if key in sources else origin
    unit, where = from_both("focus_distance_unit_m")
    unit_m = 1.0 if unit is None else _number(unit, f"{where}: focus_distance_unit_m")
    focus: Sequence[float] | None = None
    listed, where = from_both("focus_distances_m")
    if listed is not None:
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise InputError(f"{where}: focus_distances_m: expected a list of metres, got {listed!r}")
        if len(listed) != len(files):
            raise InputError(
                f"{where}: expected {len(files)} focus distances, one per slice, got {len(listed)} (focus_distances_m)"
            )
        focus = [unit_m * _number(value, f"{where}: focus_distances_m", infinite=True) for value in listed]
        sources["focus_distances_m"] = where
    range_m: dict[str, float | None] = {}
    for key in ("near_m", "far_m"):
        value, where = from_both(key)
        range_m[key] = None if value is None else _number(value, f"{where}: {key}")
        if value is not None:
            sources[key] = where
    if None not in range_m.values() and range_m["near_m"] >= range_m["far_m"]:
        raise InputError(f"{where}: expected near_m < far_m, got {range_m['near_m']:g} and {range_m['far_m']:g}")

    photographs = [read_photograph(file) for file in files]
    images, facts = zip(*photographs, strict=True)
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"{file}: {image.shape[1]} x {image.shape[0]} pixels, but {files[0].name} has "
                f"{images[0].shape[1]} x {images[0].shape[0]}; all slices must have one size"
            )
    height, width = images[0].shape[:2]
    if min(height, width) < 16:
        raise InputError(f"{files[0]}: {width} x {height} pixels are too few; 16 x 16 are the least")
    for key in CAMERA_KEYS:
        known = [value for value in (getattr(fact, key) for fact in facts) if value is not None]
        if camera[key] is None and known and PLAUSIBLE[key][0] <= float(np.median(known)) <= PLAUSIBLE[key][1]:
            camera[key], sources[key] = float(np.median(known)), "EXIF"
    if focus is None:
        subject = [fact.subject_distance_m for fact in facts]
        if None not in subject and len(set(subject)) > 1:
            focus, sources["focus_distances_m"] = subject, "EXIF subject distance"
    text = folder / "focus_distance.txt"
    if focus is None and text.is_file():
        words = _numbers_in(text)
        if len(words) != len(files):
            raise InputError(f"{text}: expected {len(files)} focus distances, one per slice, got {len(words)}")
        focus = [unit_m * _number(word, str(text), infinite=True) for word in words]
        sources["focus_distances_m"] = str(text)
    if focus is None and (found := distances_in_names(files)) is not None:
        values, in_metres = found
        focus = [value if in_metres else unit_m * value for value in values]
        sources["focus_distances_m"] = "file names"
    if focus is not None:
        focus = _checked_distances(focus, sources["focus_distances_m"])
        if unit is not None:
            sources["focus_distances_m"] += f" (unit {unit_m:g} m)"
        if camera["focal_length_m"] is not None and min(focus) <= camera["focal_length_m"]:
            raise InputError(
                f"{sources['focus_distances_m']}: focus distance {min(focus):.6g} m lies inside the focal length "
                f"{camera['focal_length_m']:.6g} m (focus_distances_m; camera.focal_length_m from "
                f"{sources['focal_length_m']})"
            )

    crop, where = from_both("crop")
    crop = crop or [0, 0, 0, 0]
    if not (isinstance(crop, Sequence) and len(crop) == 4 and all(isinstance(c, int) and c >= 0 for c in crop)):
        raise InputError(f"{where}: crop: expected [left, top, right, bottom] pixels, got {crop!r}")
    left, top, right, bottom = crop
    if left + right > width - 16 or top + bottom > height - 16:
        raise InputError(f"{where}: crop {crop} leaves less than 16 pixels of {width} x {height}")
    missing = {
        f"camera.{key}": f"camera.{key}=NUMBER, or camera: {{{key}: NUMBER}} in stack.yaml"
        for key in CAMERA_KEYS
        if camera[key] is None
    }
    if focus is None:
        missing["focus_distances_m"] = (
            "'focus_distances_m=[0.5,1,2]', stack.yaml, focus_distance.txt (one number a line), or file names such as "
            "0.5m.jpg"
        )
    return Photographs(
        name=folder.resolve().name,
        files=tuple(files),
        images=tuple(np.ascontiguousarray(i[top : height - bottom, left : width - right]) for i in images),
        camera=camera,
        focus_distances_m=None if focus is None else tuple(focus),
        **range_m,
        **_truth(folder, content.get("truth"), described, (height, width), crop),
        sources=sources,
        missing=missing,
    )


def _truth(
    folder: Path, named: Any, described: Path, size: tuple[int, int], crop: Sequence[int]
) -> dict[str, np.ndarray]:
    """The files that ``stack.yaml`` names under truth: ``depth_m`` (.npy, metres, 0 unknown) and ``aif`` (an image)."""
    if named is None:
        return {}
    if not isinstance(named, Mapping):
        raise InputError(f"{described}: truth: expected depth_m and aif, got {named!r}")
    _checked_keys(named, TRUTH_KEYS, f"{described}: truth")
    left, top, right, bottom = crop
    found = {}
    for key, name in named.items():
        file = folder / str(name)
        if not file.is_file():
            raise InputError(f"{file}: named in truth of {described}, but not there")
        if key == "aif":
            values, _ = read_photograph(file)
        else:
            try:
                values = np.load(file, allow_pickle=False).astype(np.float32)
            except (ValueError, OSError, EOFError) as error:
                raise InputError(f"{file}: not a NumPy array ({error})") from None
        if values.shape[:2] != size or values.ndim != (3 if key == "aif" else 2):
            raise InputError(f"{file}: shape {values.shape}, but the slices have {size[0]} x {size[1]} pixels")
        found[key] = np.ascontiguousarray(values[top : size[0] - bottom, left : size[1] - right])
    return found


def read_stack(folder: str | Path, overrides: Mapping[str, Any] | None = None) -> FocalStack:
    """One recorded stack of aligned slices whose camera and focus distances are known: :func:`read_photographs`, strict.

    Returns:
        A batch of one.

    Raises:
        InputError: naming the file or key and what was expected.
    """
    photographs = read_photographs(folder, overrides)
    for key, remedy in photographs.missing.items():
        raise InputError(f"{Path(folder) / 'stack.yaml'}: {key} is missing; give it: {remedy}")
    camera = photographs.known_camera()
    near_m, far_m = depth_range_m(
        photographs.focus_distances_m, camera.focal_length_m, photographs.near_m, photographs.far_m
    )
    truth: dict[str, Tensor] = {}
    if photographs.depth_m is not None:
        depth_m = torch.from_numpy(photographs.depth_m)
        truth["valid"] = torch.isfinite(depth_m) & (depth_m >= near_m) & (depth_m <= far_m)
        truth["depth_m"] = torch.where(truth["valid"], depth_m, depth_m.new_tensor(near_m))
    if photographs.aif is not None:
        truth["aif"] = to_float(photographs.aif)
    return FocalStack.single(
        photographs.as_tensor(), photographs.focus_distances_m, camera, near_m, far_m, name=photographs.name, **truth
    )


def stack_folders(root: str | Path) -> list[Path]:
    """Every stack folder under ``root``, sorted, or ``root`` itself where it holds slices.

    Raises:
        InputError: no such folder, or nothing of the kind in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder (data.root)")
    if (root / "stack.yaml").exists() or list_images(root):
        return [root]
    folders = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))
    folders = [path for path in folders if (path / "stack.yaml").exists() or len(list_images(path)) > 1]
    if not folders:
        raise InputError(f"{root}: neither slices nor folders with a stack.yaml (data.root)")
    return folders


def _folders_named(root: Path, names: Sequence[str] | None) -> list[Path]:
    folders = stack_folders(root)
    if names is None:
        return folders
    there = {folder.name: folder for folder in folders}
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(f"{root}: the split names {len(missing)} stacks that are not there, first {missing[0]}")
    return [there[name] for name in names]


class RecordedStacks(Dataset):
    """Every stack folder under ``root`` (or ``root`` itself); see :func:`read_stack`.

    Args:
        root: a stack folder, or a folder of stack folders.
        overrides: keys of ``stack.yaml`` that hold for all of them.
        names: the folders to take, in this order; all by default.
        read: makes a stack of a folder and the overrides; :func:`read_stack` by default.
    """

    def __init__(
        self,
        root: str | Path,
        overrides: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
        read: Callable[[Path, Mapping[str, Any]], FocalStack] = read_stack,
    ) -> None:
        self.read, self.overrides = read, dict(overrides or {})
        self.folders = _folders_named(Path(root), names)

    def __len__(self) -> int:
        return len(self.folders)

    def identity(self, index: int) -> list[Any]:
        """What the sample is made from: every file of its folder."""
        return [file_identity(path) for path in sorted(self.folders[index].rglob("*")) if path.is_file()]

    def __getitem__(self, index: int) -> FocalStack:
        return self.read(self.folders[index], self.overrides)


class RerenderedStacks(Dataset):
    """The true AIF and depth of prepared stacks, rendered anew; their own slices are not used.

    Args:
        root: a stack folder, or a folder of stack folders, with ``truth`` in each ``stack.yaml``.
        synthesis: turns AIF and depth into a :class:`FocalStack`, with a camera of its own.
        names: the folders to take, in this order; all by default.
    """

    def __init__(self, root: str | Path, synthesis: StackSynthesis, names: Sequence[str] | None = None) -> None:
        self.synthesis, self.make_stack = synthesis, synthesis
        self.folders = _folders_named(Path(root), names)

    def __len__(self) -> int:
        return len(self.folders)

    def identity(self, index: int) -> list[Any]:
        """What the sample is made from, besides the synthesis (its seed is the index)."""
        return [index, *(file_identity(path) for path in sorted(self.folders[index].rglob("*")) if path.is_file())]

    def __getitem__(self, index: int) -> FocalStack:
        photographs = read_photographs(self.folders[index])
        if photographs.depth_m is None or photographs.aif is None:
            raise InputError(
                f"{self.folders[index] / 'stack.yaml'}: rendering anew needs truth: depth_m and aif; this stack has "
                f"{'no AIF' if photographs.aif is None else 'no depth'}"
            )
        depth_m = torch.from_numpy(photographs.depth_m)
        known = torch.isfinite(depth_m) & (depth_m > 0)
        filled = torch.where(known, depth_m, depth_m[known].median() if bool(known.any()) else 1.0)
        return self.make_stack(to_float(photographs.aif), filled, valid=known, name=photographs.name, seed=index)
