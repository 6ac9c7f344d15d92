"""NYUv2's labelled images, ``nyu_depth_v2_labeled.mat`` (Silberman et al., ECCV 2012), to an RGB-D folder."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.datasets.sources.base import SCRATCH, DataSource, write_depth, write_rgbd, write_splits
from sfdfd.datasets.sources.hdf5 import numeric_dataset, open_hdf5, read_entry
from sfdfd.errors import InputError
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report

__all__ = ["NYU", "nyu_split"]


def nyu_split(split: str) -> list[str]:
    """Return the names (0-based index in the file, four digits) of "train" (715), "val" (80, the last tenth of the official
    training images) or "test" (the official 654)."""
    text = resources.files("sfdfd.datasets.sources").joinpath(f"splits/nyu_{split}.txt").read_text()
    return text.split()


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """Convert the HDF5 file of MATLAB 7.3, image by image: images N x 3 x 640 x 480 uint8, depths and rawDepths
    N x 640 x 480 float32, transposed.

    Images are reduced to half size, the 320 x 240 of DEReD's generator: RGB by averaging, depth by taking one pixel.
    ``raw_depth/`` keeps the sensor's holes.
    """
    with open_hdf5(paths, folder / SCRATCH, report, "nyu_depth_v2_labeled.mat") as file:
        images, depths, raw_depths = _checked_datasets(file)
        count = images.shape[0]
        for index in range(count):
            name = f"{index:04d}"
            rgb = _half_size(read_entry(images, index).transpose(2, 1, 0))
            write_rgbd(folder, name, rgb, _half_size_depth(depths, index))
            if raw_depths is not None:
                write_depth(folder / "raw_depth" / f"{name}.png", _half_size_depth(raw_depths, index))
            report(index + 1, count)
    names = {f"{index:04d}" for index in range(count)}
    write_splits(folder, {split: [n for n in nyu_split(split) if n in names] for split in ("train", "val", "test")})
    return count


def _checked_datasets(file: Any) -> tuple[Any, Any, Any | None]:
    """Return images, depths and rawDepths (None if missing), not yet read."""
    images, depths, raw_depths = (numeric_dataset(file, key) for key in ("images", "depths", "rawDepths"))
    if images is None or depths is None or not _are_images(images):
        raise _not_nyu(file)
    for data in (depths, raw_depths):
        if data is not None and data.shape != (images.shape[0], *images.shape[2:]):
            raise _not_nyu(file)
    return images, depths, raw_depths


def _are_images(data: Any) -> bool:
    """Return whether data is N x 3 x W x H uint8 with W, H of 2 or more."""
    if data.ndim != 4 or data.dtype != np.uint8:
        return False
    return data.shape[0] >= 1 and data.shape[1] == 3 and min(data.shape[2:]) >= 2


def _not_nyu(file: Any) -> InputError:
    return InputError(
        f"source={file.filename}: expected images N x 3 x W x H uint8, and depths and rawDepths N x W x H, as NYUv2 has"
    )


def _half_size(rgb: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2 pixels, (H,W,3) uint8."""
    height, width = (side - side % 2 for side in rgb.shape[:2])
    blocks = rgb[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(np.float32)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def _half_size_depth(depths: Any, index: int) -> np.ndarray:
    """Take the first pixel of each 2 x 2 block."""
    depth_m = read_entry(depths, index).T
    height, width = (side - side % 2 for side in depth_m.shape)
    return depth_m[:height:2, :width:2]


NYU = DataSource(
    name="nyu",
    title="NYU Depth V2, the 1449 labelled images",
    citation="N. Silberman, D. Hoiem, P. Kohli, R. Fergus: Indoor Segmentation and Support Inference from RGBD Images, "
    "ECCV 2012",
    licence="research only (no licence text is published)",
    home="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
    size="2.8 GB",
    files=(
        RemoteFile(
            "nyu_depth_v2_labeled.mat",
            "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat",
            "2d724b0c0ab358aa1ce5df855e5bd14a2279ab7202efe22f32a30d612dcb86aa",
        ),
    ),
    uncertain="the checksum is quoted from others' scripts; the server has been slow and unreachable at times",
    layout="rgbd",
    convert=convert,
)
