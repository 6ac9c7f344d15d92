"""Read TIFF files of every kind (by tifffile), exactly or with a one-line error."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from sfdfd.errors import InputError, one_line
from sfdfd.io.exif import all_exif_tags

__all__ = ["TIFF_SUFFIXES", "DecodedTiff", "count_tiff_slices", "is_tiff", "read_tiff"]

TIFF_SUFFIXES = (".tif", ".tiff")
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PREVIEW = 0.5
"""A page narrower than this fraction of the largest page is a preview, flagged or not."""
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
"""Photometric interpretation -> channels of colour: white or black is zero, RGB, palette, CMYK, YCbCr."""
NO_COLOURS = {
    4: "a mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "a sensor's mosaic (RAW)", 32844: "LogL",
    32845: "LogLuv", 34892: "a sensor's linear light (RAW)", 51177: "depth",
}  # fmt: skip
KINDS_WITH_AXES = ("imagej", "ome", "lsm", "stk", "fluoview", "nih", "scanimage", "mdgel", "ndtiff", "mmstack", "avs")
"""Formats that tell slices from channels."""
PALETTE, YCBCR, JPEG = 3, 6, 7
ICC_PROFILE = 34675
REMEDY = "export the slices as TIFF in RGB or grey, 8 or 16 bit"


@dataclass(frozen=True)
class DecodedTiff:
    """One slice of a TIFF.

    Attributes:
        pixels: (H,W), (H,W,3) or, for CMYK, (H,W,4) uint8, uint16 or float32, without alpha; black is zero.
        exif: tags by number, including those of the Exif IFD.
        icc: the colour profile, or None.
    """

    pixels: np.ndarray
    exif: dict[int, Any]
    icc: bytes | None


def is_tiff(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is a TIFF or BigTIFF."""
    return head[:4] in MAGIC


def count_tiff_slices(path: Path) -> int:
    """Return how many slices a TIFF holds: 1 if it is a photograph.

    Raises:
        InputError: the file cannot be read, or its pages are no focal stack.
    """
    with _opened(path) as file:
        return len(_slices(file, path))


def read_tiff(path: Path, check_size: Callable[[int, int], None], index: int | None = None) -> DecodedTiff:
    """Read a TIFF, or one slice of a TIFF whose pages are slices.

    Args:
        path: the file.
        check_size: called with width and height before pixels are read; raises if they are too large.
        index: which slice; None for a file that holds only one.

    Raises:
        InputError: the file is broken, stores no colours, or holds several slices and ``index`` is None.
    """
    with _opened(path) as file:
        slices = _slices(file, path)
        if index is None and len(slices) > 1:
            raise InputError(
                f"{path}: its {len(slices)} pages are slices of a stack of their own, not one photograph: "
                f"give stack={path}, or export the pages as one file each"
            )
        index = index or 0
        if not 0 <= index < len(slices):
            raise InputError(f"{path}: page {index + 1} is asked for, but it holds {len(slices)}")
        channels = slices[index]
        page = channels[0].page
        check_size(page.imagewidth, page.imagelength)
        planes = [_decoded(channel, path) for channel in channels]
        tag = page.tags.get(ICC_PROFILE)
        icc = None if tag is None else bytes(tag.value)
    pixels = planes[0] if len(planes) == 1 else np.stack([plane.reshape(plane.shape[:2]) for plane in planes], -1)
    return DecodedTiff(pixels, _exif(path), icc)


@dataclass(frozen=True)
class _Channel:
    """A page that holds a slice or one channel of it; ``values`` are its pixels if only the first page has a directory."""

    page: Any
    values: np.ndarray | None = None


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF; every error of the readers becomes an InputError."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # our one-line errors replace its log messages
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # tifffile and the codecs raise anything on broken files
        raise InputError(f"{path}: not a readable TIFF ({one_line(error)})") from None


def _slices(file: tifffile.TiffFile, path: Path) -> list[list[_Channel]]:
    """List the slices, each as its channels: one page, or three of a microscope's colours."""
    series = file.series[0] if file.series else None
    if series is not None and series.kind in KINDS_WITH_AXES:
        return _slices_by_axes(file, series, path)
    pages = [page.aspage() for page in file.pages]
    pages = [page for page in pages if not (page.subfiletype & 0b101)] or pages[:1]  # no reduced copies and no masks
    if series is not None and len(pages) == 1 and len(series.shape) > 3 - ("S" not in series.axes):
        return _slices_by_axes(file, series, path)  # all slices share one directory
    widths = [page.imagewidth for page in pages]
    if not any(widths):
        raise InputError(f"{path}: not a readable TIFF (no page in it; truncated?)")
    return [[_Channel(page)] for page in pages if page.imagewidth >= PREVIEW * max(widths)]


def _slices_by_axes(file: tifffile.TiffFile, series: Any, path: Path) -> list[list[_Channel]]:
    """List the slices of a series with named axes: C are channels, any other axis (Z, T) counts slices."""
    leading = [(axis, length) for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
    axes, shape = [axis for axis, _ in leading], [length for _, length in leading]  # several may be called Q: unknown
    channels = shape[axes.index("C")] if "C" in axes else 1
    slice_axes = [f"{length} along {axis}" for axis, length in leading if length > 1 and axis != "C"]
    if len(slice_axes) > 1:
        raise InputError(
            f"{path}: its pages are slices in two ways ({' and '.join(slice_axes)}); export one focal stack of them"
        )
    if channels not in (1, 3):
        raise InputError(
            f"{path}: {channels} channels are neither grey nor RGB; export one of them, or RGB (if they are slices: "
            "ImageJ, Image > Properties, has Slices for them)"
        )
    pages = np.arange(math.prod(shape)).reshape(shape)
    if "C" in axes:
        pages = np.moveaxis(pages, axes.index("C"), -1)
    by_slice = pages.reshape(-1, channels).tolist()
    return [[_channel(file, series, index, pages.size, path) for index in indices] for indices in by_slice]


def _channel(file: tifffile.TiffFile, series: Any, index: int, number: int, path: Path) -> _Channel:
    """Return one of the ``number`` pages of a series, by its offset in the file if only the first has a directory."""
    pages = list(series.pages)
    if len(pages) == number and all(page is not None for page in pages):
        return _Channel(pages[index].aspage())
    if series.dataoffset is None:
        raise InputError(f"{path}: not a readable TIFF (pages are missing)")
    page = file.pages.first
    dtype = np.dtype(file.byteorder + series.dtype.char)
    return _Channel(page, np.memmap(path, dtype, "r", series.dataoffset, (number, *page.shape))[index])


def _decoded(channel: _Channel, path: Path) -> np.ndarray:
    """Decode a channel to the pixels of :class:`DecodedTiff`."""
    page = channel.page
    photometric = int(page.photometric)
    _refuse_unsupported(page, photometric, path)
    values = page.asarray() if channel.values is None else np.asarray(channel.values).astype(page.dtype)
    if page.axes.startswith("S"):  # one plane per channel
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    if photometric == PALETTE:
        return _by_palette(values[..., 0], page.colormap, path)
    values = _scaled(values, page.bitspersample, int(page.sampleformat), path)
    values = _without_alpha(values, page, COLOURS[photometric], path)
    if photometric == 0:  # white is zero
        values = (np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1) - values
    if photometric == YCBCR and page.compression != JPEG:  # JPEG's decoder has converted it
        values = _rgb_of_ycbcr(values, path)
    return values[..., 0] if values.shape[2] == 1 else values


def _refuse_unsupported(page: Any, photometric: int, path: Path) -> None:
    if photometric not in COLOURS:
        content = NO_COLOURS.get(photometric, f"of photometric interpretation {photometric}")
        raise InputError(f"{path}: its pixels are {content}, no colours; {REMEDY}")
    if page.imagedepth > 1:
        raise InputError(f"{path}: a page with {page.imagedepth} layers; {REMEDY}")
    if photometric == YCBCR and page.compression not in (1, 5, JPEG, 8, 32773, 32946, 33007):
        raise InputError(f"{path}: YCbCr with compression {page.compression} is not read; {REMEDY}")


def _rgb_of_ycbcr(values: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype != np.uint8:
        raise InputError(f"{path}: YCbCr of more than 8 bits is not read; {REMEDY}")
    image = Image.frombytes("YCbCr", values.shape[1::-1], np.ascontiguousarray(values).tobytes())
    return np.asarray(image.convert("RGB"))


def _scaled(values: np.ndarray, bits: Any, sample_format: int, path: Path) -> np.ndarray:
    """Convert samples to uint8, uint16 or float32, so that the type's largest value (1 for float) is white."""
    if values.dtype == bool or (values.dtype.kind == "u" and sample_format in (1, 4)):
        if isinstance(bits, tuple) or not 0 < bits <= 32:
            raise InputError(f"{path}: samples of {bits} bits are not read; {REMEDY}")
        if bits in (8, 16):
            return values.astype(f"u{bits // 8}", copy=False)
        white = float(2**bits - 1)
        if bits > 16:
            return (values / white).astype(np.float32)
        top, dtype = (255, np.uint8) if bits < 8 else (65535, np.uint16)
        return (values.astype(np.float64) * (top / white)).round().astype(dtype)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    kind = {"i": "signed", "c": "complex"}.get(values.dtype.kind, "of an unknown kind")
    raise InputError(f"{path}: its samples are {kind}, so black and white are undefined; {REMEDY}")


def _without_alpha(values: np.ndarray, page: Any, colours: int, path: Path) -> np.ndarray:
    """Drop the alpha channel, and divide by it if the colours are premultiplied."""
    extra = [int(sample) for sample in page.extrasamples] or [0] * (values.shape[2] - colours)
    if values.shape[2] < colours or (colours == 1 and values.shape[2] > 1 and extra[0] == 0):
        raise InputError(f"{path}: {values.shape[2]} channels are neither grey nor RGB; {REMEDY}")
    if values.shape[2] == colours or extra[0] != 1:
        return values[..., :colours]
    top = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 1.0
    alpha = values[..., colours : colours + 1].astype(np.float64)
    opaque = (values[..., :colours] * (top / np.maximum(alpha, 1e-12))).clip(0, top)
    return (opaque.round() if values.dtype.kind == "u" else opaque).astype(values.dtype)


def _by_palette(indices: np.ndarray, colormap: Any, path: Path) -> np.ndarray:
    """Look indices up in a palette: (H,W,3), uint8 if its colours have only 8 bits."""
    if colormap is None:
        raise InputError(f"{path}: not a readable TIFF (a palette is missing)")
    colours = np.asarray(colormap, np.uint16).T
    if colours.max(initial=0) < 256:  # some writers forget to scale
        colours = colours.astype(np.uint8)
    elif (colours % 257 == 0).all():
        colours = (colours // 257).astype(np.uint8)
    elif (colours % 256 == 0).all():  # others shift
        colours = (colours // 256).astype(np.uint8)
    return colours[indices]


def _exif(path: Path) -> dict[int, Any]:
    """Read EXIF with Pillow, even if Pillow cannot read the pixels; empty if there is none."""
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            return all_exif_tags(image.getexif())
    except Exception:  # Pillow raises anything on images that it does not know
        exif = Image.Exif()
        try:
            with path.open("rb") as file:
                exif.load_from_fp(file)
                return all_exif_tags(exif)
        except Exception:
            return {}
