"""Mobile Depth (Suwajanakorn et al., CVPR 2015): eleven handheld phone stacks, aligned by their authors, without truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sfdfd.datasets.sources.base import (
    SCRATCH,
    DataSource,
    files_under,
    read_text,
    unique_names,
    write_splits,
    write_stack,
)
from sfdfd.errors import InputError
from sfdfd.io.archives import opened
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report
from sfdfd.io.images import natural_key, read_photograph

__all__ = ["MOBILE_DEPTH", "read_calibration"]

UNIT_M = 0.0254
"""The calibration's unit is about an inch (DEReD's released code divides by 39.37)."""
CALIBRATED_AS = {"metals": "metal", "largemotion": "GTLarge", "smallmotion": "GTSmall", "zeromotion": "GT"}
REVERSED = ("metals",)
"""Whose distances are stored far to near although the pictures run near to far, or the reverse (DEReD's released code)."""


def read_calibration(path: Path) -> tuple[list[float], float]:
    """``calibrated.txt``: a line per slice with focus distance and aperture, then a line with the focal length.

    Returns:
        Focus distances and focal length in the file's unit.

    Raises:
        InputError: no such lines, or a distance that is 0 or no number.
    """
    try:
        rows = [[float(word) for word in line.split()] for line in read_text(path).splitlines() if line.strip()]
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: expected numbers ({error})") from None
    if len(rows) < 3:
        raise InputError(f"{path}: expected a line per slice and one with the focal length, got {len(rows)} lines")
    focus, focal = [row[0] for row in rows[:-1]], rows[-1][0]
    for value in focus:
        if value == 0 or math.isnan(value):
            raise InputError(f"{path}: expected focus distances other than 0, got {value}")
    return focus, focal


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """``Aligned/FigureN/SCENE/a*.jpg`` with ``calibration/SCENE/calibrated.txt``: two archives, or a folder with both."""
    with opened(paths, folder / SCRATCH, report) as folders:
        calibrations = _by_name((file.parent for file in files_under(folders, "calibrated.txt")), paths[0])
        slices: dict[Path, list[Path]] = {}
        for file in files_under(folders, "a*.jpg"):
            slices.setdefault(file.parent, []).append(file)
        scenes = _by_name(
            (p for p in slices if CALIBRATED_AS.get(p.name, p.name) in calibrations and len(slices[p]) > 1), paths[0]
        )
        if not scenes:
            raise InputError(
                f"source={paths[0]}: expected aligned slices a*.jpg and calibration/SCENE/calibrated.txt; the two archives "
                "lie in one folder, given as source=FOLDER"
            )
        names = unique_names([(scene,) for scene in sorted(scenes)])
        for index, (name, scene) in enumerate(zip(names, sorted(scenes), strict=True)):
            files = sorted(slices[scenes[scene]], key=natural_key)
            calibrated = calibrations[CALIBRATED_AS.get(scene, scene)] / "calibrated.txt"
            focus, _ = read_calibration(calibrated)
            if len(focus) != len(files):
                raise InputError(f"{calibrated}: {len(focus)} distances for {len(files)} slices in {scenes[scene]}")
            if scene in REVERSED:
                focus = focus[::-1]
            metres = [abs(value) * UNIT_M if abs(value) * UNIT_M < 1000 else math.inf for value in focus]
            finite = [value for value in metres if math.isfinite(value)]
            if not finite:
                raise InputError(f"{calibrated}: expected a focus distance below {1000 / UNIT_M:.0f}, got {focus}")
            # the focal length is in pixels of no known pitch: the blur scale stays unknown and is estimated
            camera = {"focal_length_m": None, "f_number": None, "pixel_pitch_m": None}
            images = [read_photograph(file)[0] for file in files]
            write_stack(folder, name, images, camera, metres, 0.6 * min(finite), 4 * max(finite))
            report(index + 1, len(scenes))
    write_splits(folder, dict.fromkeys(("train", "val", "test"), names))
    return len(names)


def _by_name(places: Iterable[Path], source: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place in places:
        if place.name in found:
            raise InputError(
                f"source={source}: two folders of {place.name}: {found[place.name]} and {place}; take one away"
            )
        found[place.name] = place
    return found


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
