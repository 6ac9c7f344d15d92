"""LightningDataModules: which stacks train, validate and test, in batches of :class:`FocalStack`.

A synthetic one yields scenes (AIF and depth), which one wrapper renders into stacks; a prepared one reads stacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sfdfd.data.cache import CachedStacks
from sfdfd.data.fetch import read_manifest
from sfdfd.data.scenes.prepared import PreparedScenes
from sfdfd.data.scenes.procedural import ProceduralScenes
from sfdfd.data.scenes.rgbd import RGBDFolder
from sfdfd.data.sensor import SensorModel
from sfdfd.data.splits import SPLITS, limited, listed_names, names_in, split_names
from sfdfd.data.stacks import StackFolders, read_stack, stack_folders
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.data.wrappers import Masked, Remembered, RenderedStacks, Sparse
from sfdfd.errors import InputError, checked_choice, checked_number, checked_whole
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = [
    "FocalStackDataModule",
    "ProceduralDataModule",
    "RGBDDataModule",
    "RerenderedDataModule",
    "StacksDataModule",
    "SynthesisDataModule",
]


class FocalStackDataModule(lightning.LightningDataModule):
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
    camera: Camera | None = None
    """The camera of the stacks as they come, where they all have one."""
    resize: float = 1.0
    """Factor between the images that a configured camera means and the ones that come."""

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
        for key, value in (("near_mask_m", near_mask_m), ("far_mask_m", far_mask_m)):
            if value is not None:
                checked_number(value, f"{key} (data.{key})")
        if slices is not None:
            checked_whole(slices, "slices (data.slices)", 2)
        checked_choice(slice_choice, "slice_choice (data.slice_choice)", ("random", "even"))
        checked_choice(split, "split (data.split)", ("all", *SPLITS))
        checked_whole(batch_size, "batch_size (data.batch_size)", 1)
        checked_whole(workers, "workers (data.workers)", 0)
        self.cache, self.mask_m = cache, (near_mask_m, far_mask_m)
        self.slices, self.slice_choice = slices, slice_choice
        self.batch_size, self.workers, self.seed, self.split = batch_size, workers, seed, split
        self.in_memory, self.constant_depth_m = in_memory, constant_depth_m
        self._datasets: dict[str, Dataset] = {}

    def make_dataset(self, split: str) -> Dataset:
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

    def dataset(self, split: str) -> Dataset:
        """The data set of a split, made once; validation and test raise where the split is empty."""
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
            dataset = Remembered(dataset, bytes_are_exact)
        if self.slices is not None:
            seed = None if split == "train" and self.slice_choice == "random" else self.seed
            dataset = Sparse(dataset, self.slices, self.slice_choice, seed)
        return dataset if self.mask_m == (None, None) else Masked(dataset, *self.mask_m)

    def constant_baseline_m(self) -> float | None:
        """Depth of the constant baseline in metres: the given one, or the median of the training set's truth; None where
        it has none."""
        if self.constant_depth_m is not None:
            return float(self.constant_depth_m)
        train = self.dataset("train")
        medians = []
        for index in np.linspace(0, len(train) - 1, min(len(train), 100)).round().astype(int):
            stack = train[int(index)]
            if stack.depth_m is not None and bool(stack.valid.any()):
                medians.append(stack.depth_m[stack.valid].median())
        return float(torch.stack(medians).median()) if medians else None

    def _loader(self, dataset: Dataset, batch_size: int, shuffle: bool) -> DataLoader:
        ranks = 1 if self.trainer is None else getattr(self.trainer, "world_size", 1)
        share = math.ceil(len(dataset) / ranks)  # of the data set, of one process
        return DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=shuffle and share >= batch_size,
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


class SynthesisDataModule(FocalStackDataModule):
    """Stacks that a renderer makes of scenes.

    Args:
        renderer, camera, focus_distances_m, near_m, far_m, round_to_8_bits, sensor, slices_in_depth_range: as in
            :class:`sfdfd.data.synthesis.StackSynthesis`.
        synthesise_on: "loader" renders each training stack where it is loaded (once, with ``in_memory`` or ``cache``);
            "device" renders every training batch anew on the device that trains, with new sensor noise each time.
            Validation and test stacks are always the loader's, and the same each time.
        resize: factor by which the scenes' images are smaller than those that the camera means.
        common: :class:`FocalStackDataModule`.
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
        resize: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        checked_choice(synthesise_on, "synthesise_on (data.synthesise_on)", ("loader", "device"))
        self.renderer, self.synthesise_on = renderer, synthesise_on
        self.rounded_to_8_bits = round_to_8_bits
        if len(focus_distances_m) < 2:
            raise InputError(
                f"expected two or more focus distances, got {list(focus_distances_m)}: one slice carries no depth "
                "(data.focus_distances_m)"
            )
        self.resize = checked_number(resize, "resize (data.resize)")
        self.camera = self.resized(camera)
        self.synthesis = StackSynthesis(
            renderer,
            self.camera,
            focus_distances_m,
            near_m,
            far_m,
            round_to_8_bits,
            sensor,
            slices_in_depth_range,
            self.seed,
        )

    def scenes(self, split: str) -> Dataset:
        """The scenes of a split; see :class:`sfdfd.data.scenes.scene.Scene`."""
        raise NotImplementedError

    def make_dataset(self, split: str) -> Dataset:
        return RenderedStacks(self.scenes(split), self.synthesis)

    def train_dataloader(self) -> DataLoader:
        if self.synthesise_on == "loader":
            return super().train_dataloader()
        dataset = RenderedStacks(self.scenes("train"), self.synthesis, on_device=True)
        return self._loader(self._served(dataset, "train", bytes_are_exact=False), self.batch_size, shuffle=True)

    def on_after_batch_transfer(self, batch: FocalStack, dataloader_idx: int) -> FocalStack:
        if self.synthesise_on == "loader" or self.trainer is None or not self.trainer.training:
            return batch
        seed = int(torch.randint(2**31, ()))  # of the training's own random state
        return self.synthesis.rendered(batch, torch.Generator(batch.images.device).manual_seed(seed))

    def optics_to_judge(self) -> tuple[Camera, list[float], tuple[float, float], str]:
        synthesis = self.synthesis
        span, number = (synthesis.near_m, synthesis.far_m), synthesis.slices_in_depth_range
        if number is None:
            return self.camera, synthesis.focus_distances_m.tolist(), span, ""
        note = f"{number} focus distances, evenly over each image's own depth range"
        try:
            scenes = self.scenes("all")
        except InputError:
            return self.camera, np.linspace(*span, number).tolist(), span, f"{note}; judged over the whole range"
        ends = []
        for index in np.linspace(0, len(scenes) - 1, min(len(scenes), 20)).round().astype(int):
            scene = scenes[int(index)]
            seen = scene.depth_m[scene.known & (scene.depth_m >= span[0]) & (scene.depth_m <= span[1])]
            ends += [(float(seen.min()), float(seen.max()))] if len(seen) else []
        span = tuple(float(value) for value in np.median(ends, axis=0)) if ends else span
        return self.camera, np.linspace(*span, number).tolist(), span, f"{note}; judged for the median image"

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
            **({"sensor_seed": synthesis.seed} if synthesis.sensor.disturbs else {}),
            "round_to_8_bits": synthesis.round_to_8_bits,
            "mask": "pixels of known depth within depth_range_m",
            **super().protocol(),
        }


class ProceduralDataModule(SynthesisDataModule):
    """Scenes made from nothing; train, validation and test are disjoint ranges of indices.

    Args:
        height, width: size in pixels.
        train_length, val_length, test_length: number of scenes.
        root: nothing is read from disk; it is accepted so that ``data.root`` can stand in a sweep over data sets.
        others: :class:`SynthesisDataModule`.
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

    def scenes(self, split: str) -> Dataset:
        first = {"train": 0, "val": 1_000_000, "test": 2_000_000, "all": 2_000_000}[split]
        length = self.lengths["test" if split == "all" else split]
        near_m, far_m = self.synthesis.near_m, self.synthesis.far_m
        return ProceduralScenes(length, near_m, far_m, self.seed, first, self.height, self.width)

    def protocol(self) -> dict[str, Any]:
        return {"data": "procedural", "seed": self.seed, **super().protocol()}


class RGBDDataModule(SynthesisDataModule):
    """A folder of RGB-D images (``rgb/`` and ``depth/``).

    Args:
        root: the folder.
        depth_unit_m, holes: as in :class:`sfdfd.data.scenes.rgbd.RGBDFolder`.
        split_files: text files with one frame name a line, for any of train, val, test; the others follow
            :func:`sfdfd.data.splits.split_names`.
        limit: use only so many frames of each split, evenly spread (for a quick look).
        crop, evaluation_crop, mask_folder: as in :class:`sfdfd.data.scenes.rgbd.RGBDFolder`.
        others: :class:`SynthesisDataModule`.
    """

    def __init__(
        self,
        root: str,
        depth_unit_m: float = 0.001,
        holes: Sequence[float] = (0,),
        split_files: Mapping[str, str | None] | None = None,
        limit: int | None = None,
        crop: Sequence[int] = (0, 0, 0, 0),
        evaluation_crop: str | None = None,
        mask_folder: str | None = None,
        **synthesis: Any,
    ) -> None:
        super().__init__(**synthesis)
        self.cut = {"crop": tuple(crop), "evaluation_crop": evaluation_crop, "mask_folder": mask_folder}
        self.root, self.depth_unit_m, self.holes = Path(root), depth_unit_m, tuple(holes)
        self.split_files = {key: value for key, value in (split_files or {}).items() if value}
        self.limit = limit

    def check(self) -> None:
        RGBDFolder.pairs(self.root)

    def scenes(self, split: str) -> Dataset:
        if split in self.split_files:
            chosen = names_in(Path(self.split_files[split]))
        else:
            names = list(RGBDFolder.pairs(self.root))
            listed = listed_names(self.root, split)
            chosen = split_names(names, split) if listed is None else listed
        chosen = limited(chosen, self.limit)
        return RGBDFolder(self.root, self.depth_unit_m, self.holes, chosen, self.resize, **self.cut)

    def protocol(self) -> dict[str, Any]:
        said = {"data": "rgbd", "root": str(self.root), "resize": self.resize, **self.cut, **super().protocol()}
        if self.cut["evaluation_crop"] is not None:
            said["mask"] += f", within the {self.cut['evaluation_crop']} crop"
        if self.cut["mask_folder"] is not None:
            said["mask"] += f", where {self.cut['mask_folder']} knows the depth"
        return said


class RerenderedDataModule(SynthesisDataModule):
    """Prepared stacks whose AIF and depth are known, rendered anew with another camera (DEReD's DefocusNet protocol).

    Args:
        root: a folder as ``sfdfd.prepare`` makes it, with truth in every ``stack.yaml``; ``splits/`` names the splits.
        limit: use only so many stacks of each split, evenly spread.
        others: :class:`SynthesisDataModule`.
    """

    def __init__(self, root: str, limit: int | None = None, **synthesis: Any) -> None:
        super().__init__(**synthesis)
        self.root, self.limit = Path(root), limit

    def check(self) -> None:
        stack_folders(self.root)

    def scenes(self, split: str) -> Dataset:
        names = listed_names(self.root, split)
        if names is None:
            names = split_names([folder.name for folder in stack_folders(self.root)], split)
        return PreparedScenes(self.root, limited(names, self.limit))

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        said = {"data": f"{manifest.get('data', 'stacks')}, rendered anew", "root": str(self.root)}
        return {**said, **super().protocol()}


class StacksDataModule(FocalStackDataModule):
    """Prepared stacks: a folder with slices and a ``stack.yaml``, or a folder of such folders; with truth where the
    ``stack.yaml`` names it. Slices are taken as aligned and cameras as known; else see
    :class:`sfdfd.capture.datamodule.RecordedDataModule`.

    Args:
        root: the folder; ``splits/train.txt`` and so on name the stacks of a split, else
            :func:`sfdfd.data.splits.split_names` does.
        camera, focus_distances_m, focus_distance_unit_m, near_m, far_m: override what the ``stack.yaml`` files say.
        limit: use only so many stacks of each split, evenly spread.
        others: :class:`FocalStackDataModule`.
    """

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

    def read(self, folder: Path, overrides: Mapping[str, Any]) -> FocalStack:
        """One folder's stack."""
        return read_stack(folder, overrides)

    def check(self) -> None:
        stack_folders(self.root)

    def make_dataset(self, split: str) -> Dataset:
        names = listed_names(self.root, split)
        if names is None:
            names = [folder.name for folder in stack_folders(self.root)]
            names = names if len(names) < 3 else split_names(names, split)
        return StackFolders(self.root, self.overrides, limited(names, self.limit), self.read)

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        return {
            "data": manifest.get("data", "recorded"),
            "root": str(self.root),
            "stacks": len(stack_folders(self.root)),
            "overrides": {key: value for key, value in self.overrides.items() if value is not None},
            "mask": "pixels of known depth within near and far",
            **super().protocol(),
        }
