"""What stands between the network and the page: bounds of requests, and nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

__all__ = ["LOOPBACK", "Guard"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""A browser that keeps to it loads nothing from elsewhere, whatever the page asks for."""
FETCHES = re.compile(r"/proxy=|/file=\s*\w+:", re.IGNORECASE)
"""Addresses under which the server would fetch others."""

Message = MutableMapping[str, Any]


class Guard:
    """ASGI middleware.

    Refuses hosts that are not named (a page elsewhere that points its own name at this machine), uploads of unknown or too
    large a size, uploads where the folder is full, and addresses that would make the server fetch something.

    Args:
        app: what is guarded.
        hosts: names that a request may be for; empty for any.
        folder: where uploads lie.
        largest_bytes: of one request, and of four times as much in the folder.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: tuple[str, ...], folder: Path, largest_bytes: int):
        self.app, self.hosts, self.folder, self.largest_bytes = app, hosts, folder, largest_bytes

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is not None:
            status, words = refused
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": words.encode()})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = {
                    b"content-security-policy": POLICY.encode(),
                    b"referrer-policy": b"no-referrer",
                    b"x-content-type-options": b"nosniff",
                }
                kept = [(key, value) for key, value in message["headers"] if key.lower() not in more]
                message = {**message, "headers": [*kept, *more.items()]}
            await send(message)

        await self.app(scope, receive, guarded)

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = re.sub(r":\d+$", "", headers.get(b"host", "")).strip("[]").lower()
        if self.hosts and host not in self.hosts:
            return 421, f"this page is for {', '.join(self.hosts)} alone (host)"
        if FETCHES.search(scope["path"]):
            return 404, "nothing is fetched from elsewhere"
        if scope["method"] == "POST":
            length = headers.get(b"content-length", "")
            if not length.isdecimal():
                return 411, "expected a request of known size"
            if int(length) > self.largest_bytes:
                return 413, f"expected {self.largest_bytes} bytes at most (uploads.total_mb)"
            if int(length) > 1e6 and self._used() + int(length) > 4 * self.largest_bytes:
                return 507, "there is no room for more uploads now; try again later"
        return None

    def _used(self) -> int:
        """Bytes in the folder; files may vanish while it is counted."""
        total = 0
        for file in self.folder.rglob("*"):
            try:
                total += file.stat().st_size
            except OSError:
                continue
        return total
