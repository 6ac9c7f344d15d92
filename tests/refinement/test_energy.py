"""The energy is a sum of terms, any of which can be exchanged."""

import torch

from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.energy import Energy, default_terms
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.refiner import Refiner
from sfdfd.refinement.settings import RefinementSettings
from sfdfd.refinement.variables import Stage
from sfdfd.scenes.example_stack import example_stack

OPTICS = {"weighting": "occlusion", "sigma_scale": 0.5}
RENDERER = DefocusRenderer(**OPTICS, method="fast")


def test_the_energy_is_the_sum_of_its_terms():
    stack = example_stack(weighting="occlusion")
    energy = Energy.at_full_size(stack, RENDERER, RefinementSettings())
    variables = energy.variables(1.1 * stack.depth_m, stack.aif, Lens((), 1, stack.aif))
    terms = [torch.as_tensor(term(variables, Stage(early=0.5))) for term in energy.terms]
    torch.testing.assert_close(energy(variables, Stage(early=0.5)), sum(terms))
    assert len(terms) == 5 and all(bool((term >= 0).all()) for term in terms)


def test_another_depth_prior_needs_one_function():
    stack, levels = example_stack(weighting="occlusion"), []

    def with_prior_at_two_metres(level):
        def prior(variables, stage):
            levels.append(variables.inverse_depth_01.shape[-1])
            target = (1 / 2 - 1 / level.stack.far_m) / (1 / level.stack.near_m - 1 / level.stack.far_m)
            return 100 * (variables.inverse_depth_01 - target[:, None, None]).square().mean((1, 2))

        return default_terms(level, depth_prior=prior)

    refiner = Refiner(steps=60, terms=with_prior_at_two_metres, lr_depth=0.02)
    found = refiner(stack, RENDERER, stack.depth_m, stack.aif)
    assert float((found.depth_m - 2).abs().median()) < 0.1 < float((stack.depth_m - 2).abs().median())
    assert set(levels) == {64}


def test_a_draft_renders_the_first_steps_and_does_not_judge_the_result(monkeypatch):
    stack = example_stack(weighting="occlusion")
    draft = DefocusRenderer(**OPTICS, method="draft")
    energy = Energy.at_full_size(stack, RENDERER, RefinementSettings())
    variables = energy.variables(stack.depth_m, stack.aif, Lens((), 1, stack.aif))
    inputs = (stack.aif, stack.depth_m, stack.focus_distances_m, stack.camera)
    assert torch.allclose(energy.model.render(variables), RENDERER(*inputs), atol=1e-5)
    assert torch.allclose(energy.model.render(variables, draft=True), draft(*inputs), atol=1e-5)
    assert not torch.allclose(draft(*inputs), RENDERER(*inputs), atol=1e-4)
    options = {"steps": 8, "hidden_reach_px": 0}
    exact, drafted = (
        Refiner(**options, draft_share=share)(stack, RENDERER, 0.9 * stack.depth_m, stack.aif) for share in (0.0, 1.0)
    )
    assert not torch.equal(exact.depth_m, drafted.depth_m)  # another way, judged by the same energy
    assert drafted.objective < drafted.objective_start == exact.objective_start
    rendered = RENDERER(drafted.aif, drafted.depth_m, stack.focus_distances_m, stack.camera)
    torch.testing.assert_close(drafted.rendered, rendered, atol=2e-3, rtol=0)


def test_draft_steps_bound_the_steps_with_the_draft(monkeypatch):
    stack, drafts, call = example_stack(weighting="occlusion"), [], Energy.__call__

    def recorded(self, variables, stage=None):
        drafts.append(stage is not None and stage.draft)
        return call(self, variables, stage)

    monkeypatch.setattr(Energy, "__call__", recorded)
    Refiner(steps=12, draft_share=1.0, draft_steps=3, coarse_share=0.0)(stack, RENDERER, stack.depth_m, stack.aif)
    assert drafts[:12] == [True] * 3 + [False] * 9 and not any(drafted for drafted in drafts[12:])
