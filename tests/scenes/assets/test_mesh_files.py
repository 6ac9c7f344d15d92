"""Meshes and textures from files that other programs write."""

import numpy as np
import pytest
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.scenes.assets.mesh_files import Texture, load_mesh, load_texture

trimesh = pytest.importorskip("trimesh")


def textured_box(extents=(0.2, 0.4, 0.1)):
    """A box whose texture is red on the left and blue on the right."""
    box = trimesh.creation.box(extents)
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8, 0] = image[:, 8:, 2] = 255
    uv = np.random.default_rng(0).uniform(0, 0.4, (len(box.vertices), 2))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(image))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return box


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_meshes_stand_on_the_floor_in_metres_with_their_texture(tmp_path, suffix):
    box = textured_box()
    if suffix == ".ply":
        box.visual = trimesh.visual.ColorVisuals(
            box, vertex_colors=np.tile([200, 100, 50, 255], (len(box.vertices), 1))
        )
    box.apply_translation([3, 5, -2])
    box.export(tmp_path / f"box{suffix}")
    mesh = load_mesh(tmp_path / f"box{suffix}")
    low, high = mesh.corners_m.min((0, 1)), mesh.corners_m.max((0, 1))
    np.testing.assert_allclose(low, [-0.1, 0, -0.05], atol=1e-6)
    np.testing.assert_allclose(high, [0.1, 0.4, 0.05], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=-1), 1, atol=1e-5)
    colour = mesh.textures[0].levels[0][0, 0] * mesh.tint[0, 0]
    np.testing.assert_allclose(colour, [200, 100, 50] if suffix == ".ply" else [255, 0, 0], atol=2)


def test_a_mesh_in_millimetres_is_scaled(tmp_path):
    trimesh.creation.box((200, 400, 100)).export(tmp_path / "mm.ply")
    corners = load_mesh(tmp_path / "mm.ply").corners_m
    assert (corners.max((0, 1)) - corners.min((0, 1))).max() == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["a.glb", "a.obj", "a.ply"])
def test_a_broken_mesh_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no mesh")
    with pytest.raises(InputError, match=f"{name}.*move it out of the assets"):
        load_mesh(tmp_path / name)


def test_points_without_triangles_are_refused(tmp_path):
    trimesh.PointCloud(np.random.default_rng(0).random((10, 3))).export(tmp_path / "points.ply")
    with pytest.raises(InputError, match="triangles"):
        load_mesh(tmp_path / "points.ply")


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.jpg: not a readable image"):
        load_texture(tmp_path / "a.jpg")


def test_smaller_sizes_of_a_texture_keep_its_mean():
    codes = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    levels = Texture.of(codes).levels
    assert [level.shape[:2] for level in levels] == [(64, 128), (32, 64), (16, 32), (8, 16)]
    for level in levels:
        np.testing.assert_allclose(level.mean((0, 1)), codes.mean((0, 1)), atol=1.5)
