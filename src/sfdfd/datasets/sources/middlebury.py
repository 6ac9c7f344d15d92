"""Middlebury 2014 stereo scenes as RGB-D (Scharstein et al., GCPR 2014)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sfdfd.datasets.sources.base import (
    SCRATCH,
    DataSource,
    find_files,
    read_text,
    to_uint8,
    unique_names,
    write_rgbd,
    write_splits,
)
from sfdfd.errors import InputError, checked_number, one_line
from sfdfd.io.archives import opened
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report
from sfdfd.io.images import read_photograph

__all__ = ["MIDDLEBURY", "depth_of_scene_m", "read_pfm"]

SCENES = (
    "Adirondack", "Jadeplant", "Motorcycle", "Piano", "Pipes", "Playroom", "Playtable", "Recycle", "Shelves", "Vintage",
)  # fmt: skip
UNIT_M = 0.0001
LONGER_PX = 640


def read_pfm(path: Path) -> np.ndarray:
    """Read a portable float map of one channel, (H,W) float32, top row first; inf where unknown.

    Raises:
        InputError: it is missing, of another format, or its size differs from its header.
    """
    try:
        with path.open("rb") as file:
            kind, size, scale = (file.readline(100).strip() for _ in range(3))
            match = re.fullmatch(rb"([0-9]{1,6})\s+([0-9]{1,6})", size)
            if kind != b"Pf" or match is None or not re.fullmatch(rb"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", scale):
                raise InputError(f"{path}: not a portable float map of one channel")
            width, height = int(match[1]), int(match[2])
            held = os.fstat(file.fileno()).st_size - file.tell()
            if width * height == 0 or held != 4 * width * height:
                raise InputError(f"{path}: {held} bytes for {width} x {height} pixels of four bytes; fetch it again")
            values = np.frombuffer(file.read(), "<f4" if scale.startswith(b"-") else ">f4")
    except OSError as error:
        raise InputError(f"{path}: not readable ({one_line(error)})") from None
    return values.reshape(height, width)[::-1].astype(np.float32)


def read_calibration(path: Path) -> dict[str, float]:
    """Read ``calib.txt``: focal length of cam0 in pixels, baseline in millimetres, doffs in pixels.

    Raises:
        InputError: one of them is missing or not a number.
    """
    text = read_text(path)
    calibration = {}
    for key, start in (("focal_px", r"cam0=\["), ("baseline_mm", "baseline="), ("doffs", "doffs=")):
        match = re.search(rf"{start}\s*([^\s;\]]+)", text)
        if match is None:
            raise InputError(f"{path}: no {key}; expected Middlebury's calib.txt (cam0, baseline, doffs)")
        calibration[key] = checked_number(match[1], f"{path}: {key}", least=-1e6 if key == "doffs" else None)
    return calibration


def depth_of_scene_m(disparity: np.ndarray, calibration: dict[str, float]) -> np.ndarray:
    """Return Z = baseline f / (d + doffs) in metres; 0 if the disparity is not finite or the depth not positive."""
    shifted = np.where(np.isfinite(disparity), disparity, 0).astype(np.float64) + calibration["doffs"]
    known = np.isfinite(disparity) & (shifted > 0)
    depth = calibration["baseline_mm"] * 1e-3 * calibration["focal_px"] / np.where(known, shifted, 1)
    return np.where(known, depth, 0).astype(np.float32)


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """Convert ``SCENE/im0.png``, ``disp0.pfm`` and ``calib.txt``, reduced to 640 pixels on the longer side.

    Depth is stored in tenths of a millimetre, up to 6.5535 m, and unknown beyond.
    """
    with opened(paths, folder / SCRATCH, report) as folders:
        scenes = [file.parent for file in find_files(folders, "calib.txt") if (file.parent / "disp0.pfm").is_file()]
        if not scenes:
            raise InputError(
                f"source={paths[0]}: expected folders with im0.png, disp0.pfm and calib.txt, or their archives in one folder"
            )
        scenes = sorted(scenes, key=lambda scene: scene.name)
        names = _names(scenes)
        for index, (name, scene) in enumerate(zip(names, scenes, strict=True)):
            _write_scene(folder, name, scene)
            report(index + 1, len(scenes))
    write_splits(
        folder, {"train": names[:-2], "val": names[-2:-1], "test": names[-1:]} if len(names) > 2 else {"test": names}
    )
    return len(names)


def _names(scenes: Sequence[Path]) -> list[str]:
    """Name scenes without "-perfect" and "-imperfect", unless both exist."""
    short = [re.sub(r"-(im)?perfect$", "", scene.name) for scene in scenes]
    counts = Counter(short)
    return unique_names(
        [(name if counts[name] == 1 else scene.name,) for name, scene in zip(short, scenes, strict=True)]
    )


def _write_scene(folder: Path, name: str, scene: Path) -> None:
    rgb = to_uint8(read_photograph(scene / "im0.png")[0])
    depth_m = depth_of_scene_m(read_pfm(scene / "disp0.pfm"), read_calibration(scene / "calib.txt"))
    if rgb.shape[:2] != depth_m.shape:
        raise InputError(f"{scene}: image and disparity differ in size: {rgb.shape[:2]} and {depth_m.shape}")
    factor = min(1.0, LONGER_PX / max(depth_m.shape))
    size = tuple(max(1, round(side * factor)) for side in depth_m.shape[::-1])
    rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    depth_m = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST)
    write_rgbd(folder, name, rgb, depth_m, UNIT_M)


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
