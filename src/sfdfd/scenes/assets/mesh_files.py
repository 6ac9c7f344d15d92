"""Read meshes (GLB, glTF, OBJ, PLY) with their textures, and images as textures with smaller copies of themselves."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from sfdfd.errors import InputError, one_line

__all__ = ["MESH_SUFFIXES", "Mesh", "Texture", "load_mesh", "load_texture"]

Array = np.ndarray
MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
SIZES_M = (0.03, 3.0)
"""Meshes whose largest side is not in this range are in other units than metres; they are scaled to the value below."""
USUAL_SIZE_M = 0.3
MOST_TRIANGLES = 2_000_000


@dataclass(frozen=True, eq=False)
class Texture:
    """sRGB codes (V,U,3) uint8 at several sizes, each half of the one before."""

    levels: tuple[Array, ...]

    @classmethod
    def of(cls, codes: Array) -> Texture:
        """Make the smaller sizes of an image (V,U,3) uint8."""
        levels = [np.ascontiguousarray(codes)]
        while min(levels[-1].shape[:2]) > 8 and len(levels) < 7:
            height, width = (side // 2 for side in levels[-1].shape[:2])
            levels.append(cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA))
        return cls(tuple(levels))

    @classmethod
    def plain(cls, colour: Any) -> Texture:
        """Return a texture of one colour (3,), codes in [0, 1]."""
        return cls.of(np.full((1, 1, 3), np.round(255 * np.clip(colour, 0, 1)), np.uint8))


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with texture coordinates.

    Attributes:
        corners_m: (T,3,3) positions of the corners in metres.
        normals: (T,3,3) unit normals at the corners.
        uv: (T,3,2) texture coordinates, u right and v down, repeated outside of [0, 1].
        tint: (T,3,3) factor on the texture at the corners, codes in [0, 1].
        texture: (T,) index into ``textures``.
        textures: of the surfaces.
    """

    corners_m: Array
    normals: Array
    uv: Array
    tint: Array
    texture: Array
    textures: tuple[Texture, ...]

    @classmethod
    def joined(cls, parts: Sequence[Mesh]) -> Mesh:
        """Return one mesh of several, with all of their textures."""
        first = np.cumsum([0, *(len(part.textures) for part in parts)])
        return cls(
            np.concatenate([part.corners_m for part in parts]),
            np.concatenate([part.normals for part in parts]),
            np.concatenate([part.uv for part in parts]),
            np.concatenate([part.tint for part in parts]),
            np.concatenate([part.texture + start for part, start in zip(parts, first, strict=False)]).astype(np.int32),
            tuple(texture for part in parts for texture in part.textures),
        )

    def moved(self, rotation: Array, offset_m: Array, scale: float = 1.0) -> Mesh:
        """Return the mesh scaled, rotated by (3,3) and moved by (3,)."""
        corners = scale * self.corners_m @ rotation.T + offset_m
        return replace(self, corners_m=corners, normals=self.normals @ rotation.T)


def load_texture(path: Path) -> Texture:
    """Read an image as a texture.

    Raises:
        InputError: the file is not a readable image.
    """
    return _cached_texture(path)


@functools.lru_cache(maxsize=512)
def _cached_texture(path: Path) -> Texture:
    try:
        with Image.open(path) as image:
            return Texture.of(_codes(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: not a readable image ({one_line(error)}); mend it, or move it out of the assets"
        ) from None


def _codes(image: Image.Image) -> Array:
    return np.asarray(image.convert("RGB"))


@functools.lru_cache(maxsize=512)
def load_mesh(path: Path) -> Mesh:
    """Read a mesh: x right, y up, z towards the viewer; its base lies on y = 0, centred on the y axis.

    Raises:
        InputError: trimesh is missing, or the file is not a readable mesh of triangles.
    """
    try:
        import trimesh
    except ImportError:
        raise InputError("reading meshes needs trimesh: pip install 'sfdfd[assets]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files with empty parts
            parts = [_part(each) for each in trimesh.load_scene(str(path)).dump() if hasattr(each, "triangles")]
    except Exception as error:  # whatever a broken file raises in one of trimesh's readers
        raise InputError(
            f"{path}: not a readable mesh ({one_line(error)}); mend it, or move it out of the assets"
        ) from None
    parts = [part for part in parts if len(part.corners_m)]
    number = sum(len(part.corners_m) for part in parts)
    if not 0 < number <= MOST_TRIANGLES or not all(np.isfinite(part.corners_m).all() for part in parts):
        raise InputError(
            f"{path}: expected 1 to {MOST_TRIANGLES} triangles with finite corners, got {number}; move it out of the assets"
        )
    return _standing(Mesh.joined(parts))


def _part(geometry: Any) -> Mesh:
    """Convert a part of a mesh file."""
    faces, number = np.asarray(geometry.faces), len(geometry.faces)
    normals = np.asarray(geometry.vertex_normals, float)[faces]
    visual, uv, texture = geometry.visual, np.zeros((number, 3, 2)), Texture.plain((1.0, 1.0, 1.0))
    image = _base_image(visual)
    if image is not None and getattr(visual, "uv", None) is not None:
        uv = np.nan_to_num(np.asarray(visual.uv, float)[faces] * (1, -1) + (0, 1))
        texture = Texture.of(_codes(image))
    tint = np.broadcast_to(_corner_colours(visual, faces, image is not None), (number, 3, 3))
    corners = np.asarray(geometry.triangles, float)
    return Mesh(corners, normals, uv, tint.astype(np.float32), np.zeros(number, np.int32), (texture,))


def _base_image(visual: Any) -> Image.Image | None:
    material = getattr(visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    return image if isinstance(image, Image.Image) else None


def _corner_colours(visual: Any, faces: Array, has_image: bool) -> Array:
    """Return the colours, codes in [0, 1], that the file gives to vertices, or to the material."""
    material = getattr(visual, "material", None)
    if material is None:
        return np.asarray(visual.vertex_colors, float).reshape(-1, 4)[faces][..., :3] / 255
    factor = getattr(material, "baseColorFactor", None)
    if factor is None:
        factor = np.full(4, 255) if has_image else material.main_color
    return np.asarray(factor, float)[:3] / 255


def _standing(mesh: Mesh) -> Mesh:
    low, high = mesh.corners_m.min((0, 1)), mesh.corners_m.max((0, 1))
    size = float((high - low).max())
    scale = 1.0 if SIZES_M[0] <= size <= SIZES_M[1] else USUAL_SIZE_M / max(size, 1e-9)
    offset = -scale * np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return mesh.moved(np.eye(3), offset, scale)
