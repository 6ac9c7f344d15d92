"""Mobile Depth (Suwajanakorn et al., CVPR 2015): eleven handheld phone stacks, aligned by their authors, without ground
truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfdfd.datasets.sources.base import (
    SCRATCH,
    UNKNOWN_CAMERA,
    DataSource,
    find_files,
    read_text,
    unique_names,
    write_splits,
    write_stack,
)
from sfdfd.errors import InputError
from sfdfd.io.archives import opened
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report
from sfdfd.io.images import natural_sort_key, read_photograph

__all__ = ["MOBILE_DEPTH", "read_calibration"]

UNIT_M = 0.0254
"""The calibration's unit is about an inch (DEReD's released code divides by 39.37)."""
CALIBRATED_AS = {"metals": "metal", "largemotion": "GTLarge", "smallmotion": "GTSmall", "zeromotion": "GT"}
BEYOND_IS_INFINITE_M = 1000
REVERSED = ("metals",)
"""Scenes whose focus distances and slices are stored in opposite orders (DEReD's released code)."""


@dataclass(frozen=True)
class _ScenePaths:
    """A scene's aligned slices, in order, and its calibration file."""

    name: str
    slices: list[Path]
    calibration: Path


def read_calibration(path: Path) -> list[float]:
    """Read the focus distances of ``calibrated.txt``, in its unit.

    It has a line per slice with focus distance and aperture, then a line with the focal length.

    Raises:
        InputError: a line is missing, or a distance is 0 or not a number.
    """
    text = read_text(path)
    try:
        rows = [[float(word) for word in line.split()] for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path}: expected numbers ({error})") from None
    if len(rows) < 3:
        raise InputError(f"{path}: expected a line per slice and one with the focal length, got {len(rows)} lines")
    focus = [row[0] for row in rows[:-1]]
    for value in focus:
        if value == 0 or math.isnan(value):
            raise InputError(f"{path}: expected focus distances other than 0, got {value}")
    return focus


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """Convert ``Aligned/FigureN/SCENE/a*.jpg`` with ``calibration/SCENE/calibrated.txt``, from two archives or a folder."""
    with opened(paths, folder / SCRATCH, report) as folders:
        scenes = _find_scenes(folders, paths[0])
        names = unique_names([(scene.name,) for scene in scenes])
        for index, (name, scene) in enumerate(zip(names, scenes, strict=True)):
            focus_m = _focus_distances_m(scene)
            finite = [value for value in focus_m if math.isfinite(value)]
            images = [read_photograph(file)[0] for file in scene.slices]
            # the focal length is in pixels of unknown pitch, so the blur scale has to be estimated
            write_stack(folder, name, images, UNKNOWN_CAMERA, focus_m, 0.6 * min(finite), 4 * max(finite))
            report(index + 1, len(scenes))
    write_splits(folder, dict.fromkeys(("train", "val", "test"), names))
    return len(names)


def _find_scenes(folders: Sequence[Path], source: Path) -> list[_ScenePaths]:
    """Match folders of slices with their calibrations, sorted by name."""
    calibrations = _by_name((file.parent for file in find_files(folders, "calibrated.txt")), source)
    slices: dict[Path, list[Path]] = {}
    for file in find_files(folders, "a*.jpg"):
        slices.setdefault(file.parent, []).append(file)
    calibrated = (p for p in slices if CALIBRATED_AS.get(p.name, p.name) in calibrations and len(slices[p]) > 1)
    scenes = _by_name(calibrated, source)
    if not scenes:
        raise InputError(
            f"source={source}: expected aligned slices a*.jpg and calibration/SCENE/calibrated.txt; put the two archives "
            "into one folder and give it as source=FOLDER"
        )
    return [
        _ScenePaths(
            name,
            sorted(slices[scenes[name]], key=natural_sort_key),
            calibrations[CALIBRATED_AS.get(name, name)] / "calibrated.txt",
        )
        for name in sorted(scenes)
    ]


def _focus_distances_m(scene: _ScenePaths) -> list[float]:
    """Return one focus distance in metres per slice, of which at least one is finite."""
    focus = read_calibration(scene.calibration)
    if len(focus) != len(scene.slices):
        raise InputError(
            f"{scene.calibration}: {len(focus)} distances for {len(scene.slices)} slices in {scene.slices[0].parent}"
        )
    if scene.name in REVERSED:
        focus = focus[::-1]
    focus_m = [abs(value) * UNIT_M for value in focus]
    focus_m = [value if value < BEYOND_IS_INFINITE_M else math.inf for value in focus_m]
    if not any(math.isfinite(value) for value in focus_m):
        limit = BEYOND_IS_INFINITE_M / UNIT_M
        raise InputError(f"{scene.calibration}: expected a focus distance below {limit:.0f}, got {focus}")
    return focus_m


def _by_name(folders: Iterable[Path], source: Path) -> dict[str, Path]:
    by_name: dict[str, Path] = {}
    for folder in folders:
        if folder.name in by_name:
            raise InputError(
                f"source={source}: two folders of {folder.name}: {by_name[folder.name]} and {folder}; take one away"
            )
        by_name[folder.name] = folder
    return by_name


MOBILE_DEPTH = DataSource(
    name="mobile_depth",
    title="Mobile Depth: eleven real phone stacks of 14 to 33 slices",
    citation="S. Suwajanakorn, C. Hernandez, S. M. Seitz: Depth from Focus with Your Mobile Phone, CVPR 2015",
    licence="none stated; research use",
    home="https://www.supasorn.com/dffdownload.html",
    size="1.2 GB",
    files=(
        RemoteFile("depth_from_focus_data2.zip", "https://www.supasorn.com/data/depth_from_focus_data2.zip"),
        RemoteFile("depth_from_focus_data3.zip", "https://www.supasorn.com/data/depth_from_focus_data3.zip"),
    ),
    uncertain="no truth, and the authors' calibration is up to scale: pictures and stack/psnr only; the unit is taken as "
    "an inch",
    layout="stacks",
    convert=convert,
)
