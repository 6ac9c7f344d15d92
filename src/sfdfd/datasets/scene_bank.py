"""A bank of scenes on disk: built from assets once, in shards, and read without loading a shard whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.utils.data import Dataset

from sfdfd.datasets.folders import (
    merged_options,
    read_manifest,
    resumable_folder,
    unfinished_folder,
    unfinished_options,
)
from sfdfd.datasets.protocols import IdentifiedDataset
from sfdfd.datasets.splits import SPLITS, evenly_chosen
from sfdfd.datasets.synthetic import SynthesisDataModule
from sfdfd.errors import InputError, checked_int, one_line
from sfdfd.io.files import Report, atomic_write, file_identity
from sfdfd.scenes.assets.asset_folder import AssetFolder
from sfdfd.scenes.assets.asset_scenes import KINDS, AssetScenes
from sfdfd.scenes.layered_scene import LayeredScene
from sfdfd.scenes.scene import Scene

__all__ = ["AssetsDataModule", "BankScenes", "SceneBank", "SceneBankGenerator"]

SHARD_SCENES = 50
SHARDS = "shards"
LARGEST_CODE = 65534
FIRST_INDEX = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""Scenes of a split have the indices from here."""


@dataclass(frozen=True)
class SceneBankGenerator:
    """Writes a bank of scenes. A scene depends on the assets, seed, split, index, kinds and size, and not on their number.

    Args:
        assets: folder of images and meshes; a sixth of them makes only validation and test scenes.
        height, width: size in pixels.
        lengths: scenes by split.
        seed: any whole number from 0.
        kinds: of :data:`sfdfd.scenes.assets.asset_scenes.KINDS`, in turns.
    """

    title = "scenes built from assets, made here"
    licence = "that of the assets (the generator is Apache-2.0)"
    layout = "scenes"

    assets: str
    height: int
    width: int
    lengths: Mapping[str, int]
    seed: int
    kinds: Sequence[str]

    def __post_init__(self) -> None:
        for split in SPLITS:
            checked_int(self.lengths[split], f"{split}_length (data.{split}_length)", 0)

    def options(self) -> dict[str, Any]:
        """Return all options that the bytes depend on, as plain values."""
        return {
            "assets": AssetFolder.read(self.assets).identity(), "height": self.height, "width": self.width,
            **{f"{split}_length": self.lengths[split] for split in SPLITS}, "seed": self.seed, "kinds": list(self.kinds),
        }  # fmt: skip

    def write(self, root: Path, record: dict[str, Any], report: Report, spread: Any = None) -> int:
        """Write what is missing of the bank at ``root``, shard by shard, and return the number of scenes.

        Raises:
            InputError: an asset is broken, or an interrupted call had other options.
        """
        options = merged_options(self.options(), unfinished_options(root), root)
        total = sum(self.lengths.values())
        record |= {"options": options, "samples": total}
        planned = [
            (split, first, min(SHARD_SCENES, self.lengths[split] - first))
            for split in reversed(SPLITS)
            for first in range(0, self.lengths[split], SHARD_SCENES)
        ]
        with resumable_folder(root, record, options) as part:
            (part / SHARDS).mkdir(exist_ok=True)
            missing = [shard for shard in planned if not _shard_path(part, shard).is_file()]
            done = total - sum(length for _, _, length in missing)
            report(done, total)
            write = partial(self._write_shard, folder=part)
            for index, result in enumerate(map(write, missing)) if spread is None else spread(write, missing):
                if isinstance(result, Exception):
                    raise result
                done += missing[index][2]
                report(done, total)
        return total

    def _write_shard(self, shard: tuple[str, int, int], folder: Path) -> None:
        split, first, length = shard
        assets = AssetFolder.read(self.assets).split(split)
        scenes = AssetScenes(assets, self.seed, self.height, self.width, self.kinds)
        rows = [_packed(scenes[FIRST_INDEX[split] + first + index]) for index in range(length)]
        with atomic_write(_shard_path(folder, shard)) as path:
            save_file({key: np.stack([row[key] for row in rows]) for key in rows[0]}, path)


def _shard_path(folder: Path, shard: tuple[str, int, int]) -> Path:
    split, first, _ = shard
    return folder / SHARDS / f"{split}-{first // SHARD_SCENES:05d}.safetensors"


def _packed(scene: LayeredScene) -> dict[str, np.ndarray]:
    """Convert a scene to colours, codes of inverse depth from 1 to 65535 (0: no surface) and its range."""
    low, high = scene.range_1_m
    codes = 1 + np.round((scene.inverse_depth - low) / max(high - low, 1e-9) * LARGEST_CODE)
    return {
        "colours": scene.colours,
        "inverse_depth": np.where(scene.is_present, codes, 0).astype(np.uint16),
        "range_1_m": np.array([low, high], np.float32),
    }


class SceneBank:
    """Reads the scenes of a bank, also of one that is still being written: those of its finished shards.

    Args:
        root: from ``python -m sfdfd.prepare data=assets data.root=ROOT``.
        split: train, val, test or all.

    Raises:
        InputError: there is no bank, or it has no scene of the split.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        folder = Path(root)
        if read_manifest(folder) is None:
            folder = unfinished_folder(folder) or folder
        pattern = "*" if split == "all" else f"{split}-*"
        self.paths = sorted((folder / SHARDS).glob(f"{pattern}.safetensors"))
        lengths = [_shard_length(path) for path in self.paths]
        self.ends = np.cumsum(lengths, dtype=int)
        if not len(self):
            raise InputError(
                f"{root}: no scene of the split {split}; make them with python -m sfdfd.prepare data=assets data.assets=DIR "
                f"data.root={root}"
            )

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> LayeredScene:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self.ends, index, side="right"))
        path, row = self.paths[shard], index - (int(self.ends[shard - 1]) if shard else 0)
        with safe_open(path, "numpy") as file:
            colours, codes, ends = (file.get_slice(key)[row] for key in ("colours", "inverse_depth", "range_1_m"))
        low, high = (float(end) for end in ends)
        is_present = codes > 0
        inverse_depth = low + (codes.astype(np.float32) - 1) / LARGEST_CODE * (high - low)
        return LayeredScene(colours, np.where(is_present, inverse_depth, 0).astype(np.float32), is_present)


def _shard_length(path: Path) -> int:
    try:
        with safe_open(path, "numpy") as file:
            return int(file.get_slice("range_1_m").get_shape()[0])
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a readable shard ({one_line(error)}); remove it and prepare the bank again"
        ) from None


class BankScenes(Dataset):
    """The visible surfaces of a bank's scenes as :class:`Scene`; what lies at infinity has the largest finite depth."""

    def __init__(self, bank: SceneBank, indices: Sequence[int]) -> None:
        self.bank, self.indices = bank, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def identity(self, index: int) -> list[Any]:
        """Return what the scene depends on; its seed is the index."""
        return [self.indices[index], *(file_identity(path) for path in self.bank.paths)]

    def __getitem__(self, index: int) -> Scene:
        scene = self.bank[self.indices[index]]
        aif = torch.from_numpy(scene.colours[0]).permute(2, 0, 1).float() / 255
        depth_m = torch.from_numpy(1 / np.maximum(scene.inverse_depth[0], 1e-5))
        return Scene(aif, depth_m, name=f"scene{self.indices[index]:05d}", seed=self.indices[index])


class AssetsDataModule(SynthesisDataModule):
    """Scenes built from a folder of images and meshes, rendered into stacks.

    Args:
        root: the bank, from ``python -m sfdfd.prepare data=assets``.
        assets: folder of images and meshes that ``prepare`` reads.
        height, width: size of the scenes in pixels.
        train_length, val_length, test_length: number of scenes.
        kinds: kinds of scenes; None: all.
        limit: largest number of scenes of a split, evenly spread.
        synthesis: :class:`SynthesisDataModule`.
    """

    def __init__(
        self,
        root: str,
        assets: str | None = None,
        height: int = 240,
        width: int = 320,
        train_length: int = 3000,
        val_length: int = 60,
        test_length: int = 60,
        kinds: Sequence[str] | None = None,
        limit: int | None = None,
        **synthesis: Any,
    ) -> None:
        super().__init__(**synthesis)
        self.root, self.assets, self.size, self.limit = Path(root), assets, (height, width), limit
        self.lengths = {"train": train_length, "val": val_length, "test": test_length}
        self.kinds = tuple(KINDS) if kinds is None else tuple(kinds)

    @property
    def stack_generator(self) -> SceneBankGenerator:
        if self.assets is None:
            raise InputError("expected a folder of images and meshes (data.assets=DIR)")
        return SceneBankGenerator(self.assets, *self.size, self.lengths, self.seed, self.kinds)

    def check(self) -> None:
        SceneBank(self.root, "all")

    def scenes(self, split: str) -> IdentifiedDataset:
        bank = SceneBank(self.root, split)
        chosen = evenly_chosen([str(index) for index in range(len(bank))], self.limit)
        return BankScenes(bank, [int(index) for index in chosen])

    def protocol(self) -> dict[str, Any]:
        made_with = (read_manifest(self.root) or {}).get("options")
        return {"data": "assets", "root": str(self.root), "made_with": made_with, **super().protocol()}
