"""Middlebury 2014 stereo scenes as RGB-D (Scharstein et al., GCPR 2014)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sfdfd.data.fetch import RemoteFile, Report, opened
from sfdfd.data.images import read_photograph
from sfdfd.data.sources.base import DataSource, write_rgbd, write_splits
from sfdfd.errors import InputError

__all__ = ["MIDDLEBURY", "depth_of_scene_m", "read_pfm"]

SCENES = (
    "Adirondack", "Jadeplant", "Motorcycle", "Piano", "Pipes", "Playroom", "Playtable", "Recycle", "Shelves", "Vintage",
)  # fmt: skip
UNIT_M = 0.0001
LONGER_PX = 640


def read_pfm(path: Path) -> np.ndarray:
    """(H,W) float32 of a portable float map of one channel, top row first; inf where nothing is known."""
    with path.open("rb") as file:
        kind = file.readline().strip()
        match = re.fullmatch(rb"\s*(\d+)\s+(\d+)\s*", file.readline())
        if kind != b"Pf" or match is None:
            raise InputError(f"{path}: not a portable float map of one channel")
        width, height = int(match[1]), int(match[2])
        order = "<" if float(file.readline()) < 0 else ">"
        values = np.frombuffer(file.read(), order + "f4")
    if values.size != width * height:
        raise InputError(f"{path}: {values.size} values for {width} x {height} pixels")
    return values.reshape(height, width)[::-1].astype(np.float32)


def read_calibration(path: Path) -> dict[str, float]:
    """``calib.txt``: focal length of cam0 in pixels, baseline in millimetres, doffs in pixels."""
    text = path.read_text()
    found = {}
    for key, pattern in (
        ("focal_px", r"cam0=\[([\d.]+)"),
        ("baseline_mm", r"baseline=([\d.]+)"),
        ("doffs", r"doffs=([\d.-]+)"),
    ):
        match = re.search(pattern, text)
        if match is None:
            raise InputError(f"{path}: no {key}; expected Middlebury's calib.txt (cam0, baseline, doffs)")
        found[key] = float(match[1])
    return found


def depth_of_scene_m(disparity: np.ndarray, calibration: dict[str, float]) -> np.ndarray:
    """Z = baseline f / (d + doffs), in metres; 0 where the disparity is infinite."""
    known = np.isfinite(disparity)
    depth = (
        calibration["baseline_mm"]
        * 1e-3
        * calibration["focal_px"]
        / (np.where(known, disparity, 1) + calibration["doffs"])
    )
    return np.where(known, depth, 0).astype(np.float32)


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """``SCENE/im0.png``, ``disp0.pfm`` and ``calib.txt``, reduced to 640 pixels on the longer side; depth in tenths of a
    millimetre."""
    names = []
    with contextlib.ExitStack() as stack:
        roots = [stack.enter_context(opened(p, folder / f"unpacked{i}", report)) for i, p in enumerate(paths)]
        scenes = sorted(
            file.parent for root in roots for file in root.rglob("calib.txt") if (file.parent / "disp0.pfm").is_file()
        )
        if not scenes:
            raise InputError(f"source={paths[0]}: expected folders with im0.png, disp0.pfm and calib.txt")
        for index, scene in enumerate(scenes):
            rgb, _ = read_photograph(scene / "im0.png")
            depth = depth_of_scene_m(read_pfm(scene / "disp0.pfm"), read_calibration(scene / "calib.txt"))
            if rgb.shape[:2] != depth.shape:
                raise InputError(f"{scene}: image and disparity differ in size")
            factor = min(1.0, LONGER_PX / max(depth.shape))
            size = (round(depth.shape[1] * factor), round(depth.shape[0] * factor))
            name = re.sub(r"-(im)?perfect$", "", scene.name)
            write_rgbd(
                folder, name, cv2.resize(rgb, size, interpolation=cv2.INTER_AREA),
                cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST), UNIT_M,
            )  # fmt: skip
            names.append(name)
            report(index + 1, len(scenes))
    write_splits(
        folder, {"train": names[:-2], "val": names[-2:-1], "test": names[-1:]} if len(names) > 2 else {"test": names}
    )
    return len(names)


MIDDLEBURY = DataSource(
    name="middlebury",
    title="Middlebury 2014: indoor scenes with dense metric depth",
    citation="D. Scharstein, H. Hirschmueller, Y. Kitajima, G. Krathwohl, N. Nesic, X. Wang, P. Westling: High-Resolution "
    "Stereo Datasets with Subpixel-Accurate Ground Truth, GCPR 2014",
    licence="research; redistribution with citation",
    home="https://vision.middlebury.edu/stereo/data/scenes2014/",
    size="about 100 MB a scene",
    files=tuple(
        RemoteFile(f"{s}-perfect.zip", f"https://vision.middlebury.edu/stereo/data/scenes2014/zip/{s}-perfect.zip")
        for s in SCENES
    ),
    uncertain="no checksums are published",
    layout="rgbd",
    convert=convert,
)
