"""LightningDataModules: which stacks train, validate and test, in batches of :class:`FocalStack`.

Here what all share, and prepared stacks; :mod:`sfdfd.datasets.synthetic` renders scenes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader, Dataset

from sfdfd.datasets.cache import CachedStacks
from sfdfd.datasets.folders import read_manifest
from sfdfd.datasets.protocols import IdentifiedDataset, SizedDataset
from sfdfd.datasets.sampling import EpochBatches, RankSampler
from sfdfd.datasets.shards import Shard, ShardedStacks, shards_below
from sfdfd.datasets.splits import SPLITS, limited, listed_names, split_names
from sfdfd.datasets.stack_folders import StackFolders, read_stack, stack_folders
from sfdfd.datasets.wrappers import DepthMasked, InMemory, SeededSamples, SkipBroken, SliceSubset
from sfdfd.errors import InputError, checked_choice, checked_number, checked_whole
from sfdfd.io.files import Report
from sfdfd.io.stack_yaml import OPTICS_KEYS, checked_keys
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["FocalStackDataModule", "Maker", "StacksDataModule"]


class Maker(Protocol):
    """What ``prepare`` calls for a data set that is made and not brought."""

    title: str
    licence: str

    def options(self) -> dict[str, Any]:
        """What it makes, as plain values; None where nobody said."""

    def write(self, root: Path, record: dict[str, Any], report: Report) -> int:
        """Make it at ``root``; the number of samples."""


class FocalStackDataModule(lightning.LightningDataModule):
    """What all sources share: loaders, seeds, the choice of a split, the constant baseline.

    Args:
        batch_size: stacks per training batch; evaluation goes one by one, so that any sizes can stand side by side.
        workers: loader processes; 0 loads in the training process.
        worker_timeout_s: how long to wait for a worker's batch before the run ends in one line.
        on_error: what a sample does that cannot be read (gone, broken): "raise" ends the run, "skip" takes the next one in
            training and validation; in tests and evaluation a figure without it would be another figure, so that it raises.
        seed: of the shuffling and of everything made at random.
        split: what ``evaluate`` looks at: "all", "train", "val" or "test".
        in_memory: keep each training and validation stack after its first use (one copy per worker).
        constant_depth_m: depth of the constant baseline; None takes the training set's median.
        slices: use only so many slices of each stack (sparse focal stacks); None uses all.
        slice_choice: which: "random" (anew at each use in training, fixed by seed and index elsewhere) or "even" (spread
            evenly in inverse focus distance).
        cache: folder in which each stack is kept once it was made, named by all that it depends on; None for none.
        near_mask_m, far_mask_m: truth outside of them does not count (a protocol's range of evaluation); None for no bound.
    """

    rounded_to_8_bits = False
    camera: Camera | None = None
    """The camera of the stacks as they come, where they all have one."""
    holdout: Any = None
    """The slices of each stack that are kept aside; see :meth:`keep_aside`."""
    resize: float = 1.0
    """Factor between the images that a configured camera means and the ones that come."""
    looked_at_for_depth: int = 8
    """So many stacks of a split are read until one has depth."""
    maker: Maker | None = None
    """What makes the stacks, where ``prepare`` has nothing to bring."""

    def __init__(
        self,
        batch_size: int = 8,
        workers: int = 0,
        worker_timeout_s: float = 600.0,
        on_error: str = "raise",
        seed: int = 0,
        split: str = "all",
        in_memory: bool = True,
        constant_depth_m: float | None = None,
        slices: int | None = None,
        slice_choice: str = "random",
        cache: str | None = None,
        near_mask_m: float | None = None,
        far_mask_m: float | None = None,
    ) -> None:
        super().__init__()
        for key, value in (("near_mask_m", near_mask_m), ("far_mask_m", far_mask_m)):
            if value is not None:
                checked_number(value, f"{key} (data.{key})")
        if slices is not None:
            checked_whole(slices, "slices (data.slices)", 2)
        checked_choice(slice_choice, "slice_choice (data.slice_choice)", ("random", "even"))
        checked_choice(split, "split (data.split)", ("all", *SPLITS))
        checked_whole(batch_size, "batch_size (data.batch_size)", 1)
        checked_whole(workers, "workers (data.workers)", 0)
        checked_whole(seed, "seed (data.seed)", 0)
        checked_choice(on_error, "on_error (data.on_error)", ("raise", "skip"))
        self.worker_timeout_s = checked_number(worker_timeout_s, "worker_timeout_s (data.worker_timeout_s)")
        self.on_error, self._first = on_error, (0, 0)
        self.cache, self.mask_m = cache, (near_mask_m, far_mask_m)
        self.slices, self.slice_choice = slices, slice_choice
        self.batch_size, self.workers, self.seed, self.split = batch_size, workers, seed, split
        self.in_memory, self.constant_depth_m = in_memory, constant_depth_m
        self._datasets: dict[str, SizedDataset] = {}
        self._survivors: dict[str, SkipBroken] = {}

    def make_dataset(self, split: str) -> SizedDataset:
        """The data set of "train", "val", "test" or "all", without memory."""
        raise NotImplementedError

    def check(self) -> None:
        """Say at once, and not in the first epoch, that a data set is not there.

        Raises:
            InputError: so.
        """

    def resized(self, camera: Camera) -> Camera:
        """A camera that was configured for the images as they are stored, for the images as they come."""
        return camera if self.resize == 1.0 else camera.resized(self.resize)

    def keep_aside(self, holdout: Any) -> None:
        """Keep slices of every stack aside (:func:`sfdfd.photographs.holdout.parse_holdout`); call this before any stack is read.

        Depth range, motion and an unknown camera are then estimated from the other slices alone.

        Raises:
            InputError: a part of the slices is used, too (``data.slices``).
        """
        if holdout is not None and self.slices is not None:
            raise InputError(
                "holdout: which slices are left out is not said where data.slices chooses some; give one of them"
            )
        self.holdout = holdout

    def optics_to_judge(self) -> tuple[Camera, list[float], tuple[float, float], str] | None:
        """Camera, focus distances, depth range in metres, and a note, for ``diagnose``; None where stacks have their own."""
        return None

    def protocol(self) -> dict[str, Any]:
        """What a figure on this data needs said beside it, as plain values."""
        low, high = self.mask_m
        return {
            **({} if self.slices is None else {"slices": self.slices, "slice_choice": self.slice_choice}),
            **({} if self.mask_m == (None, None) else {"depth_mask_m": [low or 0.0, high or math.inf]}),
        }

    def dataset(self, split: str) -> SizedDataset:
        """The data set of a split, made once; validation and test raise where the split is empty."""
        if split not in self._datasets:
            dataset = self.make_dataset(split)
            if len(dataset) == 0:
                raise InputError(f"the {split} split is empty (data)")
            if self.cache is not None:
                identified = cast(IdentifiedDataset, dataset)
                dataset = CachedStacks(identified, self.cache, self.protocol(), self.rounded_to_8_bits)
            self._datasets[split] = self._served(dataset, split, self.rounded_to_8_bits)
        return self._datasets[split]

    def _served(self, dataset: SizedDataset, split: str, bytes_are_exact: bool) -> SizedDataset:
        """Read past what is broken, kept in memory, sparse, masked, as configured; training's with its draws."""
        learnt_from = split in ("train", "val")  # the others are seen once, and judged
        if self.on_error == "skip" and learnt_from:
            dataset = self._survivors[split] = SkipBroken(dataset)
        if self.in_memory and learnt_from:
            dataset = InMemory(dataset, bytes_are_exact)
        if self.slices is not None:
            seed = None if split == "train" and self.slice_choice == "random" else self.seed
            dataset = SliceSubset(dataset, self.slices, self.slice_choice, seed)
        if self.mask_m != (None, None):
            dataset = DepthMasked(dataset, *self.mask_m)
        return SeededSamples(dataset) if split == "train" else dataset

    def skipped(self) -> dict[str, list[int]]:
        """By split, the samples that could not be read and were skipped (``on_error``)."""
        return {split: found for split, one in self._survivors.items() if (found := one.skipped)}

    def continue_at(self, epoch: int, batches: int) -> None:
        """Training goes on in this epoch after so many of its batches, as an uninterrupted one would."""
        self._first = (epoch, batches)

    def has_depth(self, split: str) -> bool:
        """Return whether stacks of a split have true depth: some may, others not. A few are looked at, evenly spread."""
        dataset = self.dataset(split)
        indices = (
            np.linspace(0, len(dataset) - 1, min(len(dataset), self.looked_at_for_depth)).round().astype(int).tolist()
        )
        return any(dataset[index].depth_m is not None for index in indices)

    def constant_baseline_m(self) -> float | None:
        """Return the depth of the constant baseline in metres: the given one, or the median of the training set's truth.
        None where it has none, is empty, or is the test set itself (of one or two samples, or by its split files)."""
        if self.constant_depth_m is not None:
            return float(self.constant_depth_m)
        return self._median_depth_m

    @cached_property
    def _median_depth_m(self) -> float | None:
        stored = self.make_dataset("train")
        if len(stored) == 0:  # a set that is there to judge
            return None
        indices = np.linspace(0, len(stored) - 1, min(len(stored), 100)).round().astype(int).tolist()
        if _same_samples(stored, self.make_dataset("test"), indices):
            return None
        train = self.dataset("train")
        medians = []
        for index in indices:
            stack = train[index]
            if stack.depth_m is not None and bool(stack.valid.any()):
                medians.append(stack.depth_m[stack.valid].median())
        return float(torch.stack(medians).median()) if medians else None

    def _loader(self, dataset: SizedDataset, **batches: Any) -> DataLoader:
        return DataLoader(
            cast(Dataset, dataset),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            timeout=self.worker_timeout_s if self.workers else 0,
            collate_fn=FocalStack.collate,
            pin_memory=torch.cuda.is_available(),
            **batches,
        )

    def _rank(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return getattr(self.trainer, "global_rank", 0), getattr(self.trainer, "world_size", 1)

    def _training_loader(self, dataset: SizedDataset) -> DataLoader:
        batches = EpochBatches(len(dataset), self.batch_size, self.seed, *self._rank())
        batches.continue_at(*self._first)
        return self._loader(dataset, batch_sampler=batches)

    def _judging_loader(self, dataset: SizedDataset) -> DataLoader:
        rank, ranks = self._rank()
        if len(dataset) % ranks and isinstance(getattr(self.trainer, "strategy", None), FSDPStrategy):
            rank, ranks = 0, 1  # each forward gathers sharded weights: the processes make equally many, so all make all
        return self._loader(dataset, batch_size=1, sampler=RankSampler(len(dataset), rank, ranks))

    def train_dataloader(self) -> DataLoader:
        return self._training_loader(self.dataset("train"))

    def val_dataloader(self) -> DataLoader:
        return self._judging_loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader:
        return self._judging_loader(self.dataset("test"))


def _same_samples(one: SizedDataset, other: SizedDataset, indices: Sequence[int]) -> bool:
    """Whether two data sets are made from the same files, as far as they say so."""
    if not isinstance(one, IdentifiedDataset) or not isinstance(other, IdentifiedDataset) or len(one) != len(other):
        return False
    return all(one.identity(index) == other.identity(index) for index in indices)


class StacksDataModule(FocalStackDataModule):
    """Prepared stacks: a folder with slices and a ``stack.yaml``, or a folder of such folders; with truth where the
    ``stack.yaml`` names it. LazySlices are taken as aligned and cameras as known; else see
    :class:`sfdfd.datasets.recorded.RecordedDataModule`.

    Args:
        root: the folder; ``splits/train.txt`` and so on name the stacks of a split, else
            :func:`sfdfd.datasets.splits.split_names` does.
        camera, focus_distances_m, focus_distance_unit_m, focus_unit, near_m, far_m: override the ``stack.yaml`` files.
        limit: use only so many stacks of each split, evenly spread.
        optics: how the slices are blurred where a ``stack.yaml`` does not say it; the stacks carry it.
        others: :class:`FocalStackDataModule`.
    """

    def __init__(
        self,
        root: str,
        camera: Mapping[str, float | None] | None = None,
        focus_distances_m: Sequence[float] | None = None,
        focus_distance_unit_m: float | None = None,
        focus_unit: str | None = None,
        near_m: float | None = None,
        far_m: float | None = None,
        limit: int | None = None,
        optics: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        checked_keys(optics or {}, OPTICS_KEYS, "data.optics")
        self.optics = BlurModel().updated(optics)
        self.root, self.limit = Path(root), limit
        self.overrides: dict[str, Any] = {
            "camera": camera,
            "focus_distances_m": focus_distances_m,
            "focus_distance_unit_m": focus_distance_unit_m,
            "focus_unit": focus_unit,
            "near_m": near_m,
            "far_m": far_m,
        }

    def read(self, folder: Path, overrides: Mapping[str, Any]) -> FocalStack:
        """One folder's stack."""
        return read_stack(folder, overrides, self.holdout, self.optics)

    def check(self) -> None:
        self.names()

    def names(self) -> list[str]:
        """Of the stacks of all splits, in order."""
        return [folder.name for folder in stack_folders(self.root)]

    def named(self, names: Sequence[str]) -> SizedDataset:
        """The stacks of these names."""
        return StackFolders(self.root, self.overrides, names, self.read)

    def make_dataset(self, split: str) -> SizedDataset:
        names = listed_names(self.root, split)
        if names is None:
            names = self.names()
            names = names if len(names) < 3 else split_names(names, split)
        return self.named(limited(names, self.limit))

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        return {
            "data": manifest.get("data", "recorded"),
            "root": str(self.root),
            "stacks": len(self.names()),
            "overrides": {key: value for key, value in self.overrides.items() if value is not None},
            "mask": "pixels of known depth within near and far",
            **({"optics_unless_described": known} if (known := self.optics.known()) else {}),
            **({} if self.holdout is None else {"holdout": self.holdout}),
            **super().protocol(),
        }


class ShardsDataModule(StacksDataModule):
    """Stacks in shards (:mod:`sfdfd.datasets.shards`): tar files in WebDataset's layout, in place of folders.

    Args:
        options: those of :class:`StacksDataModule`; ``root`` is the folder of the shards.
    """

    @cached_property
    def shards(self) -> list[Shard]:
        """The indices of the shards, read once."""
        return shards_below(self.root)

    def names(self) -> list[str]:
        return sorted(name for shard in self.shards for name in shard.stacks)

    def named(self, names: Sequence[str]) -> SizedDataset:
        return ShardedStacks(self.shards, names, partial(self.read, overrides=self.overrides))
