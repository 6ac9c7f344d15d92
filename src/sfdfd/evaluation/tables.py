"""Tables of an evaluation: metrics.csv, the terminal, and the columns of the report."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sfdfd.errors import InputError
from sfdfd.io.files import atomic_write

__all__ = ["LEFT_OUT_KEYS", "MAIN", "method_table", "print_metrics", "read_rows", "worst_first_table", "write_rows"]

MAIN = "network"
"""The method whose means have no prefix in metrics.json; the others are ``baselines/NAME/...``."""
LEFT_OUT_KEYS = {
    "psnr_db": "left_out/psnr",
    "nearest_slice_psnr_db": "left_out/nearest_psnr",
    "best_blend_psnr_db": "left_out/blend_psnr",
}
"""The metric name of each figure of :mod:`sfdfd.measures.left_out`."""
COLUMNS = (
    "depth/abs_rel",
    "depth/rmse",
    "depth/delta1",
    "aif/psnr",
    "aif/ssim",
    "stack/psnr",
    "stack/ssim",
    *LEFT_OUT_KEYS.values(),
)


def _columns(result: Mapping[str, Any]) -> list[str]:
    """Return the metrics to show; those of left-out slices only where slices were left out."""
    return [key for key in COLUMNS if "left_out" in result["protocol"] or key not in LEFT_OUT_KEYS.values()]


def method_table(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return header and rows, one row per method that has any metric.

    Args:
        result: the content of ``metrics.json``.
    """
    columns = _columns(result)
    baselines = dict.fromkeys(key.split("/")[1] for key in result if key.startswith("baselines/"))
    rows = []
    for label, prefix in ((MAIN, ""), *((name, f"baselines/{name}/") for name in baselines)):
        values = [result.get(prefix + key) for key in columns]
        if any(value is not None for value in values):
            rows.append([label, *map(_cell, values)])
    return {"header": ["method", *columns], "rows": rows}


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def print_metrics(result: Mapping[str, Any], title: str) -> None:
    """Print one row per method."""
    content = method_table(result)
    table = Table(title=f"{title} ({result['samples']} samples)")
    table.add_column("method")
    for key in content["header"][1:]:
        table.add_column(key, justify="right")
    for row in content["rows"]:
        table.add_row(*row)
    Console(width=160 if "left_out" in result["protocol"] else 120).print(table)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``metrics.csv``: one row per image and method."""
    with atomic_write(path) as part, part.open("w", newline="", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.csv``: one row per image and method; an empty cell is None.

    Raises:
        InputError: the file is broken or is another table.
    """
    try:
        with path.open(newline="", errors="backslashreplace") as file:
            rows = list(csv.DictReader(file))
        return [
            {
                "name": row.pop("name"),
                "method": row.pop("method"),
                **{k: float(v) if v else None for k, v in row.items()},
            }
            for row in rows
        ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not the table that an evaluation writes ({error!r})") from None


def worst_first_table(path: Path) -> dict[str, Any] | None:
    """Return header and rows of the network's images, the largest error first; None where ``path`` does not exist.

    Args:
        path: a ``metrics.csv``.
    """
    if not path.is_file():
        return None
    rows = [row for row in read_rows(path) if row["method"] == MAIN]
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    rows.sort(key=lambda row: -(row.get(keys[0]) or 0.0))
    return {"header": ["frame", *keys], "rows": [[row["name"], *(_cell(row.get(key)) for key in keys)] for row in rows]}
