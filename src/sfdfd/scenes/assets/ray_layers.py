"""Cast rays through a pinhole: the visible surface, what it hides, and their colours.

Coordinates are metres in the camera's frame: x right, y down, z away from the lens. Depth is z, exact through pixel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sfdfd.errors import InputError
from sfdfd.scenes.assets.mesh_files import Mesh
from sfdfd.scenes.layered_scene import LayeredScene
from sfdfd.scenes.raytraced.surface_textures import linear_to_srgb, srgb_to_linear

__all__ = ["Lamp", "Lighting", "Pinhole", "World", "photograph_layers"]

Array = np.ndarray
HIDDEN_LAYERS = 2
MOST_CASTS = 8
"""Rays are cast so often to find the hidden layers."""
SUBPIXELS = (-0.25, 0.25)
SMALLEST_COSINE = 0.15
"""Footprints of pixels on steeper surfaces do not grow any more."""


@dataclass(frozen=True)
class Pinhole:
    """The camera: size in pixels, and half the width of the image at distance 1."""

    height: int
    width: int
    half_width: float

    @property
    def pixel(self) -> float:
        """Return the distance between neighbouring pixels at distance 1."""
        return 2 * self.half_width / self.width

    def directions(self, shift_x: float = 0.0, shift_y: float = 0.0) -> Array:
        """Return (H*W,3) directions of z = 1, through pixel centres shifted by parts of a pixel."""
        x = (np.arange(self.width) + 0.5 + shift_x - self.width / 2) * self.pixel
        y = (np.arange(self.height) + 0.5 + shift_y - self.height / 2) * self.pixel
        grid = np.meshgrid(x, y)
        return np.stack([*grid, np.ones_like(grid[0])], -1).reshape(-1, 3)


@dataclass(frozen=True)
class Lamp:
    """A lamp that casts shadows: its position in metres (3,), the distance of half its strength, and its colour (3,)."""

    position_m: Array
    reach_m: float
    colour: Array


@dataclass(frozen=True)
class Lighting:
    """Lamps, ambient light from above and below (3,) each, and the mean brightness of the image, in linear light."""

    lamps: Sequence[Lamp]
    sky: Array
    ground: Array
    brightness: float
    up: Array


class Hits(NamedTuple):
    """Where rays meet triangles: index of the triangle, -1 for none; distance along the ray; barycentric coordinates."""

    triangle: Array
    distance: Array
    weights: Array


class World:
    """Objects of a scene, ready for rays.

    Args:
        objects: meshes in the camera's frame.
        gloss: of each object, the strength of its highlights in [0, 1].

    Raises:
        InputError: embreex is missing.
    """

    def __init__(self, objects: Sequence[Mesh], gloss: Sequence[float]) -> None:
        counts = [len(mesh.corners_m) for mesh in objects]
        self.owner = np.repeat(np.arange(len(objects)), counts)
        self.gloss = np.repeat(np.asarray(gloss, float), counts)
        whole = Mesh.joined(objects)
        self.corners, self.normals, self.uv, self.tint = whole.corners_m, whole.normals, whole.uv, whole.tint
        self.texture, self.textures = whole.texture, whole.textures
        self._edges = self.corners[:, 1:] - self.corners[:, :1]
        self._normal = np.cross(self._edges[:, 0], self._edges[:, 1])
        self._tree = _ray_tree(self.corners)
        self._density = self._texels_per_m()

    def _texels_per_m(self) -> Array:
        sizes = np.array([texture.levels[0].shape[:2] for texture in self.textures])[self.texture]
        sides = (self.uv[:, 1:] - self.uv[:, :1]) * sizes[:, None, ::-1]
        texels = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
        return np.sqrt(texels / np.maximum(np.linalg.norm(self._normal, axis=-1), 1e-20))

    def first_hits(self, origins: Array, directions: Array) -> Hits:
        """Return the first hits of rays, their distances computed in float64."""
        found = self._tree.run(origins.astype(np.float32), directions.astype(np.float32))
        triangle = np.asarray(found, np.int64)
        index = np.maximum(triangle, 0)
        offset, normal = origins - self.corners[index, 0], self._normal[index]
        along = _dot(directions, normal)
        distance = -_dot(offset, normal) / np.where(along == 0, 1e-20, along)
        point = offset + distance[:, None] * directions
        a, b = self._edges[index].transpose(1, 0, 2)
        area = np.maximum(_dot(normal, normal), 1e-30)
        second, third = _dot(np.cross(point, b), normal) / area, _dot(np.cross(a, point), normal) / area
        weights = np.stack([1 - second - third, second, third], -1).clip(0, 1)
        return Hits(triangle, np.where(triangle < 0, np.inf, distance), weights / _dot(weights, np.ones(3))[:, None])

    def is_shadowed(self, points: Array, to_lamp: Array) -> Array:
        """Return whether something lies between points and a lamp at ``points + to_lamp``."""
        found = self._tree.run(points.astype(np.float32), to_lamp.astype(np.float32), query="DISTANCE")
        return np.asarray(found) < 0.999

    def colours(self, hits: Hits, directions: Array, pixel: float, lighting: Lighting) -> Array:
        """Return the linear light (N,3) that rays from the origin see."""
        index = hits.triangle
        point = (hits.distance[:, None] * directions).astype(np.float32)
        normal = np.einsum("nk,nkc->nc", hits.weights, self.normals[index]).astype(np.float32)
        face, view = _unit(self._normal[index].astype(np.float32)), _unit(-directions.astype(np.float32))
        cosine = _dot(view, face)
        face[cosine < 0] *= -1
        normal[_dot(normal, face) < 0] *= -1
        normal = _unit(normal)
        footprint = hits.distance * pixel / np.sqrt(np.maximum(np.abs(cosine), SMALLEST_COSINE))
        albedo = self._albedo(hits, footprint * self._density[index]).astype(np.float32)
        rise = 0.5 + 0.5 * (normal @ lighting.up.astype(np.float32))[:, None]
        light = albedo * (rise * lighting.sky + (1 - rise) * lighting.ground)
        start = point + 1e-4 * hits.distance[:, None].astype(np.float32) * face
        for lamp in lighting.lamps:
            to_lamp = lamp.position_m.astype(np.float32) - point
            far = np.sqrt(_dot(to_lamp, to_lamp))
            toward = to_lamp / np.maximum(far, 1e-9)[:, None]
            diffuse = _dot(normal, toward)
            shine = np.clip(_dot(normal, _unit(view + toward)), 0, 1) ** 40 * self.gloss[index]
            strength = np.where(diffuse > 0, 1 / (1 + (far / lamp.reach_m) ** 2), 0)
            lit = np.flatnonzero(diffuse > 0)
            strength[lit[self.is_shadowed(start[lit], to_lamp[lit])]] = 0
            light += (albedo * (strength * diffuse)[:, None] + (strength * shine)[:, None]) * lamp.colour
        return light

    def _albedo(self, hits: Hits, texels: Array) -> Array:
        """Return linear reflectances (N,3), from the textures' size whose texels are about as large as a pixel."""
        uv = np.einsum("nk,nkc->nc", hits.weights, self.uv[hits.triangle])
        tint = np.einsum("nk,nkc->nc", hits.weights, self.tint[hits.triangle])
        level = np.log2(np.maximum(texels, 1e-9)).round().clip(0, 6).astype(int)
        key = self.texture[hits.triangle] * 8 + level
        order = np.argsort(key, kind="stable")
        codes = np.empty((len(key), 3))
        for group in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            levels = self.textures[key[group[0]] // 8].levels
            codes[group] = _sample(levels[min(key[group[0]] % 8, len(levels) - 1)], uv[group])
        return srgb_to_linear(codes / 255 * tint)


def _ray_tree(corners: Array) -> Any:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise InputError("scenes from assets need embreex: pip install 'sfdfd[assets]'") from None
    tree = EmbreeScene()
    TriangleMesh(tree, corners.astype(np.float32))
    return tree


def _dot(a: Array, b: Array) -> Array:
    """Return the products of rows (N,3); many times faster than a sum over the last axis."""
    return np.einsum("nc,c->n" if b.ndim == 1 else "nc,nc->n", a, b)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.sqrt(_dot(vectors, vectors)), 1e-20)[:, None]


def _sample(image: Array, uv: Array) -> Array:
    """Interpolate an image (V,U,3), repeated without end, bilinearly at (N,2) coordinates."""
    size = np.array(image.shape[1::-1])
    position = (uv - np.floor(uv)) * size - 0.5
    low = np.floor(position).astype(int)
    share = position - low
    (left, top), (right, bottom) = (low % size).T, ((low + 1) % size).T
    x, y = share[:, :1], share[:, 1:]
    upper = image[top, left] * (1 - x) + image[top, right] * x
    return upper * (1 - y) + (image[bottom, left] * (1 - x) + image[bottom, right] * x) * y


def photograph_layers(world: World, pinhole: Pinhole, lighting: Lighting, kind: str = "") -> LayeredScene:
    """Return the visible surface and up to two that it hides.

    A hidden layer is the next surface of another object along the ray: what an object's own front hides is its inside, which
    no part of the lens sees. Colours of the visible layer are averaged over four rays a pixel, in linear light.

    Raises:
        InputError: a ray meets nothing; a scene must be closed.
    """
    directions = pinhole.directions()
    layers = _peeled(world, directions)
    if bool((layers[0].triangle < 0).any()):
        raise InputError("expected a closed scene, got a ray that meets nothing")
    shifts = [(x, y) for x in SUBPIXELS for y in SUBPIXELS]
    visible = np.zeros((len(directions), 3))
    for x, y in shifts:
        shifted = pinhole.directions(x, y)
        hits = world.first_hits(np.zeros_like(shifted), shifted)
        missed = hits.triangle < 0  # between two triangles
        for value, central in zip(hits, layers[0], strict=True):
            value[missed] = central[missed]
        visible += world.colours(hits, shifted, pinhole.pixel / 2, lighting) / len(shifts)
    light, is_present = [visible], [np.ones(len(directions), bool)]
    for hits in layers[1:]:
        present = hits.triangle >= 0
        colours = np.zeros_like(visible)
        part = Hits(*(value[present] for value in hits))
        if present.any():
            colours[present] = world.colours(part, directions[present], pinhole.pixel, lighting)
        light.append(colours)
        is_present.append(present)
    exposure = lighting.brightness / max(float(np.minimum(visible, 4 * np.median(visible) + 1e-6).mean()), 1e-6)
    codes = np.round(255 * linear_to_srgb(np.clip(np.stack(light) * exposure, 0, 1))).astype(np.uint8)
    shape = (len(layers), pinhole.height, pinhole.width)
    inverse = np.stack([np.where(np.isfinite(hits.distance), 1 / hits.distance, 0) for hits in layers])
    present = np.stack(is_present)
    inverse = np.where(present, inverse, 0).astype(np.float32)
    return LayeredScene(codes.reshape(*shape, 3), inverse.reshape(shape), present.reshape(shape), kind)


def _peeled(world: World, directions: Array) -> list[Hits]:
    """Return the first hit of each ray and the next ones on other objects, along directions of z = 1."""
    layers = [world.first_hits(np.zeros_like(directions), directions)]
    empty = Hits(np.full(len(directions), -1), np.full(len(directions), np.inf), np.zeros((len(directions), 3)))
    layers += [Hits(*(value.copy() for value in empty)) for _ in range(HIDDEN_LAYERS)]
    depth = np.zeros(len(directions), int)  # layers found so far behind the first
    seen = [np.where(layers[0].triangle >= 0, world.owner[layers[0].triangle], -1)]
    seen += [np.full(len(directions), -1) for _ in range(HIDDEN_LAYERS)]
    at, active = layers[0].distance.copy(), np.flatnonzero(layers[0].triangle >= 0)
    for _ in range(MOST_CASTS):
        start = (at[active] * (1 + 1e-5) + 1e-6)[:, None] * directions[active]
        hits = world.first_hits(start, directions[active])
        found = hits.triangle >= 0
        active, hits = active[found], Hits(*(value[found] for value in hits))
        if not len(active):
            break
        distance = at[active] * (1 + 1e-5) + 1e-6 + hits.distance
        at[active] = distance
        owner = world.owner[hits.triangle]
        is_new = np.all([owners[active] != owner for owners in seen], axis=0)
        for layer in range(1, HIDDEN_LAYERS + 1):
            chosen = is_new & (depth[active] == layer - 1)
            rays = active[chosen]
            for target, value in zip(layers[layer], (hits.triangle, distance, hits.weights), strict=True):
                target[rays] = value[chosen]
            seen[layer][rays] = owner[chosen]
        depth[active] += is_new
        active = active[depth[active] < HIDDEN_LAYERS]
    return layers
