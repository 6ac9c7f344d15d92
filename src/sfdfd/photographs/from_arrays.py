"""Take images in memory as the photographs of a stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sfdfd.errors import InputError, checked_choice, checked_number
from sfdfd.io.stack_yaml import CAMERA_KEYS, refuse_unknown_keys
from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import SIDES
from sfdfd.photographs.camera_values import CameraValue
from sfdfd.photographs.holdout import parse_holdout, remaining
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.slice_selection import count_to_use, select_slices, sharpness
from sfdfd.stack import as_images

__all__ = ["photographs_from_arrays"]

ORIGIN = "given in Python"
KEYS = ("camera", "focus_distances_m", "near_m", "far_m", "side", "holdout", "slices")


def photographs_from_arrays(images: Sequence[Any] | Tensor | np.ndarray, metadata: Mapping[str, Any]) -> Photographs:
    """Take images in memory as the photographs of one stack.

    Args:
        images: (S,H,W,3) or (S,3,H,W), or a list of such without S: uint8, uint16 or floats in [0, 1].
        metadata: keys of ``stack.yaml`` (camera, focus_distances_m, near_m, far_m, side), ``holdout`` and ``slices``.

    Raises:
        InputError: they are no images of one size, or a key does not apply to images in memory.
    """
    arrays = _checked_arrays(images)
    number = len(arrays)
    known = {key: value for key, value in metadata.items() if value is not None}
    refuse_unknown_keys(known, KEYS, "images in memory")
    camera = _checked_camera(known.get("camera") or {}, number)
    is_bracket = isinstance(camera["f_number"], tuple)
    focus = _checked_focus_distances(known.get("focus_distances_m"), number, is_bracket)
    near_m, far_m = (None if key not in known else checked_number(known[key], key) for key in ("near_m", "far_m"))
    if focus is not None and isinstance(focal_m := camera["focal_length_m"], float):
        Camera(focal_m, 1.0, 1.0).blur_radius_px(1.0, np.asarray(focus))  # inside the focal length?
    left_out = parse_holdout(known.get("holdout"), number, focus)
    candidates = remaining(left_out, number)
    count = count_to_use(known.get("slices", "all"), number)
    kept = select_slices(candidates, count, lambda index: sharpness(arrays[index]), focus)
    values = {**camera, "focus_distances_m": focus, "near_m": near_m, "far_m": far_m}
    return Photographs(
        name="images",
        files=tuple(Path(f"image_{index}") for index in range(number)),
        images=tuple(arrays),
        camera=camera,
        focus_distances_m=focus,
        near_m=near_m,
        far_m=far_m,
        side=None if known.get("side") is None else checked_choice(known["side"], "side", SIDES),
        sources={key: ORIGIN for key, value in values.items() if value is not None},
        missing=_remedies(values),
        left_out=left_out,
        unselected=tuple(index for index in candidates if index not in kept),
    )


def _checked_arrays(images: Sequence[Any] | Tensor | np.ndarray) -> list[np.ndarray]:
    arrays = [_as_array(image, index) for index, image in enumerate(images)]
    if len(arrays) < 2 or len({array.shape for array in arrays}) > 1:
        shapes = sorted({array.shape[:2] for array in arrays})
        raise InputError(f"expected two or more images of one size, got {len(arrays)} of (height, width) {shapes}")
    return arrays


def _as_array(image: Any, index: int) -> np.ndarray:
    """Return (H,W,3) uint8, uint16 or float32."""
    codes = image.cpu().numpy() if isinstance(image, Tensor) and not image.is_floating_point() else image
    if isinstance(codes, np.ndarray) and codes.dtype in (np.uint8, np.uint16) and codes.ndim == 3:
        if codes.shape[-1] != 3 and codes.shape[0] == 3:
            codes = codes.transpose(1, 2, 0)
        if codes.shape[-1] == 3:
            return np.ascontiguousarray(codes)
    return as_images(image, 3, f"image {index}").permute(1, 2, 0).contiguous().numpy()


def _checked_camera(camera: Mapping[str, Any], number: int) -> dict[str, CameraValue]:
    refuse_unknown_keys(camera, CAMERA_KEYS, "camera")
    values = {key: camera.get(key) for key in CAMERA_KEYS}
    f_number = values["f_number"]
    if isinstance(f_number, Sequence) and not isinstance(f_number, str):
        lens = Camera(1.0, f_number, 1.0)  # type: ignore[arg-type] # any sequence is converted
        lens.f_numbers(number)  # as many as images
        values["f_number"] = lens.f_number
    return {
        key: value if value is None or isinstance(value, tuple) else checked_number(value, f"camera.{key}")
        for key, value in values.items()
    }


def _checked_focus_distances(values: Any, number: int, is_bracket: bool) -> tuple[float, ...] | None:
    if values is None and is_bracket:
        raise InputError("images that differ in aperture need focus_distances_m: one per image, perhaps equal ones")
    if values is None:
        return None
    focus = tuple(checked_number(float(value), "focus_distances_m", infinite=True) for value in values)
    if len(focus) != number:
        raise InputError(f"expected {number} focus distances, one per image, got {len(focus)} (focus_distances_m)")
    if len(set(focus)) == 1 and not is_bracket:
        raise InputError(
            f"every focus distance is {focus[0]:.6g} m; depth needs two different ones (focus_distances_m), or different "
            "apertures (camera.f_number)"
        )
    return focus


def _remedies(values: Mapping[str, Any]) -> dict[str, str]:
    """Return how to give each value that is unknown."""
    missing = {f"camera.{key}": f"camera={{{key!r}: NUMBER}}" for key in CAMERA_KEYS if values[key] is None}
    if values["focus_distances_m"] is None:
        missing["focus_distances_m"] = "focus_distances_m=[0.5, 1.0, 2.0]"
    return missing
