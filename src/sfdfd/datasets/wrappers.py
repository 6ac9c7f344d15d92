"""Data sets around data sets: rendered, kept in memory, sparse, masked, read past what is broken."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset

from sfdfd.datasets.protocols import IdentifiedDataset, SizedDataset
from sfdfd.datasets.sampling import generator_for
from sfdfd.errors import InputError, one_line
from sfdfd.io.images import to_bytes
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack

__all__ = ["DepthMasked", "InMemory", "RenderedStacks", "SeededSamples", "SkipBroken", "SliceSubset", "evenly_spread"]


class RenderedStacks(Dataset):
    """Scenes as focal stacks: the one place where a data set is rendered.

    Args:
        scenes: yields :class:`sfdfd.scenes.scene.Scene`.
        synthesis: renders them.
        on_device: leave the rendering to whoever has the batch on its device (:meth:`StackSynthesis.rendered`).
    """

    def __init__(self, scenes: IdentifiedDataset, synthesis: StackSynthesis, on_device: bool = False) -> None:
        self.scenes = scenes
        self.make = synthesis.unrendered if on_device else synthesis

    def __len__(self) -> int:
        return len(self.scenes)

    def identity(self, index: int) -> list[Any]:
        """What the scene is made from, besides the synthesis."""
        return self.scenes.identity(index)

    def __getitem__(self, index: int) -> FocalStack:
        return self.make(self.scenes[index])


class InMemory(Dataset):
    """Keeps each stack in memory after its first use, images as bytes where they were rounded to 8 bits."""

    def __init__(self, dataset: SizedDataset, bytes_are_exact: bool) -> None:
        self.dataset, self.bytes_are_exact = dataset, bytes_are_exact
        self.kept: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        place = int(index)
        if place not in self.kept:
            values = dict(vars(self.dataset[place]))
            if self.bytes_are_exact:
                values["images"] = to_bytes(values["images"])
            self.kept[place] = values
        values = self.kept[place]
        if self.bytes_are_exact:
            values = {**values, "images": values["images"].float().div_(255)}
        return FocalStack(**values)


class SliceSubset(Dataset):
    """Some of the slices of each stack.

    Args:
        dataset: of whole stacks.
        slices: how many; a shorter stack stays as it is.
        choice: "random" or "even".
        seed: makes a random choice depend on it and the index alone; None takes what the sample draws in its epoch
            (:class:`sfdfd.datasets.sampling.Sample`), torch's own generator for a bare index.
    """

    def __init__(self, dataset: SizedDataset, slices: int, choice: str, seed: int | None) -> None:
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
        random_key, generator = getattr(index, "random_key", None), None
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        elif random_key is not None:
            generator = generator_for(random_key, "slices")
        return stack.with_slices(torch.randperm(number, generator=generator)[: self.slices].sort().values.tolist())


class DepthMasked(Dataset):
    """Stacks whose truth counts only where it lies between two depths."""

    def __init__(self, dataset: SizedDataset, near_m: float | None, far_m: float | None) -> None:
        self.dataset, self.near_m, self.far_m = dataset, near_m or 0.0, far_m or float("inf")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        stack = self.dataset[index]
        if stack.valid is None:
            return stack
        return replace(stack, valid=stack.valid & (stack.depth_m >= self.near_m) & (stack.depth_m <= self.far_m))


class SeededSamples(Dataset):
    """Stacks that carry what they draw their random numbers from (``FocalStack.random_key``), where the index does."""

    def __init__(self, dataset: SizedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        stack, random_key = self.dataset[index], getattr(index, "random_key", None)
        return stack if random_key is None else replace(stack, random_key=(random_key,))


class SkipBroken(Dataset):
    """The next sample in place of one whose file has vanished or is broken; each is said once and counted, in whatever
    process it was read.

    Args:
        dataset: whose samples raise :class:`sfdfd.errors.InputError` or OSError where they cannot be read.
    """

    def __init__(self, dataset: SizedDataset) -> None:
        self.dataset = dataset
        self.broken = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def skipped(self) -> list[int]:
        """The samples that could not be read so far."""
        return self.broken.nonzero().flatten().tolist()

    def __getitem__(self, index: int) -> FocalStack:
        for further in range(len(self)):
            place = (index + further) % len(self)
            try:
                return self.dataset[place]
            except (InputError, OSError) as error:
                if not self.broken[place]:
                    self.broken[place] = True
                    print(
                        f"sfdfd: skipped sample {place}: {one_line(error)} (data.on_error)", file=sys.stderr, flush=True
                    )
        raise InputError("every sample of the data set is broken or gone (data.on_error=skip)")


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
