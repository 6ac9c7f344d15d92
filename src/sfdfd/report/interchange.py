"""Files for other programs that need a library of their own: a depth map for compositing, a textured mesh."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.io.images import to_bytes, working_size

__all__ = ["require_exr", "require_trimesh", "write_depth_exr", "write_mesh"]

STEEPEST_DEG = 85.0
"""A triangle seen at a flatter angle than 90 degrees minus this is no surface but a jump from one to another."""
LEAST_JUMP = 0.035
"""Share of the depth that a triangle may always span, however small its pixels: depth is no better than that."""
TEXTURE_PX = 4096
"""Longest side of a texture that every WebGL viewer takes."""


def require_exr() -> Any:
    """The OpenEXR module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import OpenEXR
    except ImportError:
        raise InputError("outputs=[exr] needs OpenEXR: pip install 'sfdfd[photo]'") from None
    return OpenEXR


def require_trimesh() -> Any:
    """The trimesh module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import trimesh
    except ImportError:
        raise InputError("outputs=[glb] needs trimesh: pip install 'sfdfd[photo]'") from None
    return trimesh


def write_depth_exr(path: Path, depth: Float[Tensor, "h w"], comment: str = "") -> None:
    """Write an OpenEXR file with the one channel ``Z``, float32, as compositing programs take it.

    Args:
        path: the file.
        depth: (H,W) along the optical axis, in metres; or a relative one.
        comment: for the header.
    """
    exr = require_exr()
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage, "comments": comment}
    values = np.ascontiguousarray(depth.cpu().numpy().astype(np.float32))
    with exr.File(header, {"Z": values}) as file:
        file.write(str(path))


def write_mesh(
    path: Path,
    depth_m: Float[Tensor, "h w"],
    aif: Float[Tensor, "3 h w"],
    focal_length_px: float,
    *,
    principal_point_px: tuple[float, float] | None = None,
    keep: Bool[Tensor, "h w"] | None = None,
    largest: int = 250_000,
) -> dict[str, int]:
    """Write the scene as a binary glTF: a mesh in metres, cut at depth jumps, with the AIF for its texture, and the camera.

    A grid of pixels is joined to triangles; those are left out that are seen flatter than :data:`STEEPEST_DEG` allows and
    span more than :data:`LEAST_JUMP` of their depth: a jump from a foreground to what lies behind it. glTF's axes: x right,
    y up, the camera at the origin and looks along -z. Colours are shown as they are (``KHR_materials_unlit``).

    Args:
        path: the file.
        depth_m: (H,W) in metres.
        aif: (3,H,W) in [0, 1].
        focal_length_px: focal length over pixel pitch.
        principal_point_px: (x, y) where the optical axis meets the image, from the corner of the first pixel; its middle
            by default. glTF's camera looks along the axis, so where it is not in the middle its field of view reaches
            to the farther sides.
        keep: (H,W) what is shown at all; all by default.
        largest: at most so many vertices; a regular grid of pixels is taken where there are more.

    Returns:
        The numbers of vertices and of triangles.

    Raises:
        InputError: trimesh is not installed.
    """
    trimesh = require_trimesh()
    height, width = depth_m.shape
    centre_x, centre_y = principal_point_px or (width / 2, height / 2)
    stride = 1
    while -(-height // stride) * -(-width // stride) > largest:
        stride += 1
    ys, xs = np.mgrid[0:height:stride, 0:width:stride]
    z = depth_m[::stride, ::stride].double().cpu().numpy()
    points = np.stack(
        [
            (xs + 0.5 - centre_x) * z / focal_length_px,
            -(ys + 0.5 - centre_y) * z / focal_length_px,
            -z,
        ],
        -1,
    ).reshape(-1, 3)
    coordinates = np.stack([(xs + 0.5) / width, 1 - (ys + 0.5) / height], -1).reshape(-1, 2)
    shown = np.ones(z.shape, bool) if keep is None else keep[::stride, ::stride].cpu().numpy()
    faces = _triangles(z, shown, stride / focal_length_px)
    used = np.unique(faces)
    place = np.zeros(len(points), np.int64)
    place[used] = np.arange(len(used))
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=_texture(aif), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    mesh = trimesh.Trimesh(
        points[used],
        place[faces],
        visual=trimesh.visual.TextureVisuals(uv=coordinates[used], material=material),
        process=False,
    )
    scene = trimesh.Scene({"scene": mesh})
    reach = [max(centre, side - centre) for centre, side in ((centre_x, width), (centre_y, height))]
    fov = [2 * math.degrees(math.atan(half / focal_length_px)) for half in reach]
    scene.camera = trimesh.scene.Camera(name="camera", resolution=[round(2 * half) for half in reach], fov=fov)
    scene.camera_transform = np.eye(4)
    path.write_bytes(trimesh.exchange.gltf.export_glb(scene, tree_postprocessor=_unlit))
    return {"vertices": len(used), "triangles": len(faces)}


def _triangles(depth: np.ndarray, shown: np.ndarray, pixel: float) -> np.ndarray:
    """(T,3) indices of the grid's points, two triangles a cell, without jumps; ``pixel`` is the angle between neighbours."""
    index = np.arange(depth.size).reshape(depth.shape)
    above_left, above, left, here = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate(
        [np.stack(corners, -1).reshape(-1, 3) for corners in ((above_left, left, above), (above, left, here))]
    )
    corners = depth.reshape(-1)[faces]
    jump = corners.max(1) / corners.min(1) - 1
    steepest = pixel * math.tan(math.radians(STEEPEST_DEG))
    return faces[shown.reshape(-1)[faces].all(1) & (jump <= max(steepest, LEAST_JUMP))]


def _texture(aif: Tensor) -> Image.Image:
    """A JPEG, which trimesh hands on as it is."""
    size = working_size(*aif.shape[-2:], longer_px=TEXTURE_PX)
    shown = aif if size == tuple(aif.shape[-2:]) else F.interpolate(aif[None], size, mode="area")[0]
    file = io.BytesIO()
    Image.fromarray(to_bytes(shown.float().cpu()).permute(1, 2, 0).numpy()).save(file, "JPEG", quality=92)
    return Image.open(file)


def _unlit(tree: dict[str, Any]) -> None:
    """A photograph has its light in it."""
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", ()), "KHR_materials_unlit"})
    for material in tree["materials"]:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
