"""Random scenes built from assets: rooms, tabletops, shelves, clutter, thin structures, macro, windows, walls, posters.

Scene ``index`` of seed ``seed`` is the same for the same assets, on any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sfdfd.errors import checked_choice, checked_int
from sfdfd.scenes.assets.asset_folder import AssetFolder
from sfdfd.scenes.assets.ray_layers import Pinhole, photograph_layers
from sfdfd.scenes.assets.stage import Stage
from sfdfd.scenes.layered_scene import LayeredScene
from sfdfd.scenes.surfaces import axis_rotation

__all__ = ["KINDS", "AssetScenes"]

FOREGROUND_SHARE = 0.35
"""Share of scenes with an object close to the camera that the border of the image cuts."""


class AssetScenes:
    """Scenes by index; the kinds come in turns.

    Args:
        assets: images and meshes.
        seed: of all that is random.
        height, width: size in pixels, 32 or more.
        kinds: of :data:`KINDS`.

    Raises:
        InputError: a value is wrong; the message names its key.
    """

    def __init__(
        self,
        assets: AssetFolder,
        seed: int = 0,
        height: int = 240,
        width: int = 320,
        kinds: Sequence[str] | None = None,
    ) -> None:
        self.assets, self.seed = assets, checked_int(seed, "seed", 0)
        self.height, self.width = (
            checked_int(v, f"{k} (data.{k})", 32) for k, v in (("height", height), ("width", width))
        )
        self.kinds = tuple(KINDS) if kinds is None else tuple(kinds)
        for kind in self.kinds:
            checked_choice(kind, "kinds (data.kinds)", tuple(KINDS))

    def __getitem__(self, index: int) -> LayeredScene:
        rng = np.random.default_rng([self.seed, index])
        kind = self.kinds[index % len(self.kinds)]
        pinhole = Pinhole(self.height, self.width, float(rng.uniform(0.22, 0.7)))
        stage = Stage(self.assets, pinhole, rng, *_pitch_and_roll(kind, rng))
        KINDS[kind](stage)
        if rng.random() < FOREGROUND_SHARE:
            _add_foreground(stage)
        return photograph_layers(stage.world(), pinhole, stage.lighting(), kind)


def _pitch_and_roll(kind: str, rng: np.random.Generator) -> tuple[float, float]:
    low, high = {"tabletop": (0.25, 0.8), "macro": (0.1, 0.8), "room": (-0.05, 0.35), "people": (-0.05, 0.15)}.get(
        kind, (-0.1, 0.2)
    )
    return float(rng.uniform(low, high)), float(rng.normal(0, 0.05))


def _add_foreground(stage: Stage) -> None:
    """Place an object at a border, nearer than the others."""
    depths = np.concatenate([mesh.corners_m[..., 2].ravel() for mesh in stage.objects])
    nearest = max(float(np.quantile(depths[depths > 0], 0.02)), 1e-3)
    z = nearest * float(stage.rng.uniform(0.35, 0.8))
    side = stage.rng.choice([-1.0, 1.0], 2) * (stage.rng.permutation([1.0, stage.rng.uniform(0, 0.8)]))
    half = stage.pinhole.half_width * np.array([1.0, stage.pinhole.height / stage.pinhole.width])
    point = stage.level(np.append(side * half * z, z))
    size = z * stage.pinhole.half_width * float(stage.rng.uniform(0.5, 1.4))
    if stage.rng.random() < 0.3:
        end = point + stage.rng.normal(0, 1, 3) * (1, 1, 0.3) * size
        stage.rod(point, end, 0.06 * size, stage.image())
    else:
        stage.hang(point, 0.6 * size, size)


def _close(stage: Stage, distance_m: float, photograph: float = 0.5) -> None:
    """Add a wall behind everything, large enough to fill the view; a photograph or a material."""
    reach = 4.0 * distance_m
    yaw = axis_rotation(1, float(stage.rng.uniform(-0.5, 0.5)))
    centre = np.array([0.0, 0.0, distance_m])
    u, v = yaw @ np.array([2 * reach, 0, 0]), np.array([0, 2 * reach, 0])
    if stage.rng.random() < photograph:
        texture = stage.image()
        repeat = float(stage.rng.uniform(2.5, 4.0))
    else:
        texture, repeat = stage.material(0.4), float(stage.rng.uniform(6, 20))
    stage.quad(centre - u / 2 - v / 2, u, v, texture, repeat, 0.0)
    _enclose(stage, 6.0 * distance_m)


def _enclose(stage: Stage, half_m: float) -> None:
    """Add a plain box around everything, which no ray leaves."""
    stage.box(np.zeros(3), np.full(3, half_m), np.eye(3), [stage.material(1.0)])


def _floor(stage: Stage, y: float, length_m: float) -> None:
    u, v = np.array([8 * length_m, 0, 0]), np.array([0, 0, -6 * length_m])
    corner = np.array([-4 * length_m, y, 4 * length_m])
    stage.quad(corner, u, v, stage.material(0.25), 8 * length_m / (y * float(stage.rng.uniform(0.6, 2.0))))


def _poster(stage: Stage, centre: np.ndarray, size_m: float, rotation: np.ndarray) -> None:
    texture = stage.image()
    height, width = texture.levels[0].shape[:2]
    u = rotation @ np.array([size_m, 0, 0])
    v = rotation @ np.array([0, size_m * height / width, 0])
    stage.quad(centre - u / 2 - v / 2, u, v, texture)


def room(stage: Stage) -> None:
    """A floor, walls with posters, furniture."""
    rng, height = stage.rng, float(stage.rng.uniform(1.0, 1.6))
    back = float(rng.uniform(2.5, 7.0))
    _floor(stage, height, back)
    yaw = axis_rotation(1, float(rng.uniform(-0.5, 0.5)))
    for direction, distance in (((0, 0, 1), back), ((1, 0, 0), 0.45 * back), ((-1, 0, 0), 0.45 * back)):
        normal = yaw @ np.array(direction, float)
        along = np.cross([0.0, 1.0, 0.0], normal)
        centre, u, v = normal * distance, along * 4 * back, np.array([0, 4.0, 0])
        stage.quad(centre - u / 2 - v / 2, u, v, stage.material(0.5), float(rng.uniform(3, 12)))
        for _ in range(int(rng.integers(0, 4))):
            shift = along * rng.uniform(-0.4, 0.4) * back - np.array([0, rng.uniform(-0.4, 0.8), 0])
            turn = np.stack([along, [0.0, 1.0, 0.0], normal], 1)
            _poster(stage, centre * 0.985 + shift, float(rng.uniform(0.3, 1.2)), turn)
    for _ in range(int(rng.integers(4, 11))):
        z = float(np.exp(rng.uniform(np.log(1.2), np.log(0.95 * back))))
        x = float(rng.uniform(-0.9, 0.9)) * z * stage.pinhole.half_width
        stage.stand(np.array([x, height, z]), 0.4, 2.2)
    _enclose(stage, 2.0 * back)


def tabletop(stage: Stage, smallest_m: float = 0.05, largest_m: float = 0.4) -> None:
    """Objects on a table before a wall or a far background."""
    rng, height = stage.rng, float(stage.rng.uniform(0.15, 0.4))
    size = float(rng.uniform(0.8, 2.0))
    u, v = np.array([2 * size, 0, 0]), np.array([0, 0, -2.2 * size])
    corner = np.array([-size, height, 1.2 * size])
    stage.quad(corner, u, v, stage.material(0.2), float(rng.uniform(1.5, 6)))
    for _ in range(int(rng.integers(4, 14))):
        point = stage.level(stage.in_view(0.35, 1.3 * size, 0.9))
        stage.stand(np.array([point[0], height, min(point[2], 1.15 * size)]), smallest_m, largest_m)
    _close(stage, size * float(np.exp(rng.uniform(np.log(1.4), np.log(6)))))


def shelf(stage: Stage) -> None:
    """Boards with objects and books, from the front."""
    rng, z = stage.rng, float(stage.rng.uniform(0.8, 2.0))
    width = 2.4 * z * stage.pinhole.half_width
    gap, depth = float(rng.uniform(0.25, 0.45)) * width, float(rng.uniform(0.15, 0.35)) * z
    yaw = axis_rotation(1, float(rng.uniform(-0.4, 0.4)))
    board, wall = [stage.material(0.3)], stage.material(0.4)
    centre = np.array([0.0, 0.0, z])
    u, v = yaw @ np.array([2.5 * width, 0, 0]), np.array([0, 2.5 * width, 0])
    stage.quad(centre + yaw @ np.array([0, 0, depth]) - u / 2 - v / 2, u, v, wall, float(rng.uniform(2, 8)))
    for row in range(-2, 3):
        top = centre + np.array([0, (row + 0.4) * gap, 0])
        stage.box(top, np.array([1.2 * width, 0.025 * gap, depth]), yaw, board)
        for x in np.linspace(-0.6, 0.6, int(rng.integers(4, 9))) * width:
            place = top + yaw @ np.array([x + rng.normal(0, 0.03 * width), 0, rng.uniform(-0.6, 0.3) * depth])
            if rng.random() < 0.5:
                half = np.array([rng.uniform(0.03, 0.12), rng.uniform(0.25, 0.42), 0.3 * depth / gap]) * gap
                stage.box(place - (0, half[1], 0), half, yaw, [stage.image()])
            else:
                stage.stand(place, 0.3 * gap, 0.8 * gap)
    _enclose(stage, 6 * z)


def clutter(stage: Stage) -> None:
    """Objects at all depths, turned in any way."""
    for _ in range(int(stage.rng.integers(6, 18))):
        point = stage.in_view(0.5, 3.0)
        size = point[2] * stage.pinhole.half_width * float(stage.rng.uniform(0.3, 1.0))
        stage.hang(stage.level(point), 0.5 * size, size)
    _close(stage, float(stage.rng.uniform(3, 9)))


def thin(stage: Stage) -> None:
    """Rods, bars and leaves before other objects."""
    rng = stage.rng
    for _ in range(int(rng.integers(6, 20))):
        start, end = (stage.level(stage.in_view(0.6, 2.5, 1.3)) for _ in range(2))
        radius = 0.5 * (start[2] + end[2]) * stage.pinhole.pixel * float(np.exp(rng.uniform(0, np.log(6))))
        stage.rod(start, end, max(radius, 1e-4), stage.image() if rng.random() < 0.6 else stage.material(0.8))
    for _ in range(int(rng.integers(0, 25))):
        point = stage.in_view(0.6, 2.5)
        turn = axis_rotation(1, rng.uniform(-1, 1)) @ axis_rotation(2, rng.uniform(0, 6.3))
        stage.cutout(stage.level(point), point[2] * 0.1 * float(np.exp(rng.normal(-0.5, 0.5))), turn, stage.image())
    for _ in range(int(rng.integers(2, 6))):
        point = stage.level(stage.in_view(0.8, 3.0))
        stage.stand(point, 0.15 * point[2], 0.6 * point[2])
    _close(stage, float(rng.uniform(3, 8)))


def macro(stage: Stage) -> None:
    """One to three objects close to the camera."""
    rng, height = stage.rng, float(stage.rng.uniform(0.02, 0.06))
    corner = np.array([-0.5, height, 0.6])
    stage.quad(corner, np.array([1.0, 0, 0]), np.array([0, 0, -0.7]), stage.material(0.2), float(rng.uniform(2, 6)))
    for _ in range(int(rng.integers(1, 4))):
        point = stage.level(stage.in_view(0.12, 0.4, 0.7))
        stage.stand(np.array([point[0], height, point[2]]), 0.04, 0.15)
    _close(stage, 0.4 * float(np.exp(rng.uniform(0, np.log(8)))))


def window(stage: Stage) -> None:
    """A far view through a window, with bars, curtains and objects on the sill."""
    rng, z = stage.rng, float(stage.rng.uniform(0.8, 2.0))
    half = 1.1 * z * stage.pinhole.half_width
    texture = stage.material(0.7)
    frame = float(rng.uniform(0.02, 0.06)) * half
    for x in np.linspace(-1, 1, int(rng.integers(3, 6))) * half:
        stage.box(np.array([x, 0, z]), np.array([frame, 1.5 * half, frame]), np.eye(3), [texture])
    for y in np.linspace(-0.8, 0.8, int(rng.integers(2, 5))) * half:
        stage.box(np.array([0, y, z]), np.array([1.5 * half, frame, frame]), np.eye(3), [texture])
    sill = float(rng.uniform(0.4, 0.8)) * half
    stage.box(np.array([0, sill + 0.05, z - 0.1]), np.array([2 * half, 0.05, 0.25]), np.eye(3), [stage.material(0.4)])
    for _ in range(int(rng.integers(1, 6))):
        stage.stand(np.array([rng.uniform(-0.8, 0.8) * half, sill, z - rng.uniform(0.05, 0.3)]), 0.08, 0.4)
    if rng.random() < 0.5:
        side = rng.choice([-1, 1]) * half
        stage.quad(np.array([side - 0.3 * half, -2 * half, 0.95 * z]), np.array([0.6 * half, 0, 0]),
                   np.array([0, 4 * half, 0]), stage.material(0.2), 2.0)  # fmt: skip
    _close(stage, z * float(rng.uniform(5, 40)), photograph=1.0)


def wall(stage: Stage) -> None:
    """A wall at a slant, plain or not, with little before it."""
    rng, z = stage.rng, float(stage.rng.uniform(0.5, 4.0))
    turn = axis_rotation(2, rng.uniform(0, 6.3)) @ axis_rotation(1, rng.uniform(-1.1, 1.1))
    u, v = turn @ np.array([8 * z, 0, 0]), turn @ np.array([0, 8 * z, 0])
    stage.quad(np.array([0, 0, z]) - u / 2 - v / 2, u, v, stage.material(0.4), float(rng.uniform(4, 16)))
    for _ in range(int(rng.integers(0, 4))):
        shift = turn @ np.array([*rng.uniform(-0.6, 0.6, 2), -0.01]) * z
        _poster(stage, np.array([0, 0, z]) + shift, float(rng.uniform(0.1, 0.5)) * z, turn)
    for _ in range(int(rng.integers(0, 4))):
        point = stage.in_view(0.4 * z, 0.9 * z)
        stage.hang(stage.level(point), 0.1 * point[2], 0.4 * point[2])
    _enclose(stage, 12 * z)


def posters(stage: Stage) -> None:
    """Flat photographs at several depths and slants."""
    rng = stage.rng
    for _ in range(int(rng.integers(4, 12))):
        point = stage.in_view(0.6, 3.0, 1.1)
        turn = axis_rotation(2, rng.normal(0, 0.4)) @ axis_rotation(1, rng.uniform(-0.9, 0.9))
        size = point[2] * stage.pinhole.half_width * float(rng.uniform(0.3, 1.4))
        if rng.random() < 0.6:
            _poster(stage, stage.level(point), size, turn @ axis_rotation(0, rng.uniform(-0.6, 0.6)))
        else:
            stage.cutout(stage.level(point), 0.5 * size, turn, stage.image())
    _close(stage, float(rng.uniform(3, 8)))


def people(stage: Stage) -> None:
    """Tall things on a floor: figures the size of people, large meshes, a far background."""
    rng, height = stage.rng, float(stage.rng.uniform(1.2, 1.7))
    back = float(rng.uniform(4, 15))
    _floor(stage, height, back)
    for _ in range(int(rng.integers(2, 7))):
        z = float(np.exp(rng.uniform(np.log(1.5), np.log(0.8 * back))))
        x = float(rng.uniform(-0.9, 0.9)) * z * stage.pinhole.half_width
        if rng.random() < 0.5:
            stage.stand(np.array([x, height, z]), 1.0, 2.0)
            continue
        texture, tall = stage.image(), float(rng.uniform(1.4, 1.9))
        for top, low, radius in ((0.55, 0.0, 0.1), (0.9, 0.5, 0.2), (1.0, 0.88, 0.1)):  # legs, body, head
            shift = np.array([x, height, z])
            stage.rod(shift - (0, top * tall, 0), shift - (0, low * tall, 0), radius * tall / 1.7, texture, 14)
    _close(stage, back, photograph=0.8)


KINDS: dict[str, Callable[[Stage], None]] = {
    "room": room, "tabletop": tabletop, "shelf": shelf, "clutter": clutter, "thin": thin, "macro": macro,
    "window": window, "wall": wall, "posters": posters, "people": people,
}  # fmt: skip
"""Kinds of scenes, in the order in which they come."""
