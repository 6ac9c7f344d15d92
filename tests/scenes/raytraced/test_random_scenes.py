"""Random path-traced scenes: within their range, varied, reproducible."""

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.scenes.raytraced.patches import cast_rays
from sfdfd.scenes.raytraced.random_scenes import KINDS, random_scene
from sfdfd.scenes.raytraced.surface_textures import FLAT, OBJECT, SurfaceTexture

DSLR, PHONE = Camera(0.05, 1.2, 0.0009), Camera(0.00681, 1.85, 2.45e-4)  # at 40x30 pixels
HEIGHT, WIDTH = 30, 40


@pytest.mark.parametrize(("camera", "near_m", "far_m"), [(DSLR, 0.6, 8.0), (PHONE, 0.08, 1.5)])
def test_scenes_fill_their_range_and_are_reproducible(camera, near_m, far_m):
    kinds = []
    for index in range(len(KINDS)):
        scene = random_scene((0, 2), index, camera, HEIGHT, WIDTH, near_m, far_m)
        depth_m, _, _ = cast_rays(scene.patches, camera, HEIGHT, WIDTH)
        assert near_m <= depth_m.min() < 3 * near_m
        assert 0.3 * far_m < depth_m.max() <= far_m
        assert all(patch.radiance.min() >= 0 and patch.radiance.max() <= 1.05 for patch in scene.patches)
        kinds.append(scene.kind)
    assert kinds == list(KINDS)
    again = random_scene((0, 2), len(KINDS) - 1, camera, HEIGHT, WIDTH, near_m, far_m)
    for one, other in zip(scene.patches, again.patches, strict=True):
        np.testing.assert_array_equal(one.vertices_m, other.vertices_m)
        np.testing.assert_array_equal(one.radiance, other.radiance)


@pytest.mark.parametrize("kind", sorted({*OBJECT, *FLAT}))
def test_textures_are_in_range_and_continue_across_patches(kind):
    texture = SurfaceTexture.random(np.random.default_rng(5), (kind,), 0.01)
    whole = texture.bake(np.arange(64) * 0.01, np.arange(48) * 0.01, 0.01)
    assert whole.shape == (48, 64, 3) and np.isfinite(whole).all() and whole.min() >= 0.01 and whole.max() <= 0.95
    if kind in ("plain", "marble", "speckle", "wood", "bricks", "tiles", "fabric"):
        part = texture.bake(np.arange(32, 64) * 0.01, np.arange(48) * 0.01, 0.01)
        np.testing.assert_allclose(part, whole[:, 32:], atol=1e-4)


def test_an_empty_range_is_refused():
    with pytest.raises(InputError, match="near_m"):
        random_scene(0, 0, DSLR, HEIGHT, WIDTH, 2.0, 1.0)


def test_kinds_alternate_and_foreground_fills_the_border():
    with pytest.raises(InputError, match="kinds"):
        random_scene(0, 0, DSLR, HEIGHT, WIDTH, 0.6, 8.0, ["meadow"])
    shares = []
    for index in range(4):
        scene = random_scene(3, index, DSLR, HEIGHT, WIDTH, 0.6, 8.0, ["foreground"])
        depth_m, _, _ = cast_rays(scene.patches, DSLR, HEIGHT, WIDTH)
        inside = depth_m[6:-6, 8:-8]
        around = np.concatenate([depth_m[0], depth_m[-1], depth_m[:, 0], depth_m[:, -1]])
        shares.append(((around < 1.2).mean(), (inside < 1.2).mean()))
    around, inside = np.mean(shares, 0)
    assert around > 0.35 and around > 1.5 * inside


def test_another_kind_is_used_if_none_of_its_own_fits():
    macro, where = Camera(0.05, 4.0, 1.2e-3), (15, 20, 0.24, 0.7)
    with pytest.raises(InputError, match="widen the range"):
        random_scene((0, 0), 5, macro, *where, ("walls",))
    assert random_scene((0, 0), 5, macro, *where, ("tabletop", "walls")).patches
