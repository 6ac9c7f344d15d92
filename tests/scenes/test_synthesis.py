"""Rendering, noise, rounding."""

import pytest
import torch

from sfdfd.datasets.synthetic import ProceduralDataModule
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer, render_focal_stack
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.sensor import SensorModel
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M

RENDERER = DefocusRenderer(sigma_scale=0.5)


def synthesis(**options):
    return StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0, **options)


def test_synthesis_renders_and_rounds():
    aif, depth = torch.rand(3, 20, 24), 1 + 4 * torch.rand(20, 24)
    exact = render_focal_stack(aif[None], depth[None], torch.tensor(FOCUS_M), CAMERA, sigma_scale=0.5)[0]
    scene = Scene(aif, depth)
    rounded, raw = synthesis()(scene), synthesis(round_to_8_bits=False)(scene)
    torch.testing.assert_close(raw.images[0], exact.clamp(0, 1))
    assert float((rounded.images - raw.images).abs().max()) <= 0.5 / 255 + 1e-6
    assert torch.equal(rounded.images, (rounded.images * 255).round() / 255)


def test_noise_is_seeded_and_has_its_standard_deviation():
    aif, depth = torch.full((3, 64, 64), 0.5), torch.full((64, 64), 2.0)
    make = synthesis(sensor=SensorModel(read_std=0.02), round_to_8_bits=False)
    one, same, other = (make(Scene(aif, depth, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images) and not torch.equal(one.images, other.images)
    assert float((one.images - 0.5).std()) == pytest.approx(0.02, rel=0.05)


def test_depth_out_of_range_is_not_valid():
    depth = torch.tensor([[0.2, 1.0], [5.0, 20.0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)
    stack = synthesis()(Scene(torch.rand(3, 16, 16), depth))
    assert torch.equal(stack.valid[0], (depth >= 0.5) & (depth <= 10))


def test_a_padded_batch_is_rendered_sample_by_sample():
    make, stacks = synthesis(), []
    for height, width in ((20, 24), (18, 30), (20, 24)):
        stacks.append(make.unrendered(Scene(torch.rand(3, height, width), 1 + 4 * torch.rand(height, width))))
    together = make.rendered(FocalStack.collate(stacks), torch.Generator())
    for index, stack in enumerate(stacks):
        alone = make.rendered(stack, torch.Generator())
        torch.testing.assert_close(together[index].images, alone.images, atol=1e-6, rtol=0)
        assert torch.equal(together[index].depth_m, alone.depth_m)


def test_the_protocol_reports_focus_distances_from_true_depth():
    depth = torch.linspace(1.2, 4.0, 32).expand(24, 32).contiguous()
    known = torch.ones(24, 32, dtype=torch.bool)
    known[:, 0] = False  # an unknown pixel says nothing of the range
    stack = synthesis(slices_in_depth_range=4)(Scene(torch.rand(3, 24, 32), depth, known))
    expected = torch.linspace(float(depth[0, 1]), 4.0, 4)
    torch.testing.assert_close(stack.focus_distances_m[0], expected)
    common = {"renderer": RENDERER, "camera": CAMERA, "focus_distances_m": FOCUS_M, "near_m": 0.5, "far_m": 10.0}
    assert "range" in ProceduralDataModule(slices_in_depth_range=4, **common).protocol()["leaks"]
    assert "leaks" not in ProceduralDataModule(**common).protocol()
    with pytest.raises(InputError, match=r"data\.slices_in_depth_range"):
        synthesis(slices_in_depth_range=1)
