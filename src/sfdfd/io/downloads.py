"""Bringing a file from elsewhere: resumable downloads and checksums. Archives are unpacked by
:mod:`sfdfd.io.archives`; where a data set lies is the matter of :mod:`sfdfd.datasets.folders`."""

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
