"""What a data set is to whoever wraps, stores or loads it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["IdentifiedDataset", "SizedDataset"]


@runtime_checkable
class SizedDataset(Protocol):
    """So many samples, read by index: a :class:`torch.utils.data.Dataset` that knows its length, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class IdentifiedDataset(SizedDataset, Protocol):
    """One that says what each sample is made from, so that it can be stored."""

    def identity(self, index: int) -> list[Any]:
        """Plain values that name the sample and its files."""
