"""Where a data set lies: folders that are whole or not there, with a manifest, and halves that can be continued."""

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

__all__ = ["MANIFEST", "agreed", "aside", "check_vacant", "continued", "finish", "half_made", "read_manifest"]

MANIFEST = "manifest.json"
PLAN = "plan.json"
"""Of a half that takes long: what it is made with."""


def read_manifest(root: Path) -> dict[str, Any] | None:
    """What :func:`aside` wrote, or None.

    Raises:
        InputError: there is one, but it is not readable.
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


def _part_inside(place: Path) -> Path:
    return place / ".part"


def _part_of(place: Path) -> Path:
    return _part_inside(place) if place.is_dir() else place.with_name(f".{place.name}.part")


def _whole_parts(place: Path) -> list[Path]:
    parts = [_part_inside(place), *([place.with_name(f".{place.name}.part")] if place.name else [])]
    return [part for part in parts if os.path.isfile(part / MANIFEST)]


def finish(root: Path) -> None:
    """Move a whole data set to ``root`` that an earlier call wrote but could not move (it was killed, or had no right).

    Raises:
        InputError: it cannot be moved now, either.
    """
    place = Path(os.path.realpath(root))
    for part in _whole_parts(place):
        _move(part, place)


def _move(part: Path, place: Path) -> None:
    """Move what is whole to its place. Its plan goes only now, when the manifest is there."""
    try:
        (part / PLAN).unlink(missing_ok=True)
        if part.parent == place:
            for child in sorted(part.iterdir(), key=lambda path: path.name == MANIFEST):
                child.rename(place / child.name)
            part.rmdir()
        else:
            part.rename(place)
    except OSError as error:
        raise InputError(
            f"{part} holds the whole data set, but it could not be moved to {place} ({one_line(error)}): run the command "
            f"again, or move all of it there by hand, {MANIFEST} last"
        ) from None


def check_vacant(root: Path) -> None:
    """Whether a data set can be put at ``root``: nothing is there, or a folder (a mount point, a link to one) with nothing
    in it but ``lost+found`` and half of what a killed run left.

    Raises:
        InputError: something else is there, or a whole data set that waits to be moved (:func:`finish`).
    """
    place = Path(os.path.realpath(root))
    try:
        for part in _whole_parts(place):
            raise InputError(f"{part} holds a whole data set: move all of it to {place}, {MANIFEST} last, or remove it")
        passed_over = {"lost+found", _part_inside(place).name}
        if os.path.lexists(place) and not (place.is_dir() and {path.name for path in place.iterdir()} <= passed_over):
            raise InputError(f"{root} exists, but was not made by this command; give another data.root=DIR")
    except OSError as error:
        raise InputError(f"data.root={root}: not readable ({one_line(error)}); give another data.root=DIR") from None


@contextlib.contextmanager
def aside(root: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """A folder to write into, which becomes ``root`` when all went well, with ``manifest.json`` as its mark.

    Where nothing is at ``root`` it lies beside it and becomes it in one rename. An empty folder (which may be a mount
    point; links are followed) stays: the part lies hidden in it, and its content is moved up, ``manifest.json`` last.
    What the block adds to ``manifest`` is written. A half that a killed run left is removed.

    Raises:
        InputError: ``root`` is not vacant (:func:`check_vacant`) or cannot be written to, said before anything is done; or
            what was written could not be moved to its place: it stays, and the message says where.
    """
    check_vacant(root)
    place = Path(os.path.realpath(root))
    part = _part_of(place)
    shutil.rmtree(part, ignore_errors=True)
    _make_folder(part, root)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _complete(part, place, manifest)


def _make_folder(part: Path, root: Path) -> None:
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"data.root={root}: cannot be written to ({one_line(error)}); give another data.root=DIR"
        ) from None


def _complete(part: Path, place: Path, manifest: dict[str, Any]) -> None:
    try:
        write_json(part / MANIFEST, manifest)
    except OSError as error:
        remedy = (
            "make room and run the command again: it goes on from there" if (part / PLAN).is_file() else "make room"
        )
        raise InputError(
            f"{part} holds the whole data set, but not its {MANIFEST} ({one_line(error)}); {remedy}"
        ) from None
    _move(part, place)


def _half(place: Path) -> Path | None:
    parts = (_part_inside(place), place.with_name(f".{place.name}.part"))
    return next((part for part in parts if os.path.isfile(part / PLAN)), None)


def half_made(root: Path) -> dict[str, Any] | None:
    """The plan of what an interrupted :func:`continued` left, or None.

    Raises:
        InputError: there is one, but it is not readable.
    """
    half = _half(Path(os.path.realpath(root)))
    if half is None:
        return None
    try:
        return dict(json.loads((half / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{half / PLAN}: not readable ({one_line(error)}); remove {half}") from None


def agreed(plan: Mapping[str, Any], made: Mapping[str, Any] | None, where: Path) -> dict[str, Any]:
    """The plan, completed by that of what is there; None in a plan agrees with anything.

    Raises:
        InputError: they differ; names the first key.
    """
    if made is None:
        return dict(plan)
    for key, value in plan.items():
        there = made.get(key)
        if value is not None and there != as_json(value):
            raise InputError(
                f"{where}: what is there was made with {key}={there}, not {value}; give the same, or another data.root=DIR"
            )
    return {**made, **{key: value for key, value in plan.items() if value is not None}}


@contextlib.contextmanager
def continued(root: Path, manifest: dict[str, Any], plan: Mapping[str, Any]) -> Iterator[Path]:
    """:func:`aside` for what takes long to make: where the block ends in an error (or is killed) the half stays, and the
    next call with the same plan goes on with it.

    Raises:
        InputError: as :func:`aside`, or the half was made with another plan.
    """
    check_vacant(root)
    place = Path(os.path.realpath(root))
    agreed(plan, half_made(root), root)
    part = _half(place)
    if part is None:
        part = _part_of(place)
        shutil.rmtree(part, ignore_errors=True)
        _make_folder(part, root)
        write_json(part / PLAN, plan)
    yield part
    _complete(part, place, manifest)
