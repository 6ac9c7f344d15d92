"""The photographs that ``stack=`` names: a folder, or a stack for whoever has none at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
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
    """A small stack of a procedural scene, as a camera would have saved it: f/8, 50 mm, five slices, a disc in linear light
    with occlusion, 8 bits.

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


def find_photographs(stack: Any, said: Mapping[str, Any]) -> Photographs:
    """The photographs in a folder, or the example.

    Args:
        stack: a folder, a video, or "example".
        said: what the command line says of the folder's photographs, by the keys of ``stack.yaml``, ``holdout`` and
            ``slices``; others are passed over.

    Raises:
        InputError: none is named, or they cannot be read.
    """
    if stack is None:
        raise InputError("give the folder with the slices, or a video: stack=DIR (or stack=example)")
    if str(stack) == "example":
        return _example_read(said)
    return _read(Path(str(stack)), said)


def _read(folder: Path, said: Mapping[str, Any]) -> Photographs:
    overrides = {key: said.get(key) for key in STACK_KEYS}
    return read_photographs(folder, overrides, said.get("holdout"), said.get("slices", "all"))


def _example_read(said: Mapping[str, Any]) -> Photographs:
    """The example from a folder of its own, so that every key means what it means for other folders."""
    example = example_photographs()
    with tempfile.TemporaryDirectory(prefix="sfdfd_") as name:
        folder = Path(name) / "example"
        folder.mkdir()
        for file, image in zip(example.files, example.images, strict=True):
            write_image(folder / file.name, to_float(image))
        described: dict[str, Any] = {
            "camera": dict(example.camera),
            "focus_distances_m": list(example.focus_distances_m or ()),
            "near_m": example.near_m,
            "far_m": example.far_m,
            "files": [file.name for file in example.files],
        }
        if said.get("files") is not None:  # some of them: their own distances
            names = [Path(str(file)).name for file in said["files"]]
            places = [described["files"].index(name) for name in names if name in described["files"]]
            described["focus_distances_m"] = [described["focus_distances_m"][place] for place in places]
        (folder / "stack.yaml").write_text(yaml.safe_dump(described))
        try:
            read = _read(folder, said)
        except InputError as error:
            raise InputError(
                str(error).replace(f"{folder}/stack.yaml", EXAMPLE).replace(str(folder), EXAMPLE)
            ) from None
        images = tuple(read.images)
    sources = {key: value.replace(str(folder / "stack.yaml"), EXAMPLE) for key, value in read.sources.items()}
    files = tuple(Path(file.name) for file in read.files)
    return replace(read, files=files, images=images, sources=sources)
