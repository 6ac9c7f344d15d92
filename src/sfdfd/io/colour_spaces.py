"""Convert photographs from their colour spaces to sRGB.

LittleCMS (imagecodecs) reads the profiles. If a profile consists of three curves and a matrix, these are sampled from
LittleCMS
in floating point and applied here, strip by strip: its own 16-bit shortcut interpolates a coarse grid, which is wrong
by up to 10 % near black, and its exact path takes six seconds for twelve megapixels. Profiles with tables use the exact
path.
The result carries sRGB's curve, so decoding it as sRGB gives the linear light that the file's own curve meant.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import imagecodecs
import numpy as np
from PIL import ExifTags, ImageCms

from sfdfd.errors import InputError
from sfdfd.io.exif import PhotoFacts

__all__ = [
    "ASSUMED_SRGB",
    "ColourSpace",
    "cmyk_to_srgb",
    "colour_space",
    "space_from_chromaticities",
    "space_from_code_points",
    "srgb_profile",
    "to_srgb",
]

Array = np.ndarray
D65 = (0.3127, 0.3290)
SRGB_PRIMARIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_PRIMARIES = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE_PRIMARIES = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
REC2020_PRIMARIES = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
ADOBE_GAMMA = 563 / 256
CODED_PRIMARIES = {1: ("BT.709", SRGB_PRIMARIES), 9: ("BT.2020", REC2020_PRIMARIES), 12: ("Display P3", P3_PRIMARIES)}
CODED_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
"""Gamma by ITU-T H.273 transfer characteristics; others below 16 are read as sRGB's curve, as image viewers do."""
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer characteristics that are not supported."""
STEPS = 65536
STRIP = 256
"""Rows converted at a time."""
RELATIVE, EXACT = 1, 0x0100
"""LittleCMS: relative colorimetric intent; no shortcuts (cmsFLAGS_NOOPTIMIZE)."""
SRGB_TOLERANCE = 0.4 / 255
"""A profile whose colours differ from sRGB's by no more than this is sRGB."""
CLIPPED_SHARE = 0.001
"""A larger share of clipped pixels is reported."""
BELOW, ABOVE = -1 / (255 * 12.92), 1.01
"""Linear light outside these bounds is outside sRGB's gamut by more than one 8-bit code."""


@dataclass(frozen=True, eq=False)
class ColourSpace:
    """The colour space of a photograph.

    Attributes:
        name: for messages, such as "Display P3".
        source: where it comes from, for messages.
        curves: (3,65536) linear light of each channel's codes, or None.
        matrix: (3,3) from that light to linear sRGB.
        profile: bytes of a profile with tables. If this and ``curves`` are None, the space is sRGB.
    """

    name: str
    source: str
    curves: Array | None = None
    matrix: Array | None = None
    profile: bytes | None = None

    @property
    def is_srgb(self) -> bool:
        """Whether no conversion is needed."""
        return self.curves is None and self.profile is None


ASSUMED_SRGB = ColourSpace("sRGB", "assumed: the file does not say")


def colour_space(icc: bytes | None, exif: Mapping[int, Any], gray: bool = False) -> ColourSpace:
    """Return the colour space of a file's ICC profile, else of its EXIF, else sRGB.

    Args:
        icc: the profile's bytes, or None.
        exif: tags by number; those of the interoperability IFD under that IFD's number.
        gray: whether the image has one channel, so that a grey profile is valid.
    """
    if icc:
        return _of_profile(bytes(icc), gray)
    space = exif.get(ExifTags.Base.ColorSpace)
    interop = exif.get(ExifTags.IFD.Interop)
    index = str(interop.get(1, "")) if isinstance(interop, Mapping) else ""
    # cameras mark Adobe RGB so, without a profile
    if space == 2 or (space != 1 and index.strip("\0 ") == "R03"):
        return _of_primaries("Adobe RGB (1998)", "EXIF", D65, ADOBE_PRIMARIES, ADOBE_GAMMA)
    return ColourSpace("sRGB", "EXIF") if space == 1 else ASSUMED_SRGB


def space_from_code_points(primaries: int, transfer: int) -> ColourSpace:
    """Return the colour space of ITU-T H.273's code points (nclx in HEIC and AVIF, cICP in PNG).

    Raises:
        InputError: the transfer characteristics are HDR's; the caller puts the file's name before the message.
    """
    if transfer in HDR_TRANSFERS:
        raise InputError(
            f"its codes are those of HDR ({HDR_TRANSFERS[transfer]}), not of a photograph; export it as JPEG"
        )
    name, chromaticities = CODED_PRIMARIES.get(primaries, ("sRGB", SRGB_PRIMARIES))
    gamma = CODED_GAMMAS.get(transfer)
    if gamma is None and chromaticities == SRGB_PRIMARIES:
        return ASSUMED_SRGB if transfer != 13 else ColourSpace("sRGB", "the file's code points")
    name = name if gamma is None else f"{name} with gamma {gamma:g}"
    return _of_primaries(name, "the file's code points", D65, chromaticities, gamma)


def space_from_chromaticities(gamma: float | None, chromaticity: tuple[float, ...] | None) -> ColourSpace:
    """Return the colour space of PNG's gAMA and cHRM chunks.

    Args:
        gamma: of the decoder (2.2 for a file with 1/2.2), or None. Programs write 2.2 for sRGB's curve.
        chromaticity: x and y of white, red, green and blue, or None for sRGB's.
    """
    white, primaries = (D65, SRGB_PRIMARIES) if chromaticity is None else (chromaticity[:2], chromaticity[2:])
    gamma = None if gamma is None or abs(gamma - 2.2) < 0.02 else gamma
    source = "the file's gamma and chromaticities"
    pairs = zip((*white, *primaries), (*D65, *SRGB_PRIMARIES), strict=True)
    if gamma is None and max(abs(value - expected) for value, expected in pairs) < 2e-3:
        return ColourSpace("sRGB", source)
    curve = "sRGB's curve" if gamma is None else f"gamma {gamma:.4g}"
    return _of_primaries(f"RGB with {curve}", source, tuple(white), tuple(primaries), gamma)


def to_srgb(array: Array, space: ColourSpace) -> tuple[Array, float]:
    """Convert an image to sRGB without changing its type.

    Args:
        array: (H,W,3) uint8, uint16, or float32 in [0, 1].
        space: the image's colour space.

    Returns:
        The sRGB image, and the share of its pixels that are clipped because sRGB lacks their colour.
    """
    if space.is_srgb:
        return array, 0.0
    light_of = _by_curves(array.dtype, space) if space.profile is None else _by_library(space.profile)
    top = np.float32(np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1)
    converted, outside = np.empty(array.shape, array.dtype), 0
    for start in range(0, len(array), STRIP):
        light = light_of(array[start : start + STRIP])
        outside += int(np.count_nonzero((light.min(-1) < BELOW) | (light.max(-1) > ABOVE)))
        codes = _srgb_codes(np.clip(light, 0, 1)) * top
        converted[start : start + STRIP] = codes.round() if array.dtype.kind == "u" else codes
    return converted, outside / (array.shape[0] * array.shape[1])


def cmyk_to_srgb(array: Array, icc: bytes) -> Array:
    """Convert (H,W,4) uint8 amounts of ink (255 is full) to sRGB by its profile."""
    return imagecodecs.cms_transform(
        np.ascontiguousarray(array), icc, srgb_profile(), colorspace="cmyk", outcolorspace="rgb", outdtype=np.uint8,
        intent=RELATIVE,
    )  # fmt: skip


@lru_cache(1)
def srgb_profile() -> bytes:
    """Return an sRGB profile to embed; its bytes do not depend on the date."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes.fromhex("07d000010001000000000000")  # 1 January 2000 instead of now
    profile[84:100] = bytes(16)  # an optional checksum
    return bytes(profile)


def colour_notes(facts: Sequence[PhotoFacts]) -> list[str]:
    """Return messages about colour spaces other than sRGB and about clipped colours."""
    notes = []
    for (name, source), slices in _by_space(facts).items():
        which = "" if slices == len(facts) else f" of {slices} of {len(facts)} slices"
        if name == "sRGB" and source.startswith("assumed: its"):
            notes.append(f"colours{which} are taken for sRGB, {source}")
        elif name not in ("sRGB", "camera RAW", ""):
            notes.append(f"colours{which} are {name} ({source}): converted to sRGB, in which everything is written")
    outside = max((fact.outside_srgb for fact in facts), default=0.0)
    if outside > CLIPPED_SHARE:
        notes.append(
            f"up to {100 * outside:.2g} % of the pixels of a slice have colours that sRGB lacks: they are clipped"
        )
    return notes


def colour_summary(facts: Sequence[PhotoFacts]) -> dict[str, Any] | None:
    """Return the colour spaces that were read and written, for ``prediction.json``; None if they are unknown."""
    spaces = [
        {"name": name, "source": source, "slices": slices}
        for (name, source), slices in _by_space(facts).items()
        if name
    ]
    outside = max((fact.outside_srgb for fact in facts), default=0.0)
    return {"read": spaces, "written": "sRGB", "largest_share_outside_srgb": outside} if spaces else None


def _by_space(facts: Sequence[PhotoFacts]) -> dict[tuple[str, str], int]:
    return dict(Counter((fact.colour_space, fact.colour_source) for fact in facts))


def _srgb_codes(light: Array) -> Array:
    """Apply sRGB's curve to linear light in [0, 1], in float32."""
    codes = cv2.pow(np.ascontiguousarray(light, np.float32).reshape(len(light), -1), 1 / 2.4).reshape(light.shape)
    return np.where(light <= 0.0031308, np.float32(12.92) * light, np.float32(1.055) * codes - np.float32(0.055))


def _by_curves(dtype: np.dtype, space: ColourSpace) -> Callable[[Array], Array]:
    """Return a function from codes to linear sRGB light, by curves and matrix."""
    curves, matrix = space.curves, space.matrix
    assert curves is not None and matrix is not None

    def light_of(codes: Array) -> Array:
        if dtype.kind == "u":
            tables = curves[:, ::257] if dtype == np.uint8 else curves
            light = np.stack([tables[i][codes[..., i]] for i in range(3)], -1)
        else:
            steps = np.linspace(0, 1, STEPS)
            light = np.stack([np.interp(codes[..., i], steps, curves[i]) for i in range(3)], -1).astype(np.float32)
        return cv2.transform(light, matrix.astype(np.float32))

    return light_of


def _by_library(profile: bytes) -> Callable[[Array], Array]:
    """Return a function from codes to linear sRGB light, by LittleCMS: exact but slow."""

    def light_of(codes: Array) -> Array:
        scale = np.float32(np.iinfo(codes.dtype).max if codes.dtype.kind == "u" else 1)
        return _transform(codes.astype(np.float32) / scale, profile, _linear_profile())

    return light_of


def _transform(codes: Array, profile: bytes, target: bytes, kind: str = "rgb") -> Array:
    return imagecodecs.cms_transform(
        np.ascontiguousarray(codes, np.float32), profile, target, colorspace=kind, outcolorspace="rgb",
        outdtype=np.float32, intent=RELATIVE, flags=EXACT,
    )  # fmt: skip


@lru_cache(1)
def _linear_profile() -> bytes:
    """Return a profile of linear sRGB."""
    return imagecodecs.cms_profile("rgb", whitepoint=list(D65), primaries=list(SRGB_PRIMARIES), gamma=1.0)


@lru_cache(16)
def _of_profile(icc: bytes, gray: bool) -> ColourSpace:
    """Return the colour space of an embedded profile, or sRGB if the profile is unusable."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        kind = profile.profile.xcolor_space.strip().lower()
        name = " ".join((ImageCms.getProfileDescription(profile) or "").split()) or "a profile without a name"
        if kind == "gray":
            if not gray:
                return ColourSpace("sRGB", f"assumed: its profile, {name}, is for grey pictures")
            return _of_gray_profile(icc, name)
        if kind != "rgb":
            return ColourSpace("sRGB", f"assumed: its profile, {name}, is for {kind.upper()}")
        return _of_rgb_profile(icc, name)
    except Exception:  # the binding raises anything on broken profiles
        return ColourSpace("sRGB", "assumed: its colour profile is broken")


def _of_rgb_profile(icc: bytes, name: str) -> ColourSpace:
    """Sample a profile as curves and a matrix, and keep these if they reproduce it."""
    source = "embedded profile"
    probe = np.random.default_rng(0).random((40, 40, 3), dtype=np.float32)
    probe[0] = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    light = _transform(probe, icc, _linear_profile())
    if np.abs(_srgb_codes(np.clip(light, 0, 1)) - probe).max() < SRGB_TOLERANCE:
        return ColourSpace("sRGB", f"{source}, {name}")
    ramps = np.zeros((3, STEPS, 3), np.float32)
    for channel in range(3):
        ramps[channel, :, channel] = np.linspace(0, 1, STEPS)
    ramps_light = _transform(ramps, icc, _linear_profile()).astype(np.float64)
    black = ramps_light[0, 0]
    primaries = ramps_light[:, -1] - black  # row i: linear light of channel i at its maximum
    curves = np.einsum("ijk,ik->ij", ramps_light - black, primaries) / (primaries**2).sum(-1, keepdims=True)
    indices = (probe * (STEPS - 1)).round().astype(int)
    modelled = np.stack([curves[i][indices[..., i]] for i in range(3)], -1) @ primaries
    if np.abs(black).max() < 1e-5 and np.abs(modelled - light).max() < 3e-4:
        return ColourSpace(name, source, curves.astype(np.float32), primaries.T)
    return ColourSpace(name, source, profile=icc)


def _of_gray_profile(icc: bytes, name: str) -> ColourSpace:
    ramp = np.linspace(0, 1, STEPS, dtype=np.float32)[None]
    light = _transform(ramp, icc, _linear_profile(), "gray")[0].mean(-1)
    if np.abs(_srgb_codes(np.clip(light[None], 0, 1)) - ramp).max() < SRGB_TOLERANCE:
        return ColourSpace("sRGB", f"embedded profile, {name}")
    return ColourSpace(name, "embedded profile", np.repeat(light[None], 3, 0), np.eye(3))


@lru_cache(16)
def _of_primaries(
    name: str, source: str, white: tuple[float, ...], primaries: tuple[float, ...], gamma: float | None
) -> ColourSpace:
    """Return the colour space of chromaticities and a gamma (None for sRGB's curve)."""
    try:
        linear = imagecodecs.cms_profile("rgb", whitepoint=list(white), primaries=list(primaries), gamma=1.0)
        matrix = _transform(np.eye(3, dtype=np.float32)[None], linear, _linear_profile())[0].T
    except Exception:
        return ColourSpace("sRGB", "assumed: its chromaticities are not usable")
    codes = np.linspace(0, 1, STEPS)
    srgb = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    curve = srgb if gamma is None else codes**gamma
    return ColourSpace(name, source, np.repeat(curve[None].astype(np.float32), 3, 0), matrix.astype(np.float64))
