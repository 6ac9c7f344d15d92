"""Left-out slices of photographs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfdfd.io.images import to_float
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.left_out import left_out_slices, stack_with_left_out_slices
from sfdfd.photographs.lookup import example_photographs
from sfdfd.photographs.read import Photographs
from sfdfd.stack import Prediction

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


def photographs(**changes) -> Photographs:
    return replace(example_photographs(72, 96), **changes)


def test_left_out_slices_without_focus_distances_keep_their_order():
    whole = photographs(focus_distances_m=None, left_out=(1, 2))
    kept, left_out = whole.split_left_out()
    expected = Capture.of(photographs(focus_distances_m=None), RENDERER, calibrate=False).focus_distances_m
    capture = Capture.of(kept, RENDERER, calibrate=False)
    assert capture.focus_distances_m == pytest.approx([expected[i] for i in (0, 3, 4)])
    assert left_out.nominal_focus_distances_m == pytest.approx([expected[i] for i in (1, 2)])
    assert [file.name for file in left_out.files] == [whole.files[i].name for i in (1, 2)]
    stack = stack_with_left_out_slices(capture, left_out, 48)
    np.testing.assert_allclose(stack.focus_distances_m[0], expected, rtol=1e-6)
    assert stack.images.shape == (1, 5, 3, 36, 48)


def test_a_left_out_slice_is_registered():
    """A slice that was moved by whole pixels has the figures of the still one."""
    whole = photographs(left_out=(2,))
    image = whole.images[2]
    moved = replace(whole, images=(*whole.images[:2], np.roll(image, (2, 3), (0, 1)), *whole.images[3:]))
    facts = []
    for photographed in (whole, moved):
        kept, left_out = photographed.split_left_out()
        capture = Capture.of(kept, RENDERER, calibrate=False)
        depth_m = torch.full((1, *whole.size), 2.0)
        prediction = Prediction(depth_m, to_float(image)[None], torch.zeros(1, 4, *whole.size), None)
        (scored,) = left_out_slices(capture, left_out, prediction, RENDERER)
        facts.append(scored.facts)
    assert facts[1]["shift_px"] == pytest.approx([3, 2], abs=0.7)  # the other slices have a different blur
    assert facts[1]["nearest_slice_psnr_db"] > facts[0]["nearest_slice_psnr_db"] - 3  # -6 without registration
