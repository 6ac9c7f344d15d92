"""RGB-D images (NYUv2, Middlebury, your own) as scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from sfdfd.errors import InputError, checked_choice, checked_number
from sfdfd.io.files import file_identity
from sfdfd.io.images import list_images, read_array, read_image
from sfdfd.scenes.scene import Scene

__all__ = ["RGBDFolder", "read_depth_m"]

EIGEN_CROP = (45 / 480, 471 / 480, 41 / 640, 601 / 640)
"""Top, bottom, left, right as shares of the image (Eigen, Puhrsch, Fergus, NeurIPS 2014; as in common code)."""


def read_depth_m(path: Path, unit_m: float, holes: Sequence[float]) -> tuple[Float[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Read depth in metres and the mask of known pixels. Holes get the median, so that the image can be rendered."""
    array = read_array(path)
    if array.ndim != 2:
        raise InputError(f"{path}: expected a depth image of one channel, got shape {array.shape}")
    values = array.astype(np.float64)
    known = np.isfinite(values) & (values > 0) & ~np.isin(values, list(holes))
    if not known.any():
        raise InputError(f"{path}: no pixel has a depth (data.holes={list(holes)}, data.depth_unit_m={unit_m})")
    metres = np.where(known, values, np.median(values[known])) * unit_m
    return torch.from_numpy(metres.astype(np.float32)), torch.from_numpy(known)


class RGBDFolder(Dataset):
    """``root/rgb/NAME.*`` with ``root/depth/NAME.*``, each pair a :class:`Scene`.

    Args:
        root: the folder.
        depth_unit_m: metres per unit of the depth files (0.001: millimetres).
        holes: stored values that mean "unknown", besides 0 and NaN.
        names: file stems to use, in this order; all by default.
        resize: factor on image and depth; the caller resizes the camera's pixel pitch.
        crop: [left, top, right, bottom] pixels to cut off the stored images.
        evaluation_crop: "eigen" marks depth outside of Eigen et al.'s crop of NYUv2 (rows 45 to 471, columns 41 to 601 of
            480 x 640) as unknown; nothing is cut off.
        mask_folder: folder beside ``depth`` with depth whose holes are unknown, too (NYUv2's ``raw_depth``, where ``depth``
            is in-painted).
    """

    def __init__(
        self,
        root: str | Path,
        depth_unit_m: float = 0.001,
        holes: Sequence[float] = (0,),
        names: Sequence[str] | None = None,
        resize: float = 1.0,
        crop: Sequence[int] = (0, 0, 0, 0),
        evaluation_crop: str | None = None,
        mask_folder: str | None = None,
    ) -> None:
        self.root = Path(root)
        if len(crop) != 4 or any(isinstance(c, bool) or not isinstance(c, int) or c < 0 for c in crop):
            raise InputError(f"expected crop as [left, top, right, bottom] pixels, got {list(crop)} (data.crop)")
        if evaluation_crop is not None:
            checked_choice(evaluation_crop, "evaluation_crop (data.evaluation_crop)", ("eigen", None))
        self.crop, self.evaluation_crop, self.mask_folder = tuple(crop), evaluation_crop, mask_folder
        if mask_folder is not None and not (self.root / mask_folder).is_dir():
            raise InputError(f"{self.root / mask_folder}: no such folder (data.mask_folder)")
        self.depth_unit_m = checked_number(depth_unit_m, "depth_unit_m (data.depth_unit_m)")
        self.resize = checked_number(resize, "resize (data.resize)")
        self.holes = tuple(holes)
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
        """Map each file stem to its (rgb file, depth file), sorted.

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
        """Return what the scene depends on; its seed is the index."""
        name, rgb, depth = self.files[index]
        files = [rgb, depth, *([self._mask_file(name)] if self.mask_folder else [])]
        options = [self.depth_unit_m, self.holes, self.resize, self.crop, self.evaluation_crop, self.mask_folder]
        return [name, index, options, [file_identity(file) for file in files]]

    def _mask_file(self, name: str) -> Path:
        assert self.mask_folder is not None
        files = [path for path in (self.root / self.mask_folder).glob(f"{name}.*") if path.stem == name]
        if not files:
            raise InputError(f"{self.root / self.mask_folder}: no depth of the name {name} (data.mask_folder)")
        return files[0]

    def __getitem__(self, index: int) -> Scene:
        name, rgb, depth = self.files[index]
        aif = read_image(rgb)
        depth_m, known = read_depth_m(depth, self.depth_unit_m, self.holes)
        if aif.shape[-2:] != depth_m.shape:
            raise InputError(f"{rgb}: {tuple(aif.shape[-2:])} pixels, but its depth has {tuple(depth_m.shape)}")
        if self.mask_folder is not None:
            mask = read_depth_m(self._mask_file(name), self.depth_unit_m, self.holes)[1]
            if mask.shape != known.shape:
                raise InputError(f"{self._mask_file(name)}: another size than {depth} (data.mask_folder)")
            known = known & mask
        if self.evaluation_crop is not None:
            known = known & _eigen_mask(known)
        left, top, right, bottom = self.crop
        height, width = depth_m.shape
        if left + right > width - 16 or top + bottom > height - 16:
            raise InputError(
                f"{rgb}: crop {list(self.crop)} leaves less than 16 pixels of {width} x {height} (data.crop)"
            )
        part = (..., slice(top, height - bottom), slice(left, width - right))
        aif, depth_m, known = (value[part].contiguous() for value in (aif, depth_m, known))
        if self.resize != 1.0:
            aif, depth_m, known = _resized(aif, depth_m, known, self.resize)
        return Scene(aif, depth_m, known, name, seed=index)


def _eigen_mask(like: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    height, width = like.shape
    top, bottom, left, right = (
        round(share * side) for share, side in zip(EIGEN_CROP, (height, height, width, width), strict=True)
    )
    inside = torch.zeros_like(like)
    inside[top:bottom, left:right] = True
    return inside


def _resized(aif: Tensor, depth_m: Tensor, known: Tensor, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Resize colours by area averaging, depth and mask by nearest pixel."""
    size = [max(1, round(side * factor)) for side in depth_m.shape]
    aif = F.interpolate(aif[None], size=size, mode="area" if factor < 1 else "bilinear")[0]
    depth_m = F.interpolate(depth_m[None, None], size=size, mode="nearest-exact")[0, 0]
    known = F.interpolate(known[None, None].float(), size=size, mode="nearest-exact")[0, 0] > 0.5
    return aif, depth_m, known
