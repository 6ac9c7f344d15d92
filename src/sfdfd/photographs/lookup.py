"""Find the photographs that ``stack=`` names: a folder, a video, or the built-in example."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sfdfd.errors import InputError
from sfdfd.io.images import to_bytes, to_float, write_image
from sfdfd.optics.camera import Camera
from sfdfd.photographs.read import STACK_KEYS, Photographs, read_photographs
from sfdfd.scenes.example_stack import example_stack

__all__ = ["example_photographs", "find_photographs"]

EXAMPLE = "the example itself"
SCENE = (0, 2_000_013)
"""Seed and number of the example's scene."""


def example_photographs(height: int = 240, width: int = 320) -> Photographs:
    """Return a small stack of a procedural scene, as a camera would have saved it.

    50 mm, f/8, five slices of 8 bits; a disc PSF in linear light with occlusion.

    Examples:
        >>> example_photographs(48, 64).as_tensor().shape
        torch.Size([5, 3, 48, 64])
    """
    camera, near_m, far_m = Camera(0.05, 8.0, 1.2e-5), 0.5, 10.0
    focus = (1.0, 1.5, 2.5, 4.0, 6.0)
    seed, index = SCENE
    stack = example_stack(
        index, height, width, focus, camera, near_m, far_m, seed, weighting="occlusion", psf="disc", linear_light=True
    )
    images = to_bytes(stack.images[0]).permute(0, 2, 3, 1).numpy()
    return Photographs(
        name="example",
        files=tuple(Path(f"example_{value}m.png") for value in focus),
        images=tuple(np.ascontiguousarray(image) for image in images),
        camera=camera.as_dict(),
        focus_distances_m=focus,
        near_m=near_m,
        far_m=far_m,
        sources=dict.fromkeys((*camera.as_dict(), "focus_distances_m", "near_m", "far_m"), EXAMPLE),
    )


def find_photographs(stack: Any, settings: Mapping[str, Any]) -> Photographs:
    """Read the photographs in a folder, or the example.

    Args:
        stack: a folder, a video, or "example".
        settings: overrides by the keys of ``stack.yaml``, ``holdout`` and ``slices``; other keys are ignored.

    Raises:
        InputError: ``stack`` is None, or the photographs cannot be read.
    """
    if stack is None:
        raise InputError("give the folder with the slices, or a video: stack=DIR (or stack=example)")
    if str(stack) == "example":
        return _read_example(settings)
    return _read(Path(str(stack)), settings)


def _read(folder: Path, settings: Mapping[str, Any]) -> Photographs:
    overrides = {key: settings.get(key) for key in STACK_KEYS}
    return read_photographs(folder, overrides, settings.get("holdout"), settings.get("slices", "all"))


def _read_example(settings: Mapping[str, Any]) -> Photographs:
    """Write the example to a temporary folder and read it, so that every key works as it does for other folders."""
    with tempfile.TemporaryDirectory(prefix="sfdfd_") as name:
        folder = Path(name) / "example"
        folder.mkdir()
        _write_example(folder, settings.get("files"))
        try:
            photographs = _read(folder, settings)
        except InputError as error:
            message = str(error).replace(f"{folder}/stack.yaml", EXAMPLE).replace(str(folder), EXAMPLE)
            raise InputError(message) from None
        images = tuple(photographs.images)  # before the folder is removed
    sources = {key: value.replace(str(folder / "stack.yaml"), EXAMPLE) for key, value in photographs.sources.items()}
    files = tuple(Path(file.name) for file in photographs.files)
    return replace(photographs, files=files, images=images, sources=sources)


def _write_example(folder: Path, selected_files: Sequence[Any] | None) -> None:
    """Write the slices of the example and a ``stack.yaml`` with the focus distances of the selected files."""
    example = example_photographs()
    for file, image in zip(example.files, example.images, strict=True):
        write_image(folder / file.name, to_float(image))
    distances = {file.name: focus for file, focus in zip(example.files, example.focus_distances_m or (), strict=True)}
    focus_m = list(distances.values())
    if selected_files is not None:
        names = [Path(str(file)).name for file in selected_files]
        focus_m = [distances[name] for name in names if name in distances]
    description: dict[str, Any] = {
        "camera": dict(example.camera),
        "focus_distances_m": focus_m,
        "near_m": example.near_m,
        "far_m": example.far_m,
        "files": list(distances),
    }
    (folder / "stack.yaml").write_text(yaml.safe_dump(description))
