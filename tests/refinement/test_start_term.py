"""Trust in the start: where it was sure, by how much the blur says."""

from dataclasses import replace

import pytest
import torch

from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.energy import Energy
from sfdfd.refinement.settings import RefinementSettings
from sfdfd.refinement.start_term import StartTerm, start_from_depth
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA

RENDERER = DefocusRenderer(weighting="occlusion", sigma_scale=0.5)


def test_a_start_is_trusted_neither_beside_a_depth_edge_nor_where_it_is_unsure():
    depth_m = torch.full((1, 32, 40), 4.0)
    depth_m[..., 20:] = 1.0
    stack = FocalStack.single(torch.rand(2, 3, 32, 40), [1.0, 3.0], CAMERA, 0.5, 10.0)
    start = start_from_depth(stack, depth_m, torch.full_like(depth_m, 1e-4))
    inverse_depth_01, std = start
    assert float(std[..., :14].max()) < 1e-3 and float(std[..., 26:].max()) < 1e-3
    half = float(inverse_depth_01[0, 0, -1] - inverse_depth_01[0, 0, 0]) / 2
    torch.testing.assert_close(std[..., 14:26], torch.full((1, 32, 12), half))
    term = StartTerm(Energy.at_full_size(stack, RENDERER, RefinementSettings(start_min_std=0.01), start).level)
    assert float(term.departure(inverse_depth_01)) == 0
    beside, away = inverse_depth_01.clone(), inverse_depth_01.clone()
    beside[..., 15] += 0.1
    away[..., 2] += 0.1
    assert 0 < 5 * float(term.departure(beside)) < float(term.departure(away))


def test_the_weight_goes_with_the_inverse_square_of_the_blur_span_and_the_square_of_what_is_explained():
    stack, settings = example_stack(), RefinementSettings()
    camera = stack.camera[0]
    energies = [
        Energy.at_full_size(replace(stack, camera=(replace(camera, f_number=n),)), RENDERER, settings)
        for n in (camera.f_number, 2 * camera.f_number)
    ]
    spans = [float(energy.level.blur_span_px) for energy in energies]
    weights = [float(StartTerm(energy.level).weight) for energy in energies]
    assert 3 < spans[1] < spans[0] < 30
    assert weights[0] == pytest.approx(settings.start_trust * (10 / spans[0]) ** 2)
    assert weights[1] == pytest.approx(4 * weights[0])
    assert float(StartTerm(energies[0].halved().level).weight) == weights[0]  # of the scene, not of a size
    half_explained = replace(energies[0].level, explained=torch.tensor([0.5]))
    assert float(StartTerm(half_explained).weight) == pytest.approx(weights[0] / 4)
