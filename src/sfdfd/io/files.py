"""Files that are whole or not there, and strict JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["BLOCK", "Report", "as_json", "atomic_write", "file_identity", "readable", "write_json"]

BLOCK = 1 << 20
"""Bytes that are copied at a time."""
Report = Callable[[int, "int | None"], None]
"""Called with what is done and what there is in all (None where nobody knows)."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to: renamed to it when the block ends well, removed when it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def file_identity(path: Path) -> list[Any]:
    """What changes when a file does: its absolute path, size and time of modification."""
    facts = path.stat()
    return [str(path.resolve()), facts.st_size, facts.st_mtime_ns]


def readable(text: str) -> str:
    """A string that any encoding takes: bytes of a file name that are no UTF-8 become the replacement character."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def as_json(value: Any) -> Any:
    """What :func:`write_json` makes of a value: JSON has no NaN and no infinity, which become null and strings."""
    if isinstance(value, Mapping):
        return {readable(str(key)): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return readable(value) if isinstance(value, str) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON, aside first and then in place."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(as_json(content), indent=2, allow_nan=False) + "\n")
