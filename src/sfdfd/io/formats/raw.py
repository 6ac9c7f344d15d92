"""Read RAW and DNG files as the sensor's light, by LibRaw (rawpy).

RAW is the best input: nothing was sharpened, denoised or tone-mapped. The light is white-balanced and stored with
sRGB's curve.
So ``linear_light=true`` blurs exactly what the sensor measured, and the images can be viewed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.errors import InputError, one_line
from sfdfd.io.formats.maker_notes import read_exif

__all__ = ["RAW_SUFFIXES", "apply_srgb_curve", "rawpy_is_installed", "read_raw"]

RAW_SUFFIXES = (
    ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".iiq", ".3fr"
)  # fmt: skip
INSTALL = "pip install 'sfdfd[photo]'"


def rawpy_is_installed() -> bool:
    """Return whether rawpy is installed."""
    return importlib.util.find_spec("rawpy") is not None


def apply_srgb_curve(light: np.ndarray) -> np.ndarray:
    """Convert linear light to sRGB, both uint16, by a table: the inverse of the renderer's ``linear_light`` curve."""
    steps = np.arange(65536) / 65535
    codes = np.where(steps <= 0.0031308, 12.92 * steps, 1.055 * np.maximum(steps, 0.0031308) ** (1 / 2.4) - 0.055)
    return (codes * 65535).round().astype(np.uint16)[light]


FLIPS = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's rotation -> EXIF orientation."""


def read_raw(path: Path, check_size: Callable[[int, int], None]) -> tuple[np.ndarray, Mapping[int, Any], int]:
    """Read a RAW file as upright (H,W,3) uint16 in sRGB, with its EXIF by tag and the applied orientation.

    White balance is the camera's. Brightness follows the sensor's range and is the same for every slice; LibRaw's default
    adapts to each image. Nothing is sharpened, denoised or brightened.

    Args:
        path: the file.
        check_size: called with width and height before pixels are read; raises if they are too large.

    Raises:
        InputError: rawpy is not installed, or the file is broken or unknown to LibRaw.
    """
    try:
        import rawpy
    except ImportError:
        raise InputError(f"{path}: reading RAW and DNG needs rawpy: {INSTALL}") from None
    try:
        with rawpy.imread(str(path)) as raw:
            check_size(raw.sizes.width, raw.sizes.height)
            orientation = FLIPS.get(raw.sizes.flip, 1)
            light = raw.postprocess(
                gamma=(1, 1),
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
                use_camera_wb=True,
                no_auto_bright=True,
                adjust_maximum_thr=0.0,
            )
    except rawpy.LibRawError as error:
        reason = one_line(error.args[0] if error.args and isinstance(error.args[0], Exception) else error)
        reason = reason.strip("'").removeprefix("b'")
        raise InputError(f"{path}: not a readable RAW file ({reason})") from None
    return apply_srgb_curve(light), read_exif(path), orientation
