"""Check the bodies of requests: count bytes as they arrive, and refuse JSON that names files other than uploads.

Gradio fetches a file that a body names by URL, and reads one that it names by path on the server. This page needs neither,
so both are refused before Gradio sees them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["CountedBody", "Message", "Receive", "Refused", "RequestBody", "checked_json", "is_upload", "too_large"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
URL = re.compile(r"\s*[a-z][a-z0-9+.-]+:[/\\]", re.IGNORECASE)
"""A scheme has two letters or more; ``C:\\`` is a drive."""
FILE_URL = re.compile(r"(?:(https?://[^/@?#\s]+))?(?:/[\w.~-]+)*/gradio_api/file=(.+)", re.IGNORECASE)
DEEPEST = 32
"""Largest nesting of lists and objects in a body; this page sends six levels."""


class Refused(Exception):
    """Raised when a request is refused, with its status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class RequestBody:
    """Receive a request, and keep track of whether its body was read to the end.

    Args:
        receive: of ASGI.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._ended = receive, False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard_rest(self, most_bytes: int = 1_000_000, most_seconds: float = 2.0) -> None:
        """Read the rest of the body and drop it.

        A client that still sends while the server closes the connection sees a reset instead of the answer.

        Args:
            most_bytes: largest number of bytes to read.
            most_seconds: longest time to read.
        """

        async def read() -> None:
            dropped = 0
            while not self._ended and dropped <= most_bytes:
                dropped += len((await self()).get("body", b""))

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), most_seconds)


class CountedBody:
    """Count the bytes of a body as they arrive, whatever its headers say.

    When the body is refused, the application sees a client that hangs up, and ``refused`` holds the reason.

    Args:
        receive: of ASGI.
        largest_bytes: of the body.
        key: the setting that limits it, for the message; None where there is none.
        check: called at the start and every ``every_bytes`` received bytes; it may raise :class:`Refused`.
        every_bytes: see ``check``.
    """

    def __init__(
        self,
        receive: Receive,
        largest_bytes: int,
        key: str | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
        every_bytes: int = 16_000_000,
    ) -> None:
        self._receive, self.largest_bytes, self.key = receive, largest_bytes, key
        self._check, self._every_bytes, self._next_check = check, every_bytes, 0
        self.received = 0
        self.refused: Refused | None = None

    async def __call__(self) -> Message:
        if self.refused is not None:
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        self.received += len(message.get("body", b""))
        try:
            if self.received > self.largest_bytes:
                raise Refused(413, too_large(self.largest_bytes, self.key))
            if self._check is not None and self.received >= self._next_check:
                self._next_check = self.received + self._every_bytes
                await self._check()
        except Refused as refused:
            self.refused = refused
            return {"type": "http.disconnect"}
        return message

    async def whole(self) -> bytes | None:
        """Read the whole body; return None if the client hung up.

        Raises:
            Refused: the body is too large.
        """
        parts: list[bytes] = []
        while True:
            message = await self()
            if self.refused is not None:
                raise self.refused
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)


def too_large(largest_bytes: int, key: str | None) -> str:
    """Return the sentence for a body that is too large."""
    return f"expected {largest_bytes} bytes at most" + ("" if key is None else f" ({key})")


def is_upload(path: Any, folder: Path) -> bool:
    """Whether a path names an uploaded file: a plain file ``folder/x/name``."""
    try:
        file = Path(path)
        return file.is_absolute() and len(file.resolve().relative_to(folder.resolve()).parts) == 2 and file.is_file()
    except (TypeError, ValueError, OSError, RuntimeError):
        return False


def checked_json(body: bytes, folder: Path, is_own: Callable[[str], bool]) -> bytes:
    """Check a JSON body and write it anew, so that Gradio reads exactly what was checked.

    Every ``path`` must be an upload. A ``url`` may be this page's own address of an upload; it is dropped, because the
    server does not need it. No other string may be a URL. Keys are checked in any case, at any depth, and at each
    repetition.

    Args:
        body: UTF-8, UTF-16 or UTF-32.
        folder: of uploads.
        is_own: whether ``scheme://host:port`` is this page.

    Raises:
        Refused: the body is not JSON, or names anything else.
    """

    def checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: _checked_entry(key, value, folder, is_own) for key, value in pairs}

    try:
        content = json.loads(body, object_pairs_hook=checked_object)
        _check_strings(content)
        return json.dumps(content).encode()
    except (ValueError, RecursionError):
        raise Refused(400, "expected JSON") from None


def _checked_entry(key: str, value: Any, folder: Path, is_own: Callable[[str], bool]) -> Any:
    name = key.strip().casefold()
    if name == "path" and value is not None and not is_upload(value, folder):
        raise Refused(400, "a request names a file that was not uploaded to this page; give the photographs again")
    if name == "url" and value is not None:
        match = FILE_URL.fullmatch(value) if isinstance(value, str) else None
        is_own_page = match is not None and (match[1] is None or is_own(match[1]))
        if (
            match is None
            or not is_own_page
            or not (is_upload(match[2], folder) or is_upload(unquote(match[2]), folder))
        ):
            raise Refused(400, "a request names an address to fetch a file from; upload the photographs themselves")
        return None
    return value


def _check_strings(content: Any) -> None:
    """Refuse URLs in strings and nesting that is too deep; not recursive, because the sender chooses the depth."""
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise Refused(400, "expected JSON that is less deeply nested")
        if isinstance(value, str) and URL.match(value):
            raise Refused(400, "a request names an address to fetch a file from; upload the photographs themselves")
        if isinstance(value, dict):
            waiting += [(item, depth + 1) for item in (*value, *value.values())]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
