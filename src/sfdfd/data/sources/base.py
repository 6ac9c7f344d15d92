"""What a data set's module provides, and the writers they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import yaml

from sfdfd.data.fetch import RemoteFile, Report
from sfdfd.errors import InputError

__all__ = ["DataSource", "write_rgbd", "write_splits", "write_stack"]


@dataclass(frozen=True)
class DataSource:
    """A published data set.

    Attributes:
        name: as in ``data=NAME``.
        title, citation, licence, home, size: for people.
        files: what is downloaded, or fetched by hand.
        uncertain: what we could not check (nobody can download these sets where this was written).
        layout: "rgbd" or "stacks".
        convert: called with (the files' paths by name, or the one path given by ``source=``; the folder to fill; a report);
            returns the number of samples. Raises InputError where the layout is not the published one.
    """

    name: str
    title: str
    citation: str
    licence: str
    home: str
    size: str
    files: tuple[RemoteFile, ...]
    uncertain: str
    layout: str
    convert: Callable[[Sequence[Path], Path, Report], int]


def write_rgbd(folder: Path, name: str, rgb: np.ndarray, depth_m: np.ndarray, unit_m: float = 0.001) -> None:
    """``rgb/NAME.png`` and ``depth/NAME.png``: (H,W,3) uint8 and metres as 16-bit multiples of ``unit_m``, 0 for unknown."""
    for part in ("rgb", "depth"):
        (folder / part).mkdir(exist_ok=True)
    known = np.isfinite(depth_m) & (depth_m > 0)
    stored = np.where(known, np.clip(np.round(np.where(known, depth_m, 0) / unit_m), 1, 65535), 0)
    iio.imwrite(folder / "rgb" / f"{name}.png", rgb)
    iio.imwrite(folder / "depth" / f"{name}.png", stored.astype(np.uint16))


def write_stack(
    folder: Path,
    name: str,
    slices: Sequence[np.ndarray],
    camera: Mapping[str, float | None],
    focus_distances_m: Iterable[float] | None,
    near_m: float | None,
    far_m: float | None,
    depth_m: np.ndarray | None = None,
    aif: np.ndarray | None = None,
) -> None:
    """``NAME/slice_NN.png`` and ``NAME/stack.yaml``, with ``truth/depth_m.npy`` (float32 metres, 0 unknown) and
    ``truth/aif.png`` where they are given; None is what nobody knows."""
    target = folder / name
    target.mkdir(parents=True)
    described: dict[str, Any] = {
        "camera": {key: None if value is None else float(value) for key, value in camera.items()},
        "focus_distances_m": None if focus_distances_m is None else [float(value) for value in focus_distances_m],
        "near_m": None if near_m is None else float(near_m),
        "far_m": None if far_m is None else float(far_m),
        "files": [],
    }
    for index, image in enumerate(slices):
        file = f"slice_{index:02d}.png"
        iio.imwrite(target / file, image)
        described["files"].append(file)
    if depth_m is not None or aif is not None:
        (target / "truth").mkdir()
        described["truth"] = {}
    if depth_m is not None:
        known = np.isfinite(depth_m) & (depth_m > 0)
        np.save(target / "truth" / "depth_m.npy", np.where(known, depth_m, 0).astype(np.float32))
        described["truth"]["depth_m"] = "truth/depth_m.npy"
    if aif is not None:
        iio.imwrite(target / "truth" / "aif.png", aif)
        described["truth"]["aif"] = "truth/aif.png"
    (target / "stack.yaml").write_text(yaml.safe_dump(described, sort_keys=False))


def write_splits(folder: Path, splits: Mapping[str, Iterable[str]]) -> None:
    """``splits/train.txt`` and so on, one name a line."""
    (folder / "splits").mkdir(exist_ok=True)
    for split, names in splits.items():
        (folder / "splits" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def only(paths: Sequence[Path], what: str) -> Path:
    """The one path that a converter works on."""
    if len(paths) != 1:
        raise InputError(f"source: expected {what}, got {len(paths)} files")
    return paths[0]


def open_hdf5(source: Path) -> Any:
    """An ``h5py.File`` to read from."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"reading {source.name} needs h5py: pip install 'sfdfd[all]'") from None
    try:
        return h5py.File(source, "r")
    except OSError as error:
        raise InputError(f"source={source}: not an HDF5 file ({error})") from None


def found_under(folder: Path, pattern: str, what: str, source: Path) -> list[Path]:
    """Files under ``folder`` by pattern, or one line that says what was expected."""
    found = sorted(path for path in folder.rglob(pattern) if not path.name.startswith("."))
    if not found:
        raise InputError(f"source={source}: expected {what} ({pattern}), found none")
    return found
