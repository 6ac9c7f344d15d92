"""Archives: unpacked whole or not at all, and nowhere but inside their folder."""

from __future__ import annotations

import contextlib
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sfdfd.errors import InputError, one_line
from sfdfd.io.files import BLOCK, Report

__all__ = ["extract", "is_archive", "opened"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_MEMBERS = 1_000_000


@dataclass(frozen=True)
class _Member:
    """A file of an archive: where it goes, its size in bytes, and how its content is read."""

    name: PurePosixPath
    size: int
    encrypted: bool
    open: Callable[[], Any]


class _StrictTarInfo(tarfile.TarInfo):
    """A broken header ends a tar file silently in tarfile; here only its end mark does."""

    @classmethod
    def fromtarfile(cls, file: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(file)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # typeshed does not know it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"at byte {file.offset}: {error}") from None


def is_archive(path: Path) -> bool:
    """Whether it is a zip or tar file, by its content."""
    return path.is_file() and (_is_tar(path) or zipfile.is_zipfile(path))


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except Exception:  # of what only looks like a compressed one, the readers raise whatever they like
        return False


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and re.match("[A-Za-z]:", path.parts[0])):
        raise InputError(f"{archive}: its member {name!r} would land outside of the folder; nothing was unpacked")
    return path


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """The files of an archive; all that goes wrong while they are read is an InputError that names it."""
    remedy = "fetch it again, or unpack it by other means and give source=FOLDER"
    try:
        # tar first: a zip that lies in a tar file makes that look like a zip
        if _is_tar(archive):
            with tarfile.open(archive, tarinfo=_StrictTarInfo) as content:
                entries: list[tarfile.TarInfo] = []
                for entry in content:
                    if entry.size < 0 or len(entries) == MOST_MEMBERS:
                        raise InputError(
                            f"{archive}: expected at most {MOST_MEMBERS} members of size 0 or more; {remedy}"
                        )
                    entries.append(entry)
                while content.fileobj is not None and content.fileobj.read(
                    BLOCK
                ):  # the checksum of a compressed one stands at its end
                    pass
                kinds = [True if entry.isfile() else False if entry.isdir() else None for entry in entries]
                names = _checked_names(archive, [entry.name for entry in entries], kinds)
                files = [entry for entry in entries if entry.isfile()]
                yield [
                    _Member(name, file.size, False, lambda file=file: content.extractfile(file))
                    for name, file in zip(names, files, strict=True)
                ]
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as content:
                listed = content.infolist()
                if _entries_said(archive) not in (None, len(listed) % 0x10000):
                    raise zipfile.BadZipFile(f"only {len(listed)} members can be read")
                if len(listed) > MOST_MEMBERS:
                    raise InputError(f"{archive}: expected at most {MOST_MEMBERS} members, got {len(listed)}; {remedy}")
                names = _checked_names(archive, [one.filename for one in listed], [not one.is_dir() for one in listed])
                zipped = [one for one in listed if not one.is_dir()]
                yield [
                    _Member(name, one.file_size, bool(one.flag_bits & 1), lambda one=one: content.open(one))
                    for name, one in zip(names, zipped, strict=True)
                ]
        else:
            raise InputError(f"{archive}: neither a zip nor a tar file, or a broken one; {remedy}")
    except InputError:
        raise
    except Exception as error:  # the readers raise whatever they like on broken archives
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{archive}: could not be unpacked ({one_line(error)})") from None
        raise InputError(f"{archive}: a broken archive, or of an unknown kind ({one_line(error)}); {remedy}") from None


def _entries_said(archive: Path) -> int | None:
    """The number of members in a zip file's end record (16 bits), None where a larger one is kept elsewhere (zip64)."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - 0x10000 - 22))
        end = file.read()
    found = end.rfind(b"PK\x05\x06")
    said = int.from_bytes(end[found + 10 : found + 12], "little") if found >= 0 else 0xFFFF
    return None if said == 0xFFFF else said


def _checked_names(archive: Path, names: Sequence[str], kinds: Sequence[bool | None]) -> list[PurePosixPath]:
    """Those of files (kind True, False for folders, None for what is passed over), each with a place of its own."""
    files: dict[PurePosixPath, None] = {}
    folders = {PurePosixPath()}
    for name, kind in zip(names, kinds, strict=True):
        path = _inside(name, archive)
        if kind and path in files:
            raise InputError(f"{archive}: has two members {name!r}; nothing was unpacked")
        if kind:
            files[path] = None
        if kind is not None:
            folders.update((*path.parents, *([] if kind else [path])))
    for path in files:
        if path in folders:
            raise InputError(f"{archive}: its member {str(path)!r} is both a file and a folder; nothing was unpacked")
    if not files:
        raise InputError(f"{archive}: an archive without files")
    return list(files)


def extract(archive: Path, folder: Path, report: Report = lambda done, total: None) -> None:
    """Unpack a zip or tar file into ``folder``, which is not there yet, and is there afterwards only with all of it.

    Plain files and folders only, all of them inside ``folder``; links are passed over.

    Raises:
        InputError: no archive, a broken or encrypted one, more than there is room for, two members in one place, or a
            member that would leave the folder.
    """
    with _members(archive) as members:
        _unpack(archive, members, folder, report)


def _unpack(archive: Path, members: Sequence[_Member], folder: Path, report: Report) -> None:
    for member in members:
        if member.encrypted:
            raise InputError(f"{archive}: {member.name} is encrypted; unpack it by other means and give source=FOLDER")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        needed, free = sum(member.size for member in members), shutil.disk_usage(part).free
        if needed > free:
            raise InputError(f"{archive}: holds {needed} bytes, but {folder.parent} has room for {free}; make room")
        for index, member in enumerate(members):
            target = part / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as stream, target.open("xb") as file:
                shutil.copyfileobj(stream, file, BLOCK)
            report(index + 1, len(members))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _lies_in(folder: Path, members: Iterable[_Member]) -> bool:
    places = ((folder / member.name, member.size) for member in members)
    return all(place.is_file() and place.stat().st_size == size for place, size in places)


@contextlib.contextmanager
def opened(paths: Sequence[Path], scratch: Path, report: Report = lambda done, total: None) -> Iterator[list[Path]]:
    """Folders and archives as folders: a folder itself, followed by the content of each archive that lies directly in it
    (told by their names, passed over where it lies unpacked beside the archive or in a folder of the archive's name), and
    an archive's content in a folder of its name. What is unpacked lies under ``scratch``, which is removed afterwards.

    Raises:
        InputError: as :func:`extract` does, or a path that is not there.
    """
    folders: list[Path] = []
    try:
        for path in paths:
            archives: list[Path] = [path]
            places: tuple[Path, ...] = ()
            if path.is_dir():
                folders.append(path)
                archives, places = _archives_in(path), (path,)
            elif not path.is_file():
                raise InputError(f"source={path}: no such file or folder")
            for archive in archives:
                with _members(archive) as members:
                    beside = (*places, *(place / _stem(archive) for place in places))
                    if any(_lies_in(place, members) for place in beside):
                        continue
                    folders.append(scratch / str(len(folders)) / _stem(archive))
                    _unpack(archive, members, folders[-1], report)
        yield folders
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _archives_in(folder: Path) -> list[Path]:
    try:
        found = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(ARCHIVE_SUFFIXES)]
        return [path for path in found if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"source={folder}: not readable ({error.strerror})") from None


def _stem(archive: Path) -> str:
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if archive.name.lower().endswith(suffix)]
    return archive.name[: -max(map(len, suffixes))] if suffixes else archive.stem
