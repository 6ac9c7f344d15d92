"""Prepared stacks: folders of slices with a ``stack.yaml`` that describes the camera, and perhaps ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from sfdfd.errors import InputError
from sfdfd.io.files import file_identity
from sfdfd.io.images import list_images, to_float
from sfdfd.optics.blur_model import BlurModel
from sfdfd.photographs.read import read_photographs
from sfdfd.photographs.slice_files import refuse_identical
from sfdfd.stack import FocalStack

__all__ = ["StackFolders", "folders_named", "read_stack", "stack_folders"]


def read_stack(
    folder: str | Path,
    overrides: Mapping[str, Any] | None = None,
    holdout: Any = None,
    optics: BlurModel | Mapping[str, Any] | None = None,
) -> FocalStack:
    """Read a stack of aligned slices with known camera and focus distances.

    Args:
        folder: aligned slices and their ``stack.yaml``.
        overrides: keys of ``stack.yaml``, which come before the file.
        holdout: slices whose focus distances do not count for the depth range; all slices are returned.
        optics: how the slices are blurred, for keys that ``optics:`` in ``stack.yaml`` does not set.

    Returns:
        A batch of one.

    Raises:
        InputError: a value is missing or wrong; names the file or key.
    """
    photographs = read_photographs(folder, overrides, holdout)
    for key, remedy in photographs.missing.items():
        raise InputError(f"{Path(folder) / 'stack.yaml'}: {key} is missing; give it: {remedy}")
    refuse_identical(photographs.images, photographs.files)
    camera = photographs.known_camera()
    kept, _ = photographs.split_left_out()
    assert camera is not None and kept.focus_distances_m is not None and photographs.focus_distances_m is not None
    near_m, far_m = kept.nominal_depth_range_m
    truth: dict[str, Any] = {}
    if photographs.depth_m is not None:
        depth_m = torch.from_numpy(photographs.depth_m)
        truth["valid"] = torch.isfinite(depth_m) & (depth_m >= near_m) & (depth_m <= far_m)
        truth["depth_m"] = torch.where(truth["valid"], depth_m, depth_m.new_tensor(near_m))
    if photographs.aif is not None:
        truth["aif"] = to_float(photographs.aif)
    stack = FocalStack.single(
        photographs.as_tensor(),
        photographs.focus_distances_m,
        camera,
        near_m,
        far_m,
        name=photographs.name,
        side=photographs.side,
        **truth,
    )
    blur = BlurModel().updated(optics).updated(photographs.optics)
    return stack.with_optics(blur) if blur.known() else stack


def stack_folders(root: str | Path) -> list[Path]:
    """Return every stack folder below ``root``, sorted, or ``root`` itself if it holds slices.

    Raises:
        InputError: there is no such folder, or no stack in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder (data.root)")
    if (root / "stack.yaml").exists() or list_images(root):
        return [root]
    below = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))
    folders = [path for path in below if (path / "stack.yaml").exists() or len(list_images(path)) > 1]
    if not folders:
        raise InputError(f"{root}: neither slices nor folders with a stack.yaml (data.root)")
    return folders


def folders_named(root: Path, names: Sequence[str] | None) -> list[Path]:
    """Return the stack folders of these names, in their order; all for None.

    Raises:
        InputError: one of them does not exist.
    """
    folders = stack_folders(root)
    if names is None:
        return folders
    by_name = {folder.name: folder for folder in folders}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise InputError(f"{root}: the split names {len(missing)} stacks that are not there, first {missing[0]}")
    return [by_name[name] for name in names]


class StackFolders(Dataset):
    """The stacks below ``root``, or ``root`` itself.

    Args:
        root: a stack folder, or a folder of stack folders.
        overrides: keys of ``stack.yaml`` that are replaced in all of them.
        names: folders to use, in this order; all by default.
        read: reads a stack from a folder and the overrides.
    """

    def __init__(
        self,
        root: str | Path,
        overrides: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
        read: Callable[[Path, Mapping[str, Any]], FocalStack] = read_stack,
    ) -> None:
        self.read, self.overrides = read, dict(overrides or {})
        self.folders = folders_named(Path(root), names)

    def __len__(self) -> int:
        return len(self.folders)

    def identity(self, index: int) -> list[Any]:
        """Return what the sample depends on: every file of its folder."""
        return [file_identity(path) for path in sorted(self.folders[index].rglob("*")) if path.is_file()]

    def __getitem__(self, index: int) -> FocalStack:
        return self.read(self.folders[index], self.overrides)
