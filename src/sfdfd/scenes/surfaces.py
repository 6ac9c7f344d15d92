"""Analytic surfaces: intersections of rays with planes, boxes, ellipsoids and cylinders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfdfd.scenes.textures import SolidTexture

__all__ = ["Surface", "axis_rotation"]

Array = np.ndarray


@dataclass
class Surface:
    """A textured shape in its own frame.

    Attributes:
        center: (3,) position in the camera's frame.
        rotation: (3,3) from the shape's frame to the camera's.
        texture: its colours.
        size: (3,) half extents; of a cylinder radius and half height.
        kind: "plane", "box", "ellipsoid" or "cylinder".
    """

    center: Array
    rotation: Array
    texture: SolidTexture
    size: Array
    kind: str

    def hit(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """Return each ray's distance (N,) (inf if it misses) and the outward normal (N,3)."""
        o = self.rotation.T @ (origin - self.center)
        d = direction @ self.rotation
        distance, normal = getattr(self, f"_{self.kind}")(o, d)
        return distance, normal @ self.rotation.T

    def _plane(self, o: Array, d: Array) -> tuple[Array, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -o[1] / d[:, 1]
        t = np.where(np.isfinite(t) & (t > 1e-3), t, np.inf)
        normal = np.zeros_like(d)
        normal[:, 1] = -np.sign(d[:, 1])
        return t, normal

    def _box(self, o: Array, d: Array) -> tuple[Array, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (-self.size - o) / d, (self.size - o) / d
        near, far = np.fmin(a, b), np.fmax(a, b)
        enter, leave = near.max(1), far.min(1)
        t = np.where((enter <= leave) & (enter > 1e-3), enter, np.inf)
        normal = np.zeros_like(d)
        axis = near.argmax(1)
        rows = np.arange(len(d))
        normal[rows, axis] = -np.sign(d[rows, axis])
        return t, normal

    def _ellipsoid(self, o: Array, d: Array) -> tuple[Array, Array]:
        os, ds = o / self.size, d / self.size
        t = _quadratic((ds * ds).sum(1), 2 * (ds @ os), (os @ os) - 1)
        point = o + np.where(np.isfinite(t), t, 0.0)[:, None] * d
        normal = point / self.size**2
        return t, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)

    def _cylinder(self, o: Array, d: Array) -> tuple[Array, Array]:
        radius, half = self.size[0], self.size[1]
        a = d[:, 0] ** 2 + d[:, 2] ** 2
        t = _quadratic(a, 2 * (d[:, 0] * o[0] + d[:, 2] * o[2]), o[0] ** 2 + o[2] ** 2 - radius**2)
        y = o[1] + np.where(np.isfinite(t), t, 0.0) * d[:, 1]
        side = np.where(np.abs(y) <= half, t, np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            cap = (-half * np.sign(d[:, 1]) - o[1]) / d[:, 1]
            x, z = o[0] + cap * d[:, 0], o[2] + cap * d[:, 2]
        cap = np.where((x * x + z * z <= radius**2) & (cap > 1e-3), cap, np.inf)
        t = np.minimum(side, cap)
        point = o + np.where(np.isfinite(t), t, 0.0)[:, None] * d
        normal = np.stack([point[:, 0], 0 * y, point[:, 2]], 1) / radius
        on_cap = cap < side
        normal[on_cap] = 0.0
        normal[on_cap, 1] = -np.sign(d[on_cap, 1])
        return t, normal


def _quadratic(a: Array, b: Array, c: float) -> Array:
    """Return the smallest root beyond 1 mm, inf where there is none."""
    discriminant = b * b - 4 * a * c
    root = np.sqrt(np.maximum(discriminant, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (-b - root) / (2 * a), (-b + root) / (2 * a)
    t = np.where(first > 1e-3, first, np.where(second > 1e-3, second, np.inf))
    return np.where((discriminant > 0) & (a > 1e-12), t, np.inf)


def axis_rotation(axis: int, angle: float) -> Array:
    """Return the (3,3) rotation about x, y or z (0, 1, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix
