"""Make the textures and meshes of truebench from a folder of assets: ``python benchmarks/truebench_assets.py ASSETS OUT``.

Run once; what it writes is part of the package (``src/sfdfd/scenes/truebench_assets``). It needs trimesh, xatlas,
fast-simplification, pillow and scipy, in an environment of their own. ASSETS holds ``textures/*.jpg``, ``meshes/*.glb`` and
``index.json`` (licence of each file). Only CC0 and public-domain files are taken.

A texture is scaled to ``TEXTURE_PX``. A mesh is simplified to ``TRIANGLES``, its largest side becomes 1, and its
colours are baked into a new atlas whose charts do not overlap, so that light can be baked in later.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import fast_simplification
import numpy as np
import trimesh
import xatlas
from PIL import Image
from scipy.spatial import cKDTree

TEXTURE_PX, ATLAS_PX, TRIANGLES, SAMPLES = 448, 256, 3000, 400_000
TEXTURES = {
    "material": [
        "mat_bark", "mat_bricks102_1k_jpg_color", "mat_defense_wall_diff_1k", "mat_drawerscabinet_american_oak",
        "mat_fabric_pattern_07_col_1_1k", "mat_facade", "mat_floor_long_white_tiles_diff_1k", "mat_grass001_1k_color",
        "mat_ground037_alb_ht", "mat_ground054_1k_jpg_color", "mat_marble006_1k_color", "mat_mossyrock",
        "mat_pattern042_diffuse", "mat_rock020_1k_color", "mat_rustymetal", "mat_stone_floor_diff_1k", "mat_tile02",
        "mat_woodfloor01", "mat_woodfloor043_1k_color", "mat_couch2_fabric_011_color",
    ],
    "picture": [
        "art_daffodils", "art_ducks", "art_george_eliot_middlemarch", "art_jane_austen_persuasion", "art_painting_babel",
        "art_painting_the_swing", "photo_a_pen_i_am", "photo_campanula_alliariifolia_flower",
        "photo_delphinium_flowers", "photo_grid_flower_2", "photo_ruins_image", "photo_the_spices_of_life",
    ],
    "backdrop": [
        "photo_art_gallery", "photo_ashim_dsilva", "photo_casa_mila", "photo_roman_colosseum", "photo_tea_gardens",
        "photo_windows",
    ],
}  # fmt: skip
MESHES = [
    "bs0_basketball_basketball", "bs0_bench_bench", "bs0_bookcase_bookcase", "bs0_chair_chair2", "bs0_chair_thonet",
    "bs0_couch_couch2", "bs0_cup_cake_cupcake", "bs0_horse_horse2",
    "bs0_hot_dog_hotdog", "bs0_little_plant_littleplant", "bs0_milk_tetrapak", "bs0_rock_rock2", "bs0_rock_rock3",
    "bs0_stool_stool2", "bs0_teddy_bear_teddybear", "bs0_wood_toy_woodtoy",
    "ph_lubricant_spray", "ph_painted_wooden_stool", "ph_tea_set_01",
]  # fmt: skip


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=85, optimize=True)
    return stream.getvalue()


def coloured_points(scene: trimesh.Scene) -> tuple[np.ndarray, np.ndarray]:
    """Sample the surface: points (N,3) and colours (N,3) uint8."""
    parts = [part for part in scene.dump() if len(part.faces)]
    area = np.array([part.area for part in parts])
    points, colours = [], []
    for part, share in zip(parts, area / area.sum(), strict=True):
        count = max(int(SAMPLES * share), 200)
        sampled, face = trimesh.sample.sample_surface(part, count, seed=0)
        points.append(sampled)
        colours.append(colour_at(part, sampled, face))
    return np.concatenate(points), np.concatenate(colours)


def colour_at(part: trimesh.Trimesh, points: np.ndarray, face: np.ndarray) -> np.ndarray:
    material = getattr(part.visual, "material", None)
    factor = getattr(material, "baseColorFactor", None)
    factor = np.array([255, 255, 255]) if factor is None else np.asarray(factor)[:3]
    factor = factor * 255 if factor.max() <= 1 and factor.dtype.kind == "f" else factor
    image = getattr(material, "baseColorTexture", None)
    if image is None:
        return np.tile(factor.astype(np.uint8), (len(points), 1))
    weights = trimesh.triangles.points_to_barycentric(part.triangles[face], points)
    uv = np.einsum("nk,nkd->nd", weights, part.visual.uv[part.faces[face]])
    pixels = np.asarray(image.convert("RGB"))
    row = ((1 - uv[:, 1]) % 1 * pixels.shape[0]).astype(int).clip(0, pixels.shape[0] - 1)
    column = (uv[:, 0] % 1 * pixels.shape[1]).astype(int).clip(0, pixels.shape[1] - 1)
    return (pixels[row, column] * (factor / 255)).astype(np.uint8)


def simplified(scene: trimesh.Scene) -> trimesh.Trimesh:
    mesh = trimesh.util.concatenate([trimesh.Trimesh(p.vertices, p.faces) for p in scene.dump() if len(p.faces)])
    mesh.merge_vertices()
    if len(mesh.faces) > TRIANGLES:
        vertices, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, 1 - TRIANGLES / len(mesh.faces))
        mesh = trimesh.Trimesh(vertices, faces)
    return trimesh.graph.smooth_shade(mesh, angle=np.radians(40))


def atlas_texture(vertices, faces, uv, tree, colours) -> Image.Image:
    """Colour each texel of the atlas like the nearest sampled point."""
    size = ATLAS_PX
    position = np.full((size, size, 3), np.nan)
    for corners, texels in zip(vertices[faces], uv[faces] * size - 0.5, strict=True):
        low, high = np.floor(texels.min(0)).astype(int) - 1, np.ceil(texels.max(0)).astype(int) + 2
        low, high = low.clip(0, size), high.clip(0, size)
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        basis = np.column_stack([texels[1] - texels[0], texels[2] - texels[0]])
        if abs(np.linalg.det(basis)) < 1e-9:
            continue
        b = np.linalg.solve(basis, np.stack([x.ravel() - texels[0, 0], y.ravel() - texels[0, 1]]))
        inside = (b[0] > -0.6) & (b[1] > -0.6) & (b.sum(0) < 1.6)  # and a rim
        is_new = np.isnan(position[y.ravel(), x.ravel(), 0])
        strict = (b[0] >= 0) & (b[1] >= 0) & (b.sum(0) <= 1)
        keep = inside & (is_new | strict)
        weights = np.stack([1 - b.sum(0), b[0], b[1]], 1)[keep]
        position[y.ravel()[keep], x.ravel()[keep]] = weights @ corners
    is_used = ~np.isnan(position[..., 0])
    image = np.full((size, size, 3), 128, np.uint8)
    image[is_used] = colours[tree.query(position[is_used], 3)[1]].mean(1).astype(np.uint8)
    return Image.fromarray(image)


def write_mesh(source: Path, target: Path) -> int:
    scene = trimesh.load(source, force="scene")
    points, colours = coloured_points(scene)
    mesh = simplified(scene)
    # y up in the files, y down in the camera's frame: turn about x
    turn = np.diag([1.0, -1.0, -1.0])
    mapping, faces, uv = xatlas.parametrize(mesh.vertices, mesh.faces)
    vertices, normals = mesh.vertices[mapping], mesh.vertex_normals[mapping]
    picture = atlas_texture(vertices, faces, uv, cKDTree(points), colours)
    low, high = vertices.min(0), vertices.max(0)
    scale = (high - low).max()
    vertices = (vertices - (low + high) / 2) / scale @ turn
    np.savez_compressed(
        target,
        vertices=vertices.astype(np.float16),
        normals=np.round(127 * normals @ turn).astype(np.int8),
        uv=np.round(65535 * uv).astype(np.uint16),
        faces=faces.astype(np.uint16),
        size_m=np.float32(scale),
        texture=np.frombuffer(jpeg(picture), np.uint8),
    )
    return len(faces)


def main() -> None:
    assets, out = map(Path, sys.argv[1:])
    listed = json.loads((assets / "index.json").read_text())
    licence = {item["file"]: item["licence"] for item in [*listed["textures"], *listed["meshes"]]}
    for kind, names in TEXTURES.items():
        folder = out / kind
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            assert any(word in licence[f"{name}.jpg"].lower() for word in ("cc0", "public domain")), name
            image = Image.open(assets / "textures" / f"{name}.jpg")
            factor = min(1.0, TEXTURE_PX / max(image.size))
            image = image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS)
            (folder / f"{name}.jpg").write_bytes(jpeg(image))
    (out / "mesh").mkdir(exist_ok=True)
    for name in MESHES:
        assert "CC0" in licence[f"{name}.glb"], name
        target = out / "mesh" / f"{name}.npz"
        count = write_mesh(assets / "meshes" / f"{name}.glb", target)
        print(name, count, target.stat().st_size // 1024, "kB", flush=True)


if __name__ == "__main__":
    main()
