"""DefocusNet's synthetic focal stacks (Maximov et al., CVPR 2020), also known as FoD500."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfdfd.datasets.sources.base import (
    SCRATCH,
    DataSource,
    require_files,
    single_path,
    unique_names,
    write_splits,
    write_stack,
)
from sfdfd.errors import InputError, one_line
from sfdfd.io.archives import opened
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report
from sfdfd.io.images import read_photograph

__all__ = ["DEFOCUSNET", "FOCUS_M", "read_exr"]

CAMERA = {"focal_length_m": 0.0029, "f_number": 1.0, "pixel_pitch_m": 3.1e-3 / 256}
FOCUS_M = (0.1, 0.15, 0.3, 0.7, 1.5, np.inf)
"""Focus distances of slices 00 to 04, and of a sixth that some copies have."""
NEAR_M, FAR_M = 0.1, 3.0


def read_exr(path: Path) -> np.ndarray:
    """Read (H,W) float32 from the first of the channels R, Z, Y that an OpenEXR file has (half or float)."""
    try:
        import OpenEXR
    except ImportError:
        raise InputError("reading OpenEXR needs the package OpenEXR: pip install 'sfdfd[all]'") from None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            for key in ("R", "Z", "Y", *channels):
                if key in channels:
                    return np.asarray(channels[key].pixels, dtype=np.float32)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a readable OpenEXR file ({one_line(error)})") from None
    raise InputError(f"{path}: an OpenEXR file without channels")


def slices_of(depth_file: Path, number: str) -> dict[int, Path]:
    """Return the slices ``NUMBER_IIAll.tif`` of a scene by index, sorted; other names are skipped.

    Raises:
        InputError: an index has no focus distance, or two slices; or there are fewer than two slices.
    """
    slices: dict[int, Path] = {}
    for file in sorted(depth_file.parent.glob(f"{number}_*All.tif")):
        match = re.fullmatch(r"\d+_(\d+)All\.tif", file.name)
        if match is None:
            continue
        index = int(match[1])
        if index >= len(FOCUS_M):
            raise InputError(
                f"{file}: expected a slice from 00 to {len(FOCUS_M) - 1:02d}, got {match[1]}; take it away"
            )
        if index in slices:
            raise InputError(f"{file}: {slices[index].name} is slice {index}, too; take one of them away")
        slices[index] = file
    if len(slices) < 2:
        raise InputError(f"{depth_file}: expected 2 to {len(FOCUS_M)} slices {number}_IIAll.tif, found {len(slices)}")
    return dict(sorted(slices.items()))


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """Convert slices ``NNNNNN_IIAll.tif``, depth ``NNNNNNDpt.exr`` in metres and, if present, ``NNNNNNAif.tif``.

    Scenes below 400 train and the others test (DFV and the authors), unless a folder train, val or test names the split; it
    then prefixes the stack's name. Without validation scenes, the last tenth of the training scenes validates.
    """
    source = single_path(paths, "the folder or archive of DefocusNet")
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    with opened(paths, folder / SCRATCH, report) as folders:
        depth_files = require_files(folders, "*Dpt.exr", "DefocusNet's depth files", source)
        scenes = [_number_and_split(file, folders) for file in depth_files]
        names = _names(depth_files, scenes, folders)
        for index, (depth_file, name, (number, split)) in enumerate(zip(depth_files, names, scenes, strict=True)):
            _write_scene(folder, name, depth_file, number)
            splits[split or ("train" if int(number) < 400 else "test")].append(name)
            report(index + 1, len(depth_files))
    train = splits["train"]
    if not splits["val"] and len(train) > 1:
        first = len(train) - max(1, len(train) // 10)
        splits["train"], splits["val"] = train[:first], train[first:]
    write_splits(folder, splits)
    return len(depth_files)


def _write_scene(folder: Path, name: str, depth_file: Path, number: str) -> None:
    slices = slices_of(depth_file, number)
    images = [read_photograph(file)[0] for file in slices.values()]
    focus_m = [FOCUS_M[index] for index in slices]
    depth_m = read_exr(depth_file)
    aif_file = depth_file.with_name(f"{number}Aif.tif")
    aif = read_photograph(aif_file)[0] if aif_file.is_file() else None
    write_stack(folder, name, images, CAMERA, focus_m, NEAR_M, FAR_M, depth_m, aif)


def _number_and_split(depth_file: Path, folders: Sequence[Path]) -> tuple[str, str | None]:
    """Return a scene's number, as written, and the split that a folder above it names."""
    match = re.fullmatch(r"(\d+)Dpt\.exr", depth_file.name)
    if match is None:
        raise InputError(f"{depth_file}: expected NNNNNNDpt.exr")
    parents = [part.lower() for part in reversed(_relative_parts(depth_file, folders)[:-1])]
    return match[1], next((part for part in parents if part in ("train", "val", "test")), None)


def _relative_parts(file: Path, folders: Sequence[Path]) -> tuple[str, ...]:
    return next(file.relative_to(folder).parts for folder in reversed(folders) if file.is_relative_to(folder))


def _names(depth_files: Sequence[Path], scenes: Sequence[tuple[str, str | None]], folders: Sequence[Path]) -> list[str]:
    """Return ``NUMBER``, or ``SPLIT_NUMBER`` if a folder names the split; if names clash, with all folders."""
    names = [number if split is None else f"{split}_{number}" for number, split in scenes]
    if len(set(names)) == len(names):
        return names
    return unique_names(
        [(*_relative_parts(file, folders)[:-1], n) for file, (n, _) in zip(depth_files, scenes, strict=True)]
    )


DEFOCUSNET = DataSource(
    name="defocusnet",
    title="DefocusNet / FoD500: 500 synthetic stacks of five slices, 256 x 256",
    citation="M. Maximov, K. Galim, L. Leal-Taixe: Focus on Defocus: Bridging the Synthetic to Real Domain Gap, CVPR 2020",
    licence="MIT repository; none is stated for the data",
    home="https://github.com/dvl-tum/defocus-net (link 'here' in its README)",
    size="about 1 GB",
    files=(RemoteFile("fs_6.zip"),),
    uncertain="the sensor's width (3.1 mm) is that of the authors' code, not of their paper; the link has died before",
    layout="stacks",
    convert=convert,
)
