"""Light and exposure of path-traced scenes: a lamp, the sky and soft shadows become the radiance of each surface."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sfdfd.scenes.raytraced.patches import Patch, View, resample
from sfdfd.scenes.raytraced.surface_textures import SurfaceTexture, linear_to_srgb

__all__ = ["Light", "bake_patch", "expose", "texture_size"]

Array = np.ndarray


@dataclass(frozen=True)
class Light:
    """A lamp and ambient light, with soft shadows cast by balls.

    Attributes:
        lamp_m: (3,) position in the camera's frame.
        reach_m: distance at which the lamp has half its strength.
        ambient: share of ambient light, in [0, 1].
        colour: (3,) of both lights.
        balls: centre and radius of each object's shadow caster.
    """

    lamp_m: Array
    reach_m: float
    ambient: float
    colour: Array
    balls: list[tuple[Array, float]]

    def shade(self, point: Array, normal: Array, owner: int) -> Array:
        """Return the irradiance (N,M,3) at points with unit normals (N,M,3), about 1 where well lit."""
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


def texture_size(grid: Array, view: View) -> tuple[int, int]:
    """Return rows and columns of a texture with 1.3 texels per pixel where the grid is nearest in view."""
    dense = resample(grid, 25, 41)
    if ((_normals(dense) * dense).sum(-1) > 0.05 * dense[..., 2]).all():  # the lens sees only its back
        return 6, 6
    z = dense[..., 2:]
    screen = dense[..., :2] / np.maximum(z, 1e-9) / view.pixel
    inside = (z[..., 0] > 0) & (np.abs(screen) < 0.65 * np.array([view.width, view.height])).all(-1)
    counts = []
    for axis in (0, 1):
        step = np.linalg.norm(np.diff(screen, axis=axis), axis=-1)
        ends = np.stack([np.delete(inside, -1, axis), np.delete(inside, 0, axis)]).any(0)
        counts.append(1.3 * (dense.shape[axis] - 1) * (step[ends].max() if ends.any() else 0))
    shrink = min(1.0, np.sqrt(0.5e6 / max(counts[0] * counts[1], 1)))
    rows, columns = (int(np.clip(count * shrink, 6, 2500)) for count in counts)
    return rows, columns


def bake_patch(grid: Array, texture: SurfaceTexture, owner: int, light: Light, size: tuple[int, int]) -> Patch:
    """Return the grid with its radiance: reflectance times light, as a texture of ``size`` (rows, columns)."""
    rows, columns = size
    fine = texture.oversampling
    width = np.linalg.norm(np.diff(grid, axis=1), axis=-1).sum(1).max()
    height = np.linalg.norm(np.diff(grid, axis=0), axis=-1).sum(0).max()
    start: Array | tuple[float, float]
    if owner < 0:  # the bands of a floor share one texture
        start = grid[0, 0] @ _unit(grid[0, -1] - grid[0, 0]), grid[0, 0] @ _unit(grid[-1, 0] - grid[0, 0])
    else:
        start = np.random.default_rng([texture.salt, owner]).uniform(0, 30, 2) * texture.scale_m
    u = start[0] + (np.arange(fine * columns) + 0.5) / (fine * columns) * width
    v = start[1] + (np.arange(fine * rows) + 0.5) / (fine * rows) * height
    colour = texture.bake(u, v, (min if owner < 0 else max)(width / columns, height / rows))
    colour = colour.reshape(rows, fine, columns, fine, 3).mean((1, 3))
    dense = resample(grid, 17, 33)
    shade = light.shade(dense, _normals(dense), owner)
    return Patch(grid.astype(np.float32), (colour * resample(shade, rows, columns)).astype(np.float32))


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)


def _tone_curve(radiance: Array) -> Array:
    """Compress highlights as photographs do: linear up to 0.6, then towards 1.03."""
    return np.where(radiance < 0.6, radiance, 0.6 + 0.43 * np.tanh((radiance - 0.6) / 0.43))


def expose(patches: list[Patch], visible: Array, uv: Array, mean_code: float) -> tuple[Patch, ...]:
    """Scale all light so that the mean sRGB code of the image is ``mean_code``; ``visible`` (H,W) and ``uv`` are of
    :func:`cast_rays`."""
    seen = np.zeros((*visible.shape, 3))
    for number, patch in enumerate(patches):
        pixels = visible == number
        rows, columns = patch.radiance.shape[:2]
        i, j = (uv[pixels][:, 1] * rows).astype(int), (uv[pixels][:, 0] * columns).astype(int)
        seen[pixels] = patch.radiance[i.clip(0, rows - 1), j.clip(0, columns - 1)]
    low, high = 1e-3, 1e3
    for _ in range(40):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if linear_to_srgb(_tone_curve(middle * seen)).mean() < mean_code else (low, middle)
    return tuple(replace(patch, radiance=_tone_curve(low * patch.radiance).astype(np.float32)) for patch in patches)
