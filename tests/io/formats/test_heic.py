"""HEIC through libheif."""

import sys

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.io.images import read_photograph
from tests.io.formats.encoders import exif_with, write_heic

pytest.importorskip("pillow_heif")
RAMP = np.broadcast_to(np.linspace(0, 255, 96)[None, :, None], (64, 96, 3)).astype(np.uint8)


def test_eight_bits_and_exif_are_read(tmp_path):
    write_heic(tmp_path / "a.heic", RAMP, exif_with(x829D=1.78, x920A=6.81, xA405=24, x9206=0.4))
    image, facts = read_photograph(tmp_path / "a.heic")
    assert image.dtype == np.uint8 and image.shape == RAMP.shape and np.abs(image.astype(int) - RAMP).max() <= 2
    assert (facts.f_number, facts.subject_distance_m) == pytest.approx((1.78, 0.4))
    assert facts.pixel_pitch_m == pytest.approx(np.hypot(36e-3, 24e-3) * 6.81 / 24 / np.hypot(64, 96), rel=1e-6)


def test_ten_bits_use_the_full_range(tmp_path):
    deep = np.broadcast_to(np.linspace(0, 65535, 96)[None, :, None], (64, 96, 3)).astype(np.uint16)
    write_heic(tmp_path / "a.heic", deep)
    image, _ = read_photograph(tmp_path / "a.heic")
    assert image.dtype == np.uint16 and np.abs(image.astype(int) - deep).max() <= 2 * 65535 / 1023
    assert image.max() == 65535 and image.min() == 0


def test_orientation_is_applied_and_format_detected_by_content(tmp_path):
    """A file renamed to .jpg is read, too."""
    exif = exif_with()
    exif[274] = 6
    write_heic(tmp_path / "a.heic", RAMP, exif)
    (tmp_path / "a.heic").rename(tmp_path / "a.jpg")
    image, _ = read_photograph(tmp_path / "a.jpg")
    assert image.shape == (96, 64, 3) and image[0].mean() < 5 < 250 < image[-1].mean()


def test_broken_files_are_refused_by_name(tmp_path):
    write_heic(tmp_path / "a.heic", RAMP)
    whole = (tmp_path / "a.heic").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:40], b"\0\0\0\x18ftypheic"):
        (tmp_path / "a.heic").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.heic: not a readable"):
            read_photograph(tmp_path / "a.heic")


def test_without_pillow_heif_the_error_names_the_package(tmp_path, monkeypatch):
    write_heic(tmp_path / "a.heic", RAMP)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"needs pillow-heif: pip install 'sfdfd\[photo\]'"):
        read_photograph(tmp_path / "a.heic")
