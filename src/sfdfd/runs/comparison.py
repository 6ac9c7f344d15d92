"""Compare runs: ``python -m sfdfd.compare DIR``, the table at the end of every multirun, and that of a search."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfdfd.io.files import atomic_write
from sfdfd.io.run_record import logged
from sfdfd.runs.command import ERROR_FILE, IGNORED_OVERRIDES, failed_jobs, swept_keys, unquote_value

__all__ = ["CompareRuns", "compare_runs", "write_comparison"]

METRICS = ("depth/abs_rel", "depth/rmse", "depth/delta1", "aif/psnr", "stack/psnr")
CURVES = ("train/total", "val/reconstruction", "truth/depth_abs_rel", "health/depth_std")


@dataclass(frozen=True)
class _Run:
    """One run folder: its overrides, the content of ``metrics.json``, and its error (empty for none)."""

    folder: Path
    overrides: dict[str, str]
    metrics: dict[str, Any]
    error: str


def compare_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return one row for each run folder below: the overrides that vary, its figures, and its error if any run has one."""
    runs = [_read_run(run) for folder in folders for run in _run_folders(folder)]
    varying = _varying_overrides(runs, folders)
    failed = any(run.error for run in runs)
    return [
        {
            "run": str(run.folder),
            **{name: run.overrides.get(name, "") for name in varying},
            **{key: run.metrics.get(key) for key in METRICS},
            "classical depth/abs_rel": run.metrics.get("baselines/classical/depth/abs_rel"),
            "constant depth/abs_rel": run.metrics.get("baselines/constant/depth/abs_rel"),
            "samples": run.metrics.get("samples"),
            **({"error": run.error} if failed else {}),
        }
        for run in runs
    ]


def _run_folders(folder: Path) -> list[Path]:
    """Return the run folders below a folder, failed and unfinished ones too, numbers in numeric order."""
    runs = {file.parent for name in ("metrics.json", ERROR_FILE) for file in folder.rglob(name)}
    runs |= {file.parent.parent for file in folder.rglob(".hydra/overrides.yaml")}
    return sorted(runs, key=_numeric_order)


def _read_run(folder: Path) -> _Run:
    metrics, error = _read_json(folder / "metrics.json"), _read_json(folder / ERROR_FILE).get("error", "")
    if not metrics and not error:
        error = "has not ended"
    return _Run(folder, _read_overrides(folder / ".hydra" / "overrides.yaml"), metrics, error)


def _varying_overrides(runs: Sequence[_Run], folders: Sequence[Path]) -> list[str]:
    """Return the keys whose values differ; those that distinguish no runs count only where they were swept."""
    swept = {key.lstrip("+") for folder in folders for key in swept_keys(folder)}
    names = dict.fromkeys(name for run in runs for name in run.overrides)
    counted = [name for name in names if name in swept or not name.startswith(IGNORED_OVERRIDES)]
    return [name for name in counted if len({run.overrides.get(name) for run in runs}) > 1]


def _read_overrides(path: Path) -> dict[str, str]:
    """Return KEY -> VALUE from the command line that Hydra wrote down; nothing from a missing or broken file."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    lines = content if isinstance(content, list) else []
    pairs = (line.lstrip("+").split("=", 1) for line in lines if isinstance(line, str) and "=" in line)
    return {key: unquote_value(value) for key, value in pairs}


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's mapping; an empty one from a missing or broken file."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _curves(rows: Sequence[Mapping[str, Any]], base: str) -> list[dict[str, Any]]:
    """Draw the learning curves of all runs, one picture per quantity."""
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
    """Return a run's folder and its varying overrides."""
    varied = list(row)[1 : list(row).index(METRICS[0])]
    return ", ".join([row["run"].removeprefix(base), *(f"{key}={row[key]}" for key in varied)])


def _thumbnails(run: Path) -> list[dict[str, Any]]:
    """Return the last picture of two validation samples, else pictures of the test."""
    from sfdfd.report.html import picture_file

    steps = sorted((run / "pictures").glob("step_*.png"))
    last = list({path.name.split("_", 2)[2]: path for path in steps}.values())
    files = last or sorted((run / "pictures").glob("network_*.png"))
    return [item for path in files[:2] for item in picture_file(path.name, path, largest_px=700)]


def _write_page(rows: Sequence[Mapping[str, Any]], cells: Sequence[Sequence[str]], folder: Path, base: str) -> None:
    """Write ``comparison.html``: the table, the curves, and thumbnails of every run."""
    from sfdfd.report.html import Section, write_page

    sections = [Section(title=f"{len(rows)} runs", table={"header": cells[0], "rows": cells[1:]})]
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


def _numeric_order(path: Path) -> tuple:
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts)


def write_comparison(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write the rows of :func:`compare_runs` as ``comparison.csv``, ``.md`` and ``.html``, and print the table."""
    base = str(folder).rstrip("/") + "/"
    short = [{**row, "run": row["run"].removeprefix(base)} for row in rows]
    columns = list(short[0])
    with atomic_write(folder / "comparison.csv") as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(short)
    cells = [columns, *([_format_cell(row[column]) for column in columns] for row in short)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
    lines.insert(1, "|" + "---|" * len(columns))
    with atomic_write(folder / "comparison.md") as part:
        part.write_text("\n".join(lines) + "\n")
    _write_page(rows, cells, folder, base)
    _print_table(cells, f"{len(rows)} runs in {folder}")


def _format_cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_table(cells: Sequence[Sequence[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in cells[0]:
        table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
    for line in cells[1:]:
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


class CompareRuns:
    """Hydra callback: after a multirun, print a table of all its jobs and write it into the sweep's folder."""

    def __getattr__(self, name: str):
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = compare_runs([folder]) if folder.is_dir() else []
        if rows:
            write_comparison(rows, folder)
        failed_jobs.extend(row["run"] for row in rows if row.get("error"))
