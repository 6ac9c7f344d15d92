"""Write files atomically, and strict JSON."""

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
"""Bytes copied at a time."""
Report = Callable[[int, "int | None"], None]
"""Progress callback: called with the amount done and the total (None if it is unknown)."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` on success, remove it on error."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def file_identity(path: Path) -> list[Any]:
    """Return values that change when a file does: its absolute path, size and modification time."""
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def readable(text: str) -> str:
    """Make a file name printable: bytes that are not UTF-8 become the replacement character."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def as_json(value: Any) -> Any:
    """Convert a value to what strict JSON can hold: NaN becomes null, infinity a string."""
    if isinstance(value, Mapping):
        return {readable(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return readable(value) if isinstance(value, str) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON atomically."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(as_json(content), indent=2, allow_nan=False) + "\n")
