"""Rays: depth in closed form, hidden layers behind visible ones, colours of textures and shadows."""

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.scenes.assets.mesh_files import Mesh, Texture
from sfdfd.scenes.assets.ray_layers import Lamp, Lighting, Pinhole, World, photograph_layers

pytest.importorskip("embreex")
PINHOLE = Pinhole(40, 60, 0.5)
EVEN = Lighting((), np.ones(3), np.ones(3), 0.2, np.array([0.0, -1.0, 0.0]))


def quad(corner, u, v, colour):
    """A parallelogram of one colour."""
    corner, u, v = (np.asarray(value, float) for value in (corner, u, v))
    points = np.stack([corner, corner + u, corner + u + v, corner + v])[np.array([[0, 1, 2], [0, 2, 3]])]
    normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    ones = np.ones((2, 3, 3), np.float32)
    return Mesh(points, np.broadcast_to(normal, (2, 3, 3)).copy(), np.zeros((2, 3, 2)), ones, np.zeros(2, np.int32),
                (Texture.plain(colour),))  # fmt: skip


def wall(z, colour=(0.5, 0.5, 0.5)):
    return quad((-50, -50, z), (100, 0, 0), (0, 100, 0), colour)


def test_the_depth_of_a_slanted_plane_is_exact_through_pixel_centres():
    """A plane z = a + b x + c y is met at 1 / z = (1 - b x' - c y') / a along the direction (x', y', 1)."""
    a, b, c = 2.0, 0.4, -0.3
    plane = quad((-20, -20, a - 20 * b - 20 * c), (40, 0, 40 * b), (0, 40, 40 * c), (0.5, 0.5, 0.5))
    scene = photograph_layers(World([plane], [0.0]), PINHOLE, EVEN)
    x = (np.arange(60) + 0.5 - 30) / 60
    y = (np.arange(40) + 0.5 - 20) / 60
    expected = (1 - b * x[None] - c * y[:, None]) / a
    np.testing.assert_allclose(scene.inverse_depth[0], expected, rtol=1e-5)
    assert not scene.is_present[1:].any()


def test_hidden_layers_are_the_surfaces_behind_in_order():
    boards = [quad((-0.3, -0.3, 1.0), (0.6, 0, 0), (0, 0.6, 0), (0.9, 0.1, 0.1)),
              quad((-0.9, -0.9, 2.0), (1.8, 0, 0), (0, 1.8, 0), (0.1, 0.9, 0.1)), wall(4.0, (0.1, 0.1, 0.9))]  # fmt: skip
    scene = photograph_layers(World(boards, [0.0] * 3), PINHOLE, EVEN)
    centre = (slice(None), 20, 30)
    np.testing.assert_allclose(scene.inverse_depth[centre], [1, 0.5, 0.25], rtol=1e-6)
    assert [int(colour.argmax()) for colour in scene.colours[centre]] == [0, 1, 2]
    border = (slice(None), 0, 0)
    np.testing.assert_allclose(scene.inverse_depth[border], [0.25, 0, 0], rtol=1e-6)
    both = scene.is_present[1:] & scene.is_present[:-1]
    assert (scene.inverse_depth[1:][both] < scene.inverse_depth[:-1][both]).all()


def test_what_an_object_hides_of_itself_is_no_layer():
    front, back = (
        quad((-1, -1, 1.0), (2, 0, 0), (0, 2, 0), (1, 0, 0)),
        quad((-1, -1, 1.5), (2, 0, 0), (0, 2, 0), (0, 1, 0)),
    )
    columns = [np.concatenate([getattr(front, k), getattr(back, k)]) for k in ("corners_m", "normals", "uv", "tint")]
    both = Mesh(*columns, np.array([0, 0, 1, 1], np.int32), (*front.textures, *back.textures))
    scene = photograph_layers(World([both, wall(3.0)], [0.0, 0.0]), PINHOLE, EVEN)
    np.testing.assert_allclose(scene.inverse_depth[:, 20, 30], [1, 1 / 3, 0], rtol=1e-6)


def test_silhouettes_are_antialiased_in_colour_and_not_in_depth():
    board = quad((-0.305, -5, 1.0), (0.61, 0, 0), (0, 10, 0), (1, 1, 1))
    scene = photograph_layers(World([board, wall(4.0, (0, 0, 0))], [0.0, 0.0]), PINHOLE, EVEN)
    assert set(np.unique(scene.inverse_depth[0].round(4))) == {0.25, 1.0}
    assert len(np.unique(scene.colours[0, 20, :, 0])) == 3  # black, white, and half of each


def test_a_lamp_casts_shadows():
    board = quad((-0.2, -0.2, 1.0), (0.4, 0, 0), (0, 0.4, 0), (0.5, 0.5, 0.5))
    lamp = Lamp(np.array([1.0, 0.0, 0.0]), 10.0, np.ones(3))
    lighting = Lighting((lamp,), 0.1 * np.ones(3), 0.1 * np.ones(3), 0.3, EVEN.up)
    lit = photograph_layers(World([board, wall(2.0)], [0.0, 0.0]), PINHOLE, lighting).colours[0, 20, :, 0].astype(int)
    # from (1, 0) the board of half width .2 at z = 1 shades x in [-1.4, -.6] of the wall at z = 2: columns 0 to 12
    assert lit[2] < lit[55] - 40 and lit[14] > lit[2] + 40


def test_a_scene_that_is_not_closed_is_refused():
    board = quad((-0.1, -0.1, 1.0), (0.2, 0, 0), (0, 0.2, 0), (1, 1, 1))
    with pytest.raises(InputError, match="closed scene"):
        photograph_layers(World([board], [0.0]), PINHOLE, EVEN)
