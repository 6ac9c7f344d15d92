"""LightningDataModules: which stacks train, validate and test, in batches of :class:`FocalStack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sfdfd.data.cache import CachedStacks
from sfdfd.data.fetch import read_manifest
from sfdfd.data.procedural import ProceduralScenes
from sfdfd.data.recorded import RecordedStacks, read_stack
from sfdfd.data.rgbd import RGBDFolder
from sfdfd.data.sensor import SensorModel
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["ProceduralDataModule", "RGBDDataModule", "RecordedDataModule", "StackDataModule", "split_names"]

SPLITS = ("train", "val", "test")


class _Remembered(Dataset):
    """Keeps each stack in memory after its first use, images as bytes where they were rounded to 8 bits."""

    def __init__(self, dataset: Dataset, bytes_are_exact: bool) -> None:
        self.dataset, self.bytes_are_exact = dataset, bytes_are_exact
        self.kept: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        if index not in self.kept:
            values = dict(vars(self.dataset[index]))
            if self.bytes_are_exact:
                values["images"] = (values["images"] * 255).round().to(torch.uint8)
            self.kept[index] = values
        values = self.kept[index]
        if self.bytes_are_exact:
            values = {**values, "images": values["images"].float() / 255}
        return FocalStack(**values)


class _Sparse(Dataset):
    """Some of the slices of each stack.

    Args:
        dataset: of whole stacks.
        slices: how many; a shorter stack stays as it is.
        choice: "random" or "even".
        seed: makes a random choice depend on it and the index alone; None draws anew each time, from torch's generator.
    """

    def __init__(self, dataset: Dataset, slices: int, choice: str, seed: int | None) -> None:
        self.dataset, self.slices, self.choice, self.seed = dataset, slices, choice, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        stack = self.dataset[index]
        number = stack.images.shape[1]
        if number <= self.slices:
            return stack
        if self.choice == "even":
            return stack.with_slices(evenly_spread(stack.focus_distances_m[0], self.slices))
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return stack.with_slices(torch.randperm(number, generator=generator)[: self.slices].sort().values.tolist())


def evenly_spread(focus_distances_m: torch.Tensor, number: int) -> list[int]:
    """Indices of the slices nearest to ``number`` evenly spaced inverse focus distances, each used once, in order."""
    inverse = 1 / focus_distances_m
    order = inverse.argsort(descending=True)  # near to far
    wanted = torch.linspace(float(inverse.max()), float(inverse.min()), number)
    chosen: list[int] = []
    for position, target in enumerate(wanted):
        last = len(order) - (number - position) + 1  # leave enough for those that follow
        first = chosen[-1] + 1 if chosen else 0
        candidates = range(first, last)
        chosen.append(min(candidates, key=lambda i, target=target: abs(float(inverse[order[i]] - target))))
    return sorted(int(order[i]) for i in chosen)


class StackDataModule(lightning.LightningDataModule):
    """What all sources share: loaders, seeds, the choice of a split, the constant baseline.

    Args:
        batch_size: stacks per training batch; evaluation goes one by one, so that any sizes can stand side by side.
        workers: loader processes; 0 loads in the training process.
        seed: of the shuffling and of everything made at random.
        split: what ``evaluate`` looks at: "all", "train", "val" or "test".
        in_memory: keep each training and validation stack after its first use (one copy per worker).
        constant_depth_m: depth of the constant baseline; None takes the training set's median.
        slices: use only so many slices of each stack (sparse focal stacks); None uses all.
        slice_choice: which: "random" (anew at each use in training, fixed by seed and index elsewhere) or "even" (spread
            evenly in inverse focus distance).
        cache: folder in which each stack is kept once it was made, named by all that it depends on; None for none.
    """

    rounded_to_8_bits = False

    def __init__(
        self,
        batch_size: int = 8,
        workers: int = 0,
        seed: int = 0,
        split: str = "all",
        in_memory: bool = True,
        constant_depth_m: float | None = None,
        slices: int | None = None,
        slice_choice: str = "random",
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self.cache = cache
        if slices is not None and (isinstance(slices, bool) or not isinstance(slices, int) or slices < 2):
            raise InputError(f"expected two or more slices, got {slices} (data.slices)")
        if slice_choice not in ("random", "even"):
            raise InputError(f"expected slice_choice random or even, got {slice_choice!r} (data.slice_choice)")
        self.slices, self.slice_choice = slices, slice_choice
        if batch_size < 1:
            raise InputError(f"expected batch_size >= 1, got {batch_size} (data.batch_size)")
        if split not in ("all", *SPLITS):
            raise InputError(f"expected split all, train, val or test, got {split!r} (data.split)")
        self.batch_size, self.workers, self.seed, self.split = batch_size, workers, seed, split
        self.in_memory, self.constant_depth_m = in_memory, constant_depth_m
        self._datasets: dict[str, Dataset] = {}

    def make_dataset(self, split: str) -> Dataset:
        """The stacks of "train", "val", "test" or "all"."""
        raise NotImplementedError

    def protocol(self) -> dict[str, Any]:
        """What a figure on this data depends on, as plain values."""
        return {"slices": self.slices, "slice_choice": self.slice_choice} if self.slices is not None else {}

    def dataset(self, split: str) -> Dataset:
        """As :meth:`make_dataset`, made once; validation and test raise where the split is empty."""
        if split not in self._datasets:
            dataset = self.make_dataset(split)
            if len(dataset) == 0:
                raise InputError(f"the {split} split is empty (data)")
            if self.cache is not None:
                dataset = CachedStacks(dataset, self.cache, self.protocol(), self.rounded_to_8_bits)
            remember = self.in_memory and split in ("train", "val")  # the others are seen once
            if remember:
                dataset = _Remembered(dataset, self.rounded_to_8_bits)
            if self.slices is not None:
                seed = None if split == "train" and self.slice_choice == "random" else self.seed
                dataset = _Sparse(dataset, self.slices, self.slice_choice, seed)
            self._datasets[split] = dataset
        return self._datasets[split]

    def constant_baseline_m(self) -> float:
        """Depth of the constant baseline in metres: the given one, or the median of the training set's truth."""
        if self.constant_depth_m is not None:
            return float(self.constant_depth_m)
        train = self.dataset("train")
        medians = []
        for index in np.linspace(0, len(train) - 1, min(len(train), 100)).round().astype(int):
            stack = train[int(index)]
            if stack.depth_m is not None and bool(stack.valid.any()):
                medians.append(stack.depth_m[stack.valid].median())
        if not medians:
            raise InputError("no training depth to take the constant baseline from; give data.constant_depth_m")
        return float(torch.stack(medians).median())

    def _loader(self, split: str, batch_size: int, shuffle: bool) -> DataLoader:
        return DataLoader(
            self.dataset(split),
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=shuffle and len(self.dataset(split)) >= batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=FocalStack.collate,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", 1, shuffle=False)

    def test_dataloader(self) -> DataLoader:
        return self._loader("test", 1, shuffle=False)


class _SynthesisDataModule(StackDataModule):
    """Stacks that a renderer makes of RGB and depth."""

    def __init__(
        self,
        renderer: Callable[..., torch.Tensor],
        camera: Camera,
        focus_distances_m: Sequence[float],
        near_m: float,
        far_m: float,
        round_to_8_bits: bool = True,
        sensor: SensorModel | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.renderer = renderer
        self.rounded_to_8_bits = round_to_8_bits
        if len(focus_distances_m) < 2:
            raise InputError(
                f"expected two or more focus distances, got {list(focus_distances_m)}: one slice carries no depth "
                "(data.focus_distances_m)"
            )
        self.synthesis = StackSynthesis(renderer, camera, focus_distances_m, near_m, far_m, round_to_8_bits, sensor)

    def protocol(self) -> dict[str, Any]:
        synthesis = self.synthesis
        options = dict(getattr(self.renderer, "options", {}))
        return {
            "camera": synthesis.camera.as_dict(),
            "focus_distances_m": synthesis.focus_distances_m.tolist(),
            "depth_range_m": [synthesis.near_m, synthesis.far_m],
            "synthesis_sigma_scale": options.pop("sigma_scale", None),
            "synthesis_renderer": {"name": type(self.renderer).__name__, **options},
            "sensor": asdict(synthesis.sensor),
            "round_to_8_bits": synthesis.round_to_8_bits,
            "mask": "pixels of known depth within depth_range_m",
            **super().protocol(),
        }


class ProceduralDataModule(_SynthesisDataModule):
    """Scenes made from nothing; train, validation and test are disjoint ranges of indices.

    Args:
        height, width: size in pixels.
        train_length, val_length, test_length: number of scenes.
        root: nothing is read from disk; it is accepted so that ``data.root`` can stand in a sweep over data sets.
        others: :class:`StackSynthesis` and :class:`StackDataModule`.
    """

    def __init__(
        self,
        height: int = 128,
        width: int = 160,
        train_length: int = 256,
        val_length: int = 16,
        test_length: int = 32,
        root: str | None = None,
        **synthesis: Any,
    ) -> None:
        super().__init__(**synthesis)
        self.height, self.width = height, width
        self.lengths = {"train": train_length, "val": val_length, "test": test_length}

    def make_dataset(self, split: str) -> Dataset:
        first = {"train": 0, "val": 1_000_000, "test": 2_000_000, "all": 2_000_000}[split]
        length = self.lengths["test" if split == "all" else split]
        return ProceduralScenes(length, self.synthesis, self.seed, first, self.height, self.width)

    def protocol(self) -> dict[str, Any]:
        return {"data": "procedural", "seed": self.seed, **super().protocol()}


def split_names(names: Sequence[str], split: str) -> list[str]:
    """The frames of a split where no file says: in sorted order the last tenth tests, the tenth before validates.

    Blocks, not a shuffle: neighbours in a sequence show the same room.
    """
    names = sorted(names)
    tenth = max(1, len(names) // 10)
    if len(names) < 3:
        return list(names)
    return {
        "all": names,
        "train": names[: -2 * tenth],
        "val": names[-2 * tenth : -tenth],
        "test": names[-tenth:],
    }[split]


class RGBDDataModule(_SynthesisDataModule):
    """A folder of RGB-D images (``rgb/`` and ``depth/``).

    Args:
        root: the folder.
        depth_unit_m, holes, resize: as in :class:`sfdfd.data.rgbd.RGBDFolder`.
        split_files: text files with one frame name a line, for any of train, val, test; the others follow
            :func:`split_names`.
        limit: use only so many frames of each split, evenly spread (for a quick look).
        others: :class:`StackSynthesis` and :class:`StackDataModule`.
    """

    def __init__(
        self,
        root: str,
        depth_unit_m: float = 0.001,
        holes: Sequence[float] = (0,),
        resize: float = 1.0,
        split_files: Mapping[str, str | None] | None = None,
        limit: int | None = None,
        **synthesis: Any,
    ) -> None:
        super().__init__(**synthesis)
        self.root, self.depth_unit_m, self.holes, self.resize = Path(root), depth_unit_m, tuple(holes), resize
        self.split_files = {key: value for key, value in (split_files or {}).items() if value}
        self.limit = limit
        RGBDFolder.pairs(self.root)  # a missing data set is said at once, not in the first epoch

    def make_dataset(self, split: str) -> Dataset:
        names = list(RGBDFolder.pairs(self.root))
        if split in self.split_files:
            path = Path(self.split_files[split])
            if not path.is_file():
                raise InputError(f"{path}: no such file (data.split_files.{split})")
            chosen = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        else:
            listed = listed_names(self.root, split)
            chosen = split_names(names, split) if listed is None else listed
        return RGBDFolder(
            self.root, self.synthesis, self.depth_unit_m, self.holes, limited(chosen, self.limit), self.resize
        )

    def protocol(self) -> dict[str, Any]:
        return {"data": "rgbd", "root": str(self.root), "resize": self.resize, **super().protocol()}


class RecordedDataModule(StackDataModule):
    """Recorded stacks: a folder with slices and a ``stack.yaml``, or a folder of such folders; with truth where the
    ``stack.yaml`` names it. Slices are taken as aligned and cameras as known; else see
    :class:`sfdfd.captured.CapturedDataModule`.

    Args:
        root: the folder; ``splits/train.txt`` and so on name the stacks of a split, else :func:`split_names` does.
        camera, focus_distances_m, focus_distance_unit_m, near_m, far_m: override what the ``stack.yaml`` files say.
        near_mask_m, far_mask_m: truth outside of them does not count (a protocol's evaluation range).
        limit: use only so many stacks of each split, evenly spread.
        others: :class:`StackDataModule`.
    """

    read = staticmethod(read_stack)

    def __init__(
        self,
        root: str,
        camera: Mapping[str, float | None] | None = None,
        focus_distances_m: Sequence[float] | None = None,
        focus_distance_unit_m: float | None = None,
        near_m: float | None = None,
        far_m: float | None = None,
        near_mask_m: float | None = None,
        far_mask_m: float | None = None,
        limit: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.limit = Path(root), limit
        self.mask_m = (near_mask_m, far_mask_m)
        self.overrides = {
            "camera": camera,
            "focus_distances_m": focus_distances_m,
            "focus_distance_unit_m": focus_distance_unit_m,
            "near_m": near_m,
            "far_m": far_m,
        }
        self.names = [folder.name for folder in RecordedStacks(self.root, self.overrides).folders]

    def make_dataset(self, split: str) -> Dataset:
        names = listed_names(self.root, split)
        if names is None:
            names = self.names if len(self.names) < 3 else split_names(self.names, split)
        return RecordedStacks(self.root, self.overrides, limited(names, self.limit), self.read_one)

    def read_one(self, folder: Path, overrides: Mapping[str, Any]) -> FocalStack:
        stack = self.read(folder, overrides)
        if stack.valid is not None:
            low, high = self.mask_m
            valid = stack.valid
            valid = valid if low is None else valid & (stack.depth_m >= low)
            valid = valid if high is None else valid & (stack.depth_m <= high)
            stack = replace(stack, valid=valid)
        return stack

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        return {
            "data": manifest.get("data", "recorded"),
            "root": str(self.root),
            "stacks": len(self.names),
            "overrides": {key: value for key, value in self.overrides.items() if value is not None},
            "mask": f"pixels of known depth within near and far, {self.mask_m[0] or 0} to {self.mask_m[1] or 'inf'} m",
            **super().protocol(),
        }


def listed_names(root: Path, split: str) -> list[str] | None:
    """The names that ``root/splits/SPLIT.txt`` lists, None where there is no such file (or all are asked for)."""
    path = root / "splits" / f"{split}.txt"
    return path.read_text().split() if split != "all" and path.is_file() else None


def limited(names: Sequence[str], limit: int | None) -> list[str]:
    """At most ``limit`` of the names, evenly spread."""
    if limit is None or len(names) <= limit:
        return list(names)
    if limit < 1:
        raise InputError(f"expected a limit of 1 or more, got {limit} (data.limit)")
    return [names[i] for i in np.linspace(0, len(names) - 1, limit).round().astype(int)]
