"""Which samples train, validate and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfdfd.errors import InputError, checked_whole

__all__ = ["SPLITS", "limited", "listed_names", "names_in", "split_names"]

SPLITS = ("train", "val", "test")


def split_names(names: Sequence[str], split: str) -> list[str]:
    """The frames of a split where no file says: in sorted order the last tenth tests, the tenth before validates.

    Blocks, not a shuffle: neighbours in a sequence show the same room.
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


def names_in(path: Path) -> list[str]:
    """The names in a split file, one a line; they may hold spaces.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable split file ({error})") from None


def listed_names(root: Path, split: str) -> list[str] | None:
    """The names that ``root/splits/SPLIT.txt`` lists, None where there is no such file (or all are asked for)."""
    path = root / "splits" / f"{split}.txt"
    return names_in(path) if split != "all" and path.is_file() else None


def limited(names: Sequence[str], limit: int | None) -> list[str]:
    """At most ``limit`` of the names, evenly spread."""
    if limit is None or len(names) <= limit:
        return list(names)
    checked_whole(limit, "limit (data.limit)", 1)
    return [names[i] for i in np.linspace(0, len(names) - 1, limit).round().astype(int)]
