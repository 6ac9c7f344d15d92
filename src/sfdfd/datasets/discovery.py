"""The stacks below a folder: folders of slices, videos, shards, and bursts by the time that photographs were taken at."""

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
from sfdfd.io.duplicate_shots import has_pages, without_twins
from sfdfd.io.files import file_identity, readable
from sfdfd.io.formats.video import VIDEO_SUFFIXES
from sfdfd.io.images import list_images, moment_of

__all__ = ["FoundStack", "bursts", "stacks_below"]

DESCRIPTIONS = ("stack.yaml", "focus_distance.txt", "dioptres.txt")
"""A folder with one of these is one stack, whenever its slices were taken."""
LONGEST_PAUSE = 5.0
"""In a folder of its own, a pause ends a burst only where it is also longer than this many usual ones."""


@dataclass(frozen=True)
class FoundStack:
    """A stack below a folder.

    Attributes:
        name: of the folder that receives what becomes of it; slashes are those of the folders.
        source: the folder, the video, the TIFF whose pages are slices, or the shard.
        files: the names of its slices in the folder, where it is a burst of several.
        shard: where ``source`` is one (:mod:`sfdfd.datasets.shards`), of this stack alone.
    """

    name: str
    source: Path
    files: tuple[str, ...] | None = None
    shard: Shard | None = None

    @property
    def sample(self) -> str | None:
        """Its name in the shard."""
        return None if self.shard is None else next(iter(self.shard.stacks))

    def identity(self) -> list[Any]:
        """What changes when one of the files that the stack is read from does: the slices, their twins in another format,
        and what lies beside them and describes them."""
        folder = self.source.parent if self.source.is_file() else self.source
        files = [folder / name for name in DESCRIPTIONS]
        if self.source.is_file():
            files.append(self.source)
        else:
            stems = None if self.files is None else {Path(name).stem for name in self.files}
            files += [p for p in folder.iterdir() if _counts(p) and (stems is None or p.stem in stems)]
            files += [folder / name for name in _named_in(folder / "stack.yaml")]
        known: list[Any] = [file_identity(file) for file in sorted(set(files)) if file.is_file()]
        return known if self.sample is None else [*known, self.sample]

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The folder or video itself; of a shard, the stack as a folder, as long as the block lasts."""
        if self.shard is None or self.sample is None:
            yield self.source
            return
        with self.shard.unpacked(self.sample) as folder:
            yield folder


def _counts(path: Path) -> bool:
    """Whether a file may say something of a stack; what file managers leave does not."""
    return path.is_file() and not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini")


def _named_in(description: Path) -> list[str]:
    """The slices that a ``stack.yaml`` lists: they may lie in other folders. None where it cannot be read: reading the
    stack will say so."""
    try:
        content = yaml.safe_load(description.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return []
    names = content.get("files") if isinstance(content, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def stacks_below(
    root: Path, gap_s: float = 10.0, apart_from: Collection[Path] = ()
) -> tuple[list[FoundStack], list[str]]:
    """Every stack in a folder and the folders below it, and what was passed over, in words.

    A folder is a stack, unless its photographs (EXIF) were taken in several bursts of two or more: then each is one. The
    photographs that lie in ``root`` itself are a camera's roll: what stands alone there is passed over.

    Args:
        root: the folder.
        gap_s: seconds without a photograph that end a burst; below ``root``, where they are also five usual pauses.
        apart_from: folders that are not entered.

    Raises:
        InputError: no such folder, or no stack in it.
    """
    if not root.is_dir():
        raise InputError(f"stacks={root}: no such folder")
    found: list[FoundStack] = []
    passed: list[str] = []
    seen = {folder.resolve() for folder in apart_from}
    for folder in _folders(root, seen):
        name = "" if folder == root else folder.relative_to(root).as_posix()
        of_folder, not_found = _of_folder(folder, name, root, gap_s)
        found += of_folder
        passed += not_found
    if not found:
        raise InputError(
            f"stacks={root}: no folder with two or more photographs, no burst (two within {gap_s:g} s: burst_gap_s) and no "
            "video in it or below it"
        )
    return _told_apart(found), passed


def _folders(root: Path, seen: set[Path]) -> list[Path]:
    """The folder and those below it, each once, by name; hidden ones are passed over, and links are followed."""
    folders = []
    for place, below, _ in os.walk(root, followlinks=True):
        resolved = Path(place).resolve()
        if resolved in seen or (resolved / "prediction.json").is_file():  # what an earlier call left is no stack
            below.clear()
            continue
        seen.add(resolved)
        below[:] = sorted(name for name in below if not name.startswith("."))
        folders.append(Path(place))
    return folders


def _of_folder(folder: Path, name: str, root: Path, gap_s: float) -> tuple[list[FoundStack], list[str]]:
    """The stacks that lie in a folder itself, and what was passed over, in words."""
    found, passed = _of_shards(folder, name)
    pictures, _ = without_twins(list_images(folder))
    paged = [file for file in pictures if has_pages(file)]
    images = [file for file in pictures if file not in paged]
    videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    if len(paged) == 1 and not images:  # with the texts beside it
        found.append(FoundStack(name or paged[0].stem, folder))
    else:
        found += [FoundStack(_joined(name, file.stem), file) for file in paged]
    if not pictures:
        alone = len(videos) == 1 and bool(name)
        found += [FoundStack(name if alone else _joined(name, video.stem), video) for video in videos]
    elif images:
        described = any((folder / one).is_file() for one in DESCRIPTIONS)
        of_images, singles = (
            ([FoundStack(name or root.resolve().name, folder)], [])
            if described
            else _of_photographs(folder, name, images, root, gap_s)
        )
        names = tuple(file.name for file in images)
        found += [replace(one, files=names) if paged and one.files is None else one for one in of_images]
        passed += singles
    return found, passed


def _of_shards(folder: Path, name: str) -> tuple[list[FoundStack], list[str]]:
    found, passed = [], []
    for path in shard_files(folder):
        try:
            shard = Shard.of(path)
        except InputError as error:  # a tar file of something else
            passed.append(str(error))
            continue
        found += [FoundStack(_joined(name, one), path, shard=shard.only(one)) for one in shard.stacks]
    return found, passed


def _of_photographs(
    folder: Path, name: str, images: list[Path], root: Path, gap_s: float
) -> tuple[list[FoundStack], list[str]]:
    parts = bursts(images, gap_s, patient=folder != root)
    whole = len(parts) == 1
    if folder != root and any(len(part) < 2 for _, part in parts):
        whole = True  # the one that was taken later belongs to the folder's stack
    if whole:
        if len(images) < 2:
            return [], [f"{images[0]}: one photograph is no stack"]
        return [FoundStack(name or root.resolve().name, folder)], []
    found = [
        FoundStack(_joined(name, moment), folder, tuple(file.name for file in part))
        for moment, part in parts
        if len(part) > 1
    ]
    return found, [f"{part[0]}: one photograph is no stack" for _, part in parts if len(part) < 2]


def bursts(files: Sequence[Path], gap_s: float, patient: bool = False) -> list[tuple[str, list[Path]]]:
    """The bursts in which photographs were taken, in order: (date and time of the first, files by name).

    All are one burst where one of them does not say when it was taken.

    Args:
        files: photographs.
        gap_s: seconds without a photograph that end a burst.
        patient: only where they are five usual pauses, too: whoever focuses by hand takes his time.
    """
    moments = [(moment, file) for file in files if (moment := moment_of(file)) is not None]
    if len(moments) < len(files) or len(files) < 2:
        return [("", list(files))]
    moments.sort(key=lambda one: (one[0], files.index(one[1])))
    pauses = [(b - a).total_seconds() for (a, _), (b, _) in pairwise(moments)]
    limit = max(gap_s, LONGEST_PAUSE * statistics.median_low(pauses)) if patient else gap_s
    parts = [[moments[0]]]
    for pause, one in zip(pauses, moments[1:], strict=True):
        if pause > limit:
            parts.append([])
        parts[-1].append(one)
    return [
        (part[0][0].strftime("%Y-%m-%d_%H-%M-%S"), sorted((file for _, file in part), key=files.index))
        for part in parts
    ]


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


RESERVED = ("index.html", "index.json")
"""Files that many predictions share, beside the folders of the stacks."""


def _told_apart(found: list[FoundStack]) -> list[FoundStack]:
    """Give each stack a folder of its own. Of several that would share one, videos take their file's whole name
    (``IMG.mov``, ``IMG.mp4``), so that a name does not depend on which others are there; what is left is numbered."""
    found = [replace(one, name=readable(one.name)) for one in found]
    shared = Counter(_folded(one.name) for one in found)
    found = [_with_suffix(one) if shared[_folded(one.name)] > 1 else one for one in found]
    names = Counter(_folded(one.name) for one in found)
    taken = {_folded(name) for name in RESERVED}
    apart = []
    for one in found:
        name, number = one.name, 1
        while _folded(name) in taken or (number > 1 and _folded(name) in names):
            number += 1
            name = f"{one.name}_{number}"
        taken.add(_folded(name))
        apart.append(replace(one, name=name))
    return apart


def _folded(name: str) -> str:
    """Two names are one folder where this is the same: some file systems ignore case, and how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _with_suffix(one: FoundStack) -> FoundStack:
    """Named by the whole name of its video, where it was named by the video and not by a folder."""
    folder, _, last = one.name.rpartition("/")
    stem, whole = readable(one.source.stem), readable(one.source.name)
    if not one.source.is_file() or one.shard is not None or last != stem:
        return one
    return replace(one, name=_joined(folder, whole))
