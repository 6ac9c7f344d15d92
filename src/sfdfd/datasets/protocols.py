"""Protocols of data sets, and of what generates them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sfdfd.io.files import Report

__all__ = ["IdentifiedDataset", "SizedDataset", "StackGenerator"]


@runtime_checkable
class SizedDataset(Protocol):
    """Samples of known number, read by index: a :class:`torch.utils.data.Dataset` with a length, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class IdentifiedDataset(SizedDataset, Protocol):
    """A data set that tells what each sample depends on, so that samples can be cached."""

    def identity(self, index: int) -> list[Any]:
        """Return plain values that identify the sample and its files."""


@runtime_checkable
class StackGenerator(Protocol):
    """Generates a synthetic data set on disk; ``prepare`` calls it."""

    title: str
    licence: str
    layout: str

    def options(self) -> dict[str, Any]:
        """Return all options that the data depends on, as plain values; None for a default that is chosen later."""

    def write(self, root: Path, record: dict[str, Any], report: Report, spread: Any = None) -> int:
        """Write the data set to ``root``, add "options" and "samples" to ``record``, and return the number of samples."""
