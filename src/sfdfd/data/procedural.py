"""Seeded scenes made from nothing: rooms and tabletops, ray-cast with analytic surfaces and procedural textures.

Scene ``index`` of seed ``seed`` is the same on every machine and any number of workers. Coordinates are metres in the
camera's frame: x right, y down, z away from the lens; depth is z.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from scipy.ndimage import map_coordinates
from torch.utils.data import Dataset

from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.stack import FocalStack

__all__ = ["ProceduralScenes", "make_scene"]

Array = np.ndarray


# ---------------------------------------------------------------- texture


PERIOD = 64
_LATTICE = np.random.default_rng(20230310).random((PERIOD,) * 3, dtype=np.float32)


def _fractal(point: Array, salt: int, octaves: int, gain: float) -> Array:
    """Octaves of value noise at points (N, 3) of unit spacing; zero mean, about unit range; falls by ``gain`` each."""
    total, amplitude, norm = np.zeros(len(point), np.float32), 1.0, 0.0
    shift = np.random.default_rng(salt).uniform(0, PERIOD, (octaves, 3))
    for octave in range(octaves):
        where = (point * 2.0**octave + shift[octave]).T
        total += amplitude * (map_coordinates(_LATTICE, where, order=1, mode="grid-wrap") - 0.5)
        norm += amplitude**2
        amplitude *= gain
    return total * (2.0 / np.sqrt(norm))


def _cell_tone(cell: Array, salt: int) -> Array:
    """One random number in [0, 1) for each integer cell (N, 3)."""
    i, j, k = (((cell + salt % 4096) % PERIOD).astype(np.int64)).T
    return _LATTICE[i, j, k]


@dataclass
class Texture:
    """A solid texture: colour as a function of a point on the surface, in metres."""

    kind: str
    base: Array
    other: Array
    scale_m: float
    gain: float
    salt: int
    contrast: float

    @classmethod
    def random(cls, rng: np.random.Generator, kinds: tuple[str, ...]) -> Texture:
        hue, value = rng.random(), rng.uniform(0.55, 1.0)
        base = hsv_to_rgb((hue, rng.uniform(0.05, 0.65), value))
        other = hsv_to_rgb(((hue + rng.normal(0, 0.12)) % 1, rng.uniform(0.1, 0.8), value * rng.uniform(0.12, 0.55)))
        if rng.random() < 0.4:
            base, other = other, base
        return cls(
            kind=str(rng.choice(kinds)),
            base=np.asarray(base),
            other=np.asarray(other),
            scale_m=float(np.exp(rng.uniform(np.log(0.05), np.log(0.4)))),
            gain=float(rng.uniform(0.6, 0.85)),
            salt=int(rng.integers(1 << 30)),
            contrast=float(rng.uniform(0.6, 1.2)),
        )

    def colour(self, point: Array) -> Array:
        """(N,3) points in metres -> (N,3) reflectance in [0, 1]."""
        if self.kind == "plain":
            amount = 0.05 + 0.05 * _fractal(point / 0.8, self.salt, 2, 0.5)
        elif self.kind == "checker":
            cell = np.floor(point / self.scale_m).astype(np.int64).sum(1) % 2
            amount = 0.7 * cell + 0.3 * _fractal(point / self.scale_m, self.salt, 4, self.gain)
        elif self.kind == "stripes":
            axis = self.salt % 3
            wave = np.sin(2 * np.pi * (point[:, axis] / self.scale_m + 0.3 * _fractal(point / 0.5, self.salt, 2, 0.5)))
            amount = 0.5 + 0.5 * np.tanh(3 * wave) + 0.2 * _fractal(point / self.scale_m, self.salt + 9, 4, self.gain)
        elif self.kind == "bricks":
            u, v = (point[:, 0] + point[:, 2]) / (2 * self.scale_m), point[:, 1] / self.scale_m
            u = u + 0.5 * (np.floor(v) % 2)
            mortar = (u - np.floor(u) < 0.06) | (v - np.floor(v) < 0.12)
            tone = _cell_tone(np.stack([np.floor(u), np.floor(v), 0 * u], 1), self.salt)
            amount = np.where(mortar, 1.0, 0.6 * tone) + 0.25 * _fractal(point / 0.05, self.salt, 4, self.gain)
        elif self.kind == "wood":
            stretch = np.array([1.0, 1.0, 1.0])
            stretch[self.salt % 3] = 0.08
            amount = 0.5 + 0.8 * _fractal(point * stretch / (0.25 * self.scale_m), self.salt, 5, self.gain)
        else:  # "marble", "speckle": fractal noise, coarse or fine
            scale = self.scale_m if self.kind == "marble" else 0.15 * self.scale_m
            amount = 0.5 + 0.9 * _fractal(point / scale, self.salt, 6, self.gain)
        amount = np.clip(self.contrast * amount, -0.2, 1.2)[:, None]
        tint = 1 + 0.15 * _fractal(point / 0.3 + 5.5, self.salt + 77, 3, 0.6)[:, None]
        return np.clip((self.base * (1 - amount) + self.other * amount) * tint, 0.0, 1.0)


TEXTURED = ("marble", "speckle", "checker", "stripes", "bricks", "wood", "speckle", "marble")


# ---------------------------------------------------------------- surfaces


@dataclass
class Surface:
    """A shape in its own frame: ``hit`` gives the ray's distance (inf where it misses) and the outward normal."""

    center: Array
    rotation: Array
    texture: Texture
    size: Array
    kind: str

    def hit(self, origin: Array, direction: Array) -> tuple[Array, Array]:
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
    """Smallest root beyond 1 mm, inf where there is none."""
    discriminant = b * b - 4 * a * c
    root = np.sqrt(np.maximum(discriminant, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (-b - root) / (2 * a), (-b + root) / (2 * a)
    t = np.where(first > 1e-3, first, np.where(second > 1e-3, second, np.inf))
    return np.where((discriminant > 0) & (a > 1e-12), t, np.inf)


def _rotation(axis: int, angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


# ---------------------------------------------------------------- scenes


@dataclass
class _Scene:
    surfaces: list[Surface] = field(default_factory=list)
    light: Array = field(default_factory=lambda: np.array([0.4, -0.8, -0.5]))
    ambient: float = 0.45

    def add(self, kind: str, center, size, texture: Texture, rotation: Array | None = None) -> None:
        rotation = np.eye(3) if rotation is None else rotation
        self.surfaces.append(Surface(np.asarray(center, float), rotation, texture, np.asarray(size, float), kind))


def _object(scene: _Scene, rng: np.random.Generator, x: float, z: float, floor_y: float, scale: float, world: Array):
    """Stand one random object on the floor at (x, z); ``world`` turns level coordinates into the camera's."""
    kind = rng.choice(["box", "box", "ellipsoid", "cylinder", "pole"])
    size = scale * np.exp(rng.uniform(-0.5, 0.5, 3))
    texture = Texture.random(rng, (*TEXTURED, "plain"))
    if kind == "pole":
        kind, size = "cylinder", np.array([scale * rng.uniform(0.08, 0.2), scale * rng.uniform(2.0, 4.0), 0.0])
    turn = world @ _rotation(1, rng.uniform(0, np.pi))
    if kind == "box" and rng.random() < 0.25:
        turn = turn @ _rotation(0, rng.uniform(-0.6, 0.6))
    scene.add(kind, world @ np.array([x, floor_y - size[1], z]), size, texture, turn)


def _random_scene(rng: np.random.Generator, near_m: float, far_m: float) -> _Scene:
    """A room or a tabletop whose visible depths lie between near and far, most of them well inside."""
    scene = _Scene(ambient=float(rng.uniform(0.35, 0.6)))
    light = rng.normal(size=3) * np.array([1.0, 0.3, 0.6]) + np.array([0.0, -1.0, -0.6])
    scene.light = light / np.linalg.norm(light)
    pitch, roll = rng.uniform(0.0, 0.4), rng.uniform(-0.06, 0.06)
    world = _rotation(2, roll) @ _rotation(0, pitch)
    tabletop = rng.random() < 0.35
    # the farthest depth in view, log-uniform so that small spaces are as frequent as large ones
    reach = float(np.exp(rng.uniform(np.log(max(1.6 * near_m, 0.22 * far_m)), np.log(0.95 * far_m))))
    if tabletop:
        reach = max(1.6 * near_m, 0.5 * reach)
    floor_y = float(rng.uniform(0.2, 0.34) * reach if not tabletop else rng.uniform(0.25, 0.45) * reach)
    wall_kinds = (*TEXTURED, "plain", "plain", "plain")
    yaw = _rotation(1, rng.uniform(-0.5, 0.5))
    up = np.array([0.0, 1.0, 0.0])

    def wall(point: Array, normal: Array, kinds: tuple[str, ...]) -> None:
        axis = np.cross(up, normal)
        length = np.linalg.norm(axis)
        if length < 1e-9:
            rotation = np.eye(3)
        else:
            axis, angle = axis / length, np.arccos(np.clip(normal[1], -1, 1))
            skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
            rotation = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
        scene.add("plane", world @ point, np.ones(3), Texture.random(rng, kinds), world @ rotation)

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
        _object(scene, rng, x, z, floor_y, float(rng.uniform(0.06, 0.18) * z), world)
    if rng.random() < 0.5:  # something that hangs in front, so that a blurred edge covers a sharp background
        z = float(rng.uniform(1.15, 2.2) * near_m)
        scene.add(
            "ellipsoid" if rng.random() < 0.5 else "box",
            [rng.uniform(-0.3, 0.3) * z, rng.uniform(-0.2, 0.2) * z, z],
            z * rng.uniform(0.02, 0.09, 3),
            Texture.random(rng, TEXTURED),
            _rotation(2, rng.uniform(0, np.pi)) @ _rotation(1, rng.uniform(0, np.pi)),
        )
    return scene


def make_scene(
    seed: int, index: int, height: int, width: int, near_m: float, far_m: float, oversampling: int = 2
) -> tuple[Array, Array]:
    """Ray-cast scene ``index``.

    Args:
        seed, index: which scene; any non-negative integers.
        height, width: size in pixels.
        near_m, far_m: range of the depth in metres; what would lie outside is clamped.
        oversampling: rays per pixel and axis, for the colour.

    Returns:
        aif (H,W,3) float32 in [0, 1] and depth_m (H,W) float32 in [near_m, far_m].
    """
    rng = np.random.default_rng([seed, index])
    scene = _random_scene(rng, near_m, far_m)
    rows, columns = height * oversampling, width * oversampling
    half = np.tan(0.5 * rng.uniform(0.8, 1.05))  # half of the horizontal field of view, 46 to 60 degrees
    x = (np.arange(columns) + 0.5) / columns * 2 - 1
    y = ((np.arange(rows) + 0.5) / rows * 2 - 1) * height / width
    direction = np.stack(np.broadcast_arrays(half * x[None], half * y[:, None], np.ones((1, 1))), -1).reshape(-1, 3)
    origin = np.zeros(3)

    best = np.full(len(direction), np.inf)
    which = np.full(len(direction), -1)
    normal = np.zeros_like(direction)
    for number, surface in enumerate(scene.surfaces):
        t, n = surface.hit(origin, direction)
        closer = (t < best) & (t > 0.9 * near_m)  # the direction's z is 1, so t is depth
        best[closer], which[closer], normal[closer] = t[closer], number, n[closer]
    depth = np.clip(np.where(np.isfinite(best), best, far_m), near_m, far_m)
    colour = np.full_like(direction, 0.7)
    for number, surface in enumerate(scene.surfaces):
        seen = which == number
        if seen.any():
            local = (direction[seen] * best[seen, None] - surface.center) @ surface.rotation
            colour[seen] = surface.texture.colour(local)
    facing = np.abs(normal @ scene.light) * 0.6 + 0.4 * np.clip(normal @ scene.light, 0, None)
    shade = scene.ambient + (1 - scene.ambient) * np.where(which >= 0, facing, 1.0)
    light = np.clip(colour * shade[:, None] * rng.uniform(0.9, 1.15), 0, 1)
    blocks = light.reshape(height, oversampling, width, oversampling, 3)
    aif = blocks.mean((1, 3)) ** (1 / 1.3)  # a mild display curve: rooms are not as dark as their reflectances
    middle = oversampling // 2
    depth = depth.reshape(height, oversampling, width, oversampling)[:, middle, :, middle]
    return aif.astype(np.float32), depth.astype(np.float32)


class ProceduralScenes(Dataset):
    """Procedural scenes rendered into focal stacks.

    Args:
        length: number of scenes.
        synthesis: turns AIF and depth into a :class:`FocalStack`; its near and far bound the depth.
        seed: of all scenes.
        first_index: index of the first scene; disjoint ranges are disjoint scenes.
        height, width: size in pixels.
    """

    def __init__(
        self,
        length: int,
        synthesis: StackSynthesis,
        seed: int = 0,
        first_index: int = 0,
        height: int = 128,
        width: int = 160,
    ) -> None:
        for key, value in (("length", length), ("height", height), ("width", width)):
            if value < 1:
                raise InputError(f"data: expected a positive {key}, got {value}")
        self.length, self.synthesis, self.seed, self.first_index = length, synthesis, seed, first_index
        self.height, self.width = height, width
        self.make_stack = synthesis

    def __len__(self) -> int:
        return self.length

    def identity(self, index: int) -> list[int]:
        """What the scene is made from, besides the synthesis."""
        return [self.seed, self.first_index + index, self.height, self.width]

    def __getitem__(self, index: int) -> FocalStack:
        if not 0 <= index < self.length:
            raise IndexError(index)
        number = self.first_index + index
        aif, depth_m = make_scene(
            self.seed, number, self.height, self.width, self.synthesis.near_m, self.synthesis.far_m
        )
        return self.make_stack(
            torch.from_numpy(aif).permute(2, 0, 1).contiguous(),
            torch.from_numpy(depth_m),
            name=f"scene{number:05d}",
            seed=number,
        )
