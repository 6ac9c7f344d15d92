"""DefocusNet's synthetic focal stacks (Maximov et al., CVPR 2020), also known as FoD500."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfdfd.data.fetch import RemoteFile, Report, opened
from sfdfd.data.images import read_photograph
from sfdfd.data.sources.base import DataSource, found_under, only, write_splits, write_stack
from sfdfd.errors import InputError

__all__ = ["DEFOCUSNET", "FOCUS_M", "read_exr"]

CAMERA = {"focal_length_m": 0.0029, "f_number": 1.0, "pixel_pitch_m": 3.1e-3 / 256}
FOCUS_M = (0.1, 0.15, 0.3, 0.7, 1.5, np.inf)
"""Of slices 00 to 04, and of the sixth that some copies have."""
NEAR_M, FAR_M = 0.1, 3.0


def read_exr(path: Path) -> np.ndarray:
    """(H,W) float32 of the first of the channels R, Z, Y that an OpenEXR file has (half or float)."""
    try:
        import OpenEXR
    except ImportError:
        raise InputError("reading OpenEXR needs the package OpenEXR: pip install 'sfdfd[all]'") from None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            for key in ("R", "Z", "Y", *channels):
                if key in channels:
                    return np.asarray(channels[key].pixels, dtype=np.float32)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a readable OpenEXR file ({str(error).splitlines()[0]})") from None
    raise InputError(f"{path}: an OpenEXR file without channels")


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """``NNNNNN_IIAll.tif`` slices, ``NNNNNNDpt.exr`` depth in metres and, where there is one, ``NNNNNNAif.tif``. Scenes
    below 400 train and the others test (DFV and the authors); the last tenth of those that train validates."""
    source = only(paths, "the folder or archive of DefocusNet")
    with opened(source, folder / "unpacked", report) as content:
        depths = found_under(content, "*Dpt.exr", "DefocusNet's depth files", source)
        names = []
        for index, depth_file in enumerate(depths):
            match = re.fullmatch(r"(\d+)Dpt\.exr", depth_file.name)
            if match is None:
                raise InputError(f"{depth_file}: expected NNNNNNDpt.exr")
            number = match[1]
            slices = sorted(depth_file.parent.glob(f"{number}_*All.tif"))
            if not 2 <= len(slices) <= len(FOCUS_M):
                raise InputError(
                    f"{depth_file}: expected 2 to {len(FOCUS_M)} slices {number}_IIAll.tif, found {len(slices)}"
                )
            order = [int(re.fullmatch(rf"{number}_(\d+)All\.tif", file.name)[1]) for file in slices]
            aif = depth_file.with_name(f"{number}Aif.tif")
            write_stack(
                folder, number, [read_photograph(file)[0] for file in slices], CAMERA, [FOCUS_M[i] for i in order],
                NEAR_M, FAR_M, read_exr(depth_file), read_photograph(aif)[0] if aif.is_file() else None,
            )  # fmt: skip
            names.append(number)
            report(index + 1, len(depths))
    train = [name for name in names if int(name) < 400]
    val = train[len(train) - max(1, len(train) // 10) :] if len(train) > 1 else []
    write_splits(
        folder, {"train": [n for n in train if n not in val], "val": val, "test": [n for n in names if int(n) >= 400]}
    )
    return len(names)


DEFOCUSNET = DataSource(
    name="defocusnet",
    title="DefocusNet / FoD500: 500 synthetic stacks of five slices, 256 x 256",
    citation="M. Maximov, K. Galim, L. Leal-Taixe: Focus on Defocus: Bridging the Synthetic to Real Domain Gap, CVPR 2020",
    licence="MIT repository; none is stated for the data",
    home="https://github.com/dvl-tum/defocus-net (link 'here' in its README)",
    size="about 1 GB",
    files=(RemoteFile("fs_6.zip"),),
    uncertain="the sensor's width (3.1 mm) is that of the authors' code, not of their paper; the link has died before",
    layout="stacks",
    convert=convert,
)
