"""Filter requests to the page: their origin, their size, and the files that they name."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

from sfdfd.web.bodies import CountedBody, Message, Receive, Refused, RequestBody, checked_json, too_large
from sfdfd.web.origins import AllowedHosts

__all__ = ["RequestFilter"]

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""With this policy, browsers load nothing from other addresses."""
SAFETY_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
API = "/gradio_api/"
UPLOAD = f"{API}upload"
POSTED_JSON = {f"{API}{name}" for name in ("queue/join", "cancel", "reset")}
USED_ROUTES = re.compile(
    r"(app_id|info|login_check|queue/data|queue/status|theme\.css|token|upload_progress|user)/?|heartbeat/[\w-]+"
)
"""The routes of Gradio that the page uses, besides files. Its other routes fetch addresses, edit the program, record."""
UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LARGEST_JSON_BYTES = 1_000_000
"""Largest request without photographs; the page's own requests have less than a hundredth."""
LEAST_ON_DISK_BYTES = 4096
"""Least space of a file or folder; a million empty files fill a disk, too."""
RESERVE_BYTES = 100_000_000
"""Space on the disk that uploads leave free."""

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class RequestFilter:
    """ASGI middleware around the page.

    It refuses requests for other hosts and from other websites, routes of Gradio that the page does not use, bodies and
    uploads that are too large, uploads when the folder or the disk is full, and bodies that name files other than
    uploads.

    Args:
        app: the application behind the filter.
        hosts: allowed values of the headers ``Host`` and ``Origin``.
        folder: the folder of uploads; only its files are served.
        largest_bytes: of one request; the folder may hold four times as much.
    """

    def __init__(self, app: App, hosts: AllowedHosts, folder: Path, largest_bytes: int) -> None:
        self.app, self.hosts, self.folder, self.largest_bytes = app, hosts, folder, largest_bytes
        self._uploading: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":  # the page uses none
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        answer, receive = _Answer(send), RequestBody(receive)
        try:
            headers = _headers(scope)
            self._check_request(scope, headers)
            if scope["path"] == UPLOAD:
                await self._upload(scope, headers, receive, answer)
            elif scope["method"] == "POST":
                await self._post(scope, headers, receive, answer)
            else:
                body = CountedBody(receive, LARGEST_JSON_BYTES)
                await self._pass_on(scope, body, body, answer)
        except Refused as refused:
            await receive.discard_rest()
            await answer.refuse(refused)

    def _check_request(self, scope: Message, headers: dict[str, list[str]]) -> None:
        """Refuse a request by its first line and headers."""
        navigates = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == ["navigate"]
        foreign = self.hosts.refusal(headers, navigates)
        if foreign is not None:
            raise Refused(*foreign)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise Refused(405, "expected GET, HEAD or POST")
        path = scope["path"]
        if scope["method"] == "POST":
            if path != UPLOAD and path not in POSTED_JSON:
                raise Refused(404, "this page takes only uploads and its own requests")
        elif path == UPLOAD:
            raise Refused(405, "expected POST")
        elif path.startswith(f"{API}file="):
            if not self._is_in_folder(path.removeprefix(f"{API}file=")):
                raise Refused(404, "no such file on this page; it fetches no other addresses")
        elif path.startswith(API.rstrip("/")) and not USED_ROUTES.fullmatch(path.removeprefix(API)):
            raise Refused(404, "this page has no such address")
        elif re.search(r"/(proxy|file)=", path, re.IGNORECASE) or not path.startswith("/"):
            raise Refused(404, "this page fetches no other addresses")

    def _is_in_folder(self, path: str) -> bool:
        try:
            return Path(path).is_absolute() and Path(path).resolve().is_relative_to(self.folder.resolve())
        except (ValueError, OSError, RuntimeError):
            return False

    async def _post(self, scope: Message, headers: dict[str, list[str]], receive: Receive, answer: _Answer) -> None:
        """Pass on a JSON body that names only uploads, written anew as it was understood here."""
        kinds = [value.split(";")[0].strip().lower() for value in headers.get("content-type", ())]
        if kinds != ["application/json"]:
            raise Refused(415, "expected application/json")
        _declared_bytes(headers, LARGEST_JSON_BYTES, None)
        counted = CountedBody(receive, LARGEST_JSON_BYTES)
        body = await counted.whole()
        if body is None:
            return
        host = headers["host"][0]
        body = checked_json(body, self.folder, lambda origin: self.hosts.is_own(origin, host))
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return waiting.pop() if waiting else await counted()

        framing = (b"content-length", b"transfer-encoding")
        kept = [(key, value) for key, value in scope["headers"] if key.lower() not in framing]
        length = (b"content-length", str(len(body)).encode())
        await self._pass_on({**scope, "headers": [*kept, length]}, replayed, counted, answer)

    async def _upload(self, scope: Message, headers: dict[str, list[str]], receive: Receive, answer: _Answer) -> None:
        declared = _declared_bytes(headers, self.largest_bytes, "uploads.total_mb")
        names = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get("upload_id", [])
        if len(names) > 1 or any(not UPLOAD_ID.fullmatch(name) for name in names):
            raise Refused(400, "upload_id: expected letters and digits")
        if any(name in self._uploading for name in names):
            raise Refused(409, "upload_id: another upload of that name is under way")
        upload = names[0] if names else ""
        self._uploading.append(upload)
        try:
            await self._check_room(declared)
            body = CountedBody(receive, self.largest_bytes, "uploads.total_mb", lambda: self._check_room(0))
            await self._pass_on(scope, body, body, answer)
        finally:
            self._uploading.remove(upload)
            if not self._uploading:
                _remove_unfinished(self.folder)

    async def _pass_on(self, scope: Message, receive: Receive, body: CountedBody, answer: _Answer) -> None:
        """Let the application answer, unless its body is refused while it arrives."""

        async def send(message: Message) -> None:
            if body.refused is None:
                await answer.send(message)

        try:
            await self.app(scope, receive, send)
        except Exception:
            if body.refused is None:
                raise
        if body.refused is not None:
            raise body.refused

    async def _check_room(self, more_bytes: int) -> None:
        """Refuse when the folder holds four times the largest request, or the disk is nearly full."""
        used = await asyncio.to_thread(_used_bytes, self.folder)
        free = shutil.disk_usage(self.folder).free - RESERVE_BYTES
        if used + more_bytes > 4 * self.largest_bytes or more_bytes > free or free < 0:
            raise Refused(
                507, "there is no room for more uploads now; try again later, or start the page with folder=DIR"
            )


class _Answer:
    """Send the one answer to a request: the application's with security headers, or a refusal."""

    def __init__(self, send: Send) -> None:
        self._send, self._started = send, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            kept = [(key, value) for key, value in message["headers"] if key.lower() not in SAFETY_HEADERS]
            message = {**message, "headers": [*kept, *SAFETY_HEADERS.items()]}
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Answer with a sentence and close the connection, on which the rest of the refused body may follow."""
        if self._started:
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": refused.message.encode()})


def _headers(scope: Message) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for key, value in scope["headers"]:
        headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return headers


def _declared_bytes(headers: dict[str, list[str]], largest_bytes: int, key: str | None) -> int:
    """Return the size of a body by its headers; 0 where it comes in chunks, which are counted as they arrive.

    Raises:
        Refused: the size is missing, malformed, repeated, or too large.
    """
    lengths, encodings = headers.get("content-length", []), headers.get("transfer-encoding", [])
    chunked = [value.lower() for value in encodings] == ["chunked"]
    if len(lengths) > 1 or (encodings and not chunked):
        raise Refused(400, "expected one content-length")
    if not (chunked or (lengths and lengths[0].isascii() and lengths[0].isdecimal())):
        raise Refused(411, "expected a request of known size")
    declared = int(lengths[0][:20]) if lengths and lengths[0].isdecimal() else 0
    if declared > largest_bytes:
        raise Refused(413, too_large(largest_bytes, key))
    return declared


def _used_bytes(folder: Path) -> int:
    """Return the bytes on disk of a folder; a file with several names counts once, and files may vanish meanwhile."""
    total, seen = 0, set()
    for file in folder.rglob("*"):
        try:
            status = file.lstat()
        except OSError:
            continue
        identity = (status.st_dev, status.st_ino)
        if not status.st_ino or identity not in seen:
            seen.add(identity)
            total += max(status.st_size, LEAST_ON_DISK_BYTES)
    return total


def _remove_unfinished(folder: Path) -> None:
    """Remove the rest of aborted uploads: Gradio writes ``tmp...`` and moves complete files."""
    for file in folder.glob("tmp*"):
        with contextlib.suppress(OSError):
            if file.is_file():
                file.unlink()
