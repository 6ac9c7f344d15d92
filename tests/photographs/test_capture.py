"""Photographs become a focal stack of even exposure, with a camera."""

from dataclasses import replace

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.io.images import working_size
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.lookup import example_photographs
from sfdfd.photographs.read import Photographs
from tests.conftest import CAMERA

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


def photographs(**changes) -> Photographs:
    return replace(example_photographs(72, 96), **changes)


def test_the_example_is_a_stack_of_8_bits():
    example = example_photographs(72, 96)
    assert len(example.images) == 5
    assert example.images[0].shape == (72, 96, 3) and example.images[0].dtype == np.uint8
    capture = Capture.of(example, RENDERER)
    assert capture.camera_source == "known" and not capture.relative and not capture.aligned
    stack = capture.stack(48)
    assert stack.images.shape == (1, 5, 3, 36, 48) and stack.covered is None
    assert stack.camera[0].pixel_pitch_m == pytest.approx(2.4e-5)


@pytest.mark.parametrize(("missing", "expected", "words"), [
    ((), 0.05 / 1.2e-5, "focal length known"), (("f_number",), 0.05 / 1.2e-5, "focal length known"),
    (("pixel_pitch_m",), 28 / np.hypot(36, 24) * np.hypot(72, 96), "assumed"),
    (("focal_length_m",), 28 / np.hypot(36, 24) * np.hypot(72, 96), "assumed"),
])  # fmt: skip
def test_a_relative_stack_has_the_focal_length_of_its_photographs(missing, expected, words):
    """The camera of a relative stack is nominal: only its blur scale is meant."""
    camera = {**CAMERA.as_dict(), **dict.fromkeys(missing)}
    capture = Capture.of(photographs(focus_distances_m=None, camera=camera), RENDERER, calibrate=False)
    focal_px, origin = capture.focal_length_px
    assert capture.relative and focal_px == pytest.approx(expected, rel=1e-6) and words in origin


def test_unknown_focus_distances_give_relative_depth():
    capture = Capture.of(photographs(focus_distances_m=None), RENDERER, calibrate=False)
    facts = capture.facts()
    assert capture.relative and not facts["metric"] and "RELATIVE" in facts["statement"]
    assert facts["focus_distances_m"] is None and facts["depth_range_m"] is None and facts["blur_scale_px_m"] is None
    inverse = 1 / np.array(capture.focus_distances_m)
    np.testing.assert_allclose(np.diff(inverse), np.diff(inverse)[0])  # equal steps


def test_wrong_units_and_modes_are_refused():
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1e-7}
    with pytest.raises(InputError, match="check the units"):
        Capture.of(photographs(camera=camera), RENDERER)
    with pytest.raises(InputError, match=r"align\.mode"):
        Capture.of(photographs(), RENDERER, align=AlignSettings(mode="perhaps"))


def test_the_working_size_keeps_the_aspect_and_never_enlarges():
    assert working_size(3072, 4080, 512) == (386, 512) and working_size(100, 80, 512) == (100, 80)
