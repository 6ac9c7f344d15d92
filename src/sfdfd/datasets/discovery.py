"""Find the stacks below a folder: folders of slices, videos, multi-page files, shards, and bursts of photographs."""

from __future__ import annotations

import os
import statistics
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from sfdfd.datasets.shards import Shard, shard_files
from sfdfd.errors import InputError
from sfdfd.io.duplicate_shots import is_multipage_tiff, one_file_per_shot
from sfdfd.io.files import file_identity, readable
from sfdfd.io.formats.video import VIDEO_SUFFIXES
from sfdfd.io.images import capture_time, list_images

__all__ = ["StackSource", "bursts", "find_stacks"]

DESCRIPTIONS = ("stack.yaml", "focus_distance.txt", "dioptres.txt")
"""A folder with one of these files is one stack, whatever the times of its slices."""
LONGEST_PAUSE = 5.0
"""Below the root, a pause ends a burst only if it is also longer than this multiple of the median pause."""


@dataclass(frozen=True)
class StackSource:
    """A stack below a folder.

    Attributes:
        name: of the folder for its results; may contain slashes.
        source: the folder, the video, the file whose pages are slices, or the shard.
        files: names of its slices in the folder; None: all.
        shard: index of this stack only, if ``source`` is a shard (:mod:`sfdfd.datasets.shards`).
    """

    name: str
    source: Path
    files: tuple[str, ...] | None = None
    shard: Shard | None = None

    @property
    def sample(self) -> str | None:
        """The stack's name in its shard."""
        return None if self.shard is None else next(iter(self.shard.stacks))

    def identity(self) -> list[Any]:
        """Return plain values that change with any file that the stack depends on: its slices, their copies in another
        format, and the files that describe them."""
        folder = self.source.parent if self.source.is_file() else self.source
        files = [folder / name for name in DESCRIPTIONS]
        if self.source.is_file():
            files.append(self.source)
        else:
            stems = None if self.files is None else {Path(name).stem for name in self.files}
            files += [p for p in folder.iterdir() if _is_relevant(p) and (stems is None or p.stem in stems)]
            files += [folder / name for name in _named_in(folder / "stack.yaml")]
        identities: list[Any] = [file_identity(file) for file in sorted(set(files)) if file.is_file()]
        return identities if self.sample is None else [*identities, self.sample]

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Yield the folder or file; a stack in a shard is unpacked to a temporary folder."""
        if self.shard is None or self.sample is None:
            yield self.source
            return
        with self.shard.unpacked(self.sample) as folder:
            yield folder


def _is_relevant(path: Path) -> bool:
    """Return whether a file may belong to a stack; hidden files and those of file managers do not."""
    return path.is_file() and not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini")


def _named_in(description: Path) -> list[str]:
    """Return the slices that a ``stack.yaml`` lists, which may be in other folders. An unreadable file lists none; reading
    the stack will report it."""
    try:
        content = yaml.safe_load(description.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return []
    names = content.get("files") if isinstance(content, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def find_stacks(
    root: Path, gap_s: float = 10.0, excluded_folders: Collection[Path] = ()
) -> tuple[list[StackSource], list[str]]:
    """Find every stack in a folder and below; return them, and messages about what was skipped.

    A folder is one stack, unless its photographs (EXIF times) form several bursts of two or more: then each burst is a
    stack. In ``root`` itself, single photographs are skipped.

    Args:
        root: the folder.
        gap_s: seconds without a photograph that end a burst; below ``root`` the pause must also be five times the median.
        excluded_folders: folders to leave out.

    Raises:
        InputError: there is no such folder, or no stack in it.
    """
    if not root.is_dir():
        raise InputError(f"stacks={root}: no such folder")
    stacks: list[StackSource] = []
    skipped: list[str] = []
    for folder in _folders(root, {folder.resolve() for folder in excluded_folders}):
        name = "" if folder == root else folder.relative_to(root).as_posix()
        stacks_here, skipped_here = _in_folder(folder, name, root, gap_s)
        stacks += stacks_here
        skipped += skipped_here
    if not stacks:
        raise InputError(
            f"stacks={root}: no folder with two or more photographs, no burst (two within {gap_s:g} s: burst_gap_s) and no "
            "video in it or below it"
        )
    return _with_unique_names(stacks), skipped


def _folders(root: Path, seen: set[Path]) -> list[Path]:
    """Return the folder and all folders below it, each once, sorted; hidden ones are skipped, links are followed."""
    folders = []
    for path, below, _ in os.walk(root, followlinks=True):
        resolved = Path(path).resolve()
        if resolved in seen or (resolved / "prediction.json").is_file():  # results of an earlier call
            below.clear()
            continue
        seen.add(resolved)
        below[:] = sorted(name for name in below if not name.startswith("."))
        folders.append(Path(path))
    return folders


def _in_folder(folder: Path, name: str, root: Path, gap_s: float) -> tuple[list[StackSource], list[str]]:
    """Return the stacks directly in a folder, and messages about what was skipped."""
    stacks, skipped = _in_shards(folder, name)
    pictures, _ = one_file_per_shot(list_images(folder))
    with_pages = [file for file in pictures if is_multipage_tiff(file)]
    images = [file for file in pictures if file not in with_pages]
    if len(with_pages) == 1 and not images:  # the whole folder is the stack, with the texts that describe it
        stacks.append(StackSource(name or with_pages[0].stem, folder))
    else:
        stacks += [StackSource(_joined(name, file.stem), file) for file in with_pages]
    if not pictures:
        stacks += _videos_in(folder, name)
    elif images:
        found, skipped_images = _of_images(folder, name, images, root, gap_s)
        if with_pages:  # a stack of the folder's images must not take in its multi-page files
            names = tuple(file.name for file in images)
            found = [replace(stack, files=names) if stack.files is None else stack for stack in found]
        stacks += found
        skipped += skipped_images
    return stacks, skipped


def _in_shards(folder: Path, name: str) -> tuple[list[StackSource], list[str]]:
    stacks, skipped = [], []
    for path in shard_files(folder):
        try:
            shard = Shard.of(path)
        except InputError as error:  # a tar file of something else
            skipped.append(str(error))
            continue
        stacks += [StackSource(_joined(name, stack), path, shard=shard.restricted_to(stack)) for stack in shard.stacks]
    return stacks, skipped


def _videos_in(folder: Path, name: str) -> list[StackSource]:
    videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    named_by_folder = len(videos) == 1 and bool(name)
    return [StackSource(name if named_by_folder else _joined(name, video.stem), video) for video in videos]


def _of_images(
    folder: Path, name: str, images: list[Path], root: Path, gap_s: float
) -> tuple[list[StackSource], list[str]]:
    """Return the folder's images as one stack, or as a stack per burst, and messages about single photographs."""
    whole = [StackSource(name or root.resolve().name, folder)]
    if any((folder / description).is_file() for description in DESCRIPTIONS):
        return whole, []
    parts = bursts(images, gap_s, patient=folder != root)
    has_single = any(len(part) < 2 for _, part in parts)
    if len(parts) == 1 or (folder != root and has_single):  # a single photograph belongs to its folder's stack
        if len(images) < 2:
            return [], [f"{images[0]}: one photograph is no stack"]
        return whole, []
    stacks = [
        StackSource(_joined(name, time), folder, tuple(file.name for file in part))
        for time, part in parts
        if len(part) > 1
    ]
    return stacks, [f"{part[0]}: one photograph is no stack" for _, part in parts if len(part) < 2]


def bursts(files: Sequence[Path], gap_s: float, patient: bool = False) -> list[tuple[str, list[Path]]]:
    """Group photographs into bursts: (date and time of the first, files in their given order), in order of time.

    If one photograph has no time, all are one burst.

    Args:
        files: photographs.
        gap_s: seconds without a photograph that end a burst.
        patient: end a burst only if the pause is also five times the median one: focusing by hand is slow.
    """
    timed = [(time, file) for file in files if (time := capture_time(file)) is not None]
    if len(timed) < len(files) or len(files) < 2:
        return [("", list(files))]
    timed.sort(key=lambda entry: (entry[0], files.index(entry[1])))
    pauses = [(b - a).total_seconds() for (a, _), (b, _) in pairwise(timed)]
    limit = max(gap_s, LONGEST_PAUSE * statistics.median_low(pauses)) if patient else gap_s
    parts = [[timed[0]]]
    for pause, entry in zip(pauses, timed[1:], strict=True):
        if pause > limit:
            parts.append([])
        parts[-1].append(entry)
    return [
        (part[0][0].strftime("%Y-%m-%d_%H-%M-%S"), sorted((file for _, file in part), key=files.index))
        for part in parts
    ]


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


RESERVED = ("index.html", "index.json")
"""Files beside the result folders of many stacks."""


def _with_unique_names(stacks: list[StackSource]) -> list[StackSource]:
    """Give each stack a result folder of its own.

    Of several stacks with one name, files take their full name (``IMG.mov``, ``IMG.mp4``), so that names do not depend on
    which other files exist; names that still clash are numbered.
    """
    stacks = [replace(stack, name=readable(stack.name)) for stack in stacks]
    counts = Counter(_folded(stack.name) for stack in stacks)
    stacks = [_with_suffix(stack) if counts[_folded(stack.name)] > 1 else stack for stack in stacks]
    names = Counter(_folded(stack.name) for stack in stacks)
    taken = {_folded(name) for name in RESERVED}
    unique = []
    for stack in stacks:
        name, number = stack.name, 1
        while _folded(name) in taken or (number > 1 and _folded(name) in names):
            number += 1
            name = f"{stack.name}_{number}"
        taken.add(_folded(name))
        unique.append(replace(stack, name=name))
    return unique


def _folded(name: str) -> str:
    """Return a key that is equal for names that some file systems take for one: they ignore case and how accents are
    composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _with_suffix(stack: StackSource) -> StackSource:
    """Name a stack by the full name of its file, if it was named by the file and not by a folder."""
    folder, _, last = stack.name.rpartition("/")
    if not stack.source.is_file() or stack.shard is not None or last != readable(stack.source.stem):
        return stack
    return replace(stack, name=_joined(folder, readable(stack.source.name)))
