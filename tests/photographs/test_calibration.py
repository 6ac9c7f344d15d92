"""The camera of a stack: known, estimated, or checked against the stack."""

from dataclasses import replace

import numpy as np
import pytest

from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.blur_scale import BlurScale
from sfdfd.photographs.calibration import contradiction
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.lookup import example_photographs
from sfdfd.photographs.read import Photographs
from tests.conftest import CAMERA

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


def photographs(**changes) -> Photographs:
    return replace(example_photographs(72, 96), **changes)


@pytest.mark.slow
def test_an_unknown_camera_is_estimated_and_reported():
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": None}
    capture = Capture.of(photographs(camera=camera), RENDERER)
    facts = capture.facts()
    assert capture.camera_source == "estimated" and facts["metric"] and "was estimated" in facts["statement"]
    assert facts["blur_scale_px_m"] == pytest.approx(CAMERA.blur_scale_px_m, rel=0.15)
    assert facts["camera"]["pixel_pitch_m"] is None  # estimates are not reported as facts
    two = photographs(camera=camera)
    two = replace(two, images=two.images[::4], files=two.files[::4], focus_distances_m=two.focus_distances_m[::4])
    capture = Capture.of(two, RENDERER, calibrate=False)
    assert not np.isfinite(capture.blur_scale.relative_std) and "undetermined" in capture.statement


@pytest.mark.parametrize(
    ("pitch", "origin", "contradicts"), [(1, "EXIF", False), (2.5, "EXIF", True), (2.5, "stack.yaml", False)]
)
def test_exif_that_contradicts_the_stack_is_used_with_a_note(pitch, origin, contradicts):
    whole = example_photographs(144, 192)  # smaller ones do not determine the blur scale well enough
    camera = {**whole.camera, "pixel_pitch_m": whole.camera["pixel_pitch_m"] * pitch}
    sources = {**whole.sources, **dict.fromkeys(camera, origin)}
    capture = Capture.of(replace(whole, camera=camera, sources=sources), RENDERER)
    assert any("EXIF's was used" in note for note in capture.notes) == contradicts
    assert capture.camera_source == "known" and capture.camera.pixel_pitch_m == camera["pixel_pitch_m"]
    assert (capture.blur_scale is not None) == (origin == "EXIF")  # only EXIF is checked


def test_the_note_on_a_contradiction_names_the_sources():
    estimate = BlurScale(10.0, 0.05, (10.0,))
    for pitch_from, words in (("command line", "from command line mean"), ("EXIF, corrected: turned", "EXIF means")):
        sources = {**dict.fromkeys(CAMERA.as_dict(), "EXIF"), "pixel_pitch_m": pitch_from}
        (note,) = contradiction(25.0, estimate, sources)
        assert words in note and ("EXIF's was used" in note) == (pitch_from != "command line")
        assert ("give camera.pixel_pitch_m" in note) == (pitch_from != "command line")  # it was given
