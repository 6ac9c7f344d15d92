"""Bringing a data set from elsewhere: resumable downloads, checksums, archives kept inside their folder, folders that are
whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sfdfd.errors import InputError

__all__ = ["MANIFEST", "RemoteFile", "aside", "download", "extract", "is_archive", "opened", "read_manifest"]

MANIFEST = "manifest.json"
BLOCK = 1 << 20
Report = Callable[[int, "int | None"], None]
"""Called with what is done and what there is in all (None where nobody knows)."""


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


def download(file: RemoteFile, target: Path, report: Report, by_hand: str) -> None:
    """Fetch ``file`` into ``target``, continuing a part that an earlier try left, and check it.

    Raises:
        InputError: it cannot be had, or is not what it should be; says what to fetch by hand, where, and where to put it.
    """
    remedy = f"fetch {file.name} by hand ({by_hand}) and put it at {target}, or give it as source=PATH"
    if file.url is None:
        raise InputError(f"{file.name} has no direct link: {remedy}")
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    target.parent.mkdir(parents=True, exist_ok=True)
    total = None
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            continues = response.status == 206
            length = response.headers.get("Content-Length")
            total = int(length) + (done if continues else 0) if length else None
            done = done if continues else 0
            with part.open("ab" if continues else "wb") as stream:
                while block := response.read(BLOCK):
                    stream.write(block)
                    done += len(block)
                    report(done, total)
    except (OSError, http.client.HTTPException) as error:
        whole = getattr(error, "code", None) == 416 and error.headers.get("Content-Range") == f"bytes */{done}"
        if not whole:  # stopped between the last byte and the check
            raise InputError(f"could not download {file.url} ({error}); {remedy}") from None
    if total is not None and done != total:
        raise InputError(f"{file.url}: got {done} of {total} bytes; run the command again to continue")
    if file.sha256 is not None and (found := sha256_of(part)) != file.sha256:
        part.unlink()
        raise InputError(f"{file.url}: its checksum is {found}, expected {file.sha256}; {remedy}")
    part.replace(target)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_archive(path: Path) -> bool:
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise InputError(f"{archive}: its member {name!r} would land outside of the folder; nothing was unpacked")
    return path


def extract(archive: Path, folder: Path, report: Report = lambda done, total: None) -> None:
    """Unpack a zip or tar file; plain files and folders only, all of them inside ``folder``.

    Raises:
        InputError: no archive, a broken one, or a member that would leave the folder.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as content:
                members = [member for member in content.infolist() if not member.is_dir()]
                names = [_inside(member.filename, archive) for member in members]
                streams = (content.open(member) for member in members)
                _unpack(names, streams, folder, report)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as content:
                everything = content.getmembers()
                names_checked = [_inside(member.name, archive) for member in everything]
                pairs = [(m, n) for m, n in zip(everything, names_checked, strict=True) if m.isfile()]
                streams = (content.extractfile(member) for member, _ in pairs)
                _unpack([name for _, name in pairs], streams, folder, report)
        else:
            raise InputError(f"{archive}: neither a zip nor a tar file")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise InputError(f"{archive}: a broken archive ({error})") from None


def _unpack(names: list[PurePosixPath], streams: Iterator[Any], folder: Path, report: Report) -> None:
    for index, (name, stream) in enumerate(zip(names, streams, strict=True)):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, BLOCK)
        report(index + 1, len(names))


@contextlib.contextmanager
def opened(source: Path, scratch: Path, report: Report = lambda done, total: None) -> Iterator[Path]:
    """``source`` as a folder: itself, or an archive's content under ``scratch``, removed afterwards."""
    if source.is_dir():
        yield source
        return
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        extract(source, scratch, report)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_manifest(root: Path) -> dict[str, Any] | None:
    """What :func:`aside` wrote, or None."""
    path = root / MANIFEST
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not readable ({error}); remove {root} and prepare it again") from None


@contextlib.contextmanager
def aside(root: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """A folder beside ``root`` to write into; becomes ``root``, in one rename, when all went well.

    What the block adds to ``manifest`` is written as ``manifest.json``. A part that a killed run left is removed.
    """
    part = root.with_name(f".{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        (part / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if root.is_dir():
            root.rmdir()  # only an empty one
        part.rename(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)
