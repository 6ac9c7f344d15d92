"""Depth maps of other programs: NumPy, 16-bit PNG and TIFF, PFM, OpenEXR, and the depth inside a portrait JPEG.

The values are read as they are stored. Whether they are depth or inverse depth is known of a portrait and of a finished
prediction alone; the scale is found by whoever uses the map.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from sfdfd.errors import InputError, one_line
from sfdfd.io.images import LARGEST_PIXELS, read_array, read_npy

__all__ = ["DEPTH_MAP_SUFFIXES", "DepthMap", "checked_depth_values", "read_depth_map"]

DEPTH_MAP_SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".pfm", ".exr", ".jpg", ".jpeg")
PREDICTED = ("depth_m.npy", "relative_depth.npy")
"""The depth in the folder of a finished prediction."""
CHANNELS = ("Z", "depth", "Y", "R")
"""Channels of an OpenEXR file that hold depth, the likeliest first; a layer's name may precede them."""
XMP, EXTENDED_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
LARGEST_XMP_BYTES = 1 << 28
GDEPTH = "{http://ns.google.com/photos/1.0/depthmap/}"
DYNAMIC_DEPTH, ITEM = "{http://ns.google.com/photos/dd/1.0/depthmap/}", "{http://ns.google.com/photos/dd/1.0/item/}"
ORIENTATION_TAG = 0x0112
ROTATIONS = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
MIRRORED = (2, 4, 5, 7)


@dataclass(frozen=True)
class DepthMap:
    """A depth map as another program stored it.

    Attributes:
        values: (H,W) float32; NaN where unknown, inf for infinitely far.
        kind: "depth" or "inverse_depth"; None where the file does not say.
        source: the file and what was read of it, for messages.
    """

    values: np.ndarray
    kind: str | None
    source: str


def read_depth_map(path: str | Path) -> DepthMap:
    """Read a depth map.

    Args:
        path: ``.npy`` (H,W); a grey PNG or TIFF of 8 or 16 bits or floats; ``.pfm``; ``.exr`` with a channel Z, depth, Y or
            R; a JPEG with its depth inside (GDepth or Dynamic Depth), or a grey one; or the folder of a finished prediction.

    Raises:
        InputError: there is no such file, or no depth map in it.
    """
    path = Path(path)
    if path.is_dir():
        return _read_prediction(path)
    if not path.is_file():
        raise InputError(f"prior={path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        return _read_jpeg(path)
    if suffix == ".npy":
        values = read_npy(path)
    elif suffix == ".exr":
        values = _read_exr(path)
    elif suffix == ".pfm":
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise InputError(f"{path}: not a readable PFM image")
        values = np.asarray(pixels)
    elif suffix in DEPTH_MAP_SUFFIXES:
        values = read_array(path)
    else:
        raise InputError(
            f"{path}: expected a depth map ({', '.join(DEPTH_MAP_SUFFIXES)}) or the folder of a prediction"
        )
    return DepthMap(checked_depth_values(values, str(path)), None, str(path))


def checked_depth_values(values: Any, source: str) -> np.ndarray:
    """Return (H,W) float32 of an array with at most one channel that differs.

    Raises:
        InputError: it has another shape or type, several colours, or no finite value.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "uif":
        raise InputError(f"{source}: expected numbers, got an array of {values.dtype}")
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and 1 <= values.shape[2] <= 4:
        colours = values[..., : 3 if values.shape[2] >= 3 else 1]
        if not np.array_equal(
            colours, np.broadcast_to(colours[..., :1], colours.shape), equal_nan=values.dtype.kind == "f"
        ):
            raise InputError(
                f"{source}: a coloured picture of depth has no values to read; give the map itself (npy, 16-bit PNG, EXR)"
            )
        values = colours[..., 0]
    if values.ndim != 2 or min(values.shape) < 2:
        raise InputError(f"{source}: expected one value per pixel (H,W), got shape {values.shape}")
    if values.size > LARGEST_PIXELS:
        raise InputError(
            f"{source}: expected {LARGEST_PIXELS / 1e6:.0f} megapixels at most, got {values.size / 1e6:.0f}"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    values = np.where(np.isneginf(values), np.float32(np.nan), values)
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() == finite.max():
        raise InputError(f"{source}: the map is constant or has no finite value, so it says nothing about depth")
    return values


def _read_prediction(folder: Path) -> DepthMap:
    for name in PREDICTED:
        if (folder / name).is_file():
            values = checked_depth_values(read_npy(folder / name), str(folder / name))
            return DepthMap(values, "depth" if name == "depth_m.npy" else None, str(folder / name))
    raise InputError(f"prior={folder}: expected the folder of a prediction, with {' or '.join(PREDICTED)}")


def _read_exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError:
        raise InputError(f"{path}: reading OpenEXR needs its package: pip install 'sfdfd[photo]'") from None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except Exception as error:  # the reader raises anything on broken files
        raise InputError(f"{path}: not a readable OpenEXR file ({one_line(error)})") from None
    for wanted in CHANNELS:
        for name, pixels in channels.items():
            if name.rsplit(".", 1)[-1].lower() == wanted.lower():
                return pixels
    raise InputError(f"{path}: expected a channel {', '.join(CHANNELS)}, got {', '.join(channels) or 'none'}")


def _read_jpeg(path: Path) -> DepthMap:
    """Read the depth inside a JPEG; a JPEG without it has to be grey, and is the map itself."""
    data = path.read_bytes()
    found = _embedded_depth(data, path)
    if found is None:
        values = read_array(path)
        if values.ndim == 3 and not (values == values[..., :1]).all():
            raise InputError(
                f"{path}: no depth inside this JPEG (GDepth or Dynamic Depth); export the depth map as PNG, EXR or npy"
            )
        return DepthMap(checked_depth_values(values, str(path)), None, str(path))
    encoded, near, far, is_inverse, form = found
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise InputError(f"{path}: the depth inside has more than {LARGEST_PIXELS / 1e6:.0f} megapixels")
            stored = np.asarray(image)
    except InputError:
        raise
    except Exception as error:  # Pillow raises anything on broken files
        raise InputError(f"{path}: the depth inside is not readable ({one_line(error)})") from None
    largest = np.iinfo(stored.dtype).max if stored.dtype.kind in "ui" else 1
    share = (stored[..., 0] if stored.ndim == 3 else stored).astype(np.float64) / largest
    values = far * near / (far - share * (far - near)) if is_inverse else near + share * (far - near)
    source = f"{path}, the {form} inside"
    return DepthMap(checked_depth_values(_upright(values, path), source), "depth", source)


def _upright(values: np.ndarray, path: Path) -> np.ndarray:
    """Turn a map as its JPEG is turned (EXIF)."""
    with Image.open(path) as image:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
        is_turned = (image.height > image.width) == (values.shape[0] > values.shape[1])
    if not is_turned:  # the map is upright already
        return values
    values = np.rot90(values, ROTATIONS.get(orientation, 0))
    return values[:, ::-1] if orientation in MIRRORED else values


def _embedded_depth(data: bytes, path: Path) -> tuple[bytes, float, float, bool, str] | None:
    """Return the encoded map, near, far, whether the codes are of inverse depth, and the form; None without depth."""
    standard, extended = _xmp_packets(data)
    trees = [_parsed(packet, path) for packet in (standard, extended) if packet]
    attributes: dict[str, str] = {}
    lengths: list[tuple[str, str]] = []
    for tree in trees:
        for element in tree.iter():
            attributes.update(element.attrib)
            if element.text and element.tag.startswith((GDEPTH, DYNAMIC_DEPTH)):
                attributes.setdefault(element.tag, element.text.strip())
            if f"{ITEM}DataURI" in element.attrib:
                lengths.append((element.attrib[f"{ITEM}DataURI"], element.attrib.get(f"{ITEM}Length", "0")))
    try:
        if f"{GDEPTH}Data" in attributes:
            encoded = base64.b64decode(attributes[f"{GDEPTH}Data"])
            return _with_range(attributes, GDEPTH, encoded, "GDepth map")
        uri = attributes.get(f"{DYNAMIC_DEPTH}DepthURI")
        names = [name for name, _ in lengths]
        if uri is not None and uri in names:
            index = names.index(uri)
            end = len(data) - sum(int(length) for _, length in lengths[index + 1 :])
            return _with_range(attributes, DYNAMIC_DEPTH, data[end - int(lengths[index][1]) : end], "Dynamic Depth map")
    except (ValueError, KeyError, binascii.Error) as error:
        raise InputError(f"{path}: the depth inside is described wrongly ({one_line(error)})") from None
    return None


def _with_range(
    attributes: dict[str, str], form: str, encoded: bytes, name: str
) -> tuple[bytes, float, float, bool, str]:
    near, far = float(attributes[f"{form}Near"]), float(attributes[f"{form}Far"])
    if not 0 < near < far:
        raise ValueError(f"near {near:g}, far {far:g}")
    return encoded, near, far, attributes.get(f"{form}Format", "RangeInverse") == "RangeInverse", name


def _parsed(packet: bytes, path: Path) -> ET.Element:
    if re.search(rb"<!(DOCTYPE|ENTITY)", packet):
        raise InputError(f"{path}: its XMP declares entities, which no camera writes; it is not read")
    try:
        return ET.fromstring(packet.strip(b"\0 \r\n\t"))
    except ET.ParseError as error:
        raise InputError(f"{path}: its XMP is broken ({one_line(error)})") from None


def _xmp_packets(data: bytes) -> tuple[bytes, bytes]:
    """Return the standard and the extended XMP packet of a JPEG, joined from its segments; empty where missing."""
    standard, extended = b"", {}
    for body in _app1_segments(data):
        if body.startswith(XMP) and not standard:
            standard = body[len(XMP) :]
        elif body.startswith(EXTENDED_XMP) and len(body) > len(EXTENDED_XMP) + 40:
            start = len(EXTENDED_XMP) + 32
            extended[struct.unpack(">I", body[start + 4 : start + 8])[0]] = body[start + 8 :]
    return standard, b"".join(extended[offset] for offset in sorted(extended))[:LARGEST_XMP_BYTES]


def _app1_segments(data: bytes) -> Iterator[bytes]:
    """Yield the APP1 segments before the picture."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] not in (0xDA, 0xD9):
        length = struct.unpack(">H", data[place + 2 : place + 4])[0]
        if data[place + 1] == 0xE1:
            yield data[place + 4 : place + 2 + length]
        place += 2 + max(length, 2)
