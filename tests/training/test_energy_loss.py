"""The energy as a loss: the AIF follows depth, then depth gets its gradient."""

import dataclasses

import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.measures.losses import SelfSupervisedLoss
from sfdfd.networks.interface import NetworkOutput, prediction_from_output, render_prediction
from sfdfd.optics import DefocusRenderer
from sfdfd.optics.depth import depth_from_normalized, normalized_inverse_depth
from sfdfd.refinement.energy import energy_of
from sfdfd.refinement.lens import Lens
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import FocalStack
from sfdfd.training.energy_loss import EnergyLoss
from tests.commands import SMALL, inside

RENDERER = DefocusRenderer(sigma_scale=0.5)


def sample(depth_error=0.1):
    """Return a stack and a prediction whose normalized inverse depth is wrong by ``depth_error`` everywhere."""
    stack = example_stack()
    true_01 = normalized_inverse_depth(stack.depth_m, stack.near_m, stack.far_m)
    depth_m = depth_from_normalized((true_01 + depth_error).clamp(0, 1), stack.near_m, stack.far_m)
    return stack, prediction_from_output(NetworkOutput(depth_m, stack.aif.clone()), stack)


def lens_of(stack):
    return Lens((), len(stack), like=stack.images)


def gradient(loss, stack, prediction):
    """Return the gradient with respect to the normalized inverse depth."""
    inverse_depth_01 = normalized_inverse_depth(prediction.depth_m, stack.near_m, stack.far_m).requires_grad_()
    depth_m = depth_from_normalized(inverse_depth_01, stack.near_m, stack.far_m)
    loss(dataclasses.replace(prediction, depth_m=depth_m), stack, RENDERER)["energy"].sum().backward()
    return inverse_depth_01.grad


def test_the_gradient_leads_to_the_true_depth_though_the_aif_was_made_at_the_wrong_one():
    for error in (0.1, -0.1):
        stack, prediction = sample(error)
        found = gradient(EnergyLoss(aif_steps=20, aif_lr=0.02), stack, prediction)
        assert float(found.sum() * error) > 0


def test_the_gradient_is_that_of_the_energy_at_the_best_aif():
    stack, prediction = sample()
    loss = EnergyLoss(aif_steps=4, border_px=0)
    inverse_depth_01 = normalized_inverse_depth(prediction.depth_m, stack.near_m, stack.far_m)
    energy = loss.energy_of(stack, RENDERER)
    variables = energy.variables(prediction.depth_m, prediction.aif, lens_of(stack))
    aif = loss.best_aif(energy, variables)
    assert float(energy(variables._replace(aif=aif))) < float(energy(variables))
    direction = torch.randn(inverse_depth_01.shape, generator=torch.Generator().manual_seed(3)) * 1e-3

    def along(step):
        return float(energy(variables._replace(aif=aif, inverse_depth_01=inverse_depth_01 + step * direction)).double())

    slope = float((gradient(loss, stack, prediction) * direction).sum())
    assert slope == pytest.approx((along(1) - along(-1)) / 2, rel=0.05)


def test_the_aif_is_drawn_to_the_best_one_and_the_energy_does_not_move_it():
    stack, prediction = sample()
    aif = prediction.aif.clone().requires_grad_()
    loss = EnergyLoss(aif_steps=3)
    terms = loss(dataclasses.replace(prediction, aif=aif), stack, RENDERER)
    assert not terms["energy"].requires_grad
    energy = loss.energy_of(stack, RENDERER)
    best = loss.best_aif(energy, energy.variables(prediction.depth_m, prediction.aif, lens_of(stack)))
    assert float(terms["aif"].detach()) == pytest.approx(float((prediction.aif - best).abs().mean()), rel=1e-5)
    terms["total"].sum().backward()
    off = prediction.aif - best
    assert torch.equal(torch.sign(aif.grad)[off.abs() > 1e-6], torch.sign(off)[off.abs() > 1e-6])


def test_without_steps_the_energy_trains_the_aif_itself():
    stack, prediction = sample()
    aif = prediction.aif.clone().requires_grad_()
    terms = EnergyLoss(aif_steps=0)(dataclasses.replace(prediction, aif=aif), stack, RENDERER)
    terms["energy"].sum().backward()
    assert bool(aif.grad.any())
    assert float(terms["aif"].detach()) == 0


def test_residuals_at_the_border_do_not_count():
    stack, prediction = sample(0.0)
    spoiled = stack.images.clone()
    spoiled[..., :3, :] = spoiled[..., -3:] = 1 - spoiled[..., :3, :].mean()
    other = dataclasses.replace(stack, images=spoiled)
    for px, is_equal in ((3, True), (2, False)):
        loss = EnergyLoss(aif_steps=0, border_px=px)
        first, second = (float(loss(prediction, one, RENDERER)["energy"]) for one in (stack, other))
        assert (first == pytest.approx(second, rel=1e-6)) is is_equal


def test_truth_has_no_influence():
    stack, prediction = sample()
    spoiled = dataclasses.replace(stack, depth_m=stack.depth_m * 3, aif=stack.aif * 0)
    terms, others = (EnergyLoss(aif_steps=2)(prediction, one, RENDERER) for one in (stack, spoiled))
    assert {key: float(value) for key, value in terms.items()} == {key: float(value) for key, value in others.items()}


def test_a_batch_has_the_terms_of_its_samples():
    parts = [sample(0.1), sample(-0.05)]
    stack = FocalStack.collate([part for part, _ in parts])
    depth_m, aif = (torch.cat([getattr(one, key) for _, one in parts]) for key in ("depth_m", "aif"))
    loss = EnergyLoss(aif_steps=3)
    terms = loss(prediction_from_output(NetworkOutput(depth_m, aif), stack), stack, RENDERER)
    for index, (one, prediction) in enumerate(parts):
        alone = loss(prediction, one, RENDERER)
        for key, value in terms.items():
            assert float(value[index]) == pytest.approx(float(alone[key]), rel=2e-3, abs=1e-6), key


def test_validation_reports_energy_and_reconstruction():
    stack, prediction = sample()
    prediction = render_prediction(NetworkOutput(prediction.depth_m, prediction.aif), RENDERER, stack)
    terms = EnergyLoss(border_px=0).eval()(prediction, stack, RENDERER)
    assert set(terms) == {"reconstruction", "energy", "total"}
    published = SelfSupervisedLoss()(prediction, stack)
    assert float(terms["reconstruction"]) == pytest.approx(float(published["reconstruction"]))
    assert float(terms["energy"]) == pytest.approx(
        float(energy_of(stack, RENDERER, prediction.depth_m, prediction.aif))
    )
    assert float(terms["total"]) == pytest.approx(100 * float(terms["energy"]))


@pytest.mark.parametrize(("key", "value"), [
    ("aif_steps", -1), ("aif_lr", -1.0), ("energy", -1.0), ("aif", -1.0), ("border_px", -1), ("refine", {"smoothnes": 1.0}),
])  # fmt: skip
def test_wrong_settings_are_refused_by_name(key, value):
    with pytest.raises(InputError, match=key):
        EnergyLoss(**{key: value})


def test_a_run_trains_by_it(tmp_path):
    overrides = [
        "network=plane_sweep", "network.depth=3", "network.planes=8", "loss=energy", "loss.aif_steps=2", "output_dir=r",
        "trainer.max_steps=2", "trainer.val_check_interval=1", "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    inside("train", "experiment=procedural", *SMALL, *overrides, cwd=tmp_path)
    header = (tmp_path / "r/csv/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/energy", "train/aif", "val/energy", "val/reconstruction"} <= set(header)
    assert (tmp_path / "r/checkpoints/best.ckpt").is_file()
