"""DDFF 12-Scene (Hazirbas et al., ACCV 2018): refocused Lytro light fields, in the HDF5 of ddff-pytorch or DFV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.datasets.sources.base import SCRATCH, DataSource, write_splits, write_stack
from sfdfd.datasets.sources.hdf5 import numeric_dataset, open_hdf5, read_entry
from sfdfd.errors import InputError
from sfdfd.io.downloads import RemoteFile
from sfdfd.io.files import Report

__all__ = ["DDFF12", "depth_of_disparity_m"]

FOCAL_PX = 521.4052
"""Focal length of the sub-aperture images in pixels."""
SPLITS = ("train", "val", "test")
BASELINE_M = 1982.0250823695178 / 7317.020641763665 * 1e-3
"""Between neighbouring sub-aperture images (Lytro calibration of ddff-toolbox: K2 / flens)."""
DISPARITIES = (0.28, 0.02)
"""Of the first (near) and the last (far) slice, in pixels; the slices are evenly spaced between them."""
VIEWS = 9
"""Sub-aperture images across that a slice averages: the blur radius is VIEWS / 2 pixels per pixel of disparity."""


def depth_of_disparity_m(disparity: np.ndarray | float) -> np.ndarray:
    """Convert disparity in pixels between neighbouring views to depth in metres, or the reverse; 0 (unknown) stays 0."""
    with np.errstate(invalid="ignore"):
        disparity = np.asarray(disparity, dtype=np.float64)
    return np.divide(FOCAL_PX * BASELINE_M, disparity, out=np.zeros_like(disparity), where=disparity > 0)


def camera() -> dict[str, float]:
    """Return the thin lens with the blur of averaging VIEWS views: f^2 / (2 N p) = VIEWS / 2 * FOCAL_PX * BASELINE_M.

    A Lytro Illum at 9.5 mm; refocusing acts as an aperture VIEWS baselines wide.
    """
    focal_m = 0.0095
    return {"focal_length_m": focal_m, "f_number": focal_m / (VIEWS * BASELINE_M), "pixel_pitch_m": focal_m / FOCAL_PX}


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """Convert ``stack_train``, ``stack_val`` (N x 10 x H x W x 3, or colour before H, 0 to 255) and ``disp_train``,
    ``disp_val`` (N x H x W pixels, 0 unknown).

    The splits are those of the file: DFV's 4 + 2 scenes, or the original 6 with a separate test set.
    """
    splits: dict[str, list[str]] = {}
    with open_hdf5(paths, folder / SCRATCH, report, "ddff-dataset-trainval.h5 or DFV's my_ddff_trainVal.h5") as file:
        data = _checked_datasets(file)
        total, done = sum(len(stacks) for stacks, _ in data.values()), 0
        near_m, far_m = (float(value) for value in depth_of_disparity_m(np.array(DISPARITIES)))
        for split, (stacks, disparities) in data.items():
            focus_m = depth_of_disparity_m(np.linspace(*DISPARITIES, stacks.shape[1]))
            splits[split] = [f"{split}_{index:04d}" for index in range(len(stacks))]
            for index, name in enumerate(splits[split]):
                slices = _read_slices(stacks, index, file.filename)
                depth_m = None
                if disparities is not None:
                    depth_m = depth_of_disparity_m(np.squeeze(read_entry(disparities, index)))
                write_stack(folder, name, list(slices), camera(), focus_m, 0.9 * near_m, 1.1 * far_m, depth_m)
                done += 1
                report(done, total)
    splits.setdefault("test", splits.get("val", []))
    write_splits(folder, splits)
    return done


def _checked_datasets(file: Any) -> dict[str, tuple[Any, Any | None]]:
    """Return stacks and disparities (or None) of the file's splits, not yet read."""
    pairs = {split: [numeric_dataset(file, f"{key}_{split}") for key in ("stack", "disp")] for split in SPLITS}
    data = {split: (stacks, disparities) for split, (stacks, disparities) in pairs.items() if stacks is not None}
    if "train" not in data:
        raise InputError(f"source={file.filename}: expected stack_train and disp_train, found {sorted(data)}")
    for split, (stacks, disparities) in data.items():
        _check(file.filename, split, stacks, disparities)
    return data


def _check(source: str, split: str, stacks: Any, disparities: Any | None) -> None:
    if stacks.ndim != 5 or 3 not in (stacks.shape[-1], stacks.shape[2]) or stacks.shape[1] < 2 or min(stacks.shape) < 1:
        raise InputError(
            f"source={source}: expected stack_{split} N x S x H x W x 3 or N x S x 3 x H x W, got {stacks.shape}"
        )
    if disparities is None:
        return
    size = stacks.shape[2:4] if stacks.shape[-1] == 3 else stacks.shape[3:]
    if tuple(side for side in disparities.shape[1:] if side != 1) != tuple(side for side in size if side != 1):
        raise InputError(f"source={source}: expected disp_{split} N x H x W, got {disparities.shape}")
    if len(disparities) != len(stacks):
        raise InputError(f"source={source}: {len(stacks)} of stack_{split}, but {len(disparities)} of disp_{split}")


def _read_slices(stacks: Any, index: int, source: str) -> np.ndarray:
    """Read the slices of a stack, (S,H,W,3) uint8."""
    values = read_entry(stacks, index)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and values.max() > 1):
        key = stacks.name.lstrip("/")
        raise InputError(f"source={source}: {key}[{index}]: expected finite values from 0 to 255")
    if stacks.shape[-1] != 3:
        values = values.transpose(0, 2, 3, 1)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


DDFF12 = DataSource(
    name="ddff12",
    title="DDFF 12-Scene: light fields of twelve rooms, refocused",
    citation="C. Hazirbas, S. G. Soyer, M. C. Staab, L. Leal-Taixe, D. Cremers: Deep Depth From Focus, ACCV 2018",
    licence="CC BY 4.0 (dataset page)",
    home="https://hazirbas.com/datasets/ddff12scene/; my_ddff_trainVal.h5 (DFV's split) from https://github.com/fuy34/DFV",
    size="12 GB (trainval), 7 GB (DFV)",
    files=(RemoteFile("my_ddff_trainVal.h5"),),
    uncertain="light-field refocusing is not a thin lens: f-number and pitch reproduce its mean blur only; published "
    "figures are RMSE of disparity, so they stand beside no depth metric of ours",
    layout="stacks",
    convert=convert,
)
