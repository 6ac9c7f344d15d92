"""Mobile Depth (Suwajanakorn et al., CVPR 2015): eleven handheld phone stacks, aligned by their authors, without truth."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sfdfd.data.fetch import RemoteFile, Report, opened
from sfdfd.data.images import read_photograph
from sfdfd.data.sources.base import DataSource, write_splits, write_stack
from sfdfd.errors import InputError

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
    """
    try:
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path}: expected numbers ({error})") from None
    if len(rows) < 3 or any(not row for row in rows):
        raise InputError(f"{path}: expected a line per slice and one with the focal length, got {len(rows)} lines")
    return [row[0] for row in rows[:-1]], rows[-1][0]


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """``Aligned/FigureN/SCENE/a*.jpg`` with ``calibration/SCENE/calibrated.txt``: two archives, or a folder with both."""
    names = []
    scratch = [folder / f"unpacked{i}" for i in range(len(paths))]
    with contextlib.ExitStack() as stack:
        roots = [stack.enter_context(opened(path, where, report)) for path, where in zip(paths, scratch, strict=True)]
        calibrations = {file.parent.name: file for root in roots for file in root.rglob("calibrated.txt")}
        scenes: dict[str, list[Path]] = {}
        for root in roots:
            for file in sorted(root.rglob("a*.jpg")):
                scenes.setdefault(file.parent.name, []).append(file)
        scenes = {
            name: files
            for name, files in scenes.items()
            if CALIBRATED_AS.get(name, name) in calibrations and len(files) > 1
        }
        if not scenes:
            raise InputError(
                f"source={paths[0]}: expected aligned slices a*.jpg and calibration/SCENE/calibrated.txt; the two archives "
                "lie in one folder, given as source=FOLDER"
            )
        for index, (name, files) in enumerate(sorted(scenes.items())):
            focus, _ = read_calibration(calibrations[CALIBRATED_AS.get(name, name)])
            if len(focus) != len(files):
                raise InputError(
                    f"{calibrations[CALIBRATED_AS.get(name, name)]}: {len(focus)} distances for {len(files)} slices"
                )
            if name in REVERSED:
                focus = focus[::-1]
            metres = [abs(value) * UNIT_M if abs(value) * UNIT_M < 1000 else float("inf") for value in focus]
            finite = [value for value in metres if value < 1000]
            # the focal length is in pixels of no known pitch: the blur scale stays unknown and is estimated
            camera = {"focal_length_m": None, "f_number": None, "pixel_pitch_m": None}
            write_stack(
                folder,
                name,
                [read_photograph(file)[0] for file in files],
                camera,
                metres,
                0.6 * min(finite),
                4 * max(finite),
            )
            names.append(name)
            report(index + 1, len(scenes))
    write_splits(folder, dict.fromkeys(("train", "val", "test"), names))
    return len(names)


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
