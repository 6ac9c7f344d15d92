"""LightningDataModules of :class:`FocalStack` batches: the base class, prepared stacks and shards.

:mod:`sfdfd.datasets.synthetic` has those of rendered scenes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader, Dataset

from sfdfd.datasets.cache import CachedStacks
from sfdfd.datasets.folders import read_manifest
from sfdfd.datasets.protocols import IdentifiedDataset, SizedDataset, StackGenerator
from sfdfd.datasets.sampling import EpochBatches, RankSampler
from sfdfd.datasets.shards import Shard, ShardedStacks, read_shards
from sfdfd.datasets.splits import SPLITS, evenly_chosen, read_split_file, split_names
from sfdfd.datasets.stack_folders import StackFolders, read_stack, stack_folders
from sfdfd.datasets.wrappers import DepthMasked, InMemory, SeededSamples, SkipBroken, SliceSubset
from sfdfd.errors import InputError, checked_choice, checked_int, checked_number
from sfdfd.io.stack_yaml import OPTICS_KEYS, refuse_unknown_keys
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["FocalStackDataModule", "ShardsDataModule", "StacksDataModule"]


class FocalStackDataModule(lightning.LightningDataModule):
    """Base of all data modules: loaders, seeds, splits, wrappers, the constant baseline.

    Args:
        batch_size: stacks per training batch; evaluation uses batches of one, since sizes may differ.
        workers: loader processes; 0 loads in the training process.
        worker_timeout_s: seconds to wait for a worker's batch before the run ends with an error.
        on_error: for samples that cannot be read: "raise" ends the run; "skip" uses the next sample in training and
            validation. Test and evaluation always raise, since skipping would change the figures.
        seed: of shuffling and of all random numbers.
        split: the one that ``evaluate`` uses: "all", "train", "val" or "test".
        in_memory: keep each training and validation stack after its first use (one copy per worker).
        constant_depth_m: depth of the constant baseline; None: the training set's median.
        slices: number of slices to use of each stack (sparse focal stacks); None: all.
        slice_choice: "random" (new at each use in training, fixed by seed and index elsewhere) or "even" (spread evenly in
            inverse focus distance).
        cache: folder in which finished stacks are stored, keyed by all that they depend on; None: no cache.
        near_mask_m, far_mask_m: true depth outside is not valid (the range of an evaluation protocol); None: no bound.
    """

    rounded_to_8_bits = False
    camera: Camera | None = None
    """The camera of the returned stacks, if all have the same."""
    holdout: Any = None
    """The left-out slices of each stack; see :meth:`set_holdout`."""
    resize: float = 1.0
    """Scale of the returned images, relative to those of the configured camera."""
    depth_probe_count: int = 8
    """Number of stacks that :meth:`has_depth` reads at most."""

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
            checked_int(slices, "slices (data.slices)", 2)
        checked_choice(slice_choice, "slice_choice (data.slice_choice)", ("random", "even"))
        checked_choice(split, "split (data.split)", ("all", *SPLITS))
        checked_int(batch_size, "batch_size (data.batch_size)", 1)
        checked_int(workers, "workers (data.workers)", 0)
        checked_int(seed, "seed (data.seed)", 0)
        checked_choice(on_error, "on_error (data.on_error)", ("raise", "skip"))
        self.worker_timeout_s = checked_number(worker_timeout_s, "worker_timeout_s (data.worker_timeout_s)")
        self.on_error, self._first = on_error, (0, 0)
        self.cache, self.mask_m = cache, (near_mask_m, far_mask_m)
        self.slices, self.slice_choice = slices, slice_choice
        self.batch_size, self.workers, self.seed, self.split = batch_size, workers, seed, split
        self.in_memory, self.constant_depth_m = in_memory, constant_depth_m
        self._datasets: dict[str, SizedDataset] = {}
        self._skipping: dict[str, SkipBroken] = {}

    def make_dataset(self, split: str) -> SizedDataset:
        """Return the data set of "train", "val", "test" or "all", without wrappers."""
        raise NotImplementedError

    def check(self) -> None:
        """Check before the first epoch that the data set exists.

        Raises:
            InputError: it does not exist.
        """

    @property
    def stack_generator(self) -> StackGenerator | None:
        """What generates the data set for ``prepare``; None if it is not a generated one."""
        return None

    def resized(self, camera: Camera) -> Camera:
        """Convert a camera for stored images to one for the returned images."""
        return camera if self.resize == 1.0 else camera.resized(self.resize)

    def set_holdout(self, holdout: Any) -> None:
        """Leave slices of every stack out (:func:`sfdfd.photographs.holdout.parse_holdout`); call this before reading
        stacks.

        Depth range, motion and an unknown camera are then estimated from the other slices alone.

        Raises:
            InputError: ``data.slices`` is set, too.
        """
        if holdout is not None and self.slices is not None:
            raise InputError(
                "holdout: slices cannot be left out while data.slices uses a subset of them; give one of the two"
            )
        self.holdout = holdout

    def nominal_acquisition(self) -> tuple[Camera, list[float], tuple[float, float], str] | None:
        """Return camera, focus distances, depth range in metres, and a note, for ``diagnose``; None if stacks have
        their own."""
        return None

    def protocol(self) -> dict[str, Any]:
        """Return the settings to report beside every figure on this data, as plain values."""
        low, high = self.mask_m
        return {
            **({} if self.slices is None else {"slices": self.slices, "slice_choice": self.slice_choice}),
            **({} if self.mask_m == (None, None) else {"depth_mask_m": [low or 0.0, high or math.inf]}),
        }

    def dataset(self, split: str) -> SizedDataset:
        """Return the data set of a split, with wrappers; it is created once.

        Raises:
            InputError: the split is empty.
        """
        if split not in self._datasets:
            dataset = self.make_dataset(split)
            if len(dataset) == 0:
                raise InputError(f"the {split} split is empty (data)")
            if self.cache is not None:
                identified = cast(IdentifiedDataset, dataset)
                dataset = CachedStacks(identified, self.cache, self.protocol(), self.rounded_to_8_bits)
            self._datasets[split] = self._wrapped(dataset, split, self.rounded_to_8_bits)
        return self._datasets[split]

    def _wrapped(self, dataset: SizedDataset, split: str, bytes_are_exact: bool) -> SizedDataset:
        """Add the configured wrappers."""
        repeated = split in ("train", "val")  # test samples are read once, and none may be skipped
        if self.on_error == "skip" and repeated:
            dataset = self._skipping[split] = SkipBroken(dataset)
        if self.in_memory and repeated:
            dataset = InMemory(dataset, bytes_are_exact)
        if self.slices is not None:
            seed = None if split == "train" and self.slice_choice == "random" else self.seed
            dataset = SliceSubset(dataset, self.slices, self.slice_choice, seed)
        if self.mask_m != (None, None):
            dataset = DepthMasked(dataset, *self.mask_m)
        return SeededSamples(dataset) if split == "train" else dataset

    def skipped(self) -> dict[str, list[int]]:
        """Return, by split, the samples that could not be read and were skipped (``on_error``)."""
        return {split: dataset.skipped for split, dataset in self._skipping.items() if dataset.skipped}

    def continue_at(self, epoch: int, batches: int) -> None:
        """Start training in this epoch, after a number of its batches, as an uninterrupted run would continue."""
        self._first = (epoch, batches)

    def has_depth(self, split: str) -> bool:
        """Return whether any of a few evenly spread stacks of a split has true depth."""
        dataset = self.dataset(split)
        return any(dataset[i].depth_m is not None for i in _spread_indices(len(dataset), self.depth_probe_count))

    def constant_baseline_depth_m(self) -> float | None:
        """Return the depth of the constant baseline in metres: the configured one, or the median of the training set.

        None if the training set has no depth, is empty, or is the test set itself (tiny sets, or by its split files).
        """
        if self.constant_depth_m is not None:
            return float(self.constant_depth_m)
        return self._median_depth_m

    @cached_property
    def _median_depth_m(self) -> float | None:
        unwrapped = self.make_dataset("train")
        if len(unwrapped) == 0:  # a data set for evaluation only
            return None
        indices = _spread_indices(len(unwrapped), 100)
        if _same_samples(unwrapped, self.make_dataset("test"), indices):
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
        """Return this process's number, and the number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _training_loader(self, dataset: SizedDataset) -> DataLoader:
        batches = EpochBatches(len(dataset), self.batch_size, self.seed, *self._rank())
        batches.continue_at(*self._first)
        return self._loader(dataset, batch_sampler=batches)

    def _evaluation_loader(self, dataset: SizedDataset) -> DataLoader:
        rank, ranks = self._rank()
        if len(dataset) % ranks and self.trainer is not None and isinstance(self.trainer.strategy, FSDPStrategy):
            rank, ranks = 0, 1  # each forward gathers sharded weights, so all processes need equally many samples
        return self._loader(dataset, batch_size=1, sampler=RankSampler(len(dataset), rank, ranks))

    def train_dataloader(self) -> DataLoader:
        return self._training_loader(self.dataset("train"))

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.dataset("test"))


def _spread_indices(length: int, count: int) -> list[int]:
    """Return at most ``count`` indices, evenly spread."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()


def _same_samples(a: SizedDataset, b: SizedDataset, indices: Sequence[int]) -> bool:
    """Return whether two data sets read the same files; False if they do not tell."""
    if not isinstance(a, IdentifiedDataset) or not isinstance(b, IdentifiedDataset) or len(a) != len(b):
        return False
    return all(a.identity(index) == b.identity(index) for index in indices)


class StacksDataModule(FocalStackDataModule):
    """Prepared stacks: a folder with slices and a ``stack.yaml``, or a folder of such folders; with ground truth if the
    ``stack.yaml`` names it. Slices have to be aligned and cameras known; otherwise use
    :class:`sfdfd.datasets.recorded.RecordedDataModule`.

    Args:
        root: the folder; ``splits/train.txt`` etc. name the stacks of a split, by default
            :func:`sfdfd.datasets.splits.split_names`.
        camera, focus_distances_m, focus_distance_unit_m, focus_unit, near_m, far_m, side: override the ``stack.yaml`` files.
        limit: largest number of stacks per split, evenly spread.
        optics: how the slices are blurred, for keys that a ``stack.yaml`` does not set.
        common: :class:`FocalStackDataModule`.
    """

    def __init__(
        self,
        root: str,
        camera: Mapping[str, Any] | None = None,
        focus_distances_m: Sequence[float] | None = None,
        focus_distance_unit_m: float | None = None,
        focus_unit: str | None = None,
        near_m: float | None = None,
        far_m: float | None = None,
        side: str | None = None,
        limit: int | None = None,
        optics: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        refuse_unknown_keys(optics or {}, OPTICS_KEYS, "data.optics")
        self.optics = BlurModel().updated(optics)
        self.root, self.limit = Path(root), limit
        self.overrides: dict[str, Any] = {
            "camera": camera,
            "focus_distances_m": focus_distances_m,
            "focus_distance_unit_m": focus_distance_unit_m,
            "focus_unit": focus_unit,
            "near_m": near_m,
            "far_m": far_m,
            "side": side,
        }

    def read(self, folder: Path, overrides: Mapping[str, Any]) -> FocalStack:
        """Read the stack of a folder."""
        return read_stack(folder, overrides, self.holdout, self.optics)

    def check(self) -> None:
        self.names()

    def names(self) -> list[str]:
        """Return the names of all stacks, sorted."""
        return [folder.name for folder in stack_folders(self.root)]

    def named(self, names: Sequence[str]) -> SizedDataset:
        """Return the data set of these stacks."""
        return StackFolders(self.root, self.overrides, names, self.read)

    def make_dataset(self, split: str) -> SizedDataset:
        names = read_split_file(self.root, split)
        if names is None:
            names = self.names()
            names = names if len(names) < 3 else split_names(names, split)
        return self.named(evenly_chosen(names, self.limit))

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        return {
            "data": manifest.get("data", "recorded"),
            "root": str(self.root),
            "stacks": len(self.names()),
            "overrides": {key: value for key, value in self.overrides.items() if value is not None},
            "mask": "pixels of known depth within near and far",
            **({"optics_unless_described": optics} if (optics := self.optics.known()) else {}),
            **({} if self.holdout is None else {"holdout": self.holdout}),
            **super().protocol(),
        }


class ShardsDataModule(StacksDataModule):
    """Stacks in shards (:mod:`sfdfd.datasets.shards`): tar files in WebDataset's layout.

    Args:
        options: those of :class:`StacksDataModule`; ``root`` is the folder of the shards.
    """

    @cached_property
    def shards(self) -> list[Shard]:
        """The shards' indices, read once."""
        return read_shards(self.root)

    def names(self) -> list[str]:
        return sorted(name for shard in self.shards for name in shard.stacks)

    def named(self, names: Sequence[str]) -> SizedDataset:
        return ShardedStacks(self.shards, names, partial(self.read, overrides=self.overrides))
