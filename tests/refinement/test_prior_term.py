"""The prior's term pulls depth towards the map, only where the map has a weight, and follows scale and shift."""

import pytest
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
    return AlignedPrior(values, std * ones, ones, ones, ones)


def variables(inverse_depth_01):
    return Variables(
        inverse_depth_01, torch.zeros(1, 3, *inverse_depth_01.shape[-2:]), Lens((), 1, like=inverse_depth_01)
    )


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.8, 0.1), (1.2, -0.05)])
def test_it_costs_nothing_at_the_map_whatever_its_scale(scale, shift):
    given = prior()
    energy = PriorTerm(level(), given)(variables(scale * given.inverse_depth_01 + shift), Stage())
    assert float(energy) == pytest.approx(0, abs=1e-7)


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


def test_without_anchors_the_map_stays_as_it_was_aligned():
    given = prior()._replace(anchors=torch.zeros(1, *SIZE))
    term = PriorTerm(level(), given)
    torch.testing.assert_close(term.fitted_to(torch.rand(1, *SIZE)), given.inverse_depth_01)


def test_it_is_halved_with_the_level():
    def build_terms(level):
        return [*default_terms(level), PriorTerm(level, prior())]

    half = Energy.at_full_size(STACK, RENDERER, settings_for(RENDERER, {}), build_terms=build_terms).halved().halved()
    assert half(variables(torch.rand(1, *half.level.stack.images.shape[-2:]))).shape == (1,)
