"""The path tracer against closed forms: blur radius, depth, light."""

import sys
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from scipy import special

from sfdfd.datasets.raytraced_generator import RaytracedGenerator
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError
from sfdfd.io.images import to_float
from sfdfd.measures.regions import border, near_depth_edges
from sfdfd.optics import DefocusRenderer
from sfdfd.optics.camera import Camera
from sfdfd.scenes.raytraced.camera_setups import CameraSetup
from sfdfd.scenes.raytraced.patches import Patch, SceneDescription, cast_rays
from sfdfd.scenes.raytraced.random_scenes import random_scene

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
    from sfdfd.scenes.raytraced.tracer import trace_stack

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


@pytest.mark.parametrize(("depth_m", "focus_m"), [(1.0, 3.0), (4.0, 0.9), (1.2, np.inf)])
def test_blur_radius_of_a_point_matches_the_camera(trace, depth_m, focus_m):
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


@pytest.mark.parametrize("focus_m", [1.2, 5.0])
def test_blur_radius_along_a_slanted_plane_matches_the_camera(trace, focus_m):
    """Stripes along x on a plane whose depth grows with x: a column sees one depth, so its contrast, over that of the
    pinhole's image, is the disc's transform 2 J1(t) / t at t = 2 pi r / period: r is read off and compared, within 2 %."""
    camera, height, width, period_m = Camera(0.05, 1.8, 0.0001), 48, 64, 0.05
    pixel = camera.pixel_pitch_m / camera.focal_length_m
    slope = (np.arange(width) + 0.5 - width / 2) * pixel
    depth_m = 2.0 / (1 - 3 * slope)
    texels = np.linspace(-0.4, 0.4, 1200, endpoint=False) + 0.4 / 1200
    stripes = np.repeat((0.5 + 0.4 * np.sin(2 * np.pi * texels / period_m))[:, None, None], 4, 1) * np.ones(3)
    patches = [quad(2.0, 3.0, radiance=stripes, half_m=0.4)]
    images, aif, truth_m = trace(patches, camera, [focus_m, 100.0], height, width, 400, "scalar_rgb")
    np.testing.assert_allclose(truth_m[height // 2], depth_m, rtol=1e-5)
    y = (np.arange(height) + 0.5 - height / 2) * pixel

    def contrast(codes, column):
        phase = 2 * np.pi * y * depth_m[column] / period_m
        waves = np.stack([np.sin(phase), np.cos(phase), np.ones(height)], 1)
        sine, cosine, _ = np.linalg.lstsq(waves, linear(codes)[:, column, 1], rcond=None)[0]
        return np.hypot(sine, cosine)

    t = np.linspace(0.2, 3.6, 4000)
    transform = 2 * special.j1(t) / t
    expected, measured = [], []
    for column in range(6, width - 6):
        ratio = contrast(images[0], column) / contrast(aif, column)
        period_px = period_m / depth_m[column] / pixel
        measured.append(np.interp(-ratio, -transform, t) * period_px / (2 * np.pi))
        expected.append(camera.blur_radius_px(depth_m[column], focus_m))
    measured, expected = (np.reshape(v, (13, 4)).mean(1) for v in (measured, expected))
    clear = expected > 1.0
    assert clear.sum() > 5
    np.testing.assert_allclose(measured[clear], expected[clear], rtol=0.02)


def test_mitsuba_and_cast_rays_hit_the_same_surfaces(trace):
    mi = pytest.importorskip("mitsuba")
    from sfdfd.scenes.raytraced.tracer import _load, _variant

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


def test_light_is_linear_and_textures_are_not_mirrored(trace):
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


def test_a_stack_is_reproducible_and_well_formed(trace):
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


def test_bad_arguments_and_missing_mitsuba_are_reported(trace, monkeypatch):
    with pytest.raises(InputError, match="focus_distances_m"):
        trace([quad(2.0)], DSLR, [0.01], HEIGHT, WIDTH)
    with pytest.raises(InputError, match="variant"):
        trace([quad(2.0)], DSLR, [1.0], HEIGHT, WIDTH, variant="nonsense")
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(InputError, match=r"sfdfd\[raytraced\]"):
        trace([quad(2.0)], DSLR, [1.0], HEIGHT, WIDTH)


def blur_factor(folder, truth_depth, truth_aif, slices):
    """By which factor the formula's radius has to be multiplied so that the truth, rendered, is most like the slices, away
    from depth jumps: the minimum of a parabola over factors."""
    stack = read_stack(folder)
    depth_m = torch.from_numpy(np.load(folder / truth_depth))[None].float()
    aif = to_float(iio.imread(folder / truth_aif)[..., :3])[None]
    renderer = DefocusRenderer(weighting="source", psf="disc", linear_light=True, sigma_scale=0.5)
    smooth = ~(near_depth_edges(depth_m, 16) | border(*depth_m.shape[-2:], 12)[None])[0]
    stack, errors, factors = stack.with_slices(slices), [], (0.9, 1.0, 1.1)
    for factor in factors:
        camera = replace(stack.camera[0], f_number=stack.camera[0].f_number / factor)
        with torch.no_grad():
            rendered = renderer(aif, depth_m, stack.focus_distances_m, [camera])
        errors.append(float((rendered - stack.images).square().mean((0, 1, 2))[smooth].mean()))
    a, b, _ = np.polyfit(factors, errors, 2)
    assert a > 0
    return -b / (2 * a)


@pytest.mark.slow
def test_the_blur_convention_matches_another_generator(real_data, tmp_path):
    """The stacks of $SFDFD_REAL_DATA were traced by others: the same fit finds the same radius there and here."""
    pytest.importorskip("mitsuba")
    theirs = blur_factor(real_data / "raytraced" / "dslr_004", "truth_depth_m.npy", "truth_aif.png", [1, 4])
    setup = CameraSetup.of("dslr", 160)
    lengths = {"train": 0, "val": 0, "test": 1}
    generator = RaytracedGenerator((setup,), 120, 160, lengths, 0, ["tabletop"], 64, "scalar_rgb")
    generator.write(tmp_path / "x", {}, lambda *_: None)
    ours = blur_factor(tmp_path / "x" / "dslr_test_0000", "truth/depth_m.npy", "truth/aif.png", [1, 4])
    assert theirs == pytest.approx(1, abs=0.04) and ours == pytest.approx(theirs, abs=0.04)
