"""Surfaces of path-traced scenes: patches, exact ray casting through a pinhole, and shapes as grids of points.

Coordinates are metres in the camera's frame: x right, y down, z away from the lens; depth is z. Scenes and their depth do
not need Mitsuba.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfdfd.optics.camera import Camera
from sfdfd.scenes.raytraced.surface_textures import linear_weights
from sfdfd.scenes.surfaces import axis_rotation

__all__ = [
    "Patch",
    "SceneDescription",
    "View",
    "box",
    "cast_rays",
    "flat_grid",
    "lathe",
    "resample",
    "rotation",
    "round_object",
]

Array = np.ndarray


@dataclass(frozen=True)
class Patch:
    """A surface that emits its texture as light.

    Attributes:
        vertices_m: (N,M,3) float32 grid of points; the side from which columns run right and rows down is lit.
        radiance: (V,U,3) float32 linear light in [0, 1], stretched over the grid.
    """

    vertices_m: Array
    radiance: Array

    @property
    def triangles(self) -> Array:
        """Return (T,3) indices into the flattened grid, two triangles per cell."""
        rows, columns = self.vertices_m.shape[:2]
        corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).reshape(-1, 1)
        a, b, c, d = corner, corner + 1, corner + columns, corner + columns + 1
        return np.concatenate([np.hstack([a, c, b]), np.hstack([b, c, d])])

    @property
    def uv(self) -> Array:
        """Return (N*M,2) texture coordinates in [0, 1]; u along columns, v along rows."""
        rows, columns = self.vertices_m.shape[:2]
        grid = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
        return np.stack(grid, -1).reshape(-1, 2)


@dataclass(frozen=True)
class SceneDescription:
    """The surfaces that the path tracer renders, and their kind of scene (one of ``KINDS``)."""

    kind: str
    patches: tuple[Patch, ...]


def cast_rays(patches: tuple[Patch, ...], camera: Camera, height: int, width: int) -> tuple[Array, Array, Array]:
    """Return the first hit of the ray through each pixel centre, in float64, on the triangles that Mitsuba gets.

    Args:
        patches: surfaces in the camera's frame.
        camera: gives the ray directions: x = (column + 0.5 - W/2) pitch / focal length * z.
        height, width: size in pixels.

    Returns:
        depth_m (H,W) float64 (inf where nothing is hit), patch (H,W) int64 (-1), uv (H,W,2) texture coordinates.
    """
    pixel = camera.pixel_pitch_m / camera.focal_length_m
    x, y = (np.arange(width) + 0.5 - width / 2)[None] * pixel, (np.arange(height) + 0.5 - height / 2)[:, None] * pixel
    inverse_depth, visible, uv = np.zeros((height, width)), np.full((height, width), -1), np.zeros((height, width, 2))
    for number, patch in enumerate(patches):
        triangles, patch_uv = patch.triangles, patch.uv
        corners = patch.vertices_m.reshape(-1, 3).astype(np.float64)[triangles]
        volume = np.linalg.det(corners)  # negative where the lit side faces the lens
        z = corners[..., 2:]
        flat = np.where(z > 0, corners[..., :2] / np.where(z > 0, z, 1), 0) / pixel + (
            width / 2 - 0.5,
            height / 2 - 0.5,
        )
        ahead = (z > 0).all(1)  # a triangle that crosses the lens plane may be anywhere in the image
        low = np.where(ahead, np.ceil(flat.min(1) - 1e-6), 0).clip(0, 1e6).astype(int)
        high = np.where(ahead, np.floor(flat.max(1) + 1e-6), 1e6).clip(-1, (width - 1, height - 1)).astype(int)
        candidates = (volume < -1e-12 * np.abs(corners).max((1, 2)) ** 3) & (z > 0).any(1)[:, 0] & (low <= high).all(1)
        for t in np.flatnonzero(candidates):
            window = np.s_[low[t, 1] : high[t, 1] + 1, low[t, 0] : high[t, 0] + 1]
            # the ray (x, y, 1) = b0 p0 + b1 p1 + b2 p2 meets the triangle where no b is negative, at depth 1 / sum(b)
            inverse = np.linalg.inv(corners[t].T)
            b = [row[0] * x[:, window[1]] + row[1] * y[window[0]] + row[2] for row in inverse]
            near = b[0] + b[1] + b[2]
            hit = (np.minimum(np.minimum(b[0], b[1]), b[2]) >= -1e-9 * np.abs(near)) & (near > inverse_depth[window])
            if hit.any():
                inverse_depth[window][hit], visible[window][hit] = near[hit], number
                uv[window][hit] = np.stack([part[hit] for part in b], -1) @ patch_uv[triangles[t]] / near[hit, None]
    with np.errstate(divide="ignore"):
        return 1 / inverse_depth, visible, uv


@dataclass
class View:
    """The camera's frustum: half tangents (``tan``) and the size of a pixel at distance 1 (``pixel``)."""

    camera: Camera
    height: int
    width: int

    def __post_init__(self) -> None:
        self.pixel = self.camera.pixel_pitch_m / self.camera.focal_length_m
        self.tan = np.array([self.width, self.height]) * self.pixel / 2

    def at(self, x: float, y: float, z: float) -> Array:
        """Return the point at depth z and screen position (x, y) in [-1, 1]."""
        return np.array([x * self.tan[0] * z, y * self.tan[1] * z, z])


# ---------------------------------------------------------------- shapes, as grids of points


def rotation(*turns: tuple[int, float]) -> Array:
    """Return the product of rotations (axis, angle in radians)."""
    total = np.eye(3)
    for axis, angle in turns:
        total = total @ axis_rotation(axis, angle)
    return total


def flat_grid(
    origin: Sequence[float] | Array,
    along_u: Sequence[float] | Array,
    along_v: Sequence[float] | Array,
    rows: int = 2,
    columns: int = 2,
) -> Array:
    """Return a flat grid (rows, columns, 3) over a parallelogram; lit where u runs right and v down."""
    u, v = np.linspace(0, 1, columns)[None, :, None], np.linspace(0, 1, rows)[:, None, None]
    return np.asarray(origin, float) + u * np.asarray(along_u, float) + v * np.asarray(along_v, float)


def box(half: Array) -> list[Array]:
    """Return the six faces of a box with half extents ``half``."""
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v, n = np.zeros((3, 3))
            n[axis], u[(axis + 1) % 3], v[(axis + 2) % 3] = (
                sign * half[axis],
                half[(axis + 1) % 3],
                half[(axis + 2) % 3],
            )
            if axis == 0:  # keep v vertical, so that text and boards are level
                u, v = v, u
            if np.dot(np.cross(u, v), n) > 0:
                u = -u
            faces.append(flat_grid(n - u - v, 2 * u, 2 * v))
    return faces


def lathe(radius: Array, y: Array, segments: int = 40) -> Array:
    """Return a surface of revolution about y, from top (small y) to bottom; its seam lies at the back (z > 0)."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None]
    radius = np.maximum(radius, 1e-4 * radius.max())[:, None]
    return np.stack([-radius * np.sin(angle), y[:, None] + 0 * angle, radius * np.cos(angle)], -1)


def round_object(rng: np.random.Generator, half: Array) -> Array:
    """Return a random cylinder, ball, cone or vase inside half extents ``half``."""
    r, h = 0.5 * (half[0] + half[2]), half[1]
    shape = rng.choice(["cylinder", "ball", "cone", "vase"])
    if shape == "cylinder":
        return lathe(r * np.array([0, 1, 1, 0]), h * np.array([-1, -1, 1, 1]))
    angle = np.linspace(0, np.pi, 20)
    if shape == "ball":
        return lathe(r * np.sin(angle), -r * np.cos(angle) + max(0, h - r))
    if shape == "cone":
        return lathe(r * np.array([0, 0.15, 1, 0]), h * np.array([-1, -1, 1, 1]))
    t = np.linspace(-1, 1, 24)
    belly = 0.6 + 0.25 * np.sin(rng.uniform(1.5, 3.5) * t + rng.uniform(0, 6)) + 0.15 * np.sin(rng.uniform(3, 6) * t)
    return lathe(np.concatenate([[0], r * belly, [0]]), h * np.concatenate([[-1], t, [1]]))


def resample(grid: Array, rows: int, columns: int) -> Array:
    """Resample a grid (N,M,3) to (rows,columns,3), bilinearly."""
    across = linear_weights(np.linspace(0, grid.shape[1] - 1, columns), grid.shape[1])
    down = linear_weights(np.linspace(0, grid.shape[0] - 1, rows), grid.shape[0])
    return np.einsum("rn,nmc,km->rkc", down, grid, across, optimize=True)
