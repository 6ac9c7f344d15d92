"""Stacks in shards: tar files in WebDataset's layout, so that a million stacks are a thousand files.

A stack NAME is the members ``NAME.FILE`` of one shard, FILE being the files of its folder (slices, ``stack.yaml``, truth;
a slash is written ``%2F``, as WebDataset's names have none).
Any program that knows WebDataset reads them; here a stack is found by its place, so that sampling is that of folders.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError, one_line
from sfdfd.io.files import atomic_write, file_identity
from sfdfd.stack import FocalStack

__all__ = ["Shard", "ShardedStacks", "shards_below", "sources_digest", "write_shard"]

SUFFIX, SLASH = ".tar", "%2F"


@dataclass(frozen=True)
class Shard:
    """An index of one tar file.

    Attributes:
        path: the file.
        stacks: by name, (file, place, size) of each member.
    """

    path: Path
    stacks: Mapping[str, tuple[tuple[str, int, int], ...]]

    @classmethod
    def of(cls, path: Path) -> Shard:
        """Read the index.

        Raises:
            InputError: no tar file, a compressed one, or members that are no stacks'.
        """
        stacks: dict[str, list[tuple[str, int, int]]] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    name, _, file = member.name.partition(".")
                    if not member.isreg() or not name or not file or "/" in member.name or "\\" in member.name:
                        raise InputError(f"{path}: {member.name!r} is no member STACK.FILE of a shard of stacks")
                    stacks.setdefault(name, []).append((_path_in(file, path), member.offset_data, member.size))
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{path}: not a shard, an uncompressed tar file ({one_line(error)})") from None
        return cls(path, {name: tuple(files) for name, files in stacks.items()})

    def unpack(self, name: str, folder: Path, files: Collection[str] | None = None) -> Path:
        """Write a stack, or only these files of it, as a folder below ``folder``; its path.

        Raises:
            InputError: there is none of this name, or the file ends before it.
        """
        if name not in self.stacks:
            raise InputError(f"{self.path}: no stack {name!r} in it")
        target = folder / name
        target.mkdir(parents=True)
        with self.path.open("rb") as tar:
            for file, place, size in self.stacks[name]:
                if files is not None and file not in files:
                    continue
                tar.seek(place)
                content = tar.read(size)
                if len(content) < size:
                    raise InputError(f"{self.path}: it ends before {name}.{file}; pack it again")
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                (target / file).write_bytes(content)
        return target

    @contextmanager
    def unpacked(self, name: str, files: Collection[str] | None = None) -> Iterator[Path]:
        """A stack, or only these files of it, as a folder as long as the block lasts."""
        with tempfile.TemporaryDirectory(prefix="sfdfd_") as folder:
            yield self.unpack(name, Path(folder), files)

    def only(self, name: str) -> Shard:
        """The index of one stack alone."""
        return Shard(self.path, {name: self.stacks[name]})


def shard_files(folder: Path) -> list[Path]:
    """The files in a folder that may be shards, by name."""
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith(".")]


def _path_in(name: str, shard: Path) -> str:
    """The file's path below its stack's folder.

    Raises:
        InputError: it would lie elsewhere.
    """
    path = name.replace(SLASH, "/").replace("%25", "%")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InputError(f"{shard}: {name!r} is no path below a stack's folder")
    return path


def shards_below(root: Path) -> list[Shard]:
    """The shards in a folder, by name.

    Raises:
        InputError: there is no such folder, none in it, or two stacks of one name.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder (data.root)")
    shards = [Shard.of(path) for path in shard_files(root)]
    if not shards:
        raise InputError(
            f"{root}: no shards (*{SUFFIX}) in it; `python -m sfdfd.shard stacks=DIR` makes them (data.root)"
        )
    seen: dict[str, Path] = {}
    for shard in shards:
        for name in shard.stacks:
            if name in seen:
                raise InputError(f"{shard.path}: the stack {name!r} is in {seen[name]}, too")
            seen[name] = shard.path
    return shards


def _packed_files(folder: Path) -> list[Path]:
    """The files of a stack that a shard takes, as paths below its folder, in order; hidden ones stay behind."""
    inside = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
    return [path for path in inside if not any(part.startswith(".") for part in path.parts)]


def sources_digest(folders: Sequence[Path]) -> str:
    """Return a digest of what a shard of these folders is made from: it changes when a stack or a file comes, goes or
    changes (by size and time of modification), and stays when the folders move as a whole."""
    digest = hashlib.sha256()
    for folder in folders:
        for inside in _packed_files(folder):
            _, *facts = file_identity(folder / inside)
            digest.update(json.dumps([folder.name, inside.as_posix(), *facts]).encode())
    return digest.hexdigest()


def write_shard(path: Path, folders: Sequence[Path]) -> int:
    """Pack stack folders into one shard, whole or not at all; the number of bytes. Names of any length are kept (PAX).

    Raises:
        InputError: a name that WebDataset would cut.
    """
    with atomic_write(path) as part:
        with tarfile.open(part, "w:", format=tarfile.PAX_FORMAT) as tar:
            for folder in folders:
                if "." in folder.name:
                    raise InputError(f"{folder}: a point in its name; WebDataset cuts names there. Rename the folder")
                for inside in _packed_files(folder):
                    file = folder / inside
                    name = inside.as_posix().replace("%", "%25").replace("/", SLASH)
                    member = tarfile.TarInfo(f"{folder.name}.{name}")  # no times, no owners: the same bytes again
                    member.size = file.stat().st_size
                    with file.open("rb") as content:
                        tar.addfile(member, content)
        size = part.stat().st_size
    return size


class ShardedStacks(Dataset):
    """The stacks of shards; each is read where it lies.

    Args:
        shards: of one folder (:func:`shards_below`); reading their indices is most of the work of opening a large set.
        names: the stacks to take, in this order; all by default.
        read: makes a stack of a folder.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        names: Sequence[str] | None = None,
        read: Callable[[Path], FocalStack] = read_stack,
    ) -> None:
        self.read = read
        places = {name: shard for shard in shards for name in shard.stacks}
        missing = [name for name in names or [] if name not in places]
        if missing:
            where = shards[0].path.parent
            raise InputError(f"{where}: the split names {len(missing)} stacks that are in no shard, first {missing[0]}")
        self.places = [(name, places[name]) for name in (places if names is None else names)]

    def __len__(self) -> int:
        return len(self.places)

    def identity(self, index: int) -> list[Any]:
        """What the sample is made from: its members of the shard."""
        name, shard = self.places[index]
        return [file_identity(shard.path), name]

    def __getitem__(self, index: int) -> FocalStack:
        name, shard = self.places[index]
        with shard.unpacked(name) as folder:
            return self.read(folder)
