"""The path tracer judges others, so it is held against closed forms: blur radius, depth, light."""

import sys

import numpy as np
import pytest

from sfdfd.data.raytraced.scenes import KINDS, random_scene
from sfdfd.data.raytraced.surfaces import Patch, SceneDescription, cast_rays
from sfdfd.data.raytraced.textures import FLAT, OBJECT, Texture
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera

DSLR, PHONE = Camera(0.05, 1.2, 0.0009), Camera(0.00681, 1.85, 2.45e-4)  # at 40x30 pixels
HEIGHT, WIDTH = 30, 40


def quad(depth_m, slant=0.0, radiance=0.5, half_m=10.0, centre=(0.0, 0.0)):
    """A square facing the lens, its depth growing by ``slant`` for each metre to the right."""
    x, y = np.meshgrid(half_m * np.array([-1.0, 1.0]), half_m * np.array([-1.0, 1.0]))
    points = np.stack([x + centre[0], y + centre[1], depth_m + slant * x], -1).astype(np.float32)
    light = np.broadcast_to(np.asarray(radiance, np.float32), (4, 4, 3)) if np.ndim(radiance) < 3 else radiance
    return Patch(points, np.ascontiguousarray(light, np.float32))


def linear(codes):
    code = codes / 255.0
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


@pytest.fixture
def trace():
    pytest.importorskip("mitsuba")
    from sfdfd.data.raytraced.tracer import trace_stack

    return lambda patches, *rest, **more: trace_stack(SceneDescription("test", tuple(patches)), *rest, **more)


def test_depth_of_a_slanted_plane_is_the_closed_form():
    depth_m, _, _ = cast_rays((quad(2.0, 0.5, half_m=6.0),), DSLR, HEIGHT, WIDTH)
    slope = (np.arange(WIDTH) + 0.5 - WIDTH / 2) * DSLR.pixel_pitch_m / DSLR.focal_length_m
    np.testing.assert_allclose(depth_m, np.broadcast_to(2 / (1 - 0.5 * slope), (HEIGHT, WIDTH)), rtol=1e-6)


def test_nearer_surfaces_hide_farther_ones_and_backs_are_not_seen():
    near = quad(1.0, half_m=0.1)
    back = Patch(near.vertices_m[:, ::-1], near.radiance)
    both, which, _ = cast_rays((quad(3.0), near), DSLR, HEIGHT, WIDTH)
    assert both[HEIGHT // 2, WIDTH // 2] == pytest.approx(1.0) and which[0, 0] == 0
    assert np.allclose(cast_rays((quad(3.0), back), DSLR, HEIGHT, WIDTH)[0], 3.0)


@pytest.mark.parametrize(("camera", "near_m", "far_m"), [(DSLR, 0.6, 8.0), (PHONE, 0.08, 1.5)])
def test_scenes_fill_their_range_and_repeat(camera, near_m, far_m):
    kinds = set()
    for index in range(3):
        scene = random_scene(0, index, camera, HEIGHT, WIDTH, near_m, far_m)
        depth_m, _, _ = cast_rays(scene.patches, camera, HEIGHT, WIDTH)
        assert near_m <= depth_m.min() < 3 * near_m
        assert 0.3 * far_m < depth_m.max() <= far_m
        assert all(patch.radiance.min() >= 0 and patch.radiance.max() <= 1.05 for patch in scene.patches)
        kinds.add(scene.kind)
    assert len(kinds) >= 2 and kinds <= set(KINDS)
    again = random_scene(0, 2, camera, HEIGHT, WIDTH, near_m, far_m)
    for one, other in zip(scene.patches, again.patches, strict=True):
        np.testing.assert_array_equal(one.vertices_m, other.vertices_m)
        np.testing.assert_array_equal(one.radiance, other.radiance)


@pytest.mark.parametrize("kind", sorted({*OBJECT, *FLAT}))
def test_textures_are_light_and_continue_across_patches(kind):
    texture = Texture.random(np.random.default_rng(5), (kind,), 0.01)
    whole = texture.bake(np.arange(64) * 0.01, np.arange(48) * 0.01, 0.01)
    assert whole.shape == (48, 64, 3) and np.isfinite(whole).all() and whole.min() >= 0.01 and whole.max() <= 0.95
    if kind in ("plain", "marble", "speckle", "wood", "bricks", "tiles", "fabric"):
        part = texture.bake(np.arange(32, 64) * 0.01, np.arange(48) * 0.01, 0.01)
        np.testing.assert_allclose(part, whole[:, 32:], atol=1e-4)


def test_an_empty_range_is_refused():
    with pytest.raises(InputError, match="near_m"):
        random_scene(0, 0, DSLR, HEIGHT, WIDTH, 2.0, 1.0)


@pytest.mark.parametrize(("depth_m", "focus_m"), [(1.0, 3.0), (4.0, 0.9), (1.2, np.inf)])
def test_blur_radius_of_a_point_is_the_cameras(trace, depth_m, focus_m):
    """A small bright square becomes a disc of radius r; variances along an axis add: disc r^2/4, square s^2/12."""
    camera, size, side_px = Camera(0.05, 1.2, 0.00016), 32, 5
    pixel_m = camera.pixel_pitch_m / camera.focal_length_m * depth_m
    point = quad(depth_m, half_m=0.5 * side_px * pixel_m, radiance=1.0)
    images, _, _ = trace(
        [quad(50.0, radiance=0.0, half_m=100.0), point], camera, [focus_m], size, size, 512, "scalar_rgb"
    )
    light, x = linear(images[0, ..., 1]), np.arange(size) + 0.5 - size / 2
    variance = (light * (x[None] ** 2 + x[:, None] ** 2)).sum() / light.sum() / 2
    radius_px = 2 * np.sqrt(variance - side_px**2 / 12 - 1 / 12)
    assert radius_px == pytest.approx(camera.blur_radius_px(depth_m, focus_m), rel=0.02)


def test_mitsuba_hits_what_our_rays_hit(trace):
    mi = pytest.importorskip("mitsuba")
    from sfdfd.data.raytraced.tracer import _load, _variant

    scene = random_scene(1, 2, DSLR, HEIGHT, WIDTH, 0.6, 8.0)
    depth_m, _, _ = cast_rays(scene.patches, DSLR, HEIGHT, WIDTH)
    slope = DSLR.pixel_pitch_m / DSLR.focal_length_m
    with _variant(mi, "scalar_rgb"):
        world, different = _load(mi, scene.patches), 0
        for row, column in np.random.default_rng(0).integers(0, (HEIGHT, WIDTH), (300, 2)):
            way = np.array([(column + 0.5 - WIDTH / 2) * slope, (row + 0.5 - HEIGHT / 2) * slope, 1.0])
            hit = world.ray_intersect(mi.Ray3f([0, 0, 0], way / np.linalg.norm(way)))
            different += abs(hit.p[2] - depth_m[row, column]) > 1e-4 * depth_m[row, column]
    assert different <= 1  # a ray that grazes an edge


def test_light_is_linear_and_texture_lies_the_right_way_round(trace):
    ramp = np.linspace(0.1, 0.9, 16)[:, None, None] * np.linspace(0.5, 1.0, 16)[None, :, None] * np.ones(3)
    half_m = WIDTH / 2 * DSLR.pixel_pitch_m / DSLR.focal_length_m * 2.0
    images, aif, _ = trace(
        [quad(2.0, radiance=ramp, half_m=half_m)], DSLR, [2.0, 50.0], HEIGHT, WIDTH, 64, "scalar_rgb"
    )
    light = linear(aif)[:, :, 0]
    x = (np.arange(WIDTH) + 0.5) / WIDTH * 16 - 0.5
    y = ((np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / WIDTH + 0.5) * 16 - 0.5
    expected = (0.1 + 0.8 * y / 15)[:, None] * (0.5 + 0.5 * x / 15)[None]
    np.testing.assert_allclose(light[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.012)
    np.testing.assert_allclose(linear(images[0])[..., 0], light, atol=0.012)  # in focus
    inner = np.s_[13:17, 18:22]
    assert abs(linear(images[1])[inner].mean() - linear(aif)[inner].mean()) < 0.01  # a disc keeps the mean of a ramp


def test_a_stack_repeats_and_is_well_formed(trace):
    scene = random_scene(0, 4, PHONE, HEIGHT, WIDTH, 0.08, 1.5)
    first = trace(scene.patches, PHONE, [0.1, 0.3, np.inf], HEIGHT, WIDTH, 16, variant="scalar_rgb")
    again = trace(scene.patches, PHONE, [0.1, 0.3, np.inf], HEIGHT, WIDTH, 16, variant="scalar_rgb")
    for one, other, shape in zip(
        first, again, [(3, HEIGHT, WIDTH, 3), (HEIGHT, WIDTH, 3), (HEIGHT, WIDTH)], strict=True
    ):
        assert one.shape == shape
        np.testing.assert_array_equal(one, other)
    assert first[0].dtype == first[1].dtype == np.uint8 and first[2].dtype == np.float32
    assert 0.3 < first[1].mean() / 255 < 0.58


def test_bad_arguments_and_a_missing_mitsuba_are_told(trace, monkeypatch):
    with pytest.raises(InputError, match="focus_distances_m"):
        trace([quad(2.0)], DSLR, [0.01], HEIGHT, WIDTH)
    with pytest.raises(InputError, match="variant"):
        trace([quad(2.0)], DSLR, [1.0], HEIGHT, WIDTH, variant="nonsense")
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(InputError, match=r"sfdfd\[raytraced\]"):
        trace([quad(2.0)], DSLR, [1.0], HEIGHT, WIDTH)
