"""Loss terms of distillation."""

import numpy as np
import pytest
import torch

from sfdfd.networks.interface import NetworkOutput
from sfdfd.networks.plane_sweep import PlaneSweepNet
from sfdfd.training import distillation
from sfdfd.training.distillation import Distillation, distillation_terms
from sfdfd.training.distillation_samples import collate_samples
from sfdfd.training.distillation_scenes import TeacherPrediction
from tests.training.test_distillation_scenes import PLANES, random_sample


def test_terms_vanish_at_the_target_and_the_std_term_is_least_at_the_error(prediction):
    sample = collate_samples([random_sample([prediction], (2, 0), 40, PLANES)])
    low, high = 1 / sample.far_m, 1 / sample.near_m
    depth_m = 1 / (low + sample.target.inverse_depth_01 * (high - low))
    weights = {"log_depth": 1.0, "inverse_depth_01": 1.0, "aif": 1.0, "std": 0.0}
    std = torch.full_like(depth_m, 0.05)
    exact = distillation_terms(NetworkOutput(depth_m, sample.target.aif, std), sample, weights)
    assert float(exact["total"]) < 1e-5
    off = 1 / (low + (sample.target.inverse_depth_01 + 0.05) * (high - low))
    values = [
        float(
            distillation_terms(NetworkOutput(off, sample.target.aif, torch.full_like(off, s)), sample, weights)["std"]
        )
        for s in (0.01, 0.05, 0.25)
    ]
    assert values[1] == min(values)  # the likelihood is largest where s is the error


def test_pixels_near_silhouettes_weigh_more_and_the_total_weight_is_kept(prediction):
    sample = collate_samples([random_sample([prediction], (2, 0), 40, PLANES)])
    inverse_depth_01 = torch.full((1, 40, 40), 0.2)
    inverse_depth_01[..., 20:] = 0.8
    near = distillation.near_silhouettes(inverse_depth_01)
    columns = torch.arange(40)
    inside = (columns >= 20 - 1 - distillation.EDGE_PX) & (columns <= 20 + distillation.EDGE_PX)
    assert torch.equal(near, inside.float().expand(1, 40, 40))
    sample = sample._replace(
        target=TeacherPrediction(inverse_depth_01, sample.target.aif, torch.full_like(inverse_depth_01, 0.5))
    )
    low, high = 1 / sample.far_m, 1 / sample.near_m
    weights = {"log_depth": 0.0, "inverse_depth_01": 1.0, "aif": 0.0}

    def cost(off):
        depth_m = 1 / (low + (inverse_depth_01 + off) * (high - low))
        return float(distillation_terms(NetworkOutput(depth_m, sample.target.aif), sample, weights)["inverse_depth_01"])

    everywhere = torch.full_like(inverse_depth_01, 0.01)
    assert cost(everywhere) == pytest.approx(0.5 * 0.01, rel=1e-3)
    share = float(near.mean())
    assert cost(everywhere * near) / cost(everywhere) == pytest.approx(4 * share / (1 + 3 * share), rel=1e-3)


def test_a_network_fits_one_sample(prediction):
    torch.manual_seed(0)

    weights = {"log_depth": 1.0, "inverse_depth_01": 1.0, "aif": 0.0, "scores": 0.2}
    module = Distillation(PlaneSweepNet(width=8, planes=PLANES, depth=3), lambda p: torch.optim.Adam(p, 3e-3), weights)
    sample = collate_samples([random_sample([prediction], (3, 1), 40, PLANES)])
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    found = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = module.terms(sample)["total"].mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.8 * found[0]


def test_ten_decibels_of_the_aif_cost_the_same_for_every_image(prediction):
    sample = collate_samples([random_sample([prediction], (2, 0), 40, PLANES)])
    depth_m, weights = torch.ones(1, 40, 40), {"log_depth": 0.0, "inverse_depth_01": 0.0, "aif": 0.0, "aif_log": 1.0}

    def cost(error):
        output = NetworkOutput(depth_m, sample.target.aif + error)
        return float(distillation_terms(output, sample, weights)["total"])

    for error in (0.3, 0.03):
        assert cost(error) - cost(error / 10**0.5) == pytest.approx(0.5 * np.log(10), abs=0.02)


def test_cross_entropy_is_small_at_the_target():
    inverse_depth_01 = torch.tensor([0.3, 0.3, 0.9, 0.9]).expand(1, 2, 4)
    exact = torch.zeros(1, 11, 1, 2)
    exact[:, 3, :, 0] = exact[:, 9, :, 1] = 20.0
    sure = torch.ones(1, 2, 4)
    assert float(distillation.cross_entropy(exact, inverse_depth_01, sure)) < 1e-3
    assert float(distillation.cross_entropy(exact.flip(-1), inverse_depth_01, sure)) > 10
