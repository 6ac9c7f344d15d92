"""DefocusNet's synthetic focal stacks (Maximov et al., CVPR 2020), also known as FoD500."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfdfd.datasets.sources.base import (
    SCRATCH,
    DataSource,
    found_under,
    only,
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
"""Of slices 00 to 04, and of the sixth that some copies have."""
NEAR_M, FAR_M = 0.1, 3.0


def read_exr(path: Path) -> np.ndarray:
    """(H,W) float32 of the first of the channels R, Z, Y that an OpenEXR file has (half or float)."""
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
    """Index -> slice ``NUMBER_IIAll.tif`` of the scene, by index; other names are passed over.

    Raises:
        InputError: an index that no focus distance is known of, one that two slices have, or fewer than two slices.
    """
    found: dict[int, Path] = {}
    for file in sorted(depth_file.parent.glob(f"{number}_*All.tif")):
        match = re.fullmatch(r"\d+_(\d+)All\.tif", file.name)
        if match is None:
            continue
        index = int(match[1])
        if index >= len(FOCUS_M):
            raise InputError(
                f"{file}: expected a slice from 00 to {len(FOCUS_M) - 1:02d}, got {match[1]}; take it away"
            )
        if index in found:
            raise InputError(f"{file}: {found[index].name} is slice {index}, too; take one of them away")
        found[index] = file
    if len(found) < 2:
        raise InputError(f"{depth_file}: expected 2 to {len(FOCUS_M)} slices {number}_IIAll.tif, found {len(found)}")
    return dict(sorted(found.items()))


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """``NNNNNN_IIAll.tif`` slices, ``NNNNNNDpt.exr`` depth in metres and, where there is one, ``NNNNNNAif.tif``.

    Scenes below 400 train and the others test (DFV and the authors), unless they lie in folders train, val or test, whose
    name then says the split and stands before the number. Where no scene is there to validate, the last tenth of those that
    train does."""
    source = only(paths, "the folder or archive of DefocusNet")
    with opened(paths, folder / SCRATCH, report) as folders:
        depths = found_under(folders, "*Dpt.exr", "DefocusNet's depth files", source)
        scenes = [_scene(file, folders) for file in depths]
        splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for index, (depth_file, name, (number, split)) in enumerate(
            zip(depths, _names(depths, scenes, folders), scenes, strict=True)
        ):
            slices = slices_of(depth_file, number)
            aif = depth_file.with_name(f"{number}Aif.tif")
            write_stack(
                folder,
                name,
                [read_photograph(file)[0] for file in slices.values()],
                CAMERA,
                [FOCUS_M[i] for i in slices],
                NEAR_M,
                FAR_M,
                read_exr(depth_file),
                read_photograph(aif)[0] if aif.is_file() else None,
            )
            splits[split or ("train" if int(number) < 400 else "test")].append(name)
            report(index + 1, len(depths))
    train = splits["train"]
    if not splits["val"] and len(train) > 1:
        first = len(train) - max(1, len(train) // 10)
        splits["train"], splits["val"] = train[:first], train[first:]
    write_splits(folder, splits)
    return len(depths)


def _scene(depth_file: Path, folders: Sequence[Path]) -> tuple[str, str | None]:
    """Its number, as it is written, and the split that a folder above it names."""
    match = re.fullmatch(r"(\d+)Dpt\.exr", depth_file.name)
    if match is None:
        raise InputError(f"{depth_file}: expected NNNNNNDpt.exr")
    above = [part.lower() for part in reversed(_place(depth_file, folders)[:-1])]
    return match[1], next((part for part in above if part in ("train", "val", "test")), None)


def _place(file: Path, folders: Sequence[Path]) -> tuple[str, ...]:
    return next(file.relative_to(folder).parts for folder in reversed(folders) if file.is_relative_to(folder))


def _names(depths: Sequence[Path], scenes: Sequence[tuple[str, str | None]], folders: Sequence[Path]) -> list[str]:
    """``NUMBER``, ``SPLIT_NUMBER`` where a folder names the split, and all of the folders where that is not unique."""
    names = [number if split is None else f"{split}_{number}" for number, split in scenes]
    if len(set(names)) == len(names):
        return names
    return unique_names([(*_place(file, folders)[:-1], n) for file, (n, _) in zip(depths, scenes, strict=True)])


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
