"""Written images carry the sRGB colour space and EXIF that fits their pixels."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image

from sfdfd.io.embedded_metadata import build_exif, encode_png, write_float_tiff
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.images import read_photograph, write_image
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.alignment_files import write_aligned
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.read import read_photographs
from sfdfd.report.portrait import write_portrait

Tag = ExifTags.Base
WIDTH, HEIGHT, FOCAL_MM, EQUIVALENT_MM = 120, 80, 6.5, 28
PITCH_M = 1e-3 * FOCAL_MM * np.hypot(36, 24) / EQUIVALENT_MM / np.hypot(WIDTH, HEIGHT)  # a plausible sensor


def photograph_exif(orientation, *, pitch=True):
    exif = Image.Exif()
    exif[Tag.Make], exif[Tag.Model], exif[Tag.Orientation] = "Maker", "Model 3", orientation
    directory = exif.get_ifd(ExifTags.IFD.Exif)
    directory[Tag.FocalLength], directory[Tag.FNumber], directory[Tag.FocalLengthIn35mmFilm] = (
        FOCAL_MM,
        1.8,
        EQUIVALENT_MM,
    )
    directory[Tag.DateTimeOriginal], directory[Tag.ExposureTime] = "2026:05:01 12:00:00", 0.01
    directory[Tag.ExifImageWidth], directory[Tag.ExifImageHeight] = WIDTH, HEIGHT
    if pitch:
        directory[Tag.FocalPlaneXResolution], directory[Tag.FocalPlaneResolutionUnit] = 0.01 / PITCH_M, 3
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return exif


@pytest.fixture(params=[(1, True), (6, True), (6, False)], ids=["upright", "rotated", "rotated, no pitch"])
def capture(tmp_path, request):
    orientation, pitch = request.param
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(3):
        image = texture if index == 1 else np.asarray(Image.fromarray(texture).resize((40, 30)).resize((WIDTH, HEIGHT)))
        Image.fromarray(image - np.uint8(index) * (image > 3)).save(
            tmp_path / f"{index}.png", exif=photograph_exif(orientation, pitch=pitch)
        )
    settings = {"focus_distances_m": [0.5, 1.0, 2.0], "crop": [8, 4, 12, 16]}
    photographs = read_photographs(tmp_path, settings)
    assert len(photographs.facts) == 3
    renderer = DefocusRenderer(method="fast")
    return Capture.of(photographs, renderer, align=AlignSettings(mode=False), calibrate=False), pitch


def check(path, capture, pitch):
    """Check that EXIF, read as any program reads it, describes the written pixels."""
    with Image.open(path) as image:
        exif, size = image.getexif(), image.size
        directory = dict(exif.get_ifd(ExifTags.IFD.Exif))
    assert size == capture.photographs.size[::-1] and Tag.Orientation not in exif and ExifTags.IFD.GPSInfo not in exif
    assert (exif[Tag.Make], exif[Tag.Model]) == ("Maker", "Model 3")
    assert directory[Tag.FocalLength] == pytest.approx(FOCAL_MM) and directory[Tag.FNumber] == pytest.approx(1.8)
    assert directory[Tag.DateTimeOriginal] == "2026:05:01 12:00:00" and directory[Tag.ColorSpace] == 1
    assert (directory[Tag.ExifImageWidth], directory[Tag.ExifImageHeight]) == size
    equivalent = EQUIVALENT_MM * np.hypot(WIDTH, HEIGHT) / np.hypot(*size)  # a part of the sensor shows less
    if pitch:
        assert directory[Tag.FocalPlaneXResolution] == pytest.approx(0.01 / PITCH_M, rel=1e-5)
        equivalent = FOCAL_MM * np.hypot(36, 24) / (1000 * PITCH_M * np.hypot(*size))
    assert directory[Tag.FocalLengthIn35mmFilm] == round(equivalent)
    facts = read_photograph(path)[1]
    assert (facts.colour_space, facts.focal_length_m) == ("sRGB", pytest.approx(FOCAL_MM / 1000))
    assert "assumed" not in facts.colour_source
    assert facts.pixel_pitch_m == pytest.approx(
        capture.camera.pixel_pitch_m if pitch else facts.pixel_pitch_m, rel=1e-4
    )


def test_all_in_focus_image_and_portrait_carry_camera_exif(tmp_path, capture):
    capture, pitch = capture
    height, width = capture.photographs.size
    write_image(tmp_path / "aif.png", torch.rand(3, height, width), capture.exif)
    check(tmp_path / "aif.png", capture, pitch)
    depth_m, aif = torch.rand(height, width) + 0.5, torch.rand(3, height, width)
    write_portrait(tmp_path / "portrait.jpg", depth_m, aif, exif=capture.exif)
    check(tmp_path / "portrait.jpg", capture, pitch)
    with Image.open(tmp_path / "portrait.jpg") as image:
        assert image.info["icc_profile"]


def test_aligned_slices_carry_camera_exif(tmp_path, capture):
    capture, pitch = capture
    folder = write_aligned(tmp_path / "out", capture)
    for path, image in zip(sorted(folder.glob("*.png")), capture.photographs.images, strict=True):
        check(path, capture, pitch)
        assert np.array_equal(read_photograph(path)[0], image)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_encoded_png_is_lossless(tmp_path, kind):
    image = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (20, 30, 3)).astype(kind)
    (tmp_path / "a.png").write_bytes(encode_png(image, build_exif(None, (20, 30))))
    read, facts = read_photograph(tmp_path / "a.png")
    assert np.array_equal(read, image) and facts.colour_source == "PNG's sRGB chunk"


def test_float_tiff_carries_srgb_profile_and_exif(tmp_path):
    image = np.random.default_rng(0).random((20, 30, 3), dtype=np.float32)
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png", exif=photograph_exif(1))
    facts = read_photograph(tmp_path / "p.png")[1]
    exif = build_exif(facts, (20, 30), camera={"pixel_pitch_m": 4 * PITCH_M})  # the file is a quarter of the size
    write_float_tiff(tmp_path / "a.tif", image, exif)
    read, said = read_photograph(tmp_path / "a.tif")
    assert np.array_equal(read, image) and said.colour_source.startswith("embedded profile")
    assert (said.focal_length_m, said.f_number, said.pixel_pitch_m) == pytest.approx(
        (FOCAL_MM / 1000, 1.8, 4 * PITCH_M)
    )
    assert (said.tags[Tag.Make], said.tags[Tag.DateTimeOriginal]) == ("Maker", "2026:05:01 12:00:00")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.tags["ExifTag"].value["FocalLength"][0] / file.pages.first.tags["ExifTag"].value[
            "FocalLength"
        ][1] == pytest.approx(FOCAL_MM)


def test_invalid_exif_values_are_skipped(tmp_path):
    """Tags of wrong types, texts that are none, numbers that cannot be."""
    odd = {Tag.Make: b"A\0\xffB\n", Tag.Model: 5, Tag.FNumber: "f/8", Tag.FocalLength: float("nan"),
           Tag.ISOSpeedRatings: (100, 200), Tag.DateTimeOriginal: "写真", Tag.FocalLengthIn35mmFilm: 1e30}  # fmt: skip
    exif = build_exif(PhotoFacts(tags=odd), (20, 30), camera={"focal_length_m": 1e-4, "pixel_pitch_m": 1e-7})
    assert exif[Tag.Make] == "AB" and Tag.Model not in exif
    assert encode_png(np.zeros((20, 30, 3), np.uint8), exif)
    assert build_exif(PhotoFacts(tags=odd), (20, 30)).tobytes()
