"""What a folder of photographs says of its camera, and what is said of it."""

import numpy as np
import pytest
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.alignment_files import write_aligned
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.read import read_photographs
from tests.io.test_images import DISTANCE, EQUIVALENT, FOCAL, HEIGHT, NUMBER, RESOLUTION, UNIT, WIDTH

RNG = np.random.default_rng(0)
LENS = {FOCAL: 50.0, NUMBER: 1.8, RESOLUTION: 1000 / 6, UNIT: 4}
"""6 um of a sensor of 36 x 24 mm with 6000 x 4000 pixels, of which each test stores fewer."""


def save(path, size, model=("", ""), **tags):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = model
    sub = exif.get_ifd(0x8769)
    for tag, value in tags.items():
        sub[int(tag[1:], 16)] = value
    Image.fromarray(RNG.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(path, exif=exif, quality=95)


def stack(folder, *photographs):
    """JPEG files of (size, tags), each with a subject distance of its own."""
    for index, (size, tags) in enumerate(photographs):
        save(folder / f"{index}.jpg", size, **{DISTANCE: 0.5 + index, **tags})
    return read_photographs(folder)


def test_photographs_that_software_has_rotated_have_the_right_pitch(tmp_path):
    found = stack(tmp_path, *[((40, 60), {**LENS, WIDTH: 6000, HEIGHT: 4000})] * 3)
    assert found.camera["pixel_pitch_m"] == pytest.approx(0.036 / 60)
    assert found.sources["pixel_pitch_m"].startswith("EXIF, corrected: the image was turned")
    assert sum("900 um" in note and "600 um" in note for note in found.notes) == 1  # once, not for each photograph


def test_the_pitch_of_resized_photographs_of_an_unknown_camera_is_unknown(tmp_path):
    found = stack(tmp_path, *[((60, 40), {**LENS, WIDTH: 60, HEIGHT: 40})] * 3)
    assert found.camera == {"focal_length_m": 0.05, "f_number": 1.8, "pixel_pitch_m": None}
    assert "camera.pixel_pitch_m" in found.missing and any("0.36 mm" in note for note in found.notes)
    given = read_photographs(tmp_path, {"camera": {"pixel_pitch_m": 6e-4}})
    assert given.camera["pixel_pitch_m"] == 6e-4 and not given.notes  # EXIF's is nobody's business then


def test_the_pitch_of_resized_photographs_follows_from_a_known_sensor(tmp_path):
    for index in range(3):
        tags = {**LENS, WIDTH: 60, HEIGHT: 40, DISTANCE: 0.5 + index}
        save(tmp_path / f"{index}.jpg", (60, 40), ("Canon", "Canon EOS 6D"), **tags)
    found = read_photographs(tmp_path)
    assert found.camera["pixel_pitch_m"] == pytest.approx(0.0359 / 60)
    assert "resized" in found.sources["pixel_pitch_m"] and "Canon EOS 6D" in found.notes[0]


def test_the_pitch_of_the_majority_is_used_and_a_tie_is_not(tmp_path):
    """One photograph was resized by a program that says nothing."""
    right, odd = (((60, 40), {FOCAL: 50.0, EQUIVALENT: equivalent}) for equivalent in (50, 100))
    found = stack(tmp_path, right, right, odd)
    assert found.camera["pixel_pitch_m"] == pytest.approx(0.0006)
    assert any("2 of 3 photographs" in note and "2.jpg" in note for note in found.notes)
    (tmp_path / "1.jpg").unlink()
    found = read_photographs(tmp_path)
    assert found.camera["pixel_pitch_m"] is None and any("neither was used" in note for note in found.notes)
    (tmp_path / "tie").mkdir()
    impossible = ((60, 40), {**LENS, WIDTH: 60, HEIGHT: 40})
    found = stack(tmp_path / "tie", right, impossible, impossible)
    assert found.camera["pixel_pitch_m"] == pytest.approx(0.0006) and len(found.notes) == 1


def test_the_related_image_size_of_exif_corrects_the_pitch(tmp_path):
    """DCF's RelatedImageWidth, in the interoperability part of EXIF."""
    exif = Image.Exif()
    sub = exif.get_ifd(0x8769)
    for tag, value in {**LENS, WIDTH: 60, HEIGHT: 40}.items():
        sub[int(tag[1:], 16)] = value
    sub[0xA005] = {1: "R98", 4097: 6000, 4098: 4000}
    for name in ("0.5m", "1m"):
        Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{name}.jpg", exif=exif)
    found = read_photographs(tmp_path)
    assert found.camera["pixel_pitch_m"] == pytest.approx(0.0006) and "RelatedImageWidth" in found.notes[0]


def test_an_asymmetric_crop_moves_the_principal_point(tmp_path):
    stack(tmp_path, *[((60, 40), {})] * 2)
    for crop, expected in (
        ([0, 0, 0, 0], None),
        ([8, 4, 8, 4], None),
        ([10, 0, 0, 0], (20, 20)),
        ([0, 6, 4, 0], (30, 14)),
    ):
        assert read_photographs(tmp_path, {"crop": crop}).principal_point_px == expected
    (tmp_path / "stack.yaml").write_text("principal_point_px: [40, 18.5]\ncrop: [10, 0, 0, 2]\n")
    found = read_photographs(tmp_path)
    assert found.principal_point_px == (30, 18.5) and found.with_slices([1, 0]).principal_point_px == (30, 18.5)
    (tmp_path / "stack.yaml").write_text("principal_point_px: 40\n")
    with pytest.raises(InputError, match=r"principal_point_px: expected \[x, y\]"):
        read_photographs(tmp_path)


def test_written_aligned_slices_keep_the_principal_point(tmp_path):
    stack(tmp_path, *[((60, 40), LENS)] * 2)
    photographs = read_photographs(tmp_path, {"crop": [10, 0, 0, 4]})
    capture = Capture.of(photographs, DefocusRenderer(), align=AlignSettings(mode=False), calibrate=False)
    assert read_photographs(write_aligned(tmp_path / "out", capture)).principal_point_px == (20, 20)
