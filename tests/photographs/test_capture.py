"""From photographs to a stack."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.io.images import to_float, working_size
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.blur_scale import BlurScale
from sfdfd.photographs.calibration import contradiction
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.left_out import left_out_slices, whole_stack
from sfdfd.photographs.lookup import example_photographs
from sfdfd.photographs.read import Photographs
from sfdfd.stack import Prediction
from tests.conftest import CAMERA

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


def photographs(**changes) -> Photographs:
    return replace(example_photographs(72, 96), **changes)


def test_the_example_is_a_stack_of_8_bits():
    found = example_photographs(72, 96)
    assert len(found.images) == 5 and found.images[0].shape == (72, 96, 3) and found.images[0].dtype == np.uint8
    capture = Capture.of(found, RENDERER)
    assert capture.camera_source == "known" and not capture.relative and not capture.aligned
    stack = capture.stack(48)
    assert stack.images.shape == (1, 5, 3, 36, 48) and stack.covered is None
    assert stack.camera[0].pixel_pitch_m == pytest.approx(2.4e-5)


@pytest.mark.slow
def test_an_unknown_camera_is_estimated_and_said():
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": None}
    capture = Capture.of(photographs(camera=camera), RENDERER)
    facts = capture.facts()
    assert capture.camera_source == "estimated" and facts["metric"] and "was estimated" in facts["statement"]
    assert facts["blur_scale_px_m"] == pytest.approx(CAMERA.blur_scale_px_m, rel=0.15)
    assert facts["camera"]["pixel_pitch_m"] is None  # an estimate does not pose as a fact
    two = photographs(camera=camera)
    two = replace(two, images=two.images[::4], files=two.files[::4], focus_distances_m=two.focus_distances_m[::4])
    capture = Capture.of(two, RENDERER, calibrate=False)
    assert not np.isfinite(capture.blur_scale.relative_std) and "undetermined" in capture.statement


@pytest.mark.parametrize(
    ("pitch", "origin", "contradicts"), [(1, "EXIF", False), (2.5, "EXIF", True), (2.5, "stack.yaml", False)]
)
def test_exif_that_contradicts_the_stack_is_said_and_used(pitch, origin, contradicts):
    whole = example_photographs(144, 192)
    camera = {**whole.camera, "pixel_pitch_m": whole.camera["pixel_pitch_m"] * pitch}
    sources = {**whole.sources, **dict.fromkeys(camera, origin)}
    capture = Capture.of(replace(whole, camera=camera, sources=sources), RENDERER)
    assert any("EXIF's was used" in note for note in capture.notes) == contradicts
    assert capture.camera_source == "known" and capture.camera.pixel_pitch_m == camera["pixel_pitch_m"]
    assert (capture.blur_scale is not None) == (origin == "EXIF")  # what is told is not doubted


def test_a_contradiction_names_the_sources_of_what_was_used():
    found = BlurScale(10.0, 0.05, (10.0,))
    for pitch_from, words in (("command line", "from command line mean"), ("EXIF, corrected: turned", "EXIF means")):
        sources = {**dict.fromkeys(CAMERA.as_dict(), "EXIF"), "pixel_pitch_m": pitch_from}
        (note,) = contradiction(25.0, found, sources)
        assert words in note and ("EXIF's was used" in note) == (pitch_from != "command line")
        assert ("give camera.pixel_pitch_m" in note) == (pitch_from != "command line")  # it has been given


@pytest.mark.parametrize(("missing", "expected", "words"), [
    ((), 0.05 / 1.2e-5, "focal length known"), (("f_number",), 0.05 / 1.2e-5, "focal length known"),
    (("pixel_pitch_m",), 28 / np.hypot(36, 24) * np.hypot(72, 96), "assumed"),
    (("focal_length_m",), 28 / np.hypot(36, 24) * np.hypot(72, 96), "assumed"),
])  # fmt: skip
def test_a_relative_stack_has_the_focal_length_of_its_photographs(missing, expected, words):
    """Not that of the nominal camera, which only says how blurred it is."""
    camera = {**CAMERA.as_dict(), **dict.fromkeys(missing)}
    capture = Capture.of(photographs(focus_distances_m=None, camera=camera), RENDERER, calibrate=False)
    focal_px, how = capture.focal_length_px
    assert capture.relative and focal_px == pytest.approx(expected, rel=1e-6) and words in how


def test_unknown_distances_make_relative_depth():
    capture = Capture.of(photographs(focus_distances_m=None), RENDERER, calibrate=False)
    facts = capture.facts()
    assert capture.relative and not facts["metric"] and "RELATIVE" in facts["statement"]
    assert facts["focus_distances_m"] is None and facts["depth_range_m"] is None and facts["blur_scale_px_m"] is None
    inverse = 1 / np.array(capture.focus_distances_m)
    np.testing.assert_allclose(np.diff(inverse), np.diff(inverse)[0])  # equal steps: all that an order says


def test_slices_left_out_of_a_stack_without_distances_keep_their_places():
    whole = photographs(focus_distances_m=None, left_out=(1, 2))
    kept, aside = whole.parted()
    expected = Capture.of(photographs(focus_distances_m=None), RENDERER, calibrate=False).focus_distances_m
    capture = Capture.of(kept, RENDERER, calibrate=False)
    assert capture.focus_distances_m == pytest.approx([expected[i] for i in (0, 3, 4)])
    assert aside.nominal_focus_distances_m == pytest.approx([expected[i] for i in (1, 2)])
    assert [file.name for file in aside.files] == [whole.files[i].name for i in (1, 2)]
    stack = whole_stack(capture, aside, 48)
    np.testing.assert_allclose(stack.focus_distances_m[0], expected, rtol=1e-6)
    assert stack.images.shape == (1, 5, 3, 36, 48)


def test_a_left_out_slice_is_registered_afterwards():
    """Moved by whole pixels: the figures are those of the slice that lay still."""
    whole = photographs(left_out=(2,))
    image = whole.images[2]
    moved = replace(whole, images=(*whole.images[:2], np.roll(image, (2, 3), (0, 1)), *whole.images[3:]))
    figures = []
    for one in (whole, moved):
        kept, aside = one.parted()
        capture = Capture.of(kept, RENDERER, calibrate=False)
        depth_m = torch.full((1, *one.size), 2.0)
        prediction = Prediction(depth_m, to_float(image)[None], torch.zeros(1, 4, *one.size), None)
        (found,) = left_out_slices(capture, aside, prediction, RENDERER)
        figures.append(found)
    assert figures[1].facts["shift_px"] == pytest.approx([3, 2], abs=0.7)  # the others are blurred otherwise
    assert figures[1].facts["nearest_slice_psnr_db"] > figures[0].facts["nearest_slice_psnr_db"] - 3  # -6 as it lies


def test_wrong_units_and_modes_are_refused():
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1e-7}
    with pytest.raises(InputError, match="check the units"):
        Capture.of(photographs(camera=camera), RENDERER)
    with pytest.raises(InputError, match=r"align\.mode"):
        Capture.of(photographs(), RENDERER, align=AlignSettings(mode="perhaps"))


def test_the_working_size_keeps_the_aspect_and_never_enlarges():
    assert working_size(3072, 4080, 512) == (386, 512) and working_size(100, 80, 512) == (100, 80)
