"""Laws of the thin lens, the PSF families and the renderers, over inputs that Hypothesis draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfdfd.optics import Camera, DefocusRenderer, render_focal_stack
from sfdfd.optics.depth import depth_from_normalized, normalized_inverse_depth
from sfdfd.optics.occlusion import level_grid, share_levels
from sfdfd.optics.psf import PowerPSF, floored_size_px, get_psf
from sfdfd.optics.render import defocus_map_px, render_blurred
from tests.optics.test_laws import RENDERERS, every, linear

laws = settings(max_examples=40, derandomize=True, database=None, deadline=None)
few = settings(laws, max_examples=8)
DIRECT = [name for name in RENDERERS if RENDERERS[name].options["weighting"] != "occlusion"]
"""Those in which a pixel's blur does not depend on levels that the whole scene shares."""
direct = pytest.mark.parametrize("name", DIRECT)


def lengths(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


cameras = st.builds(Camera, lengths(0.002, 0.3), lengths(0.5, 32), lengths(1e-6, 1e-4))
distances = lengths(0.5, 1e3)
apertures = st.sampled_from([Camera(0.05, 8.0, 1.2e-5), Camera(0.05, 4.0, 1.2e-5), Camera(0.035, 5.6, 6e-6)])
focuses = st.lists(st.sampled_from([0.8, 1.0, 1.7, 2.5, 6.0, math.inf]), min_size=1, max_size=3, unique=True)


@st.composite
def scenes(draw, batch=1, least=1):
    """(AIF, depth in metres, focus distances, camera), noise in float64: no image is easier than another."""
    height, width = draw(st.integers(least, 17)), draw(st.integers(least, 17))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    aif = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)
    inverse = 0.1 + 1.3 * torch.rand(batch, height, width, generator=generator, dtype=torch.float64)
    return aif, 1 / inverse, torch.tensor(draw(focuses), dtype=torch.float64), draw(apertures)


def tolerance(name, exact=1e-8):
    """What two ways to the same stack may differ by: a fast basis is chosen for the widest blur of the call."""
    options = RENDERERS[name].options
    if options["weighting"] == "occlusion":
        return 1e-4  # coverage below 1e-5 is nothing
    return 1e-2 if options["method"] == "fast" else exact


# The thin lens


@laws
@given(cameras, distances, distances)
def test_the_blur_is_that_of_the_image_distances(camera, depth, focus):
    """Newton's lens: an object at d is sharp at v_d = f d / (d - f); on a sensor at v_F its cone is A |v_F - v_d| / v_d."""
    f = camera.focal_length_m
    sharp, sensor = f * depth / (depth - f), f * focus / (focus - f)
    diameter_m = f / camera.f_number * abs(sensor - sharp) / sharp
    assert camera.blur_radius_px(depth, focus) == pytest.approx(
        diameter_m / 2 / camera.pixel_pitch_m, rel=1e-9, abs=1e-9 * camera.blur_scale_px_m
    )


@laws
@given(cameras, distances, distances)
def test_the_radius_is_zero_in_focus_and_its_sign_that_of_the_side(camera, depth, focus):
    for one in (focus, np.float64(focus), torch.tensor(focus, dtype=torch.float64)):
        assert camera.blur_radius_px(one, one) == 0 == camera.blur_radius_px(one, one, signed=True)
    signed = camera.blur_radius_px(depth, focus, signed=True)
    assert np.sign(signed) == np.sign(1 / focus - 1 / depth) and abs(signed) == camera.blur_radius_px(depth, focus)
    assert camera.blur_radius_px(math.inf, math.inf) == 0 < camera.blur_radius_px(math.inf, focus, signed=True)


@laws
@given(cameras, distances, distances, distances, st.floats(0, 1))
def test_the_signed_radius_is_linear_in_inverse_depth(camera, near, far, focus, share):
    between = 1 / (share / near + (1 - share) / far)
    ends = [camera.blur_radius_px(one, focus, signed=True) for one in (near, far)]
    expected = share * ends[0] + (1 - share) * ends[1]
    assert camera.blur_radius_px(between, focus, signed=True) == pytest.approx(
        expected, rel=1e-9, abs=1e-9 * camera.blur_scale_px_m
    )


@laws
@given(cameras, distances, distances)
def test_depth_and_focus_change_places_but_for_the_magnification(camera, depth, focus):
    there = camera.blur_radius_px(depth, focus, signed=True) * (1 - camera.focal_length_m / focus)
    back = camera.blur_radius_px(focus, depth, signed=True) * (1 - camera.focal_length_m / depth)
    assert there == pytest.approx(-back, rel=1e-9, abs=1e-12)


@laws
@given(cameras, distances, distances, lengths(0.1, 10))
def test_what_scales_the_radius_and_what_leaves_it(camera, depth, focus, c):
    f, n, p = camera.as_dict().values()
    assert Camera(**camera.as_dict()) == camera
    radius, within = camera.blur_radius_px(depth, focus), {"rel": 1e-9, "abs": 1e-9}
    assert Camera(c * f, n, c * p).blur_radius_px(c * depth, c * focus) == pytest.approx(radius, **within)  # units
    assert Camera(f, c * n, p / c).blur_radius_px(depth, focus) == pytest.approx(radius, **within)
    assert Camera(f, c * n, p).blur_radius_px(depth, focus) == pytest.approx(radius / c, **within)
    assert camera.resized(c).blur_radius_px(depth, focus) == pytest.approx(c * radius, **within)
    assert camera.resized((c, 1.005 * c)).pixel_pitch_m == pytest.approx(p / c / math.sqrt(1.005))
    assert camera.resized(c).resized(1 / c).pixel_pitch_m == pytest.approx(p)


@laws
@given(cameras, st.lists(distances, min_size=1, max_size=4), st.lists(distances, min_size=1, max_size=3))
def test_numbers_arrays_and_tensors_are_one(camera, depths, focus):
    expected = [[camera.blur_radius_px(one, other, signed=True) for one in depths] for other in focus]
    array = camera.blur_radius_px(np.array(depths)[None], np.array(focus)[:, None], signed=True)
    np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-12)
    both = (torch.tensor(values, dtype=torch.float64) for values in (depths, focus))
    tensor = defocus_map_px(next(both)[None, None], next(both), camera)[0, :, 0]
    np.testing.assert_allclose(tensor, expected, rtol=1e-12, atol=1e-12)


@laws
@given(distances, distances, st.floats(0, 1), st.floats(0, 1))
def test_positions_and_depths_are_inverse_and_monotone(one, other, share, second):
    near, far = min(one, other), 1.01 * max(one, other)
    depth = depth_from_normalized(share, near, far)
    assert normalized_inverse_depth(depth, near, far) == pytest.approx(share, abs=1e-9)
    assert near * (1 - 1e-12) <= depth <= far * (1 + 1e-12)
    assert (share < second) <= (depth >= depth_from_normalized(second, near, far))
    assert normalized_inverse_depth(math.inf, near, far) < 0 and normalized_inverse_depth(near / 2, near, far) > 1
    shares = torch.tensor([[[share, second]], [[second, share]]], dtype=torch.float64)
    ends = torch.tensor([[near, 2 * near], [far, 3 * far]], dtype=torch.float64)
    together = depth_from_normalized(shares, *ends)
    for index in range(2):
        alone = depth_from_normalized(shares[index], float(ends[0, index]), float(ends[1, index]))
        torch.testing.assert_close(together[index], alone)
        torch.testing.assert_close(normalized_inverse_depth(together, *ends)[index], shares[index], atol=1e-9, rtol=0)


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
def test_more_light_is_no_less_light_and_nothing_leaves_the_range(name, scene):
    aif, depth_m, focus, camera = scene
    renderer, slack = RENDERERS[name], 0.03 if RENDERERS[name].options["method"] == "fast" else 2e-5
    stack = renderer(aif, depth_m, focus, camera)
    assert float(stack.min()) > float(aif.min()) - slack and float(stack.max()) < float(aif.max()) + slack
    brighter = renderer(0.5 + 0.5 * aif, depth_m, focus, camera)
    assert float((brighter - stack).min()) > -slack


@every
@few
@given(scenes(), st.sampled_from(["rows", "columns", "both", "transposed", "a quarter turn"]))
def test_what_turns_the_scene_turns_the_stack(name, scene, kind):
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
def test_slices_and_samples_do_not_know_of_each_other(name, scene, order):
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
def test_colours_do_not_know_of_each_other(name, scene, order):
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
def test_a_target_pixel_asks_for_no_depth_but_its_own(scene, window_px):
    aif, depth_m, focus, camera = scene
    renderer = DefocusRenderer(weighting="target", method="exact", window_px=window_px)
    other = depth_m.flip(-1, -2)
    other[:, 0, 1] = depth_m[:, 0, 1]
    stacks = [renderer(aif, depth, focus, camera) for depth in (depth_m, other)]
    torch.testing.assert_close(stacks[0][..., 0, 1], stacks[1][..., 0, 1], atol=1e-8, rtol=0)


@direct
@few
@given(scenes())
def test_only_the_size_of_a_radius_counts(name, scene):
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
def test_what_is_hidden_and_is_not_there_changes_nothing(scene, psf):
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
def test_levels_span_the_scene_are_not_too_many_and_share_each_pixel(low, extent, most, step, plane, focus, seed):
    inverse = low + extent * torch.rand(6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if plane:
        inverse[:4] = low
    levels = level_grid(inverse, torch.tensor(focus, dtype=torch.float64), step, most)
    assert 2 <= len(levels) <= most and bool((levels.diff() > 0).all()) and float(levels[0]) >= 0
    assert float(levels[0]) <= float(inverse.min()) and float(levels[-1]) >= float(inverse.max())
    weights = share_levels(inverse, levels)
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
def test_a_focus_distance_or_an_aperture_that_cannot_be_is_refused_in_words(weighting):
    aif, depth_m, camera = torch.rand(1, 3, 6, 7), torch.full((1, 6, 7), 2.0), Camera(0.05, 8.0, 1.2e-5)
    for focus in (0.01, 0.05, math.nan):
        with pytest.raises(ValueError, match="lies inside the focal length"):
            render_focal_stack(aif, depth_m, torch.tensor([focus]), camera, weighting=weighting)
    for aperture in (0.0, -1.0, math.nan, torch.tensor([0.0])):
        with pytest.raises(ValueError, match="blur_factor: expected positive"):
            render_focal_stack(aif, depth_m, torch.tensor([2.0]), camera, weighting=weighting, blur_factor=aperture)
