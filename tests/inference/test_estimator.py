"""The inference object: sizes, batches, padding slices."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sfdfd.errors import InputError
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import ReducedMethod
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


@pytest.fixture(scope="module")
def scenes():
    synthesis = StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0)
    return procedural_stacks(2, synthesis, seed=0, height=96, width=128)


def test_a_batch_equals_its_stacks_one_by_one(scenes):
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


@pytest.mark.slow
def test_depth_is_upsampled_along_the_edges_of_large_images(scenes):
    """A wall before a wall, worked on at half the size: the depth edge lies where the picture's edge lies."""
    torch.manual_seed(0)
    height, width = 192, 256
    texture = F.interpolate(torch.rand(1, 3, height // 4, width // 4), (height, width), mode="bilinear")[0]
    front = torch.zeros(height, width, dtype=torch.bool)
    front[40:150, 61:180] = True
    aif = torch.where(front, 0.3 * texture, 0.5 + 0.5 * texture)
    depth_m = torch.where(front, 1.2, 4.0)
    camera = Camera(0.05, 8.0, 1.2e-5)
    stack = StackSynthesis(RENDERER, camera, FOCUS_M, 0.5, 10.0)(Scene(aif, depth_m))
    estimator = DefocusEstimator(renderer=RENDERER, refiner=Refiner(steps=250), working_px=128)
    found = estimator.predict(stack)
    assert found.depth_m.shape == (1, height, width) and found.aif.shape == (1, 3, height, width)
    assert found.confidence.shape == (1, height, width) and found.rendered is None
    assert found.defocus_px.shape == (1, 5, height, width)
    assert float((found.depth_m[0] - depth_m).abs().median()) < 0.05
    assert float(((found.depth_m[0] < 2) == front).float().mean()) > 0.95
    assert float((found.aif[0] - aif).abs().mean()) < 0.95 * float((stack.images[0] - aif).abs().mean((1, 2, 3)).min())


def test_estimators_are_made_from_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        DefocusEstimator.from_checkpoint(tmp_path / "none.ckpt")
    estimator = DefocusEstimator.from_checkpoint(None, refine_seconds=0.1, device="cpu", sigma_scale=1.0)
    assert estimator.renderer.sigma_scale == 1.0 and estimator.refiner.seconds == 0.1
    with pytest.raises(InputError, match="working_px"):
        DefocusEstimator(working_px=3)


def test_a_padded_batch_of_two_sizes_equals_its_stacks(scenes):
    other = procedural_stacks(1, StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0), seed=1, height=80, width=144)[0]
    estimator = DefocusEstimator(renderer=RENDERER)
    together = estimator.predict(FocalStack.collate([scenes[0], other]))
    assert together.depth_m.shape == (2, 96, 144)
    for index, stack in enumerate((scenes[0], other)):
        height, width = stack.images.shape[-2:]
        alone = estimator.predict(stack)
        torch.testing.assert_close(together.depth_m[index, :height, :width], alone.depth_m[0])
        torch.testing.assert_close(together.rendered[index, ..., :height, :width], alone.rendered[0])


def test_a_network_runs_on_a_reduced_large_image(scenes, monkeypatch):
    """Refinement of a megapixel began at a plane sweep, whose false minima in plain regions stayed."""
    estimator = DefocusEstimator.from_checkpoint("pretrained", refine_seconds=1, sigma_scale=0.5)
    assert isinstance(estimator.start, ReducedMethod)
    full = estimator.start.answer(scenes[0])
    assert torch.equal(full.depth_m, estimator.start.method.answer(scenes[0]).depth_m)
    monkeypatch.setattr("sfdfd.inference.methods.LARGE_PX", 96 * 128 // 2)
    sizes, answer = [], estimator.start.method.answer
    monkeypatch.setattr(
        estimator.start.method, "answer", lambda stack: (sizes.append(stack.images.shape[-2:]), answer(stack))[1]
    )
    found = estimator.start.answer(scenes[0])
    assert sizes == [(67, 90)]
    assert found.depth_m.shape == (1, 96, 128) and found.std.shape == (1, 96, 128)
    error, before = (float((1 / x.depth_m - 1 / scenes[0].depth_m).abs().mean()) for x in (found, full))
    assert error < 1.5 * before  # dioptres
    gradients = [torch.diff(aif, dim=-1).abs().mean() for aif in (found.aif, full.aif)]
    assert float(gradients[0] / gradients[1]) == pytest.approx(1.0, abs=0.1)  # the detail of all pixels
