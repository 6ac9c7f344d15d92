"""Additional files of a prediction, by name: ``outputs=[exr,portrait,...]``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.optics.render import Renderer
from sfdfd.report.interchange import require_exr, require_trimesh, write_depth_exr, write_mesh
from sfdfd.report.portrait import write_portrait
from sfdfd.report.predicted_stack import PredictedStack
from sfdfd.report.refocus import write_focus_pull

__all__ = ["OUTPUTS", "OUTPUT_FILES", "parse_outputs", "relative_depth", "write_outputs"]

LARGEST_ARRAY_BYTES = 10e6
"""Larger arrays of confidence and defocus are written only if they are among the outputs."""


def parse_outputs(value: Any) -> tuple[str, ...]:
    """Return the names of outputs in the order of :data:`OUTPUTS`.

    Args:
        value: names, "all", or None for none.

    Raises:
        InputError: an output is unknown, or the library that writes it is not installed.
    """
    names = list(OUTPUTS) if value == "all" else [] if value is None else value
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or any(not isinstance(name, str) or name not in OUTPUTS for name in names):
        raise InputError(f"outputs: expected all, or a list of {', '.join(OUTPUTS)}, got {value!r}")
    for name, require_library in (("exr", require_exr), ("glb", require_trimesh)):
        if name in names:
            require_library()
    return tuple(name for name in OUTPUTS if name in names)


def write_outputs(folder: Path, predicted: PredictedStack, renderer: Renderer, names: Sequence[str]) -> dict[str, Any]:
    """Write the named outputs, and the arrays of confidence and defocus where they are small.

    Returns:
        Facts by name for ``prediction.json``: with ``file``, or with the reason as ``not_written``.
    """
    pixels = predicted.full.depth_m[0].numel()
    array_bytes = {"confidence": 2 * pixels, "defocus_px": 4 * len(predicted.focus) * pixels}
    facts = {}
    for name, write in OUTPUTS.items():
        if name in names or array_bytes.get(name, math.inf) <= LARGEST_ARRAY_BYTES:
            facts[name] = write(folder, predicted, renderer)
        elif name in array_bytes:
            facts[name] = {"not_written": f"{array_bytes[name] / 1e6:.0f} MB; outputs=[{name}] writes it all the same"}
    return facts


def relative_depth(predicted: PredictedStack) -> Tensor:
    """Return (H,W) relative depth: 0 in focus in the first slice, 1 in focus in the last."""
    first, last = predicted.focus[0], predicted.focus[-1]
    return 1 - normalized_inverse_depth(predicted.full.depth_m[0].cpu(), float(first), float(last)).float()


def _exr(folder: Path, predicted: PredictedStack, renderer: Renderer) -> dict[str, Any]:
    if predicted.relative:
        comment = "relative depth: 0 in focus in the first slice, 1 in the last"
        write_depth_exr(folder / "relative_depth.exr", relative_depth(predicted), comment)
        return {"file": "relative_depth.exr", "channel": "Z"}
    write_depth_exr(folder / "depth.exr", predicted.full.depth_m[0], "metres along the optical axis")
    return {"file": "depth.exr", "channel": "Z"}


def _portrait(folder: Path, predicted: PredictedStack, renderer: Renderer) -> dict[str, Any]:
    camera = predicted.facts["camera"]
    ends = write_portrait(
        folder / "portrait.jpg",
        predicted.full.depth_m[0].cpu(),
        predicted.full.aif[0].cpu(),
        metric=not predicted.relative,
        focal_length_m=camera["focal_length_m"],
        f_number=predicted.camera.widest_f_number if isinstance(camera["f_number"], list) else camera["f_number"],
        exif=predicted.exif,
    )
    return {"file": "portrait.jpg", **ends}


def _glb(folder: Path, predicted: PredictedStack, renderer: Renderer) -> dict[str, Any]:
    if predicted.relative:
        return {"not_written": "relative depth has no shape"}
    depth_m, aif = predicted.full.depth_m[0].cpu(), predicted.full.aif[0].cpu()
    focal_px, _ = predicted.focal_length_px
    return {
        "file": "scene.glb",
        **write_mesh(
            folder / "scene.glb",
            depth_m,
            aif,
            focal_px,
            principal_point_px=predicted.principal_point_px,
            keep=predicted.covered,
        ),
    }


def _slice_index(folder: Path, predicted: PredictedStack, renderer: Renderer) -> dict[str, Any]:
    values = predicted.slice_index
    assert values is not None  # it is an output
    dtype = np.uint8 if int(values.max()) < 256 else np.uint16
    iio.imwrite(folder / "slice_index.png", values.cpu().numpy().astype(dtype))
    return {"file": "slice_index.png"}


def _refocus(folder: Path, predicted: PredictedStack, renderer: Renderer) -> dict[str, Any]:
    working, camera = predicted.working, predicted.stack.camera[0].widest()
    count = write_focus_pull(folder / "refocus.webp", working.aif, working.depth_m, camera, renderer)
    return {"file": "refocus.webp", "pictures": count}


def _confidence(folder: Path, predicted: PredictedStack, renderer: Renderer) -> dict[str, Any]:
    assert predicted.full.confidence is not None
    np.save(folder / "confidence.npy", predicted.full.confidence[0].cpu().numpy().astype(np.float16))
    return {"file": "confidence.npy"}


def _defocus_px(folder: Path, predicted: PredictedStack, renderer: Renderer) -> dict[str, Any]:
    """Write one slice at a time, so that memory does not grow with their number."""
    depth_m = predicted.full.depth_m[0].cpu()
    shape = (len(predicted.focus), *depth_m.shape)
    maps = np.lib.format.open_memmap(folder / "defocus_px.npy", "w+", np.float32, shape)
    cameras = predicted.camera.per_slice(len(predicted.focus))
    for index, (distance, camera) in enumerate(zip(predicted.focus, cameras, strict=True)):
        maps[index] = camera.blur_radius_px(depth_m, distance, signed=True).numpy()
    maps.flush()
    return {"file": "defocus_px.npy"}


OUTPUTS: dict[str, Callable[[Path, PredictedStack, Renderer], dict[str, Any]]] = {
    "exr": _exr,
    "portrait": _portrait,
    "glb": _glb,
    "slice_index": _slice_index,
    "refocus": _refocus,
    "confidence": _confidence,
    "defocus_px": _defocus_px,
}
OUTPUT_FILES = (
    "depth.exr", "relative_depth.exr", "portrait.jpg", "scene.glb", "slice_index.png", "refocus.webp", "confidence.npy",
    "defocus_px.npy",
)  # fmt: skip
"""Removed before a new prediction is written: files of an earlier one would contradict it."""
