"""Read the file that a W&B run writes to disk, ``run-ID.wandb``, without W&B's server.

The file is a LevelDB log of W&B's protobuf messages, whose classes are in the package ``wandb``: blocks of 32 KiB, records
whole or in parts, each with checksum, length and kind.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sfdfd.errors import InputError, one_line

__all__ = ["WandbRun", "read_wandb", "wandb_files"]

BLOCK, HEADER, MAGIC = 32768, 7, b":W&B"
WHOLE, FIRST, LAST = 1, 2, 4
"""Kinds of records: whole, or the first or last part of one."""
STEP = "trainer/global_step"


@dataclass
class WandbRun:
    """One ``.wandb`` file.

    Attributes:
        id, name, group, project: of the run.
        tags: in order.
        config: by key.
        history: one mapping per call of ``log``: numbers, and the descriptions of media.
        alerts: (title, text).
        artifacts: (name, type, aliases).
        folder: ``files`` beside it, in which the media's paths are.
        ended: whether W&B's own process has written the end; it does so shortly after the run's process goes on.
    """

    folder: Path
    id: str = ""
    name: str = ""
    group: str = ""
    project: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    artifacts: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    ended: bool = False

    def logged(self, key: str) -> list[tuple[float, float]]:
        """Return (step, value) of a quantity."""
        return [
            (float(step), float(row[key]))
            for row in self.history
            if isinstance(row.get(key), (int, float))
            and isinstance(step := row.get(STEP, row.get("_step", 0)), (int, float))
        ]

    def media(self, key: str) -> list[tuple[float, Any]]:
        """Return (step, description) of pictures, histograms or tables."""
        return [
            (float(step), row[key])
            for row in self.history
            if isinstance(row.get(key), dict) and isinstance(step := row.get(STEP, 0), (int, float))
        ]


def wandb_files(run: Path) -> list[Path]:
    """Return the ``.wandb`` files of a run folder, oldest first: one for each time that the run was continued."""
    return sorted(run.glob("wandb/*run-*-*/run-*.wandb"))


def read_wandb(path: Path) -> WandbRun:
    """Read a ``.wandb`` file, without the unfinished record that a killed run leaves at its end.

    Raises:
        InputError: not such a file, or a broken one.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined] # made at import

    run = WandbRun(path.parent / "files")
    run.config.update(_read_config(run.folder / "config.yaml"))
    for raw in _records(path):
        try:
            _add_record(run, Record.FromString(raw))
        except (DecodeError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: a broken file of W&B ({one_line(error)[:160]})") from None
    return run


def _read_config(path: Path) -> dict[str, Any]:
    """Read ``config.yaml`` beside the file, which has it some seconds later; empty where there is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {str(key): entry["value"] for key, entry in values.items() if isinstance(entry, dict) and "value" in entry}


def _add_record(run: WandbRun, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        facts = record.run
        run.id, run.name, run.group, run.project = facts.run_id, facts.display_name, facts.run_group, facts.project
        run.tags = list(facts.tags)
        run.config.update(_nested(facts.config.update))
    elif kind == "config":
        run.config.update(_nested(record.config.update))
    elif kind == "history":
        run.history.append(_nested(record.history.item))
    elif kind == "exit":
        run.ended = True
    elif kind == "alert":
        run.alerts.append((record.alert.title, record.alert.text))
    elif kind == "artifact":
        _add_artifact(run, record.artifact)
    elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
        _add_artifact(run, record.request.log_artifact.artifact)


def _add_artifact(run: WandbRun, artifact: Any) -> None:
    run.artifacts.append((artifact.name, artifact.type, tuple(artifact.aliases)))


def _nested(items: Any) -> dict[str, Any]:
    """Return items, each with the path of its key and a value in JSON, as a nested mapping."""
    tree: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)
    return tree


def _records(path: Path) -> Iterator[bytes]:
    """Yield the records of a LevelDB log; the checksums are not looked at."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if content[:4] != MAGIC:
        raise InputError(f"{path}: no file of W&B (it does not begin with {MAGIC.decode()})")
    position, parts = HEADER, b""
    while position + HEADER <= len(content):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < HEADER:  # padding
            position += left_in_block
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        piece = content[position + HEADER : position + HEADER + length]
        if not WHOLE <= kind <= LAST or len(piece) < length:
            return
        parts = piece if kind in (WHOLE, FIRST) else parts + piece
        if kind in (WHOLE, LAST):
            yield parts
        position += HEADER + length
