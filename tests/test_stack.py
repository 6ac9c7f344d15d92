"""Stack types: indexing, padding, types and devices."""

from dataclasses import replace

import pytest
import torch

from sfdfd.measures.metrics import KEYS, EvaluationMetrics, image_metrics
from sfdfd.stack import FocalStack, Prediction
from tests.conftest import CAMERA


def test_collate_pads_short_stacks_and_indexing_takes_the_padding_off():
    def stack(slices):
        return FocalStack.single(torch.rand(slices, 3, 8, 8), list(range(1, slices + 1)), CAMERA, 0.5, 10.0)

    parts = [stack(2), stack(4)]
    batch = FocalStack.collate(parts)
    assert batch.images.shape == (2, 4, 3, 8, 8) and batch.slice_mask.tolist() == [[True] * 2 + [False] * 2, [True] * 4]
    for index, part in enumerate(parts):
        assert torch.equal(batch[index].images, part.images)
        assert torch.equal(batch[index].focus_distances_m, part.focus_distances_m)


def sized(height, width, slices=3):
    generator = torch.Generator().manual_seed(height * width)
    return FocalStack.single(
        torch.rand(slices, 3, height, width, generator=generator), list(range(1, slices + 1)), CAMERA, 0.5, 10.0,
        depth_m=1 + torch.rand(height, width, generator=generator), aif=torch.rand(3, height, width, generator=generator),
        valid=torch.rand(height, width, generator=generator) > 0.2,
    )  # fmt: skip


def test_collate_pads_images_of_several_sizes():
    stacks = [sized(8, 12), sized(10, 9, slices=2), sized(8, 12)]
    batch = FocalStack.collate(stacks)
    assert batch.images.shape == (3, 3, 3, 10, 12) and batch.size_px == ((8, 12), (10, 9), (8, 12))
    assert not batch.valid[0, 8:].any() and not batch.valid[1, :, 9:].any()
    parts = batch.split_by_size()
    assert [indices for indices, _ in parts] == [[0, 2], [1]]
    for index, stack in enumerate(stacks):
        for key in ("images", "depth_m", "aif", "valid", "focus_distances_m"):
            assert torch.equal(getattr(batch[index], key), getattr(stack, key)), key
    again = FocalStack.collate([batch, sized(4, 16)])
    assert again.images.shape == (4, 3, 3, 10, 16) and torch.equal(again[1].aif, stacks[1].aif)


def test_batches_are_indexed_like_lists():
    batch = FocalStack.collate([sized(8, 12), sized(10, 9, slices=2)])
    assert torch.equal(batch[-1].images, batch[1].images) and batch[-1].images.shape == (1, 2, 3, 10, 9)
    assert [one.images.shape[-2:] for one in batch] == [(8, 12), (10, 9)]
    for outside in (2, -3):
        with pytest.raises(IndexError):
            batch[outside]


def test_coverage_follows_the_pixels():
    one, other = sized(8, 12), sized(10, 9, slices=2)
    covered = torch.rand(1, 3, 8, 12)
    batch = FocalStack.collate([replace(one, covered=covered), other])
    assert torch.equal(batch[0].covered, covered) and bool((batch[1].covered == 1).all())
    assert not batch.covered[1, 2].any()  # a padding slice shows nothing
    assert torch.equal(batch.split_by_size()[0][1].covered, covered)
    assert torch.equal(batch[0].cropped(1, 7, 2, 11).covered, covered[..., 1:7, 2:11])
    assert torch.equal(batch[0].with_slices([2, 0]).covered, covered[:, [2, 0]])
    each = batch.with_slices(torch.tensor([[2, 0], [1, 0]]))
    assert torch.equal(each.covered, torch.stack([batch.covered[0, [2, 0]], batch.covered[1, [1, 0]]]))
    assert other.coverage().shape == (1, 2, 10, 9) and bool((other.coverage() == 1).all())


def test_resizing_scales_the_pixel_pitch_and_drops_truth():
    stack = sized(16, 24)
    half = stack.resized(8, 12)
    assert half.camera[0].pixel_pitch_m == pytest.approx(2 * CAMERA.pixel_pitch_m) and half.depth_m is None
    torch.testing.assert_close(half.images.mean(), stack.images.mean())
    assert stack.resized(16, 24) is stack


def test_with_camera_replaces_the_camera_of_every_stack():
    batch, own = FocalStack.collate([sized(8, 12), sized(10, 9, slices=2)]), replace(CAMERA, f_number=4.0)
    seen = batch.with_camera(own)
    assert seen.camera == (own, own) and seen.images is batch.images and seen.size_px == batch.size_px
    assert batch.with_camera(None) is batch


def test_blur_radii_at_range_are_those_of_near_and_far():
    stack = sized(8, 12)
    blur = stack.blur_radii_at_range_px()
    focus = stack.focus_distances_m[0]
    expected = [stack.camera[0].blur_radius_px(end[0], focus, signed=True) for end in (stack.near_m, stack.far_m)]
    torch.testing.assert_close(blur, torch.stack(expected, -1)[None])


def test_a_depth_without_a_mask_counts_where_it_is_known_and_in_range():
    depth_m = torch.full((16, 16), 2.0)
    depth_m[0, :3] = torch.tensor([torch.nan, 0.0, 20.0])
    stack = FocalStack.single(torch.rand(2, 3, 16, 16), [1.0, 2.0], CAMERA, 0.5, 10.0, depth_m=depth_m)
    assert (~stack.valid).nonzero().tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    prediction = Prediction(torch.full((1, 16, 16), 3.0), torch.rand(1, 3, 16, 16), torch.zeros(1, 2, 16, 16), None)
    assert image_metrics(prediction, stack).as_dicts()[0]["depth/abs_rel"] == pytest.approx(0.5)


def test_collate_fills_missing_truth_with_nan():
    """A batch gives each image the metrics that it has alone, and the mean is over images with truth."""
    seeing, other = sized(8, 12), sized(14, 16)
    aif_alone = replace(other, depth_m=None, valid=None)
    stacks = [seeing.without_truth(), seeing, aif_alone]
    batch = FocalStack.collate(stacks)

    def measured(stack):
        depth_m = torch.full(stack.images[:, 0, 0].shape, 1.5)
        return image_metrics(
            Prediction(depth_m, 0 * stack.images[:, 0], torch.zeros(stack.images[:, :, 0].shape), None), stack
        )

    alone = torch.cat([measured(stack).rows for stack in stacks])
    parts = [(indices, measured(part).rows) for indices, part in batch.split_by_size()]
    together = torch.cat([rows for _, rows in parts])[
        torch.tensor([i for indices, _ in parts for i in indices]).argsort()
    ]
    torch.testing.assert_close(together, alone, equal_nan=True)
    for index, stack in enumerate(stacks):
        for key in ("depth_m", "aif", "valid"):
            one, expected = getattr(batch[index], key), getattr(stack, key)
            assert (one is None) == (expected is None) and (one is None or torch.equal(one, expected)), (index, key)
    metrics = EvaluationMetrics()
    metrics.update(measured(batch.split_by_size()[0][1]))
    found = metrics.compute()
    assert (
        found["depth/abs_rel"] == pytest.approx(float(alone[1, KEYS.index("depth/abs_rel")])) and found["samples"] == 2
    )
