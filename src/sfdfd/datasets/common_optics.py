"""Common optics of all stacks below a folder, from their ``stack.yaml`` files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sfdfd.datasets.shards import Shard, shard_files
from sfdfd.datasets.stack_folders import stack_folders
from sfdfd.errors import InputError
from sfdfd.io.stack_yaml import OPTICS_KEYS, read_stack_optics

__all__ = ["common_optics"]


def common_optics(root: str | Path, overridden: Collection[str] = ()) -> dict[str, Any]:
    """Return the optics that all stacks below a folder have in common, for a renderer that trains on them.

    Args:
        root: a folder of stacks or of shards; a folder that does not exist has no optics.
        overridden: keys to ignore, because the command line sets them.

    Raises:
        InputError: the stacks disagree about one of the other keys.
    """
    common: dict[str, tuple[Any, str]] = {}
    for location, optics in _optics_of_stacks(Path(root)) if Path(root).is_dir() else ():
        for key in OPTICS_KEYS:
            if key in overridden:
                continue
            value = optics.get(key)
            first, first_location = common.setdefault(key, (value, location))
            if first != value:
                raise InputError(
                    f"optics.{key} is {first} in {first_location}/stack.yaml and {value} in {location}/stack.yaml, and one "
                    f"model has one; give optics.{key}=VALUE"
                )
    return {key: value for key, (value, _) in common.items() if value is not None}


def _optics_of_stacks(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the location and the described optics of each stack."""
    shards = shard_files(root)
    if not shards:
        for folder in stack_folders(root):
            yield str(folder), read_stack_optics(folder)
    for path in shards:
        shard = Shard.of(path)
        for name in shard.stacks:
            with shard.unpacked(name, ("stack.yaml",)) as folder:
                yield f"{path}: {name}", read_stack_optics(folder)
