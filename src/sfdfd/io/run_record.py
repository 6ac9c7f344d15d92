"""What a figure needs beside its config, and what a run logged."""

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


def run_record() -> dict[str, Any]:
    """What a figure needs beside its config: when, where, from which sources, with which versions."""
    from importlib.metadata import PackageNotFoundError, version

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(_PACKAGE), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("rev-parse", "--show-toplevel") != str(_PACKAGE.parents[1]):  # installed: the repository around is not ours
        sha, changed = None, None
    else:
        sha, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    versions = {}
    for package in ("sfdfd", "torch", "lightning", "hydra-core", "omegaconf", "kornia", "torchmetrics", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "working_directory": os.getcwd(),
        "git_sha": sha,
        "git_dirty": None if changed is None else bool(changed),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor_cores": os.cpu_count(),
        "versions": versions,
    }


def logged(run: Path, key: str) -> list[tuple[float, float]]:
    """(step, value) of a quantity in a run's ``csv/metrics.csv``; none where it was not logged, or there is no log. A
    line that is broken is left out."""
    file = run / "csv" / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="", errors="replace") as lines:
        found = [(_number(one.get("step")), _number(one.get(key))) for one in csv.DictReader(_without_nul(lines))]
    return [(step, value) for step, value in found if step is not None and math.isfinite(step) and value is not None]


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    """Of bytes that were never written, which some versions of :mod:`csv` refuse."""
    return (line.replace("\0", "") for line in lines)


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
