"""LightningDataModules of synthetic stacks: each provides scenes (AIF and depth), which a renderer turns into stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from sfdfd.datasets.splits import evenly_chosen, read_names, read_split_file, split_names
from sfdfd.datasets.stack_folders import stack_folders
from sfdfd.datasets.wrappers import RenderedStacks
from sfdfd.errors import InputError, checked_choice, checked_number
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.scenes.procedural import ProceduralScenes
from sfdfd.scenes.rgbd import RGBDFolder
from sfdfd.scenes.sensor import SensorModel
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack

__all__ = ["ProceduralDataModule", "RGBDDataModule", "RerenderedDataModule", "SynthesisDataModule"]


class SynthesisDataModule(FocalStackDataModule):
    """Stacks rendered from scenes.

    Args:
        renderer, camera, focus_distances_m, near_m, far_m, round_to_8_bits, sensor, slices_in_depth_range: as in
            :class:`sfdfd.scenes.synthesis.StackSynthesis`.
        synthesise_on: "loader" renders each training stack when it is loaded (once, with ``in_memory`` or ``cache``);
            "device" renders every training batch on the training device, with new sensor noise each time. Validation
            and test stacks are always rendered by the loader, and always the same.
        resize: scale of the scenes' images, relative to those of the camera.
        common: :class:`FocalStackDataModule`.
    """

    camera: Camera

    def __init__(
        self,
        renderer: Renderer,
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
        """Return the scenes of a split; see :class:`sfdfd.scenes.scene.Scene`."""
        raise NotImplementedError

    def make_dataset(self, split: str) -> IdentifiedDataset:
        return RenderedStacks(self.scenes(split), self.synthesis)

    def train_dataloader(self) -> DataLoader:
        if self.synthesise_on == "loader":
            return super().train_dataloader()
        dataset = RenderedStacks(self.scenes("train"), self.synthesis, on_device=True)
        return self._training_loader(self._wrapped(dataset, "train", bytes_are_exact=False))

    def on_after_batch_transfer(self, batch: FocalStack, dataloader_idx: int) -> FocalStack:
        if self.synthesise_on == "loader" or self.trainer is None or not self.trainer.training:
            return batch
        random_keys = batch.random_key or torch.randint(2**31, (len(batch),)).tolist()
        generators = [generator_for(random_key, "sensor", batch.images.device) for random_key in random_keys]
        rendered = [self.synthesis.rendered(stack, each) for stack, each in zip(batch, generators, strict=True)]
        return FocalStack.collate(rendered)

    def nominal_acquisition(self) -> tuple[Camera, list[float], tuple[float, float], str]:
        synthesis = self.synthesis
        span, number = (synthesis.near_m, synthesis.far_m), synthesis.slices_in_depth_range
        if number is None:
            return self.camera, synthesis.focus_distances_m.tolist(), span, ""
        note = f"{number} focus distances, evenly over each image's own depth range"
        try:
            scenes = self.scenes("all")
        except InputError:
            return self.camera, np.linspace(*span, number).tolist(), span, f"{note}; examined over the whole range"
        span = _median_depth_range_m(scenes, *span)
        return self.camera, np.linspace(*span, number).tolist(), span, f"{note}; examined for the median image"

    def protocol(self) -> dict[str, Any]:
        synthesis = self.synthesis
        options = dict(self.renderer.options)
        return {
            "camera": synthesis.camera.as_dict(),
            **self._focus_protocol(),
            "depth_range_m": [synthesis.near_m, synthesis.far_m],
            "synthesis_sigma_scale": options.pop("sigma_scale", None),
            "synthesis_renderer": {"name": type(self.renderer).__name__, **options},
            "sensor": asdict(synthesis.sensor),
            **({"sensor_seed": synthesis.seed} if synthesis.sensor.disturbs else {}),
            "round_to_8_bits": synthesis.round_to_8_bits,
            "mask": "pixels of known depth within depth_range_m",
            **super().protocol(),
        }

    def _focus_protocol(self) -> dict[str, Any]:
        number = self.synthesis.slices_in_depth_range
        if number is None:
            return {"focus_distances_m": self.synthesis.focus_distances_m.tolist()}
        return {
            "focus_distances_m": f"{number}, evenly from the image's smallest to its largest true depth",
            "leaks": "range (focus distances come from each image's true depth)",
        }


def _median_depth_range_m(scenes: IdentifiedDataset, near_m: float, far_m: float) -> tuple[float, float]:
    """Return the median over scenes of the smallest and the largest true depth within a range; the range if all are
    empty."""
    ends = []
    for index in np.linspace(0, len(scenes) - 1, min(len(scenes), 20)).round().astype(int):
        scene = scenes[int(index)]
        depth_m = scene.depth_m[scene.known & (scene.depth_m >= near_m) & (scene.depth_m <= far_m)]
        ends += [(float(depth_m.min()), float(depth_m.max()))] if len(depth_m) else []
    if not ends:
        return near_m, far_m
    low, high = np.median(ends, axis=0)
    return float(low), float(high)


class ProceduralDataModule(SynthesisDataModule):
    """Procedural scenes; train, validation and test are disjoint ranges of indices.

    Args:
        height, width: size in pixels.
        train_length, val_length, test_length: number of scenes.
        root: ignored; accepted so that sweeps over data sets can set ``data.root``.
        synthesis: :class:`SynthesisDataModule`.
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
        split_files: text files with one frame name per line, for any of train, val, test; the other splits follow
            :func:`sfdfd.datasets.splits.split_names`.
        limit: largest number of frames per split, evenly spread.
        crop, evaluation_crop, mask_folder: as in :class:`sfdfd.scenes.rgbd.RGBDFolder`.
        synthesis: :class:`SynthesisDataModule`.
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
        self.crops: dict[str, Any] = {
            "crop": tuple(crop),
            "evaluation_crop": evaluation_crop,
            "mask_folder": mask_folder,
        }
        self.root, self.depth_unit_m, self.holes = Path(root), depth_unit_m, tuple(holes)
        self.split_files = {key: value for key, value in (split_files or {}).items() if value}
        self.limit = limit

    def check(self) -> None:
        RGBDFolder.pairs(self.root)

    def scenes(self, split: str) -> IdentifiedDataset:
        if split in self.split_files:
            chosen = read_names(Path(self.split_files[split]))
        else:
            names = list(RGBDFolder.pairs(self.root))
            listed = read_split_file(self.root, split)
            chosen = split_names(names, split) if listed is None else listed
        chosen = evenly_chosen(chosen, self.limit)
        return RGBDFolder(self.root, self.depth_unit_m, self.holes, chosen, self.resize, **self.crops)

    def protocol(self) -> dict[str, Any]:
        protocol = {"data": "rgbd", "root": str(self.root), "resize": self.resize, **self.crops, **super().protocol()}
        if self.crops["evaluation_crop"] is not None:
            protocol["mask"] += f", within the {self.crops['evaluation_crop']} crop"
        if self.crops["mask_folder"] is not None:
            protocol["mask"] += f", where {self.crops['mask_folder']} knows the depth"
        return protocol


class RerenderedDataModule(SynthesisDataModule):
    """Prepared stacks with true AIF and depth, rendered again with another camera (DEReD's DefocusNet protocol).

    Args:
        root: a folder from ``sfdfd.prepare`` with ground truth in every ``stack.yaml``; ``splits/`` names the splits.
        limit: largest number of stacks per split, evenly spread.
        synthesis: :class:`SynthesisDataModule`.
    """

    def __init__(self, root: str, limit: int | None = None, **synthesis: Any) -> None:
        super().__init__(**synthesis)
        self.root, self.limit = Path(root), limit

    def check(self) -> None:
        stack_folders(self.root)

    def scenes(self, split: str) -> IdentifiedDataset:
        names = read_split_file(self.root, split)
        if names is None:
            names = split_names([folder.name for folder in stack_folders(self.root)], split)
        return PreparedScenes(self.root, evenly_chosen(names, self.limit))

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        name = f"{manifest.get('data', 'stacks')}, rendered anew"
        return {"data": name, "root": str(self.root), **super().protocol()}
