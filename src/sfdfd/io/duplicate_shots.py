"""Which files of a folder are slices: one for each shot, whatever else of it lies beside."""

from __future__ import annotations

import filecmp
import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from sfdfd.errors import InputError
from sfdfd.io.files import readable
from sfdfd.io.formats.heic import HEIC_SUFFIXES
from sfdfd.io.formats.raw import RAW_SUFFIXES, raw_is_readable
from sfdfd.io.formats.tiff import TIFF_SUFFIXES, tiff_slices
from sfdfd.io.images import list_images

__all__ = ["has_pages", "other_formats", "without_identical", "without_twins"]

FORMATS = (
    RAW_SUFFIXES, TIFF_SUFFIXES, (".png",), (".pgm", ".ppm", ".pnm"), (".bmp",), HEIC_SUFFIXES, (".jp2", ".j2k", ".jpx"),
    (".avif",), (".webp",), (".jpg", ".jpeg"),
)  # fmt: skip
"""Of the formats of one shot the first is read: what holds most of the sensor's light."""
PIXEL_RAW = re.compile(r"\.raw-\d+\.(mp\.)?(cover|original)$")
"""Pixel phones name the two files of a shot NAME.RAW-01.COVER.jpg and NAME.RAW-02.ORIGINAL.dng."""
SAMPLED_BYTES = 1 << 16


def without_twins(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Keep one file of each shot: of several formats of one name the best that can be read.

    Returns:
        The files, in their order, and what was left out, in words.
    """
    shots: dict[tuple[Path, str], dict[int, Path]] = {}
    for file in files:
        shots.setdefault(_shot(file), {}).setdefault(_format(file), file)
    if all(len(formats) == 1 for formats in shots.values()):
        return list(files), []
    chosen = set()
    for formats in shots.values():
        usable = {rank: file for rank, file in formats.items() if _can_be_read(rank)} or formats
        chosen.add(usable[min(usable)])
    twins = sum(len(formats) > 1 for formats in shots.values())
    kept = [file for file in files if file in chosen or _is_further(file, files)]
    suffixes = " and ".join(sorted({file.suffix.lower() for file in chosen}))
    example = next(formats for formats in shots.values() if len(formats) > 1)
    names = " and ".join(readable(file.name) for file in example.values())
    note = f"{twins} shots lie there in several formats, such as {names}: each is one slice, read from {suffixes}"
    return kept, [note if twins > 1 else f"{names} are one shot and one slice, read from {suffixes}"]


def _is_further(file: Path, files: Sequence[Path]) -> bool:
    """Whether it is a second file of one name and one format (a.jpg, a.jpeg): those are different shots."""
    same = [one for one in files if (_shot(one), _format(one)) == (_shot(file), _format(file))]
    return same[0] != file


def other_formats(files: Sequence[Path]) -> list[Path] | None:
    """Return the same shots in another format, which lies beside all of them; None where there is none."""
    found = []
    for file in files:
        beside = [
            one for one in list_images(file.parent) if _shot(one) == _shot(file) and _format(one) != _format(file)
        ]
        found.append({_format(one): one for one in beside if _can_be_read(_format(one))})
    common = set.intersection(*(set(formats) for formats in found)) if found else set()
    return [formats[min(common)] for formats in found] if common else None


def without_identical(files: Sequence[Path]) -> tuple[list[int], list[str]]:
    """Find files whose bytes are those of another.

    Returns:
        The indices of those that count, ascending (of identical ones that with the shortest name), and what was left out,
        in words.
    """
    same: dict[tuple[int, bytes], list[list[int]]] = {}
    for index, file in enumerate(files):
        groups = same.setdefault(_fingerprint(file), [])
        group = next((one for one in groups if filecmp.cmp(files[one[0]], file, shallow=False)), None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    kept, notes = [], []
    for group in (one for groups in same.values() for one in groups):
        first = min(group, key=lambda index: (len(files[index].name), index))
        kept.append(first)
        notes += [
            f"{readable(files[index].name)} is the same file as {readable(files[first].name)}: it counts once"
            for index in group
            if index != first
        ]
    return sorted(kept), notes


def has_pages(file: Path) -> bool:
    """Whether a file is a TIFF whose pages are slices of a stack."""
    if file.suffix.lower() not in TIFF_SUFFIXES:
        return False
    try:
        return tiff_slices(file) > 1
    except InputError:  # said when it is read
        return False


def _shot(file: Path) -> tuple[Path, str]:
    return file.parent, PIXEL_RAW.sub("", file.stem.lower())


def _format(file: Path) -> int:
    suffix = file.suffix.lower()
    return next((rank for rank, suffixes in enumerate(FORMATS) if suffix in suffixes), len(FORMATS))


def _can_be_read(rank: int) -> bool:
    """Whether the package for a format is installed."""
    if rank < len(FORMATS) and FORMATS[rank] is RAW_SUFFIXES:
        return raw_is_readable()
    if rank < len(FORMATS) and FORMATS[rank] is HEIC_SUFFIXES:
        return importlib.util.find_spec("pillow_heif") is not None
    return True


def _fingerprint(file: Path) -> tuple[int, bytes]:
    """Size and a sample of the content: files that differ in it are not compared whole. Of what cannot be read, its name."""
    try:
        size = file.stat().st_size
        digest = hashlib.blake2b(digest_size=16)
        with file.open("rb") as content:
            for place in (0, size // 2, max(0, size - SAMPLED_BYTES)):
                content.seek(place)
                digest.update(content.read(SAMPLED_BYTES))
        return size, digest.digest() if size else str(file).encode("utf-8", "surrogateescape")
    except OSError:
        return 0, str(file).encode("utf-8", "surrogateescape")
