"""Stacks on disk, once made: named by everything that they depend on, so that a changed camera never reads an old one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import Dataset

from sfdfd.datasets.protocols import IdentifiedDataset
from sfdfd.errors import InputError
from sfdfd.io.files import atomic_write
from sfdfd.io.images import to_bytes
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["CachedStacks"]

VERSION = 4
"""Of what is stored and how it is made; a change of synthesis or alignment raises it."""
ARRAYS = (
    "images",
    "focus_distances_m",
    "near_m",
    "far_m",
    "slice_mask",
    "depth_m",
    "aif",
    "valid",
    "covered",
    "clipped",
)


class CachedStacks(Dataset):
    """A data set whose stacks are kept in a folder as safetensors files, which are mapped, not parsed.

    Args:
        dataset: has ``identity(index)``: plain values that name the sample and what it is made from.
        folder: shared by any number of data sets and processes.
        protocol: everything else that a stack depends on, as plain values.
        bytes_are_exact: images were rounded to 8 bits, and are stored so.
    """

    def __init__(
        self, dataset: IdentifiedDataset, folder: str | Path, protocol: dict[str, Any], bytes_are_exact: bool
    ) -> None:
        self.dataset, self.folder, self.bytes_are_exact = dataset, Path(folder), bytes_are_exact
        self.protocol = json.dumps([VERSION, protocol], sort_keys=True, default=str)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written to ({error.strerror}) (data.cache)") from None

    def __len__(self) -> int:
        return len(self.dataset)

    def path(self, index: int) -> Path:
        """Where the stack is, or will be."""
        identity = json.dumps(self.dataset.identity(index), default=str)
        key = hashlib.sha256(f"{self.protocol}\n{identity}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def __getitem__(self, index: int) -> FocalStack:
        path = self.path(index)
        if path.is_file():
            return self._read(path)
        stack = self.dataset[index]
        self._write(path, stack)
        return stack

    def _write(self, path: Path, stack: FocalStack) -> None:
        values = {key: getattr(stack, key).contiguous() for key in ARRAYS if getattr(stack, key) is not None}
        if self.bytes_are_exact:
            values["images"] = to_bytes(stack.images)
        facts = {
            "camera": [camera.as_dict() for camera in stack.camera],
            "name": list(stack.name),
            "optics": stack.optics and [None if one is None else one.known() for one in stack.optics],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            save_file(values, part, {"facts": json.dumps(facts)})

    def _read(self, path: Path) -> FocalStack:
        try:
            with safe_open(path, "pt") as content:
                facts = json.loads(content.metadata()["facts"])
                values = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: a broken file in the cache ({error}); remove it (data.cache)") from None
        if values["images"].dtype == torch.uint8:
            values["images"] = values["images"].float().div_(255)
        camera = tuple(Camera(**one) for one in facts["camera"])
        optics = facts["optics"] and tuple(None if one is None else BlurModel(**one) for one in facts["optics"])
        return FocalStack(camera=camera, name=tuple(facts["name"]), optics=optics, **values)
