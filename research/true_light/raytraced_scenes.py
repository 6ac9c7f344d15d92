"""Seeded scenes for the path tracer: textured, self-luminous surfaces in front of a pinhole.

Rooms, tabletops, clutter, rods and cards, as parametric patches in the camera's frame (metres; x right, y down, z away
from the lens; depth is z). Everything is NumPy: a scene exists, and its depth is known, without Mitsuba.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from raytraced_textures import FLAT, GROUND, OBJECT, Texture, linear_weights
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera

__all__ = ["KINDS", "Patch", "SceneDescription", "cast_rays", "random_scene"]

Array = np.ndarray
KINDS = ("room", "tabletop", "clutter", "rods", "cards")
_ATTEMPTS = 40
_ENOUGH_SPREAD = 0.62


@dataclass(frozen=True)
class Patch:
    """A surface that shines with its texture.

    Args:
        vertices_m: (N,M,3) float32 grid of points; the side from which columns run right and rows down is lit.
        radiance: (V,U,3) float32 linear light in [0, 1], stretched over the grid.
    """

    vertices_m: Array
    radiance: Array

    @property
    def triangles(self) -> Array:
        """(T,3) indices into the flattened grid, two for each cell."""
        rows, columns = self.vertices_m.shape[:2]
        corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).reshape(-1, 1)
        a, b, c, d = corner, corner + 1, corner + columns, corner + columns + 1
        return np.concatenate([np.hstack([a, c, b]), np.hstack([b, c, d])])

    @property
    def uv(self) -> Array:
        """(N*M,2) texture coordinates in [0, 1]; u along columns, v along rows."""
        rows, columns = self.vertices_m.shape[:2]
        grid = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
        return np.stack(grid, -1).reshape(-1, 2)


@dataclass(frozen=True)
class SceneDescription:
    """What the path tracer renders: a kind (of ``KINDS``) and its surfaces."""

    kind: str
    patches: tuple[Patch, ...]


def cast_rays(patches: tuple[Patch, ...], camera: Camera, height: int, width: int) -> tuple[Array, Array, Array]:
    """First hit of the ray through each pixel centre, exact: in float64, on the triangles that Mitsuba sees.

    Args:
        patches: surfaces in the camera's frame.
        camera: gives the directions: x = (column + 0.5 - W/2) pitch / focal length * z.
        height, width: size in pixels.

    Returns:
        depth_m (H,W) float64 (inf where nothing is hit), patch (H,W) int64 (-1), uv (H,W,2) texture coordinates.
    """
    pixel = camera.pixel_pitch_m / camera.focal_length_m
    x, y = (np.arange(width) + 0.5 - width / 2)[None] * pixel, (np.arange(height) + 0.5 - height / 2)[:, None] * pixel
    nearness, which, uv = np.zeros((height, width)), np.full((height, width), -1), np.zeros((height, width, 2))
    for number, patch in enumerate(patches):
        triangles, patch_uv = patch.triangles, patch.uv
        corners = patch.vertices_m.reshape(-1, 3).astype(np.float64)[triangles]
        volume = np.linalg.det(corners)  # negative where the lit side faces the lens
        z = corners[..., 2:]
        flat = np.where(z > 0, corners[..., :2] / np.where(z > 0, z, 1), 0) / pixel + (
            width / 2 - 0.5,
            height / 2 - 0.5,
        )
        ahead = (z > 0).all(1)  # else the triangle passes the lens: look for it in the whole image
        low = np.where(ahead, np.ceil(flat.min(1) - 1e-6), 0).clip(0, 1e6).astype(int)
        high = np.where(ahead, np.floor(flat.max(1) + 1e-6), 1e6).clip(-1, (width - 1, height - 1)).astype(int)
        candidates = (volume < -1e-12 * np.abs(corners).max((1, 2)) ** 3) & (z > 0).any(1)[:, 0] & (low <= high).all(1)
        for t in np.flatnonzero(candidates):
            window = np.s_[low[t, 1] : high[t, 1] + 1, low[t, 0] : high[t, 0] + 1]
            # the ray (x, y, 1) = b0 p0 + b1 p1 + b2 p2 meets the triangle where no b is negative, at depth 1 / sum(b)
            inverse = np.linalg.inv(corners[t].T)
            b = [row[0] * x[:, window[1]] + row[1] * y[window[0]] + row[2] for row in inverse]
            near = b[0] + b[1] + b[2]
            hit = (np.minimum(np.minimum(b[0], b[1]), b[2]) >= -1e-9 * np.abs(near)) & (near > nearness[window])
            if hit.any():
                nearness[window][hit], which[window][hit] = near[hit], number
                uv[window][hit] = np.stack([part[hit] for part in b], -1) @ patch_uv[triangles[t]] / near[hit, None]
    with np.errstate(divide="ignore"):
        return 1 / nearness, which, uv


# ---------------------------------------------------------------- shapes, as grids of points


def _rotation(*turns: tuple[int, float]) -> Array:
    """Product of rotations (axis, angle in radians)."""
    total = np.eye(3)
    for axis, angle in turns:
        matrix = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        total = total @ matrix
    return total


def _grid(origin: Array, along_u: Array, along_v: Array, rows: int = 2, columns: int = 2) -> Array:
    """Flat grid (rows, columns, 3) of a parallelogram; lit where u runs right and v down."""
    u, v = np.linspace(0, 1, columns)[None, :, None], np.linspace(0, 1, rows)[:, None, None]
    return np.asarray(origin, float) + u * np.asarray(along_u, float) + v * np.asarray(along_v, float)


def _box(half: Array) -> list[Array]:
    """Six faces of a box with half extents ``half``."""
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v, n = np.zeros((3, 3))
            n[axis], u[(axis + 1) % 3], v[(axis + 2) % 3] = (
                sign * half[axis],
                half[(axis + 1) % 3],
                half[(axis + 2) % 3],
            )
            if axis == 0:  # keep v vertical, so that lines of text and boards run level
                u, v = v, u
            if np.dot(np.cross(u, v), n) > 0:
                u = -u
            faces.append(_grid(n - u - v, 2 * u, 2 * v))
    return faces


def _lathe(radius: Array, y: Array, segments: int = 40) -> Array:
    """Surface of revolution about y, from top (small y) to bottom; its seam lies at the back (z > 0)."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None]
    radius = np.maximum(radius, 1e-4 * radius.max())[:, None]
    return np.stack([-radius * np.sin(angle), y[:, None] + 0 * angle, radius * np.cos(angle)], -1)


def _round(rng: np.random.Generator, half: Array) -> Array:
    """A cylinder, ball, cone or vase inside half extents ``half``."""
    r, h = 0.5 * (half[0] + half[2]), half[1]
    shape = rng.choice(["cylinder", "ball", "cone", "vase"])
    if shape == "cylinder":
        return _lathe(r * np.array([0, 1, 1, 0]), h * np.array([-1, -1, 1, 1]))
    angle = np.linspace(0, np.pi, 20)
    if shape == "ball":
        return _lathe(r * np.sin(angle), -r * np.cos(angle) + max(0, h - r))
    if shape == "cone":
        return _lathe(r * np.array([0, 0.15, 1, 0]), h * np.array([-1, -1, 1, 1]))
    t = np.linspace(-1, 1, 24)
    belly = 0.6 + 0.25 * np.sin(rng.uniform(1.5, 3.5) * t + rng.uniform(0, 6)) + 0.15 * np.sin(rng.uniform(3, 6) * t)
    return _lathe(np.concatenate([[0], r * belly, [0]]), h * np.concatenate([[-1], t, [1]]))


def _resample(grid: Array, rows: int, columns: int) -> Array:
    """Grid (N,M,3) -> (rows,columns,3), bilinear."""
    across = linear_weights(np.linspace(0, grid.shape[1] - 1, columns), grid.shape[1])
    down = linear_weights(np.linspace(0, grid.shape[0] - 1, rows), grid.shape[0])
    return np.einsum("rn,nmc,km->rkc", down, grid, across, optimize=True)


# ---------------------------------------------------------------- building


@dataclass
class _View:
    """The pinhole's frustum: half tangents and the size of a pixel at distance 1."""

    camera: Camera
    height: int
    width: int

    def __post_init__(self) -> None:
        self.pixel = self.camera.pixel_pitch_m / self.camera.focal_length_m
        self.tan = np.array([self.width, self.height]) * self.pixel / 2

    def at(self, x: float, y: float, z: float) -> Array:
        """The point at depth z and screen position (x, y) in [-1, 1]."""
        return np.array([x * self.tan[0] * z, y * self.tan[1] * z, z])


@dataclass
class _Builder:
    """Collects surfaces; ``world`` turns level coordinates (y down along gravity) into the camera's."""

    rng: np.random.Generator
    view: _View
    near_m: float
    far_m: float
    world: Array = field(default_factory=lambda: np.eye(3))
    faces: list[tuple[Array, Texture, int]] = field(default_factory=list)
    balls: list[tuple[Array, float]] = field(default_factory=list)  # of the objects, for their shadows

    def texture(self, kinds: tuple[str, ...], depth_m: float) -> Texture:
        return Texture.random(self.rng, kinds, self.view.pixel * depth_m)

    def add(self, grids: list[Array], texture: Texture, centre: Array, turn: Array, radius_m: float = 0.0) -> None:
        """An object: its grids, turned and moved to ``centre`` (camera frame); radius of its shadow's ball."""
        self.faces += [(grid @ turn.T + centre, texture, len(self.balls)) for grid in grids]
        self.balls.append((np.asarray(centre, float), radius_m))

    def wall(self, grids: list[Array], texture: Texture, turn: Array) -> None:
        """An open surface, lit on the side that faces the lens."""
        for grid in grids:
            grid = grid @ turn.T
            normal = np.cross(grid[0, -1] - grid[0, 0], grid[-1, 0] - grid[0, 0])
            facing = normal @ grid.mean((0, 1)) > 0
            self.faces.append((grid if facing else grid[:, ::-1], texture, -1))

    def plane(self, axis: int, offset: float, far: float, texture: Texture, yaw: Array) -> None:
        """Floor (axis 1) or side wall (axis 0) at ``offset``, in bands along z whose texels suit their distance."""
        tan = self.view.tan[axis] + np.tan(0.75)  # generous: whatever pitch and yaw bring into view
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
            grids.append(_grid(origin, along, up, 3, 25) if axis == 1 else _grid(origin, up, along, 25, 3))
        self.wall(grids, texture, self.world @ yaw)

    def backdrop(self, depth_m: float, turn: Array, texture: Texture, bumps_m: float = 0.0) -> None:
        """A wall (or a bumpy cloth) across the whole view through (0, 0, depth)."""
        half = 2.2 * depth_m * self.view.tan * (1 + abs(turn[2, :2]))
        rows, columns = (40, 50) if bumps_m else (5, 5)
        grid = _grid((-half[0], -half[1], 0), (2 * half[0], 0, 0), (0, 2 * half[1], 0), rows, columns)
        for _ in range(5 if bumps_m else 0):
            wave = self.rng.normal(0, 3.0, 2) / half
            grid[..., 2] += bumps_m * np.sin(grid[..., 0] * wave[0] + grid[..., 1] * wave[1] + self.rng.uniform(0, 6))
        self.wall([grid + np.array([0, 0, depth_m]) @ turn], texture, turn)

    def depth(self, low: float = 0.05, high: float = 0.95) -> float:
        """A depth that is uniform in inverse distance, the scale on which blur is even, or in its logarithm."""
        q = self.rng.uniform(low, high)
        if self.rng.random() < 0.5:
            return 1 / (q / self.near_m + (1 - q) / self.far_m)
        return float(self.near_m**q * self.far_m ** (1 - q))

    def thing(
        self, centre: Array, half: Array, turn: Array, kinds: tuple[str, ...] = (*OBJECT, "plain", "poster")
    ) -> None:
        """A box (boards, books, crates) or a round thing."""
        grids = _box(half) if self.rng.random() < 0.55 else [_round(self.rng, half)]
        self.add(grids, self.texture(kinds, centre[2]), centre, turn, float(np.sort(half)[1]))

    def floating(self, low: float = 0.05, high: float = 0.9) -> None:
        """Something anywhere in view, turned at random."""
        z, rng = self.depth(low, high), self.rng
        half = z * self.view.tan[0] * np.exp(rng.uniform(np.log(0.05), np.log(0.32))) * rng.uniform(0.5, 1.3, 3)
        half *= min(1.0, 0.35 * z / half.max(), 0.9 * (z / self.near_m - 1) * self.near_m / half.max())
        turn = _rotation((2, rng.normal(0, 0.5)), (1, rng.uniform(-0.9, 0.9)), (0, rng.normal(0, 0.4)))
        self.thing(self.view.at(*rng.uniform(-0.95, 0.95, 2), z), half, turn)

    def standing(self, floor_y: float, low: float, high: float, top: tuple[float, float] | None = None) -> None:
        """Something on the floor (level coordinates), as tall as wide, or with its top at a screen height in ``top``."""
        rng, z = self.rng, self.depth(low, high)
        wide = z * self.view.tan[0] * rng.uniform(0.06, 0.24, 2)
        foot = self.world.T @ self.view.at(rng.uniform(-0.95, 0.95), 0, z)
        if top is None:
            slope = self.world[2] @ (0, 1, 0), self.world[2, 2]  # where the floor under the object has depth z
            foot[2] = (z - slope[0] * floor_y) / slope[1]
            tall = 2 * wide.mean() * rng.uniform(0.15, 1.6)
        else:
            tall = max(floor_y - (self.world.T @ self.view.at(0, rng.uniform(*top), z))[1], 0.04 * z * self.view.tan[0])
        half = np.array([wide[0], 0.5 * tall, min(wide[1], 0.25 * z)])
        turn = self.world @ _rotation((1, rng.uniform(-0.9, 0.9)))
        self.thing(self.world @ np.array([foot[0], floor_y - 0.5 * tall, foot[2]]), half, turn)

    def rod(self, low: float, high: float) -> None:
        """A thin rod or slat across most of the view."""
        rng, z = self.rng, self.depth(low, high)
        radius = self.view.pixel * z * np.exp(rng.uniform(np.log(0.8), np.log(7)))
        length = z * self.view.tan[0] * (2.5 if rng.random() < 0.6 else rng.uniform(0.4, 1.0))
        tilt = 0.0 if abs(rng.normal()) < 0.3 else rng.uniform(-0.25, 0.25)  # towards and away from the lens
        turn = _rotation((2, rng.choice([0, np.pi / 2], p=[0.7, 0.3]) + rng.normal(0, 0.35)), (0, tilt))
        along = np.linspace(-1, 1, 17)  # short pieces: long oblique triangles make a tracer's search tree slow
        if rng.random() < 0.7:
            ends = np.array([0.0]), np.ones(17), np.array([0.0])
            grids = [_lathe(radius * np.concatenate(ends), length * along[[0, *range(17), 16]], 12)]
        else:
            grids = [_resample(face, 17, 2) for face in _box(np.array([radius, length, 0.4 * radius]))]
        texture = self.texture(("wood", "plain", "gradient", "speckle", "fabric"), z)
        self.add(grids, texture, self.view.at(*rng.uniform(-0.9, 0.9, 2), z), turn)

    def card(self, low: float, high: float) -> None:
        """A thin, slanted board: depth runs along it."""
        rng, z = self.rng, self.depth(low, high)
        size = z * self.view.tan[0] * rng.uniform(0.2, 0.55, 2)
        slant = rng.uniform(-1.1, 1.1)
        fits = min(1.0, 0.8 * max(z - self.near_m, 0.05 * z) / (size.max() * abs(np.sin(slant)) + 1e-9))
        half = np.array([*(size * fits), 0.004 * z])
        turn = _rotation((2, rng.normal(0, 0.4)), (int(rng.integers(2)), slant))
        texture = self.texture(("poster", "text", "leaves", *OBJECT), z)
        self.add(_box(half), texture, self.view.at(*rng.uniform(-0.8, 0.8, 2), z), turn, 0.3 * float(size.min()))

    def border(self) -> None:
        """Something close that comes in over the border of the image, and is out of focus in most slices."""
        rng = self.rng
        z, side = self.near_m * rng.uniform(1.1, 1.6), rng.uniform(0, 2 * np.pi)
        size = z * self.view.tan[0] * rng.uniform(0.25, 0.5)
        half = np.minimum(size * np.array([1, rng.uniform(0.4, 1.5), 0.5]), 0.8 * (z - self.near_m))
        half[:2] = size * rng.uniform(0.7, 1.2, 2)
        turn = _rotation((2, rng.uniform(0, np.pi)))
        grids = _box(half) if rng.random() < 0.6 else [_round(rng, half[[2, 1, 2]])]
        centre = self.view.at(1.15 * np.cos(side), 1.15 * np.sin(side), z)
        self.add(grids, self.texture((*OBJECT, "leaves"), z), centre, turn, 0.5 * float(size))


# ---------------------------------------------------------------- kinds of scene


def _room(b: _Builder) -> None:
    rng, tan, far = b.rng, b.view.tan, 0.9 * b.far_m * b.rng.uniform(0.7, 1.0)
    b.world = _rotation((2, rng.normal(0, 0.04)), (0, rng.uniform(0.0, 0.35) * 2 * np.arctan(tan[1])))
    yaw = _rotation((1, rng.uniform(-0.6, 0.6) * np.arctan(tan[0]) * 2))
    floor_y, ceiling_y = far * tan[1] * rng.uniform(0.3, 0.7), -far * tan[1] * rng.uniform(0.45, 1.2)
    wall = b.texture((*FLAT, "bricks", "wood", "fabric", "marble", "books", "speckle"), far)
    b.plane(1, floor_y, 1.3 * far, b.texture(GROUND, 0.5 * far), yaw)
    b.plane(1, ceiling_y, 1.3 * far, b.texture((*FLAT, "wood"), far), yaw)
    for side in (-1, 1):
        texture = wall if rng.random() < 0.5 else b.texture((*FLAT, *GROUND, "books"), 0.6 * far)
        b.plane(0, side * far * tan[0] * rng.uniform(0.35, 0.9), 1.3 * far, texture, yaw)
    b.backdrop(far, b.world @ yaw, wall)
    for _ in range(int(rng.integers(1, 4))):
        centre = b.world @ yaw @ np.array([*rng.uniform(-0.5, 0.5, 2) * far * tan, 0.985 * far])
        half = far * tan[0] * np.array([*rng.uniform(0.05, 0.22, 2), 0.008])
        b.add(_box(half), b.texture(("poster", "leaves", "text", "books", "plain"), far), centre, b.world @ yaw)
    for _ in range(int(rng.integers(4, 9))):
        b.standing(floor_y, 0.02, 0.95, (-0.5, 0.9))
    for _ in range(int(rng.integers(0, 3))):
        b.rod(0.1, 0.9)


def _tabletop(b: _Builder) -> None:
    rng, tan = b.rng, b.view.tan
    half_angle = np.arctan(tan[1])
    pitch = half_angle * rng.uniform(0.8, 1.7)
    b.world = _rotation((2, rng.normal(0, 0.04)), (0, pitch))
    height = b.near_m * rng.uniform(1.15, 1.6) * np.sin(half_angle + pitch) / np.cos(half_angle)
    far = b.far_m * rng.uniform(0.5, 0.85)
    b.plane(1, height, far * rng.uniform(0.6, 1.2), b.texture((*GROUND, "wood", "text"), 2.5 * b.near_m), np.eye(3))
    lean = _rotation((1, rng.uniform(-0.35, 0.35)))
    b.backdrop(far, lean, b.texture((*FLAT, *OBJECT), far))
    for _ in range(int(rng.integers(7, 15))):
        b.standing(height, 0.02, 0.97)
    for _ in range(int(rng.integers(0, 3))):
        b.rod(0.2, 0.95)


def _clutter(b: _Builder) -> None:
    rng, far = b.rng, b.far_m * b.rng.uniform(0.6, 0.9)
    turn = _rotation((1, rng.uniform(-0.5, 0.5)), (0, rng.uniform(-0.3, 0.3)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far), bumps_m=far * rng.choice([0, 0.02, 0.04]))
    for _ in range(int(rng.integers(14, 30))):
        b.floating()


def _rods(b: _Builder) -> None:
    rng, far = b.rng, b.far_m * b.rng.uniform(0.45, 0.9)
    turn = _rotation((1, rng.uniform(-0.6, 0.6)), (0, rng.uniform(-0.3, 0.3)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far), bumps_m=far * rng.choice([0, 0.03]))
    for _ in range(int(rng.integers(9, 20))):
        b.rod(0.05, 0.97)
    for _ in range(int(rng.integers(3, 8))):
        b.floating(0.03, 0.7)


def _cards(b: _Builder) -> None:
    rng, far = b.rng, b.far_m * b.rng.uniform(0.55, 0.9)
    turn = _rotation((int(rng.integers(2)), rng.choice([-1, 1]) * rng.uniform(0.2, 0.8)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far))
    for _ in range(int(rng.integers(8, 16))):
        b.card(0.03, 0.95)
    for _ in range(int(rng.integers(0, 4))):
        b.floating()


_MAKERS = dict(zip(KINDS, (_room, _tabletop, _clutter, _rods, _cards), strict=True))


# ---------------------------------------------------------------- light and texture


@dataclass(frozen=True)
class _Light:
    """A lamp, light from everywhere, and the shadows that balls cast in both: baked into what surfaces emit."""

    lamp_m: Array
    reach_m: float
    ambient: float
    colour: Array
    balls: list[tuple[Array, float]]

    def shade(self, point: Array, normal: Array, owner: int) -> Array:
        """Irradiance (N,M,3) at points with unit normals (N,M,3), about 1 where well lit."""
        to_lamp = self.lamp_m - point
        distance = np.linalg.norm(to_lamp, axis=-1)
        cosine = np.clip((to_lamp * normal).sum(-1) / distance, 0, None)
        direct = (0.25 + 0.75 * cosine) / (1 + (distance / self.reach_m) ** 2)
        open_sky = 0.75 - 0.25 * normal[..., 1]
        for number, (centre, radius) in enumerate(self.balls):
            if number == owner or radius <= 0:
                continue
            to_ball = centre - point
            far = np.maximum(np.linalg.norm(to_ball, axis=-1), radius)
            open_sky = open_sky * (1 - 0.8 * np.clip((to_ball * normal).sum(-1) / far, 0, 1) * (radius / far) ** 2)
            along = (to_ball * to_lamp).sum(-1) / distance
            miss = np.sqrt(np.maximum((to_ball**2).sum(-1) - along**2, 0)) / radius
            between = (along > 0) & (along < distance)
            direct = direct * (1 - 0.7 * between * np.clip(1.6 - miss, 0, 1))
        return (self.ambient * open_sky + (1 - self.ambient) * direct)[..., None] * self.colour


def _normals(grid: Array) -> Array:
    normal = np.cross(np.gradient(grid, axis=0), np.gradient(grid, axis=1))
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-30)


def _texels(grid: Array, view: _View) -> tuple[int, int]:
    """Rows and columns of a texture with 1.3 texels for a pixel where the grid is nearest in view."""
    dense = _resample(grid, 25, 41)
    if ((_normals(dense) * dense).sum(-1) > 0.05 * dense[..., 2]).all():  # its back is turned to the whole lens
        return 6, 6
    z = dense[..., 2:]
    screen = dense[..., :2] / np.maximum(z, 1e-9) / view.pixel
    inside = (z[..., 0] > 0) & (np.abs(screen) < 0.65 * np.array([view.width, view.height])).all(-1)
    counts = []
    for axis in (0, 1):
        step = np.linalg.norm(np.diff(screen, axis=axis), axis=-1)
        ends = np.stack([np.delete(inside, -1, axis), np.delete(inside, 0, axis)]).any(0)
        counts.append(1.3 * (dense.shape[axis] - 1) * (step[ends].max() if ends.any() else 0))
    shrink = min(1.0, np.sqrt(0.8e6 / max(counts[0] * counts[1], 1)))
    return tuple(int(np.clip(count * shrink, 6, 2500)) for count in counts)


def _bake(grid: Array, texture: Texture, owner: int, light: _Light, texels: tuple[int, int]) -> Patch:
    """Give a grid its radiance: reflectance times light."""
    rows, columns = texels
    fine = texture.oversampling
    width = np.linalg.norm(np.diff(grid, axis=1), axis=-1).sum(1).max()
    height = np.linalg.norm(np.diff(grid, axis=0), axis=-1).sum(0).max()
    if owner < 0:  # bands of one floor continue each other
        start = grid[0, 0] @ _unit(grid[0, -1] - grid[0, 0]), grid[0, 0] @ _unit(grid[-1, 0] - grid[0, 0])
    else:
        start = np.random.default_rng([texture.salt, owner]).uniform(0, 30, 2) * texture.scale_m
    u = start[0] + (np.arange(fine * columns) + 0.5) / (fine * columns) * width
    v = start[1] + (np.arange(fine * rows) + 0.5) / (fine * rows) * height
    colour = texture.bake(u, v, (min if owner < 0 else max)(width / columns, height / rows))
    colour = colour.reshape(rows, fine, columns, fine, 3).mean((1, 3))
    dense = _resample(grid, 17, 33)
    shade = light.shade(dense, _normals(dense), owner)
    return Patch(grid.astype(np.float32), (colour * _resample(shade, rows, columns)).astype(np.float32))


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)


def _codes(radiance: Array) -> Array:
    return np.where(radiance <= 0.0031308, 12.92 * radiance, 1.055 * np.maximum(radiance, 1e-9) ** (1 / 2.4) - 0.055)


def _shoulder(radiance: Array) -> Array:
    """A photograph's tone curve: linear up to 0.6, then towards 1.03."""
    return np.where(radiance < 0.6, radiance, 0.6 + 0.43 * np.tanh((radiance - 0.6) / 0.43))


def _expose(patches: list[Patch], which: Array, uv: Array, mean_code: float) -> tuple[Patch, ...]:
    """Scale all light so that the mean code of the visible image is ``mean_code``."""
    seen = np.zeros((*which.shape, 3))
    for number, patch in enumerate(patches):
        here = which == number
        rows, columns = patch.radiance.shape[:2]
        i, j = (uv[here][:, 1] * rows).astype(int), (uv[here][:, 0] * columns).astype(int)
        seen[here] = patch.radiance[i.clip(0, rows - 1), j.clip(0, columns - 1)]
    low, high = 1e-3, 1e3
    for _ in range(40):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if _codes(_shoulder(middle * seen)).mean() < mean_code else (low, middle)
    return tuple(replace(patch, radiance=_shoulder(low * patch.radiance).astype(np.float32)) for patch in patches)


# ---------------------------------------------------------------- scenes


def _spread(depth_m: Array, near_m: float, far_m: float) -> float:
    """How well depths fill the range: entropy over 8 bins of inverse depth, in [0, 1]; -1 where some lie outside."""
    if not np.isfinite(depth_m).all() or depth_m.min() < near_m or depth_m.max() > far_m:
        return -1.0
    q = (1 / depth_m - 1 / far_m) / (1 / near_m - 1 / far_m)
    share = np.histogram(q, 8, (0, 1))[0] / q.size
    return float(-(share * np.log(np.maximum(share, 1e-12))).sum() / np.log(8))


def random_scene(
    seed: int, index: int, camera: Camera, height: int, width: int, near_m: float, far_m: float
) -> SceneDescription:
    """Scene ``index`` of ``seed``: geometry, textures and light, the same on every machine.

    Args:
        seed, index: which scene; any non-negative integers.
        camera: its pixel pitch and focal length set the field of view, which scales the scene's breadth.
        height, width: size in pixels of the images to come; textures have about a texel for each pixel.
        near_m, far_m: every visible depth lies in this range, and depths spread over it.

    Raises:
        InputError: the range is empty, or no scene fits into it.
    """
    if not 0 < near_m < far_m < np.inf:
        raise InputError(f"scene: expected 0 < near_m < far_m, got {near_m} and {far_m} (near_m, far_m)")
    view, best, step = _View(camera, height, width), (-1.0, None), 4
    kind = KINDS[int(np.random.default_rng([seed, index]).integers(len(KINDS)))]
    for attempt in range(_ATTEMPTS):
        builder = _Builder(np.random.default_rng([seed, index, attempt]), view, near_m * 1.03, far_m * 0.98)
        _MAKERS[kind](builder)
        if builder.rng.random() < 0.5:
            builder.border()
        bare = tuple(Patch(grid.astype(np.float32), np.zeros((1, 1, 3), np.float32)) for grid, _, _ in builder.faces)
        depth_m = cast_rays(bare, camera.resized(1 / step), max(height // step, 8), max(width // step, 8))[0]
        spread = _spread(depth_m, near_m, far_m)
        if spread > best[0]:
            depth_m, which, uv = cast_rays(bare, camera, height, width)
            if _spread(depth_m, near_m, far_m) >= 0:
                best, hits = (spread, builder), (which, uv)
        if best[0] > _ENOUGH_SPREAD:
            break
    if best[1] is None:
        raise InputError(f"scene: none fits between {near_m:g} and {far_m:g} m; widen the range (near_m, far_m)")
    return _finish(kind, best[1], *hits)


def _finish(kind: str, builder: _Builder, which: Array, uv: Array) -> SceneDescription:
    """Light, textures and exposure of a geometry, given the face and the texture coordinates that each pixel sees."""
    rng, view, far_m = builder.rng, builder.view, builder.far_m
    lamp = (
        np.array([rng.uniform(-1, 1) * view.tan[0], -rng.uniform(0.3, 1.2) * view.tan[1], rng.uniform(0.1, 0.7)])
        * far_m
    )
    warm = np.array([1, 0.5, 0]) * rng.normal(0, 0.12)
    light = _Light(
        lamp, far_m * rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.6), np.exp(warm - warm.mean()), builder.balls
    )
    patches = []
    for number, (grid, texture, owner) in enumerate(builder.faces):
        rows, columns = _texels(grid, view)
        if not (which == number).any():  # it shows in blur at most
            rows, columns = max(rows // 3, 6), max(columns // 3, 6)
        patches.append(_bake(grid, texture, owner, light, (rows, columns)))
    return SceneDescription(kind, _expose(patches, which, uv, rng.uniform(0.36, 0.52)))
