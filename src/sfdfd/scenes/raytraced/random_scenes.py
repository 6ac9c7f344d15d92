"""Random scenes for the path tracer: textured, self-luminous surfaces of several kinds, reproducible by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sfdfd.errors import InputError, checked_choice
from sfdfd.optics.camera import Camera
from sfdfd.scenes.raytraced.builder import Builder
from sfdfd.scenes.raytraced.lighting import Light, expose
from sfdfd.scenes.raytraced.patches import SceneDescription, View, box, cast_rays, rotation
from sfdfd.scenes.raytraced.surface_textures import FLAT, GROUND, OBJECT

__all__ = ["KINDS", "random_scene"]

Array = np.ndarray
_ATTEMPTS = 20  # of each kind
_PREVIEW_STEP = 4  # candidates are first looked at with so many times fewer pixels
_ENOUGH_ENTROPY = 0.5
_ENOUGH_ENTROPY_OF_WALLS = 0.35  # most of a plain wall lies at one depth


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
    """Add nearly plain walls that meet in a corner or recede, a plain floor, and a few objects."""
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
    """Add near objects along most of the border: a frame that is out of focus in most slices."""
    rng, far = b.rng, b.far_m * b.rng.uniform(0.6, 0.9)
    turn = rotation((1, rng.uniform(-0.6, 0.6)), (0, rng.uniform(-0.3, 0.3)))
    b.backdrop(far, turn, b.texture((*OBJECT, *FLAT), far), bumps_m=far * rng.choice([0, 0.03]))
    for _ in range(int(rng.integers(6, 14))):
        b.floating(0.03, 0.6)
    first, number = rng.uniform(0, 2 * np.pi), int(rng.integers(4, 8))
    for index in range(number):
        b.border(first + 2 * np.pi * index / number + rng.normal(0, 0.2))


_BUILDERS = {
    "room": _room,
    "tabletop": _tabletop,
    "clutter": _clutter,
    "rods": _rods,
    "cards": _cards,
    "walls": _walls,
    "foreground": _foreground,
}
KINDS = tuple(_BUILDERS)


# ---------------------------------------------------------------- scenes


@dataclass(frozen=True)
class _Candidate:
    """A geometry whose visible depths lie in the range.

    Attributes:
        kind: of ``KINDS``.
        builder: holds the surfaces, and the random numbers for what follows.
        entropy: how evenly depths fill the range.
        patch, uv: what each pixel sees, from :func:`cast_rays`.
    """

    kind: str
    builder: Builder
    entropy: float
    patch: Array
    uv: Array


def _depth_entropy(depth_m: Array, near_m: float, far_m: float) -> float:
    """Return how evenly depths fill the range: entropy over 8 bins of inverse depth, in [0, 1]; -1 if some lie outside."""
    if not np.isfinite(depth_m).all() or depth_m.min() < near_m or depth_m.max() > far_m:
        return -1.0
    inverse_depth_01 = (1 / depth_m - 1 / far_m) / (1 / near_m - 1 / far_m)
    share = np.histogram(inverse_depth_01, 8, (0, 1))[0] / inverse_depth_01.size
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
    builder: type[Builder] = Builder,
) -> SceneDescription:
    """Make scene ``index`` of ``seed``: geometry, textures and light.

    Args:
        seed, index: any non-negative integers. They alone choose the random numbers, whatever other scenes are made.
        camera: its pixel pitch and focal length set the field of view, which scales the scene's breadth.
        height, width: image size in pixels; textures have about a texel for each pixel.
        near_m, far_m: every visible depth lies in this range, and depths spread over it.
        kinds: of ``KINDS``, in turns by index. If none of a scene's own kind fits, the other kinds are tried.
        builder: chooses the objects and textures of which a scene is made.

    Raises:
        InputError: the range is empty, a kind is unknown, or no scene fits.
    """
    if not 0 < near_m < far_m < np.inf:
        raise InputError(f"scene: expected 0 < near_m < far_m, got {near_m} and {far_m} (near_m, far_m)")
    for kind in kinds:
        checked_choice(kind, "kinds (data.kinds)", KINDS)
    kind = kinds[index % len(kinds)]
    seeds = [*(seed if isinstance(seed, Sequence) else [seed]), index]
    enough = _ENOUGH_ENTROPY_OF_WALLS if kind == "walls" else _ENOUGH_ENTROPY
    view = View(camera, height, width)
    best: _Candidate | None = None
    for attempt, attempted_kind in _attempts(kind, kinds):
        if attempt >= _ATTEMPTS and best is not None:
            break
        candidate = builder(np.random.default_rng([*seeds, attempt]), view, near_m * 1.03, far_m * 0.98)
        _add_surfaces(candidate, attempted_kind)
        best = _better(best, attempted_kind, candidate, near_m, far_m)
        if best is not None and best.entropy > enough:
            break
    if best is None:
        raise InputError(f"scene: none fits between {near_m:g} and {far_m:g} m; widen the range (near_m, far_m)")
    return _with_light(best)


def _attempts(kind: str, kinds: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Number the attempts: the scene's own kind first, then the others (walls do not fit between two near distances)."""
    return enumerate(each for each in (kind, *(other for other in kinds if other != kind)) for _ in range(_ATTEMPTS))


def _add_surfaces(builder: Builder, kind: str) -> None:
    _BUILDERS[kind](builder)
    if kind not in ("walls", "foreground") and builder.rng.random() < 0.4:
        builder.border()


def _better(best: _Candidate | None, kind: str, builder: Builder, near_m: float, far_m: float) -> _Candidate | None:
    """Return a new candidate if its depths lie in the range and spread better than those of the best so far."""
    camera, height, width = builder.view.camera, builder.view.height, builder.view.width
    step = _PREVIEW_STEP
    bare = tuple(builder.bare_patch(number) for number in range(len(builder.faces)))
    depth_m = cast_rays(bare, camera.resized(1 / step), max(height // step, 8), max(width // step, 8))[0]
    entropy = _depth_entropy(depth_m, near_m, far_m)
    if entropy <= (-1.0 if best is None else best.entropy):
        return best
    depth_m, patch, uv = cast_rays(bare, camera, height, width)
    if _depth_entropy(depth_m, near_m, far_m) < 0:
        return best
    return _Candidate(kind, builder, entropy, patch, uv)


def _with_light(scene: _Candidate) -> SceneDescription:
    """Add light, textures and exposure to a geometry."""
    rng, view, far_m = scene.builder.rng, scene.builder.view, scene.builder.far_m
    lamp_m = (
        np.array([rng.uniform(-1, 1) * view.tan[0], -rng.uniform(0.3, 1.2) * view.tan[1], rng.uniform(0.1, 0.7)])
        * far_m
    )
    warm = np.array([1, 0.5, 0]) * rng.normal(0, 0.12)
    light = Light(
        lamp_m, far_m * rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.6), np.exp(warm - warm.mean()), scene.builder.balls
    )
    patches = [
        scene.builder.lit_patch(number, light, bool((scene.patch == number).any()))
        for number in range(len(scene.builder.faces))
    ]
    return SceneDescription(scene.kind, expose(patches, scene.patch, scene.uv, rng.uniform(0.36, 0.52)))
