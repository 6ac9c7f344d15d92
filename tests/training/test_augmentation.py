"""Augmentation keeps stacks physically consistent."""

import torch

from sfdfd.optics import render_focal_stack
from sfdfd.stack import FocalStack
from sfdfd.training.augmentation import StackAugmentation
from tests.conftest import CAMERA
from tests.training.test_module import stacks


def test_rendering_the_augmented_truth_gives_the_augmented_stack():
    """Away from the border of the crop."""
    batch = FocalStack.collate(stacks(6, size=(72, 80)))
    for _ in range(4):
        moved = StackAugmentation(crop=64)(batch)
        assert moved.images.shape == (6, 3, 3, 64, 64) and float(moved.images.max()) <= 1 + 1e-6
        again = render_focal_stack(moved.aif, moved.depth_m, moved.focus_distances_m, CAMERA, sigma_scale=0.5)
        inner = (slice(None), slice(None), slice(None), slice(24, 40), slice(24, 40))
        torch.testing.assert_close(again[inner], moved.images[inner], atol=2e-4, rtol=0)
    assert moved.valid.dtype == torch.bool and not torch.equal(moved.images[0], moved.images[1])


def test_smaller_images_are_not_cropped_and_augmentation_can_be_off():
    batch = FocalStack.collate(stacks(2))
    assert StackAugmentation(crop=64)(batch).images.shape == batch.images.shape
    same = StackAugmentation(crop=None, flip=False, gain=0.0, permute_colours=False)(batch)
    torch.testing.assert_close(same.images, batch.images)
