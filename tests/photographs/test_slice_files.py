"""Slices that fit each other: orientation, size, unreadable and identical files."""

import numpy as np
import pytest
from PIL import Image

from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.read import read_photographs
from tests.io.formats.encoders import write_dng, write_heic

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)


def names(photographs):
    return [file.name for file in photographs.files]


def save(path, image, orientation=1):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(image)).save(path, exif=exif)


def test_a_stack_of_identical_slices_is_refused(tmp_path):
    for index, suffix in enumerate(("png", "bmp", "tif")):  # equal pixels, different bytes
        Image.fromarray(IMAGES[0]).save(tmp_path / f"{index}.{suffix}")
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5}
    settings = {"camera": camera, "focus_distances_m": [1, 2, 3]}
    for refused in (
        lambda: Capture.of(read_photographs(tmp_path, settings), DefocusRenderer()),
        lambda: read_stack(tmp_path, settings),
    ):
        with pytest.raises(InputError, match="identical: such a stack carries no signal"):
            refused()


def test_unreadable_raw_files_fall_back_to_jpeg(tmp_path):
    """All slices are read as JPEG, because tones differ; if a JPEG is missing, the RAW file's error is raised."""
    pytest.importorskip("rawpy")
    for index, image in enumerate(RNG.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)):
        write_dng(tmp_path / f"{index}.dng", image / 255.0)
        Image.fromarray(image).save(tmp_path / f"{index}.jpg")
    assert names(read_photographs(tmp_path)) == ["0.dng", "1.dng", "2.dng"]
    (tmp_path / "1.dng").write_bytes(b"a codec of tomorrow")
    for overrides in (None, {"files": ["0.dng", "1.dng", "2.dng"]}):
        photographs = read_photographs(tmp_path, overrides)
        assert names(photographs) == ["0.jpg", "1.jpg", "2.jpg"]
        assert any(".jpg" in note and "1.dng: not a readable RAW file" in note for note in photographs.notes)
    (tmp_path / "2.jpg").unlink()
    with pytest.raises(InputError, match=r"1\.dng: not a readable RAW file"):
        read_photographs(tmp_path)


@pytest.mark.parametrize("turns", [(1, 1, 3, 1), (3, 6, 3, 3), (8, 8, 1, 8)])
def test_all_slices_get_the_orientation_of_the_majority(tmp_path, turns):
    most = max(set(turns), key=turns.count)
    for index, turn in enumerate(turns):
        save(tmp_path / f"{index}.png", IMAGES[index], turn)
    photographs = read_photographs(tmp_path)
    for image, stored in zip(photographs.images, IMAGES, strict=True):
        assert np.array_equal(image, {1: stored, 3: stored[::-1, ::-1], 8: np.rot90(stored)}[most])
    odd = next(index for index, turn in enumerate(turns) if turn != most)
    assert any(f"{odd}.png ({turns[odd]})" in note and f"orientation {most}" in note for note in photographs.notes)


def test_heic_and_raw_get_the_orientation_of_the_majority(tmp_path):
    pytest.importorskip("pillow_heif")
    pytest.importorskip("rawpy")
    exif = Image.Exif()
    exif[274] = 3
    smooth = np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)
    for index, turn in enumerate((None, None, exif)):
        write_heic(tmp_path / f"{index}.heic", smooth - (smooth > 9) * np.uint8(index), turn)
    images = list(read_photographs(tmp_path).images)
    assert np.abs(images[2].astype(int) - images[0]).max() < 12
    (tmp_path / "raw").mkdir()
    for index, turn in enumerate((1, 3, 1)):
        write_dng(tmp_path / "raw" / f"{index}.dng", (smooth - np.uint8(0)) / (255.0 + index), [(274, "H", 1, turn)])
    images = list(read_photographs(tmp_path / "raw").images)
    assert np.abs(images[1][4:-4, 4:-4].astype(int) - images[0][4:-4, 4:-4]).max() < 3000


def test_images_rotated_by_software_are_not_rotated_again(tmp_path):
    """Some files hold upright pixels without orientation, others pixels that still have to be rotated."""
    save(tmp_path / "0.png", IMAGES[0], 6)
    save(tmp_path / "1.png", np.rot90(IMAGES[1], 3))
    save(tmp_path / "2.png", IMAGES[2], 6)
    photographs = read_photographs(tmp_path)
    assert all(
        np.array_equal(image, np.rot90(stored, 3)) for image, stored in zip(photographs.images, IMAGES, strict=False)
    )
    assert not any("turn" in note for note in photographs.notes)


def test_sizes_that_differ_by_two_pixels_are_cropped_with_a_note(tmp_path):
    for index, (height, width) in enumerate(((20, 30), (19, 30), (20, 28))):
        Image.fromarray(np.ascontiguousarray(IMAGES[0][:height, :width] + np.uint8(index))).save(
            tmp_path / f"{index}.png"
        )
    photographs = read_photographs(tmp_path)
    assert photographs.size == (19, 28) and all(image.shape == (19, 28, 3) for image in photographs.images)
    assert np.array_equal(photographs.images[0], IMAGES[0][:19, 1:29])
    assert any("28 x 19" in note and "cropped" in note for note in photographs.notes)
    Image.fromarray(IMAGES[3][:17]).save(tmp_path / "3.png")
    with pytest.raises(InputError, match=r"all slices must have one size"):
        read_photographs(tmp_path)
