"""Prepare a data set: download and convert a published one, or generate a synthetic one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sfdfd.datasets.folders import atomic_folder, check_vacant, finish_move, merged_options, read_manifest
from sfdfd.datasets.protocols import StackGenerator
from sfdfd.datasets.sources import DataSource
from sfdfd.errors import InputError
from sfdfd.io.downloads import RemoteFile, download
from sfdfd.io.files import Report

__all__ = ["convert_source", "existing_manifest", "generate_stacks"]

ReportOf = Callable[[str], Report]
"""Starts the progress report of a step with a title."""


def existing_manifest(root: Path, name: str, generator: StackGenerator | None = None) -> dict[str, Any] | None:
    """Return the manifest of the data set at ``root``; None if ``root`` is vacant.

    Raises:
        InputError: ``root`` holds something else, another data set, or one made with other options.
    """
    finish_move(root)
    manifest = read_manifest(root)
    if manifest is None:
        check_vacant(root)
        return None
    if manifest.get("data") != name:
        raise InputError(f"{root} holds {manifest.get('data')!r}; give another data.root=DIR")
    if generator is not None:
        merged_options(generator.options(), manifest.get("options"), root)
    return manifest


def generate_stacks(
    generator: StackGenerator, root: Path, record: Mapping[str, Any], report: Report, spread: Any = None
) -> dict[str, Any]:
    """Generate a data set at ``root`` and return its manifest: ``record`` with what the generator adds."""
    manifest = {**record, "title": generator.title, "licence": generator.licence, "layout": generator.layout}
    generator.write(root.resolve(), manifest, report, spread)
    return manifest


def convert_source(
    source: DataSource, root: Path, location: str | None, record: Mapping[str, Any], report_of: ReportOf
) -> dict[str, Any]:
    """Convert a published data set into ``root`` and return its manifest.

    Args:
        source: the data set.
        root: receives it, complete or not at all.
        location: file, folder or URL of the original; None: downloaded beside ``root``, or found there.
        record: first keys of the manifest.
        report_of: makes the progress report of a download or of the conversion.
    """
    paths = _source_files(source, root, location, report_of)
    manifest = {
        **record, "title": source.title, "licence": source.licence, "citation": source.citation, "home": source.home,
        "layout": source.layout, "source": [path.name for path in paths],
    }  # fmt: skip
    with atomic_folder(root, manifest) as folder:
        manifest["samples"] = source.convert(paths, folder, report_of("converting"))
    return manifest


def _source_files(source: DataSource, root: Path, location: str | None, report_of: ReportOf) -> list[Path]:
    """Return the original files; those that are neither given nor beside ``root`` are downloaded."""
    files = source.files
    if location is not None and "://" in location:
        name = location.rstrip("/").rsplit("/", 1)[-1].split("?")[0]
        files = (RemoteFile(name or "download", location),)
    elif location is not None:
        if not Path(location).exists():
            raise InputError(f"source={location}: no such file or folder")
        return [Path(location)]
    paths = [root.parent / file.name for file in files]
    for file, path in zip(files, paths, strict=True):
        if not path.is_file():
            download(file, path, report_of(f"downloading {file.name}"), source.home)
    return paths
