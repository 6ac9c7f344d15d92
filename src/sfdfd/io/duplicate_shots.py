"""Choose one file per shot: the best format of each, and none twice."""

from __future__ import annotations

import filecmp
import hashlib
import importlib.util
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from sfdfd.errors import InputError
from sfdfd.io.files import readable
from sfdfd.io.formats.heic import HEIC_SUFFIXES
from sfdfd.io.formats.raw import RAW_SUFFIXES, rawpy_is_installed
from sfdfd.io.formats.tiff import TIFF_SUFFIXES, count_tiff_slices
from sfdfd.io.images import list_images

__all__ = ["distinct_files", "is_multipage_tiff", "one_file_per_shot", "same_shots_in_other_format"]

FORMATS = (
    RAW_SUFFIXES, TIFF_SUFFIXES, (".png",), (".pgm", ".ppm", ".pnm"), (".bmp",), HEIC_SUFFIXES, (".jp2", ".j2k", ".jpx"),
    (".avif",), (".webp",), (".jpg", ".jpeg"),
)  # fmt: skip
"""The first format of a shot is read: formats are sorted by how much of the sensor's data they keep."""
PIXEL_RAW = re.compile(r"\.raw-\d+\.(mp\.)?(cover|original)$")
"""Pixel phones name the two files of a shot NAME.RAW-01.COVER.jpg and NAME.RAW-02.ORIGINAL.dng."""
SAMPLED_BYTES = 1 << 16


def one_file_per_shot(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Keep one file of each shot: of several formats with one name the best readable one.

    Returns:
        The kept files in their order, and notes on what was left out.
    """
    shots: dict[tuple[Path, str], dict[int, Path]] = {}
    further = set()
    for file in files:
        formats = shots.setdefault(_shot(file), {})
        if formats.setdefault(_format(file), file) != file:
            further.add(file)  # a second file of one name and one format (a.jpg, a.jpeg) is another shot
    several = [formats for formats in shots.values() if len(formats) > 1]
    if not several:
        return list(files), []
    best = {_best(formats) for formats in shots.values()}
    names = " and ".join(readable(file.name) for file in several[0].values())
    suffixes = " and ".join(sorted({file.suffix.lower() for file in best}))
    if len(several) == 1:
        note = f"{names} are one shot and one slice, read from {suffixes}"
    else:
        note = f"{len(several)} shots lie there in several formats, such as {names}: each is one slice, read from {suffixes}"
    return [file for file in files if file in best or file in further], [note]


def _best(formats: dict[int, Path]) -> Path:
    return formats[min([rank for rank in formats if _can_be_read(rank)] or formats)]


def same_shots_in_other_format(files: Sequence[Path]) -> list[Path] | None:
    """Return the same shots in another format, if the folder holds all of them in one; else None."""
    alternatives = []
    for file in files:
        same_shot = [other for other in list_images(file.parent) if _shot(other) == _shot(file)]
        ranked = {_format(other): other for other in same_shot if _format(other) != _format(file)}
        alternatives.append({rank: other for rank, other in ranked.items() if _can_be_read(rank)})
    common = set.intersection(*(set(formats) for formats in alternatives)) if alternatives else set()
    return [formats[min(common)] for formats in alternatives] if common else None


def distinct_files(files: Sequence[Path]) -> tuple[list[int], list[str]]:
    """Find files that are byte for byte the same.

    Returns:
        The indices of the distinct files, ascending (of identical ones the shortest name), and notes on the others.
    """
    groups_of: dict[tuple[int, bytes], list[list[int]]] = {}
    for index, file in enumerate(files):
        groups = groups_of.setdefault(_fingerprint(file), [])
        group = next((group for group in groups if filecmp.cmp(files[group[0]], file, shallow=False)), None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    kept, notes = [], []
    for group in itertools.chain.from_iterable(groups_of.values()):
        first = min(group, key=lambda index: (len(files[index].name), index))
        kept.append(first)
        notes += [
            f"{readable(files[index].name)} is the same file as {readable(files[first].name)}: it counts once"
            for index in group
            if index != first
        ]
    return sorted(kept), notes


def is_multipage_tiff(file: Path) -> bool:
    """Return whether a file is a TIFF whose pages are slices of a stack."""
    if file.suffix.lower() not in TIFF_SUFFIXES:
        return False
    try:
        return count_tiff_slices(file) > 1
    except InputError:  # reported when it is read
        return False


def _shot(file: Path) -> tuple[Path, str]:
    return file.parent, PIXEL_RAW.sub("", file.stem.lower())


def _format(file: Path) -> int:
    suffix = file.suffix.lower()
    return next((rank for rank, suffixes in enumerate(FORMATS) if suffix in suffixes), len(FORMATS))


def _can_be_read(rank: int) -> bool:
    """Return whether the package for a format is installed."""
    if rank < len(FORMATS) and FORMATS[rank] is RAW_SUFFIXES:
        return rawpy_is_installed()
    if rank < len(FORMATS) and FORMATS[rank] is HEIC_SUFFIXES:
        return importlib.util.find_spec("pillow_heif") is not None
    return True


def _fingerprint(file: Path) -> tuple[int, bytes]:
    """Return size and a hash of samples, so that few files are compared whole; the path of an unreadable or empty file."""
    try:
        size = file.stat().st_size
        digest = hashlib.blake2b(digest_size=16)
        with file.open("rb") as content:
            for offset in (0, size // 2, max(0, size - SAMPLED_BYTES)):
                content.seek(offset)
                digest.update(content.read(SAMPLED_BYTES))
        return size, digest.digest() if size else str(file).encode("utf-8", "surrogateescape")
    except OSError:
        return 0, str(file).encode("utf-8", "surrogateescape")
