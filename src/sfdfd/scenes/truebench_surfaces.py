"""Photographic textures and textured meshes of truebench: the package's own assets, CC0 or public domain."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sfdfd.scenes.raytraced.lighting import Light
from sfdfd.scenes.raytraced.patches import Patch
from sfdfd.scenes.raytraced.surface_textures import SurfaceTexture, srgb_to_linear

__all__ = ["ASSETS", "Mesh", "MeshPatch", "PhotoTexture", "asset_names", "load_mesh"]

Array = np.ndarray
ASSETS = Path(__file__).with_name("truebench_assets")
"""The folder of the assets; ``ATTRIBUTION.md`` in it names their authors."""
LARGEST_ENLARGEMENT = 1.3
"""A photograph that would be softer than this is repeated instead."""
BACK_OFFSET = 1e-3
"""Distance between a mesh and its inner side, as a share of its size."""


@functools.cache
def asset_names(kind: str) -> tuple[str, ...]:
    """Return the names of the assets of a kind: material, picture, backdrop or mesh."""
    return tuple(sorted(path.stem for path in (ASSETS / kind).iterdir() if path.suffix in (".jpg", ".npz")))


def _linear_light(code: bytes) -> Array:
    image: Array | None = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None  # the package's own files
    return srgb_to_linear(image.astype(float) / 255).astype(np.float32)


@functools.cache
def _photograph(kind: str, name: str) -> Array:
    """Return a photograph as (H,W,3) linear light in [0, 1]."""
    return _linear_light((ASSETS / kind / f"{name}.jpg").read_bytes())


@dataclass(frozen=True)
class PhotoTexture(SurfaceTexture):
    """A photograph as a texture: repeated by reflection, or fitted to the surface once.

    Attributes:
        name: of the asset.
        whole: whether the photograph covers the surface once, cropped to its shape, where that enlarges it little. Otherwise
            a texel measures ``scale_m``.
    """

    name: str = ""
    whole: bool = False

    @property
    def oversampling(self) -> int:
        return 1

    def bake(self, u_m: Array, v_m: Array, texel_m: float) -> Array:
        """Return reflectance (V,U,3) in linear light in [0.01, 0.95] at sorted coordinates u_m (U,), v_m (V,), in metres."""
        photograph = _photograph(self.kind, self.name)
        height, width = photograph.shape[:2]
        size_m = np.array([v_m[-1] - v_m[0], u_m[-1] - u_m[0]]) + texel_m
        scale_m = float((size_m / (height, width)).max())  # the longer of the two fits, the other is cropped
        if self.whole and scale_m < LARGEST_ENLARGEMENT * self.scale_m:
            first = (np.array([height, width]) - size_m / scale_m) / 2
            row, column = first[0] + (v_m - v_m[0]) / scale_m, first[1] + (u_m - u_m[0]) / scale_m
        else:
            scale_m = self.scale_m
            row, column = v_m / scale_m, u_m / scale_m
        factor = max(1, round(texel_m / scale_m))
        if factor > 1:  # average the texels that one sample stands for
            photograph = cv2.resize(photograph, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        colour = _along(_along(photograph, row / factor, 0), column / factor, 1)
        return np.clip(colour * (0.75 + 0.25 * self.contrast), 0.01, 0.95)


def _along(image: Array, position: Array, axis: int) -> Array:
    """Interpolate linearly along an axis at fractional indices, beyond the ends by reflection."""
    count = image.shape[axis]
    first = np.floor(position).astype(int)
    share = (position - first).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)).astype(np.float32)

    def at(index: Array) -> Array:
        index = index % (2 * count)
        return np.take(image, np.where(index < count, index, 2 * count - 1 - index), axis)

    return (1 - share) * at(first) + share * at(first + 1)


# ---------------------------------------------------------------- meshes


@dataclass(frozen=True)
class Mesh:
    """A textured mesh in the camera's frame or its own.

    Attributes:
        vertices_m: (N,3) points; an asset's largest side is 1, its middle the origin, y points down.
        normals: (N,3) unit normals.
        uv: (N,2) texture coordinates in [0, 1]; no two triangles share texels.
        faces: (T,3) indices, wound as :class:`sfdfd.scenes.raytraced.patches.Patch` winds its triangles.
        reflectance: (V,U,3) linear light.
        size_m: largest side of the real object.
    """

    vertices_m: Array
    normals: Array
    uv: Array
    faces: Array
    reflectance: Array
    size_m: float

    def moved(self, scale: float, turn: Array, centre: Array) -> Mesh:
        """Return the mesh scaled, turned and moved."""
        vertices = self.vertices_m * scale @ turn.T + centre
        return Mesh(vertices, self.normals @ turn.T, self.uv, self.faces, self.reflectance, self.size_m)

    @property
    def extent(self) -> Array:
        """Return the (3,) sides of the box around the mesh."""
        return np.ptp(self.vertices_m, axis=0)


@functools.cache
def load_mesh(name: str) -> Mesh:
    """Return an asset, and its inner side, which is seen where the surface is open."""
    with np.load(ASSETS / "mesh" / f"{name}.npz") as file:
        vertices, normals = file["vertices"].astype(float), file["normals"] / 127.0
        uv, faces = file["uv"] / 65535.0, file["faces"].astype(np.int64)
        reflectance, size_m = _linear_light(file["texture"].tobytes()), float(file["size_m"])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    inner = vertices - BACK_OFFSET * normals
    return Mesh(
        np.concatenate([vertices, inner]),
        np.concatenate([normals, -normals]),
        np.concatenate([uv, uv]),
        np.concatenate([faces, faces[:, ::-1] + len(vertices)]),
        np.clip(reflectance, 0.01, 0.95),
        size_m,
    )


@dataclass(frozen=True)
class MeshPatch(Patch):
    """A mesh that emits its texture as light; ``vertices_m`` is (N,1,3)."""

    faces: Array
    coordinates: Array

    @property
    def triangles(self) -> Array:
        return self.faces

    @property
    def uv(self) -> Array:
        return self.coordinates


def bare_patch(mesh: Mesh) -> MeshPatch:
    """Return a mesh without a texture, for its geometry."""
    return MeshPatch(mesh.vertices_m[:, None].astype(np.float32), np.zeros((1, 1, 3), np.float32), mesh.faces, mesh.uv)


def lit_patch(mesh: Mesh, light: Light, owner: int) -> MeshPatch:
    """Return a mesh with its radiance: reflectance times light. Both sides of an open surface are lit as the outer one."""
    outer = len(mesh.vertices_m) // 2
    shade = light.shade(mesh.vertices_m[:outer, None], mesh.normals[:outer, None], owner)[:, 0]
    filled = _filled(mesh.uv[:outer], mesh.faces[: len(mesh.faces) // 2], shade, mesh.reflectance.shape[:2])
    return MeshPatch(
        mesh.vertices_m[:, None].astype(np.float32), (mesh.reflectance * filled).astype(np.float32), mesh.faces, mesh.uv
    )


def _filled(uv: Array, faces: Array, values: Array, size: tuple[int, int]) -> Array:
    """Interpolate values of vertices (N,3) over an atlas (V,U,3); texels outside of its charts take the nearest value."""
    rows, columns = size
    image, is_filled = np.zeros((rows, columns, 3), np.float32), np.zeros((rows, columns), bool)
    texels = uv * (columns, rows) - 0.5
    corners = texels[faces]
    low = np.floor(corners.min(1)).astype(int).clip(0, (columns - 1, rows - 1))
    high = np.ceil(corners.max(1)).astype(int).clip(0, (columns - 1, rows - 1)) + 1
    edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], -1)
    solvable = np.abs(np.linalg.det(edges)) > 1e-9
    for t in np.flatnonzero(solvable):
        x, y = np.meshgrid(np.arange(low[t, 0], high[t, 0]), np.arange(low[t, 1], high[t, 1]))
        offset = np.stack([x.ravel() - corners[t, 0, 0], y.ravel() - corners[t, 0, 1]])
        b = np.linalg.inv(edges[t]) @ offset
        inside = (b[0] > -0.3) & (b[1] > -0.3) & (b.sum(0) < 1.3)
        weights = np.stack([1 - b.sum(0), *b], 1)[inside]
        image[y.ravel()[inside], x.ravel()[inside]] = weights @ values[faces[t]]
        is_filled[y.ravel()[inside], x.ravel()[inside]] = True
    if is_filled.any() and not is_filled.all():
        _, labels = cv2.distanceTransformWithLabels(
            (~is_filled).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        source = np.zeros(labels.max() + 1, np.int64)
        source[labels[is_filled]] = np.flatnonzero(is_filled.ravel())
        image = image.reshape(-1, 3)[source[labels]]
    return image
