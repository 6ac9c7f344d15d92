"""Image files: formats, rotation, EXIF."""

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from sfdfd.data.images import list_images, read_image, read_photograph
from sfdfd.errors import InputError


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
def test_sixteen_bits_survive(tmp_path, name):
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
def test_rotation_is_undone(tmp_path, orientation, kind):
    """The eight orientations of EXIF's tag 274, against array operations."""
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


def test_the_sensors_resolution_gives_the_pitch(tmp_path):
    """2,000 pixels per cm of a sensor of 36 mm: 7,200 pixels, of which the 30 stored ones were made."""
    save_with_exif(tmp_path / "a.jpg", **{FOCAL: 50.0, RESOLUTION: 2000.0, UNIT: 3, WIDTH: 7200})
    assert read_photograph(tmp_path / "a.jpg")[1].pixel_pitch_m == pytest.approx(0.036 / 30)


def test_numbers_sort_by_value(tmp_path):
    for name in ("a10.png", "a2.png", "a1.png", ".a0.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a1.png", "a2.png", "a10.png"]


def test_float_tiff_is_read_as_it_is(tmp_path):
    values = RNG.random((20, 30, 3), dtype=np.float32)
    cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1])
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif")[0], values)
