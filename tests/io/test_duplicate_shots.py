"""One file per shot: several formats and identical copies."""

import shutil

import numpy as np
import pytest
from PIL import Image

from sfdfd.io.duplicate_shots import one_file_per_shot
from sfdfd.photographs.read import read_photographs
from tests.io.formats.encoders import write_heic

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)


def names(photographs):
    return [file.name for file in photographs.files]


def test_heic_and_jpeg_of_a_shot_are_one_slice(tmp_path):
    pytest.importorskip("pillow_heif")
    for index, image in enumerate(IMAGES[:3]):
        write_heic(tmp_path / f"IMG_{index}.HEIC", image)
        Image.fromarray(image).save(tmp_path / f"IMG_{index}.JPG")
    photographs = read_photographs(tmp_path)
    assert names(photographs) == ["IMG_0.HEIC", "IMG_1.HEIC", "IMG_2.HEIC"]
    assert any("3 shots" in note and "one slice" in note for note in photographs.notes)


def test_formats_of_one_name_are_one_slice(tmp_path):
    files = ["a.jpg", "a.png", "b.tif", "b.webp", "c.JPG", "C.png", "d.jpg", "d.jpeg", "PXL_1.RAW-01.COVER.jpg",
             "PXL_1.RAW-02.ORIGINAL.dng"]  # fmt: skip
    kept, notes = one_file_per_shot([tmp_path / name for name in files])
    assert [file.name for file in kept] == ["a.png", "b.tif", "C.png", "d.jpg", "d.jpeg", "PXL_1.RAW-02.ORIGINAL.dng"]
    assert len(notes) == 1 and "4 shots" in notes[0]


def test_identical_files_count_once(tmp_path):
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"IMG_{index}.png")
    shutil.copy(tmp_path / "IMG_2.png", tmp_path / "IMG_2 (1).png")
    photographs = read_photographs(tmp_path)
    assert names(photographs) == [f"IMG_{index}.png" for index in range(4)]
    assert any("IMG_2 (1).png is the same file as IMG_2.png" in note for note in photographs.notes)
    with_distances = read_photographs(
        tmp_path, {"focus_distances_m": [1, 2, 3, 3, 4]}
    )  # one for each of the five files
    assert with_distances.focus_distances_m == (1, 2, 3, 4)
