"""Building blocks of path-traced scenes: walls, floors, objects that stand or float, rods, cards."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from sfdfd.scenes.raytraced.lighting import Light, bake_patch, texture_size
from sfdfd.scenes.raytraced.patches import Patch, View, box, flat_grid, lathe, resample, rotation, round_object
from sfdfd.scenes.raytraced.surface_textures import OBJECT, SurfaceTexture

__all__ = ["Builder"]

Array = np.ndarray


@dataclass
class Builder:
    """Collects the surfaces of a scene.

    Attributes:
        rng: random numbers of the scene.
        view: frustum of the camera.
        near_m, far_m: range of all depths.
        world: (3,3) rotation from level coordinates (y down along gravity) to the camera's.
        faces: (grid, texture, number of the object or -1) of each surface.
        balls: centre and radius of each object's shadow caster.
    """

    rng: np.random.Generator
    view: View
    near_m: float
    far_m: float
    world: Array = field(default_factory=lambda: np.eye(3))
    faces: list[tuple[Array, SurfaceTexture, int]] = field(default_factory=list)
    balls: list[tuple[Array, float]] = field(default_factory=list)

    def bare_patch(self, number: int) -> Patch:
        """Return surface ``number`` without a texture, for its geometry."""
        return Patch(self.faces[number][0].astype(np.float32), np.zeros((1, 1, 3), np.float32))

    def lit_patch(self, number: int, light: Light, is_seen: bool) -> Patch:
        """Return surface ``number`` with its radiance; hidden surfaces show only in blur, so a coarse texture is enough."""
        grid, texture, owner = self.faces[number]
        rows, columns = texture_size(grid, self.view)
        if not is_seen:
            rows, columns = max(rows // 3, 6), max(columns // 3, 6)
        return bake_patch(grid, texture, owner, light, (rows, columns))

    def texture(self, kinds: tuple[str, ...], depth_m: float) -> SurfaceTexture:
        return SurfaceTexture.random(self.rng, kinds, self.view.pixel * depth_m)

    def add(
        self, grids: list[Array], texture: SurfaceTexture, centre: Array, turn: Array, radius_m: float = 0.0
    ) -> None:
        """Add an object: turn its grids and move them to ``centre`` (camera frame); ``radius_m`` is of its shadow caster."""
        self.faces += [(grid @ turn.T + centre, texture, len(self.balls)) for grid in grids]
        self.balls.append((np.asarray(centre, float), radius_m))

    def wall(self, grids: list[Array], texture: SurfaceTexture, turn: Array) -> None:
        """Add an open surface, lit on the side that faces the lens."""
        for grid in grids:
            grid = grid @ turn.T
            normal = np.cross(grid[0, -1] - grid[0, 0], grid[-1, 0] - grid[0, 0])
            facing = normal @ grid.mean((0, 1)) > 0
            self.faces.append((grid if facing else grid[:, ::-1], texture, -1))

    def plane(self, axis: int, offset: float, far: float, texture: SurfaceTexture, yaw: Array) -> None:
        """Add a floor (axis 1) or side wall (axis 0) at ``offset``, in bands along z with texels to suit their distance."""
        tan = self.view.tan[axis] + np.tan(0.75)  # covers all that pitch and yaw bring into view
        edge, other = 0.5 * abs(offset) / tan, 1 - axis
        edges = [edge]
        while edges[-1] < far:
            edges.append(min(edges[-1] * 1.5, far) if edges[-1] * 1.6 < far else far)
        grids = []
        for z0, z1 in itertools.pairwise(edges):
            reach = 1.4 * z1 * (self.view.tan[other] + (0.9 if axis == 1 else 0.8))
            origin, along, up = np.zeros((3, 3))
            origin[axis], origin[other], origin[2] = offset, -reach, z0
            along[other], up[2] = 2 * reach, z1 - z0
            grids.append(flat_grid(origin, along, up, 3, 25) if axis == 1 else flat_grid(origin, up, along, 25, 3))
        self.wall(grids, texture, self.world @ yaw)

    def backdrop(self, depth_m: float, turn: Array, texture: SurfaceTexture, bumps_m: float = 0.0) -> None:
        """Add a wall (or a bumpy cloth) across the whole view through (0, 0, depth)."""
        half = 2.2 * depth_m * self.view.tan * (1 + abs(turn[2, :2]))
        rows, columns = (40, 50) if bumps_m else (5, 5)
        grid = flat_grid((-half[0], -half[1], 0), (2 * half[0], 0, 0), (0, 2 * half[1], 0), rows, columns)
        for _ in range(5 if bumps_m else 0):
            wave = self.rng.normal(0, 3.0, 2) / half
            grid[..., 2] += bumps_m * np.sin(grid[..., 0] * wave[0] + grid[..., 1] * wave[1] + self.rng.uniform(0, 6))
        self.wall([grid + np.array([0, 0, depth_m]) @ turn], texture, turn)

    def depth(self, low: float = 0.05, high: float = 0.95) -> float:
        """Draw a depth uniformly in inverse depth, in which blur is linear, or in its logarithm."""
        q = self.rng.uniform(low, high)
        if self.rng.random() < 0.5:
            return 1 / (q / self.near_m + (1 - q) / self.far_m)
        return float(self.near_m**q * self.far_m ** (1 - q))

    def solid(
        self, centre: Array, half: Array, turn: Array, kinds: tuple[str, ...] = (*OBJECT, "plain", "poster")
    ) -> None:
        """Add a box (boards, books, crates) or a round object."""
        grids = box(half) if self.rng.random() < 0.55 else [round_object(self.rng, half)]
        self.add(grids, self.texture(kinds, centre[2]), centre, turn, float(np.sort(half)[1]))

    def floating(self, low: float = 0.05, high: float = 0.9) -> None:
        """Add an object anywhere in view, with a random orientation."""
        z, rng = self.depth(low, high), self.rng
        half = z * self.view.tan[0] * np.exp(rng.uniform(np.log(0.05), np.log(0.32))) * rng.uniform(0.5, 1.3, 3)
        half *= min(1.0, 0.35 * z / half.max(), 0.9 * (z / self.near_m - 1) * self.near_m / half.max())
        turn = rotation((2, rng.normal(0, 0.5)), (1, rng.uniform(-0.9, 0.9)), (0, rng.normal(0, 0.4)))
        self.solid(self.view.at(*rng.uniform(-0.95, 0.95, 2), z=z), half, turn)

    def standing(self, floor_y: float, low: float, high: float, top: tuple[float, float] | None = None) -> None:
        """Add an object on the floor (level coordinates), about as tall as wide or with its top at a screen height in
        ``top``."""
        rng, z = self.rng, self.depth(low, high)
        wide = z * self.view.tan[0] * rng.uniform(0.06, 0.24, 2)
        foot = self.world.T @ self.view.at(rng.uniform(-0.95, 0.95), 0, z)
        if top is None:
            slope = self.world[2] @ (0, 1, 0), self.world[2, 2]  # the floor point under the object has depth z
            foot[2] = (z - slope[0] * floor_y) / slope[1]
            tall = 2 * wide.mean() * rng.uniform(0.15, 1.6)
        else:
            tall = max(floor_y - (self.world.T @ self.view.at(0, rng.uniform(*top), z))[1], 0.04 * z * self.view.tan[0])
        half = np.array([wide[0], 0.5 * tall, min(wide[1], 0.25 * z)])
        turn = self.world @ rotation((1, rng.uniform(-0.9, 0.9)))
        self.solid(self.world @ np.array([foot[0], floor_y - 0.5 * tall, foot[2]]), half, turn)

    def rod(self, low: float, high: float) -> None:
        """Add a thin rod or slat across most of the view."""
        rng, z = self.rng, self.depth(low, high)
        radius = self.view.pixel * z * np.exp(rng.uniform(np.log(0.8), np.log(7)))
        length = z * self.view.tan[0] * (2.5 if rng.random() < 0.6 else rng.uniform(0.4, 1.0))
        tilt = 0.0 if abs(rng.normal()) < 0.3 else rng.uniform(-0.25, 0.25)  # toward or away from the lens
        turn = rotation((2, rng.choice([0, np.pi / 2], p=[0.7, 0.3]) + rng.normal(0, 0.35)), (0, tilt))
        along = np.linspace(-1, 1, 17)  # long oblique triangles slow the tracer's search tree down
        if rng.random() < 0.7:
            ends = np.array([0.0]), np.ones(17), np.array([0.0])
            grids = [lathe(radius * np.concatenate(ends), length * along[[0, *range(17), 16]], 12)]
        else:
            grids = [resample(face, 17, 2) for face in box(np.array([radius, length, 0.4 * radius]))]
        texture = self.texture(("wood", "plain", "gradient", "speckle", "fabric"), z)
        self.add(grids, texture, self.view.at(*rng.uniform(-0.9, 0.9, 2), z=z), turn)

    def card(self, low: float, high: float) -> None:
        """Add a thin, slanted board, along which depth varies."""
        rng, z = self.rng, self.depth(low, high)
        size = z * self.view.tan[0] * rng.uniform(0.2, 0.55, 2)
        slant = rng.uniform(-1.1, 1.1)
        fits = min(1.0, 0.8 * max(z - self.near_m, 0.05 * z) / (size.max() * abs(np.sin(slant)) + 1e-9))
        half = np.array([*(size * fits), 0.004 * z])
        turn = rotation((2, rng.normal(0, 0.4)), (int(rng.integers(2)), slant))
        texture = self.texture(("poster", "text", "leaves", *OBJECT), z)
        self.add(box(half), texture, self.view.at(*rng.uniform(-0.8, 0.8, 2), z=z), turn, 0.3 * float(size.min()))

    def border(self, side: float | None = None) -> None:
        """Add a near object across the image border, out of focus in most slices; ``side`` is a screen angle in radians."""
        rng = self.rng
        z = self.near_m * rng.uniform(1.1, 1.6)
        side = rng.uniform(0, 2 * np.pi) if side is None else side
        size = z * self.view.tan[0] * rng.uniform(0.25, 0.5)
        half = np.minimum(size * np.array([1, rng.uniform(0.4, 1.5), 0.5]), 0.8 * (z - self.near_m))
        half[:2] = size * rng.uniform(0.7, 1.2, 2)
        turn = rotation((2, rng.uniform(0, np.pi)))
        grids = box(half) if rng.random() < 0.6 else [round_object(rng, half[[2, 1, 2]])]
        centre = self.view.at(1.15 * np.cos(side), 1.15 * np.sin(side), z)
        self.add(grids, self.texture((*OBJECT, "leaves"), z), centre, turn, 0.5 * float(size))
