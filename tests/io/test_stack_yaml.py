"""Stacks described by a folder, a TIFF of several pages, or a list of files."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from sfdfd.datasets.discovery import find_stacks
from sfdfd.errors import InputError
from sfdfd.photographs.read import read_photographs

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)


def write_pages(path, images):
    tifffile.imwrite(path, images, photometric="rgb", metadata=None)


def test_pages_of_a_tiff_are_slices(tmp_path):
    write_pages(tmp_path / "sweep.tif", IMAGES)
    for source in (tmp_path, tmp_path / "sweep.tif"):
        photographs = read_photographs(source, {"focus_distances_m": [1, 2, 3, 4]})
        assert photographs.name == "sweep" and [file.name for file in photographs.files] == [
            f"sweep_page_0{page}.tif" for page in (1, 2, 3, 4)
        ]
        assert all(np.array_equal(*pair) for pair in zip(photographs.images, IMAGES, strict=True))
    (tmp_path / "focus_distance.txt").write_text("1 2 3 4")
    assert read_photographs(tmp_path / "sweep.tif").focus_distances_m == (1, 2, 3, 4)
    Image.fromarray(IMAGES[0]).save(tmp_path / "single.tif")
    assert (
        read_photographs(tmp_path / "sweep.tif").focus_distances_m is None
    )  # the text file may describe the other stack
    with pytest.raises(InputError, match="one page is no stack"):
        read_photographs(tmp_path / "single.tif")


@pytest.mark.parametrize("other", ["another.tif", "photograph.jpg"])
def test_each_tiff_of_pages_is_a_stack(tmp_path, other):
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
    stacks, skipped = find_stacks(tmp_path)
    expected = {"a", "another"} if other.endswith("tif") else {"a"}
    assert {stack.name for stack in stacks} == {stack.source.stem for stack in stacks} == expected
    assert [note.endswith("one photograph is no stack") for note in skipped] == [True] * (2 - len(expected))


def test_photographs_next_to_a_tiff_of_pages_are_another_stack(tmp_path):
    (tmp_path / "x").mkdir()
    write_pages(tmp_path / "x" / "sweep.tif", IMAGES)
    for index in range(2):
        Image.fromarray(IMAGES[index]).save(tmp_path / "x" / f"{index}.png")
    stacks, _ = find_stacks(tmp_path)
    assert {(stack.name, stack.source.name, stack.files) for stack in stacks} == {
        ("x/sweep", "sweep.tif", None), ("x", "x", ("0.png", "1.png")),
    }  # fmt: skip
    assert all(
        len(read_photographs(stack.source, {"files": stack.files and list(stack.files)}).images) for stack in stacks
    )


def test_a_folder_with_one_tiff_of_pages_is_found(tmp_path):
    (tmp_path / "x").mkdir()
    write_pages(tmp_path / "x" / "sweep.tif", IMAGES)
    (stack,), _ = find_stacks(tmp_path)
    assert (stack.name, stack.source) == ("x", tmp_path / "x")
