"""What a figure needs beside its config, and what a run logged."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
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
    """(step, value) of a quantity in a run's ``csv/metrics.csv``; none where it was not logged, or there is no log."""
    file = run / "csv" / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [(float(one["step"]), float(one[key])) for one in csv.DictReader(lines) if one.get(key)]
