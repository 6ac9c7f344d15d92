"""What a data set's module provides, and the readers and writers they share."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np
import yaml

from sfdfd.errors import InputError, checked_number, one_line
from sfdfd.io.archives import is_archive, opened
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report, readable

__all__ = [
    "SCRATCH",
    "DataSource",
    "dataset",
    "eight_bit",
    "files_under",
    "found_under",
    "frame",
    "one_line",
    "only",
    "opened_hdf5",
    "read_numbers",
    "read_text",
    "unique_names",
    "write_depth",
    "write_rgbd",
    "write_splits",
    "write_stack",
]

SCRATCH = ".unpacked"
"""Of the folder that a converter fills: where archives are unpacked meanwhile."""
SPLITS = "splits"
LARGEST_UNIT = 65535


@dataclass(frozen=True)
class DataSource:
    """A published data set.

    Attributes:
        name: as in ``data=NAME``.
        title, citation, licence, home, size: for people.
        files: what is downloaded, or fetched by hand.
        uncertain: what we could not check (nobody can download these sets where this was written).
        layout: "rgbd" or "stacks".
        convert: called with (the files' paths by name, or the one path given by ``source=``; the folder to fill; a report);
            returns the number of samples. Raises InputError where the layout is not the published one.
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
    """(H,W) metres as 16-bit multiples of ``unit_m``; 0 for what is unknown, not positive, or beyond 65535 units."""
    path.parent.mkdir(exist_ok=True)
    known = np.isfinite(depth_m) & (depth_m > 0)
    units = np.round(np.where(known, depth_m, 0).astype(np.float64) / unit_m)
    stored = np.where(known & (units <= LARGEST_UNIT), np.maximum(units, 1), 0)
    iio.imwrite(path, stored.astype(np.uint16))


def write_rgbd(folder: Path, name: str, rgb: np.ndarray, depth_m: np.ndarray, unit_m: float = 0.001) -> None:
    """``rgb/NAME.png`` and ``depth/NAME.png``: (H,W,3) uint8 and (H,W) metres, as :func:`write_depth` stores them.

    Raises:
        InputError: there is one of that name, or its image and depth differ in size.
    """
    _check_name(name)
    if rgb.shape != (*depth_m.shape, 3):
        raise InputError(
            f"{name}: an image of shape {rgb.shape}, but a depth of shape {depth_m.shape}; one size is needed"
        )
    image = folder / "rgb" / f"{name}.png"
    if image.exists():
        raise InputError(f"{name}: two samples have this name; take one of them away from the source")
    image.parent.mkdir(exist_ok=True)
    _write_picture(image, rgb)
    write_depth(folder / "depth" / f"{name}.png", depth_m, unit_m)


def write_stack(
    folder: Path,
    name: str,
    slices: Sequence[np.ndarray],
    camera: Mapping[str, float | None],
    focus_distances_m: Iterable[float] | None,
    near_m: float | None,
    far_m: float | None,
    depth_m: np.ndarray | None = None,
    aif: np.ndarray | None = None,
) -> None:
    """``NAME/slice_NN.png`` and ``NAME/stack.yaml``, with ``truth/depth_m.npy`` (float32 metres, 0 unknown) and
    ``truth/aif.png`` where they are given; None is what nobody knows.

    Raises:
        InputError: there is one of that name, slices, depth and AIF differ in size, or distances are no positive numbers or
            not one per slice.
    """
    _check_name(name)
    shapes = {image.shape for image in slices} | (set() if aif is None else {aif.shape})
    if len(shapes) != 1:
        raise InputError(f"{name}: slices and AIF of one size are needed, got shapes {sorted(shapes)}")
    size = next(iter(shapes))[:2]
    if depth_m is not None and depth_m.shape != size:
        raise InputError(f"{name}: a depth of shape {depth_m.shape}, but slices of {size}; one size is needed")
    focus = None if focus_distances_m is None else [float(value) for value in focus_distances_m]
    if focus is not None and len(focus) != len(slices):
        raise InputError(f"{name}: expected a focus distance per slice, got {len(focus)} for {len(slices)}")
    for value in focus or ():
        checked_number(value, f"{name}: focus distance", infinite=True)
    target = folder / name
    try:
        target.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"{name}: two samples have this name; take one of them away from the source") from None
    described: dict[str, Any] = {
        "camera": {key: None if value is None else float(value) for key, value in camera.items()},
        "focus_distances_m": focus,
        "near_m": None if near_m is None else float(near_m),
        "far_m": None if far_m is None else float(far_m),
        "files": [],
    }
    for index, image in enumerate(slices):
        file = f"slice_{index:02d}.png"
        _write_picture(target / file, image)
        described["files"].append(file)
    if depth_m is not None or aif is not None:
        (target / "truth").mkdir()
        described["truth"] = {}
    if depth_m is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            metres = depth_m.astype(np.float32)
        np.save(target / "truth" / "depth_m.npy", np.where(np.isfinite(metres) & (metres > 0), metres, 0))
        described["truth"]["depth_m"] = "truth/depth_m.npy"
    if aif is not None:
        _write_picture(target / "truth" / "aif.png", aif)
        described["truth"]["aif"] = "truth/aif.png"
    (target / "stack.yaml").write_text(yaml.safe_dump(described, sort_keys=False))


def write_splits(folder: Path, splits: Mapping[str, Iterable[str]]) -> None:
    """``splits/train.txt`` and so on, one name a line."""
    (folder / SPLITS).mkdir(exist_ok=True)
    for split, names in splits.items():
        (folder / SPLITS / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[^\s/\\.][^\s/\\]*", name) or name == SPLITS:
        raise InputError(
            f"{name!r} cannot name a sample (no blanks, no dot in front, not {SPLITS!r}); rename its folder"
        )


def _write_picture(path: Path, image: np.ndarray) -> None:
    """(H,W,3) or (H,W): bytes as they are, uint16 and floats in [0, 1] with 16 bits."""
    if image.dtype.kind == "f":
        image = np.round(np.clip(image, 0, 1) * LARGEST_UNIT).astype(np.uint16)
    if image.dtype == np.uint16 and image.ndim == 3:
        path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes())
    else:
        iio.imwrite(path, image)


def eight_bit(image: np.ndarray) -> np.ndarray:
    """uint8, uint16 or floats in [0, 1] -> uint8."""
    if image.dtype == np.uint8:
        return image
    scale = 257 if image.dtype == np.uint16 else 1 / 255
    return np.clip(np.round(image / scale), 0, 255).astype(np.uint8)


def unique_names(places: Sequence[Sequence[str]]) -> list[str]:
    """A name for each place (the parts of a path): its parts joined by "_", blanks replaced by it.

    Of those that would be the same, a place that is called so keeps it, and the others end in a hash of the place: what a
    place is called does not depend on their order. "splits" is taken.
    """
    names = [re.sub(r"\s+", "_", readable("_".join(place))).lstrip(".") for place in places]
    often = Counter(names)

    def name_of(name: str, place: Sequence[str]) -> str:
        if name and name != SPLITS and (often[name] == 1 or tuple(place) == (name,)):
            return name
        digest = hashlib.sha256("/".join(place).encode("utf-8", "surrogateescape")).hexdigest()
        return f"{name or 'stack'}_{digest[:8]}"

    return [name_of(name, place) for name, place in zip(names, places, strict=True)]


# ---------------------------------------------------------------- reading


def only(paths: Sequence[Path], what: str) -> Path:
    """The one path that a converter works on."""
    if len(paths) != 1:
        raise InputError(f"source: expected {what}, got {len(paths)} files")
    return paths[0]


def files_under(folders: Sequence[Path], pattern: str) -> list[Path]:
    """Files anywhere in the folders by a pattern of their names, sorted within each folder; hidden files and folders, and
    what macOS adds to archives, are passed over.

    Raises:
        InputError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: not readable ({error.strerror})") from None

    found = []
    for top in folders:
        there = []
        for folder, below, files in os.walk(top, onerror=refuse):
            below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
            names = (name for name in files if fnmatch.fnmatchcase(name, pattern) and not name.startswith("."))
            there += [Path(folder, name) for name in names]
        found += sorted(there)
    return found


def found_under(folders: Sequence[Path], pattern: str, what: str, source: Path) -> list[Path]:
    """:func:`files_under`, or one line that says what was expected."""
    found = files_under(folders, pattern)
    if not found:
        raise InputError(f"source={source}: expected {what} ({pattern}), found none")
    return found


def read_text(path: Path) -> str:
    """A text file, UTF-8 with or without its mark.

    Raises:
        InputError: it is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({one_line(error)})") from None


def read_numbers(path: Path) -> list[float]:
    """The positive numbers (inf is possible) of a text file, between blanks or commas.

    Raises:
        InputError: it is missing, no text, or something in it is no positive number.
    """
    return [checked_number(word, str(path), infinite=True) for word in read_text(path).replace(",", " ").split()]


@contextlib.contextmanager
def opened_hdf5(paths: Sequence[Path], scratch: Path, report: Report, what: str) -> Iterator[Any]:
    """An ``h5py.File`` to read from: the one path, or the one HDF5 file in it where it is a folder or an archive.

    Raises:
        InputError: no such file, or several; h5py is missing.
    """
    source = only(paths, what)
    try:
        import h5py
    except ImportError:
        raise InputError(f"reading {source.name} needs h5py: pip install 'sfdfd[all]'") from None
    with contextlib.ExitStack() as stack:
        path = source
        if source.is_dir() or is_archive(source):
            there = files_under(stack.enter_context(opened([source], scratch, report)), "*.*")
            found = [file for file in there if file.suffix in (".h5", ".hdf5", ".mat") and h5py.is_hdf5(file)]
            if len(found) != 1:
                names = ", ".join(file.name for file in found) or "none"
                raise InputError(f"source={source}: expected {what}, found {names}; give it as source=FILE")
            path = found[0]
        try:
            file = stack.enter_context(h5py.File(path, "r"))
        except OSError as error:
            raise InputError(f"source={path}: not an HDF5 file ({one_line(error)})") from None
        yield file


def dataset(file: Any, key: str) -> Any | None:
    """The numbers that an HDF5 file has under that name, or None."""
    try:
        found = file.get(key)
    except Exception as error:  # h5py raises whatever HDF5 says of broken files
        raise InputError(f"source={file.filename}: {key} is not readable ({one_line(error)})") from None
    return found if getattr(found, "shape", None) is not None and found.dtype.kind in "uif" else None


def frame(data: Any, index: int) -> np.ndarray:
    """One entry of :func:`dataset`.

    Raises:
        InputError: the file is broken there.
    """
    try:
        return data[index]
    except Exception as error:  # h5py raises whatever HDF5 says of broken files
        raise InputError(
            f"source={data.file.filename}: {data.name}[{index}] is not readable ({one_line(error)})"
        ) from None
