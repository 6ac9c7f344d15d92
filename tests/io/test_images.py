"""Image files: bit depth, orientation, EXIF, broken files."""

import struct
import zlib

import cv2
import imagecodecs
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.images import list_images, read_image, read_photograph


@pytest.mark.parametrize(("array", "expected"), [
    (np.full((9, 9), 128, np.uint8), 128 / 255), (np.full((9, 9), 30000, np.uint16), 30000 / 65535),
    (np.full((9, 9, 4), 64, np.uint8), 64 / 255), (np.full((9, 9, 3), 200, np.uint8), 200 / 255),
])  # fmt: skip
def test_grey_alpha_and_16_bit_images(tmp_path, array, expected):
    iio.imwrite(tmp_path / "a.png", array)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 9, 9)
    torch.testing.assert_close(image, torch.full((3, 9, 9), expected), atol=1e-6, rtol=0)


RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65535, (20, 30, 3), dtype=np.uint16)
FLAT = (DEEP >> 8).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_kept(tmp_path, name):
    path = tmp_path / name
    cv2.imwrite(str(path), DEEP[..., ::-1])
    assert np.array_equal(read_photograph(path)[0], DEEP)
    cv2.imwrite(str(path), DEEP[..., 0])  # grey
    assert np.array_equal(read_photograph(path)[0], np.repeat(DEEP[..., :1], 3, 2))


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.tif", {}), ("a.tiff", {"compression": "tiff_lzw"})])
def test_alpha_is_dropped_and_colours_keep_their_order(tmp_path, name, options):
    Image.fromarray(np.dstack([FLAT, FLAT[..., 0]])).save(tmp_path / name, **options)
    assert np.array_equal(read_photograph(tmp_path / name)[0], FLAT)


UPRIGHT = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 3), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["a.png", "a.tif", "deep.tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    """Compare the eight values of EXIF tag 274 with array operations."""
    exif = Image.Exif()
    exif[274] = orientation
    stored = DEEP[..., 0] if kind.startswith("deep") else FLAT
    Image.fromarray(stored).save(tmp_path / kind, exif=exif)
    read = read_photograph(tmp_path / kind)[0]
    expected = UPRIGHT[orientation](stored)
    assert np.array_equal(read[..., 0] if kind.startswith("deep") else read, expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "deep.png", "deep.tif", "a.jpg"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.97])
def test_truncated_files_are_refused_by_name(tmp_path, name, keep):
    path = tmp_path / name
    cv2.imwrite(str(path), DEEP if name.startswith("deep") else FLAT)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=name):
        read_photograph(path)


def save_with_exif(path, **tags):
    exif = Image.Exif()
    sub = exif.get_ifd(0x8769)
    for tag, value in tags.items():
        sub[int(tag[1:], 16)] = value
    Image.fromarray(FLAT).save(path, exif=exif, quality=95)


FOCAL, NUMBER, EQUIVALENT, DISTANCE, RESOLUTION, UNIT = "x920A", "x829D", "xA405", "x9206", "xA20E", "xA210"
WIDTH, HEIGHT = "xA002", "xA003"


def test_pixel_pitch_follows_from_sensor_resolution(tmp_path):
    """2,000 pixels per cm on a 36 mm sensor are 7,200 pixels, resized to the 30 stored ones."""
    save_with_exif(tmp_path / "a.jpg", **{FOCAL: 50.0, RESOLUTION: 2000.0, UNIT: 3, WIDTH: 7200})
    assert read_photograph(tmp_path / "a.jpg")[1].pixel_pitch_m == pytest.approx(0.036 / 30)


def test_list_images_sorts_numbers_by_value(tmp_path):
    for name in ("a10.png", "a2.png", "a1.png", ".a0.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a1.png", "a2.png", "a10.png"]


def test_float_tiff_is_read_exactly(tmp_path):
    values = RNG.random((20, 30, 3), dtype=np.float32)
    cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1])
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif")[0], values)


@pytest.mark.parametrize("name", ["a.bmp", "a.webp", "a.ppm", "a.jp2", "a.png"])
def test_lossless_formats_are_read_exactly(tmp_path, name):
    options = {"a.webp": {"lossless": True}, "a.jp2": {"irreversible": False}}
    Image.fromarray(FLAT).save(tmp_path / name, **options.get(name, {}))
    assert np.array_equal(read_photograph(tmp_path / name)[0], FLAT)
    assert list_images(tmp_path) == [tmp_path / name]


def test_avif_is_read(tmp_path):
    smooth = np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.avif", quality=95, subsampling="4:4:4")
    assert np.abs(read_photograph(tmp_path / "a.avif")[0].astype(int) - smooth).max() <= 6


def test_deep_avif_and_jpeg_2000_keep_their_bit_depth(tmp_path):
    ramp = np.repeat(np.linspace(0, 4095, 96).round().astype(np.uint16)[None, :, None], 3, 2).repeat(64, 0)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(ramp, level=0, bitspersample=12))
    expected = (ramp / 4095 * 65535).round()
    assert np.array_equal(read_photograph(tmp_path / "a.jp2")[0], expected)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(ramp >> 2, bitspersample=10, level=95))
    read = read_photograph(tmp_path / "a.avif")[0]
    assert read.dtype == np.uint16 and np.abs(read - (ramp >> 2) / 1023 * 65535).max() < 300


@pytest.mark.parametrize(("kind", "white"), [(5, 255), (5, 1023), (6, 65535), (6, 100), (2, 4095), (3, 255)])
def test_netpbm_of_every_bit_depth(tmp_path, kind, white):
    channels, top = (3 if kind in (3, 6) else 1), (255 if white < 256 else 65535)
    values = RNG.integers(0, white + 1, (20, 30, channels))
    body = (
        " ".join(map(str, values.ravel())).encode()
        if kind < 4
        else values.astype("u1" if white < 256 else ">u2").tobytes()
    )
    (tmp_path / "a.pnm").write_bytes(b"P%d\n# of a microscope\n30 20\n%d\n" % (kind, white) + body)
    read = read_photograph(tmp_path / "a.pnm")[0]
    assert read.dtype == (np.uint8 if top == 255 else np.uint16)
    np.testing.assert_array_equal(read, np.broadcast_to((values * (top / white)).round(), (20, 30, 3)))
    (tmp_path / "a.pnm").write_bytes((tmp_path / "a.pnm").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.pnm: not a readable image"):
        read_photograph(tmp_path / "a.pnm")


def write_claimed_size(path, width, height):
    """Write another size into the headerer of an image of (20, 30) pixels."""
    if path.suffix == ".ppm":
        path.write_bytes(b"P6 %d %d 255\n" % (width, height))
    elif path.suffix == ".tif":
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages[0].tags["ImageWidth"].overwrite(width)
            file.pages[0].tags["ImageLength"].overwrite(height)
    elif path.suffix == ".png":
        data = path.read_bytes()
        header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
        path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    else:
        data = path.read_bytes()
        offset = data.index(b"\xff\xc0") + 5
        path.write_bytes(data[:offset] + struct.pack(">HH", height, width) + data[offset + 4 :])


@pytest.mark.parametrize(
    ("width", "height", "passes"), [(9504, 6336, True), (11648, 8736, True), (20000, 10000, False)]
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.ppm"])
def test_size_limit_admits_100_megapixel_photographs(tmp_path, name, width, height, passes):
    """61 and 102 megapixels pass the size check (then the pixels are missing); for 200 the error tells how to resize."""
    Image.fromarray(FLAT).save(tmp_path / name)
    write_claimed_size(tmp_path / name, width, height)
    try:
        message = str(read_photograph(tmp_path / name)[1])  # a truncated JPEG may be filled up
    except InputError as error:
        message = str(error)
    assert ("200 megapixels" in message and "-resize" in message and "\n" not in message) is not passes
