"""Cache of stacks on disk, keyed by everything that a stack depends on."""

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
"""Version of the stored content; raise it when synthesis or alignment changes."""
ARRAYS = (
    "images", "focus_distances_m", "near_m", "far_m", "slice_mask", "depth_m", "aif", "valid", "covered", "clipped",
)  # fmt: skip


class CachedStacks(Dataset):
    """A data set that stores its stacks in a folder as safetensors files, which are memory-mapped.

    Args:
        dataset: its ``identity(index)`` tells what a sample depends on.
        folder: any number of data sets and processes may share it.
        protocol: everything else that a stack depends on, as plain values.
        bytes_are_exact: whether images were rounded to 8 bits; they are then stored as bytes.
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
        """Return the file of a stack, which may not exist yet."""
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
            "optics": stack.optics and [None if model is None else model.known() for model in stack.optics],
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
        cameras = tuple(Camera(**camera) for camera in facts["camera"])
        optics = facts["optics"] and tuple(None if model is None else BlurModel(**model) for model in facts["optics"])
        return FocalStack(camera=cameras, name=tuple(facts["name"]), optics=optics, **values)
