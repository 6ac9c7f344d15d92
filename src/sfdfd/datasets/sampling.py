"""Deterministic sampling from (seed, epoch, index), independent of ranks, loader workers and interruptions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

__all__ = ["EpochBatches", "RankSampler", "Sample", "generator_for", "random_key_of", "uniforms_for"]


def random_key_of(*parts: Any) -> int:
    """Hash all parts to a number in [0, 2^63), the same on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator_for(random_key: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for one purpose (crop, slices, noise) of one use of a sample, independent of other purposes."""
    return torch.Generator(device).manual_seed(random_key_of(random_key, purpose))


def uniforms_for(draws: Sequence[int] | None, samples: int, purpose: str, count: int) -> Tensor:
    """Draw (samples, count) numbers in [0, 1), a row from each sample's random_key; without keys, from torch's generator."""
    draws = draws or torch.randint(2**62, (samples,)).tolist()
    return torch.stack([torch.rand(count, generator=generator_for(random_key, purpose)) for random_key in draws])


class Sample(int):
    """The index of a sample together with the ``random_key`` of this use, from which its random numbers are drawn."""

    random_key: int

    def __new__(cls, index: int, random_key: int) -> Sample:
        sample = super().__new__(cls, index)
        sample.random_key = random_key
        return sample

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (int(self), self.random_key)


class EpochBatches(Sampler[list[Sample]]):
    """The batches of one rank.

    The order of an epoch depends on (seed, epoch) alone. It is cut into batches of all ranks together, and each rank takes
    its part: two ranks with batch size b see the samples of one rank with 2b. An incomplete last batch is dropped. If it is
    the only one, the ranks share it, and samples repeat if there are more ranks than samples.

    Args:
        length: number of samples.
        batch_size: of one rank.
        seed: of the order, and of every sample's random_key.
        rank, ranks: this process's number, and the number of processes.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.length, self.seed, self.rank = length, seed, rank
        joint_size = batch_size * ranks
        self.batches = max(1, length // joint_size)
        self.share = batch_size if length >= joint_size else math.ceil(length / ranks)
        self.ranks = ranks
        self.epoch, self.first = 0, (0, 0)

    @property
    def sampler(self) -> EpochBatches:
        """Lightning calls ``set_epoch`` of this attribute."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def continue_at(self, epoch: int, batches: int) -> None:
        """Start the next iteration in this epoch, after a number of its batches."""
        self.epoch, self.first = epoch, (epoch, batches)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Sample]]:
        epoch = self.epoch
        order = torch.randperm(self.length, generator=generator_for(random_key_of(self.seed, epoch), "order")).tolist()
        done = self.first[1] if epoch == self.first[0] else 0
        for batch in range(done, self.batches):
            start = (batch * self.ranks + self.rank) * self.share
            indices = [order[i % self.length] for i in range(start, start + self.share)]
            yield [Sample(index, random_key_of(self.seed, epoch, index)) for index in indices]


class RankSampler(Sampler[int]):
    """Every ``ranks``-th sample; if there are fewer samples than ranks, every rank gets all samples."""

    def __init__(self, length: int, rank: int = 0, ranks: int = 1) -> None:
        self.indices = range(length) if length < ranks else range(rank, length, ranks)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
