"""Record the circumstances of a run (time, sources, versions), and read the metrics that it logged."""

from __future__ import annotations

import csv
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

__all__ = ["logged", "run_record"]

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGES = ("sfdfd", "torch", "lightning", "hydra-core", "omegaconf", "kornia", "torchmetrics", "numpy")


def run_record() -> dict[str, Any]:
    """Return what reproducing a run takes besides its config: time, place, source revision and versions."""
    is_checkout = _git("rev-parse", "--show-toplevel") == str(_PACKAGE.parents[1])
    # of an installed package, an enclosing repository is somebody else's
    changes = _git("status", "--porcelain", "--untracked-files=no") if is_checkout else None
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "working_directory": os.getcwd(),
        "git_sha": _git("rev-parse", "HEAD") if is_checkout else None,
        "git_dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor_cores": os.cpu_count(),
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def _git(*arguments: str) -> str | None:
    """Run git in the package's folder; return its output, or None if it fails."""
    command = ["git", "-C", str(_PACKAGE), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def logged(run: Path, key: str) -> list[tuple[float, float]]:
    """Return (step, value) of a metric in a run's ``csv/metrics.csv``, without broken lines; empty if there are none."""
    file = run / "csv" / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="", errors="replace") as lines:
        points = [(_number(row.get("step")), _number(row.get(key))) for row in csv.DictReader(_without_nul(lines))]
    return [(step, value) for step, value in points if step is not None and math.isfinite(step) and value is not None]


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    """Drop the zero bytes of unwritten blocks, which some versions of :mod:`csv` refuse."""
    return (line.replace("\0", "") for line in lines)


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
