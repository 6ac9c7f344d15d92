"""The learned blend: nothing before training, laws afterwards."""

import pytest
import torch

from sfdfd.networks.interface import predict_stack
from sfdfd.networks.plane_sweep import PlaneSweepNet
from sfdfd.networks.slice_blend import SliceBlend
from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.example_stack import example_stack


def randomized(module):
    for parameter in module.requires_grad_(False).parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_before_training_slices_are_blended_by_depth_alone():
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
def test_a_network_with_a_learned_blend_starts_from_one_without(size):
    torch.manual_seed(1)
    plain, blended = (
        PlaneSweepNet(width=4, planes=8, depth=3),
        PlaneSweepNet(width=4, planes=8, depth=3, learned_blend=True),
    )
    blended.load_state_dict(plain.state_dict(), strict=False)
    stack, renderer = example_stack(0, *size), DefocusRenderer(sigma_scale=0.5)
    with torch.no_grad():
        before, after = (predict_stack(network.eval(), renderer, stack) for network in (plain, blended))
    assert torch.equal(after.depth_m, before.depth_m) and torch.equal(after.aif, before.aif)
