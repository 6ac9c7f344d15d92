"""The 4D Light Field Benchmark (Honauer et al., ACCV 2016), refocused into stacks; or folders of pictures refocused by
a Lytro."""

from __future__ import annotations

import configparser
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from sfdfd.datasets.sources.base import (
    SCRATCH,
    UNKNOWN_CAMERA,
    DataSource,
    find_files,
    read_numbers,
    read_text,
    single_path,
    to_uint8,
    unique_names,
    write_splits,
    write_stack,
)
from sfdfd.datasets.sources.middlebury import read_pfm
from sfdfd.errors import InputError, one_line
from sfdfd.io.archives import opened
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report
from sfdfd.io.images import list_images, natural_sort_key, read_photograph

__all__ = ["LIGHTFIELD", "refocused"]

SLICES = 7
VIEWS = 9


def refocused(views: np.ndarray, disparity: float) -> np.ndarray:
    """Average (V,V,H,W,3) views, each shifted by ``disparity`` pixels per view, to (H,W,3) float in their range.

    The synthetic aperture of Ng's thesis (2006). Views run from the top left to the bottom right. A camera further right
    sees near points further left: a point at x in the middle view lies at x - d (u - middle) in column u.
    """
    middle = views.shape[0] // 2
    total = np.zeros(views.shape[2:], np.float64)
    for row in range(views.shape[0]):
        for column in range(views.shape[1]):
            shift = np.array([[1, 0, disparity * (middle - column)], [0, 1, disparity * (middle - row)]], np.float32)
            total += cv2.warpAffine(
                views[row, column].astype(np.float32), shift, views.shape[3:1:-1],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
    return total / (views.shape[0] * views.shape[1])


@dataclass(frozen=True)
class Parameters:
    """The numbers of ``parameters.cfg`` that relate disparity in pixels to depth."""

    baseline_mm: float
    focus_distance_m: float
    focal_length_mm: float
    sensor_size_mm: float
    disp_min: float
    disp_max: float

    @property
    def focal_length_m(self) -> float:
        return self.focal_length_mm * 1e-3

    def camera(self, size_px: int) -> dict[str, float]:
        """Return the thin lens of the refocused views, whose aperture is VIEWS baselines wide.

        Args:
            size_px: longer side of the views.
        """
        return {
            "focal_length_m": self.focal_length_m,
            "f_number": self.focal_length_m / (VIEWS * self.baseline_mm * 1e-3),
            "pixel_pitch_m": self.sensor_size_mm * 1e-3 / size_px,
        }

    def depth_m(self, disparity: np.ndarray, size_px: int) -> np.ndarray:
        """Convert disparity d in pixels to depth z in metres.

        With the cameras converging at ``focus_distance_m`` D, 1/z = 1/D + d / (f_px b), where f_px is the focal length in
        pixels and b the baseline (the benchmark's toolkit).
        """
        scale = self.focal_length_mm / self.sensor_size_mm * size_px
        scale *= self.baseline_mm * 1e-3
        with np.errstate(all="ignore"):  # invalid disparities mean unknown depth
            return 1 / (1 / self.focus_distance_m + disparity / scale)


def read_parameters(path: Path) -> Parameters:
    """Read ``parameters.cfg``.

    Raises:
        InputError: a number is missing or out of range.
    """
    parser = configparser.ConfigParser(interpolation=None)
    text = read_text(path)
    try:
        parser.read_string(text)
        parameters = Parameters(
            baseline_mm=parser.getfloat("extrinsics", "baseline_mm"),
            focus_distance_m=parser.getfloat("extrinsics", "focus_distance_m"),
            focal_length_mm=parser.getfloat("intrinsics", "focal_length_mm"),
            sensor_size_mm=parser.getfloat("intrinsics", "sensor_size_mm"),
            disp_min=parser.getfloat("meta", "disp_min"),
            disp_max=parser.getfloat("meta", "disp_max"),
        )
    except (configparser.Error, ValueError) as error:
        raise InputError(f"{path}: not the benchmark's parameters.cfg ({one_line(error)})") from None
    for key, value in asdict(parameters).items():
        if not math.isfinite(value) or (value <= 0 and not key.startswith("disp")):
            raise InputError(f"{path}: {key}: expected a {'finite' if key.startswith('disp') else 'positive'} number")
    if not parameters.disp_min < parameters.disp_max:
        raise InputError(f"{path}: expected disp_min < disp_max, got {parameters.disp_min} and {parameters.disp_max}")
    return parameters


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """Convert ``SCENE/input_CamNNN.png`` (81 views), ``parameters.cfg`` and ``gt_disp_lowres.pfm``."""
    source = single_path(paths, "the folder or archive of the 4D light field benchmark")
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    with opened(paths, folder / SCRATCH, report) as folders:
        scenes = [file.parent for file in find_files(folders, "parameters.cfg")]
        if not scenes:
            return convert_refocused(folders, folder, source, report)
        for index, (scene, name) in enumerate(zip(scenes, unique_names([(s.name,) for s in scenes]), strict=True)):
            _write_scene(folder, name, scene)
            splits["test" if scene.parent.name in ("test", "stratified") else "train"].append(name)
            report(index + 1, len(scenes))
    train = splits["train"]
    if len(train) > 4:
        splits["train"], splits["val"] = train[:-4], train[-4:]
    write_splits(folder, splits)
    return len(scenes)


def _write_scene(folder: Path, name: str, scene: Path) -> None:
    """Refocus a scene's views into slices, evenly spaced in disparity."""
    parameters = read_parameters(scene / "parameters.cfg")
    views = _read_views(scene)
    size_px = max(views.shape[2:4])
    disparities = np.linspace(parameters.disp_max, parameters.disp_min, SLICES)  # near to far
    focus_m = parameters.depth_m(disparities, size_px)
    if not (np.isfinite(focus_m).all() and (focus_m > 0).all()):
        raise InputError(
            f"{scene / 'parameters.cfg'}: disp_min {parameters.disp_min} to disp_max {parameters.disp_max} "
            "mean no depth in front of the camera"
        )
    truth = scene / "gt_disp_lowres.pfm"
    depth_m = parameters.depth_m(read_pfm(truth), size_px) if truth.is_file() else None
    slices = [np.clip(np.round(refocused(views, d)), 0, 255).astype(np.uint8) for d in disparities]
    near_m, far_m = 0.9 * float(focus_m.min()), 1.1 * float(focus_m.max())
    aif = views[VIEWS // 2, VIEWS // 2]
    write_stack(folder, name, slices, parameters.camera(size_px), focus_m, near_m, far_m, depth_m, aif)


def _read_views(scene: Path) -> np.ndarray:
    """Read (V,V,H,W,3) uint8."""
    files = sorted(scene.glob("input_Cam*.png"), key=natural_sort_key)
    if len(files) != VIEWS * VIEWS:
        raise InputError(f"{scene}: expected {VIEWS * VIEWS} views input_CamNNN.png, found {len(files)}")
    views = [to_uint8(read_photograph(file)[0]) for file in files]
    for file, view in zip(files, views, strict=True):
        if view.shape != views[0].shape:
            raise InputError(
                f"{file}: shape {view.shape}, but {files[0].name} has {views[0].shape}; views have one size"
            )
    return np.stack(views).reshape(VIEWS, VIEWS, *views[0].shape)


def convert_refocused(folders: Sequence[Path], folder: Path, source: Path, report: Report) -> int:
    """Convert folders of refocused pictures (Lytro): each is a stack, its slices in the order of their names.

    Focus distances come from ``focus_distance.txt`` (metres) if there is one; the camera is unknown.
    """
    scenes: dict[Path, tuple[str, ...]] = {}
    for content in folders:
        for parent in sorted({file.parent for file in find_files([content], "*")}):
            if len(list_images(parent)) > 1:
                scenes[parent] = parent.relative_to(content).parts or (content.resolve().name,)
    if not scenes:
        raise InputError(
            f"source={source}: expected scenes with parameters.cfg and input_CamNNN.png, or folders of refocused pictures"
        )
    names = unique_names(list(scenes.values()))
    for index, (name, parent) in enumerate(zip(names, scenes, strict=True)):
        files = list_images(parent)
        distances = parent / "focus_distance.txt"
        focus_m = read_numbers(distances) if distances.is_file() else None
        if focus_m is not None and len(focus_m) != len(files):
            raise InputError(f"{distances}: {len(focus_m)} distances for {len(files)} slices")
        slices = [read_photograph(file)[0] for file in files]
        if len({image.shape for image in slices}) > 1:
            raise InputError(f"{parent}: its pictures have several sizes; a stack has one")
        write_stack(folder, name, slices, UNKNOWN_CAMERA, focus_m, None, None)
        report(index + 1, len(scenes))
    write_splits(folder, dict.fromkeys(("train", "val", "test"), names))
    return len(names)


LIGHTFIELD = DataSource(
    name="lightfield",
    title="4D Light Field Benchmark: 28 rendered light fields of 9 x 9 views, refocused to seven slices",
    citation="K. Honauer, O. Johannsen, D. Kondermann, B. Goldluecke: A Dataset and Evaluation Methodology for Depth "
    "Estimation on 4D Light Fields, ACCV 2016",
    licence="CC BY-NC-SA 4.0",
    home="https://lightfield-analysis.uni-konstanz.de (a form by mail gives the links)",
    size="5 GB",
    files=(RemoteFile("full_data.zip"),),
    uncertain="shift-and-add with nine views leaves ghosts in strong blur; it is a square aperture, not a disc",
    layout="stacks",
    convert=convert,
)
