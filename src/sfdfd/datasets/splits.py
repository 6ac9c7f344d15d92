"""Splits: the samples for training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfdfd.errors import InputError, checked_int

__all__ = ["SPLITS", "evenly_chosen", "read_names", "read_split_file", "split_names"]

SPLITS = ("train", "val", "test")


def split_names(names: Sequence[str], split: str) -> list[str]:
    """Return the names of a split without a split file: sorted, the last tenth tests, the tenth before it validates.

    Splits are blocks, because neighbours in a sequence show the same scene.
    """
    names = sorted(names)
    tenth = max(1, len(names) // 10)
    if len(names) < 3:
        return list(names)
    return {
        "all": names,
        "train": names[: -2 * tenth],
        "val": names[-2 * tenth : -tenth],
        "test": names[-tenth:],
    }[split]


def read_names(path: Path) -> list[str]:
    """Read the names in a split file, one per line; they may contain spaces.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable split file ({error})") from None


def read_split_file(root: Path, split: str) -> list[str] | None:
    """Read ``root/splits/SPLIT.txt``; None if there is no such file or ``split`` is "all"."""
    path = root / "splits" / f"{split}.txt"
    return read_names(path) if split != "all" and path.is_file() else None


def evenly_chosen(names: Sequence[str], limit: int | None) -> list[str]:
    """Return at most ``limit`` of the names, evenly spread."""
    if limit is None or len(names) <= limit:
        return list(names)
    checked_int(limit, "limit (data.limit)", 1)
    return [names[i] for i in np.linspace(0, len(names) - 1, limit).round().astype(int)]
