"""Resumable downloads with checksums."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError, one_line
from sfdfd.io.files import BLOCK, Report, write_json

__all__ = ["RemoteFile", "download"]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        name: the name under which it is stored.
        url: a public link; None if the file must be fetched by hand.
        sha256: checksum of its content; None if it is unknown.
    """

    name: str
    url: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class _Version:
    """What distinguishes versions of a remote file; None for what the server does not send."""

    etag: str | None = None
    modified: str | None = None
    size: int | None = None

    @classmethod
    def from_headers(cls, headers: Message, size: int | None) -> _Version:
        return cls(headers.get("ETag"), headers.get("Last-Modified"), size)

    @property
    def validator(self) -> str | None:
        """The value of ``If-Range``: the ETag unless it is weak, else the date (RFC 9110, 13.1.5)."""
        return self.modified if self.etag is None or self.etag.startswith("W/") else self.etag

    def differs(self, other: _Version) -> bool:
        """Return whether any field that both have is different."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return any(mine is not None and theirs is not None and mine != theirs for mine, theirs in pairs)


@dataclass(frozen=True)
class _Part:
    """An unfinished download, with a note of the version that it belongs to."""

    path: Path
    note: Path
    url: str

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> _Version:
        try:
            content = json.loads(self.note.read_text(encoding="utf-8"))
            version = _Version(**content["version"])
            is_valid = isinstance(version.etag, str | None) and isinstance(version.modified, str | None)
            return version if is_valid and content["url"] == self.url else _Version()
        except (OSError, ValueError, TypeError, KeyError):
            return _Version()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def start(self, version: _Version) -> None:
        self.discard()
        write_json(self.note, {"url": self.url, "version": asdict(version)})


def download(file: RemoteFile, target: Path, report: Report, by_hand: str) -> None:
    """Download ``file`` to ``target``, resume an earlier try, and verify the checksum.

    ``TARGET.part`` holds what has arrived, ``TARGET.part.json`` the ETag or date of its version. The download is resumed if
    the server confirms that version, or if a checksum can decide; otherwise it starts again.

    Raises:
        InputError: the file is not available or not the expected one; the message says what to fetch by hand (from
            ``by_hand``) and where to put it.
    """
    remedy = f"fetch {file.name} by hand ({by_hand}) and put it at {target}, or give it as source=PATH"
    if file.url is None:
        raise InputError(f"{file.name} has no direct link: {remedy}")
    part = _Part(target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json"), file.url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        resumed = True
        while resumed:
            resumed = _fill(file, part, report)
            if file.sha256 is None or (checksum := sha256_of(part.path)) == file.sha256:
                break
            part.discard()
            if not resumed:
                raise InputError(f"{file.url}: its checksum is {checksum}, expected {file.sha256}; {remedy}")
        part.path.replace(target)
        part.note.unlink(missing_ok=True)
    except InputError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"could not download {file.url} ({one_line(error)}); {remedy}") from None


def _fill(file: RemoteFile, part: _Part, report: Report) -> bool:
    """Download into ``part``; return whether bytes of an earlier try were kept."""
    version = part.version()
    if part.size() and (version.validator or file.sha256):
        kept = _resume(file, part, version, report)
        if kept is not None:
            return kept
    part.discard()
    with _request(part.url, {}) as response:
        if response.status == 206:
            raise OSError("the server sends a part of the file instead of all of it")
        _receive_whole(response, part, report)
    return False


def _resume(file: RemoteFile, part: _Part, version: _Version, report: Report) -> bool | None:
    """Request the rest of the file.

    Returns:
        True if the part was completed, False if the server sent the whole file instead, None if it sent nothing usable.
    """
    done = part.size()
    headers = {"Range": f"bytes={done}-"}
    if version.validator:
        headers["If-Range"] = version.validator
    try:
        with _request(part.url, headers) as response:
            if response.status != 206:
                _receive_whole(response, part, report)
                return False
            first, total = _content_range(response.headers)
            if first != done or version.differs(_Version.from_headers(response.headers, total)):
                return None
            length = _integer(response.headers.get("Content-Length"))
            _receive(response, part, done, total or (None if length is None else done + length), report)
            return True
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416:
                raise
            return True if _is_complete(file, part, version, error.headers) else None


def _is_complete(file: RemoteFile, part: _Part, version: _Version, headers: Message) -> bool:
    """Return whether a part to which the server has nothing to add is the whole file, not a part of something else."""
    if file.sha256 is not None:
        return sha256_of(part.path) == file.sha256
    _, total = _content_range(headers)
    return total == part.size() and not version.differs(_Version.from_headers(headers, total))


def _request(url: str, headers: dict[str, str]) -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)


def _receive_whole(response: Any, part: _Part, report: Report) -> None:
    _receive(response, part, 0, _integer(response.headers.get("Content-Length")), report)


def _receive(response: Any, part: _Part, done: int, total: int | None, report: Report) -> None:
    if not done:
        part.start(_Version.from_headers(response.headers, total))
    with part.path.open("ab" if done else "wb") as stream:
        while block := response.read(BLOCK):
            stream.write(block)
            done += len(block)
            report(done, total)
    if total is not None and done != total:
        remedy = "run the command again" + (" to continue" if part.version().validator else "")
        raise InputError(f"{part.url}: got {done} of {total} bytes; {remedy}")


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text.strip()) else None


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """Return the first byte and the size of the whole file, each None if the header lacks it."""
    match = re.fullmatch(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+|\*)", (headers.get("Content-Range") or "").strip())
    return (None, None) if match is None else (_integer(match[1]), _integer(match[2]))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 checksum of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
