"""The description of a published data set, and the readers and writers that all converters share."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np
import yaml

from sfdfd.errors import InputError, checked_number, one_line
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report, readable

__all__ = [
    "SCRATCH", "UNKNOWN_CAMERA", "DataSource", "find_files", "read_numbers", "read_text", "require_files",
    "single_path", "to_uint8", "unique_names", "write_depth", "write_rgbd", "write_splits", "write_stack",
]  # fmt: skip

SCRATCH = ".unpacked"
"""In the folder that a converter fills: where archives are unpacked."""
SPLITS = "splits"
UNKNOWN_CAMERA = dict.fromkeys(("focal_length_m", "f_number", "pixel_pitch_m"))
TAKEN_NAME = "{}: two samples have this name; take one of them away from the source"
LARGEST_UNIT = 65535


@dataclass(frozen=True)
class DataSource:
    """A published data set.

    Attributes:
        name: as in ``data=NAME``.
        title, citation, licence, home, size: for messages and documentation.
        files: originals, downloaded or fetched by hand.
        uncertain: facts that could not be checked.
        layout: "rgbd" or "stacks".
        convert: called with the original files (or the one path of ``source=``), the folder to fill, and a progress report;
            returns the number of samples. Raises InputError if the files are not as published.
    """

    name: str
    title: str
    citation: str
    licence: str
    home: str
    size: str
    files: tuple[RemoteFile, ...]
    uncertain: str
    layout: str
    convert: Callable[[Sequence[Path], Path, Report], int]


# ---------------------------------------------------------------- writing


def write_depth(path: Path, depth_m: np.ndarray, unit_m: float = 0.001) -> None:
    """Write depth (H,W) in metres as 16-bit multiples of ``unit_m``; 0 if unknown, not positive, or beyond 65535 units."""
    path.parent.mkdir(exist_ok=True)
    known = np.isfinite(depth_m) & (depth_m > 0)
    units = np.round(np.where(known, depth_m, 0).astype(np.float64) / unit_m)
    stored = np.where(known & (units <= LARGEST_UNIT), np.maximum(units, 1), 0)
    iio.imwrite(path, stored.astype(np.uint16))


def write_rgbd(folder: Path, name: str, rgb: np.ndarray, depth_m: np.ndarray, unit_m: float = 0.001) -> None:
    """Write ``rgb/NAME.png`` from (H,W,3) uint8, and ``depth/NAME.png`` from (H,W) metres as :func:`write_depth` does.

    Raises:
        InputError: the name is taken, or image and depth differ in size.
    """
    _check_name(name)
    if rgb.shape != (*depth_m.shape, 3):
        raise InputError(
            f"{name}: an image of shape {rgb.shape}, but a depth of shape {depth_m.shape}; one size is needed"
        )
    image = folder / "rgb" / f"{name}.png"
    if image.exists():
        raise InputError(TAKEN_NAME.format(name))
    image.parent.mkdir(exist_ok=True)
    _write_image(image, rgb)
    write_depth(folder / "depth" / f"{name}.png", depth_m, unit_m)


def write_stack(
    folder: Path,
    name: str,
    slices: Sequence[np.ndarray],
    camera: Mapping[str, float | Sequence[float] | None],
    focus_distances_m: Iterable[float] | None,
    near_m: float | None,
    far_m: float | None,
    depth_m: np.ndarray | None = None,
    aif: np.ndarray | None = None,
) -> None:
    """Write ``NAME/slice_NN.png`` and ``NAME/stack.yaml``, and if given ``truth/depth_m.npy`` (float32 metres, 0
    unknown) and ``truth/aif.png``. None is for unknown values.

    Raises:
        InputError: the name is taken; slices, depth and AIF differ in size; or focus distances are not positive numbers, one
            per slice.
    """
    _check_name(name)
    _check_sizes(name, slices, depth_m, aif)
    focus = None if focus_distances_m is None else [float(value) for value in focus_distances_m]
    if focus is not None and len(focus) != len(slices):
        raise InputError(f"{name}: expected a focus distance per slice, got {len(focus)} for {len(slices)}")
    for value in focus or ():
        checked_number(value, f"{name}: focus distance", infinite=True)
    target = folder / name
    try:
        target.mkdir(parents=True)
    except FileExistsError:
        raise InputError(TAKEN_NAME.format(name)) from None
    files = [f"slice_{index:02d}.png" for index in range(len(slices))]
    for file, image in zip(files, slices, strict=True):
        _write_image(target / file, image)
    description: dict[str, Any] = {
        "camera": {key: _floats_or_none(value) for key, value in camera.items()},
        "focus_distances_m": focus,
        "near_m": _float_or_none(near_m),
        "far_m": _float_or_none(far_m),
        "files": files,
    }
    truth = _write_truth(target, depth_m, aif)
    if truth:
        description["truth"] = truth
    (target / "stack.yaml").write_text(yaml.safe_dump(description, sort_keys=False))


def _check_sizes(name: str, slices: Sequence[np.ndarray], depth_m: np.ndarray | None, aif: np.ndarray | None) -> None:
    shapes = {image.shape for image in slices} | (set() if aif is None else {aif.shape})
    if len(shapes) != 1:
        raise InputError(f"{name}: slices and AIF of one size are needed, got shapes {sorted(shapes)}")
    size = next(iter(shapes))[:2]
    if depth_m is not None and depth_m.shape != size:
        raise InputError(f"{name}: a depth of shape {depth_m.shape}, but slices of {size}; one size is needed")


def _floats_or_none(value: float | Sequence[float] | None) -> float | list[float] | None:
    return [float(number) for number in value] if isinstance(value, Sequence) else _float_or_none(value)


def _float_or_none(value: float | None) -> float | None:
    return None if value is None else float(value)


def _write_truth(target: Path, depth_m: np.ndarray | None, aif: np.ndarray | None) -> dict[str, str]:
    """Write true depth and AIF, and return their paths for ``stack.yaml``."""
    truth = {}
    if depth_m is not None or aif is not None:
        (target / "truth").mkdir()
    if depth_m is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            metres = depth_m.astype(np.float32)
        truth["depth_m"] = "truth/depth_m.npy"
        np.save(target / truth["depth_m"], np.where(np.isfinite(metres) & (metres > 0), metres, 0))
    if aif is not None:
        truth["aif"] = "truth/aif.png"
        _write_image(target / truth["aif"], aif)
    return truth


def write_splits(folder: Path, splits: Mapping[str, Iterable[str]]) -> None:
    """Write ``splits/train.txt`` etc., one name per line."""
    (folder / SPLITS).mkdir(exist_ok=True)
    for split, names in splits.items():
        (folder / SPLITS / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[^\s/\\.][^\s/\\]*", name) or name == SPLITS:
        raise InputError(
            f"{name!r} cannot name a sample (no blanks, no leading dot, not {SPLITS!r}); rename its folder"
        )


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write (H,W,3) or (H,W): uint8 with 8 bits, uint16 and floats in [0, 1] with 16 bits."""
    if image.dtype.kind == "f":
        image = np.round(np.clip(image, 0, 1) * LARGEST_UNIT).astype(np.uint16)
    if image.dtype == np.uint16 and image.ndim == 3:
        path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes())
    else:
        iio.imwrite(path, image)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Convert uint8, uint16 or floats in [0, 1] to uint8."""
    if image.dtype == np.uint8:
        return image
    scale = 257 if image.dtype == np.uint16 else 1 / 255
    return np.clip(np.round(image / scale), 0, 255).astype(np.uint8)


def unique_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """Name each path (given by its parts): parts joined by "_", blanks replaced by "_".

    If names clash, a path that is exactly the name keeps it, and the others get a hash of their path. Names therefore do
    not depend on the order of paths. "splits" is reserved.
    """
    names = [re.sub(r"\s+", "_", readable("_".join(parts))).lstrip(".") for parts in paths]
    counts = Counter(names)

    def unique_name(name: str, parts: Sequence[str]) -> str:
        if name and name != SPLITS and (counts[name] == 1 or tuple(parts) == (name,)):
            return name
        digest = hashlib.sha256("/".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
        return f"{name or 'stack'}_{digest[:8]}"

    return [unique_name(name, parts) for name, parts in zip(names, paths, strict=True)]


# ---------------------------------------------------------------- reading


def single_path(paths: Sequence[Path], expected: str) -> Path:
    """Return the only path; ``expected`` describes it in the message if there are several."""
    if len(paths) != 1:
        raise InputError(f"source: expected {expected}, got {len(paths)} files")
    return paths[0]


def find_files(folders: Sequence[Path], pattern: str) -> list[Path]:
    """Find files below the folders by a pattern of their names, sorted within each folder; hidden files and folders, and
    those that macOS adds to archives, are skipped.

    Raises:
        InputError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: not readable ({error.strerror})") from None

    found = []
    for top in folders:
        below_top = []
        for folder, subfolders, files in os.walk(top, onerror=refuse):
            subfolders[:] = [name for name in subfolders if not name.startswith(".") and name != "__MACOSX"]
            names = (name for name in files if fnmatch.fnmatchcase(name, pattern) and not name.startswith("."))
            below_top += [Path(folder, name) for name in names]
        found += sorted(below_top)
    return found


def require_files(folders: Sequence[Path], pattern: str, expected: str, source: Path) -> list[Path]:
    """Find files as :func:`find_files` does.

    Raises:
        InputError: there are none; ``expected`` describes them in the message.
    """
    files = find_files(folders, pattern)
    if not files:
        raise InputError(f"source={source}: expected {expected} ({pattern}), found none")
    return files


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises:
        InputError: it is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({one_line(error)})") from None


def read_numbers(path: Path) -> list[float]:
    """Read positive numbers (or inf) from a text file, separated by blanks or commas.

    Raises:
        InputError: it is missing, not text, or holds anything else.
    """
    return [checked_number(word, str(path), infinite=True) for word in read_text(path).replace(",", " ").split()]
