"""A warning when depth collapses."""

import pytest
import torch

from sfdfd.networks import NetworkOutput
from sfdfd.training.callbacks import CollapseDetector
from tests.training.test_module import module, stacks, train


class Constant(torch.nn.Module):
    requires_defocus = False

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, images, focus_distances_m, *, near_m, far_m, slice_mask):
        return NetworkOutput(self.level.expand(images.shape[0], *images.shape[-2:]), images.mean(1))


def test_a_constant_depth_map_gives_a_warning():
    with pytest.warns(UserWarning, match="depth has collapsed: the predicted depth map is constant"):
        trainer = train(module(Constant()), stacks(2), stacks(1), steps=4, callbacks=[CollapseDetector()])
    assert float(trainer.callback_metrics["health/depth_std"]) < 1e-6
    assert trainer.global_step == 4, (
        "the warning comes after two steps, and the run continues (docs/howto/troubleshooting.md)"
    )


def test_a_varying_depth_map_gives_no_warning(recwarn):
    train(module(), stacks(2), stacks(1), steps=2, callbacks=[CollapseDetector()])
    assert not [w for w in recwarn if "collapsed" in str(w.message)]
