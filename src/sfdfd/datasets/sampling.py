"""Which sample comes when, and what is random about it: functions of (seed, epoch, sample), whatever the ranks, the loader's
workers or the interruptions of a run."""

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
    """A number in [0, 2^63) that depends on every part, the same on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator_for(random_key: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one purpose (crop, slices, noise) for one use of a sample: independent of other purposes."""
    return torch.Generator(device).manual_seed(random_key_of(random_key, purpose))


def uniforms_for(draws: Sequence[int] | None, samples: int, purpose: str, count: int) -> Tensor:
    """(samples, count) numbers in [0, 1), a row from each sample's random_key; from torch's own generator where there are none."""
    draws = draws or torch.randint(2**62, (samples,)).tolist()
    return torch.stack([torch.rand(count, generator=generator_for(random_key, purpose)) for random_key in draws])


class Sample(int):
    """The index of a sample that carries what this use of it draws its random numbers from (``random_key``)."""

    random_key: int

    def __new__(cls, index: int, random_key: int) -> Sample:
        sample = super().__new__(cls, index)
        sample.random_key = random_key
        return sample

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (int(self), self.random_key)


class EpochBatches(Sampler[list[Sample]]):
    """The batches of one rank: epoch ``e`` is a permutation that depends on (seed, e) alone, cut into batches of all ranks
    together, of which each rank takes its part. Two ranks at batch b see what one sees at 2b.

    What does not fill a batch of all ranks is left out, unless nothing else is there: then it is shared, a sample standing
    twice where the ranks are more than the samples.

    Args:
        length: number of samples.
        batch_size: of one rank.
        seed: of the order, and of every sample's random_key.
        rank, ranks: which part of how many.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.length, self.seed, self.rank = length, seed, rank
        together = batch_size * ranks
        self.batches = max(1, length // together)
        self.share = batch_size if length >= together else math.ceil(length / ranks)
        self.ranks = ranks
        self.epoch, self.first = 0, (0, 0)

    @property
    def sampler(self) -> EpochBatches:
        """Lightning looks here for whom to tell the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is of this epoch."""
        self.epoch = epoch

    def continue_at(self, epoch: int, batches: int) -> None:
        """The next iteration is of this epoch, after so many of its batches."""
        self.epoch, self.first = epoch, (epoch, batches)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Sample]]:
        epoch = self.epoch
        order = torch.randperm(self.length, generator=generator_for(random_key_of(self.seed, epoch), "order")).tolist()
        done = self.first[1] if epoch == self.first[0] else 0
        for batch in range(done, self.batches):
            start = (batch * self.ranks + self.rank) * self.share
            indices = [order[place % self.length] for place in range(start, start + self.share)]
            yield [Sample(index, random_key_of(self.seed, epoch, index)) for index in indices]


class RankSampler(Sampler[int]):
    """Every ``ranks``-th sample, each on one rank; with fewer samples than ranks, all of them on each."""

    def __init__(self, length: int, rank: int = 0, ranks: int = 1) -> None:
        self.indices = range(length) if length < ranks else range(rank, length, ranks)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
