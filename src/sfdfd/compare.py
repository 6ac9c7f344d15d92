"""Compare runs: ``python -m sfdfd.compare multirun/train/DATE`` and the table at the end of every multirun."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["CompareRuns", "collect", "main"]

SHOWN = ("depth/abs_rel", "depth/rmse", "depth/delta1", "aif/psnr", "stack/psnr")
ASIDE = ("hydra.", "output_dir", "data.root", "logger")


def collect(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per run folder with a ``metrics.json``: the overrides that tell it from the others, and its figures."""
    import yaml

    rows: list[dict[str, Any]] = []
    for folder in folders:
        for metrics in sorted(folder.rglob("metrics.json"), key=_natural):
            file = metrics.parent / ".hydra" / "overrides.yaml"
            overrides = yaml.safe_load(file.read_text()) if file.exists() else []
            settings = dict(item.lstrip("+").split("=", 1) for item in overrides or [] if "=" in item)
            rows.append({"run": str(metrics.parent), "settings": settings, "metrics": json.loads(metrics.read_text())})
    names = dict.fromkeys(name for row in rows for name in row["settings"])
    varying = [
        name for name in names if not name.startswith(ASIDE) and len({row["settings"].get(name) for row in rows}) > 1
    ]
    return [
        {
            "run": row["run"],
            **{name: row["settings"].get(name, "") for name in varying},
            **{key: row["metrics"].get(key) for key in SHOWN},
            "classical depth/abs_rel": row["metrics"].get("baselines/classical/depth/abs_rel"),
            "samples": row["metrics"].get("samples"),
        }
        for row in rows
    ]


def _natural(path: Path) -> tuple:
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts)


def _write(rows: list[dict[str, Any]], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    def text(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    base = str(folder).rstrip("/") + "/"
    shown = [{**row, "run": row["run"].removeprefix(base)} for row in rows]
    columns = list(shown[0])
    with (folder / "comparison.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(shown)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(text(row[column]) for column in columns) + " |" for row in shown]
    (folder / "comparison.md").write_text("\n".join(lines) + "\n")
    table = Table(title=f"{len(rows)} runs in {folder}")
    for column in columns:
        table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
    for row in shown:
        table.add_row(*(text(row[column]) for column in columns))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


class CompareRuns:
    """Hydra callback: after a multirun, one table of all its jobs, printed and written into the sweep's folder."""

    def __getattr__(self, name: str):
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = collect([folder]) if folder.is_dir() else []
        if rows:
            _write(rows, folder)


def main() -> None:
    """Compare the run folders on the command line; writes ``comparison.csv`` and ``comparison.md`` into the first."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "python -m sfdfd.compare FOLDER [FOLDER ...]      one table of every run (metrics.json) below the folders"
        )
        sys.exit(0 if arguments else 2)
    folders = [Path(argument) for argument in arguments]
    rows = collect([folder for folder in folders if folder.is_dir()])
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None or not rows:
        print(
            f"sfdfd: {missing or folders[0]}: {'no such folder' if missing else 'no metrics.json below'}",
            file=sys.stderr,
        )
        sys.exit(2)
    _write(rows, folders[0])


if __name__ == "__main__":
    main()
