"""Procedural scenes: rooms and tabletops of analytic surfaces with procedural textures, ray-cast.

Scene ``index`` of seed ``seed`` is the same on every machine and any number of workers. Coordinates are metres in the
camera's frame: x right, y down, z away from the lens; depth is z.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from sfdfd.errors import checked_int
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.surfaces import Surface, axis_rotation
from sfdfd.scenes.textures import TEXTURED, SolidTexture

__all__ = ["ProceduralScenes", "make_scene"]

Array = np.ndarray


@dataclass
class _Scene:
    surfaces: list[Surface] = field(default_factory=list)
    light: Array = field(default_factory=lambda: np.array([0.4, -0.8, -0.5]))
    ambient: float = 0.45

    def add(self, kind: str, center, size, texture: SolidTexture, rotation: Array | None = None) -> None:
        rotation = np.eye(3) if rotation is None else rotation
        self.surfaces.append(Surface(np.asarray(center, float), rotation, texture, np.asarray(size, float), kind))


def _add_object(
    scene: _Scene, rng: np.random.Generator, x: float, z: float, floor_y: float, scale: float, world: Array
):
    """Add a random object on the floor at (x, z); ``world`` rotates level coordinates into the camera's."""
    kind = rng.choice(["box", "box", "ellipsoid", "cylinder", "pole"])
    size = scale * np.exp(rng.uniform(-0.5, 0.5, 3))
    texture = SolidTexture.random(rng, (*TEXTURED, "plain"))
    if kind == "pole":
        kind, size = "cylinder", np.array([scale * rng.uniform(0.08, 0.2), scale * rng.uniform(2.0, 4.0), 0.0])
    turn = world @ axis_rotation(1, rng.uniform(0, np.pi))
    if kind == "box" and rng.random() < 0.25:
        turn = turn @ axis_rotation(0, rng.uniform(-0.6, 0.6))
    scene.add(kind, world @ np.array([x, floor_y - size[1], z]), size, texture, turn)


def _random_scene(rng: np.random.Generator, near_m: float, far_m: float) -> _Scene:
    """Build a room or a tabletop whose visible depths lie between near and far, most of them well inside."""
    scene = _Scene(ambient=float(rng.uniform(0.35, 0.6)))
    light = rng.normal(size=3) * np.array([1.0, 0.3, 0.6]) + np.array([0.0, -1.0, -0.6])
    scene.light = light / np.linalg.norm(light)
    pitch, roll = rng.uniform(0.0, 0.4), rng.uniform(-0.06, 0.06)
    world = axis_rotation(2, roll) @ axis_rotation(0, pitch)
    tabletop = rng.random() < 0.35
    # the farthest depth in view, log-uniform so that small spaces are as frequent as large ones
    reach = float(np.exp(rng.uniform(np.log(max(1.6 * near_m, 0.22 * far_m)), np.log(0.95 * far_m))))
    if tabletop:
        reach = max(1.6 * near_m, 0.5 * reach)
    floor_y = float(rng.uniform(0.2, 0.34) * reach if not tabletop else rng.uniform(0.25, 0.45) * reach)
    wall_kinds = (*TEXTURED, "plain", "plain", "plain")
    yaw = axis_rotation(1, rng.uniform(-0.5, 0.5))
    up = np.array([0.0, 1.0, 0.0])

    def wall(point: Array, normal: Array, kinds: tuple[str, ...]) -> None:
        scene.add(
            "plane", world @ point, np.ones(3), SolidTexture.random(rng, kinds), world @ _rotation_from_up(normal)
        )

    wall(np.array([0.0, floor_y, 0.0]), up, TEXTURED)
    back = yaw @ np.array([0.0, 0.0, 1.0])
    wall(back * reach * rng.uniform(0.75, 1.0), back, wall_kinds)
    if not tabletop:
        side = yaw @ np.array([1.0, 0.0, 0.0])
        wall(side * reach * rng.uniform(0.3, 0.7), side, wall_kinds)
        wall(-side * reach * rng.uniform(0.3, 0.7), side, wall_kinds)
        wall(np.array([0.0, -reach * rng.uniform(0.25, 0.5), 0.0]), up, ("plain",))
    for _ in range(int(rng.integers(6, 15))):
        z = float(np.exp(rng.uniform(np.log(1.25 * near_m), np.log(0.85 * reach))))
        x = float(rng.uniform(-0.55, 0.55) * z)
        _add_object(scene, rng, x, z, floor_y, float(rng.uniform(0.06, 0.18) * z), world)
    if rng.random() < 0.5:  # a floating foreground object: its blurred edge covers a sharp background
        z = float(rng.uniform(1.15, 2.2) * near_m)
        scene.add(
            "ellipsoid" if rng.random() < 0.5 else "box",
            [rng.uniform(-0.3, 0.3) * z, rng.uniform(-0.2, 0.2) * z, z],
            z * rng.uniform(0.02, 0.09, 3),
            SolidTexture.random(rng, TEXTURED),
            axis_rotation(2, rng.uniform(0, np.pi)) @ axis_rotation(1, rng.uniform(0, np.pi)),
        )
    return scene


def _rotation_from_up(normal: Array) -> Array:
    """Return the (3,3) rotation that turns the y axis to a unit normal."""
    axis = np.cross([0.0, 1.0, 0.0], normal)
    length = np.linalg.norm(axis)
    if length < 1e-9:
        return np.eye(3)
    axis, angle = axis / length, np.arccos(np.clip(normal[1], -1, 1))
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def make_scene(
    seed: int, index: int, height: int, width: int, near_m: float, far_m: float, oversampling: int = 2
) -> tuple[Array, Array]:
    """Ray-cast scene ``index`` of a seed.

    Args:
        seed, index: any non-negative integers.
        height, width: size in pixels.
        near_m, far_m: range of the depth in metres; depths outside are clamped.
        oversampling: rays per pixel and axis, for the colour.

    Returns:
        aif (H,W,3) float32 in [0, 1] and depth_m (H,W) float32 in [near_m, far_m].

    Examples:
        >>> aif, depth_m = make_scene(seed=0, index=3, height=24, width=32, near_m=0.5, far_m=10.0)
        >>> aif.shape, depth_m.shape, bool(depth_m.min() >= 0.5)
        ((24, 32, 3), (24, 32), True)
    """
    rng = np.random.default_rng([seed, index])
    scene = _random_scene(rng, near_m, far_m)
    rows, columns = height * oversampling, width * oversampling
    half = np.tan(0.5 * rng.uniform(0.8, 1.05))  # half of the horizontal field of view, 46 to 60 degrees
    x = (np.arange(columns) + 0.5) / columns * 2 - 1
    y = ((np.arange(rows) + 0.5) / rows * 2 - 1) * height / width
    direction = np.stack(np.broadcast_arrays(half * x[None], half * y[:, None], np.ones((1, 1))), -1).reshape(-1, 3)
    nearest, visible, normal = _first_hits(scene.surfaces, direction, 0.9 * near_m)
    light = _shaded(scene, direction, nearest, visible, normal) * rng.uniform(0.9, 1.15)
    blocks = np.clip(light, 0, 1).reshape(height, oversampling, width, oversampling, 3)
    aif = blocks.mean((1, 3)) ** (1 / 1.3)  # a mild display curve brightens the image
    middle = oversampling // 2
    depth = np.clip(np.where(np.isfinite(nearest), nearest, far_m), near_m, far_m)
    depth = depth.reshape(height, oversampling, width, oversampling)[:, middle, :, middle]
    return aif.astype(np.float32), depth.astype(np.float32)


def _first_hits(surfaces: list[Surface], direction: Array, least_m: float) -> tuple[Array, Array, Array]:
    """Return, for rays (N,3) with z = 1, depth (N,) (inf without a hit), number of the surface (-1) and normal (N,3)."""
    nearest = np.full(len(direction), np.inf)
    visible = np.full(len(direction), -1)
    normal = np.zeros_like(direction)
    for number, surface in enumerate(surfaces):
        distance, surface_normal = surface.hit(np.zeros(3), direction)
        closer = (distance < nearest) & (distance > least_m)
        nearest[closer], visible[closer], normal[closer] = distance[closer], number, surface_normal[closer]
    return nearest, visible, normal


def _shaded(scene: _Scene, direction: Array, nearest: Array, visible: Array, normal: Array) -> Array:
    """Return the colour (N,3) of each ray: texture times light."""
    colour = np.full_like(direction, 0.7)
    for number, surface in enumerate(scene.surfaces):
        seen = visible == number
        if seen.any():
            local = (direction[seen] * nearest[seen, None] - surface.center) @ surface.rotation
            colour[seen] = surface.texture.colour(local)
    facing = np.abs(normal @ scene.light) * 0.6 + 0.4 * np.clip(normal @ scene.light, 0, None)
    shade = scene.ambient + (1 - scene.ambient) * np.where(visible >= 0, facing, 1.0)
    return colour * shade[:, None]


class ProceduralScenes(Dataset):
    """Procedural scenes with AIF and depth.

    Args:
        length: number of scenes.
        near_m, far_m: range of the depth in metres.
        seed: of all scenes.
        first_index: index of the first scene; disjoint ranges hold different scenes.
        height, width: size in pixels.
    """

    def __init__(
        self,
        length: int,
        near_m: float,
        far_m: float,
        seed: int = 0,
        first_index: int = 0,
        height: int = 128,
        width: int = 160,
    ) -> None:
        for key, value in (("length", length), ("height", height), ("width", width)):
            checked_int(value, f"data.{key}", 1)
        self.length, self.near_m, self.far_m = length, near_m, far_m
        self.seed, self.first_index = seed, first_index
        self.height, self.width = height, width

    def __len__(self) -> int:
        return self.length

    def identity(self, index: int) -> list[Any]:
        """Return what the scene depends on."""
        return [self.seed, self.first_index + index, self.height, self.width]

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < self.length:
            raise IndexError(index)
        number = self.first_index + index
        aif, depth_m = make_scene(self.seed, number, self.height, self.width, self.near_m, self.far_m)
        return Scene(
            torch.from_numpy(aif).permute(2, 0, 1).contiguous(),
            torch.from_numpy(depth_m),
            name=f"scene{number:05d}",
            seed=number,
        )
