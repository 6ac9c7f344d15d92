"""Photographs as people have them: EXIF, and where distances come from."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfdfd.datasets.common_optics import common_optics
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError
from sfdfd.io.depth_range import depth_range_m
from sfdfd.photographs.read import read_photographs
from tests.io.test_images import DISTANCE, EQUIVALENT, FOCAL, NUMBER, save_with_exif

RNG = np.random.default_rng(0)


DEEP = RNG.integers(0, 65535, (20, 30, 3), dtype=np.uint16)


FLAT = (DEEP >> 8).astype(np.uint8)


def test_exif_gives_camera_and_distances(tmp_path):
    """Pitch from the 35 mm equivalent: the diagonal of 36 x 24 mm, scaled, over the image's diagonal in pixels."""
    for index, distance in enumerate((0.4, 1.0, 3.0)):
        save_with_exif(tmp_path / f"{index}.jpg", **{FOCAL: 6.81, NUMBER: 1.85, EQUIVALENT: 24, DISTANCE: distance})
    found = read_photographs(tmp_path)
    expected = np.hypot(36e-3, 24e-3) * 6.81 / 24 / np.hypot(20, 30)
    assert found.camera["pixel_pitch_m"] == pytest.approx(expected, rel=1e-6)
    assert (found.camera["focal_length_m"], found.camera["f_number"]) == pytest.approx((6.81e-3, 1.85))
    assert found.focus_distances_m == pytest.approx((0.4, 1.0, 3.0)) and found.missing == {}
    assert found.sources["focus_distances_m"] == "EXIF subject distance" and found.sources["f_number"] == "EXIF"


@pytest.fixture
def folder(tmp_path):
    for name in ("s_0.5.png", "s_1.0.png", "s_2.0.png"):
        Image.fromarray(FLAT).save(tmp_path / name)
    return tmp_path


def test_the_sources_of_values_have_an_order_of_precedence(folder):
    """Command line, stack.yaml, focus_distance.txt, file names: the first that knows."""
    assert read_photographs(folder).focus_distances_m == (0.5, 1.0, 2.0)
    (folder / "focus_distance.txt").write_text("20\n40\n80\n")
    assert read_photographs(folder, {"focus_distance_unit_m": 0.0254}).focus_distances_m[0] == pytest.approx(0.508)
    (folder / "stack.yaml").write_text("focus_distances_m: [3, 4, .inf]\ncamera: {f_number: 4}\n")
    found = read_photographs(folder, {"camera": {"focal_length_m": 0.05}})
    assert found.focus_distances_m == (3, 4, np.inf) and found.sources["focus_distances_m"].endswith("stack.yaml")
    assert found.camera == {"focal_length_m": 0.05, "f_number": 4.0, "pixel_pitch_m": None}
    assert list(found.missing) == ["camera.pixel_pitch_m"]
    found = read_photographs(folder, {"camera": {"f_number": 8}})
    assert found.camera["f_number"] == 8 and found.sources["f_number"] == "command line, instead of stack.yaml"
    assert read_photographs(folder, {"focus_distances_m": [1, 2, 3]}).sources["focus_distances_m"] == "command line"


def test_practically_infinite_distances_become_infinite(folder):
    found = read_photographs(folder, {"focus_distances_m": [0.25, 2.0, 1e5]})
    assert found.focus_distances_m == (0.25, 2.0, np.inf)
    assert depth_range_m(found.focus_distances_m, 0.005) == pytest.approx((0.15, 8.0))
    assert depth_range_m([1.0, 2.0], 0.05) == pytest.approx((0.6, 3.4))
    assert depth_range_m([0.06, 2.0], 0.05)[0] == pytest.approx(0.0505)
    with pytest.raises(InputError, match="near_m"):
        depth_range_m([np.inf, np.inf], 0.05)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"focus_distances_m": [350, 500, 900]}, "focus_distance_unit_m"),
    ({"focus_distances_m": [3.5e-7, 5e-7, 9e-7]}, "focus_distance_unit_m"),
    ({"focus_distances_m": [1, 1, 1]}, "two different"),
    ({"focus_distances_m": [1, 2]}, "expected 3 focus distances"),
    ({"focus_distances_m": [1, 2, float("nan")]}, "positive number"),
    ({"focus_distances_m": [1, 2, 0]}, "positive number"), ({"focus_distances_m": [1, 2, -1]}, "positive number"),
    ({"camera": {"focal_length_m": 50}}, "50 mm = 0.05"), ({"camera": {"f_number": 0}}, "positive number"),
    ({"camera": {"pixel_pitch_m": 2.4}}, "pixel_pitch_m"), ({"camera": {"pitch": 1}}, "unknown key 'pitch'"),
    ({"camera": {"focal_length_m": 0.7}}, "inside the focal length"),
    ({"near_m": 3, "far_m": 2}, "near_m < far_m"), ({"near_m": -1}, "positive number"),
    ({"files": ["s_0.5.png"]}, "two or more"), ({"files": ["none.png", "s_1.0.png"]}, "none.png"),
    ({"crop": [20, 0, 0, 0]}, "crop"), ({"focus_distance_unit_m": 0}, "positive number"),
])  # fmt: skip
def test_invalid_overrides_are_refused(folder, overrides, message):
    with pytest.raises(InputError, match=message):
        read_photographs(folder, overrides)


def test_broken_descriptions_are_refused(folder):
    for text, message in (
        ("- 1", "expected a mapping"),
        ("a: [", "YAML"),
        ("cam: 1", "unknown key"),
        ("camera: 3", "camera"),
        (f"near_m: {'9' * 5000}", "YAML"),
        (f"near_m: 0x{'9' * 5000}", "near_m: expected a positive number, got a whole number of more"),
        ("near_m: 2020-13-45", "YAML"),
    ):
        (folder / "stack.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_photographs(folder)
    (folder / "stack.yaml").unlink()
    (folder / "focus_distance.txt").write_text("1\n2\n")
    with pytest.raises(InputError, match=r"focus_distance\.txt: expected 3"):
        read_photographs(folder)


def test_mixed_sizes_and_lone_images_are_refused(folder):
    with pytest.raises(InputError, match=r"camera\.focal_length_m is missing"):
        read_stack(folder)
    Image.fromarray(FLAT[:17]).save(folder / "s_4.0.png")
    with pytest.raises(InputError, match="one size"):
        read_photographs(folder)
    for name in ("s_4.0.png", "s_2.0.png", "s_1.0.png"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="two or more"):
        read_photographs(folder)


def test_photographs_of_two_lenses_are_refused(tmp_path):
    """A phone that switched lenses: refused by the names of the files, unless the user knows better."""
    for index, (focal, number) in enumerate([(6.81, 1.85), (6.9, 1.85), (2.2, 2.4)]):
        save_with_exif(
            tmp_path / f"{index}.jpg", **{FOCAL: focal, NUMBER: number, EQUIVALENT: 24, DISTANCE: 0.5 + index}
        )
    with pytest.raises(InputError, match=r"focal_length_m is 0\.0022 in 2\.jpg and 0\.0069 in 1\.jpg"):
        read_photographs(tmp_path)
    given = {"camera": {"focal_length_m": 0.00681, "f_number": 1.85, "pixel_pitch_m": 2.4e-6}}
    assert read_photographs(tmp_path, given).camera["f_number"] == 1.85
    (tmp_path / "2.jpg").unlink()
    assert read_photographs(tmp_path).camera["focal_length_m"] == pytest.approx(0.006855)  # lenses breathe


def test_ambiguous_names_are_explained_in_missing(tmp_path):
    for name in ("0_35m", "1_20m"):
        Image.fromarray(FLAT).save(tmp_path / f"{name}.png")
    found = read_photographs(tmp_path)
    assert found.focus_distances_m is None and "0.35 m, or 35 m of file number 0" in found.missing["focus_distances_m"]


def test_a_stack_yaml_of_comments_alone_is_empty(folder):
    (folder / "stack.yaml").write_text("# camera: {f_number: 4}\n\n")
    assert read_photographs(folder).focus_distances_m == (0.5, 1.0, 2.0)


def test_decimal_commas_in_the_text_file_are_read(folder):
    (folder / "focus_distance.txt").write_text("0,5\n1,25\n3\n")
    assert read_photographs(folder).focus_distances_m == (0.5, 1.25, 3.0)
    (folder / "focus_distance.txt").write_text("0.5, 1.25, 3\n")
    assert read_photographs(folder).focus_distances_m == (0.5, 1.25, 3.0)


def test_folder_names_may_be_invalid_utf8(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/ca\xff\xfe"))
    folder.mkdir()
    for name in ("0.5m", "2m"):
        Image.fromarray(FLAT).save(folder / f"{name}.png")
    read_photographs(folder).name.encode()  # any encoding takes it


def test_optics_are_read_from_stack_yaml(folder):
    (folder / "stack.yaml").write_text("optics: {psf: 'power:4', linear_light: false, sigma_scale: null}\n")
    assert read_photographs(folder).optics == {"psf": "power:4", "linear_light": False}
    assert common_optics(folder) == {"psf": "power:4", "linear_light": False}
    assert common_optics(folder, ["psf"]) == {"linear_light": False} and common_optics(folder / "nowhere") == {}


@pytest.mark.parametrize(("optics", "message"), [
    ("{pfs: disc}", "pfs"), ("{psf: dics}", "dics"), ("{linear_light: maybe}", "linear_light"),
    ("{sigma_scale: 0}", "sigma_scale"),
    ("{weighting: all}", "weighting"), ("disc", "psf, linear_light"), ("{psf: [1]}", "psf"), ("{window_px: 7}", "window_px"),
])  # fmt: skip
def test_invalid_optics_are_named(folder, optics, message):
    (folder / "stack.yaml").write_text(f"optics: {optics}\n")
    with pytest.raises(InputError, match=rf"stack\.yaml: .*{message}"):
        read_photographs(folder)


def test_stacks_of_one_model_must_agree_about_their_optics(folder):
    for name, psf in (("a", "disc"), ("b", "gaussian")):
        (folder / "many" / name).mkdir(parents=True)
        (folder / "many" / name / "stack.yaml").write_text(f"optics: {{psf: {psf}}}\n")
    with pytest.raises(InputError, match=r"optics\.psf=VALUE"):
        common_optics(folder / "many")
    assert common_optics(folder / "many", ["psf"]) == {}


def test_dioptres_in_all_their_forms(folder):
    """dioptres.txt, names, and the unit of numbers that carry none."""
    (folder / "dioptres.txt").write_text("2\n0,5\n0\n")
    found = read_photographs(folder)
    assert found.focus_distances_m == (0.5, 2.0, np.inf) and found.sources["focus_distances_m"].endswith("dioptres.txt")
    found = read_photographs(folder, {"focus_unit": "dioptre", "focus_distances_m": [4, 2, 0]})
    assert found.focus_distances_m == (0.25, 0.5, np.inf) and "dioptres" in found.sources["focus_distances_m"]
    (folder / "focus_distance.txt").write_text("4 2 1")  # comes before
    assert read_photographs(folder, {"focus_unit": "dioptre"}).focus_distances_m == (0.25, 0.5, 1.0)
    for name in ("dioptres.txt", "focus_distance.txt"):
        (folder / name).unlink()
    for old, new in (("s_0.5", "f4.5mm_4dpt"), ("s_1.0", "f4.5mm_1.25dpt"), ("s_2.0", "f4.5mm_0dpt")):
        (folder / f"{old}.png").rename(folder / f"{new}.png")
    found = read_photographs(folder)
    assert sorted(found.focus_distances_m) == [0.25, 0.8, np.inf]
    assert found.camera["focal_length_m"] == 0.0045 and found.sources["focal_length_m"] == "file names"
    assert read_photographs(folder, {"camera": {"focal_length_m": 0.05}}).camera["focal_length_m"] == 0.05


def test_the_std_of_distances_is_converted_to_dioptres(folder):
    """d(1/F) = dF / F^2."""
    found = read_photographs(folder, {"focus_distances_std": 0.02})
    assert found.focus_std_dpt == pytest.approx((0.08, 0.02, 0.005))
    assert read_photographs(folder, {"focus_distances_std": [0.1, 0.2, 0.4]}).focus_std_dpt == pytest.approx(
        (0.4, 0.2, 0.1)
    )
    (folder / "stack.yaml").write_text("focus_unit: dioptre\nfocus_distances_m: [4, 2, 0]\nfocus_distances_std: 0.05\n")
    assert read_photographs(folder).focus_std_dpt == (0.05,) * 3
    assert read_photographs(folder).with_slices([2, 0]).focus_std_dpt == (0.05,) * 2


@pytest.mark.parametrize(("content", "message"), [
    ("1\n2\n", "expected 3 focus distances in dioptres"), ("1\n2\n-1\n", "a number of 0 or more"),
    ("1\n2\nx\n", "a number"), ("1\n1\n1\n", "two different"), ("0\n0\n0\n", "two different"),
])  # fmt: skip
def test_invalid_dioptres_are_refused(folder, content, message):
    (folder / "dioptres.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        read_photographs(folder)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"focus_unit": "feet"}, "metre or dioptre"), ({"focus_unit": "dioptre", "focus_distance_unit_m": 2}, "contradict"),
    ({"focus_distances_std": -1}, "a number of 0 or more"), ({"focus_distances_std": [1, 2]}, "one number or 3"),
    ({"focus_distances_std": "x"}, "focus_distances_std"), ({"frames": 3}, "of a video"),
])  # fmt: skip
def test_invalid_units_are_refused(folder, overrides, message):
    with pytest.raises(InputError, match=message):
        read_photographs(folder, overrides)
