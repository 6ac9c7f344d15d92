"""Samples of distillation: batches, packing, replay."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.training.distillation_samples import (
    BatchPlans,
    ReplayBuffer,
    collate_samples,
    pack,
    sample_from_stack,
    unpack,
)
from sfdfd.training.distillation_scenes import SceneSource, TeacherPrediction
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks
from tests.training.test_distillation_scenes import PLANES, random_sample


def test_a_continued_training_sees_the_batches_of_an_uninterrupted_one(prediction):
    whole, later = (BatchPlans(SceneSource([prediction]), 6, first, 1, 3, 4, 40, 5, PLANES) for first in (0, 4))
    replay, anew = ReplayBuffer(whole, 24), ReplayBuffer(later, 24)
    batches = [replay(plan, "cpu") for plan in (whole[index] for index in range(6))]
    for index in range(2):
        batch = anew(later[index], "cpu")
        assert torch.equal(batch.images, batches[4 + index].images)
        assert torch.equal(batch.costs, batches[4 + index].costs)
    assert len(replay.kept) <= 5 and [*whole[3].fresh] == [3] and all(number < 4 for number in whole[3].replayed)


def test_packing_keeps_a_sample_and_cropping_moves_all_maps_alike(prediction):
    sample = random_sample([prediction], (0, 3), 40, PLANES)
    back = unpack(pack(sample))
    torch.testing.assert_close(back.images, sample.images, atol=2e-3, rtol=0)
    torch.testing.assert_close(back.costs, sample.costs, atol=2e-2, rtol=1e-2)
    marked = sample._replace(
        images=sample.target.inverse_depth_01.expand(len(sample.images), 3, -1, -1),
        costs=F.avg_pool2d(sample.target.inverse_depth_01[None], 2).expand(2, PLANES, -1, -1),
    )
    for seed in range(6):
        cut = marked.cropped(24, np.random.default_rng(seed))
        assert cut.costs.shape[-2:] == (12, 12)
        assert torch.equal(cut.images[0, 0], cut.target.inverse_depth_01)
        torch.testing.assert_close(cut.costs[0, 0], F.avg_pool2d(cut.target.inverse_depth_01[None], 2)[0])


def test_the_teachers_stack_becomes_a_sample_and_batches_are_padded(prediction):
    renderer = DefocusRenderer(sigma_scale=0.5)
    synthesis = StackSynthesis(renderer, CAMERA, FOCUS_M, 0.5, 10.0)
    stack = procedural_stacks(1, synthesis, seed=0, height=40, width=48)[0]
    inverse_depth_01 = torch.zeros(40, 48)
    own = sample_from_stack(
        stack, TeacherPrediction(inverse_depth_01, stack.images[0, 0], inverse_depth_01 + 1), renderer, PLANES
    )
    assert own.costs.shape == (2, PLANES, 20, 24) and torch.equal(own.images, stack.images[0])
    samples = [random_sample([prediction], (1, seed), 40, PLANES) for seed in (0, 1, 2)]
    batch = collate_samples(samples)
    longest = max(len(one.images) for one in samples)
    assert batch.images.shape[:2] == (3, longest) and batch.slice_mask.sum(1).tolist() == [
        len(o.images) for o in samples
    ]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_parts_of_a_step_have_the_samples_of_the_whole_step(prediction, size):
    source = SceneSource([prediction])
    whole = BatchPlans(source, 3, 0, 1, 4, 5, 40, 5, PLANES)
    parts = BatchPlans(source, 3, 0, 1, 4, 5, 40, 5, PLANES, micro_batch_size=size)
    assert len(parts) == 3 * 4 // size
    for step in range(3):
        of_step = [parts[step * 4 // size + part] for part in range(4 // size)]
        assert [n for plan in of_step for n in plan.replayed] == whole[step].replayed
        assert [n for plan in of_step for n in plan.fresh] == list(whole[step].fresh)
        assert len({tuple(plan.seed) for plan in of_step}) == len(of_step)
