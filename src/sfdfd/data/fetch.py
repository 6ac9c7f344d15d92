"""Bringing a data set from elsewhere: resumable downloads, checksums, archives kept inside their folder, folders that are
whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any

from sfdfd.data.files import as_json, write_json
from sfdfd.errors import InputError, one_line

__all__ = [
    "MANIFEST",
    "RemoteFile",
    "Report",
    "agreed",
    "aside",
    "check_vacant",
    "continued",
    "download",
    "extract",
    "finish",
    "half_made",
    "is_archive",
    "opened",
    "read_manifest",
]

MANIFEST = "manifest.json"
PLAN = "plan.json"
"""Of a half that takes long: what it is made with."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BLOCK = 1 << 20
MOST_MEMBERS = 1_000_000
Report = Callable[[int, "int | None"], None]
"""Called with what is done and what there is in all (None where nobody knows)."""


# ---------------------------------------------------------------- downloads


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        name: under which it is stored.
        url: where it can be had without asking anybody; None where it must be fetched by hand.
        sha256: of its content, where it is known.
    """

    name: str
    url: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class _Version:
    """What tells one version of a remote file from another; None is what the server does not say."""

    etag: str | None = None
    modified: str | None = None
    size: int | None = None

    @classmethod
    def said_by(cls, headers: Message, size: int | None) -> _Version:
        return cls(headers.get("ETag"), headers.get("Last-Modified"), size)

    @property
    def validator(self) -> str | None:
        """For ``If-Range``: the ETag, unless it is a weak one, else the date (RFC 9110, 13.1.5)."""
        return self.modified if self.etag is None or self.etag.startswith("W/") else self.etag

    def differs(self, other: _Version) -> bool:
        """Whether something that both know is not the same."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return any(mine is not None and theirs is not None and mine != theirs for mine, theirs in pairs)


@dataclass(frozen=True)
class _Part:
    """What is there of a download, with a note of the version it belongs to."""

    path: Path
    note: Path
    url: str

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> _Version:
        try:
            content = json.loads(self.note.read_text(encoding="utf-8"))
            version = _Version(**content["version"])
            sound = all(isinstance(said, str | None) for said in (version.etag, version.modified))
            return version if sound and content["url"] == self.url else _Version()
        except (OSError, ValueError, TypeError, KeyError):
            return _Version()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def start(self, version: _Version) -> None:
        self.discard()
        write_json(self.note, {"url": self.url, "version": asdict(version)})


def download(file: RemoteFile, target: Path, report: Report, by_hand: str) -> None:
    """Fetch ``file`` into ``target``, continuing a part that an earlier try left, and check it.

    ``TARGET.part`` is what is there so far, ``TARGET.part.json`` the ETag or date of the version that it belongs to. It is
    continued where the server confirms that version, or where a checksum will tell; else the download starts afresh.

    Raises:
        InputError: it cannot be had, or is not what it should be; says what to fetch by hand, where, and where to put it.
    """
    remedy = f"fetch {file.name} by hand ({by_hand}) and put it at {target}, or give it as source=PATH"
    if file.url is None:
        raise InputError(f"{file.name} has no direct link: {remedy}")
    part = _Part(target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json"), file.url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        continued = True
        while continued:
            continued = _bring(file, part, report)
            if file.sha256 is None or (found := sha256_of(part.path)) == file.sha256:
                break
            part.discard()
            if not continued:
                raise InputError(f"{file.url}: its checksum is {found}, expected {file.sha256}; {remedy}")
        part.path.replace(target)
        part.note.unlink(missing_ok=True)
    except InputError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"could not download {file.url} ({one_line(error)}); {remedy}") from None


def _bring(file: RemoteFile, part: _Part, report: Report) -> bool:
    """Fill the part; whether it continued what was there."""
    done, known = part.size(), part.version()
    if done and (known.validator or file.sha256):
        wanted = {"Range": f"bytes={done}-", **({"If-Range": known.validator} if known.validator else {})}
        try:
            with _ask(part.url, wanted) as response:
                if response.status != 206:
                    _receive(response, part, 0, _number(response.headers.get("Content-Length")), report)
                    return False
                first, total = _content_range(response.headers)
                if first == done and not known.differs(_Version.said_by(response.headers, total)):
                    length = _number(response.headers.get("Content-Length"))
                    _receive(response, part, done, total or (None if length is None else done + length), report)
                    return True
        except urllib.error.HTTPError as error:
            with error:
                _, total = _content_range(error.headers)
                if error.code != 416:
                    raise
                # stopped between the last byte and the rename, or a part of something else
                if file.sha256 is not None:
                    whole = sha256_of(part.path) == file.sha256
                else:
                    whole = total == done and not known.differs(_Version.said_by(error.headers, total))
                if whole:
                    return True
    part.discard()
    with _ask(part.url, {}) as response:
        if response.status == 206:
            raise OSError("the server sends a part of the file where all of it was asked for")
        _receive(response, part, 0, _number(response.headers.get("Content-Length")), report)
    return False


def _ask(url: str, headers: dict[str, str]) -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)


def _receive(response: Any, part: _Part, done: int, total: int | None, report: Report) -> None:
    if not done:
        part.start(_Version.said_by(response.headers, total))
    with part.path.open("ab" if done else "wb") as stream:
        while block := response.read(BLOCK):
            stream.write(block)
            done += len(block)
            report(done, total)
    if total is not None and done != total:
        remedy = "run the command again" + (" to continue" if part.version().validator else "")
        raise InputError(f"{part.url}: got {done} of {total} bytes; {remedy}")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text.strip()) else None


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and size of the whole, each None where it is not said."""
    match = re.fullmatch(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+|\*)", (headers.get("Content-Range") or "").strip())
    return (None, None) if match is None else (_number(match[1]), _number(match[2]))


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------- archives


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
    def fromtarfile(cls, file: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(file)
        except tarfile.EOFHeaderError:
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
                entries = []
                for entry in content:
                    if entry.size < 0 or len(entries) == MOST_MEMBERS:
                        raise InputError(
                            f"{archive}: expected at most {MOST_MEMBERS} members of size 0 or more; {remedy}"
                        )
                    entries.append(entry)
                while content.fileobj.read(BLOCK):  # the checksum of a compressed one stands at its end
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
                entries = content.infolist()
                if _entries_said(archive) not in (None, len(entries) % 0x10000):
                    raise zipfile.BadZipFile(f"only {len(entries)} members can be read")
                if len(entries) > MOST_MEMBERS:
                    raise InputError(
                        f"{archive}: expected at most {MOST_MEMBERS} members, got {len(entries)}; {remedy}"
                    )
                kinds = [not entry.is_dir() for entry in entries]
                names = _checked_names(archive, [entry.filename for entry in entries], kinds)
                files = [entry for entry in entries if not entry.is_dir()]
                yield [
                    _Member(name, file.file_size, bool(file.flag_bits & 1), lambda file=file: content.open(file))
                    for name, file in zip(names, files, strict=True)
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
            archives, places = [path], ()
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


# ---------------------------------------------------------------- folders


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
    try:
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
        raise InputError(f"{part} holds the whole data set, but not its {MANIFEST} ({one_line(error)})") from None
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
    try:
        return None if half is None else dict(json.loads((half / PLAN).read_text(encoding="utf-8")))
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
    (part / PLAN).unlink()
    _complete(part, place, manifest)
