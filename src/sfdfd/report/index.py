"""Many predictions at a glance: a table in words, and a page with a picture of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sfdfd.data.files import readable, written_aside
from sfdfd.report.page import Section, picture_file, write_page

__all__ = ["facts_of", "is_whole", "table", "write_index"]

COLUMNS = ("stack", "status", "slices", "depth", "median", "left out, dB", "seconds")


def facts_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the table says of a stack, of its ``prediction.json``."""
    depth = facts["depth_m"] if facts["metric"] else facts["relative_depth"]
    left_out = facts["left_out_mean"]
    return {
        "slices": len(facts["alignment"]["slices"]),
        "metric": facts["metric"],
        "camera_source": facts["camera_source"],
        "depth": depth,
        "left_out_psnr_db": None if left_out is None else left_out["psnr_db"],
        "stack_psnr_db": facts["stack_psnr_db"],
        "interrupted": bool(facts["refinement"] and facts["refinement"]["interrupted"]),
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    facts = row["facts"]
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
    if not facts:
        return [row["name"], row["status"], "", row["error"] or "", "", "", seconds]
    unit, left_out = " m" if facts["metric"] else "", facts["left_out_psnr_db"]
    return [
        row["name"],
        row["status"],
        str(facts["slices"]),
        "{min:.3g} to {max:.3g}".format(**facts["depth"]) + (unit or " (relative)"),
        f"{facts['depth']['median']:.3g}{unit}",
        "" if left_out is None else f"{left_out:.2f}",
        seconds,
    ]


def is_whole(row: Mapping[str, Any]) -> bool:
    """Whether the table can say of a row of an earlier call what it says of one of this."""
    try:
        return bool(_cells(row) and row["facts"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each stack; what failed, and why, below."""
    failed = [row for row in rows if row["status"] == "failed"]
    lines = [list(COLUMNS), *(_cells({**row, "error": None}) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *(f"failed: {row['name']}: {row['error']}" for row in failed)])


def write_index(output_dir: Path, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """``index.html``: a row of pictures for each stack, which link to its report, and the table."""
    galleries = []
    for row in rows:
        folder = output_dir / row["name"]
        pictures = [
            {**shown, "link": quote(f"{readable(row['name'])}/report.html")}
            for what, name in (("All-in-focus image", "aif.png"), ("Depth", "depth.png"))
            if row["facts"]
            for shown in picture_file(what, folder / name, largest_px=320)
        ]
        if pictures:
            galleries.append({"title": ": ".join([row["name"], _cells(row)[3]]), "pictures": pictures})
    waiting = sum(row["status"] == "waiting" for row in rows)
    text = [f"{len(rows)} stacks" + (f", {waiting} of them still to be done." if waiting else ".")]
    sections = [
        Section(title="Stacks", text=text, table={"header": list(COLUMNS), "rows": [_cells(row) for row in rows]}),
        Section(title="Pictures", text=["Click for the report of a stack."], rows=galleries),
    ]
    with written_aside(output_dir / "index.html") as part:
        write_page(part, title, sections)
