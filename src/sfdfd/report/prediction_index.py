"""Overview of many predictions: a table as text, and a page with thumbnails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.files import atomic_write, readable
from sfdfd.io.images import read_image, to_bytes
from sfdfd.report.html import Section, write_page

__all__ = ["is_whole", "row_facts", "table", "write_index"]

THUMBNAILS, THUMBNAIL_PX = "thumbnails", 320
"""The folder of the thumbnails in that of a stack, and their longer side."""
PICTURES = {"All-in-focus image": "aif.png", "Depth": "depth.png"}
COLUMNS = ("stack", "status", "slices", "depth", "median", "left out, dB", "seconds")


def row_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table shows of a ``prediction.json``."""
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
    """Whether a row of an earlier call has everything that the table shows."""
    try:
        return bool(_cells(row) and row["facts"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each stack, and below them the errors of those that failed."""
    failed = [row for row in rows if row["status"] == "failed"]
    lines = [list(COLUMNS), *(_cells({**row, "error": None}) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *(f"failed: {row['name']}: {row['error']}" for row in failed)])


def write_index(
    output_dir: Path,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    thumbnails: dict[str, tuple[Any, list[dict[str, str]]]] | None = None,
) -> None:
    """Write ``index.html``: the table, and for each stack a row of thumbnails that link to its report.

    Args:
        output_dir: holds the folders of the stacks. Thumbnails are made once and kept in ``NAME/thumbnails``.
        title: of the page.
        rows: of :func:`sfdfd.runs.batch.run_batch`.
        thumbnails: a cache by the stack's name. Pass the same dictionary after each of many stacks, so that only new ones
            are read from disk.
    """
    thumbnails, galleries = {} if thumbnails is None else thumbnails, []
    for row in rows:
        if not row["facts"]:
            continue
        state = (row["seconds"], row["facts"])  # differs after a new prediction
        cached = thumbnails.get(row["name"])
        if cached is None or cached[0] != state:
            cached = thumbnails[row["name"]] = (state, _thumbnails(output_dir, row["name"]))
        if cached[1]:
            galleries.append({"title": ": ".join([row["name"], _cells(row)[3]]), "pictures": cached[1]})
    waiting = sum(row["status"] == "waiting" for row in rows)
    text = [f"{len(rows)} stacks" + (f", {waiting} of them waiting." if waiting else ".")]
    sections = [
        Section(title="Stacks", text=text, table={"header": list(COLUMNS), "rows": [_cells(row) for row in rows]}),
        Section(title="Pictures", text=["Click a picture to open the report of its stack."], rows=galleries),
    ]
    with atomic_write(output_dir / "index.html") as part:
        write_page(part, title, sections)


def _thumbnails(output_dir: Path, name: str) -> list[dict[str, str]]:
    """Return the gallery entries of a stack, without pictures that are broken or missing."""
    entries = []
    for title, file in PICTURES.items():
        picture = output_dir / name / file
        thumbnail = picture.parent / THUMBNAILS / f"{picture.stem}.jpg"
        if _make_thumbnail(picture, thumbnail):
            source = quote(readable(thumbnail.relative_to(output_dir).as_posix()))
            entries.append({"title": title, "source": source, "link": quote(f"{readable(name)}/report.html")})
    return entries


def _make_thumbnail(picture: Path, thumbnail: Path) -> bool:
    """Make the thumbnail unless it is up to date; return whether it exists."""
    try:
        if thumbnail.is_file() and thumbnail.stat().st_mtime_ns >= picture.stat().st_mtime_ns:
            return True
        image = Image.fromarray(to_bytes(read_image(picture)).permute(1, 2, 0).numpy())
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        thumbnail.parent.mkdir(exist_ok=True)
        with atomic_write(thumbnail) as part:
            image.save(part, "JPEG", quality=85)
    except (InputError, OSError):
        return False
    return True
