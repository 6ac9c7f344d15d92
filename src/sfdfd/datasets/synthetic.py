"""LightningDataModules of synthetic stacks: each yields scenes (AIF and depth), and one wrapper renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.datasets.folders import read_manifest
from sfdfd.datasets.prepared import PreparedScenes
from sfdfd.datasets.protocols import IdentifiedDataset
from sfdfd.datasets.sampling import generator_for
from sfdfd.datasets.splits import limited, listed_names, names_in, split_names
from sfdfd.datasets.stack_folders import stack_folders
from sfdfd.datasets.wrappers import RenderedStacks
from sfdfd.errors import InputError, checked_choice, checked_number
from sfdfd.optics.camera import Camera
from sfdfd.scenes.procedural import ProceduralScenes
from sfdfd.scenes.rgbd import RGBDFolder
from sfdfd.scenes.sensor import SensorModel
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack

__all__ = ["ProceduralDataModule", "RGBDDataModule", "RerenderedDataModule", "SynthesisDataModule"]


class SynthesisDataModule(FocalStackDataModule):
    """Stacks that a renderer makes of scenes.

    Args:
        renderer, camera, focus_distances_m, near_m, far_m, round_to_8_bits, sensor, slices_in_depth_range: as in
            :class:`sfdfd.scenes.synthesis.StackSynthesis`.
        synthesise_on: "loader" renders each training stack where it is loaded (once, with ``in_memory`` or ``cache``);
            "device" renders every training batch anew on the device that trains, with new sensor noise each time.
            Validation and test stacks are always the loader's, and the same each time.
        resize: factor by which the scenes' images are smaller than those that the camera means.
        common: :class:`FocalStackDataModule`.
    """

    camera: Camera

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

    def scenes(self, split: str) -> IdentifiedDataset:
        """The scenes of a split; see :class:`sfdfd.scenes.scene.Scene`."""
        raise NotImplementedError

    def make_dataset(self, split: str) -> IdentifiedDataset:
        return RenderedStacks(self.scenes(split), self.synthesis)

    def train_dataloader(self) -> DataLoader:
        if self.synthesise_on == "loader":
            return super().train_dataloader()
        dataset = RenderedStacks(self.scenes("train"), self.synthesis, on_device=True)
        return self._training_loader(self._served(dataset, "train", bytes_are_exact=False))

    def on_after_batch_transfer(self, batch: FocalStack, dataloader_idx: int) -> FocalStack:
        if self.synthesise_on == "loader" or self.trainer is None or not self.trainer.training:
            return batch
        draws = batch.random_key or torch.randint(2**31, (len(batch),)).tolist()
        generators = [generator_for(random_key, "sensor", batch.images.device) for random_key in draws]
        made = [self.synthesis.rendered(one, each) for one, each in zip(batch, generators, strict=True)]
        return FocalStack.collate(made)

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
        if ends:
            low, high = np.median(ends, axis=0)
            span = float(low), float(high)
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

    def scenes(self, split: str) -> IdentifiedDataset:
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
        depth_unit_m, holes: as in :class:`sfdfd.scenes.rgbd.RGBDFolder`.
        split_files: text files with one frame name a line, for any of train, val, test; the others follow
            :func:`sfdfd.datasets.splits.split_names`.
        limit: use only so many frames of each split, evenly spread (for a quick look).
        crop, evaluation_crop, mask_folder: as in :class:`sfdfd.scenes.rgbd.RGBDFolder`.
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
        self.cut: dict[str, Any] = {"crop": tuple(crop), "evaluation_crop": evaluation_crop, "mask_folder": mask_folder}
        self.root, self.depth_unit_m, self.holes = Path(root), depth_unit_m, tuple(holes)
        self.split_files = {key: value for key, value in (split_files or {}).items() if value}
        self.limit = limit

    def check(self) -> None:
        RGBDFolder.pairs(self.root)

    def scenes(self, split: str) -> IdentifiedDataset:
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

    def scenes(self, split: str) -> IdentifiedDataset:
        names = listed_names(self.root, split)
        if names is None:
            names = split_names([folder.name for folder in stack_folders(self.root)], split)
        return PreparedScenes(self.root, limited(names, self.limit))

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        said = {"data": f"{manifest.get('data', 'stacks')}, rendered anew", "root": str(self.root)}
        return {**said, **super().protocol()}
