"""Slices that are made when needed."""

from functools import partial

import numpy as np

from sfdfd.photographs.lazy_slices import LazySlices


def counted(number, budget):
    made = []

    def make(index):
        made.append(index)
        return np.full((4, 5), index, np.uint8)

    return LazySlices([partial(make, index) for index in range(number)], budget), made


def test_slices_are_kept_only_if_all_fit_into_the_budget():
    for budget, times in ((60, 1), (59, 2)):
        slices, made = counted(3, budget)
        for _ in range(2):
            assert [int(one[0, 0]) for one in slices] == [0, 1, 2]
        assert len(made) == 3 * times and slices.shape == (4, 5) and len(slices) == 3


def test_select_and_mapped_make_only_the_accessed_slices():
    slices, made = counted(5, 1000)
    picked = slices.select([4, 1]).mapped(lambda one: one + 10)
    assert made == [] and int(picked[1][0, 0]) == 11 and made == [1]
    assert len(picked[:1]) == 1 and made == [1, 4]


def test_a_kept_slice_frees_its_sources():
    """A round of aligned slices frees the photographs."""
    slices, _ = counted(2, 1000)
    mapped = slices.mapped(lambda one: one + 1)
    list(mapped)
    assert mapped._makers == [None, None]
