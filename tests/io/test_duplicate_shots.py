"""One slice for each shot, whatever else lies beside it, and slices that fit each other."""

import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from sfdfd.datasets.discovery import stacks_below
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError
from sfdfd.io.duplicate_shots import without_twins
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


def test_heic_and_jpeg_of_a_shot_are_one_slice(tmp_path):
    pytest.importorskip("pillow_heif")
    for index, image in enumerate(IMAGES[:3]):
        write_heic(tmp_path / f"IMG_{index}.HEIC", image)
        Image.fromarray(image).save(tmp_path / f"IMG_{index}.JPG")
    found = read_photographs(tmp_path)
    assert names(found) == ["IMG_0.HEIC", "IMG_1.HEIC", "IMG_2.HEIC"]
    assert any("3 shots" in note and "one slice" in note for note in found.notes)


def test_any_two_formats_of_a_shot_are_one_slice(tmp_path):
    given = ["a.jpg", "a.png", "b.tif", "b.webp", "c.JPG", "C.png", "d.jpg", "d.jpeg", "PXL_1.RAW-01.COVER.jpg",
             "PXL_1.RAW-02.ORIGINAL.dng"]  # fmt: skip
    kept, notes = without_twins([tmp_path / name for name in given])
    assert [file.name for file in kept] == ["a.png", "b.tif", "C.png", "d.jpg", "d.jpeg", "PXL_1.RAW-02.ORIGINAL.dng"]
    assert len(notes) == 1 and "4 shots" in notes[0]


def test_identical_files_count_once(tmp_path):
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"IMG_{index}.png")
    shutil.copy(tmp_path / "IMG_2.png", tmp_path / "IMG_2 (1).png")
    found = read_photographs(tmp_path)
    assert names(found) == [f"IMG_{index}.png" for index in range(4)]
    assert any("IMG_2 (1).png is the same file as IMG_2.png" in note for note in found.notes)
    said = read_photographs(tmp_path, {"focus_distances_m": [1, 2, 3, 3, 4]})  # one each, of all five
    assert said.focus_distances_m == (1, 2, 3, 4)


def test_a_stack_of_identical_slices_is_refused(tmp_path):
    for index, suffix in enumerate(("png", "bmp", "tif")):  # by what they show, not by their bytes
        Image.fromarray(IMAGES[0]).save(tmp_path / f"{index}.{suffix}")
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5}
    said = {"camera": camera, "focus_distances_m": [1, 2, 3]}
    for refused in (
        lambda: Capture.of(read_photographs(tmp_path, said), DefocusRenderer()),
        lambda: read_stack(tmp_path, said),
    ):
        with pytest.raises(InputError, match="identical: such a stack carries no signal"):
            refused()


def test_a_raw_file_that_cannot_be_decoded_falls_back_to_its_jpeg(tmp_path):
    """For all slices, which would differ in tone; where one has no JPEG, the RAW file's error stays."""
    pytest.importorskip("rawpy")
    for index, image in enumerate(RNG.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)):
        write_dng(tmp_path / f"{index}.dng", image / 255.0)
        Image.fromarray(image).save(tmp_path / f"{index}.jpg")
    assert names(read_photographs(tmp_path)) == ["0.dng", "1.dng", "2.dng"]
    (tmp_path / "1.dng").write_bytes(b"a codec of tomorrow")
    for overrides in (None, {"files": ["0.dng", "1.dng", "2.dng"]}):
        found = read_photographs(tmp_path, overrides)
        assert names(found) == ["0.jpg", "1.jpg", "2.jpg"]
        assert any(".jpg" in note and "1.dng: not a readable RAW file" in note for note in found.notes)
    (tmp_path / "2.jpg").unlink()
    with pytest.raises(InputError, match=r"1\.dng: not a readable RAW file"):
        read_photographs(tmp_path)


@pytest.mark.parametrize("turns", [(1, 1, 3, 1), (3, 6, 3, 3), (8, 8, 1, 8)])
def test_an_orientation_that_flips_is_the_majoritys(tmp_path, turns):
    most = max(set(turns), key=turns.count)
    for index, turn in enumerate(turns):
        save(tmp_path / f"{index}.png", IMAGES[index], turn)
    found = read_photographs(tmp_path)
    for image, stored in zip(found.images, IMAGES, strict=True):
        assert np.array_equal(image, {1: stored, 3: stored[::-1, ::-1], 8: np.rot90(stored)}[most])
    odd = next(index for index, turn in enumerate(turns) if turn != most)
    assert any(f"{odd}.png ({turns[odd]})" in note and f"orientation {most}" in note for note in found.notes)


def test_an_orientation_that_flips_in_heic_and_raw(tmp_path):
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


def test_pictures_that_software_turned_stay_as_they_are(tmp_path):
    """Upright pixels without orientation among pixels that still have to be turned."""
    save(tmp_path / "0.png", IMAGES[0], 6)
    save(tmp_path / "1.png", np.rot90(IMAGES[1], 3))
    save(tmp_path / "2.png", IMAGES[2], 6)
    found = read_photographs(tmp_path)
    assert all(np.array_equal(image, np.rot90(stored, 3)) for image, stored in zip(found.images, IMAGES, strict=False))
    assert not any("turn" in note for note in found.notes)


def test_sizes_that_differ_by_a_pixel_or_two_are_cropped_and_said(tmp_path):
    for index, (height, width) in enumerate(((20, 30), (19, 30), (20, 28))):
        Image.fromarray(np.ascontiguousarray(IMAGES[0][:height, :width] + np.uint8(index))).save(
            tmp_path / f"{index}.png"
        )
    found = read_photographs(tmp_path)
    assert found.size == (19, 28) and all(image.shape == (19, 28, 3) for image in found.images)
    assert np.array_equal(found.images[0], IMAGES[0][:19, 1:29])
    assert any("28 x 19" in note and "cropped" in note for note in found.notes)
    Image.fromarray(IMAGES[3][:17]).save(tmp_path / "3.png")
    with pytest.raises(InputError, match=r"all slices must have one size"):
        read_photographs(tmp_path)


def write_pages(path, images):
    tifffile.imwrite(path, images, photometric="rgb", metadata=None)


def test_the_pages_of_a_tiff_are_slices(tmp_path):
    write_pages(tmp_path / "sweep.tif", IMAGES)
    for source in (tmp_path, tmp_path / "sweep.tif"):
        found = read_photographs(source, {"focus_distances_m": [1, 2, 3, 4]})
        assert found.name == ("sweep") and names(found) == [f"sweep_page_0{page}.tif" for page in (1, 2, 3, 4)]
        assert all(np.array_equal(*pair) for pair in zip(found.images, IMAGES, strict=True))
    (tmp_path / "focus_distance.txt").write_text("1 2 3 4")
    assert read_photographs(tmp_path / "sweep.tif").focus_distances_m == (1, 2, 3, 4)
    Image.fromarray(IMAGES[0]).save(tmp_path / "single.tif")
    assert read_photographs(tmp_path / "sweep.tif").focus_distances_m is None  # the text may be the others'
    with pytest.raises(InputError, match="one page is no stack"):
        read_photographs(tmp_path / "single.tif")


@pytest.mark.parametrize("other", ["another.tif", "photograph.jpg"])
def test_several_tiffs_with_pages_are_several_stacks(tmp_path, other):
    """Never a stack of their first pages."""
    write_pages(tmp_path / "a.tif", IMAGES)
    if other.endswith("tif"):
        write_pages(tmp_path / other, IMAGES[::-1])
    else:
        Image.fromarray(IMAGES[0]).save(tmp_path / other)
    with pytest.raises(InputError, match=r"a\.tif|another\.tif") as error:
        read_photographs(tmp_path)
    assert "4 pages" in str(error.value) and "stacks=" in str(error.value)
    with pytest.raises(InputError, match="slices of a stack of their own"):
        read_photographs(tmp_path, {"files": ["a.tif", other]})
    found, passed = stacks_below(tmp_path)
    wanted = {"a", "another"} if other.endswith("tif") else {"a"}
    assert {one.name for one in found} == wanted and {one.source.stem for one in found} == wanted
    assert [words.endswith("one photograph is no stack") for words in passed] == [True] * (2 - len(wanted))


def test_photographs_beside_a_tiff_of_pages_are_a_stack_of_their_own(tmp_path):
    (tmp_path / "x").mkdir()
    write_pages(tmp_path / "x" / "sweep.tif", IMAGES)
    for index in range(2):
        Image.fromarray(IMAGES[index]).save(tmp_path / "x" / f"{index}.png")
    found, _ = stacks_below(tmp_path)
    assert {(one.name, one.source.name, one.files) for one in found} == {
        ("x/sweep", "sweep.tif", None), ("x", "x", ("0.png", "1.png")),
    }  # fmt: skip
    assert all(len(read_photographs(one.source, {"files": one.files and list(one.files)}).images) for one in found)


def test_a_folder_with_one_tiff_of_pages_is_found(tmp_path):
    (tmp_path / "x").mkdir()
    write_pages(tmp_path / "x" / "sweep.tif", IMAGES)
    (found,), _ = stacks_below(tmp_path)
    assert (found.name, found.source) == ("x", tmp_path / "x")
