"""The inference object: sizes, batches, padding slices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sfdfd.capture import Capture, example_photographs, working_size
from sfdfd.data.procedural import ProceduralScenes
from sfdfd.data.recorded import Photographs
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.estimator import DefocusEstimator, blend_slices, guided_upsampling
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.refine import Refiner
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


@pytest.fixture(scope="module")
def scenes():
    synthesis = StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0)
    return ProceduralScenes(2, synthesis, seed=0, height=96, width=128)


def test_a_batch_is_its_stacks_one_by_one(scenes):
    estimator = DefocusEstimator(renderer=RENDERER, refiner=Refiner(steps=2))
    short = replace(
        scenes[1], images=scenes[1].images[:, 1:4], focus_distances_m=scenes[1].focus_distances_m[:, 1:4],
        slice_mask=scenes[1].slice_mask[:, 1:4],
    )  # fmt: skip
    batch = FocalStack.collate([scenes[0], short])
    together = estimator.predict(batch)
    for index, stack in enumerate((scenes[0], short)):
        alone = estimator.predict(stack)
        for key in ("depth_m", "aif", "confidence", "depth_std_m"):
            torch.testing.assert_close(getattr(together, key)[index], getattr(alone, key)[0])
        torch.testing.assert_close(together.rendered[index, : stack.images.shape[1]], alone.rendered[0])


def test_large_images_come_back_to_their_size_along_edges(scenes):
    """A wall before a wall, worked on at half the size: the depth edge lies where the picture's edge lies."""
    torch.manual_seed(0)
    height, width = 192, 256
    texture = F.interpolate(torch.rand(1, 3, height // 4, width // 4), (height, width), mode="bilinear")[0]
    front = torch.zeros(height, width, dtype=torch.bool)
    front[40:150, 61:180] = True
    aif = torch.where(front, 0.3 * texture, 0.5 + 0.5 * texture)
    depth_m = torch.where(front, 1.2, 4.0)
    camera = Camera(0.05, 8.0, 1.2e-5)
    stack = StackSynthesis(RENDERER, camera, FOCUS_M, 0.5, 10.0)(aif, depth_m)
    estimator = DefocusEstimator(renderer=RENDERER, refiner=Refiner(steps=250), working_px=128)
    found = estimator.predict(stack)
    assert found.depth_m.shape == (1, height, width) and found.aif.shape == (1, 3, height, width)
    assert found.confidence.shape == (1, height, width) and found.rendered is None
    assert found.defocus_px.shape == (1, 5, height, width)
    assert float((found.depth_m[0] - depth_m).abs().median()) < 0.05
    assert float(((found.depth_m[0] < 2) == front).float().mean()) > 0.95
    assert float((found.aif[0] - aif).abs().mean()) < 0.95 * float((stack.images[0] - aif).abs().mean((1, 2, 3)).min())


def test_the_focused_slice_is_taken_where_depth_says_so():
    depth_m = torch.full((8, 10), 1.0)
    depth_m[:, 5:] = 4.0
    slices = [torch.full((3, 8, 10), 0.2), torch.full((3, 8, 10), 0.9)]
    blended = blend_slices(slices, depth_m, torch.tensor([1.0, 4.0]), CAMERA)
    torch.testing.assert_close(blended[:, :, :5], slices[0][:, :, :5], atol=1e-3, rtol=0)
    torch.testing.assert_close(blended[:, :, 5:], slices[1][:, :, 5:], atol=1e-3, rtol=0)
    reach = [torch.zeros(8, 10), torch.ones(8, 10)]  # where a slice shows nothing, another one must do
    blended = blend_slices(slices, depth_m, torch.tensor([1.0, 4.0]), Camera(0.05, 80.0, 1.2e-5), reach)
    assert float(blended[0, :, :5].min()) > 0.85


def test_guided_upsampling_is_exact_for_linear_models():
    guide = torch.rand(1, 1, 24, 32)
    full = F.interpolate(guide, (96, 128), mode="bilinear", align_corners=False)
    enlarged = guided_upsampling(2 * guide + 0.3, guide, full, 3, 1e-8)
    torch.testing.assert_close(enlarged, 2 * full + 0.3, atol=1e-3, rtol=0)


def test_checkpoints_make_estimators(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        DefocusEstimator.from_checkpoint(tmp_path / "none.ckpt")
    estimator = DefocusEstimator.from_checkpoint(None, refine_seconds=0.1, device="cpu", sigma_scale=1.0)
    assert estimator.renderer.sigma_scale == 1.0 and estimator.refiner.seconds == 0.1
    with pytest.raises(InputError, match="working_px"):
        DefocusEstimator(working_px=3)


# ---------------------------------------------------------------- from photographs


def photographs(**changes) -> Photographs:
    return replace(example_photographs(72, 96), **changes)


def test_the_example_is_a_stack_of_8_bits():
    found = example_photographs(72, 96)
    assert len(found.images) == 5 and found.images[0].shape == (72, 96, 3) and found.images[0].dtype == np.uint8
    capture = Capture.prepare(found, RENDERER)
    assert capture.camera_source == "known" and not capture.relative and not capture.aligned
    stack, weight = capture.stack(48)
    assert stack.images.shape == (1, 5, 3, 36, 48) and weight is None
    assert stack.camera[0].pixel_pitch_m == pytest.approx(2.4e-5)


def test_an_unknown_camera_is_estimated_and_said():
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": None}
    capture = Capture.prepare(photographs(camera=camera), RENDERER)
    facts = capture.facts()
    assert capture.camera_source == "estimated" and facts["metric"] and "was estimated" in facts["statement"]
    assert facts["blur_scale_px_m"] == pytest.approx(CAMERA.blur_scale_px_m, rel=0.15)
    assert facts["camera"]["pixel_pitch_m"] is None  # an estimate does not pose as a fact
    two = photographs(camera=camera)
    two = replace(two, images=two.images[::4], files=two.files[::4], focus_distances_m=two.focus_distances_m[::4])
    capture = Capture.prepare(two, RENDERER, calibrate=False)
    assert not np.isfinite(capture.blur_scale.relative_std) and "undetermined" in capture.statement


def test_unknown_distances_make_relative_depth():
    capture = Capture.prepare(photographs(focus_distances_m=None), RENDERER, calibrate=False)
    facts = capture.facts()
    assert capture.relative and not facts["metric"] and "RELATIVE" in facts["statement"]
    assert facts["focus_distances_m"] is None and facts["depth_range_m"] is None and facts["blur_scale_px_m"] is None
    inverse = 1 / np.array(capture.focus_distances_m)
    np.testing.assert_allclose(np.diff(inverse), np.diff(inverse)[0])  # equal steps: all that an order says


def test_wrong_units_and_modes_are_refused():
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1e-7}
    with pytest.raises(InputError, match="check the units"):
        Capture.prepare(photographs(camera=camera), RENDERER)
    with pytest.raises(InputError, match=r"align\.mode"):
        Capture.prepare(photographs(), RENDERER, align_mode="perhaps")


def test_the_working_size_keeps_the_aspect_and_never_enlarges():
    assert working_size(3072, 4080, 512) == (386, 512) and working_size(100, 80, 512) == (100, 80)
