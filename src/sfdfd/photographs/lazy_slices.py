"""Slices that are made on access, because fifty photographs of twelve megapixels do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

__all__ = ["BUDGET_BYTES", "LazySlices"]

BUDGET_BYTES = 1000 * 2**20
"""Slices are kept once made if all of them together need no more than this."""


class LazySlices(Sequence):
    """Arrays (or tensors) of one size, made on access and kept if all of them fit into the budget.

    Slices are read in rounds, one after the other. If a round does not fit, a cache of some of them would never be hit, so
    none is kept.

    Args:
        makers: one function per slice.
        budget_bytes: :data:`BUDGET_BYTES`.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]], budget_bytes: int = BUDGET_BYTES) -> None:
        self._makers: list[Callable[[], Any] | None] = list(makers)
        self._made: list[Any] = [None] * len(self._makers)
        self._shape: tuple[int, ...] | None = None
        self._budget = budget_bytes

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        maker = self._makers[index]
        if maker is None:
            return self._made[index]
        value = maker()
        self._shape = tuple(value.shape)
        if value.nbytes * len(self) <= self._budget:
            self._made[index] = value
            self._makers[index] = None  # frees the sources of the slice
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of each slice."""
        return self[0].shape if self._shape is None else self._shape

    def select(self, indices: Sequence[int]) -> LazySlices:
        """Return the slices at these indices, in this order."""
        return LazySlices([partial(self.__getitem__, index) for index in indices], self._budget)

    def mapped(self, function: Callable[[Any], Any]) -> LazySlices:
        """Return the slices with a function applied to each on access."""
        return LazySlices([partial(_apply, function, self, index) for index in range(len(self))], self._budget)


def _apply(function: Callable[[Any], Any], slices: LazySlices, index: int) -> Any:
    return function(slices[index])
