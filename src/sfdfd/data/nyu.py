"""NYUv2's labelled images from ``nyu_depth_v2_labeled.mat`` (Silberman et al., ECCV 2012) to an RGB-D folder."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from sfdfd.errors import InputError

__all__ = ["NYU_FILE", "NYU_URL", "convert_nyu", "download"]

NYU_FILE = "nyu_depth_v2_labeled.mat"
NYU_URL = f"http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/{NYU_FILE}"


def download(url: str, target: Path, report: Callable[[int, int | None], None]) -> None:
    """Fetch ``url`` into ``target``, continuing a part that an earlier try left; ``report(bytes so far, bytes in all)``.

    Raises:
        InputError: the file cannot be had; says what to fetch by hand and where to put it.
    """
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            continues = response.status == 206
            length = response.headers.get("Content-Length")
            total = int(length) + (done if continues else 0) if length else None
            done = done if continues else 0
            with part.open("ab" if continues else "wb") as file:
                while block := response.read(1 << 20):
                    file.write(block)
                    done += len(block)
                    report(done, total)
    except OSError as error:
        raise InputError(
            f"could not download {url} ({error}); fetch it by hand and give it as source=PATH/{target.name}"
        ) from None
    if total is not None and done != total:
        raise InputError(f"{url}: got {done} of {total} bytes; run the command again to continue")
    part.replace(target)


def convert_nyu(source: Path, root: Path, report: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Write ``root/rgb/NNNN.png`` and ``root/depth/NNNN.png`` (16 bit, millimetres), NNNN the 0-based index in the file.

    The file is HDF5 as MATLAB 7.3 stores it: images N x 3 x 640 x 480 uint8 and depths N x 640 x 480 float32, both
    transposed; it is read frame by frame. Frames are reduced to half size, RGB by averaging, depth by taking one pixel.
    Everything is written aside and renamed at the end, so an interrupted run leaves nothing half-made.

    Returns:
        The number of frames.

    Raises:
        InputError: the file is missing or not of that layout.
    """
    try:
        import h5py
    except ImportError:
        raise InputError("reading NYUv2 needs h5py: pip install 'sfdfd[all]'") from None
    if not source.is_file():
        raise InputError(f"source={source}: no such file")
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise InputError(f"source={source}: not an HDF5 file ({error})") from None
    with file:
        images, depths = file.get("images"), file.get("depths")
        if (
            images is None or depths is None or images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8
            or depths.shape != (images.shape[0], *images.shape[2:])
        ):  # fmt: skip
            raise InputError(f"source={source}: expected images N x 3 x W x H uint8 and depths N x W x H, as NYUv2 has")
        aside = root.with_name(f".{root.name}.part{os.getpid()}")
        try:
            for part in ("rgb", "depth"):
                (aside / part).mkdir(parents=True)
            count = images.shape[0]
            for index in range(count):
                rgb = images[index].transpose(2, 1, 0)
                depth = depths[index].T
                height, width = (side - side % 2 for side in depth.shape)
                halves = rgb[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(np.float32).mean((1, 3))
                millimetres = np.clip(np.nan_to_num(depth[:height:2, :width:2]) * 1000, 0, 65535).round()
                iio.imwrite(aside / "rgb" / f"{index:04d}.png", halves.round().astype(np.uint8))
                iio.imwrite(aside / "depth" / f"{index:04d}.png", millimetres.astype(np.uint16))
                report(index + 1, count)
            manifest = {"data": "nyu", "source": source.name, "frames": count, "depth_unit_m": 0.001, "scale": 0.5}
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
            root.mkdir(parents=True, exist_ok=True)
            for name in ("rgb", "depth", "manifest.json"):
                (aside / name).rename(root / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return count
