"""RAW and DNG: the sensor's own light, by LibRaw (rawpy).

The best input there is: nothing was sharpened, denoised or toned. What comes back is that light, white-balanced, with the
curve of sRGB over it, so that ``linear_light=true`` blurs exactly what the sensor measured, and pictures can be looked at.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.errors import InputError, one_line
from sfdfd.io.formats.maker_notes import exif_of

__all__ = ["RAW_SUFFIXES", "raw_is_readable", "read_raw", "with_srgb_curve"]

RAW_SUFFIXES = (
    ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".iiq", ".3fr"
)  # fmt: skip
HOW = "pip install 'sfdfd[photo]'"


def raw_is_readable() -> bool:
    """Whether rawpy is installed."""
    return importlib.util.find_spec("rawpy") is not None


def with_srgb_curve(light: np.ndarray) -> np.ndarray:
    """Linear light as uint16 -> sRGB as uint16, by table; the inverse of what the renderer's ``linear_light`` applies."""
    steps = np.arange(65536) / 65535
    codes = np.where(steps <= 0.0031308, 12.92 * steps, 1.055 * np.maximum(steps, 0.0031308) ** (1 / 2.4) - 0.055)
    return (codes * 65535).round().astype(np.uint16)[light]


FLIPS = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's rotation -> EXIF's orientation."""


def read_raw(path: Path, check_size: Callable[[int, int], None]) -> tuple[np.ndarray, Mapping[int, Any], int]:
    """A RAW file as (H,W,3) uint16 in sRGB, upright, its EXIF by tag, and the orientation that was applied.

    White balance is the camera's; the scale is the sensor's, the same for every slice (LibRaw's own adapts to the content
    of each picture); nothing is sharpened, denoised or brightened.

    Args:
        path: the file.
        check_size: is told width and height before pixels are read, and raises where they are too many.

    Raises:
        InputError: rawpy is not installed, or the file is broken or of a kind that LibRaw does not know.
    """
    try:
        import rawpy
    except ImportError:
        raise InputError(f"{path}: reading RAW and DNG needs rawpy: {HOW}") from None
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
        raise InputError(
            f"{path}: not a readable RAW file ({reason.strip(chr(39)).removeprefix('b' + chr(39))})"
        ) from None
    return with_srgb_curve(light), exif_of(path), orientation
