"""Scenes of truebench: what is photographed, with which camera, for a number of an edition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sfdfd.scenes.raytraced.builder import Builder
from sfdfd.scenes.raytraced.camera_setups import CameraSetup
from sfdfd.scenes.raytraced.lighting import Light
from sfdfd.scenes.raytraced.patches import Patch, SceneDescription, rotation
from sfdfd.scenes.raytraced.random_scenes import random_scene
from sfdfd.scenes.raytraced.surface_textures import OBJECT, SurfaceTexture
from sfdfd.scenes.truebench_surfaces import Mesh, PhotoTexture, asset_names, bare_patch, lit_patch, load_mesh

__all__ = ["CAMERA_CLASSES", "TruebenchBuilder", "class_setup", "truebench_scene"]

Array = np.ndarray
SLICES = 5
PHOTOGRAPHIC, MESHES = 0.7, 0.75
"""Share of surfaces with a photograph as texture, and of objects that are meshes."""
CLOSE_UP_M = 0.5
"""Scenes that begin nearer than this show no objects that are larger in reality."""
MATERIALS = {
    "wood": ("mat_woodfloor01", "mat_woodfloor043_1k_color", "mat_drawerscabinet_american_oak"),
    "bricks": ("mat_bricks102_1k_jpg_color", "mat_facade", "mat_defense_wall_diff_1k"),
    "tiles": ("mat_floor_long_white_tiles_diff_1k", "mat_stone_floor_diff_1k", "mat_tile02"),
    "fabric": ("mat_fabric_pattern_07_col_1_1k", "mat_couch2_fabric_011_color", "mat_pattern042_diffuse"),
    "marble": ("mat_marble006_1k_color", "mat_rock020_1k_color", "mat_rustymetal"),
    "speckle": ("mat_ground037_alb_ht", "mat_ground054_1k_jpg_color", "mat_grass001_1k_color", "mat_stone_floor_diff_1k"),
    "leaves": ("mat_mossyrock", "mat_bark", "mat_grass001_1k_color"),
}  # fmt: skip
"""Photographs in place of the generated textures of a kind. "poster" takes pictures; plain surfaces stay generated."""


@dataclass(frozen=True)
class CameraClass:
    """A class of cameras: its lenses, and the kinds of its scenes, both in turns.

    Attributes:
        lenses: focal length in metres, f-number, sensor width in metres, near and far end of the scene in metres.
        kinds: of :data:`sfdfd.scenes.raytraced.random_scenes.KINDS`.
    """

    lenses: tuple[tuple[float, float, float, float, float], ...]
    kinds: tuple[str, ...]


CAMERA_CLASSES = {
    "dslr": CameraClass(
        (
            (0.050, 1.2, 0.036, 0.6, 8.0),
            (0.035, 1.4, 0.036, 0.4, 5.0),
            (0.085, 1.8, 0.036, 1.0, 6.0),
            (0.050, 1.8, 0.036, 0.6, 8.0),
        ),
        ("room", "tabletop", "foreground", "walls", "room", "clutter", "rods"),
    ),
    "phone": CameraClass(
        (
            (0.00681, 1.85, 0.0098, 0.08, 1.5),
            (0.0087, 1.9, 0.0128, 0.1, 1.5),
            (0.00425, 1.8, 0.0048, 0.07, 1.0),
        ),
        ("tabletop", "clutter", "foreground", "walls", "tabletop", "rods", "cards"),
    ),
    "macro": CameraClass(
        (
            (0.100, 4.0, 0.036, 0.35, 0.62),
            (0.060, 5.6, 0.0235, 0.2, 0.4),
            (0.100, 5.6, 0.036, 0.35, 0.7),
        ),
        ("tabletop", "clutter", "rods", "foreground", "tabletop", "cards", "clutter"),
    ),
}


@dataclass
class TruebenchBuilder(Builder):
    """Builds scenes of photographs and meshes among generated surfaces.

    Attributes:
        meshes: by the number of their surface; the surface's grid holds the vertices as (N,1,3).
    """

    meshes: dict[int, Mesh] = field(default_factory=dict)

    def bare_patch(self, number: int) -> Patch:
        mesh = self.meshes.get(number)
        return super().bare_patch(number) if mesh is None else bare_patch(mesh)

    def lit_patch(self, number: int, light: Light, is_seen: bool) -> Patch:
        mesh = self.meshes.get(number)
        if mesh is None:
            return super().lit_patch(number, light, is_seen)
        return lit_patch(mesh, light, self.faces[number][2])

    def texture(self, kinds: tuple[str, ...], depth_m: float) -> SurfaceTexture:
        """Draw a texture; photographs replace ``PHOTOGRAPHIC`` of the generated ones, with .6 to 1.2 texels a pixel."""
        drawn = super().texture(kinds, depth_m)
        share, texels, contrast = self.rng.random(), self.rng.uniform(0.6, 1.2), self.rng.uniform(0.4, 1.2)
        pick = int(self.rng.integers(1 << 30))
        common: dict[str, Any] = {
            "palette": drawn.palette,
            "gain": drawn.gain,
            "salt": drawn.salt,
            "contrast": contrast,
        }
        if share > PHOTOGRAPHIC or drawn.kind in ("plain", "gradient"):
            return drawn
        if drawn.kind in MATERIALS:
            names, kind, whole = MATERIALS[drawn.kind], "material", False
        else:
            kind = "picture" if drawn.kind in ("poster", "text") else "backdrop"
            names, whole = asset_names(kind), True
        scale_m = self.view.pixel * depth_m / texels
        return PhotoTexture(kind=kind, scale_m=scale_m, name=names[pick % len(names)], whole=whole, **common)

    def solid(
        self, centre: Array, half: Array, turn: Array, kinds: tuple[str, ...] = (*OBJECT, "plain", "poster")
    ) -> None:
        """Add a mesh that stands where a box or round object would, or one of these."""
        if self.rng.random() >= MESHES:
            super().solid(centre, half, turn, kinds)
            return
        meshes = [load_mesh(name) for name in asset_names("mesh")]
        if self.near_m < CLOSE_UP_M:
            meshes = [mesh for mesh in meshes if mesh.size_m < CLOSE_UP_M]
        mesh = meshes[int(self.rng.integers(len(meshes)))]
        width, height, length = mesh.extent
        upright = self.world @ rotation((1, self.rng.uniform(-np.pi, np.pi)))
        scale = min(2.8 * half[1] / height, 3.5 * max(half[0], half[2]) / max(width, length))
        foot = centre + self.world @ np.array([0, half[1] - 0.5 * scale * height, 0])
        placed = mesh.moved(scale, upright, foot)
        self.meshes[len(self.faces)] = placed
        radius_m = 0.5 * scale * float(np.sort([width, height, length])[1])
        self.faces.append((placed.vertices_m[:, None], super().texture(("plain",), centre[2]), len(self.balls)))
        self.balls.append((np.asarray(foot, float), radius_m))


def class_setup(name: str, index: int, width: int) -> CameraSetup:
    """Return the camera of scene ``index`` of a class: its lens, five focus distances, its depth range.

    The focus distances are in equal ratios from 1.3 near to .75 far, or from 1.08 near to .94 far for macro.

    Args:
        name: of ``CAMERA_CLASSES``.
        index: number of the scene in its class.
        width: of the images in pixels.
    """
    lenses = CAMERA_CLASSES[name].lenses
    focal_length_m, f_number, sensor_m, near_m, far_m = lenses[index % len(lenses)]
    first, last = (1.08, 0.94) if name == "macro" else (1.3, 0.75)
    focus = [float(f"{value:.3g}") for value in np.geomspace(first * near_m, last * far_m, SLICES)]
    camera = {"focal_length_m": focal_length_m, "f_number": f_number, "pixel_pitch_m": sensor_m / width}
    settings = {"name": name, "camera": camera, "focus_distances_m": focus, "near_m": near_m, "far_m": far_m}
    return CameraSetup.of(settings, width)


def truebench_scene(seed: Sequence[int], name: str, index: int, height: int, width: int) -> SceneDescription:
    """Return scene ``index`` of a camera class.

    Args:
        seed: words of the edition's seed.
        name: of ``CAMERA_CLASSES``.
        index: number of the scene in its class.
        height, width: of the images in pixels.
    """
    setup = class_setup(name, index, width)
    words = [*seed, list(CAMERA_CLASSES).index(name)]
    kinds = CAMERA_CLASSES[name].kinds
    size = (height, width)
    return random_scene(words, index, setup.camera, *size, setup.near_m, setup.far_m, kinds, TruebenchBuilder)
