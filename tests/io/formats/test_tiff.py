"""TIFF of every kind: exact, or refused in one line."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.formats.tiff import count_tiff_slices
from sfdfd.io.images import read_photograph

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GRAY = RGB[..., 0]
DEEP = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
FLOAT = RNG.random((20, 30, 3), dtype=np.float32)
TWELVE = DEEP >> 4
ALPHA = RNG.integers(1, 256, (20, 30, 1), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (3, 256), dtype=np.uint16) * 257
BITS = GRAY > 127
PREMULTIPLIED = (RGB * (ALPHA / 255.0)).round().astype(np.uint8)


def spread(values, bits, top):
    return (values * (top / (2.0**bits - 1))).round().astype(np.uint8 if top == 255 else np.uint16)


def in_rgb(gray):
    return np.repeat(gray[..., None], 3, 2)


def by_pillow(array, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF", **options)
    return file.getvalue()


def by_tifffile(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


EXACT = {
    "rgb 8": (by_tifffile(RGB, photometric="rgb"), RGB),
    "rgb 16": (by_tifffile(DEEP, photometric="rgb"), DEEP),
    "rgb float": (by_tifffile(FLOAT, photometric="rgb"), FLOAT),
    "gray 8": (by_tifffile(GRAY), in_rgb(GRAY)),
    "white is zero 8": (by_tifffile(255 - GRAY, photometric="miniswhite"), in_rgb(GRAY)),
    "white is zero 16": (by_tifffile(65535 - DEEP[..., 0], photometric="miniswhite"), in_rgb(DEEP[..., 0])),
    "white is zero 1": (by_tifffile(~BITS, photometric="miniswhite"), in_rgb(BITS * np.uint8(255))),
    "planes 8": (by_tifffile(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), RGB),
    "planes 16 lzw": (
        by_tifffile(DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="lzw"), DEEP,
    ),
    "4 bits": (by_tifffile(GRAY >> 4, bitspersample=4), in_rgb((GRAY >> 4) * np.uint8(17))),
    "12 bits": (by_tifffile(TWELVE, photometric="rgb", bitspersample=12), spread(TWELVE, 12, 65535)),
    "32 bits": (by_tifffile(DEEP.astype(np.uint32) * 65537, photometric="rgb"), (DEEP / 65535).astype(np.float32)),
    "float 64": (by_tifffile(FLOAT.astype(np.float64), photometric="rgb"), FLOAT),
    "float 16": (by_tifffile((GRAY / 256).astype(np.float16)), in_rgb((GRAY / 256).astype(np.float32))),
    "palette": (by_tifffile(GRAY, photometric="palette", colormap=PALETTE), (PALETTE // 257).astype(np.uint8).T[GRAY]),
    "bigtiff": (by_tifffile(DEEP, photometric="rgb", bigtiff=True), DEEP),
    "big-endian": (by_tifffile(DEEP, photometric="rgb", byteorder=">"), DEEP),
    "tiles, deflate, predictor": (
        by_tifffile(DEEP, photometric="rgb", compression="deflate", predictor=True, tile=(16, 16)), DEEP,
    ),
    "lzw": (by_pillow(RGB, compression="tiff_lzw"), RGB),
    "packbits": (by_pillow(RGB, compression="packbits"), RGB),
    "old deflate": (by_pillow(RGB, compression="tiff_deflate"), RGB),
    "ccitt 3": (by_pillow(BITS, compression="group3"), in_rgb(BITS * np.uint8(255))),
    "ccitt 4": (by_pillow(BITS, compression="group4"), in_rgb(BITS * np.uint8(255))),
    "zstd": (by_tifffile(RGB, photometric="rgb", compression="zstd"), RGB),
    "alpha": (by_tifffile(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]), RGB),
    "gray and alpha": (
        by_tifffile(np.dstack([GRAY, ALPHA]), photometric="minisblack", extrasamples=["unassalpha"]), in_rgb(GRAY),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXACT)
def test_every_kind_is_read_exactly(tmp_path, kind):
    data, expected = EXACT[kind]
    (tmp_path / "a.tif").write_bytes(data)
    read = read_photograph(tmp_path / "a.tif")[0]
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected)


def test_premultiplied_alpha_is_divided_out(tmp_path):
    data = by_tifffile(np.dstack([PREMULTIPLIED, ALPHA]), photometric="rgb", extrasamples=["assocalpha"])
    (tmp_path / "a.tif").write_bytes(data)
    error = np.abs(read_photograph(tmp_path / "a.tif")[0].astype(float) - RGB)
    assert (error <= 0.5 + 0.51 * 255 / ALPHA).all()


def test_jpeg_compression_is_read(tmp_path):
    smooth = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(by_pillow(smooth, compression="jpeg", quality=95))
    assert np.abs(read_photograph(tmp_path / "a.tif")[0].astype(int) - smooth).max() < 12


def test_ycbcr_is_converted(tmp_path):
    file = io.BytesIO()
    Image.fromarray(RGB).convert("YCbCr").save(file, "TIFF")
    (tmp_path / "a.tif").write_bytes(file.getvalue())
    expected = np.asarray(Image.fromarray(RGB).convert("YCbCr").convert("RGB"))
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif")[0], expected)


REFUSED = {
    "signed": (by_tifffile(DEEP.view(np.int16), photometric="rgb"), "signed"),
    "complex": (by_tifffile(GRAY.astype(np.complex64)), "complex"),
    "64 bits": (by_tifffile(GRAY.astype(np.uint64)), "64 bits"),
    "float beyond one": (by_tifffile(FLOAT * 255, photometric="rgb"), r"must lie in \[0, 1\]"),
    "a mosaic": (by_tifffile(DEEP[..., 0], photometric="cfa"), "mosaic"),
    "Lab": (by_tifffile(RGB, photometric="cielab"), "L\\*a\\*b"),
    "CMYK without profile": (by_tifffile(np.dstack([RGB, GRAY]), photometric="separated"), "CMYK"),
    "five channels": (by_tifffile(RNG.integers(0, 9, (20, 30, 5), dtype=np.uint8), photometric="minisblack",
                                  planarconfig="contig"), "5 channels"),
    "two ways": (by_tifffile(np.zeros((2, 3, 20, 30), np.uint8), imagej=True, metadata={"axes": "TZYX"}), "two ways"),
    "a stack": (by_tifffile(np.zeros((4, 20, 30), np.uint8), photometric="minisblack"), "4 pages"),
    "two channels": (by_tifffile(np.zeros((4, 2, 20, 30), np.uint8), imagej=True, metadata={"axes": "ZCYX"}), "2 channels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_unsupported_kinds_are_refused_in_one_line(tmp_path, kind):
    data, words = REFUSED[kind]
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=words) as error:
        read_photograph(tmp_path / "a.tif")
    assert "\n" not in str(error.value) and "a.tif" in str(error.value)


STACK = RNG.integers(0, 65536, (5, 20, 30), dtype=np.uint16)
COLOUR_STACK = RNG.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
PAGES = {
    "pages": (by_tifffile(STACK, photometric="minisblack", metadata=None), STACK),
    "colour pages": (by_tifffile(COLOUR_STACK, photometric="rgb", metadata=None), COLOUR_STACK),
    "tifffile": (by_tifffile(STACK, photometric="minisblack"), STACK),
    "three gray pages": (by_tifffile(STACK[:3], photometric="minisblack", metadata=None), STACK[:3]),
    "ImageJ": (by_tifffile(STACK, imagej=True, metadata={"axes": "ZYX"}), STACK),
    "ImageJ, one directory": (by_tifffile(STACK, imagej=True, metadata={"axes": "ZYX"}, truncate=True), STACK),
    "ImageJ, time": (by_tifffile(STACK, imagej=True, metadata={"axes": "TYX"}), STACK),
    "ImageJ, colours as channels": (
        by_tifffile(np.ascontiguousarray(COLOUR_STACK.transpose(0, 3, 1, 2)), imagej=True, metadata={"axes": "ZCYX"}),
        COLOUR_STACK,
    ),
    "OME, channels first": (
        by_tifffile(COLOUR_STACK.transpose(3, 0, 1, 2), photometric="minisblack", ome=True, metadata={"axes": "CZYX"}),
        COLOUR_STACK,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAGES)
def test_pages_are_slices(tmp_path, kind):
    data, expected = PAGES[kind]
    (tmp_path / "a.tif").write_bytes(data)
    assert count_tiff_slices(tmp_path / "a.tif") == len(expected)
    for index, image in enumerate(expected):
        read = read_photograph(tmp_path / "a.tif", page=index)[0]
        np.testing.assert_array_equal(read, in_rgb(image) if image.ndim == 2 else image)


@pytest.mark.parametrize("flagged", [0, 1])
def test_previews_are_not_slices(tmp_path, flagged):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB, photometric="rgb", metadata=None)
        file.write(RGB[::3, ::3], photometric="rgb", subfiletype=flagged, metadata=None)
    assert count_tiff_slices(tmp_path / "a.tif") == 1
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif")[0], RGB)


@pytest.mark.parametrize("deep", [False, True])
def test_exif_is_read(tmp_path, deep):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x920A] = 50.0
    Image.fromarray(DEEP[..., 0] if deep else RGB).save(tmp_path / "a.tif", exif=exif.tobytes())
    facts = read_photograph(tmp_path / "a.tif")[1]
    assert (facts.focal_length_m, facts.tags[0x010F]) == (0.05, "Maker")
