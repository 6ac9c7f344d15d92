"""ZEDD (Zuo et al., arXiv 2603.26658): 100 real DSLR stacks, nine focus distances, six apertures, LiDAR depth."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sfdfd.datasets.sources.base import (
    SCRATCH,
    DataSource,
    read_text,
    require_files,
    single_path,
    to_uint8,
    unique_names,
    write_splits,
    write_stack,
)
from sfdfd.errors import InputError, checked_number, one_line
from sfdfd.io.archives import opened
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report, atomic_write
from sfdfd.io.images import natural_sort_key, read_photograph

__all__ = ["SUBMISSION_SHAPE", "ZEDD", "write_submission"]

F_NUMBER = 2.8
"""Aperture of the published figures."""
AIF_F_NUMBER = 16.0
LONGER_PX = 912
"""Half of the 1824 x 1216 of the depth maps."""
SENSOR_WIDTH_M = 0.036
SUBMISSION_SHAPE = (1216, 1824)
NEAR_M, FAR_M = 0.5, 20.0


@dataclass(frozen=True)
class _Scene:
    """A scene's folder, its split ("val" or "test"), and the name of its stack."""

    folder: Path
    split: str
    name: str


def read_focus(path: Path) -> dict[str, float]:
    """Read ``metadata.txt``: lines of run, motor position (hexadecimal) and focus distance in metres, between tabs.

    Returns:
        Focus distance in metres by run; all are different.

    Raises:
        InputError: a line is malformed, or a run or a distance occurs with two partners.
    """
    focus: dict[str, float] = {}
    for line in read_text(path).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            parts = line.split("\t")
            if len(parts) < 3:
                raise InputError(f"{path}: expected run, motor position and focus distance between tabs, got {line!r}")
            run, distance = parts[0].strip(), checked_number(parts[2], f"{path}: {line!r}", infinite=True)
            for other, value in focus.items():
                if (other == run) != (value == distance):
                    raise InputError(
                        f"{path}: expected one focus distance per run, got {value} for {other} and {distance} for {run}"
                    )
            focus[run] = distance
    return focus


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """Convert ``{val,test}/SCENE/focus_stack/img_run_K_motor_XXXX_aperture_FN.jpg`` with ``gt/K.txt``, ``metadata.txt`` and,
    in val only, ``gt/depth.npy``. Slices are those of f/2.8; the AIF is the f/16 photograph of the middle run."""
    source = single_path(paths, "the folder or archive of ZEDD")
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    with opened(paths, folder / SCRATCH, report) as folders:
        focus = _common_focus(require_files(folders, "metadata.txt", "ZEDD's focus distances", source))
        scenes = _named_scenes(require_files(folders, "K.txt", "ZEDD's scenes", source))
        for index, scene in enumerate(scenes):
            _write_scene(folder, scene, focus)
            splits[scene.split].append(scene.name)
            report(index + 1, len(scenes))
    splits["train"] = splits["test"] or splits["val"]  # training needs no depth, which the test scenes lack
    write_splits(folder, splits)
    return len(scenes)


def _common_focus(files: Sequence[Path]) -> dict[str, float]:
    """Read the focus distances, which have to be the same in all files."""
    focus = read_focus(files[0])
    for other in files[1:]:
        if read_focus(other) != focus:
            raise InputError(f"{other}: other focus distances than in {files[0]}; one metadata.txt is expected")
    return focus


def _named_scenes(camera_files: Sequence[Path]) -> list[_Scene]:
    """Name the scenes by their folders; if names clash, by split and folder."""
    folders = sorted({file.parent.parent for file in camera_files})
    places = [("test" if folder.parent.name == "test" else "val", folder.name) for folder in folders]
    names = unique_names([(name,) for _, name in places])
    if len({name for _, name in places}) < len(places):
        names = unique_names(places)
    return [_Scene(folder, split, name) for folder, (split, _), name in zip(folders, places, names, strict=True)]


def _write_scene(folder: Path, scene: _Scene, focus: dict[str, float]) -> None:
    slices, aif_file = _photographs(scene.folder, focus)
    images = [_reduced(file) for file in slices.values()]
    size = images[0].shape[1::-1]
    depth_file = scene.folder / "gt" / "depth.npy"
    depth_m, full_width = None, SUBMISSION_SHAPE[1]
    if depth_file.is_file():
        depth_m = _read_depth(depth_file)
        full_width = depth_m.shape[1]
        if abs(depth_m.shape[1] * size[1] / (depth_m.shape[0] * size[0]) - 1) > 0.02:
            raise InputError(f"{depth_file}: shape {depth_m.shape}, but slices of {size[1]} x {size[0]} pixels")
        depth_m = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST)
    focal_m = _focal_px(scene.folder / "gt" / "K.txt") * SENSOR_WIDTH_M / full_width
    camera = {"focal_length_m": focal_m, "f_number": F_NUMBER, "pixel_pitch_m": SENSOR_WIDTH_M / size[0]}
    aif = None if aif_file is None else _reduced(aif_file)
    write_stack(folder, scene.name, images, camera, slices, NEAR_M, FAR_M, depth_m, aif)


def _photographs(scene: Path, focus: dict[str, float]) -> tuple[dict[float, Path], Path | None]:
    """Return the slices by focus distance, near to far, and the AIF photograph."""
    slices: dict[float, Path] = {}
    aif = None
    for file in sorted((scene / "focus_stack").glob("img_run_*_aperture_F*.jpg"), key=natural_sort_key):
        match = re.fullmatch(r"img_run_(\d+)_motor_\w+_aperture_F(\d+(?:\.\d+)?)\.jpg", file.name)
        if match is None:
            raise InputError(f"{file}: expected img_run_K_motor_XXXX_aperture_FN.jpg")
        run, f_number = f"run_{match[1]}", float(match[2])
        if run not in focus:
            raise InputError(f"{file}: no focus distance of {run} in metadata.txt")
        if f_number == F_NUMBER:
            if focus[run] in slices:
                raise InputError(f"{file}: {slices[focus[run]].name} is {run} at f/{F_NUMBER}, too; take one away")
            slices[focus[run]] = file
        elif f_number == AIF_F_NUMBER and run == "run_5":
            aif = file
    if len(slices) < 2:
        raise InputError(f"{scene}: expected slices of f/{F_NUMBER}, found {len(slices)}")
    return dict(sorted(slices.items())), aif


def _reduced(file: Path) -> np.ndarray:
    image = to_uint8(read_photograph(file)[0])
    factor = min(1.0, LONGER_PX / max(image.shape))
    size = tuple(max(1, round(side * factor)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _read_depth(path: Path) -> np.ndarray:
    try:
        depth_m = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        if depth_m.ndim != 2 or depth_m.dtype.kind not in "uif":
            raise ValueError(f"shape {depth_m.shape} of {depth_m.dtype}")
    except Exception as error:  # NumPy raises various exceptions for broken files
        raise InputError(f"{path}: expected an array of H x W metres ({one_line(error)})") from None
    with np.errstate(over="ignore", invalid="ignore"):
        return depth_m.astype(np.float32)


def _focal_px(path: Path) -> float:
    """Read the first number of a 3 x 3 camera matrix."""
    words = read_text(path).split()
    if len(words) != 9:
        raise InputError(f"{path}: expected a camera matrix of 3 x 3 numbers, got {len(words)}")
    return checked_number(words[0], f"{path}: focal length")


def write_submission(path: Path, depths_m: Sequence[np.ndarray]) -> None:
    """Write a zip for the test server: ``zedd_output_0001.npy`` etc., 50 finite float arrays of 1216 x 1824.

    Raises:
        InputError: there are not 50 depth maps, or one is not (H,W) or not finite.
    """
    if len(depths_m) != 50:
        raise InputError(f"a ZEDD submission has 50 depth maps, got {len(depths_m)}")
    for index, depth in enumerate(depths_m):
        if depth.ndim != 2 or not (np.abs(depth) <= np.finfo(np.float32).max).all():
            raise InputError(f"depth map {index + 1} of the submission is not finite everywhere, or not H x W")
    with atomic_write(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, depth in enumerate(depths_m):
            depth = cv2.resize(depth.astype(np.float32), SUBMISSION_SHAPE[::-1], interpolation=cv2.INTER_LINEAR)
            with archive.open(f"zedd_output_{index + 1:04d}.npy", "w") as file:
                np.lib.format.write_array(file, depth)


ZEDD = DataSource(
    name="zedd",
    title="ZEDD: 100 real DSLR stacks with LiDAR depth (50 to validate, 50 to test)",
    citation="Y. Zuo, H. Wen, V. Subramanian, P. Chen, K. Kayan, M. Bijelic, F. Heide, J. Deng: Zero-Shot Depth from "
    "Defocus, arXiv 2603.26658",
    licence="CC BY 4.0",
    home="https://huggingface.co/datasets/venkatsubra/ZEDD and https://zedd.cs.princeton.edu",
    size="tens of GB",
    files=(RemoteFile("ZEDD.zip"),),
    uncertain="the focal length is K's, on a sensor taken to be 36 mm wide; breathing between slices is left as it is",
    layout="stacks",
    convert=convert,
)
