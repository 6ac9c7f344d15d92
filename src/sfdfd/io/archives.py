"""Unpack zip and tar files: completely or not at all, and only inside their target folder."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sfdfd.errors import InputError, one_line
from sfdfd.io.files import BLOCK, Report

__all__ = ["extract", "is_archive", "opened"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_MEMBERS = 1_000_000
REMEDY = "fetch it again, or unpack it by other means and give source=FOLDER"


@dataclass(frozen=True)
class _Member:
    """An entry of an archive: its name, its size in bytes, and how its content is read. Links are of the kind "other"."""

    name: str
    kind: Literal["file", "folder", "other"]
    size: int
    open: Callable[[], Any]
    encrypted: bool = False

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.name.replace("\\", "/"))

    def leaves_folder(self) -> bool:
        path = self.path
        return path.is_absolute() or ".." in path.parts or bool(path.parts and re.match("[A-Za-z]:", path.parts[0]))


class _StrictTarInfo(tarfile.TarInfo):
    """Refuse broken headers: tarfile takes one for the end of the file."""

    @classmethod
    def fromtarfile(cls, file: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(file)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # typeshed does not know it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"at byte {file.offset}: {error}") from None


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or tar file, by its content."""
    return path.is_file() and (_is_tar(path) or zipfile.is_zipfile(path))


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except Exception:  # files that only look compressed make the readers raise anything
        return False


@contextlib.contextmanager
def _opened_files(archive: Path) -> Iterator[list[_Member]]:
    """Open an archive and list its files; every error of the readers becomes an InputError that names it."""
    try:
        # tar first: a tar file that holds a zip looks like a zip
        if _is_tar(archive):
            with tarfile.open(archive, tarinfo=_StrictTarInfo) as tar:
                yield _checked_files(archive, _tar_members(archive, tar))
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield _checked_files(archive, _zip_members(archive, zipped))
        else:
            raise InputError(f"{archive}: neither a zip nor a tar file, or a broken one; {REMEDY}")
    except InputError:
        raise
    except Exception as error:  # the readers raise anything on broken archives
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{archive}: could not be unpacked ({one_line(error)})") from None
        raise InputError(f"{archive}: a broken archive, or of an unknown kind ({one_line(error)}); {REMEDY}") from None


def _tar_members(archive: Path, tar: tarfile.TarFile) -> list[_Member]:
    entries: list[tarfile.TarInfo] = []
    for entry in tar:
        if entry.size < 0 or len(entries) == MOST_MEMBERS:
            raise InputError(f"{archive}: expected at most {MOST_MEMBERS} members of size 0 or more; {REMEDY}")
        entries.append(entry)
    while tar.fileobj is not None and tar.fileobj.read(BLOCK):
        pass  # the checksum of a compressed file is at its end
    return [
        _Member(
            entry.name,
            "file" if entry.isfile() else "folder" if entry.isdir() else "other",
            entry.size,
            functools.partial(tar.extractfile, entry),
        )
        for entry in entries
    ]


def _zip_members(archive: Path, zipped: zipfile.ZipFile) -> list[_Member]:
    entries = zipped.infolist()
    if _recorded_entries(archive) not in (None, len(entries) % 0x10000):
        raise zipfile.BadZipFile(f"only {len(entries)} members can be read")
    if len(entries) > MOST_MEMBERS:
        raise InputError(f"{archive}: expected at most {MOST_MEMBERS} members, got {len(entries)}; {REMEDY}")
    return [
        _Member(
            entry.filename,
            "folder" if entry.is_dir() else "file",
            entry.file_size,
            functools.partial(zipped.open, entry),
            encrypted=bool(entry.flag_bits & 1),
        )
        for entry in entries
    ]


def _recorded_entries(archive: Path) -> int | None:
    """Return the number of entries in a zip file's end record (16 bits), or None if zip64 keeps it elsewhere."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - 0x10000 - 22))
        end = file.read()
    start = end.rfind(b"PK\x05\x06")
    number = int.from_bytes(end[start + 10 : start + 12], "little") if start >= 0 else 0xFFFF
    return None if number == 0xFFFF else number


def _checked_files(archive: Path, members: Sequence[_Member]) -> list[_Member]:
    """Return the files among the members, after checking that each has a path of its own inside the folder."""
    files: dict[PurePosixPath, _Member] = {}
    folders = {PurePosixPath()}
    for member in members:
        path = member.path
        if member.leaves_folder():
            raise InputError(
                f"{archive}: its member {member.name!r} would land outside of the folder; nothing was unpacked"
            )
        if member.kind == "file":
            if path in files:
                raise InputError(f"{archive}: has two members {member.name!r}; nothing was unpacked")
            files[path] = member
        elif member.kind == "folder":
            folders.add(path)
        if member.kind != "other":
            folders.update(path.parents)
    for path in files:
        if path in folders:
            raise InputError(f"{archive}: its member {str(path)!r} is both a file and a folder; nothing was unpacked")
    if not files:
        raise InputError(f"{archive}: an archive without files")
    return list(files.values())


def extract(archive: Path, folder: Path, report: Report = lambda done, total: None) -> None:
    """Unpack a zip or tar file into ``folder``, which must not exist yet and exists afterwards only if complete.

    Only plain files and folders inside ``folder`` are written; links are skipped.

    Raises:
        InputError: the file is no archive, broken or encrypted; the disk is too full; two members share a path; or a
            member would leave the folder.
    """
    with _opened_files(archive) as files:
        _unpack(archive, files, folder, report)


def _unpack(archive: Path, files: Sequence[_Member], folder: Path, report: Report) -> None:
    for file in files:
        if file.encrypted:
            raise InputError(f"{archive}: {file.path} is encrypted; unpack it by other means and give source=FOLDER")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        needed, free = sum(file.size for file in files), shutil.disk_usage(part).free
        if needed > free:
            raise InputError(f"{archive}: holds {needed} bytes, but {folder.parent} has room for {free}; make room")
        for index, file in enumerate(files):
            target = part / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open() as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink, BLOCK)
            report(index + 1, len(files))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_unpacked_in(folder: Path, files: Iterable[_Member]) -> bool:
    targets = ((folder / file.path, file.size) for file in files)
    return all(target.is_file() and target.stat().st_size == size for target, size in targets)


@contextlib.contextmanager
def opened(paths: Sequence[Path], scratch: Path, report: Report = lambda done, total: None) -> Iterator[list[Path]]:
    """Yield folders for a mix of folders and archives; archives are unpacked under ``scratch``, which is removed afterwards.

    A folder is followed by the content of each archive directly inside it (recognized by name). Such an archive is skipped
    if it is already unpacked there, beside it or in a folder of its name. An archive becomes a folder of its name.

    Raises:
        InputError: as :func:`extract` does, or a path does not exist.
    """
    folders: list[Path] = []
    try:
        for path in paths:
            archives: list[Path] = [path]
            is_folder = path.is_dir()
            if is_folder:
                folders.append(path)
                archives = _archives_in(path)
            elif not path.is_file():
                raise InputError(f"source={path}: no such file or folder")
            for archive in archives:
                with _opened_files(archive) as files:
                    if is_folder and any(_is_unpacked_in(target, files) for target in (path, path / _stem(archive))):
                        continue
                    folders.append(scratch / str(len(folders)) / _stem(archive))
                    _unpack(archive, files, folders[-1], report)
        yield folders
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _archives_in(folder: Path) -> list[Path]:
    try:
        named = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(ARCHIVE_SUFFIXES)]
        return [path for path in named if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"source={folder}: not readable ({error.strerror})") from None


def _stem(archive: Path) -> str:
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if archive.name.lower().endswith(suffix)]
    return archive.name[: -max(map(len, suffixes))] if suffixes else archive.stem
