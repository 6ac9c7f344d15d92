"""What the ``stack.yaml`` files of a folder of stacks, or of shards, say of the optics."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sfdfd.datasets.shards import Shard, shard_files
from sfdfd.datasets.stack_folders import stack_folders
from sfdfd.errors import InputError
from sfdfd.io.stack_yaml import OPTICS_KEYS, described_optics

__all__ = ["common_optics"]


def common_optics(root: str | Path, told: Collection[str] = ()) -> dict[str, Any]:
    """Return what all stacks below a folder say of the optics; a renderer that trains on them serves all.

    Args:
        root: a folder of stacks or of shards; a folder that does not exist says nothing.
        told: keys that the command line decides.

    Raises:
        InputError: the stacks do not agree about one of the other keys.
    """
    found: dict[str, tuple[Any, str]] = {}
    for where, described in _described(Path(root)) if Path(root).is_dir() else ():
        for key in OPTICS_KEYS:
            if key in told:
                continue
            value = described.get(key)
            first, first_where = found.setdefault(key, (value, where))
            if first != value:
                raise InputError(
                    f"optics.{key} is {first} in {first_where}/stack.yaml and {value} in {where}/stack.yaml, and one model "
                    f"has one; give optics.{key}=VALUE"
                )
    return {key: value for key, (value, _) in found.items() if value is not None}


def _described(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each stack lies and what it says of its optics."""
    shards = shard_files(root)
    if not shards:
        for folder in stack_folders(root):
            yield str(folder), described_optics(folder)
    for path in shards:
        shard = Shard.of(path)
        for name in shard.stacks:
            with shard.unpacked(name, ("stack.yaml",)) as folder:
                yield f"{path}: {name}", described_optics(folder)
