"""Files that need an optional library: a depth map as OpenEXR, a textured mesh as glTF."""

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
"""A triangle whose normal is farther than this from the viewing direction is a depth jump, not a surface."""
LEAST_JUMP = 0.035
"""Share of the depth that a triangle may always span: the accuracy of depth."""
TEXTURE_PX = 4096
"""Longest side of a texture that every WebGL viewer can load."""


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
    """Write an OpenEXR file with the channel ``Z``, float32, for compositing programs.

    Args:
        path: the file.
        depth: (H,W) along the optical axis in metres, or relative depth.
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
    """Write the scene as a binary glTF: a metric mesh that is cut at depth jumps, textured with the AIF, and the camera.

    Neighbouring pixels are joined to triangles. A triangle is left out as a depth jump where it is steeper than
    :data:`STEEPEST_DEG` and spans more than :data:`LEAST_JUMP` of its depth. In glTF's axes x points right and y up; the
    camera stands at the origin and looks along -z. Colours are shown without lighting (``KHR_materials_unlit``).

    Args:
        path: the file.
        depth_m: (H,W) in metres.
        aif: (3,H,W) in [0, 1].
        focal_length_px: focal length over pixel pitch.
        principal_point_px: (x, y) where the optical axis meets the image, from the corner of the first pixel; its middle
            by default. glTF's camera looks along the axis. Where the axis is not in the middle, its field of view reaches
            to the farther sides.
        keep: (H,W) the pixels to show; all by default.
        largest: largest number of vertices; where there are more pixels, a regular grid of them is used.

    Returns:
        The numbers of vertices and of triangles.

    Raises:
        InputError: trimesh is not installed.
    """
    trimesh = require_trimesh()
    height, width = depth_m.shape
    principal_point = principal_point_px or (width / 2, height / 2)
    stride = 1
    while -(-height // stride) * -(-width // stride) > largest:
        stride += 1
    z = depth_m[::stride, ::stride].double().cpu().numpy()
    points, texture_uv = _vertices(z, (height, width), stride, principal_point, focal_length_px)
    visible = np.ones(z.shape, bool) if keep is None else keep[::stride, ::stride].cpu().numpy()
    faces = _triangles(z, visible, stride / focal_length_px)
    used = np.unique(faces)
    new_index = np.zeros(len(points), np.int64)
    new_index[used] = np.arange(len(used))
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=_texture(aif), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    visual = trimesh.visual.TextureVisuals(uv=texture_uv[used], material=material)
    mesh = trimesh.Trimesh(points[used], new_index[faces], visual=visual, process=False)
    scene = trimesh.Scene({"scene": mesh})
    scene.camera = _camera(trimesh, (height, width), principal_point, focal_length_px)
    scene.camera_transform = np.eye(4)
    path.write_bytes(trimesh.exchange.gltf.export_glb(scene, tree_postprocessor=_unlit))
    return {"vertices": len(used), "triangles": len(faces)}


def _vertices(
    z: np.ndarray, size: tuple[int, int], stride: int, principal_point: tuple[float, float], focal_length_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,3) points in glTF's axes and (N,2) texture coordinates of every ``stride``-th pixel."""
    (height, width), (centre_x, centre_y) = size, principal_point
    ys, xs = np.mgrid[0:height:stride, 0:width:stride]
    x, y = (xs + 0.5 - centre_x) * z / focal_length_px, -(ys + 0.5 - centre_y) * z / focal_length_px
    texture_uv = np.stack([(xs + 0.5) / width, 1 - (ys + 0.5) / height], -1)
    return np.stack([x, y, -z], -1).reshape(-1, 3), texture_uv.reshape(-1, 2)


def _camera(trimesh: Any, size: tuple[int, int], principal_point: tuple[float, float], focal_length_px: float) -> Any:
    """Return a camera that looks along the optical axis and sees the farther side in each direction."""
    sides = zip(principal_point, reversed(size), strict=True)
    half_sides = [max(centre, side - centre) for centre, side in sides]
    fov = [2 * math.degrees(math.atan(half / focal_length_px)) for half in half_sides]
    return trimesh.scene.Camera(name="camera", resolution=[round(2 * half) for half in half_sides], fov=fov)


def _triangles(depth: np.ndarray, visible: np.ndarray, angle: float) -> np.ndarray:
    """Return (T,3) indices of grid points, two triangles per cell, without depth jumps.

    Args:
        depth: (H,W) in metres.
        visible: (H,W) points that may be used.
        angle: between neighbouring points, in radians.
    """
    index = np.arange(depth.size).reshape(depth.shape)
    top_left, top_right, bottom_left, bottom_right = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    cells = ((top_left, bottom_left, top_right), (top_right, bottom_left, bottom_right))
    faces = np.concatenate([np.stack(corners, -1).reshape(-1, 3) for corners in cells])
    depths = depth.reshape(-1)[faces]
    jump = depths.max(1) / depths.min(1) - 1
    steepest = angle * math.tan(math.radians(STEEPEST_DEG))
    return faces[visible.reshape(-1)[faces].all(1) & (jump <= max(steepest, LEAST_JUMP))]


def _texture(aif: Tensor) -> Image.Image:
    """Return the AIF as a JPEG, which trimesh embeds without recompression."""
    size = working_size(*aif.shape[-2:], longer_px=TEXTURE_PX)
    reduced = aif if size == tuple(aif.shape[-2:]) else F.interpolate(aif[None], size, mode="area")[0]
    file = io.BytesIO()
    Image.fromarray(to_bytes(reduced.float().cpu()).permute(1, 2, 0).numpy()).save(file, "JPEG", quality=92)
    return Image.open(file)


def _unlit(tree: dict[str, Any]) -> None:
    """Mark the materials as unlit: a photograph contains its lighting."""
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", ()), "KHR_materials_unlit"})
    for material in tree["materials"]:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
