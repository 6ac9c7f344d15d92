"""Seeded scenes for the path tracer: textured, self-luminous surfaces in front of a lens, by kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfdfd.errors import InputError, checked_choice
from sfdfd.optics.camera import Camera
from sfdfd.scenes.raytraced.builder import Builder
from sfdfd.scenes.raytraced.lighting import Light, baked, exposed, texels
from sfdfd.scenes.raytraced.patches import Patch, SceneDescription, View, box, cast_rays, rotation
from sfdfd.scenes.raytraced.surface_textures import FLAT, GROUND, OBJECT

__all__ = ["KINDS", "random_scene"]

Array = np.ndarray
_ATTEMPTS = 20
_ENOUGH_SPREAD = 0.5
_ENOUGH_SPREAD_OF_WALLS = 0.35  # most of a plain wall lies at one depth


# ---------------------------------------------------------------- kinds of scene


def _room(b: Builder) -> None:
    rng, tan, far = b.rng, b.view.tan, 0.9 * b.far_m * b.rng.uniform(0.7, 1.0)
    b.world = rotation((2, rng.normal(0, 0.04)), (0, rng.uniform(0.0, 0.35) * 2 * np.arctan(tan[1])))
    yaw = rotation((1, rng.uniform(-0.6, 0.6) * np.arctan(tan[0]) * 2))
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
        b.add(box(half), b.texture(("poster", "leaves", "text", "books", "plain"), far), centre, b.world @ yaw)
    for _ in range(int(rng.integers(4, 9))):
        b.standing(floor_y, 0.02, 0.95, (-0.5, 0.9))
    for _ in range(int(rng.integers(0, 3))):
        b.rod(0.1, 0.9)


def _tabletop(b: Builder) -> None:
    rng, tan = b.rng, b.view.tan
    half_angle = np.arctan(tan[1])
    pitch = half_angle * rng.uniform(0.8, 1.7)
    b.world = rotation((2, rng.normal(0, 0.04)), (0, pitch))
    height = b.near_m * rng.uniform(1.15, 1.6) * np.sin(half_angle + pitch) / np.cos(half_angle)
    far = b.far_m * rng.uniform(0.5, 0.85)
    b.plane(1, height, far * rng.uniform(0.6, 1.2), b.texture((*GROUND, "wood", "text"), 2.5 * b.near_m), np.eye(3))
    lean = rotation((1, rng.uniform(-0.35, 0.35)))
    b.backdrop(far, lean, b.texture((*FLAT, *OBJECT), far))
    for _ in range(int(rng.integers(7, 15))):
        b.standing(height, 0.02, 0.97)
    for _ in range(int(rng.integers(0, 3))):
        b.rod(0.2, 0.95)


def _clutter(b: Builder) -> None:
    rng, far = b.rng, b.far_m * b.rng.uniform(0.6, 0.9)
    turn = rotation((1, rng.uniform(-0.5, 0.5)), (0, rng.uniform(-0.3, 0.3)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far), bumps_m=far * rng.choice([0, 0.02, 0.04]))
    for _ in range(int(rng.integers(14, 30))):
        b.floating()


def _rods(b: Builder) -> None:
    rng, far = b.rng, b.far_m * b.rng.uniform(0.45, 0.9)
    turn = rotation((1, rng.uniform(-0.6, 0.6)), (0, rng.uniform(-0.3, 0.3)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far), bumps_m=far * rng.choice([0, 0.03]))
    for _ in range(int(rng.integers(9, 20))):
        b.rod(0.05, 0.97)
    for _ in range(int(rng.integers(3, 8))):
        b.floating(0.03, 0.7)


def _cards(b: Builder) -> None:
    rng, far = b.rng, b.far_m * b.rng.uniform(0.55, 0.9)
    turn = rotation((int(rng.integers(2)), rng.choice([-1, 1]) * rng.uniform(0.2, 0.8)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far))
    for _ in range(int(rng.integers(8, 16))):
        b.card(0.03, 0.95)
    for _ in range(int(rng.integers(0, 4))):
        b.floating()


def _walls(b: Builder) -> None:
    """Nearly plain walls that meet in a corner or recede, a plain floor, and little in front of them."""
    rng, tan, far = b.rng, b.view.tan, 0.9 * b.far_m * b.rng.uniform(0.6, 1.0)
    b.world = rotation((2, rng.normal(0, 0.04)), (0, rng.uniform(0.0, 0.3) * 2 * np.arctan(tan[1])))
    yaw = rotation((1, rng.choice([-1, 1]) * rng.uniform(0.2, 0.9)))
    floor_y = far * tan[1] * rng.uniform(0.15, 0.5)
    b.plane(1, floor_y, 1.3 * far, b.texture((*FLAT, "speckle", "wood"), 0.5 * far), yaw)
    side = rng.choice([-1, 1])
    b.plane(0, side * far * tan[0] * rng.uniform(0.3, 0.7), 1.3 * far, b.texture(FLAT, 0.6 * far), yaw)
    b.backdrop(far, b.world @ yaw, b.texture(FLAT, far))
    for _ in range(int(rng.integers(3, 8))):
        b.standing(floor_y, 0.1, 0.97, (-0.7, 0.9))
    for _ in range(int(rng.integers(0, 4))):
        b.rod(0.3, 0.95)


def _foreground(b: Builder) -> None:
    """Something close and out of focus in most slices along most of the border: a frame that one looks through."""
    rng, far = b.rng, b.far_m * b.rng.uniform(0.6, 0.9)
    turn = rotation((1, rng.uniform(-0.6, 0.6)), (0, rng.uniform(-0.3, 0.3)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far), bumps_m=far * rng.choice([0, 0.03]))
    for _ in range(int(rng.integers(6, 14))):
        b.floating(0.03, 0.6)
    first, number = rng.uniform(0, 2 * np.pi), int(rng.integers(4, 8))
    for index in range(number):
        b.border(first + 2 * np.pi * index / number + rng.normal(0, 0.2))


_MAKERS = {
    "room": _room,
    "tabletop": _tabletop,
    "clutter": _clutter,
    "rods": _rods,
    "cards": _cards,
    "walls": _walls,
    "foreground": _foreground,
}
KINDS = tuple(_MAKERS)


# ---------------------------------------------------------------- scenes


def _spread(depth_m: Array, near_m: float, far_m: float) -> float:
    """How well depths fill the range: entropy over 8 bins of inverse depth, in [0, 1]; -1 where some lie outside."""
    if not np.isfinite(depth_m).all() or depth_m.min() < near_m or depth_m.max() > far_m:
        return -1.0
    q = (1 / depth_m - 1 / far_m) / (1 / near_m - 1 / far_m)
    share = np.histogram(q, 8, (0, 1))[0] / q.size
    return float(-(share * np.log(np.maximum(share, 1e-12))).sum() / np.log(8))


def random_scene(
    seed: int | Sequence[int],
    index: int,
    camera: Camera,
    height: int,
    width: int,
    near_m: float,
    far_m: float,
    kinds: Sequence[str] = KINDS,
) -> SceneDescription:
    """Scene ``index`` of ``seed``: geometry, textures and light.

    Args:
        seed, index: which scene; any non-negative integers. Nothing else that is made changes it.
        camera: its pixel pitch and focal length set the field of view, which scales the scene's breadth.
        height, width: size in pixels of the images to come; textures have about a texel for each pixel.
        near_m, far_m: every visible depth lies in this range, and depths spread over it.
        kinds: of ``KINDS``, taken in turns by index; where none of its own fits, one of the others.

    Raises:
        InputError: the range is empty, a kind is unknown, or no scene fits.
    """
    if not 0 < near_m < far_m < np.inf:
        raise InputError(f"scene: expected 0 < near_m < far_m, got {near_m} and {far_m} (near_m, far_m)")
    for kind in kinds:
        checked_choice(kind, "kinds (data.kinds)", KINDS)
    view, step = View(camera, height, width), 4
    best: tuple[float, Builder | None] = (-1.0, None)
    kind = kinds[index % len(kinds)]
    seeds = [*(seed if isinstance(seed, Sequence) else [seed]), index]
    enough = _ENOUGH_SPREAD_OF_WALLS if kind == "walls" else _ENOUGH_SPREAD
    # where none of its own kind fits (walls between two near distances), the others are tried
    others = [one for one in kinds if one != kind]
    for attempt, tried in enumerate([kind] * _ATTEMPTS + [one for one in others for _ in range(_ATTEMPTS)]):
        if attempt >= _ATTEMPTS and best[1] is not None:
            break
        builder = Builder(np.random.default_rng([*seeds, attempt]), view, near_m * 1.03, far_m * 0.98)
        _MAKERS[tried](builder)
        if tried not in ("walls", "foreground") and builder.rng.random() < 0.4:
            builder.border()
        bare = tuple(Patch(grid.astype(np.float32), np.zeros((1, 1, 3), np.float32)) for grid, _, _ in builder.faces)
        depth_m = cast_rays(bare, camera.resized(1 / step), max(height // step, 8), max(width // step, 8))[0]
        spread = _spread(depth_m, near_m, far_m)
        if spread > best[0]:
            depth_m, which, uv = cast_rays(bare, camera, height, width)
            if _spread(depth_m, near_m, far_m) >= 0:
                best, hits, kind = (spread, builder), (which, uv), tried
        if best[0] > enough:
            break
    if best[1] is None:
        raise InputError(f"scene: none fits between {near_m:g} and {far_m:g} m; widen the range (near_m, far_m)")
    return _finish(kind, best[1], *hits)


def _finish(kind: str, builder: Builder, which: Array, uv: Array) -> SceneDescription:
    """Light, textures and exposure of a geometry, given the face and the texture coordinates that each pixel sees."""
    rng, view, far_m = builder.rng, builder.view, builder.far_m
    lamp = (
        np.array([rng.uniform(-1, 1) * view.tan[0], -rng.uniform(0.3, 1.2) * view.tan[1], rng.uniform(0.1, 0.7)])
        * far_m
    )
    warm = np.array([1, 0.5, 0]) * rng.normal(0, 0.12)
    light = Light(lamp, far_m * rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.6), np.exp(warm - warm.mean()), builder.balls)
    patches = []
    for number, (grid, texture, owner) in enumerate(builder.faces):
        rows, columns = texels(grid, view)
        if not (which == number).any():  # it shows in blur at most
            rows, columns = max(rows // 3, 6), max(columns // 3, 6)
        patches.append(baked(grid, texture, owner, light, (rows, columns)))
    return SceneDescription(kind, exposed(patches, which, uv, rng.uniform(0.36, 0.52)))
