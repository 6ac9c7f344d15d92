"""Runs side by side: ``python -m sfdfd.compare DIR``, the table at the end of every multirun, and that of a search."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfdfd.io.files import atomic_write
from sfdfd.io.run_record import logged
from sfdfd.runs.command import ASIDE, ERROR_FILE, failed_jobs, swept_keys, unquoted

__all__ = ["CompareRuns", "collect", "write_comparison"]

SHOWN = ("depth/abs_rel", "depth/rmse", "depth/delta1", "aif/psnr", "stack/psnr")
CURVES = ("train/total", "val/reconstruction", "truth/depth_abs_rel", "health/depth_std")


def collect(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per run folder below: the overrides that tell it from the others, and its figures (``metrics.json``); with its
    error where it failed or was interrupted."""
    rows: list[dict[str, Any]] = []
    for folder in folders:
        runs = {file.parent for name in ("metrics.json", ERROR_FILE) for file in folder.rglob(name)}
        runs |= {file.parent.parent for file in folder.rglob(".hydra/overrides.yaml")}
        for run in sorted(runs, key=_natural):
            settings = _overrides(run / ".hydra" / "overrides.yaml")
            metrics, error = _read(run / "metrics.json"), _read(run / ERROR_FILE).get("error", "")
            if not metrics and not error:
                error = "has not ended"
            rows.append({"run": str(run), "settings": settings, "metrics": metrics, "error": error})
    names = dict.fromkeys(name for row in rows for name in row["settings"])
    swept = {key.lstrip("+") for folder in folders for key in swept_keys(folder)}
    varying = [
        name
        for name in names
        if (name in swept or not name.startswith(ASIDE)) and len({row["settings"].get(name) for row in rows}) > 1
    ]
    failed = any(row["error"] for row in rows)
    return [
        {
            "run": row["run"],
            **{name: row["settings"].get(name, "") for name in varying},
            **{key: row["metrics"].get(key) for key in SHOWN},
            "classical depth/abs_rel": row["metrics"].get("baselines/classical/depth/abs_rel"),
            "constant depth/abs_rel": row["metrics"].get("baselines/constant/depth/abs_rel"),
            "samples": row["metrics"].get("samples"),
            **({"error": row["error"]} if failed else {}),
        }
        for row in rows
    ]


def _overrides(path: Path) -> dict[str, str]:
    """KEY -> VALUE of what Hydra wrote down of a command line; nothing where it did not, or that is broken."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    given = [one for one in content if isinstance(one, str) and "=" in one] if isinstance(content, list) else []
    pairs = (one.lstrip("+").split("=", 1) for one in given)
    return {key: unquoted(value) for key, value in pairs}


def _read(path: Path) -> dict[str, Any]:
    """A JSON file's content; nothing where there is none, or no whole one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _curves(rows: Sequence[Mapping[str, Any]], base: str) -> list[dict[str, Any]]:
    """Learning curves of all runs, one picture per quantity."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib import pyplot

    from sfdfd.report.html import picture

    pictures = []
    for key in CURVES:
        figure, axes = pyplot.subplots(figsize=(7, 4), dpi=100, layout="constrained")
        for row in rows:
            if points := logged(Path(row["run"]), key):
                axes.plot(*zip(*points, strict=True), label=_title(row, base), linewidth=1)
        if axes.lines:
            axes.set(xlabel="step", title=key)
            axes.legend(fontsize=7)
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined] # the canvas is Agg's
            pictures.append(picture(key, pixels[..., :3].copy()))
        pyplot.close(figure)
    return pictures


def _title(row: Mapping[str, Any], base: str) -> str:
    """A run's folder, and what tells it from the others."""
    varied = list(row)[1 : list(row).index(SHOWN[0])]
    return ", ".join([row["run"].removeprefix(base), *(f"{key}={row[key]}" for key in varied)])


def _thumbnails(run: Path) -> list[dict[str, Any]]:
    """The last picture of each validation sample, else those of the test."""
    from sfdfd.report.html import picture_file

    found = sorted((run / "pictures").glob("step_*.png"))
    last = {path.name.split("_", 2)[2]: path for path in found} or {
        path.name: path for path in sorted((run / "pictures").glob("network_*.png"))
    }
    return [one for path in list(last.values())[:2] for one in picture_file(path.name, path, largest_px=700)]


def _write_page(rows: Sequence[Mapping[str, Any]], lines: Sequence[Sequence[str]], folder: Path, base: str) -> None:
    """``comparison.html``: the table, the curves, and thumbnails of every run."""
    from sfdfd.report.html import Section, write_page

    sections = [Section(title=f"{len(rows)} runs", table={"header": lines[0], "rows": lines[1:]})]
    curves = _curves(rows, base)
    if curves:
        sections.append(Section(title="Learning curves", rows=[{"title": "", "pictures": curves}]))
    for row in rows:
        thumbnails = _thumbnails(Path(row["run"]))
        text = [row["error"]] if row.get("error") else []
        pictures = [{"title": "", "pictures": thumbnails}] if thumbnails else []
        if text or pictures:
            sections.append(Section(title=_title(row, base), text=text, rows=pictures))
    write_page(folder / "comparison.html", "sfdfd: comparison", sections)


def _natural(path: Path) -> tuple:
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts)


def write_comparison(rows: list[dict[str, Any]], folder: Path) -> None:
    """``comparison.csv``, ``.md`` and ``.html`` of what :func:`collect` found, in ``folder``; the table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    def text(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    base = str(folder).rstrip("/") + "/"
    shown = [{**row, "run": row["run"].removeprefix(base)} for row in rows]
    columns = list(shown[0])
    with atomic_write(folder / "comparison.csv") as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(shown)
    texts = [columns, *([text(row[column]) for column in columns] for row in shown)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in texts]
    lines.insert(1, "|" + "---|" * len(columns))
    with atomic_write(folder / "comparison.md") as part:
        part.write_text("\n".join(lines) + "\n")
    _write_page(rows, texts, folder, base)
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
            write_comparison(rows, folder)
        failed_jobs.extend(row["run"] for row in rows if row.get("error"))
