"""Focal stacks as they were captured: a folder with the slices and a ``stack.yaml``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import stack as stack_tensors
from torch.utils.data import Dataset

from sfdfd.data.images import list_images, read_image
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["RecordedStacks", "read_stack"]

KEYS = ("camera", "focus_distances_m", "near_m", "far_m", "files", "crop", "focus_distance_unit_m")
CAMERA_KEYS = ("focal_length_m", "f_number", "pixel_pitch_m")


def _number(value: Any, where: str, *, infinite: bool = False) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or number <= 0 or (math.isinf(number) and not infinite):
        raise InputError(f"{where}: expected a positive number, got {value!r}")
    return number


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with camera and focus_distances_m, got {content!r}")
    return content


def _checked_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")


def read_stack(folder: str | Path, overrides: Mapping[str, Any] | None = None) -> FocalStack:
    """Read one recorded stack.

    Args:
        folder: slices (PNG, JPEG, TIFF) and usually a ``stack.yaml`` with the keys camera (focal_length_m, f_number,
            pixel_pitch_m of the images as they lie in the folder), focus_distances_m (one per slice in the order of the
            sorted file names, or of ``files``; ``.inf`` is allowed), near_m, far_m, files, crop ([left, top, right,
            bottom] pixels cut off), focus_distance_unit_m (what the distances are multiplied by).
        overrides: the same keys; those that are not None take precedence.

    Returns:
        A batch of one. Without near_m or far_m the range reaches from 0.6 of the nearest to 1.7 of the farthest finite
        focus distance.

    Raises:
        InputError: naming the file or key and what was expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"stack={folder}: no such folder")
    described = folder / "stack.yaml"
    content = _load_yaml(described) if described.exists() else {}
    where = str(described)
    _checked_keys(content, KEYS, where)
    overrides = {key: value for key, value in (overrides or {}).items() if value is not None}
    _checked_keys(overrides, KEYS, "command line")
    given_camera = {k: v for k, v in (overrides.pop("camera", None) or {}).items() if v is not None}
    camera_values = content.get("camera") or {}
    if not isinstance(camera_values, Mapping):
        raise InputError(f"{where}: camera: expected {', '.join(CAMERA_KEYS)}, got {camera_values!r}")
    camera_values = {**camera_values, **given_camera}
    content = {**content, **overrides}

    if content.get("files"):
        if not isinstance(content["files"], list):
            raise InputError(f"{where}: files: expected a list of file names, got {content['files']!r}")
        files = [folder / str(name) for name in content["files"]]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: listed in files of {where}, but not there")
    else:
        files = list_images(folder)
    if len(files) < 2:
        raise InputError(f"{folder}: expected two or more slices (PNG, JPEG or TIFF), got {len(files)}")

    missing = [key for key in CAMERA_KEYS if key not in camera_values]
    if missing:
        raise InputError(f"{where}: camera.{missing[0]} is missing; write it there or give camera.{missing[0]}=NUMBER")
    _checked_keys(camera_values, CAMERA_KEYS, f"{where}: camera")
    camera = Camera(**{key: _number(camera_values[key], f"{where}: camera.{key}") for key in CAMERA_KEYS})
    distances = content.get("focus_distances_m")
    if not isinstance(distances, Sequence) or isinstance(distances, str):
        raise InputError(
            f"{where}: focus_distances_m is missing or no list; write it there or give 'focus_distances_m=[0.5,1,2]'"
        )
    if len(distances) != len(files):
        raise InputError(
            f"{where}: expected {len(files)} focus distances, one per slice, got {len(distances)} (focus_distances_m)"
        )
    unit_m = _number(content.get("focus_distance_unit_m", 1.0), f"{where}: focus_distance_unit_m")
    focus = [unit_m * _number(value, f"{where}: focus_distances_m", infinite=True) for value in distances]
    finite = [value for value in focus if math.isfinite(value)]
    if not finite and ("near_m" not in content or "far_m" not in content):
        raise InputError(f"{where}: every focus distance is infinite; near_m and far_m are needed then")
    near_m = _number(content["near_m"], f"{where}: near_m") if content.get("near_m") else 0.6 * min(finite)
    near_m = max(near_m, 1.01 * camera.focal_length_m) if not content.get("near_m") else near_m
    far_m = _number(content["far_m"], f"{where}: far_m") if content.get("far_m") else 1.7 * max(finite)

    images = [read_image(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"{file}: {image.shape[2]} x {image.shape[1]} pixels, but {files[0].name} has "
                f"{images[0].shape[2]} x {images[0].shape[1]}; all slices must have one size"
            )
    crop = content.get("crop") or [0, 0, 0, 0]
    if not (isinstance(crop, Sequence) and len(crop) == 4 and all(isinstance(c, int) and c >= 0 for c in crop)):
        raise InputError(f"{where}: crop: expected [left, top, right, bottom] pixels, got {crop!r}")
    left, top, right, bottom = crop
    height, width = images[0].shape[-2:]
    if left + right > width - 16 or top + bottom > height - 16:
        raise InputError(f"{where}: crop {crop} leaves less than 16 pixels of {width} x {height}")
    cropped = [image[:, top : height - bottom, left : width - right] for image in images]
    try:
        return FocalStack.single(stack_tensors(cropped), focus, camera, near_m, far_m, name=folder.resolve().name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


class RecordedStacks(Dataset):
    """Every stack folder under ``root`` (or ``root`` itself); see :func:`read_stack`. There is no truth.

    Args:
        root: a stack folder, or a folder of stack folders.
        overrides: keys of ``stack.yaml`` that hold for all of them.
    """

    def __init__(self, root: str | Path, overrides: Mapping[str, Any] | None = None) -> None:
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder (data.root)")
        self.overrides = dict(overrides or {})
        if (root / "stack.yaml").exists() or list_images(root):
            self.folders = [root]
        else:
            self.folders = sorted(path for path in root.iterdir() if path.is_dir() and (path / "stack.yaml").exists())
        if not self.folders:
            raise InputError(f"{root}: neither slices nor folders with a stack.yaml (data.root)")

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> FocalStack:
        return read_stack(self.folders[index], self.overrides)
