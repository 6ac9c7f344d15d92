"""A stage: objects from assets and simple shapes, placed before a camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from sfdfd.scenes.assets.asset_folder import AssetFolder
from sfdfd.scenes.assets.mesh_files import Mesh, Texture, load_mesh, load_texture
from sfdfd.scenes.assets.ray_layers import Lamp, Lighting, Pinhole, World
from sfdfd.scenes.surfaces import axis_rotation

__all__ = ["Stage"]

Array = np.ndarray
UPRIGHT = np.diag([1.0, -1.0, -1.0])
"""Turns a mesh (y up, z towards the viewer) into level coordinates (y down, z away)."""
CLEARANCE = 0.01
"""Share of its size by which an object floats above what it stands on, so that no two surfaces coincide."""


class Stage:
    """Collects the objects of a scene in level coordinates (x right, y down, z away) in metres, camera at the origin.

    Args:
        assets: images and meshes to choose from.
        pinhole: the camera.
        rng: of all that is random.
        pitch, roll: turn of the camera in radians, downwards and clockwise.
    """

    def __init__(
        self, assets: AssetFolder, pinhole: Pinhole, rng: np.random.Generator, pitch: float = 0.0, roll: float = 0.0
    ) -> None:
        self.assets, self.pinhole, self.rng = assets, pinhole, rng
        self.to_camera = axis_rotation(2, roll) @ axis_rotation(0, pitch)
        self.objects: list[Mesh] = []
        self.gloss: list[float] = []

    def add(self, mesh: Mesh, gloss: float | None = None) -> None:
        """Add an object in level coordinates; by default a third of the objects is glossy."""
        self.objects.append(mesh.moved(self.to_camera, np.zeros(3)))
        self.gloss.append(max(0.0, float(self.rng.uniform(-0.6, 0.3))) if gloss is None else gloss)

    # ---------------------------------------------------------------- textures

    def image(self) -> Texture:
        """Return a random photograph or material."""
        return self._texture(self.assets.images)

    def material(self, plain: float = 0.0) -> Texture:
        """Return a random material, with probability ``plain`` a painted surface with next to no texture."""
        if self.rng.random() >= plain:
            return self._texture(self.assets.materials)
        colour = self.rng.uniform(0.15, 0.95) + self.rng.normal(0, 0.08, 3)
        contrast = float(np.exp(self.rng.uniform(np.log(0.002), np.log(0.08))))
        grain = gaussian_filter(self.rng.standard_normal((256, 256)), float(self.rng.uniform(0.5, 3)), mode="wrap")
        codes = colour + contrast * (grain / grain.std())[..., None]
        return Texture.of(np.round(255 * codes.clip(0, 1)).astype(np.uint8))

    def _texture(self, paths: Sequence[Path]) -> Texture:
        return load_texture(paths[int(self.rng.integers(len(paths)))])

    # ---------------------------------------------------------------- shapes

    def quad(
        self, corner: Array, u: Array, v: Array, texture: Texture, repeat: float = 1.0, gloss: float | None = None
    ) -> None:
        """Add a parallelogram from ``corner`` along ``u`` (right) and ``v`` (down), its texture ``repeat`` times along u.

        A texture that is not repeated keeps its proportions: it is cropped.
        """
        corner, u, v = (np.asarray(value, float) for value in (corner, u, v))
        height, width = texture.levels[0].shape[:2]
        share = np.linalg.norm(v) / np.linalg.norm(u) * width / height  # of the texture's height, for one width
        size = repeat * np.array([1.0, share])
        if repeat == 1.0 and share > 1:
            size /= share
        start = self.rng.uniform(0, 1, 2) * (1 - np.minimum(size, 1))
        corners = np.stack([corner, corner + u, corner + u + v, corner + v])
        uv = start + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
        self.add(_triangles(corners, uv, [[0, 1, 2], [0, 2, 3]], texture), gloss)

    def box(self, centre: Array, half: Array, rotation: Array, textures: Sequence[Texture]) -> None:
        """Add a box; its faces take the textures in turn, each once over a face."""
        parts: list[Mesh] = []
        for axis in range(3):
            for sign in (-1.0, 1.0):
                n, u, v = np.zeros((3, 3))
                n[axis], u[(axis + 1) % 3], v[(axis + 2) % 3] = sign * half[axis], *np.roll(half, -axis)[1:]
                if axis == 0:
                    u, v = v, u
                corners = np.stack([n - u - v, n + u - v, n + u + v, n - u + v]) @ rotation.T + centre
                texture = textures[len(parts) % len(textures)]
                uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
                parts.append(_triangles(corners, uv, [[0, 1, 2], [0, 2, 3]], texture))
        self.add(Mesh.joined(parts))

    def rod(self, start: Array, end: Array, radius: float, texture: Texture, sides: int = 8) -> None:
        """Add a rod between two points."""
        axis = np.asarray(end, float) - start
        length = np.linalg.norm(axis)
        first = np.cross(axis, [0.3, 1.0, 0.2])
        first /= np.linalg.norm(first)
        second = np.cross(axis / length, first)
        angle = np.linspace(0, 2 * np.pi, sides + 1)[:, None]
        ring = radius * (np.cos(angle) * first + np.sin(angle) * second)
        corners = np.concatenate([start + ring, end + ring])
        around = np.linspace(0, 1, sides + 1)
        uv = np.stack([np.tile(around, 2), np.repeat([0.0, length / (2 * np.pi * radius)], sides + 1)], -1)
        k, n = np.arange(sides), sides + 1
        faces = np.concatenate([np.stack([k, k + 1, k + n], -1), np.stack([k + 1, k + n + 1, k + n], -1)])
        self.add(_triangles(corners, uv, faces, texture))

    def cutout(self, centre: Array, radius: float, rotation: Array, texture: Texture, points: int = 24) -> None:
        """Add a flat shape with a random outline: a leaf, a paper figure."""
        angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
        waves = sum(self.rng.normal(0, 0.3 / k) * np.cos(k * angle + self.rng.uniform(0, 6)) for k in range(1, 6))
        outline = np.exp(waves).clip(0.15, 2.0)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        outline[:, 1] *= np.exp(self.rng.normal(0, 0.5))
        flat = np.concatenate([[[0.0, 0.0]], outline])
        corners = radius * np.column_stack([flat, np.zeros(len(flat))]) @ rotation.T + centre
        uv = 0.5 + 0.5 * flat / max(np.abs(flat).max(), 1e-9)
        k = np.arange(points)
        faces = np.stack([np.zeros_like(k), 1 + k, 1 + (k + 1) % points], -1)
        self.add(_triangles(corners, uv, faces, texture))

    # ---------------------------------------------------------------- meshes

    def mesh(self, smallest_m: float, largest_m: float) -> Mesh | None:
        """Return a random mesh whose largest side is in a range, upright in level coordinates; None without meshes.

        A mesh of another size is scaled into the range.
        """
        if not self.assets.meshes:
            return None
        for _ in range(8):
            mesh = load_mesh(self.assets.meshes[int(self.rng.integers(len(self.assets.meshes)))])
            if smallest_m <= _largest_side(mesh) <= largest_m:
                break
        size = _largest_side(mesh) * float(np.exp(self.rng.normal(0, 0.2)))
        return mesh.moved(UPRIGHT, np.zeros(3), float(np.clip(size, smallest_m, largest_m)) / _largest_side(mesh))

    def stand(self, position: Array, smallest_m: float, largest_m: float) -> None:
        """Stand a random object upright at a position; without meshes a box."""
        position = np.asarray(position, float) - (0, CLEARANCE * smallest_m, 0)
        turn = axis_rotation(1, self.rng.uniform(0, 2 * np.pi))
        mesh = self.mesh(smallest_m, largest_m)
        if mesh is None:
            half = self.rng.uniform(0.2, 0.5, 3) * self.rng.uniform(smallest_m, largest_m)
            textures = [self.image() for _ in range(2)]
            self.box(position - (0, half[1], 0), half, turn, textures)
        else:
            self.add(mesh.moved(turn, position))

    def hang(self, position: Array, smallest_m: float, largest_m: float) -> None:
        """Put a random object at a position, turned in any way."""
        turn = axis_rotation(2, self.rng.uniform(0, 6.3)) @ axis_rotation(0, self.rng.uniform(0, 6.3))
        mesh = self.mesh(smallest_m, largest_m)
        if mesh is None:
            self.cutout(np.asarray(position, float), 0.5 * largest_m, turn, self.image())
        else:
            centre = 0.5 * (mesh.corners_m.min((0, 1)) + mesh.corners_m.max((0, 1)))
            self.add(mesh.moved(turn, np.asarray(position, float) - turn @ centre))

    def in_view(self, nearest_m: float, farthest_m: float, reach: float = 1.0) -> Array:
        """Return a random point of the camera's frustum in camera coordinates, uniform in the logarithm of z."""
        z = float(np.exp(self.rng.uniform(np.log(nearest_m), np.log(farthest_m))))
        half = self.pinhole.half_width * np.array([1.0, self.pinhole.height / self.pinhole.width])
        return np.append(self.rng.uniform(-reach, reach, 2) * half * z, z)

    def level(self, point: Array) -> Array:
        """Return a point of the camera's frame in level coordinates."""
        return self.to_camera.T @ point

    def lighting(self) -> Lighting:
        """Draw one to three lamps, ambient light, and how bright the image is."""
        farthest = max(float(np.median(mesh.corners_m[..., 2])) for mesh in self.objects)
        reach = 0.5 * max(farthest, 1e-3)
        lamps = []
        for strength in (1.0, 0.5, 0.3)[: int(self.rng.integers(1, 4))]:
            position = self.rng.normal(0, 1, 3) * (1.0, 0.5, 0.8) + (0, -1.2, 0.2)
            colour = strength * np.exp(self.rng.normal(0, 0.15, 3)) * self.rng.uniform(0.6, 2.0)
            lamps.append(Lamp(self.to_camera @ position * reach * 1.5, 2 * reach, colour))
        sky = self.rng.uniform(0.15, 0.8) * np.exp(self.rng.normal(0, 0.1, 3))
        ground = sky * self.rng.uniform(0.3, 0.9)
        brightness = float(np.exp(self.rng.uniform(np.log(0.04), np.log(0.45))))
        return Lighting(lamps, sky, ground, brightness, self.to_camera @ np.array([0.0, -1.0, 0.0]))

    def world(self) -> World:
        """Return all objects, ready for rays."""
        return World(self.objects, self.gloss)


def _largest_side(mesh: Mesh) -> float:
    return float((mesh.corners_m.max((0, 1)) - mesh.corners_m.min((0, 1))).max())


def _triangles(corners: Array, uv: Array, faces: Sequence[Sequence[int]] | Array, texture: Texture) -> Mesh:
    """Return a mesh of flat triangles."""
    faces = np.asarray(faces)
    points = corners[faces]
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-30)
    number = len(faces)
    tint = np.ones((number, 3, 3), np.float32)
    return Mesh(
        points, np.repeat(normals[:, None], 3, 1), np.asarray(uv)[faces], tint, np.zeros(number, np.int32), (texture,)
    )
