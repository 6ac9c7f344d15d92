"""TIFF of every kind, by tifffile: each is read exactly or refused in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from sfdfd.errors import InputError, one_line
from sfdfd.io.exif import all_tags

__all__ = ["TIFF_SUFFIXES", "DecodedTiff", "is_tiff", "read_tiff", "tiff_slices"]

TIFF_SUFFIXES = (".tif", ".tiff")
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PREVIEW = 0.5
"""A page of less than this share of the largest page's width is a preview, flagged as one or not."""
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
"""Photometric interpretation -> channels of colour: white or black is zero, RGB, palette, CMYK, YCbCr."""
NOT_PICTURES = {
    4: "a mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "a sensor's mosaic (RAW)", 32844: "LogL",
    32845: "LogLuv", 34892: "a sensor's linear light (RAW)", 51177: "depth",
}  # fmt: skip
KINDS_WITH_AXES = ("imagej", "ome", "lsm", "stk", "fluoview", "nih", "scanimage", "mdgel", "ndtiff", "mmstack", "avs")
"""Writers that say which of their pages are slices and which are channels."""
HOW = "export the slices as TIFF in RGB or grey, 8 or 16 bit"


@dataclass(frozen=True)
class DecodedTiff:
    """A slice of a TIFF.

    Attributes:
        pixels: (H,W), (H,W,3) or, of CMYK, (H,W,4) uint8, uint16 or float32, without alpha; black is zero.
        exif: tags by number, with those of its own IFD.
        icc: the colour profile, where there is one.
    """

    pixels: np.ndarray
    exif: dict[int, Any]
    icc: bytes | None


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a TIFF, or a BigTIFF."""
    return head[:4] in MAGIC


def tiff_slices(path: Path) -> int:
    """Return how many slices a TIFF holds: 1 of a photograph.

    Raises:
        InputError: it cannot be read, or says no focal stack.
    """
    with _opened(path) as file:
        return len(_slices(file, path))


def read_tiff(path: Path, check_size: Callable[[int, int], None], index: int | None = None) -> DecodedTiff:
    """Read a TIFF, or one slice of a TIFF whose pages are slices.

    Args:
        path: the file.
        check_size: is told width and height before pixels are read, and raises where they are too many.
        index: which slice; None of a file that holds one.

    Raises:
        InputError: the file is broken, of a kind that says no colours, or holds several slices and none was named.
    """
    with _opened(path) as file:
        slices = _slices(file, path)
        if index is None and len(slices) > 1:
            raise InputError(
                f"{path}: its {len(slices)} pages are slices of a stack of their own, not one photograph: "
                f"give stack={path}, or export the pages as one file each"
            )
        if not 0 <= (index or 0) < len(slices):
            raise InputError(f"{path}: page {(index or 0) + 1} is asked for, but it holds {len(slices)}")
        channels = slices[index or 0]
        page = channels[0].page
        check_size(page.imagewidth, page.imagelength)
        try:
            parts = [_decoded(one, path) for one in channels]
            tag = page.tags.get(34675)
            icc = None if tag is None else bytes(tag.value)
        except InputError:
            raise
        except Exception as error:  # tifffile and the codecs raise whatever they like on broken files
            raise InputError(f"{path}: not a readable TIFF ({one_line(error)})") from None
    pixels = parts[0] if len(parts) == 1 else np.stack([part.reshape(part.shape[:2]) for part in parts], -1)
    return DecodedTiff(pixels, _exif(path), icc)


@dataclass(frozen=True)
class _Channel:
    """A page that is a slice, or one channel of it; ``values`` where the file has no page of its own for it."""

    page: Any
    values: np.ndarray | None = None


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said by us, in one line
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable TIFF ({one_line(error)})") from None


def _slices(file: tifffile.TiffFile, path: Path) -> list[list[_Channel]]:
    """The slices, each as the pages of its channels: one, or three of a microscope's colours."""
    series = file.series[0] if file.series else None
    if series is not None and series.kind in KINDS_WITH_AXES:
        return _by_axes(file, series, path)
    pages = [page.aspage() for page in file.pages]
    full = [page for page in pages if not (page.subfiletype & 0b101)] or pages[:1]  # no reduced copies and no masks
    largest = max((page.imagewidth for page in full), default=0)
    if series is not None and len(full) == 1 and len(series.shape) > 3 - ("S" not in series.axes):
        return _by_axes(file, series, path)  # all slices behind one directory
    found = [[_Channel(page)] for page in full if page.imagewidth >= PREVIEW * largest]
    if not found or not largest:
        raise InputError(f"{path}: not a readable TIFF (no page in it; truncated?)")
    return found


def _by_axes(file: tifffile.TiffFile, series: Any, path: Path) -> list[list[_Channel]]:
    """Of a series whose axes are named: Z, T and others are slices, C are channels."""
    lead = [(axis, length) for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
    more = [(axis, length) for axis, length in lead if length > 1 and axis != "C"]
    channels = next((length for axis, length in lead if axis == "C"), 1)
    if len(more) > 1:
        words = " and ".join(f"{length} along {axis}" for axis, length in more)
        raise InputError(f"{path}: its pages are slices in two ways ({words}); export one focal stack of them")
    if channels not in (1, 3):
        raise InputError(
            f"{path}: {channels} channels are neither grey nor RGB; export one of them, or RGB (if they are slices: "
            "ImageJ, Image > Properties, has Slices for them)"
        )
    shape = [length for _, length in lead]
    order = np.arange(int(np.prod(shape))).reshape(shape)
    place = [axis for axis, _ in lead].index("C") if any(axis == "C" for axis, _ in lead) else None
    order = order.reshape(-1, 1) if place is None else np.moveaxis(order, place, -1).reshape(-1, channels)
    return [[_channel(file, series, one, order.size, path) for one in row] for row in order.tolist()]


def _channel(file: tifffile.TiffFile, series: Any, index: int, number: int, path: Path) -> _Channel:
    """One of the ``number`` pages of a series; by its place in the file where only the first has a directory."""
    pages = list(series.pages)
    if len(pages) == number and all(page is not None for page in pages):
        return _Channel(pages[index].aspage())
    if series.dataoffset is None:
        raise InputError(f"{path}: not a readable TIFF (pages are missing)")
    page = file.pages.first
    kind = np.dtype(file.byteorder + series.dtype.char)
    return _Channel(page, np.memmap(path, kind, "r", series.dataoffset, (number, *page.shape))[index])


def _decoded(channel: _Channel, path: Path) -> np.ndarray:
    """(H,W) or (H,W,C) of a page, as :class:`DecodedTiff` has it."""
    page = channel.page
    kind = int(page.photometric)
    if kind not in COLOURS:
        words = NOT_PICTURES.get(kind, f"of photometric interpretation {kind}")
        raise InputError(f"{path}: its pixels are {words}, no colours; {HOW}")
    if page.imagedepth > 1:
        raise InputError(f"{path}: a page with {page.imagedepth} layers; {HOW}")
    if kind == 6 and page.compression not in (1, 5, 7, 8, 32773, 32946, 33007):
        raise InputError(f"{path}: YCbCr with compression {page.compression} is not read; {HOW}")
    values = page.asarray() if channel.values is None else np.asarray(channel.values).astype(page.dtype)
    if page.axes.startswith("S"):  # planes, one for each channel
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    colours, bits = COLOURS[kind], page.bitspersample
    if kind == 3:
        return _by_palette(values[..., 0], page.colormap, path)
    values = _without_alpha(_scaled(values, bits, int(page.sampleformat), path), page, colours, path)
    if kind == 0:
        values = (np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1) - values
    if kind == 6 and page.compression != 7:  # JPEG's decoder has done it
        if values.dtype != np.uint8:
            raise InputError(f"{path}: YCbCr of more than 8 bits is not read; {HOW}")
        picture = Image.frombytes("YCbCr", values.shape[1::-1], np.ascontiguousarray(values).tobytes())
        values = np.asarray(picture.convert("RGB"))
    return values[..., 0] if values.shape[2] == 1 else values


def _scaled(values: np.ndarray, bits: Any, sample_format: int, path: Path) -> np.ndarray:
    """Samples as uint8, uint16 or float32 whose largest value is white."""
    if values.dtype == bool or (values.dtype.kind == "u" and sample_format in (1, 4)):
        if isinstance(bits, tuple) or not 0 < bits <= 32:
            raise InputError(f"{path}: samples of {bits} bits are not read; {HOW}")
        if bits in (8, 16):
            return values.astype(f"u{bits // 8}", copy=False)
        white = float(2**bits - 1)
        if bits > 16:
            return (values / white).astype(np.float32)
        top, kind = (255, np.uint8) if bits < 8 else (65535, np.uint16)
        return (values.astype(np.float64) * (top / white)).round().astype(kind)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    words = {"i": "signed", "c": "complex"}.get(values.dtype.kind, "of an unknown kind")
    raise InputError(f"{path}: its samples are {words}, which says neither black nor white; {HOW}")


def _without_alpha(values: np.ndarray, page: Any, colours: int, path: Path) -> np.ndarray:
    """The colours alone; what alpha was multiplied into is divided by it."""
    extra = [int(one) for one in page.extrasamples] or [0] * (values.shape[2] - colours)
    if values.shape[2] < colours or (colours == 1 and values.shape[2] > 1 and extra[0] == 0):
        raise InputError(f"{path}: {values.shape[2]} channels are neither grey nor RGB; {HOW}")
    if values.shape[2] == colours or extra[0] != 1:
        return values[..., :colours]
    top = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 1.0
    alpha = values[..., colours : colours + 1].astype(np.float64)
    whole = (values[..., :colours] * (top / np.maximum(alpha, 1e-12))).clip(0, top)
    return (whole.round() if values.dtype.kind == "u" else whole).astype(values.dtype)


def _by_palette(indices: np.ndarray, colormap: Any, path: Path) -> np.ndarray:
    """(H,W,3) of indices into a palette; 8 bits where its colours have no more."""
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
    """EXIF as Pillow reads it, even where it cannot read the picture; empty where there is none."""
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            return all_tags(image.getexif())
    except Exception:  # Pillow raises whatever it likes on pictures that it does not know
        exif = Image.Exif()
        try:
            with path.open("rb") as file:
                exif.load_from_fp(file)
                return all_tags(exif)
        except Exception:
            return {}
