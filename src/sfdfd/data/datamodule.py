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
from sfdfd.data.recorded import RecordedStacks, RerenderedStacks, read_stack, stack_folders
from sfdfd.data.rgbd import RGBDFolder
from sfdfd.data.sensor import SensorModel
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = [
    "ProceduralDataModule",
    "RGBDDataModule",
    "RecordedDataModule",
    "RerenderedDataModule",
    "StackDataModule",
    "split_names",
]

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
            values = {**values, "images": values["images"].float().div_(255)}
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


class _Masked(Dataset):
    """Stacks whose truth counts only where it lies between two depths."""

    def __init__(self, dataset: Dataset, near_m: float | None, far_m: float | None) -> None:
        self.dataset, self.near_m, self.far_m = dataset, near_m or 0.0, far_m or float("inf")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        stack = self.dataset[index]
        if stack.valid is None:
            return stack
        return replace(stack, valid=stack.valid & (stack.depth_m >= self.near_m) & (stack.depth_m <= self.far_m))


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
        near_mask_m, far_mask_m: truth outside of them does not count (a protocol's range of evaluation); None for no bound.
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
        near_mask_m: float | None = None,
        far_mask_m: float | None = None,
    ) -> None:
        super().__init__()
        self.cache = cache
        for key, value in (("near_mask_m", near_mask_m), ("far_mask_m", far_mask_m)):
            if value is not None and (isinstance(value, bool) or not value > 0):
                raise InputError(f"expected a positive {key} or null, got {value!r} (data.{key})")
        self.mask_m = (near_mask_m, far_mask_m)
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
        said: dict[str, Any] = {}
        if self.slices is not None:
            said |= {"slices": self.slices, "slice_choice": self.slice_choice}
        if self.mask_m != (None, None):
            said["depth_mask_m"] = [self.mask_m[0] or 0.0, self.mask_m[1] or float("inf")]
        return said

    def dataset(self, split: str) -> Dataset:
        """As :meth:`make_dataset`, made once; validation and test raise where the split is empty."""
        if split not in self._datasets:
            dataset = self.make_dataset(split)
            if len(dataset) == 0:
                raise InputError(f"the {split} split is empty (data)")
            if self.cache is not None:
                dataset = CachedStacks(dataset, self.cache, self.protocol(), self.rounded_to_8_bits)
            self._datasets[split] = self._served(dataset, split, self.rounded_to_8_bits)
        return self._datasets[split]

    def _served(self, dataset: Dataset, split: str, bytes_are_exact: bool) -> Dataset:
        """Kept in memory, sparse, and masked, as configured."""
        if self.in_memory and split in ("train", "val"):  # the others are seen once
            dataset = _Remembered(dataset, bytes_are_exact)
        if self.slices is not None:
            seed = None if split == "train" and self.slice_choice == "random" else self.seed
            dataset = _Sparse(dataset, self.slices, self.slice_choice, seed)
        return dataset if self.mask_m == (None, None) else _Masked(dataset, *self.mask_m)

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

    def _loader(self, dataset: Dataset, batch_size: int, shuffle: bool) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=shuffle and len(dataset) >= batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=FocalStack.collate,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.dataset("train"), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.dataset("val"), 1, shuffle=False)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.dataset("test"), 1, shuffle=False)


class _SynthesisDataModule(StackDataModule):
    """Stacks that a renderer makes of RGB and depth.

    Args:
        renderer, camera, focus_distances_m, near_m, far_m, round_to_8_bits, sensor, slices_in_depth_range: as in
            :class:`sfdfd.data.synthesis.StackSynthesis`.
        synthesise_on: "loader" renders each training stack where it is loaded (once, with ``in_memory`` or ``cache``);
            "device" renders every training batch anew on the device that trains, with new sensor noise each time.
            Validation and test stacks are always the loader's, and the same each time.
        common: :class:`StackDataModule`.
    """

    def __init__(
        self,
        renderer: Callable[..., torch.Tensor],
        camera: Camera,
        focus_distances_m: Sequence[float],
        near_m: float,
        far_m: float,
        round_to_8_bits: bool = True,
        sensor: SensorModel | None = None,
        slices_in_depth_range: int | None = None,
        synthesise_on: str = "loader",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if synthesise_on not in ("loader", "device"):
            raise InputError(f"expected synthesise_on loader or device, got {synthesise_on!r} (data.synthesise_on)")
        self.renderer, self.synthesise_on = renderer, synthesise_on
        self.rounded_to_8_bits = round_to_8_bits
        if len(focus_distances_m) < 2:
            raise InputError(
                f"expected two or more focus distances, got {list(focus_distances_m)}: one slice carries no depth "
                "(data.focus_distances_m)"
            )
        self.synthesis = StackSynthesis(
            renderer, camera, focus_distances_m, near_m, far_m, round_to_8_bits, sensor, slices_in_depth_range
        )

    def train_dataloader(self) -> DataLoader:
        if self.synthesise_on == "loader":
            return super().train_dataloader()
        dataset = self.make_dataset("train")
        dataset.make_stack = dataset.synthesis.unrendered
        return self._loader(self._served(dataset, "train", bytes_are_exact=False), self.batch_size, shuffle=True)

    def on_after_batch_transfer(self, batch: FocalStack, dataloader_idx: int) -> FocalStack:
        if self.synthesise_on == "loader" or self.trainer is None or not self.trainer.training:
            return batch
        seed = int(torch.randint(2**31, ()))  # of the training's own random state
        return self.synthesis.rendered(batch, torch.Generator(batch.images.device).manual_seed(seed))

    def protocol(self) -> dict[str, Any]:
        synthesis = self.synthesis
        leaks = {"leaks": "range (focus distances come from each image's true depth)"}
        options = dict(getattr(self.renderer, "options", {}))
        return {
            "camera": synthesis.camera.as_dict(),
            "focus_distances_m": synthesis.focus_distances_m.tolist()
            if synthesis.slices_in_depth_range is None
            else f"{synthesis.slices_in_depth_range}, evenly from the image's smallest to its largest true depth",
            **({} if synthesis.slices_in_depth_range is None else leaks),
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
        crop, evaluation_crop, mask_folder: as in :class:`sfdfd.data.rgbd.RGBDFolder`.
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
        crop: Sequence[int] = (0, 0, 0, 0),
        evaluation_crop: str | None = None,
        mask_folder: str | None = None,
        **synthesis: Any,
    ) -> None:
        super().__init__(**synthesis)
        self.cut = {"crop": tuple(crop), "evaluation_crop": evaluation_crop, "mask_folder": mask_folder}
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
            self.root, self.synthesis, self.depth_unit_m, self.holes, limited(chosen, self.limit), self.resize,
            **self.cut,
        )  # fmt: skip

    def protocol(self) -> dict[str, Any]:
        said = {"data": "rgbd", "root": str(self.root), "resize": self.resize, **self.cut, **super().protocol()}
        if self.cut["evaluation_crop"] is not None:
            said["mask"] += f", within the {self.cut['evaluation_crop']} crop"
        if self.cut["mask_folder"] is not None:
            said["mask"] += f", where {self.cut['mask_folder']} knows the depth"
        return said


class RerenderedDataModule(_SynthesisDataModule):
    """Prepared stacks whose AIF and depth are known, rendered anew with another camera (DEReD's DefocusNet protocol).

    Args:
        root: a folder as ``sfdfd.prepare`` makes it, with truth in every ``stack.yaml``; ``splits/`` names the splits.
        limit: use only so many stacks of each split, evenly spread.
        others: :class:`StackSynthesis` and :class:`StackDataModule`.
    """

    def __init__(self, root: str, limit: int | None = None, **synthesis: Any) -> None:
        super().__init__(**synthesis)
        self.root, self.limit = Path(root), limit
        self.names = [folder.name for folder in stack_folders(self.root)]

    def make_dataset(self, split: str) -> Dataset:
        names = listed_names(self.root, split)
        names = split_names(self.names, split) if names is None else names
        return RerenderedStacks(self.root, self.synthesis, limited(names, self.limit))

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        return {
            "data": f"{manifest.get('data', 'stacks')}, rendered anew",
            "root": str(self.root),
            **super().protocol(),
        }


class RecordedDataModule(StackDataModule):
    """Recorded stacks: a folder with slices and a ``stack.yaml``, or a folder of such folders; with truth where the
    ``stack.yaml`` names it. Slices are taken as aligned and cameras as known; else see
    :class:`sfdfd.captured.CapturedDataModule`.

    Args:
        root: the folder; ``splits/train.txt`` and so on name the stacks of a split, else :func:`split_names` does.
        camera, focus_distances_m, focus_distance_unit_m, near_m, far_m: override what the ``stack.yaml`` files say.
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
        limit: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.limit = Path(root), limit
        self.overrides = {
            "camera": camera,
            "focus_distances_m": focus_distances_m,
            "focus_distance_unit_m": focus_distance_unit_m,
            "near_m": near_m,
            "far_m": far_m,
        }
        self.names = [folder.name for folder in stack_folders(self.root)]

    def make_dataset(self, split: str) -> Dataset:
        names = listed_names(self.root, split)
        if names is None:
            names = self.names if len(self.names) < 3 else split_names(self.names, split)
        return RecordedStacks(self.root, self.overrides, limited(names, self.limit), self.read)

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        return {
            "data": manifest.get("data", "recorded"),
            "root": str(self.root),
            "stacks": len(self.names),
            "overrides": {key: value for key, value in self.overrides.items() if value is not None},
            "mask": "pixels of known depth within near and far",
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
