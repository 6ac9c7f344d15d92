"""A hook of mkdocs: docs/reference/datasets.md ends in those published data sets that have no section there, in their
own words."""

from __future__ import annotations

import inspect
from typing import Any

from sfdfd.datasets.sources import SOURCES, DataSource


def section(source: DataSource) -> str:
    """What a data set says of itself, in the form that the page's sections have."""
    files = ", ".join(f"`{file.name}`, {'downloaded' if file.url else 'fetched by hand'}" for file in source.files)
    becomes = " ".join((inspect.getdoc(source.convert) or "").split()).replace("``", "`")
    rows = {
        "lives at": source.home,
        "licence": source.licence,
        "size": f"{source.size}; {files}",
        "becomes": f"{source.layout}: {becomes}",
        "uncertain": source.uncertain,
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    title = f"## {source.title.split(':')[0]}\n\n{source.title}. {source.citation}."
    return f"\n{title}\n\n| | |\n|---|---|\n{table}\n* `data={source.name}`\n"


def with_sections(text: str) -> str:
    """The page, and a section for each data set that it does not name."""
    return text + "".join(section(one) for one in SOURCES.values() if f"`data={one.name}`" not in text)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return with_sections(markdown) if page.file.src_uri == "reference/datasets.md" else markdown
