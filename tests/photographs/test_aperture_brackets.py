"""Photographs that differ in aperture: what EXIF says, and what is said of the side of focus."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sfdfd import predict_photographs
from sfdfd.errors import InputError
from sfdfd.io.exif import photo_facts
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.alignment_files import write_aligned
from sfdfd.photographs.blur_scale import camera_for
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.left_out import stack_with_left_out_slices
from sfdfd.photographs.read import read_photographs
from sfdfd.scenes.example_stack import example_stack
from sfdfd.web.messages import describe_diagnosis, settings_from_fields
from tests.io.test_images import DISTANCE, NUMBER
from tests.photographs.test_camera_values import LENS, save
from tests.web.test_messages import FOUND

SIZE = (60, 40)


def bracket(folder, numbers, distances=None, name="{}.jpg"):
    for index, number in enumerate(numbers):
        tags = {**LENS, NUMBER: number}
        if number is None:
            del tags[NUMBER]
        if distances is not None:
            tags[DISTANCE] = distances[index]
        save(folder / name.format(index, number), SIZE, **tags)
    return folder


def test_exif_gives_an_f_number_per_slice(tmp_path):
    found = read_photographs(bracket(tmp_path, (2.0, 11.0, 2.0), (1.5, 1.5, 4.0)))
    assert found.camera["f_number"] == (2.0, 11.0, 2.0) and found.sources["f_number"] == "EXIF"
    assert found.focus_distances_m == (1.5, 1.5, 4.0) and found.assumed_side is None
    assert found.with_slices([2, 1]).camera["f_number"] == (2.0, 11.0)
    assert found.with_slices([0, 2]).camera["f_number"] == 2.0


def test_small_differences_in_f_number_are_rounding(tmp_path):
    """At most 5 %, as for the focal length: one number, the median."""
    found = read_photographs(bracket(tmp_path, (2.0, 2.05, 2.0), (1.0, 2.0, 3.0)))
    assert found.camera["f_number"] == 2.0


def test_a_number_that_is_given_replaces_those_of_exif(tmp_path):
    folder = bracket(tmp_path, (2.0, 11.0), (1.0, 2.0))
    assert read_photographs(folder, {"camera": {"f_number": 4}}).camera["f_number"] == 4.0
    assert read_photographs(folder, {"camera": {"f_number": [4, 8]}}).camera["f_number"] == (4.0, 8.0)


def test_one_distance_at_two_apertures_is_a_stack_and_at_one_is_not(tmp_path):
    (tmp_path / "two").mkdir(), (tmp_path / "one").mkdir()
    found = read_photographs(bracket(tmp_path / "two", (2.0, 11.0), (1.5, 1.5)))
    assert found.focus_distances_m == (1.5, 1.5) and found.assumed_side == "behind"
    assert found.nominal_depth_range_m == (1.5, 15.0)
    one = bracket(tmp_path / "one", (2.0, 2.0), (1.5, 1.5))
    assert read_photographs(one).focus_distances_m is None
    with pytest.raises(InputError, match="depth needs two different ones, or different apertures"):
        read_photographs(one, {"focus_distances_m": [1.5, 1.5]})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"side": "before"}, (0.75, 1.5)), ({"far_m": 1.2, "near_m": 0.9}, (0.9, 1.2)), ({"far_m": 4.0}, (1.5, 4.0)),
     ({"near_m": 0.5, "far_m": 4.0}, (1.5, 4.0)), ({"near_m": 0.5, "side": "before"}, (0.5, 1.5))],
)  # fmt: skip
def test_the_depth_range_ends_at_the_focus_distance(tmp_path, settings, expected):
    found = read_photographs(bracket(tmp_path, (2.0, 11.0), (1.5, 1.5)), settings)
    assert found.nominal_depth_range_m == expected
    assert found.assumed_side == ("before" if expected[1] <= 1.5 else "behind")


def test_what_a_bracket_lacks_is_said(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    with pytest.raises(
        InputError, match=r"differ in aperture \(f/2 to f/11\), and their focus distances are not known"
    ):
        read_photographs(bracket(tmp_path / "a", (2.0, 11.0)))
    with pytest.raises(InputError, match=r"1\.jpg has none: give one per slice, camera\.f_number=\[N,N,N\]"):
        read_photographs(bracket(tmp_path / "b", (2.0, None, 11.0), (1.0, 2.0, 3.0)))


def test_apertures_in_file_names_are_no_distances(tmp_path):
    bracket(tmp_path, (2.8, 5.6), name="wall_{1}.jpg")
    with pytest.raises(InputError, match="focus distances are not known"):
        read_photographs(tmp_path)
    assert read_photographs(tmp_path, {"camera": {"f_number": 4}}).focus_distances_m == (2.8, 5.6)


def test_a_copy_of_a_file_takes_its_f_number_along(tmp_path):
    bracket(tmp_path, (2.0, 11.0), (1.5, 1.5))
    (tmp_path / "0_copy.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    given = {"camera": {"f_number": [2, 2, 11]}, "focus_distances_m": [1.5, 1.5, 1.5]}
    assert read_photographs(tmp_path, given).camera["f_number"] == (2.0, 11.0)


@pytest.fixture
def pair(tmp_path):
    """The folder of two PNG files of a procedural scene behind the focus, at f/2 and f/11."""
    camera = Camera(0.05, (2.0, 11.0), 4e-5)
    stack = example_stack(1, 72, 96, [1.0, 1.0], camera, 1.0, 6.0, psf="disc", linear_light=True, weighting="occlusion")
    (tmp_path / "pair").mkdir()
    for index, image in enumerate(stack.images[0]):
        codes = (255 * image.permute(1, 2, 0)).round().byte().numpy()
        Image.fromarray(codes).save(tmp_path / "pair" / f"{index}.png")
    content = {"camera": camera.as_dict(), "focus_distances_m": [1.0, 1.0], "far_m": 6.0}
    (tmp_path / "pair" / "stack.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "pair", stack


def test_a_prediction_says_which_side_it_assumes(pair, tmp_path):
    folder, stack = pair
    lines: list[str] = []
    found = predict_photographs(folder, refine_steps=5, align=False, say=lines.append)
    note = "do not tell the side of focus: everything is taken to lie behind the focus distance of 1 m; side=before"
    assert any(note in line for line in lines) and any(note in line for line in found.notes)
    error = ((found.depth_m - stack.depth_m[0]).abs() / stack.depth_m[0])[stack.valid[0]].mean()
    assert float(error) < 0.2 and float(found.depth_m.min()) >= 1.0
    found.save(tmp_path / "out", ["defocus_px", "portrait", "refocus"])
    facts = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert facts["assumed_side"] == "behind" and facts["camera"]["f_number"] == [2.0, 11.0]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "behind the focus distance" in report and "2, 11" in report
    with Image.open(tmp_path / "out" / "portrait.jpg") as portrait:
        assert photo_facts(portrait.getexif().get_ifd(0x8769), portrait.size).f_number in (2.0, 11.0)
    maps = np.load(tmp_path / "out" / "defocus_px.npy")
    assert maps[0] == pytest.approx(5.5 * maps[1], rel=1e-4)


def test_the_other_side_can_be_asked_for(pair):
    folder, _ = pair
    found = predict_photographs(folder, side="before", far_m=1.0, refine_seconds=0, weights=None, align=False)
    assert float(found.depth_m.max()) <= 1.0 and found.facts["assumed_side"] == "before"
    assert any("before the focus distance of 1 m, as given" in note for note in found.notes)
    with pytest.raises(InputError, match="side: expected behind or before"):
        predict_photographs(folder, side="left", refine_seconds=0, weights=None)


def test_images_in_memory_may_be_a_bracket(pair):
    _, stack = pair
    camera = {"focal_length_m": 0.05, "f_number": [2.0, 11.0], "pixel_pitch_m": 4e-5}
    options = {"far_m": 6.0, "refine_seconds": 0, "weights": None, "align": False}
    found = predict_photographs(stack.images[0], focus_distances_m=[1.0, 1.0], camera=camera, **options)
    assert found.camera == stack.camera[0] and found.facts["assumed_side"] == "behind"
    with pytest.raises(InputError, match="need focus_distances_m"):
        predict_photographs(stack.images[0], camera=camera, **options)


def test_aligned_slices_keep_their_apertures(tmp_path):
    folder = bracket(tmp_path, (2.0, 11.0), (1.5, 1.5))
    capture = Capture.of(
        read_photographs(folder, {"side": "before"}), DefocusRenderer(), align=AlignSettings(mode=False)
    )
    again = read_photographs(write_aligned(tmp_path / "out", capture, {}))
    assert again.camera["f_number"] == (2.0, 11.0) and again.assumed_side == "before"
    assert [facts.f_number for facts in again.facts] == [2.0, 11.0]


def test_left_out_slices_are_put_back_with_their_apertures(tmp_path):
    numbers = (2.0, 11.0, 4.0)
    kept, left_out = read_photographs(bracket(tmp_path, numbers, (1.0, 1.5, 2.0)), holdout=[1]).split_left_out()
    align = AlignSettings(mode=False, exposure=False)
    capture = Capture.of(kept, DefocusRenderer(), align=align)
    assert capture.camera.f_number == (2.0, 4.0)
    stack = stack_with_left_out_slices(capture, left_out, align=align)
    assert stack.camera[0].f_number == numbers and torch.allclose(stack.f_numbers(), torch.tensor([numbers]))


def test_an_unknown_camera_keeps_the_known_apertures():
    camera = camera_for(13.0, 1.0, f_number=(2.0, 8.0))
    assert camera.f_number == (2.0, 8.0) and camera.blur_scale_px_m == pytest.approx(13.0)


def test_the_page_takes_one_f_number_or_several():
    assert settings_from_fields("", "m", None, "2 11", None, "before") == {
        "camera.f_number": [2.0, 11.0],
        "side": "before",
    }
    assert settings_from_fields("", "m", None, "f/2.8", None) == {"camera.f_number": 2.8}
    with pytest.raises(InputError, match="f-number"):
        settings_from_fields("", "m", None, "wide", None)
    camera = {**FOUND["facts"]["camera"], "f_number": [2.0, 11.0]}
    shown = describe_diagnosis({**FOUND, "facts": {**FOUND["facts"], "camera": camera}})
    assert "| a.jpg | 1 m, f/2 |" in shown and "f-number: 2, 11" in shown
