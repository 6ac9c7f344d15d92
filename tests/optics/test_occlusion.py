"""The occlusion-aware renderer against brute-force integration over the aperture."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sfdfd.errors import InputError
from sfdfd.optics import Camera, DefocusRenderer, occlusion, render_focal_stack
from sfdfd.optics.levels import LevelGrid
from sfdfd.optics.occlusion import accumulate_levels
from sfdfd.optics.psf import GaussianPSF
from tests.conftest import CAMERA

FOCUS = torch.tensor([1.0, 4.0], dtype=torch.float64)
OCCLUSION = {"weighting": "occlusion", "sigma_scale": 0.5}


def through_the_aperture(near, far, mask, radius_near, radius_far, extent, points=1200):
    """What a disc aperture sees of a near card (where mask) before a far wall, point by point of the aperture, in NumPy.

    ``near``, ``far`` and ``mask`` are functions of continuous pixel coordinates; radii are signed blur radii in pixels.
    """
    index = np.arange(points) + 0.5
    rho, angle = np.sqrt(index / points), np.pi * (1 + 5**0.5) * index  # a sunflower: evenly over the disc
    y, x = np.mgrid[: extent[0], : extent[1]].astype(float)
    total = np.zeros((3, *extent))
    for dy, dx in zip(rho * np.sin(angle), rho * np.cos(angle), strict=True):
        at_near = y + radius_near * dy, x + radius_near * dx
        seen = far(y + radius_far * dy, x + radius_far * dx)
        total += np.where(mask(*at_near), near(*at_near), seen)
    return total / points


def smooth_texture(seed):
    rng = np.random.default_rng(seed)
    waves = rng.uniform(-0.5, 0.5, (8, 2)), rng.uniform(0, 2 * np.pi, (8, 3))

    def texture(y, x):
        phase = waves[0][:, 0, None, None] * y + waves[0][:, 1, None, None] * x
        return np.stack([0.5 + 0.06 * np.cos(phase + shift[:, None, None]).sum(0) for shift in waves[1].T])

    return texture


@pytest.mark.parametrize("slice_index", [0, 1])
def test_two_planes_with_the_hidden_one_given_are_the_aperture_integral(slice_index):
    extent, camera = (48, 56), Camera(0.05, 4.0, 2.4e-5)  # blur of 4 to 6 pixels
    near, far = smooth_texture(1), smooth_texture(2)

    def mask(y, x):
        return (np.abs(x - 27.5) < 11) & (np.abs(y - 23.5) < 30)

    y, x = np.mgrid[: extent[0], : extent[1]].astype(float)
    front = mask(y, x)
    aif = np.where(front, near(y, x), far(y, x))
    depth = torch.from_numpy(np.where(front, 1.0, 4.0))[None]
    behind = torch.from_numpy(far(y, x))[None]
    hidden = (behind, torch.full_like(depth, 4.0), torch.from_numpy(front.astype(float))[None])
    stack = render_focal_stack(
        torch.from_numpy(aif)[None], depth, FOCUS, camera, psf="disc", hidden=hidden, **OCCLUSION
    )  # fmt: skip
    focus = float(FOCUS[slice_index])
    radii = [camera.blur_radius_px(distance, focus, signed=True) for distance in (1.0, 4.0)]
    expected = through_the_aperture(near, far, mask, *radii, extent)
    inner = np.s_[:, 8:-8, 8:-8]
    error = np.abs(stack[0, slice_index].numpy() - expected)[inner]
    contrast = expected[inner].max() - expected[inner].min()
    assert error.mean() < 0.005 * contrast  # asked: 0.01
    unknown = render_focal_stack(torch.from_numpy(aif)[None], depth, FOCUS, camera, psf="disc", **OCCLUSION)
    wrong = np.abs(unknown[0, slice_index].numpy() - expected)[inner]
    assert slice_index == 0 or wrong.mean() > error.mean()  # where the card is blurred, what it hides shows


def test_a_foreground_does_not_change_uncovered_pixels():
    depth = torch.full((1, 40, 60), 4.0, dtype=torch.float64)
    depth[..., :20] = 1.0
    aif = torch.rand(1, 3, 40, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    alone = render_focal_stack(aif, torch.full_like(depth, 4.0), FOCUS, CAMERA, **OCCLUSION)
    for colour in (0.0, 1.0):
        aif[..., :20] = colour
        stack = render_focal_stack(aif, depth, FOCUS, CAMERA, **OCCLUSION)
        reach = 20 + int(4.5 * 0.5 * CAMERA.blur_radius_px(1.0, 4.0)) + 1
        far_reach = 20 + int(4.5 * 0.5 * CAMERA.blur_radius_px(4.0, 1.0)) + 1
        torch.testing.assert_close(stack[0, 1, :, :, reach:], aif[0, :, :, reach:], atol=2e-5, rtol=0)
        torch.testing.assert_close(stack[0, 0, :, :, far_reach:], alone[0, 0, :, :, far_reach:], atol=2e-5, rtol=0)
        # sharp in front of a blurred wall: neither takes from the other
        torch.testing.assert_close(stack[0, 0, :, :, :20], aif[0, :, :, :20], atol=1e-3, rtol=0)


def test_a_blurred_foreground_bleeds_over_a_sharp_background_and_not_the_other_way_round():
    depth = torch.full((1, 40, 40), 4.0, dtype=torch.float64)
    depth[:, :, :20] = 1.0
    aif = torch.zeros(1, 3, 40, 40, dtype=torch.float64)
    aif[..., :20] = 1.0  # a white foreground before a black background
    near_sharp, far_sharp = render_focal_stack(aif, depth, FOCUS, CAMERA, **OCCLUSION)[0]
    torch.testing.assert_close(near_sharp, aif[0], atol=1e-3, rtol=0)  # nothing bleeds either way
    assert 0.1 < float(far_sharp[0, 20, 22]) < 0.9  # the foreground covers the background's pixels in part
    source = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting="source")[0, 0]
    assert float((source[:, 20, 20] - aif[0, :, 20, 20]).abs().max()) < 0.05
    target = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting="target")[0, 0]
    assert float(target[0, 20, 21]) > 0.1  # the slides' model lets the sharp foreground leak


@pytest.mark.parametrize("depth_m", [0.8, 1.0, 3.0, float("inf")])
def test_at_one_depth_occlusion_equals_the_plain_renderer(depth_m):
    aif, depth = torch.rand(2, 3, 30, 34, dtype=torch.float64), torch.full((2, 30, 34), depth_m, dtype=torch.float64)
    plain = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5)
    layered = render_focal_stack(aif, depth, FOCUS, CAMERA, **OCCLUSION)
    torch.testing.assert_close(layered, plain, atol=2e-5, rtol=0)


@pytest.mark.parametrize("psf", ["gaussian", "disc", "power:4"])
def test_a_slanted_plane_equals_the_plain_renderer_away_from_the_border(psf):
    generator = torch.Generator().manual_seed(5)
    aif = torch.rand(1, 3, 64, 96, dtype=torch.float64, generator=generator)
    aif = torch.nn.functional.avg_pool2d(aif, 3, 1, 1)
    depth = 1 / torch.linspace(0.9, 0.2, 96, dtype=torch.float64).expand(1, 64, 96)
    plain = render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, psf=psf)
    layered = render_focal_stack(aif, depth, FOCUS, CAMERA, psf=psf, **OCCLUSION)
    error = (layered - plain)[..., 14:-14, 14:-14].abs()
    assert float(error.mean()) < 2e-3 and float(error.max()) < 2e-2


def test_a_slanted_plane_has_no_seams():
    aif = torch.full((1, 3, 32, 48), 0.6, dtype=torch.float64)
    depth = torch.linspace(1, 6, 48, dtype=torch.float64).expand(1, 32, 48)
    stack = render_focal_stack(aif, depth, FOCUS, CAMERA, **OCCLUSION)
    torch.testing.assert_close(stack, torch.full_like(stack, 0.6), atol=1e-6, rtol=0)


def test_levels_are_spaced_by_level_px(monkeypatch):
    """Twice as far is half as many, and nearly the same picture."""
    counts = []

    def counted(surfaces, inverse, grid, *rest):
        counts.append(grid.counts[0])
        return accumulate_levels(surfaces, inverse, grid, *rest)

    monkeypatch.setattr(occlusion, "accumulate_levels", counted)
    aif = torch.from_numpy(smooth_texture(3)(*np.mgrid[:40, :64].astype(float)))[None]
    depth_m = 1 / torch.linspace(0.2, 1.2, 64, dtype=torch.float64).expand(1, 40, 64)
    fine, wide = (render_focal_stack(aif, depth_m, FOCUS, CAMERA, level_px=px, **OCCLUSION) for px in (0.35, 0.7))
    assert counts[0] == pytest.approx(2 * counts[1], abs=4)
    assert 0 < float((fine - wide).abs().mean()) < 2e-3


def test_linear_light_blurs_light_and_not_codes():
    """A fine black and white pattern blurs to half the light, which is brighter than half the code."""
    pattern = (torch.arange(64) % 2).double().expand(1, 3, 64, 64).contiguous()
    depth = torch.full((1, 64, 64), 6.0, dtype=torch.float64)
    for weighting in ("source", "occlusion"):
        codes, light = (
            render_focal_stack(pattern, depth, FOCUS[:1], CAMERA, linear_light=flag, weighting=weighting)[
                0, 0, :, 32, 32
            ]
            for flag in (False, True)
        )
        torch.testing.assert_close(codes, torch.full((3,), 0.5, dtype=torch.float64), atol=1e-3, rtol=0)
        half_light = 1.055 * 0.5 ** (1 / 2.4) - 0.055
        torch.testing.assert_close(light, torch.full((3,), half_light, dtype=torch.float64), atol=1e-3, rtol=0)
        smooth = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
        stack = render_focal_stack(smooth, depth[:, :16, :16], FOCUS, CAMERA, linear_light=True, weighting=weighting)
        stack.sum().backward()
        assert bool(torch.isfinite(smooth.grad).all())


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("linear_light", [False, True])
def test_gradients_are_right_in_image_depth_focus_and_aperture(psf, linear_light):
    generator = torch.Generator().manual_seed(7)
    renderer = DefocusRenderer(psf=psf, linear_light=linear_light, layers=6, **OCCLUSION)
    aif = 0.2 + 0.6 * torch.rand(1, 3, 6, 7, dtype=torch.float64, generator=generator)
    inverse = 0.25 + 0.6 * torch.rand(1, 6, 7, dtype=torch.float64, generator=generator)
    inputs = aif, 1 / inverse, torch.tensor([[1.3, 3.0]]).double(), torch.tensor([1.1]).double()

    def render(aif, depth_m, focus, aperture):
        return renderer(aif, depth_m, focus, CAMERA, blur_factor=aperture)

    assert torch.autograd.gradcheck(render, [value.requires_grad_() for value in inputs], atol=2e-5, fast_mode=True)


def test_a_scene_of_one_depth_has_a_gradient():
    """Moving a whole plane is felt, though every pixel lies on a level."""
    aif = torch.rand(1, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    truth = render_focal_stack(aif, torch.full((1, 24, 24), 2.0).double(), FOCUS, CAMERA, **OCCLUSION)
    for inverse, sign in ((0.47, -1), (0.53, 1)):
        position = torch.full((1, 24, 24), inverse, dtype=torch.float64, requires_grad=True)
        stack = render_focal_stack(aif, 1 / position, FOCUS, CAMERA, **OCCLUSION)
        (stack - truth).square().sum().backward()
        assert sign * float(position.grad.sum()) > 0


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("card", [False, True])
def test_the_slope_of_a_plane_is_that_of_its_depth(psf, card):
    """Though every pixel lies on a level: the levels on both sides count, of a wall and of a card before it."""
    generator = torch.Generator().manual_seed(12)
    aif = torch.rand(1, 3, 26, 30, dtype=torch.float64, generator=generator)
    aif = torch.nn.functional.avg_pool2d(aif, 3, 1, 1)
    front = torch.zeros(1, 26, 30, dtype=torch.bool)
    front[:, 5:20, 4:18] = card
    focus = torch.tensor([0.9, 3.5], dtype=torch.float64)

    def render_prediction(wall, near):
        return render_focal_stack(aif, 1 / torch.where(front, near, wall), focus, CAMERA, psf=psf, **OCCLUSION)

    truth = render_prediction(*torch.tensor([0.65, 0.7], dtype=torch.float64))

    def measured(wall, near):
        return (render_prediction(wall, near) - truth).square().sum()

    places = [torch.tensor(u, dtype=torch.float64, requires_grad=True) for u in (0.52, 0.83)]
    slopes = torch.autograd.grad(measured(*places), places)
    for index in range(1 + card):
        moved = [[u.detach() + sign * 5e-3 * (index == i) for i, u in enumerate(places)] for sign in (1, -1)]
        numeric = float(measured(*moved[0]) - measured(*moved[1])) / 1e-2
        assert float(slopes[index]) == pytest.approx(numeric, rel=0.25)  # levels are a step apart


def test_an_empty_level_gets_a_gradient_in_front_of_a_closed_surface_only():
    """A surface lies exactly on a level: its depth feels the level before it, and not the one behind it."""
    surface = torch.rand(1, 1, 4, 36, 38, dtype=torch.float64, generator=torch.Generator().manual_seed(13))
    surface[:, :, -1] = 1
    inverse = torch.full((1, 1, 36, 38), 0.5, dtype=torch.float64, requires_grad=True)
    levels = torch.tensor([[0.4, 0.5, 0.6]], dtype=torch.float64)
    sizes = torch.tensor([[[1.5, 1.0, 1.5]]], dtype=torch.float64)
    rest = GaussianPSF(), None
    stack = accumulate_levels(surface, inverse, LevelGrid(levels, levels.numpy(), [3]), sizes, sizes.numpy(), *rest)
    (grad,) = torch.autograd.grad(stack, inverse, torch.ones_like(stack))
    light = surface[0, 0, :3].sum(0).numpy()
    shown = gaussian_filter(gaussian_filter(light, 1.0, truncate=4.5), 1.5, truncate=4.5)
    inner = np.s_[14:-14, 14:-14]  # light is missing along the border, and behind is seen there
    np.testing.assert_allclose(grad[0, 0].numpy()[inner], ((light - shown) / 0.2)[inner], atol=1e-3)


@pytest.mark.parametrize("shift", [-3, 3])
def test_the_gradient_moves_a_misplaced_silhouette_the_right_way(shift):
    generator = torch.Generator().manual_seed(9)
    near, far = (torch.rand(1, 3, 48, 64, dtype=torch.float64, generator=generator) for _ in range(2))
    near, far = 0.5 + 0.5 * near, 0.5 * far
    columns = torch.arange(64, dtype=torch.float64).expand(1, 48, 64)

    def scene(edge):
        front = torch.sigmoid(2 * (edge - columns))
        return front[:, None] * near + (1 - front[:, None]) * far, front * 1.0 + (1 - front) * 0.25

    aif, inverse = scene(torch.tensor(32.0, dtype=torch.float64))
    truth = render_focal_stack(aif, 1 / inverse, FOCUS, CAMERA, **OCCLUSION)
    edge = torch.tensor(32.0 + shift, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([edge], lr=0.2)
    for _ in range(40):
        optimizer.zero_grad()
        _, inverse = scene(edge)  # the silhouette in depth alone: the image is right
        loss = (render_focal_stack(aif, 1 / inverse, FOCUS, CAMERA, **OCCLUSION) - truth).square().mean()
        loss.backward()
        optimizer.step()
    assert abs(float(edge.detach()) - 32.0) < 0.7


def test_a_hidden_pixel_changes_only_its_neighbourhood():
    """The hidden surface lies beyond all that is seen, and is there everywhere but in a corner."""
    aif = torch.rand(1, 3, 30, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(14))
    inverse = torch.full((1, 30, 60), 0.4, dtype=torch.float64)
    inverse[..., 25:40] = 0.9
    there = torch.ones_like(inverse)
    cornerless = there.clone()
    cornerless[:, :2, :2] = 0
    stacks = [
        render_focal_stack(aif, 1 / inverse, FOCUS, CAMERA, hidden=(aif.flip(-1), 10 * there, one), **OCCLUSION)
        for one in (there, cornerless)
    ]
    without = render_focal_stack(aif, 1 / inverse, FOCUS, CAMERA, **OCCLUSION)
    torch.testing.assert_close(stacks[0][..., 20:], stacks[1][..., 20:], atol=1e-4, rtol=0)
    assert float((stacks[0] - without)[0, 1, :, :, 20:45].abs().max()) > 0.05  # it shows beside the blurred card


def test_float32_is_float64_rounded():
    generator = torch.Generator().manual_seed(11)
    aif, depth = torch.rand(1, 3, 40, 50, generator=generator), 0.7 + 5 * torch.rand(1, 40, 50, generator=generator)
    for psf in ("gaussian", "disc"):
        single = render_focal_stack(aif, depth, FOCUS, CAMERA, psf=psf, **OCCLUSION)
        double = render_focal_stack(aif.double(), depth.double(), FOCUS, CAMERA, psf=psf, **OCCLUSION)
        torch.testing.assert_close(single.double(), double, atol=2e-4, rtol=0)


def test_wrong_options_are_refused():
    small = torch.rand(1, 3, 8, 8), torch.ones(1, 8, 8)
    with pytest.raises(InputError, match="level_px"):
        render_focal_stack(*small, FOCUS, CAMERA, weighting="occlusion", level_px=0)
    with pytest.raises(InputError, match="layers"):
        render_focal_stack(*small, FOCUS, CAMERA, weighting="occlusion", layers=1)
    with pytest.raises(InputError, match="linear_light"):
        render_focal_stack(small[0][:, :1], small[1], FOCUS, CAMERA, linear_light=True)
    with pytest.raises(InputError, match="hidden"):
        render_focal_stack(*small, FOCUS, CAMERA, hidden=(small[0], small[1], small[1]))
    with pytest.raises(InputError, match="depth"):
        render_focal_stack(small[0], -small[1], FOCUS, CAMERA, weighting="occlusion")
