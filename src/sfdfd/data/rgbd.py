"""RGB-D images (NYUv2, Middlebury, your own) rendered into focal stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from sfdfd.data.cache import file_identity
from sfdfd.data.images import list_images, read_array, read_image
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.stack import FocalStack

__all__ = ["RGBDFolder", "read_depth_m"]


def read_depth_m(
    path: Path, unit_m: float, holes: tuple[float, ...]
) -> tuple[Float[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Depth in metres and the mask of known pixels; holes are filled with the median so that they can be rendered."""
    array = read_array(path)
    if array.ndim != 2:
        raise InputError(f"{path}: expected a depth image of one channel, got shape {array.shape}")
    values = array.astype(np.float64)
    known = np.isfinite(values) & (values > 0) & ~np.isin(values, holes)
    if not known.any():
        raise InputError(f"{path}: no pixel has a depth (data.holes={list(holes)}, data.depth_unit_m={unit_m})")
    metres = np.where(known, values, np.median(values[known])) * unit_m
    return torch.from_numpy(metres.astype(np.float32)), torch.from_numpy(known)


class RGBDFolder(Dataset):
    """``root/rgb/NAME.*`` with ``root/depth/NAME.*``, each pair rendered into a focal stack when it is asked for.

    Args:
        root: the folder.
        synthesis: turns AIF and depth into a :class:`FocalStack`.
        depth_unit_m: metres per unit of the depth files (0.001: millimetres).
        holes: stored values that mean "unknown", besides 0 and NaN.
        names: the file stems to use, in this order; all by default.
        resize: factor applied to image and depth before rendering; the camera's pixel pitch follows.
    """

    def __init__(
        self,
        root: str | Path,
        synthesis: StackSynthesis,
        depth_unit_m: float = 0.001,
        holes: tuple[float, ...] = (0,),
        names: list[str] | None = None,
        resize: float = 1.0,
    ) -> None:
        self.root = Path(root)
        if not depth_unit_m > 0:
            raise InputError(f"expected a positive depth unit, got {depth_unit_m} (data.depth_unit_m)")
        self.resize = float(resize)
        self.synthesis = synthesis if self.resize == 1.0 else synthesis.resized(self.resize)
        self.depth_unit_m, self.holes = float(depth_unit_m), tuple(holes)
        pairs = self.pairs(self.root)
        chosen = list(pairs) if names is None else names
        missing = [name for name in chosen if name not in pairs]
        if missing:
            raise InputError(
                f"{self.root}: the split names {len(missing)} frames that are not there, first {missing[0]}"
            )
        self.files = [(name, *pairs[name]) for name in chosen]

    @staticmethod
    def pairs(root: Path) -> dict[str, tuple[Path, Path]]:
        """Stem -> (rgb file, depth file), sorted.

        Raises:
            InputError: the folders are missing or empty, or an image has no depth.
        """
        for part in ("rgb", "depth"):
            if not (root / part).is_dir():
                raise InputError(
                    f"{root}: no folder '{part}'; an RGB-D data set is rgb/NAME.png with depth/NAME.png; give it with "
                    "data.root=DIR, or bring NYUv2 there: python -m sfdfd.prepare data=nyu data.root=DIR"
                )
        depth = {path.stem: path for path in list_images(root / "depth")}
        rgb = list_images(root / "rgb")
        if not rgb:
            raise InputError(f"{root / 'rgb'}: no images (data.root)")
        for path in rgb:
            if path.stem not in depth:
                raise InputError(f"{path}: no depth image of that name in {root / 'depth'}")
        return {path.stem: (path, depth[path.stem]) for path in rgb}

    def __len__(self) -> int:
        return len(self.files)

    def identity(self, index: int) -> list[Any]:
        """What the sample is made from, besides the synthesis (its seed is the index)."""
        name, rgb, depth = self.files[index]
        return [name, index, self.depth_unit_m, self.holes, file_identity(rgb), file_identity(depth)]

    def __getitem__(self, index: int) -> FocalStack:
        name, rgb, depth = self.files[index]
        aif = read_image(rgb)
        depth_m, known = read_depth_m(depth, self.depth_unit_m, self.holes)
        if aif.shape[-2:] != depth_m.shape:
            raise InputError(f"{rgb}: {tuple(aif.shape[-2:])} pixels, but its depth has {tuple(depth_m.shape)}")
        if self.resize != 1.0:
            size = [max(1, round(side * self.resize)) for side in depth_m.shape]
            interpolate = torch.nn.functional.interpolate
            aif = interpolate(aif[None], size=size, mode="area" if self.resize < 1 else "bilinear")[0]
            depth_m = interpolate(depth_m[None, None], size=size, mode="nearest-exact")[0, 0]
            known = interpolate(known[None, None].float(), size=size, mode="nearest-exact")[0, 0] > 0.5
        return self.synthesis(aif, depth_m, valid=known, name=name, seed=index)
