"""Slices that are made when they are needed: fifty photographs of twelve megapixels do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

__all__ = ["BUDGET_BYTES", "LazySlices"]

BUDGET_BYTES = 1000 * 2**20
"""Slices that all together need no more than this are kept once made; else none of them is."""


class LazySlices(Sequence):
    """Arrays (or tensors) of one size, each made when it is asked for, and kept where all of them fit into the budget.

    All or none: they are read in rounds, one after the other, and of a round that does not fit nothing kept would be there
    again when it is its turn.

    Args:
        makers: one function each.
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
            self._makers[index] = None  # and with it all that it was made from
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each of them."""
        return self[0].shape if self._shape is None else self._shape

    def chosen(self, indices: Sequence[int]) -> LazySlices:
        """These alone, in this order."""
        return LazySlices([partial(self.__getitem__, index) for index in indices], self._budget)

    def mapped(self, function: Callable[[Any], Any]) -> LazySlices:
        """A function of each, made when needed."""
        return LazySlices([partial(_applied, function, self, index) for index in range(len(self))], self._budget)


def _applied(function: Callable[[Any], Any], slices: LazySlices, index: int) -> Any:
    return function(slices[index])
