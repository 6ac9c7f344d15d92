"""The advised photograph lies where one is missing, and taking it there reduces the error."""

from dataclasses import replace

import pytest
import torch

from sfdfd import predict_photographs
from sfdfd.inference.methods import SweepMethod, with_confidence
from sfdfd.inference.next_photograph import next_photograph
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.photographs.lookup import example_photographs
from sfdfd.scenes.synthesis import StackSynthesis
from tests.conftest import procedural_stacks

FOCUS_M = (0.7, 1.0, 1.5, 2.5, 4.0, 8.0)
OPTICS = {"psf": "disc", "linear_light": True}
RENDERER = DefocusRenderer(method="fast", **OPTICS)


def scene(index, focus_m=FOCUS_M):
    synthesis = StackSynthesis(DefocusRenderer(method="exact", **OPTICS), Camera(0.05, 4.0, 2.4e-5), focus_m, 0.6, 10.0)
    return procedural_stacks(4, synthesis, seed=0, height=96, width=128)[index]


def predicted(stack):
    """The sweep, with the std that the optics and the texture give it."""
    stack = stack.without_truth()
    return with_confidence(replace(SweepMethod(RENDERER)(stack), depth_std_m=None), stack, RENDERER)


def error(stack):
    depth_m = predicted(stack).depth_m
    return float(((depth_m - stack.depth_m).abs() / stack.depth_m)[stack.valid].mean())


@pytest.mark.parametrize(("index", "removed"), [(0, 3), (0, 4), (1, 2)])
def test_a_removed_slice_is_advised_and_adding_it_helps(index, removed):
    """Between the neighbours of the removed one; the error falls when it is taken there."""
    kept = tuple(focus for place, focus in enumerate(FOCUS_M) if place != removed)
    short = scene(index, kept)
    advice = next_photograph(short.without_truth(), predicted(short), RENDERER)
    assert FOCUS_M[removed - 1] < advice.focus_distance_m < FOCUS_M[removed + 1]
    assert advice.error_then < 0.75 * advice.error_now
    longer = scene(index, (*kept, advice.focus_distance_m))
    assert error(longer) < error(short)
    assert f"{advice.focus_distance_m:.2g} m" in advice.sentence() and "between a and b" in advice.sentence(("a", "b"))


def test_a_dense_stack_lacks_nothing():
    dense = tuple(float(value) for value in 1 / torch.linspace(1 / 0.7, 1 / 9, 12))
    stack = scene(0, dense)
    assert next_photograph(stack.without_truth(), predicted(stack), RENDERER) is None


def test_without_texture_no_photograph_helps():
    stack = scene(0)
    flat = replace(stack.without_truth(), images=torch.full_like(stack.images, 0.5))
    prediction = predicted(flat)
    unknown = replace(prediction, depth_std_m=prediction.depth_m.square() * (1 / 0.6 - 1 / 10))
    assert next_photograph(flat, unknown, RENDERER) is None


def test_order_of_slices_and_what_lies_beyond_the_range_do_not_matter():
    stack = scene(0, FOCUS_M[:3] + FOCUS_M[4:])
    prediction = predicted(stack)
    advice = next_photograph(stack.without_truth(), prediction, RENDERER)
    turned = next_photograph(stack.without_truth().with_slices([4, 2, 0, 1, 3]), prediction, RENDERER)
    assert turned.focus_distance_m == advice.focus_distance_m
    beyond = replace(prediction, beyond_range=torch.ones_like(prediction.depth_m))
    assert next_photograph(stack.without_truth(), beyond, RENDERER) is None


def test_the_advice_is_a_note_and_a_fact():
    lines = []
    photographs = example_photographs(72, 96)
    found = predict_photographs(
        photographs.with_slices([0, 4]), refine_seconds=0, weights=None, align=False, say=lines.append
    )
    assert found.facts["next_photograph"] is not None
    assert any("another photograph" in note for note in found.notes)
    assert any("another photograph" in line for line in lines)
