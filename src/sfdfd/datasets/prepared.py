"""Scenes from the true AIF and depth of prepared stacks, for rendering with another camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from sfdfd.datasets.stack_folders import folders_named
from sfdfd.errors import InputError
from sfdfd.io.files import file_identity
from sfdfd.io.images import to_float
from sfdfd.photographs.read import read_photographs
from sfdfd.scenes.scene import Scene

__all__ = ["PreparedScenes"]


class PreparedScenes(Dataset):
    """Scenes of prepared stacks' true AIF and depth; their slices are not used.

    Args:
        root: a stack folder, or a folder of stack folders, with ``truth`` in each ``stack.yaml``.
        names: folders to use, in this order; all by default.
    """

    def __init__(self, root: str | Path, names: Sequence[str] | None = None) -> None:
        self.folders = folders_named(Path(root), names)

    def __len__(self) -> int:
        return len(self.folders)

    def identity(self, index: int) -> list[Any]:
        """Return what the scene depends on; its seed is the index."""
        return [index, *(file_identity(path) for path in sorted(self.folders[index].rglob("*")) if path.is_file())]

    def __getitem__(self, index: int) -> Scene:
        photographs = read_photographs(self.folders[index])
        if photographs.depth_m is None or photographs.aif is None:
            raise InputError(
                f"{self.folders[index] / 'stack.yaml'}: rendering anew needs truth: depth_m and aif; this stack has "
                f"{'no AIF' if photographs.aif is None else 'no depth'}"
            )
        depth_m = torch.from_numpy(photographs.depth_m)
        known = torch.isfinite(depth_m) & (depth_m > 0)
        filled = torch.where(known, depth_m, depth_m[known].median() if bool(known.any()) else 1.0)
        return Scene(to_float(photographs.aif), filled, known, photographs.name, seed=index)
