"""Folders of data sets: complete with a manifest, or absent; interrupted work can be resumed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError, one_line
from sfdfd.io.files import as_json, write_json

__all__ = [
    "MANIFEST", "atomic_folder", "check_vacant", "finish_move", "merged_options", "read_manifest", "resumable_folder",
    "unfinished_folder", "unfinished_options",
]  # fmt: skip

MANIFEST = "manifest.json"
OPTIONS = "plan.json"
"""In an unfinished data set: the options that it is made with."""


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete data set; None if there is none.

    Raises:
        InputError: the manifest is not readable.
    """
    path = root / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({one_line(error)}); remove {root} and prepare it again") from None
    if content is not None and not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a mapping, got {type(content).__name__}; remove {root} and prepare it again"
        )
    return content


def _target_of(root: Path) -> Path:
    """Follow links, so that a data set is built on the disk that will hold it."""
    return Path(os.path.realpath(root))


def _part_inside(target: Path) -> Path:
    return target / ".part"


def _part_of(target: Path) -> Path:
    """Return the folder to build a data set in: inside an existing target, else beside it."""
    return _part_inside(target) if target.is_dir() else target.with_name(f".{target.name}.part")


def _parts_with(target: Path, file: str) -> list[Path]:
    parts = [_part_inside(target), *([target.with_name(f".{target.name}.part")] if target.name else [])]
    return [part for part in parts if os.path.isfile(part / file)]


def finish_move(root: Path) -> None:
    """Move a complete data set to ``root`` if an earlier call wrote it but could not move it.

    Raises:
        InputError: moving it fails again.
    """
    target = _target_of(root)
    for part in _parts_with(target, MANIFEST):
        _move(part, target)


def _move(part: Path, target: Path) -> None:
    """Move a complete data set to its target. Its options file is removed only now that the manifest exists."""
    try:
        (part / OPTIONS).unlink(missing_ok=True)
        if part.parent == target:
            for child in sorted(part.iterdir(), key=lambda path: path.name == MANIFEST):
                child.rename(target / child.name)
            part.rmdir()
        else:
            part.rename(target)
    except OSError as error:
        raise InputError(
            f"{part} holds the whole data set, but it could not be moved to {target} ({one_line(error)}): run the command "
            f"again, or move all of it there by hand, {MANIFEST} last"
        ) from None


def check_vacant(root: Path) -> None:
    """Check that a data set can be put at ``root``: it is absent, or a folder (a mount point, a link to one) that holds only
    ``lost+found`` and what a killed run left.

    Raises:
        InputError: ``root`` is occupied, or a complete data set waits to be moved there (:func:`finish_move`).
    """
    target = _target_of(root)
    try:
        for part in _parts_with(target, MANIFEST):
            raise InputError(
                f"{part} holds a whole data set: move all of it to {target}, {MANIFEST} last, or remove it"
            )
        ignored = {"lost+found", _part_inside(target).name}
        if os.path.lexists(target) and not (target.is_dir() and {path.name for path in target.iterdir()} <= ignored):
            raise InputError(f"{root} exists, but was not made by this command; give another data.root=DIR")
    except OSError as error:
        raise InputError(f"data.root={root}: not readable ({one_line(error)}); give another data.root=DIR") from None


@contextlib.contextmanager
def atomic_folder(root: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder to write into, which becomes ``root`` if the block succeeds and is removed if it fails.

    ``manifest`` is written last, with what the block adds to it; it marks the data set as complete. If ``root`` is absent,
    one rename moves the folder there. If it is an empty folder (perhaps a mount point; links are followed), the content is
    moved into it, ``manifest.json`` last.

    Raises:
        InputError: ``root`` is not vacant (:func:`check_vacant`) or not writable, before the block runs; or the complete
            data set could not be moved: it is kept, and the message says where.
    """
    check_vacant(root)
    target = _target_of(root)
    part = _part_of(target)
    _make_empty(part, root)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _complete(part, target, manifest)


def _make_empty(part: Path, root: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"data.root={root}: cannot be written to ({one_line(error)}); give another data.root=DIR"
        ) from None


def _complete(part: Path, target: Path, manifest: dict[str, Any]) -> None:
    try:
        write_json(part / MANIFEST, manifest)
    except OSError as error:
        resumable = (part / OPTIONS).is_file()
        remedy = "make room and run the command again: it resumes from there" if resumable else "make room"
        raise InputError(
            f"{part} holds the whole data set, but not its {MANIFEST} ({one_line(error)}); {remedy}"
        ) from None
    _move(part, target)


def unfinished_folder(root: Path) -> Path | None:
    """Return the folder in which an unfinished :func:`resumable_folder` builds ``root``; None if there is none."""
    return next(iter(_parts_with(_target_of(root), OPTIONS)), None)


def unfinished_options(root: Path) -> dict[str, Any] | None:
    """Return the options of an interrupted :func:`resumable_folder`; None if there is none.

    Raises:
        InputError: its options file is not readable.
    """
    for part in _parts_with(_target_of(root), OPTIONS):
        try:
            return dict(json.loads((part / OPTIONS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{part / OPTIONS}: not readable ({one_line(error)}); remove {part}") from None
    return None


def merged_options(options: Mapping[str, Any], existing: Mapping[str, Any] | None, root: Path) -> dict[str, Any]:
    """Complete options by those of an existing data set; None in ``options`` accepts any value.

    Raises:
        InputError: they differ; the message names the first key.
    """
    if existing is None:
        return dict(options)
    for key, value in options.items():
        if value is not None and existing.get(key) != as_json(value):
            raise InputError(
                f"{root}: the existing data was made with {key}={existing.get(key)}, not {value}; give the same, or another "
                "data.root=DIR"
            )
    return {**existing, **{key: value for key, value in options.items() if value is not None}}


@contextlib.contextmanager
def resumable_folder(root: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder as :func:`atomic_folder` does, for slow work: if the block fails or is killed, the folder is kept, and
    the next call with the same options resumes it.

    Raises:
        InputError: as :func:`atomic_folder`, or the unfinished data was made with other options.
    """
    check_vacant(root)
    target = _target_of(root)
    merged_options(options, unfinished_options(root), root)
    part = next(iter(_parts_with(target, OPTIONS)), None)
    if part is None:
        part = _part_of(target)
        _make_empty(part, root)
        write_json(part / OPTIONS, options)
    yield part
    _complete(part, target, manifest)
