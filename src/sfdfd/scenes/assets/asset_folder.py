"""Find the images and meshes of a folder of assets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError, one_line
from sfdfd.scenes.assets.mesh_files import MESH_SUFFIXES
from sfdfd.scenes.truebench_surfaces import ASSETS as TRUEBENCH_ASSETS

__all__ = ["HELD_BACK_SHARE", "AssetFolder"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MOST_OWN_BLUR = 0.25
"""Images with a larger share of soft blocks (``own_blur`` of ``index.json``) are left out: their blur is no depth cue."""
HELD_BACK_SHARE = 6
"""One of so many images and meshes is kept for validation scenes."""


@dataclass(frozen=True)
class AssetFolder:
    """Images and meshes, sorted by path.

    Attributes:
        root: the folder.
        images: photographs and materials.
        meshes: textured meshes.
        materials: those of ``images`` that ``index.json`` calls materials (``kind: mat``), for floors and walls; all images
            where it names none.
    """

    root: Path
    images: tuple[Path, ...]
    meshes: tuple[Path, ...]
    materials: tuple[Path, ...]

    @classmethod
    def read(cls, root: str | Path) -> AssetFolder:
        """Find the assets below a folder, in any subfolders.

        ``index.json`` may list ``textures`` as mappings with ``file``, ``kind`` and ``own_blur``; without it all images are
        used. Files of which the test set truebench is made, by their names, are left out: no network may learn from them.

        Raises:
            InputError: there is no such folder, it has no image, or ``index.json`` is not readable.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; data.assets=DIR is a folder of images and meshes (data.assets)")
        files = _trainable_files(root)
        facts = _texture_facts(root / "index.json")
        images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        sharp = [path for path in images if _own_blur(facts.get(path.name, {})) <= MOST_OWN_BLUR]
        if not sharp:
            raise InputError(
                f"{root}: no image ({', '.join(IMAGE_SUFFIXES)}) that is sharp; scenes need at least one (data.assets)"
            )
        materials = [path for path in sharp if facts.get(path.name, {}).get("kind") == "mat"]
        meshes = [path for path in files if path.suffix.lower() in MESH_SUFFIXES]
        return cls(root, tuple(sharp), tuple(meshes), tuple(materials or sharp))

    def split(self, split: str) -> AssetFolder:
        """Return the assets of a split: a sixth, chosen by their names, is "val" and "test", the others are "train".

        A list too short to be divided serves every split.
        """

        def chosen(paths: Sequence[Path]) -> tuple[Path, ...]:
            is_held_back = [_is_held_back(path.name) for path in paths]
            if split == "all" or all(is_held_back) or not any(is_held_back):
                return tuple(paths)
            return tuple(path for path, held in zip(paths, is_held_back, strict=True) if held != (split == "train"))

        return AssetFolder(self.root, chosen(self.images), chosen(self.meshes), chosen(self.materials))

    def identity(self) -> str:
        """Return a digest of the names and sizes of all files."""
        files = [*self.images, *self.meshes, *self.materials]
        text = "\n".join(f"{path.relative_to(self.root)} {path.stat().st_size}" for path in files)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _trainable_files(root: Path) -> list[Path]:
    """Return all files below a folder, sorted, but for hidden ones and those of truebench."""
    benchmark = {path.stem for path in TRUEBENCH_ASSETS.glob("*/*")}
    files = (Path(folder) / name for folder, _, names in os.walk(root) for name in names if name[0] != ".")
    return sorted(path for path in files if path.stem not in benchmark)


def _is_held_back(name: str) -> bool:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[0] % HELD_BACK_SHARE == 0


def _texture_facts(path: Path) -> Mapping[str, Mapping[str, Any]]:
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8")).get("textures", [])
        return {str(entry["file"]): entry for entry in listed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable index ({one_line(error)}); mend it, or remove it") from None


def _own_blur(facts: Mapping[str, Any]) -> float:
    value = facts.get("own_blur", 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0
