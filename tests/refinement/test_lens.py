"""What a real lens adds to the thin one, fitted beside depth and AIF."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from scipy.ndimage import convolve1d

from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
from sfdfd.refinement.energy import Energy, priors_for
from sfdfd.refinement.lens import LENS, Lens, softened
from sfdfd.refinement.lens_uncertainty import lens_std
from sfdfd.refinement.refiner import Refiner
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


def test_nothing_fitted_is_the_thin_lens(wall):
    lens = Lens((), 1, 5, wall.images)
    inverse_depth_01 = torch.rand(1, 8, 9)
    assert (
        lens.applied(wall.images) is wall.images
        and lens.seen(inverse_depth_01) is inverse_depth_01
        and lens.bent(inverse_depth_01) is inverse_depth_01
    )
    assert lens.as_dict() == {} and float(lens.blur_factor) == 1
    neutral = Lens(LENS, 1, 5, wall.images)
    torch.testing.assert_close(neutral.applied(wall.images), wall.images, atol=2e-6, rtol=0)


@pytest.mark.parametrize("variance", [0.3, -0.2])
def test_softness_is_scipys_convolution(variance):
    image = torch.rand(1, 2, 3, 12, 14, dtype=torch.float64)
    kernel = [variance / 2, 1 - variance, variance / 2]
    expected = convolve1d(convolve1d(image.numpy(), kernel, axis=-1, mode="nearest"), kernel, axis=-2, mode="nearest")
    found = softened(image, torch.tensor([variance], dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_curvature_takes_what_the_scene_bends_by_and_changes_nothing_that_is_seen():
    lens = Lens(("curvature",), 1, 5, torch.zeros(1))
    y, x = torch.meshgrid(torch.arange(60) + 0.5 - 30, torch.arange(80) + 0.5 - 40, indexing="ij")
    rho = (x**2 + y**2) / (30**2 + 40**2)
    plane = 0.3 + 0.002 * x + 0.001 * y
    plane[20:30, 20:35] += 0.3  # a card in front of it
    bowl = (plane + 0.15 * rho)[None]
    flat = lens.bent(bowl)
    assert float(lens.values["curvature"]) == pytest.approx(0.15, abs=2e-3)
    torch.testing.assert_close(flat[0], plane, atol=3e-3, rtol=0)
    torch.testing.assert_close(lens.seen(flat), bowl)


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


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["k", "softness", "shift", "exposure"])
def test_each_is_found_again(wall, fit):
    images = wall.images.clone()
    if fit == "k":
        images = RENDERER(wall.aif, wall.depth_m, wall.focus_distances_m, CAMERA, blur_factor=torch.tensor([1.15]))
    elif fit == "softness":
        images = softened(images, torch.tensor([0.25]))
    elif fit == "shift":
        images[:, 1] = torch.roll(images[:, 1], 1, -1)
    else:
        images[:, 3] = 0.9 * images[:, 3]
    stack = replace(wall, images=images)
    plain, fitted = (
        Refiner(steps=60, fit=fits, coarse_share=0.0)(stack, RENDERER, wall.depth_m, wall.aif) for fits in ((), (fit,))
    )
    assert fitted.objective < plain.objective
    values = fitted.lens.as_dict()[fit]
    if fit == "k":
        assert values[0] == pytest.approx(1.15, abs=0.05) and float(fitted.blur_factor) == pytest.approx(values[0])
    elif fit == "softness":
        assert values[0] > 0.1
    elif fit == "shift":
        others = np.mean([values[0][s][0] for s in (0, 2, 3, 4)])
        assert values[0][1][0] - others == pytest.approx(-1.0, abs=0.5)  # where the slice is sampled
    else:
        others = np.mean([values[0][s] for s in (0, 1, 2, 4)])
        assert np.mean(values[0][3]) / others == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(("name", "step"), [("k", 0.02), ("softness", 0.02), ("shift", 0.1), ("exposure", 0.005)])
def test_a_standard_error_is_the_spread_over_repetitions(wall, name, step):
    """Of the best value (a Newton step from the truth, by hand) over 24 drawings of the noise."""
    best, said = [], []
    for seed in range(24):
        noise = 0.01 * torch.randn(wall.images.shape, generator=torch.Generator().manual_seed(seed))
        problem = Energy(priors_for(RENDERER, {}), replace(wall, images=wall.images + noise), RENDERER)
        inverse_depth_01, aif, lens = problem.unknowns(wall.depth_m, wall.aif, Lens((name,), 1, 5, wall.images))
        with torch.no_grad():
            energies = []
            for sign in (-1, 0, 1):
                twin = lens.clone()
                first = twin.values[name].view(-1)[:1] if name in ("k", "softness") else twin.values[name][0, 1, :1]
                first += sign * step
                energies.append(float(problem.misfit(inverse_depth_01, aif, twin).double().mean()))
        before, at, after = energies
        best.append(-0.5 * step * (after - before) / (after - 2 * at + before))
        said.append(
            float(
                lens_std(problem, inverse_depth_01, aif, lens, None)[name].view(-1)[
                    3 if name in ("shift", "exposure") else 0
                ]
            )
        )
    assert 0.5 < np.std(best) / np.mean(said) < 2


def test_what_cannot_be_told_is_infinitely_uncertain(wall):
    plain = replace(wall, images=torch.full_like(wall.images, 0.5))
    problem = Energy(priors_for(RENDERER, {}), plain, RENDERER)
    unknowns = problem.unknowns(wall.depth_m, torch.full_like(wall.aif, 0.5), Lens(("k", "shift"), 1, 5, wall.images))
    found = lens_std(problem, *unknowns, None)
    assert all(not bool((value < 10).any()) for value in found.values())


def test_refinement_says_how_sure_its_lens_is(wall):
    found = Refiner(steps=6, fit=("k", "shift"), coarse_share=0.0)(wall, RENDERER, wall.depth_m, wall.aif)
    assert found.lens_std.keys() == found.lens.as_dict().keys() == {"k", "shift"}
    assert 0 < found.lens_std["k"][0] < 0.1 and np.shape(found.lens_std["shift"]) == (1, 5, 3)
    assert Refiner(steps=2)(wall, RENDERER, wall.depth_m, wall.aif).lens_std == {}


def test_another_size_has_other_pixels():
    lens = Lens(LENS, 1, 2, torch.zeros(1))
    lens.values["shift"] += torch.tensor([1.0, -2.0, 0.01])
    lens.values["softness"] += 0.1
    twice = lens.scaled(2.0).values
    torch.testing.assert_close(twice["shift"][0, 0], torch.tensor([2.0, -4.0, 0.01]))
    assert float(twice["softness"]) == pytest.approx(0.4) and float(lens.values["softness"]) == pytest.approx(0.1)


@pytest.mark.parametrize("fit", [["kk"], "k"])
def test_unknown_names_are_refused(fit):
    with pytest.raises(InputError, match=r"refine\.fit"):
        Refiner(steps=1, fit=fit)
