"""What a W&B run wrote on the disk, read back without W&B's server: ``run-ID.wandb``.

The file is a LevelDB log (blocks of 32 KiB; records whole or in parts, each with checksum, length and kind) of W&B's own
protobuf messages, which the package ``wandb`` has the classes for.
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
FIRST, LAST, WHOLE = 2, 4, 1
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
        ended: whether W&B's own process has written the end, which it does a little after the run's has gone on.
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
        """(step, value) of a quantity."""
        return [
            (float(step), float(row[key]))
            for row in self.history
            if isinstance(row.get(key), (int, float))
            and isinstance(step := row.get(STEP, row.get("_step", 0)), (int, float))
        ]

    def media(self, key: str) -> list[tuple[float, Any]]:
        """(step, description) of what is no number: pictures, histograms, tables."""
        return [
            (float(step), row[key])
            for row in self.history
            if isinstance(row.get(key), dict) and isinstance(step := row.get(STEP, 0), (int, float))
        ]


def wandb_files(run: Path) -> list[Path]:
    """The ``.wandb`` files of a run folder, oldest first: one for each time that it was continued."""
    return sorted(run.glob("wandb/*run-*-*/run-*.wandb"))


def read_wandb(path: Path) -> WandbRun:
    """Read a ``.wandb`` file; what a killed run left unfinished at its end is left out.

    Raises:
        InputError: it is none.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined] # made at import

    run = WandbRun(path.parent / "files")
    run.config.update(_written_config(run.folder / "config.yaml"))
    for raw in _records(path):
        try:
            _take_in(run, Record.FromString(raw))
        except (DecodeError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: a broken file of W&B ({one_line(error)[:160]})") from None
    return run


def _written_config(path: Path) -> dict[str, Any]:
    """Read the configuration that lies beside the file, which holds it some seconds later; empty where there is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {str(key): one["value"] for key, one in values.items() if isinstance(one, dict) and "value" in one}


def _take_in(run: WandbRun, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        told = record.run
        run.id, run.name, run.group, run.project = told.run_id, told.display_name, told.run_group, told.project
        run.tags = list(told.tags)
        run.config.update(_items(told.config.update))
    elif kind == "config":
        run.config.update(_items(record.config.update))
    elif kind == "history":
        run.history.append(_items(record.history.item))
    elif kind == "exit":
        run.ended = True
    elif kind == "alert":
        run.alerts.append((record.alert.title, record.alert.text))
    elif kind == "artifact":
        run.artifacts.append((record.artifact.name, record.artifact.type, tuple(record.artifact.aliases)))
    elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
        told = record.request.log_artifact.artifact
        run.artifacts.append((told.name, told.type, tuple(told.aliases)))


def _items(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def _records(path: Path) -> Iterator[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if content[:4] != MAGIC:
        raise InputError(f"{path}: no file of W&B (it does not begin with {MAGIC.decode()})")
    place, parts = HEADER, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # the rest of a block, too small for a header
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        piece = content[place + HEADER : place + HEADER + length]
        if not FIRST - 1 <= kind <= LAST or len(piece) < length:
            return
        parts = piece if kind in (WHOLE, FIRST) else parts + piece
        if kind in (WHOLE, LAST):
            yield parts
        place += HEADER + length
