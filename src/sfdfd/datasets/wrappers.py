"""Data set wrappers: rendering, memory, slice subsets, depth masks, random keys, and skipping broken samples."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset

from sfdfd.datasets.protocols import IdentifiedDataset, SizedDataset
from sfdfd.datasets.sampling import Sample, generator_for
from sfdfd.errors import InputError, one_line
from sfdfd.io.images import to_bytes
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack

__all__ = ["DepthMasked", "InMemory", "RenderedStacks", "SeededSamples", "SkipBroken", "SliceSubset", "evenly_spread"]


class RenderedStacks(Dataset):
    """Renders scenes into focal stacks.

    Args:
        scenes: of :class:`sfdfd.scenes.scene.Scene`.
        synthesis: the renderer.
        on_device: return unrendered stacks; :meth:`StackSynthesis.rendered` renders batches of them on their device.
    """

    def __init__(self, scenes: IdentifiedDataset, synthesis: StackSynthesis, on_device: bool = False) -> None:
        self.scenes = scenes
        self.make = synthesis.unrendered if on_device else synthesis

    def __len__(self) -> int:
        return len(self.scenes)

    def identity(self, index: int) -> list[Any]:
        """Return what the sample depends on, besides the synthesis."""
        return self.scenes.identity(index)

    def __getitem__(self, index: int) -> FocalStack:
        return self.make(self.scenes[index])


class InMemory(Dataset):
    """Keeps each stack in memory after its first use; images as bytes if they were rounded to 8 bits."""

    def __init__(self, dataset: SizedDataset, bytes_are_exact: bool) -> None:
        self.dataset, self.bytes_are_exact = dataset, bytes_are_exact
        self.kept: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        index = int(index)
        if index not in self.kept:
            values = dict(vars(self.dataset[index]))
            if self.bytes_are_exact:
                values["images"] = to_bytes(values["images"])
            self.kept[index] = values
        values = self.kept[index]
        if self.bytes_are_exact:
            values = {**values, "images": values["images"].float().div_(255)}
        return FocalStack(**values)


class SliceSubset(Dataset):
    """Uses some of the slices of each stack.

    Args:
        dataset: of complete stacks.
        slices: number of slices; shorter stacks are unchanged.
        choice: "random" or "even".
        seed: makes a random choice depend on the seed and the index alone. None: it depends on the random key of a
            :class:`sfdfd.datasets.sampling.Sample`, and on torch's generator for a plain index.
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
        generator = None
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        elif isinstance(index, Sample):
            generator = generator_for(index.random_key, "slices")
        return stack.with_slices(torch.randperm(number, generator=generator)[: self.slices].sort().values.tolist())


class DepthMasked(Dataset):
    """Marks true depth outside of a range as not valid."""

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
    """Copies the random key of a :class:`sfdfd.datasets.sampling.Sample` to the stack (``FocalStack.random_key``)."""

    def __init__(self, dataset: SizedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FocalStack:
        stack = self.dataset[index]
        return replace(stack, random_key=(index.random_key,)) if isinstance(index, Sample) else stack


class SkipBroken(Dataset):
    """Replaces samples whose file is missing or broken by the next one. Each is reported once and counted, in all processes.

    Args:
        dataset: raises :class:`sfdfd.errors.InputError` or OSError for samples that cannot be read.
    """

    def __init__(self, dataset: SizedDataset) -> None:
        self.dataset = dataset
        self.broken = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def skipped(self) -> list[int]:
        """Indices of the samples that could not be read so far."""
        return self.broken.nonzero().flatten().tolist()

    def __getitem__(self, index: int) -> FocalStack:
        for offset in range(len(self)):
            candidate = (index + offset) % len(self)
            try:
                return self.dataset[candidate]
            except (InputError, OSError) as error:
                if not self.broken[candidate]:
                    self.broken[candidate] = True
                    print(
                        f"sfdfd: skipped sample {candidate}: {one_line(error)} (data.on_error)",
                        file=sys.stderr,
                        flush=True,
                    )
        raise InputError("every sample of the data set is broken or gone (data.on_error=skip)")


def evenly_spread(focus_distances_m: torch.Tensor, number: int) -> list[int]:
    """Return the indices of the slices nearest to ``number`` evenly spaced inverse focus distances, each once, sorted."""
    inverse = 1 / focus_distances_m
    order = inverse.argsort(descending=True)  # near to far
    targets = torch.linspace(float(inverse.max()), float(inverse.min()), number)
    chosen: list[int] = []
    for position, target in enumerate(targets):
        last = len(order) - (number - position) + 1  # leave enough slices for later targets
        first = chosen[-1] + 1 if chosen else 0
        candidates = range(first, last)
        chosen.append(min(candidates, key=lambda i, target=target: abs(float(inverse[order[i]] - target))))
    return sorted(int(order[i]) for i in chosen)
