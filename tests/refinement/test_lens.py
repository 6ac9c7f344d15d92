"""Lens parameters, fitted beside depth and AIF."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb

from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
from sfdfd.refinement.data_term import DataTerm
from sfdfd.refinement.energy import Energy
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.lens_uncertainty import lens_std
from sfdfd.refinement.refiner import Refiner
from sfdfd.refinement.settings import settings_for
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


@pytest.fixture(scope="module")
def wall():
    generator = torch.Generator().manual_seed(1)
    aif = 0.2 + 0.6 * torch.rand(1, 3, 64, 72, generator=generator)
    depth_m = torch.full((1, 64, 72), 2.0)
    images = RENDERER(aif, depth_m, torch.tensor([FOCUS_M]), CAMERA)
    return FocalStack.single(images[0], list(FOCUS_M), CAMERA, 0.5, 10.0, depth_m=depth_m[0], aif=aif[0])


def test_the_thin_lens_is_where_it_starts(wall):
    lens = Lens((), 1, wall.images)
    assert lens.as_dict() == {} and float(lens.blur_factor) == 1


@pytest.mark.slow
def test_the_factor_on_the_blur_is_found_again(wall):
    images = RENDERER(wall.aif, wall.depth_m, wall.focus_distances_m, CAMERA, blur_factor=torch.tensor([1.15]))
    plain, fitted = (
        Refiner(steps=60, fit=fit, coarse_share=0.0)(replace(wall, images=images), RENDERER, wall.depth_m, wall.aif)
        for fit in ((), ("k",))
    )
    assert fitted.objective < plain.objective
    factor = fitted.lens.as_dict()["k"][0]
    assert factor == pytest.approx(1.15, abs=0.05) and float(fitted.blur_factor) == pytest.approx(factor)


def full_size_energy(stack):
    return Energy.at_full_size(stack, RENDERER, settings_for(RENDERER, {}))


def test_a_standard_error_is_the_std_over_repetitions(wall):
    """Of the best factor, a Newton step from the truth, over 24 draws of the noise."""
    best, errors, step = [], [], 0.02
    for seed in range(24):
        noise = 0.01 * torch.randn(wall.images.shape, generator=torch.Generator().manual_seed(seed))
        energy = full_size_energy(replace(wall, images=wall.images + noise))
        variables = energy.variables(wall.depth_m, wall.aif, Lens(("k",), 1, wall.images))
        costs = []
        for sign in (-1, 0, 1):
            twin = variables.lens.clone()
            twin.values["k"] += sign * step
            with torch.no_grad():
                costs.append(float(DataTerm(energy.level).per_pixel(variables._replace(lens=twin)).double().mean()))
        before, at, after = costs
        best.append(-0.5 * step * (after - before) / (after - 2 * at + before))
        errors.append(float(lens_std(energy, variables)["k"]))
    assert 0.5 < np.std(best) / np.mean(errors) < 2


def test_a_parameter_that_the_stack_does_not_show_is_infinitely_uncertain(wall):
    energy = full_size_energy(replace(wall, images=torch.full_like(wall.images, 0.5)))
    variables = energy.variables(wall.depth_m, torch.full_like(wall.aif, 0.5), Lens(("k",), 1, wall.images))
    assert not bool((lens_std(energy, variables)["k"] < 10).any())


def test_refinement_returns_standard_errors_of_its_lens(wall):
    found = Refiner(steps=6, fit=("k",), coarse_share=0.0)(wall, RENDERER, wall.depth_m, wall.aif)
    assert found.lens_std.keys() == found.lens.as_dict().keys() == {"k"}
    assert 0 < found.lens_std["k"][0] < 0.1
    assert Refiner(steps=2)(wall, RENDERER, wall.depth_m, wall.aif).lens_std == {}


@pytest.mark.parametrize("share", [pytest.param(0.0, marks=pytest.mark.slow), 0.4])
def test_the_shape_between_disc_and_gaussian_is_found_again(share):
    """From a sweep with discs, of a stack blurred some of the way to the Gaussian, the light of both added by hand."""
    disc, gaussian = (
        DefocusRenderer(psf=psf, sigma_scale=0.5, linear_light=True, weighting="occlusion", method="fast")
        for psf in ("disc", "gaussian")
    )
    scene = example_stack(3, 64, 96)
    known = (scene.aif, scene.depth_m, scene.focus_distances_m, scene.camera)
    light = [rgb_to_linear_rgb(renderer(*known)[0]) for renderer in (disc, gaussian)]
    stack = replace(scene, images=linear_rgb_to_rgb((1 - share) * light[0] + share * light[1])[None]).without_truth()
    start = depth_from_plane_sweep(stack, disc)
    refiner = Refiner(steps=60, fit=("shape",))
    found = refiner(stack, disc, start.depth_m, start.aif)
    assert found.lens.as_dict()["shape"][0] == pytest.approx(share, abs=0.08)
    assert 0 < found.lens_std["shape"][0] < 0.1
    with pytest.raises(InputError, match=r"optics\.psf=disc"):
        refiner(stack, gaussian, start.depth_m, start.aif)


@pytest.mark.parametrize("fit", [["kk"], "k"])
def test_unknown_names_are_refused(fit):
    with pytest.raises(InputError, match=r"refine\.fit"):
        Refiner(steps=1, fit=fit)
