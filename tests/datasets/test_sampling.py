"""Deterministic sampling from (seed, epoch, index)."""

import copy
import pickle
from itertools import chain

import pytest

from sfdfd.datasets.sampling import EpochBatches, RankSampler, Sample, generator_for, random_key_of


def batches(length, size, epoch=0, rank=0, ranks=1, seed=1, done=0):
    sampler = EpochBatches(length, size, seed, rank, ranks)
    sampler.continue_at(epoch, done)
    return [[(int(one), one.random_key) for one in batch] for batch in sampler]


@pytest.mark.parametrize(("length", "size", "ranks"), [(20, 2, 2), (23, 2, 3), (9, 1, 4)])
def test_all_ranks_together_see_one_larger_batch(length, size, ranks):
    together = [batches(length, size, 5, rank, ranks) for rank in range(ranks)]
    joined = [list(chain(*parts)) for parts in zip(*together, strict=True)]
    assert joined == batches(length, size * ranks, 5)
    seen = [index for batch in joined for index, _ in batch]
    assert len(set(seen)) == len(seen) == length // (size * ranks) * size * ranks


def test_epochs_differ_in_order_and_random_keys():
    first, second, again = batches(8, 2, 0), batches(8, 2, 1), batches(8, 2, 0)
    assert first == again and first != second and first != batches(8, 2, 0, seed=2)
    draws = [dict(chain(*epoch)) for epoch in (first, second)]
    assert draws[0].keys() == draws[1].keys() and not set(draws[0].values()) & set(draws[1].values())


def test_an_epoch_resumes_after_any_batch():
    whole = batches(9, 2, 3)
    for done in range(5):
        assert batches(9, 2, 3, done=done) == whole[done:]
    sampler = EpochBatches(9, 2, 1)
    sampler.continue_at(3, 2)
    assert len(sampler) == 4 and len(list(sampler)) == 2
    sampler.set_epoch(4)
    assert len(list(sampler)) == 4


@pytest.mark.parametrize(("length", "size", "ranks", "share"), [(2, 2, 2, 1), (3, 2, 2, 2), (1, 8, 2, 1), (3, 8, 1, 3)])
def test_few_samples_are_one_batch_that_ranks_share(length, size, ranks, share):
    parts = [batches(length, size, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert all(len(part) == 1 and len(part[0]) == share for part in parts)
    assert {index for part in parts for index, _ in part[0]} == set(range(length))


@pytest.mark.parametrize(("length", "ranks"), [(7, 3), (6, 3), (3, 3)])
def test_ranks_partition_the_samples(length, ranks):
    assert sorted(i for rank in range(ranks) for i in RankSampler(length, rank, ranks)) == list(range(length))


def test_every_rank_sees_all_of_fewer_samples_than_ranks():
    assert [list(RankSampler(2, rank, 3)) for rank in range(3)] == [[0, 1]] * 3


def test_a_sample_is_an_index_and_survives_pickling():
    sample = Sample(3, 17)
    for other in (pickle.loads(pickle.dumps(sample)), copy.deepcopy(sample)):
        assert other == 3 and ["a", "b", "c", "d"][other] == "d" and other.random_key == 17
    assert random_key_of(1, 2, 3) == 1138364116778193076 != random_key_of(1, 23)  # on every machine
    crop, noise = (generator_for(5, purpose).initial_seed() for purpose in ("crop", "noise"))
    assert crop != noise and generator_for(5, "crop").initial_seed() == crop
