"""NYUv2's labelled images, ``nyu_depth_v2_labeled.mat`` (Silberman et al., ECCV 2012), to an RGB-D folder."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from sfdfd.datasets.sources.base import (
    SCRATCH,
    DataSource,
    dataset,
    frame,
    opened_hdf5,
    write_depth,
    write_rgbd,
    write_splits,
)
from sfdfd.errors import InputError
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report

__all__ = ["NYU", "nyu_split"]


def nyu_split(split: str) -> list[str]:
    """Names (0-based index in the file, four digits) of "train" (715), "val" (80, the last tenth of the official training
    images) or "test" (the official 654)."""
    text = resources.files("sfdfd.datasets.sources").joinpath(f"splits/nyu_{split}.txt").read_text()
    return text.split()


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """The file is HDF5 as MATLAB 7.3 stores it: images N x 3 x 640 x 480 uint8, depths and rawDepths N x 640 x 480 float32,
    transposed; it is read frame by frame. Frames are reduced to half size, RGB by averaging, depth by taking one pixel, to
    the 320 x 240 of DEReD's generator. ``raw_depth/`` keeps the holes of the sensor."""
    with opened_hdf5(paths, folder / SCRATCH, report, "nyu_depth_v2_labeled.mat") as file:
        images, depths, raw = (dataset(file, key) for key in ("images", "depths", "rawDepths"))
        if (
            images is None
            or depths is None
            or images.ndim != 4
            or images.shape[1] != 3
            or min(images.shape) < 1
            or min(images.shape[2:]) < 2
            or images.dtype != np.uint8
            or any(data is not None and data.shape != (images.shape[0], *images.shape[2:]) for data in (depths, raw))
        ):
            raise InputError(
                f"source={file.filename}: expected images N x 3 x W x H uint8, and depths and rawDepths N x W x H, as "
                "NYUv2 has"
            )
        count = images.shape[0]
        for index in range(count):
            rgb = frame(images, index).transpose(2, 1, 0)
            height, width = (side - side % 2 for side in rgb.shape[:2])
            halves = rgb[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(np.float32).mean((1, 3))
            name = f"{index:04d}"
            write_rgbd(folder, name, halves.round().astype(np.uint8), frame(depths, index).T[:height:2, :width:2])
            if raw is not None:
                write_depth(folder / "raw_depth" / f"{name}.png", frame(raw, index).T[:height:2, :width:2])
            report(index + 1, count)
    names = {f"{index:04d}" for index in range(count)}
    write_splits(folder, {split: [n for n in nyu_split(split) if n in names] for split in ("train", "val", "test")})
    return count


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
