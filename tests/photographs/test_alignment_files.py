"""Alignment as a file, and aligned slices as files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.alignment_files import load_alignment, save_alignment, write_aligned
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.lookup import example_photographs
from sfdfd.photographs.read import read_photographs

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


@pytest.fixture(scope="module")
def moved():
    """The example, two slices of which have moved by whole pixels."""
    whole = example_photographs(96, 128)
    images = [np.roll(image, (2 * i, -3 * i), (0, 1)) for i, image in enumerate(whole.images)]
    return replace(whole, images=tuple(images))


def test_a_loaded_alignment_equals_the_saved_one(moved, tmp_path):
    first = Capture.of(moved, RENDERER, align=AlignSettings(mode=True))
    save_alignment(tmp_path / "a" / "b.json", first)
    loaded = load_alignment(tmp_path / "a" / "b.json", moved)
    for key in ("matrices", "radial", "shift_px", "scale", "motion_px", "residual_px"):
        np.testing.assert_allclose(getattr(loaded, key), getattr(first.alignment, key), err_msg=key)
    again = Capture.of(moved, RENDERER, alignment=loaded)
    assert again.aligned and all(
        np.array_equal(a, b) for a, b in zip(first.photographs.images, again.photographs.images, strict=True)
    )
    fewer = moved.with_slices([1, 2, 3])  # the file may know more slices
    assert loaded.reference in (1, 2, 3) and load_alignment(tmp_path / "a" / "b.json", fewer).matrices.shape == (
        3,
        3,
        3,
    )


def test_slices_of_one_name_keep_their_own_motions(moved, tmp_path):
    """a.jpg and a.png, and files of one name in two folders."""
    files = [tmp_path / name for name in ("s/a.jpg", "s/a.png", "s/far/a.jpg", "s/b.png", "s/near/a.jpg")]
    alike = replace(moved, files=tuple(files[: len(moved.files)]))
    first, path = Capture.of(alike, RENDERER, align=AlignSettings(mode=True)), tmp_path / "a.json"
    save_alignment(path, first)
    loaded = load_alignment(path, alike)
    np.testing.assert_allclose(loaded.matrices, first.alignment.matrices)
    assert len({matrix.tobytes() for matrix in loaded.matrices}) == len(files)
    fewer = load_alignment(path, alike.with_slices([1, 2, 4]))
    np.testing.assert_allclose(fewer.matrices, first.alignment.matrices[[1, 2, 4]])
    content = json.loads(path.read_text())
    twice = [{**one, "file": "a.jpg"} for one in content["slices"]]
    for rows, message in ((twice, "names a slice twice"), (twice[:1], "holds one slice a.jpg")):
        path.write_text(json.dumps({**content, "slices": rows, "reference": "a.jpg"}))
        with pytest.raises(InputError, match=message):
            load_alignment(path, alike.with_slices([0, 2]))


def test_errors_in_an_alignment_file_are_named(moved, tmp_path):
    path = tmp_path / "a.json"
    save_alignment(path, Capture.of(moved, RENDERER, align=AlignSettings(mode=True)))
    good = json.loads(path.read_text())
    wrong = {
        "not readable as JSON": "{", "expected what align.save writes": "[]", "10 x 10 pixels": {**good, "size": [10, 10]},
        "holds nothing for": {**good, "slices": good["slices"][1:]}, "its reference": {**good, "reference": "x.png"},
        "3 x 3 matrix": {**good, "slices": [{**one, "matrix": [[0, 0], [0, 0]]} for one in good["slices"]]},
        "a distortion of less": {**good, "slices": [{**one, "radial": -0.5} for one in good["slices"]]},
    }  # fmt: skip
    for message, content in wrong.items():
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError, match=message):
            load_alignment(path, moved)
    with pytest.raises(InputError, match=r"align\.load"):
        load_alignment(tmp_path / "none.json", moved)


def test_written_aligned_slices_are_a_still_stack(moved, tmp_path):
    capture = Capture.of(moved, RENDERER, align=AlignSettings(mode=True))
    folder = write_aligned(tmp_path / "out", capture, {"psf": "disc"})
    again = read_photographs(folder)
    assert again.focus_distances_m == moved.focus_distances_m and again.camera == moved.camera
    assert again.optics == {"psf": "disc"}
    assert all(np.array_equal(a, b) for a, b in zip(again.images, capture.photographs.images, strict=True))
    assert not Capture.of(again, RENDERER).aligned
    write_aligned(tmp_path / "out", capture)  # over the first
    assert len(list(folder.iterdir())) == 6 and not list((tmp_path / "out").glob(".part*"))
