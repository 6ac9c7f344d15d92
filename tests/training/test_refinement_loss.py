"""The loss whose target is the refined prediction."""

import dataclasses

import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.measures.losses import SelfSupervisedLoss
from sfdfd.networks import PlaneSweepNet
from sfdfd.networks.interface import NetworkOutput, predict_output, prediction_from_output, render_prediction
from sfdfd.optics import DefocusRenderer
from sfdfd.optics.depth import depth_from_normalized, normalized_inverse_depth
from sfdfd.refinement.energy import energy_of
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import FocalStack
from sfdfd.training.refinement_loss import RefinementLoss

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")
RATES = {"lr_depth": 0.02, "coarse_share": 0.0, "draft_share": 0.0}
WEIGHTS = {"log_depth": 1.0, "inverse_depth_01": 1.0, "aif": 1.0, "scores": 0.2}


def sample(depth_error=0.1):
    """Return a stack and a prediction whose normalized inverse depth is wrong by ``depth_error`` everywhere."""
    stack = example_stack()
    true_01 = normalized_inverse_depth(stack.depth_m, stack.near_m, stack.far_m)
    depth_m = depth_from_normalized((true_01 + depth_error).clamp(0, 1), stack.near_m, stack.far_m)
    return stack, prediction_from_output(NetworkOutput(depth_m, stack.aif.clone()), stack)


def test_the_target_explains_the_stack_better_and_is_nearer_to_the_truth():
    stack, prediction = sample()
    target = RefinementLoss(steps=12, refine=RATES).target(prediction, stack.without_truth(), RENDERER)
    depth_m = depth_from_normalized(target.inverse_depth_01, stack.near_m, stack.far_m)
    before = energy_of(stack, RENDERER, prediction.depth_m, prediction.aif)
    assert float(energy_of(stack, RENDERER, depth_m, target.aif)) < 0.9 * float(before)
    true_01 = normalized_inverse_depth(stack.depth_m, stack.near_m, stack.far_m)
    inside = (..., slice(4, -4), slice(4, -4))
    error = (target.inverse_depth_01 - true_01)[inside].abs().mean()
    assert float(error) < 0.7 * 0.1
    assert not target.inverse_depth_01.requires_grad


def test_the_gradient_moves_depth_towards_the_target():
    stack, prediction = sample()
    loss = RefinementLoss(steps=4, weights={"inverse_depth_01": 1.0}, refine=RATES)
    depth_m = prediction.depth_m.clone().requires_grad_()
    terms = loss(dataclasses.replace(prediction, depth_m=depth_m), stack, RENDERER)
    terms["total"].sum().backward()
    target = loss.target(prediction, stack, RENDERER)
    off = normalized_inverse_depth(prediction.depth_m, stack.near_m, stack.far_m) - target.inverse_depth_01
    moved = (off.abs() > 1e-4) & (target.weight > 0)
    assert torch.equal(torch.sign(depth_m.grad)[moved], -torch.sign(off)[moved])  # more inverse depth is less depth
    assert not depth_m.grad[target.weight == 0].any()


def test_pixels_at_the_border_are_no_targets():
    stack, prediction = sample()
    weight = RefinementLoss(steps=1, border_px=3).target(prediction, stack, RENDERER).weight
    assert float(weight.sum()) == (stack.images.shape[-2] - 6) * (stack.images.shape[-1] - 6)
    assert torch.equal(weight[..., 3:-3, 3:-3], torch.ones_like(weight[..., 3:-3, 3:-3]))
    assert float(RefinementLoss(steps=1, border_px=0).target(prediction, stack, RENDERER).weight.min()) == 1


def test_truth_has_no_influence():
    stack, prediction = sample()
    spoiled = dataclasses.replace(stack, depth_m=stack.depth_m * 3, aif=stack.aif * 0)
    loss = RefinementLoss(steps=3, refine=RATES)
    terms, others = (loss(prediction, one, RENDERER) for one in (stack, spoiled))
    assert {key: float(value) for key, value in terms.items()} == {key: float(value) for key, value in others.items()}


def test_a_batch_has_the_terms_of_its_samples():
    parts = [sample(0.1), sample(-0.05)]
    stack = FocalStack.collate([part for part, _ in parts])
    depth_m, aif = (torch.cat([getattr(one, key) for _, one in parts]) for key in ("depth_m", "aif"))
    loss, exact = RefinementLoss(steps=3, refine=RATES), DefocusRenderer(sigma_scale=0.5)
    terms = loss(prediction_from_output(NetworkOutput(depth_m, aif), stack), stack, exact)
    for index, (one, prediction) in enumerate(parts):
        alone = loss(prediction, one, exact)
        for key, value in terms.items():
            assert float(value[index]) == pytest.approx(float(alone[key]), rel=2e-3, abs=1e-6), key


def test_validation_reports_energy_and_reconstruction():
    stack, prediction = sample()
    prediction = render_prediction(NetworkOutput(prediction.depth_m, prediction.aif), RENDERER, stack)
    terms = RefinementLoss(border_px=4).eval()(prediction, stack, RENDERER)
    assert set(terms) == {"reconstruction", "energy", "total"}
    published = SelfSupervisedLoss(border_px=4)(prediction, stack)
    assert float(terms["reconstruction"]) == pytest.approx(float(published["reconstruction"]))
    assert float(terms["total"]) == float(terms["energy"])
    assert float(terms["energy"]) == pytest.approx(float(energy_of(stack, RENDERER, prediction.depth_m, prediction.aif)))


def test_networks_with_scores_are_trained_by_them():
    torch.manual_seed(0)
    stack = example_stack().without_truth()
    network = PlaneSweepNet(width=8, planes=16, depth=3)
    prediction = prediction_from_output(predict_output(network, RENDERER, stack), stack)
    terms = RefinementLoss(steps=1, weights=WEIGHTS, refine=RATES)(prediction, stack, RENDERER)
    assert "scores" in terms
    terms["total"].sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in network.head.parameters())


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"weights": {"depth": 1.0}}, {"weights": {"aif": -1.0}},
                                       {"border_px": -1}, {"refine": {"smoothnes": 1.0}}])  # fmt: skip
def test_wrong_settings_are_refused_by_name(arguments):
    with pytest.raises(InputError, match=next(iter(arguments)) + r"|refine|loss\."):
        RefinementLoss(**arguments)
