"""What stands between the network and the page: whose requests are answered, how large they are, what they may name."""

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

__all__ = ["Guard"]

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""A browser that keeps to it loads nothing from elsewhere, whatever the page asks for."""
SAFETY_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
API = "/gradio_api/"
UPLOAD = f"{API}upload"
POSTED_JSON = {f"{API}{name}" for name in ("queue/join", "cancel", "reset")}
ASKED = re.compile(
    r"(app_id|info|login_check|queue/data|queue/status|theme\.css|token|upload_progress|user)/?|heartbeat/[\w-]+"
)
"""What the page asks Gradio for, beside files. Gradio has more: it fetches addresses, edits the program, records."""
UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LARGEST_JSON_BYTES = 1_000_000
"""Of a request that carries no photographs; the page's own have less than a hundredth."""
LEAST_ON_DISK_BYTES = 4096
"""What a file or folder takes at least; a million empty files fill a disk, too."""
RESERVE_BYTES = 100_000_000
"""Of the disk; what is left for everybody else on it."""

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware around the page.

    Refuses requests for other hosts and of other websites, everything of Gradio's that the page does not use, bodies and
    uploads that are too large, uploads where the folder or the disk is full, and bodies that name files other than uploads.

    Args:
        app: what is guarded.
        hosts: what a request may be for, and where it may come from.
        folder: where uploads lie; all that is served as a file lies in it.
        largest_bytes: of one request, and of four times as much in the folder.
    """

    def __init__(self, app: App, hosts: AllowedHosts, folder: Path, largest_bytes: int) -> None:
        self.app, self.hosts, self.folder, self.largest_bytes = app, hosts, folder, largest_bytes
        self._uploading: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":  # the page has none
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
        """Refuse by the request's first line and headers."""
        navigates = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == ["navigate"]
        foreign = self.hosts.refusal(headers, navigates)
        if foreign is not None:
            raise Refused(*foreign)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise Refused(405, "expected GET, HEAD or POST")
        path = scope["path"]
        if scope["method"] == "POST":
            if path != UPLOAD and path not in POSTED_JSON:
                raise Refused(404, "this page takes uploads and its own requests alone")
        elif path == UPLOAD:
            raise Refused(405, "expected POST")
        elif path.startswith(f"{API}file="):
            if not self._is_ours(path.removeprefix(f"{API}file=")):
                raise Refused(404, "no such file of this page; nothing is fetched from elsewhere")
        elif path.startswith(API.rstrip("/")) and not ASKED.fullmatch(path.removeprefix(API)):
            raise Refused(404, "this page has no such address")
        elif re.search(r"/(proxy|file)=", path, re.IGNORECASE) or not path.startswith("/"):
            raise Refused(404, "nothing is fetched from elsewhere")

    def _is_ours(self, path: str) -> bool:
        try:
            return Path(path).is_absolute() and Path(path).resolve().is_relative_to(self.folder.resolve())
        except (ValueError, OSError, RuntimeError):
            return False

    async def _post(self, scope: Message, headers: dict[str, list[str]], receive: Receive, answer: _Answer) -> None:
        """Pass on a JSON body that names nothing but uploads, as it was understood here."""
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
        """Let the application answer; where its body is refused on the way, that is the answer instead."""

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
        """Refuse where the folder has four times the largest request already, or the disk is nearly full."""
        used = await asyncio.to_thread(_used_bytes, self.folder)
        free = shutil.disk_usage(self.folder).free - RESERVE_BYTES
        if used + more_bytes > 4 * self.largest_bytes or more_bytes > free or free < 0:
            raise Refused(
                507, "there is no room for more uploads now; try again later, or start the page with folder=DIR"
            )


class _Answer:
    """The one answer to a request: the application's, with headers for the browser's safety, or a refusal."""

    def __init__(self, send: Send) -> None:
        self._send, self._started = send, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            kept = [(key, value) for key, value in message["headers"] if key.lower() not in SAFETY_HEADERS]
            message = {**message, "headers": [*kept, *SAFETY_HEADERS.items()]}
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Answer with a sentence, and end the connection: what follows on it may be the rest of the refused body."""
        if self._started:
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": refused.words.encode()})


def _headers(scope: Message) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in scope["headers"]:
        found.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


def _declared_bytes(headers: dict[str, list[str]], largest_bytes: int, key: str | None) -> int:
    """The size of a body by its headers; 0 where it comes in chunks, which are counted as they come.

    Raises:
        Refused: it is unknown, malformed, said twice, or too large.
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
    """Bytes on disk in a folder, what lies there under several names once; files may vanish while they are counted."""
    total, seen = 0, set()
    for file in folder.rglob("*"):
        try:
            found = file.lstat()
        except OSError:
            continue
        identity = (found.st_dev, found.st_ino)
        if not found.st_ino or identity not in seen:
            seen.add(identity)
            total += max(found.st_size, LEAST_ON_DISK_BYTES)
    return total


def _remove_unfinished(folder: Path) -> None:
    """Remove what uploads that broke off have left: Gradio writes them as ``tmp...`` and moves them when they are whole."""
    for file in folder.glob("tmp*"):
        with contextlib.suppress(OSError):
            if file.is_file():
                file.unlink()
