"""Stacks in shards: tar files in WebDataset's layout, so that a million stacks are a thousand files.

The files of a stack NAME are the members ``NAME.FILE`` of one shard: slices, ``stack.yaml``, truth. A slash in FILE is
written ``%2F``, since WebDataset's names have none. Any WebDataset reader can read them. Here, stacks are read by index at
their offset, so that sampling is the same as with folders.
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

__all__ = ["Shard", "ShardedStacks", "read_shards", "sources_digest", "write_shard"]

SUFFIX, SLASH = ".tar", "%2F"


@dataclass(frozen=True)
class Shard:
    """The index of one tar file.

    Attributes:
        path: the file.
        stacks: (file, offset, size in bytes) of each member, by stack name.
    """

    path: Path
    stacks: Mapping[str, tuple[tuple[str, int, int], ...]]

    @classmethod
    def of(cls, path: Path) -> Shard:
        """Read the index.

        Raises:
            InputError: it is not an uncompressed tar file, or its members are not those of stacks.
        """
        stacks: dict[str, list[tuple[str, int, int]]] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    name, _, file = member.name.partition(".")
                    if not member.isreg() or not name or not file or "/" in member.name or "\\" in member.name:
                        raise InputError(f"{path}: {member.name!r} is no member STACK.FILE of a shard of stacks")
                    stacks.setdefault(name, []).append((_decoded_path(file, path), member.offset_data, member.size))
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{path}: not a shard, an uncompressed tar file ({one_line(error)})") from None
        return cls(path, {name: tuple(files) for name, files in stacks.items()})

    def unpack(self, name: str, folder: Path, files: Collection[str] | None = None) -> Path:
        """Write a stack, or some files of it, to ``folder/NAME`` and return that path.

        Raises:
            InputError: there is no stack of this name, or the file is truncated.
        """
        if name not in self.stacks:
            raise InputError(f"{self.path}: no stack {name!r} in it")
        target = folder / name
        target.mkdir(parents=True)
        with self.path.open("rb") as tar:
            for file, offset, size in self.stacks[name]:
                if files is not None and file not in files:
                    continue
                tar.seek(offset)
                content = tar.read(size)
                if len(content) < size:
                    raise InputError(f"{self.path}: it ends before {name}.{file}; pack it again")
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                (target / file).write_bytes(content)
        return target

    @contextmanager
    def unpacked(self, name: str, files: Collection[str] | None = None) -> Iterator[Path]:
        """Yield a stack, or some files of it, as a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="sfdfd_") as folder:
            yield self.unpack(name, Path(folder), files)

    def restricted_to(self, name: str) -> Shard:
        """Return an index of one stack only."""
        return Shard(self.path, {name: self.stacks[name]})


def shard_files(folder: Path) -> list[Path]:
    """Return the files in a folder that may be shards, sorted."""
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith(".")]


def _decoded_path(name: str, shard: Path) -> str:
    """Decode a member's FILE to a path below the stack's folder.

    Raises:
        InputError: the path would leave the folder.
    """
    path = name.replace(SLASH, "/").replace("%25", "%")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InputError(f"{shard}: {name!r} is no path below a stack's folder")
    return path


def read_shards(root: Path) -> list[Shard]:
    """Read the indices of the shards in a folder, sorted by name.

    Raises:
        InputError: there is no such folder, no shard in it, or two stacks have the same name.
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
    """Return the files of a stack that go into a shard, as sorted paths below its folder; without hidden ones."""
    relative = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
    return [path for path in relative if not any(part.startswith(".") for part in path.parts)]


def sources_digest(folders: Sequence[Path]) -> str:
    """Hash names, sizes and modification times of the files of a shard; moving all folders together does not change it."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in _packed_files(folder):
            _, *facts = file_identity(folder / path)
            digest.update(json.dumps([folder.name, path.as_posix(), *facts]).encode())
    return digest.hexdigest()


def write_shard(path: Path, folders: Sequence[Path]) -> int:
    """Pack stack folders into one shard, atomically, and return its size in bytes. Names may be long (PAX format).

    Raises:
        InputError: a name has a dot, at which WebDataset would cut it.
    """
    with atomic_write(path) as part:
        with tarfile.open(part, "w:", format=tarfile.PAX_FORMAT) as tar:
            for folder in folders:
                if "." in folder.name:
                    raise InputError(f"{folder}: a point in its name; WebDataset cuts names there. Rename the folder")
                for path_inside in _packed_files(folder):
                    file = folder / path_inside
                    name = path_inside.as_posix().replace("%", "%25").replace("/", SLASH)
                    member = tarfile.TarInfo(
                        f"{folder.name}.{name}"
                    )  # without times and owners, so that bytes are reproducible
                    member.size = file.stat().st_size
                    with file.open("rb") as content:
                        tar.addfile(member, content)
        size = part.stat().st_size
    return size


class ShardedStacks(Dataset):
    """The stacks of shards.

    Args:
        shards: of one folder (:func:`read_shards`).
        names: stacks to use, in this order; all by default.
        read: reads a stack from a folder.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        names: Sequence[str] | None = None,
        read: Callable[[Path], FocalStack] = read_stack,
    ) -> None:
        self.read = read
        shard_of = {name: shard for shard in shards for name in shard.stacks}
        missing = [name for name in names or [] if name not in shard_of]
        if missing:
            root = shards[0].path.parent
            raise InputError(f"{root}: the split names {len(missing)} stacks that are in no shard, first {missing[0]}")
        self.stacks = [(name, shard_of[name]) for name in (shard_of if names is None else names)]

    def __len__(self) -> int:
        return len(self.stacks)

    def identity(self, index: int) -> list[Any]:
        """Return what the sample depends on: its shard."""
        name, shard = self.stacks[index]
        return [file_identity(shard.path), name]

    def __getitem__(self, index: int) -> FocalStack:
        name, shard = self.stacks[index]
        with shard.unpacked(name) as folder:
            return self.read(folder)
