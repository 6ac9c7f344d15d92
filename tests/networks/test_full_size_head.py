"""Heads at full size: the identity before training, laws afterwards."""

import pytest
import torch

from sfdfd.networks.full_size_head import EdgeSnap, SliceBlend
from sfdfd.networks.interface import predict_stack
from sfdfd.networks.plane_sweep import PlaneSweepNet
from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.example_stack import example_stack


def randomized(module):
    for parameter in module.requires_grad_(False).parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_depth_stays_among_its_neighbours_and_variance_is_not_negative():
    mean = torch.rand(2, 20, 24)
    moments = torch.stack([mean, mean.square() + 0.01 * torch.rand(2, 20, 24)], 1)
    moved = randomized(EdgeSnap(4))(moments, torch.rand(2, 3, 20, 24), torch.rand(2, 4, 20, 24))
    assert bool((moved[:, 1] - moved[:, 0].square() >= -1e-6).all())
    assert float(moved[:, 0].min()) >= float(mean.min()) and float(moved[:, 0].max()) <= float(mean.max())
    constant = torch.full((1, 2, 8, 8), 0.25)
    torch.testing.assert_close(
        randomized(EdgeSnap(4))(constant, torch.rand(1, 3, 8, 8), torch.rand(1, 4, 8, 8)), constant
    )


def test_before_training_depth_is_nearly_kept_and_the_blend_is_exactly_kept():
    moments = torch.rand(1, 2, 16, 16)
    moved = EdgeSnap(4).requires_grad_(False)(moments, torch.rand(1, 3, 16, 16), torch.rand(1, 4, 16, 16))
    assert float((moved - moments).abs().max()) < 0.02
    log_weight = torch.randn(1, 3, 16, 16)
    assert torch.equal(SliceBlend()(torch.rand(1, 3, 3, 16, 16), log_weight, torch.ones(1, 3, 16, 16)), log_weight)


def test_the_order_of_slices_and_padding_do_not_matter_to_the_blend():
    blend, images, log_weight = randomized(SliceBlend()), torch.rand(1, 4, 3, 16, 16), torch.randn(1, 4, 16, 16)
    covered = torch.ones(1, 4, 16, 16)
    logits, order = blend(images, log_weight, covered), [2, 0, 3, 1]
    torch.testing.assert_close(
        blend(images[:, order], log_weight[:, order], covered), logits[:, order], atol=1e-4, rtol=0
    )
    covered[:, 3], log_weight[:, 3] = 0, -13.8
    without = blend(images[:, :3], log_weight[:, :3], covered[:, :3])
    torch.testing.assert_close(blend(images, log_weight, covered)[:, :3], without, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(48, 64), (37, 45)])
def test_a_network_with_the_head_starts_from_the_one_without(size):
    torch.manual_seed(1)
    plain, headed = (
        PlaneSweepNet(width=4, planes=8, depth=3),
        PlaneSweepNet(width=4, planes=8, depth=3, full_size_head=True),
    )
    headed.load_state_dict(plain.state_dict(), strict=False)
    stack, renderer = example_stack(0, *size), DefocusRenderer(sigma_scale=0.5)
    with torch.no_grad():
        before, after = (predict_stack(network.eval(), renderer, stack) for network in (plain, headed))
    assert float(((after.depth_m - before.depth_m).abs() / before.depth_m).mean()) < 0.01
    assert after.aif.shape == before.aif.shape
