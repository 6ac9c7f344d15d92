"""The prior's term pulls depth towards the map where the map has a weight, and only there."""

import torch

from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.energy import Energy, default_terms
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.prior_term import AlignedPrior, PriorTerm
from sfdfd.refinement.settings import settings_for
from sfdfd.refinement.variables import Stage, Variables
from sfdfd.scenes.example_stack import example_stack

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")
STACK = example_stack().without_truth()
SIZE = STACK.images.shape[-2:]


def level():
    return Energy.at_full_size(STACK, RENDERER, settings_for(RENDERER, {})).level


def prior(std=0.01):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, *SIZE, generator=generator)
    ones = torch.ones(1, *SIZE)
    return AlignedPrior(values, std * ones, ones, ones)


def variables(inverse_depth_01):
    return Variables(
        inverse_depth_01, torch.zeros(1, 3, *inverse_depth_01.shape[-2:]), Lens((), 1, like=inverse_depth_01)
    )


def test_it_costs_nothing_at_the_map():
    given = prior()
    assert float(PriorTerm(level(), given)(variables(given.inverse_depth_01), Stage())) == 0


def test_it_acts_only_where_it_has_a_weight():
    given = prior()
    weight = given.weight.clone()
    weight[:, :, : SIZE[1] // 2] = 0
    depth = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    PriorTerm(level(), given._replace(weight=weight))(variables(depth), Stage()).sum().backward()
    assert (depth.grad[:, :, : SIZE[1] // 2] == 0).all() and (depth.grad[:, :, SIZE[1] // 2 :] != 0).all()


def test_a_surer_map_pulls_more_and_a_far_pixel_pulls_no_more():
    """The penalty is robust: its slope falls far away."""

    def slope(std, departure):
        given = prior(std=std)
        depth = given.inverse_depth_01.clone()
        depth[0, 0, 0] += departure
        depth.requires_grad_()
        PriorTerm(level(), given)(variables(depth), Stage()).sum().backward()
        return float(depth.grad[0, 0, 0])

    assert slope(0.005, 0.001) > 2 * slope(0.02, 0.001) > 0
    assert slope(0.01, 1.0) < slope(0.01, 0.015)


def test_it_is_halved_with_the_level():
    def build_terms(level):
        return [*default_terms(level), PriorTerm(level, prior())]

    half = Energy.at_full_size(STACK, RENDERER, settings_for(RENDERER, {}), build_terms=build_terms).halved().halved()
    assert half(variables(torch.rand(1, *half.level.stack.images.shape[-2:]))).shape == (1,)
