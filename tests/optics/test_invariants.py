"""Laws of the PSF families and the renderers, over inputs that Hypothesis draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfdfd.optics import Camera, DefocusRenderer, render_focal_stack
from sfdfd.optics.psf import PowerPSF, floored_size_px, get_psf
from sfdfd.optics.render import defocus_map_px, render_blurred
from tests.optics.levels import level_grid, level_weights
from tests.optics.strategies import (
    direct,
    few,
    laws,
    lengths,
    scenes,
    tolerance,
)
from tests.optics.test_laws import RENDERERS, every, linear

# The PSF families


@laws
@given(st.sampled_from(["gaussian", "disc", "power:1", "power:4", "power:20"]), lengths(0.5, 30), st.floats(0, 3))
def test_a_psf_falls_from_its_centre_and_lies_within_its_reach(name, size, share):
    psf = get_psf(name)
    distance = np.linspace(0, 1.2 * psf.reach_px(size) + 2, 400)
    weight = psf.weight(distance**2, np.float64(size))
    assert (weight >= 0).all() and (np.diff(weight) <= 1e-15).all() and weight[0] > 0
    beyond = distance > psf.reach_px(size)
    assert weight[beyond].max() < 1e-4 * weight[0]
    at = (share * size) ** 2
    if name != "disc":  # one shape, stretched
        scaled = psf.weight(4 * at, np.float64(2 * size))
        assert 4 * scaled == pytest.approx(psf.weight(at, np.float64(size)), rel=1e-9)
    assert psf.size_px(2.0 * size, 0.5) == pytest.approx(2 * psf.size_px(size, 0.5))
    sizes = psf.sizes_px(size)
    assert sizes[0] == pytest.approx(psf.floor_px) and sizes[-1] == pytest.approx(size)


@laws
@given(st.floats(1, 20), lengths(0.5, 20), st.floats(0, 0.95))
def test_a_power_psf_is_a_smoothed_disc(power, size, share):
    """It has fallen by e^2 at its size, whatever the power, and is the flatter inside the higher the power."""
    psf, steeper = PowerPSF(power), PowerPSF(power + 1)
    size = np.float64(size)
    assert psf.weight(size**2, size) == pytest.approx(math.exp(-2) / size**2)
    assert steeper.weight((share * size) ** 2, size) >= psf.weight((share * size) ** 2, size)


@laws
@given(lengths(0.01, 1), st.lists(st.floats(0, 5), min_size=2, max_size=5))
def test_a_floored_size_is_monotone_and_never_below_the_floor_nor_the_size(floor, sizes):
    sizes = torch.tensor(sorted(sizes), dtype=torch.float64)
    floored = floored_size_px(sizes, floor)
    assert (
        bool((floored >= floor).all()) and bool((floored >= sizes - 1e-12).all()) and bool((floored.diff() >= 0).all())
    )


# The renderers


@every
@few
@given(scenes(batch=2), st.floats(0, 1))
def test_a_uniform_image_stays_uniform(name, scene, value):
    aif, depth_m, focus, camera = scene
    stack = RENDERERS[name](torch.full_like(aif, value), depth_m, focus, camera)
    torch.testing.assert_close(stack, torch.full_like(stack, value), atol=2e-5, rtol=0)


@linear
@few
@given(scenes(batch=2), st.floats(-3, 3), st.floats(-3, 3))
def test_superposition(name, scene, a, b):
    aif, depth_m, focus, camera = scene
    renderer, other = RENDERERS[name], aif.flip(0)
    together = renderer(a * aif + b * other, depth_m, focus, camera)
    apart = a * renderer(aif, depth_m, focus, camera) + b * renderer(other, depth_m, focus, camera)
    torch.testing.assert_close(together, apart, atol=1e-9, rtol=0)


@every
@few
@given(scenes())
def test_rendering_is_monotone_and_stays_in_range(name, scene):
    aif, depth_m, focus, camera = scene
    renderer, slack = RENDERERS[name], 0.03 if RENDERERS[name].options["method"] == "fast" else 2e-5
    stack = renderer(aif, depth_m, focus, camera)
    assert float(stack.min()) > float(aif.min()) - slack and float(stack.max()) < float(aif.max()) + slack
    brighter = renderer(0.5 + 0.5 * aif, depth_m, focus, camera)
    assert float((brighter - stack).min()) > -slack


@every
@few
@given(scenes(), st.sampled_from(["rows", "columns", "both", "transposed", "a quarter turn"]))
def test_flips_and_transposes_commute_with_rendering(name, scene, kind):
    aif, depth_m, focus, camera = scene
    turn = {
        "rows": lambda x: x.flip(-2), "columns": lambda x: x.flip(-1), "both": lambda x: x.flip(-2, -1),
        "transposed": lambda x: x.mT.contiguous(), "a quarter turn": lambda x: x.rot90(1, (-2, -1)),
    }[kind]  # fmt: skip
    renderer = RENDERERS[name]
    turned = renderer(turn(aif), turn(depth_m), focus, camera)
    torch.testing.assert_close(turned, turn(renderer(aif, depth_m, focus, camera)), atol=tolerance(name), rtol=0)


@every
@few
@given(scenes(), st.integers(-4, 4))
def test_a_scene_and_its_camera_in_other_units_give_the_same_stack(name, scene, octaves):
    """Depth, focus, focal length and pitch times c, the f-number as it is."""
    aif, depth_m, focus, camera = scene
    c = 2.0**octaves
    scaled = Camera(c * camera.focal_length_m, camera.f_number, c * camera.pixel_pitch_m)
    renderer = RENDERERS[name]
    torch.testing.assert_close(
        renderer(aif, c * depth_m, c * focus, scaled), renderer(aif, depth_m, focus, camera),
        atol=tolerance(name), rtol=0,
    )  # fmt: skip


@every
@few
@given(scenes(), lengths(0.6, 1.6))
def test_f_number_pitch_and_aperture_count_as_one_factor(name, scene, c):
    aif, depth_m, focus, camera = scene
    f, n, p = camera.as_dict().values()
    renderer = RENDERERS[name]
    expected = renderer(aif, depth_m, focus, Camera(f, n / c, p))
    for found in (
        renderer(aif, depth_m, focus, Camera(f, n, p / c)),
        renderer(aif, depth_m, focus, camera, blur_factor=c),
        renderer(aif, depth_m, focus, camera, blur_factor=torch.tensor([c], dtype=torch.float64)),
    ):
        torch.testing.assert_close(found, expected, atol=tolerance(name), rtol=0)


@direct
@few
@given(scenes(batch=2), st.permutations(range(3)))
def test_slices_and_samples_are_independent(name, scene, order):
    aif, depth_m, _, camera = scene
    focus = torch.tensor([[1.0, 2.5, math.inf], [0.8, 1.7, 6.0]], dtype=torch.float64)
    renderer = RENDERERS[name]
    together = renderer(aif, depth_m, focus[:, order], camera)
    for b in range(2):
        for place, s in enumerate(order):
            alone = renderer(aif[b : b + 1], depth_m[b : b + 1], focus[b, s : s + 1], camera)
            torch.testing.assert_close(together[b : b + 1, place], alone[:, 0], atol=tolerance(name), rtol=0)


@linear
@few
@given(scenes(), st.permutations(range(3)))
def test_colours_are_independent(name, scene, order):
    aif, depth_m, focus, camera = scene
    renderer = RENDERERS[name]
    stack = renderer(aif, depth_m, focus, camera)
    torch.testing.assert_close(renderer(aif[:, order], depth_m, focus, camera), stack[:, :, order], atol=1e-9, rtol=0)
    one = renderer(aif[:, :1], depth_m, focus, camera)
    torch.testing.assert_close(one, stack[:, :, :1], atol=1e-9, rtol=0)


@every
@few
@given(scenes())
def test_float32_is_float64_rounded(name, scene):
    """Of exact bases: how far a fast one is off is another law."""
    aif, depth_m, focus, camera = scene
    renderer = DefocusRenderer(**{**RENDERERS[name].options, "method": "exact"})
    single = renderer(aif.float(), depth_m.float(), focus.float(), camera)
    double = renderer(aif.float().double(), depth_m.float().double(), focus.float().double(), camera)
    torch.testing.assert_close(single.double(), double, atol=5e-4, rtol=0)


@few
@given(scenes(), st.sampled_from(["gaussian", "disc", "power:3"]), st.sampled_from([None, 5]), st.floats(0.2, 1.4))
def test_at_one_depth_source_and_target_are_the_same(scene, psf, window_px, inverse):
    aif, depth_m, focus, camera = scene
    plane = torch.full_like(depth_m, 1 / inverse)
    stacks = [
        render_focal_stack(aif, plane, focus, camera, psf=psf, weighting=weighting, window_px=window_px, method="exact")
        for weighting in ("source", "target")
    ]
    torch.testing.assert_close(*stacks, atol=1e-8, rtol=0)


@few
@given(scenes(least=2), st.sampled_from([None, 5]))
def test_target_weighting_uses_only_the_depth_of_the_output_pixel(scene, window_px):
    aif, depth_m, focus, camera = scene
    renderer = DefocusRenderer(weighting="target", method="exact", window_px=window_px)
    other = depth_m.flip(-1, -2)
    other[:, 0, 1] = depth_m[:, 0, 1]
    stacks = [renderer(aif, depth, focus, camera) for depth in (depth_m, other)]
    torch.testing.assert_close(stacks[0][..., 0, 1], stacks[1][..., 0, 1], atol=1e-8, rtol=0)


@direct
@few
@given(scenes())
def test_the_sign_of_a_radius_does_not_matter(name, scene):
    aif, depth_m, focus, camera = scene
    radius = defocus_map_px(depth_m, focus, camera)
    expected = RENDERERS[name](aif, depth_m, focus, camera)
    for signed in (radius, -radius, radius.abs()):
        torch.testing.assert_close(render_blurred(aif, signed, **RENDERERS[name].options), expected, atol=1e-9, rtol=0)


@few
@given(scenes(), st.floats(0, 6), st.sampled_from(["source", "target"]))
def test_floors_and_copies_of_published_renderers(scene, limit, weighting):
    """A floor is a radius that is never below it; a copied pixel is the AIF's, and the others are as without copies."""
    aif, depth_m, focus, camera = scene
    options = {"weighting": weighting, "window_px": 7, "sigma_scale": 0.5}
    radius = defocus_map_px(depth_m, focus, camera)
    plain = render_blurred(aif, radius, **options)
    floored = render_blurred(aif, radius, smallest_radius_px=limit, **options)
    torch.testing.assert_close(
        floored, render_blurred(aif, radius.abs().clamp_min(limit), **options), atol=1e-12, rtol=0
    )
    copied = render_blurred(aif, radius, copied_radius_px=limit, **options)
    sharp = (radius.abs() <= limit)[:, :, None] if limit else torch.zeros_like(radius, dtype=torch.bool)[:, :, None]
    assert torch.equal(copied, torch.where(sharp, aif[:, None], plain))


@few
@given(scenes(), st.sampled_from(["source", "occlusion"]))
def test_linear_light_is_what_the_codes_stand_for(scene, weighting):
    """The sRGB curve of IEC 61966-2-1, in NumPy, around the renderer of plain codes."""
    aif, depth_m, focus, camera = scene
    code = aif.numpy()
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    blurred = render_focal_stack(torch.from_numpy(light), depth_m, focus, camera, weighting=weighting).numpy()
    expected = np.where(blurred <= 0.0031308, 12.92 * blurred, 1.055 * np.maximum(blurred, 0) ** (1 / 2.4) - 0.055)
    found = render_focal_stack(aif, depth_m, focus, camera, weighting=weighting, linear_light=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@few
@given(scenes(least=4), st.sampled_from(["gaussian", "disc"]))
def test_hidden_surfaces_without_coverage_change_nothing(scene, psf):
    aif, depth_m, focus, camera = scene
    renderer = DefocusRenderer(weighting="occlusion", psf=psf, sigma_scale=0.5)
    nothing = aif.flip(-1), depth_m + 0.0, torch.zeros_like(depth_m)
    torch.testing.assert_close(
        renderer(aif, depth_m, focus, camera, hidden=nothing), renderer(aif, depth_m, focus, camera), atol=1e-6, rtol=0
    )


@laws
@given(
    st.floats(0, 2), st.sampled_from([0.0, 1e-3, 0.1, 1.0]), st.integers(4, 12), st.floats(0.005, 2), st.booleans(),
    st.lists(st.floats(0, 2), min_size=1, max_size=8), st.integers(0, 2**31),
)  # fmt: skip
def test_levels_span_the_scene_within_their_limit_and_share_each_pixel(low, extent, most, step, plane, focus, seed):
    inverse = low + extent * torch.rand(6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if plane:
        inverse[:4] = low
    levels = level_grid(inverse, torch.tensor(focus, dtype=torch.float64), step, most)
    assert 2 <= len(levels) <= most and bool((levels.diff() > 0).all()) and float(levels[0]) >= 0
    assert float(levels[0]) <= float(inverse.min()) and float(levels[-1]) >= float(inverse.max())
    weights = level_weights(inverse, levels)
    assert bool((weights >= 0).all()) and int((weights > 1e-12).sum(0).max()) <= 2
    torch.testing.assert_close(weights.sum(0), torch.ones_like(inverse))
    torch.testing.assert_close((weights * levels[:, None, None]).sum(0), inverse)


@direct
@few
@given(scenes(least=2), st.integers(0, 2**31))
def test_the_gradient_is_the_slope_in_a_random_direction(name, scene, seed):
    """In the AIF, inverse depth, inverse focus distance and aperture at once, against a central difference."""
    aif, depth_m, focus, camera = scene
    generator = torch.Generator().manual_seed(seed)
    aif, inverse_focus = 0.1 + 0.8 * aif, 1 / focus
    point = [aif, 1 / depth_m, inverse_focus.clamp_min(0.01), torch.tensor([1.2], dtype=torch.float64)]
    along = [torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5 for x in point]
    renderer = RENDERERS[name]
    counts = torch.rand(1, len(focus), *aif.shape[1:], generator=generator, dtype=torch.float64) / aif.numel()

    def measured(values):
        light, inverse, inverse_focus, aperture = values
        return (renderer(light, 1 / inverse, 1 / inverse_focus, camera, blur_factor=aperture) * counts).sum()

    leaves = [x.clone().requires_grad_() for x in point]
    slope = sum((g * v).sum() for g, v in zip(torch.autograd.grad(measured(leaves), leaves), along, strict=True))
    step = 1e-5
    ends = [measured([x + sign * step * v for x, v in zip(point, along, strict=True)]) for sign in (1, -1)]
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=2e-3, abs=2e-5)


@pytest.mark.parametrize("weighting", ["source", "target", "occlusion"])
def test_impossible_focus_distances_and_blur_factors_are_rejected(weighting):
    aif, depth_m, camera = torch.rand(1, 3, 6, 7), torch.full((1, 6, 7), 2.0), Camera(0.05, 8.0, 1.2e-5)
    for focus in (0.01, 0.05, math.nan):
        with pytest.raises(ValueError, match="lies inside the focal length"):
            render_focal_stack(aif, depth_m, torch.tensor([focus]), camera, weighting=weighting)
    for aperture in (0.0, -1.0, math.nan, torch.tensor([0.0])):
        with pytest.raises(ValueError, match="blur_factor: expected positive"):
            render_focal_stack(aif, depth_m, torch.tensor([2.0]), camera, weighting=weighting, blur_factor=aperture)
