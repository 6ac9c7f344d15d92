"""PSF families and their low-rank bases."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer, render_focal_stack
from sfdfd.optics import psf as psfs
from sfdfd.optics.psf import GaussianPSF, floored_size_px, get_psf, psf_basis
from tests.conftest import CAMERA

FAMILIES = {name: get_psf(name) for name in (*psfs.FAMILIES, "power:2", "power:6")}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [1.0, 2.7, 6.0])
def test_mass_does_not_depend_on_size(name, size):
    psf = FAMILIES[name]
    mass, _ = quad(lambda q: 2 * np.pi * q * psf.weight(q * q, size), 0, 12 * size, points=[size], limit=400)
    assert mass == pytest.approx(psf.mass, rel=2e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_slope_is_the_derivative_and_torch_is_numpy(name):
    psf = FAMILIES[name]
    sizes = torch.linspace(psf.floor_px, 7, 50, dtype=torch.float64)
    for distance_sq in (0.0, 1.0, 2.0, 13.0, 50.0):
        weight = psf.weight(distance_sq, sizes)
        np.testing.assert_allclose(weight, psf.weight(distance_sq, sizes.numpy()), rtol=1e-12, atol=1e-300)
        step = 1e-6
        numeric = (psf.weight(distance_sq, sizes + step) - psf.weight(distance_sq, sizes - step)) / (2 * step)
        torch.testing.assert_close(psf.slope(distance_sq, sizes, weight), numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
@pytest.mark.parametrize("limit", [0.8, 3.0, 9.0])
def test_a_basis_reproduces_every_member_to_its_tolerance(name, tolerance, limit):
    """At sizes that the basis was not made from, entry by entry on the whole window."""
    psf = FAMILIES[name]
    basis = psf_basis(psf, limit, 1 << 10, tolerance)
    assert basis.error <= tolerance
    offsets = np.arange(basis.reach_px + 1)
    square = (offsets[:, None] ** 2 + offsets[None, :] ** 2).astype(float)
    copies = np.where(offsets > 0, 2, 1)[:, None] * np.where(offsets > 0, 2, 1)[None, :]
    copies[0, 0] = 0  # the centre is applied exactly
    for size in np.random.default_rng(0).uniform(psf.floor_px, max(limit, 2 * psf.floor_px), 40):
        coefficients = psf.weight(basis.distances_sq, size)
        error = np.abs(np.einsum("l,lij->ij", coefficients, basis.quadrants) - psf.weight(square, size)) * copies
        assert error.sum() / psf.mass < 1.5 * tolerance


def test_bases_grow_slowly_with_the_blur():
    ranks = [len(psf_basis(GaussianPSF(), size, 1 << 12, 1e-5).distances_sq) for size in (2.0, 8.0, 32.0)]
    assert ranks == sorted(ranks) and ranks[-1] <= 40


def test_power_two_is_the_gaussian_and_a_high_power_the_disc():
    aif, depth = torch.rand(1, 3, 40, 44, dtype=torch.float64), torch.full((1, 40, 44), 4.0, dtype=torch.float64)
    focus = torch.tensor([1.0, 1.5], dtype=torch.float64)

    def render(psf, sigma_scale):
        return render_focal_stack(aif, depth, focus, CAMERA, psf=psf, sigma_scale=sigma_scale)

    torch.testing.assert_close(render("power:2", 0.7), render("gaussian", 0.7), atol=1e-6, rtol=0)
    disc = render("disc", 0.123)  # the disc's radius is the blur radius
    assert float((render("power:60", 0.5) - disc).abs().mean()) < 0.25 * float(
        (render("power:2", 0.5) - disc).abs().mean()
    )


@pytest.mark.parametrize("weighting", ["source", "target"])
def test_constant_depth_disc_is_a_pillbox(weighting):
    """Against an area-sampled pillbox: the rim differs by a fraction of a pixel."""
    aif = torch.rand(1, 1, 50, 50, dtype=torch.float64)
    depth = torch.full((1, 50, 50), 4.0, dtype=torch.float64)
    stack = render_focal_stack(aif, depth, torch.tensor([1.0]).double(), CAMERA, psf="disc", weighting=weighting)
    radius = CAMERA.blur_radius_px(4.0, 1.0)
    fine = (np.arange(-12 * 9, 12 * 9 + 9) + 0.5) / 9 - 0.5
    inside = (fine[:, None] ** 2 + fine[None, :] ** 2 <= radius**2).astype(float)
    kernel = inside[: 25 * 9, : 25 * 9].reshape(25, 9, 25, 9).mean((1, 3))
    from scipy.signal import convolve2d

    expected = convolve2d(aif[0, 0].numpy(), kernel, mode="same") / convolve2d(np.ones((50, 50)), kernel, mode="same")
    assert np.abs(stack[0, 0, 0].numpy() - expected).max() < 4e-3


@pytest.mark.parametrize("name", [*psfs.FAMILIES, "power:3", "power:8"])
@pytest.mark.parametrize("weighting", ["source", "target"])
def test_gradcheck_through_focus_and_identity_in_it(name, weighting):
    aif = torch.rand(1, 2, 5, 6, dtype=torch.float64).requires_grad_()
    depth = torch.linspace(1.4, 1.62, 30, dtype=torch.float64).reshape(1, 5, 6)
    depth[0, 2, 2] = 1.5
    depth.requires_grad_()
    focus = torch.tensor([1.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, d: render_focal_stack(a, d, focus, CAMERA, psf=name, weighting=weighting), (aif, depth), atol=1e-4
    )
    flat = torch.full((1, 5, 6), 1.5, dtype=torch.float64)
    stack = render_focal_stack(aif.detach(), flat, focus, CAMERA, psf=name, weighting=weighting)
    torch.testing.assert_close(stack[:, 0], aif.detach(), atol=2e-4, rtol=0)


def test_registered_psf_names_are_accepted_and_listed_in_the_error(monkeypatch):
    monkeypatch.setitem(psfs.FAMILIES, "another", GaussianPSF)
    assert get_psf("another") == GaussianPSF() and DefocusRenderer(psf="another").options["psf"] == "another"
    with pytest.raises(InputError, match=r"'gaussian', .*'another' or 'power:P'"):
        get_psf("square")


def test_an_exponent_that_overflows_has_neither_weight_nor_slope():
    sizes = torch.tensor([0.4, 1.0, 3.0])  # (30 / 0.4)^64 is no float32
    for power in (4.0, 64.0):
        psf = psfs.PowerPSF(power)
        weight = psf.weight(900.0, sizes)
        assert torch.equal(weight, torch.zeros(3)) and torch.equal(psf.slope(900.0, sizes, weight), torch.zeros(3))


def test_the_floor_joins_smoothly():
    size = torch.tensor([0.0, 0.2, 0.4 - 1e-9, 0.4 + 1e-9, 3.0], dtype=torch.float64, requires_grad=True)
    floored = floored_size_px(size, 0.2)
    (slope,) = torch.autograd.grad(floored.sum(), size)
    torch.testing.assert_close(
        floored, torch.tensor([0.2, 0.25, 0.4, 0.4, 3.0], dtype=torch.float64), atol=1e-8, rtol=0
    )
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0], dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["square", "power:x", "power:0.2", "power:nan", ""])
def test_unknown_families_are_refused(name):
    with pytest.raises(InputError, match=r"optics\.psf"):
        get_psf(name)
    with pytest.raises(InputError, match=r"optics\.psf"):
        DefocusRenderer(psf=name)
