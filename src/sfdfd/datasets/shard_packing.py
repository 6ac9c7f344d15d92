"""Pack a folder of stacks into shards, and keep the shards up to date."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfdfd.datasets.shards import sources_digest, write_shard
from sfdfd.datasets.stack_folders import stack_folders
from sfdfd.io.files import atomic_write, write_json

__all__ = ["pack_stacks"]

RECORD = "packed.json"
"""In the folder of the shards: each shard's size and a digest of its sources, and the splits that were copied."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write.

    Attributes:
        path: of the tar file.
        folders: the stacks in it.
        previous: its entry in the record, from an earlier call.
    """

    path: Path
    folders: list[Path]
    previous: dict[str, Any] | None


def pack_stacks(
    root: Path, output_dir: Path, per_shard: int, spread: Any, on_message: Callable[[str], None]
) -> tuple[int, int]:
    """Pack stack folders into one tar file per ``per_shard`` stacks, in the order of their names, and copy the splits.

    Shards of unchanged stacks are kept. Shards without stacks are removed after all others are written.

    Args:
        root: a folder of stack folders.
        output_dir: receives the shards.
        per_shard: stacks per shard.
        spread: runs a function over items, perhaps on several workers (:mod:`sfdfd.runs.cluster`).
        on_message: called with a line for each shard that was written or removed.

    Returns:
        The numbers of stacks and of shards.
    """
    folders = stack_folders(root)
    output_dir.mkdir(parents=True, exist_ok=True)
    record = _read_record(output_dir / RECORD)
    plans = []
    for index, start in enumerate(range(0, len(folders), per_shard)):
        path = output_dir / f"stacks-{index:06d}.tar"
        plans.append(ShardPlan(path, folders[start : start + per_shard], record["shards"].get(path.name)))
    for index, result in spread(pack_shard, plans):
        if isinstance(result, Exception):
            raise result
        plan = plans[index]
        record["shards"][plan.path.name] = result
        write_json(output_dir / RECORD, record)
        on_message(f"{plan.path.name}: {len(plan.folders)} stacks, {result['bytes'] / 1e6:.1f} MB")
    paths = {plan.path for plan in plans}
    for path in sorted(output_dir.glob("stacks-" + "[0-9]" * 6 + ".tar")):
        if path not in paths:
            path.unlink()
            record["shards"].pop(path.name, None)
            on_message(f"{path.name}: removed, its stacks are in other shards or no longer in {root}")
    record["splits"] = _copy_splits(root / "splits", output_dir / "splits", record["splits"])
    write_json(output_dir / RECORD, record)
    return len(folders), len(plans)


def pack_shard(plan: ShardPlan) -> dict[str, Any]:
    """Write a shard, unless it exists and its sources are unchanged, and return its entry for the record."""
    digest = sources_digest(plan.folders)
    if plan.path.is_file() and plan.previous == {"bytes": plan.path.stat().st_size, "sources": digest}:
        return plan.previous
    return {"bytes": write_shard(plan.path, plan.folders), "sources": digest}


def _read_record(path: Path) -> dict[str, Any]:
    """Read the record of an earlier call. A missing or broken one is empty, so that all stacks are packed again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"shards": dict(content["shards"]), "splits": [str(name) for name in content["splits"]]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"shards": {}, "splits": []}


def _copy_splits(source: Path, target: Path, previous: list[str]) -> list[str]:
    """Copy the split files, remove those that an earlier call copied and that no longer exist, and return their names."""
    names = sorted(path.name for path in source.iterdir() if path.is_file()) if source.is_dir() else []
    if names:
        target.mkdir(exist_ok=True)
    for name in names:
        with atomic_write(target / name) as part:
            shutil.copyfile(source / name, part)
    for name in previous:
        if name not in names:
            (target / name).unlink(missing_ok=True)
    return names
