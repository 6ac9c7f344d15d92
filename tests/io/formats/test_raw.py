"""RAW and DNG: the sensor's own light."""

import builtins

import numpy as np
import pytest
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.formats.raw import apply_srgb_curve
from sfdfd.io.images import read_photograph
from sfdfd.io.stack_yaml import StackDescription
from tests.io.formats.encoders import linear, write_dng

pytest.importorskip("rawpy")
pytest.importorskip("tifffile")
LIGHT = np.full((64, 96, 3), 0.0)
LIGHT[:, :48], LIGHT[:, 48:] = (0.2, 0.4, 0.1), (0.02, 0.01, 0.05)
CAMERA = [(37386, "2I", 1, (681, 100)), (33437, "2I", 1, (185, 100)), (37382, "2I", 1, (50, 100)), (41989, "H", 1, 24)]


def test_srgb_curve_is_inverted_by_the_renderer():
    steps = np.arange(65536, dtype=np.uint16)
    assert np.abs(linear(apply_srgb_curve(steps) / 65535) - steps / 65535).max() < 2e-5


def test_a_dng_is_developed_to_the_sensors_light(tmp_path):
    """White-balanced, in sRGB's primaries, at the sensor's scale: equal to the input up to rounding."""
    write_dng(tmp_path / "a.dng", LIGHT, CAMERA)
    image, facts = read_photograph(tmp_path / "a.dng")
    assert image.shape == LIGHT.shape and image.dtype == np.uint16
    seen = linear(image / 65535)
    for columns in (slice(4, 44), slice(52, 92)):
        np.testing.assert_allclose(seen[4:-4, columns], LIGHT[4:-4, columns], atol=3e-4)
    assert (facts.focal_length_m, facts.f_number, facts.subject_distance_m) == pytest.approx((6.81e-3, 1.85, 0.5))
    assert facts.pixel_pitch_m == pytest.approx(np.hypot(36e-3, 24e-3) * 6.81 / 24 / np.hypot(64, 96), rel=1e-6)


def test_brightness_scale_does_not_depend_on_the_image(tmp_path):
    """LibRaw's default adapts the white level to the brightest pixel, which differs between slices."""
    write_dng(tmp_path / "dark.dng", 0.5 * LIGHT)
    write_dng(tmp_path / "a.dng", LIGHT)
    dark, light = (linear(read_photograph(tmp_path / name)[0][20, 20] / 65535) for name in ("dark.dng", "a.dng"))
    np.testing.assert_allclose(2 * dark, light, atol=5e-4)


def test_orientation_is_applied(tmp_path):
    write_dng(tmp_path / "a.dng", LIGHT, [(274, "H", 1, 6)])  # a quarter turn
    image, _ = read_photograph(tmp_path / "a.dng")
    assert image.shape == (96, 64, 3) and image[10, 30, 1] > 5 * image[-10, 30, 1]


@pytest.mark.parametrize("content", [b"", b"no raw file", b"II*\0" + bytes(60)])
def test_broken_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.dng").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.dng: not a readable"):
        read_photograph(tmp_path / "a.dng")


def test_raw_is_preferred_to_jpeg_of_the_same_shot(tmp_path):
    for index in range(2):
        write_dng(tmp_path / f"{index}.dng", LIGHT)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / f"{index}.jpg")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "2.jpg")
    assert [file.name for file in StackDescription.read(tmp_path, None).files] == ["0.dng", "1.dng", "2.jpg"]


def test_without_rawpy_the_error_names_the_package(tmp_path, monkeypatch):
    write_dng(tmp_path / "a.dng", LIGHT)
    usual = builtins.__import__

    def without(name, *rest):
        if name == "rawpy":
            raise ImportError(name)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs rawpy: pip install 'sfdfd\[photo\]'"):
        read_photograph(tmp_path / "a.dng")
