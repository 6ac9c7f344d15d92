"""What stands between the network and the page."""

import asyncio
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from sfdfd.web.origins import AllowedHosts
from sfdfd.web.server import RequestFilter

ALONE = AllowedHosts.serving("127.0.0.1")
UPLOAD, JOIN = "/gradio_api/upload", "/gradio_api/queue/join"


class Application:
    """Reads every body to its end, as Gradio does, and says 200 with another policy."""

    def __init__(self):
        self.received, self.bodies, self.broken, self.during = 0, [], 0, None

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if self.during is not None:
                await self.during()
            if message["type"] == "http.disconnect":
                self.broken += 1
                await send({"type": "http.response.start", "status": 500, "headers": []})
                raise ConnectionError("the client hung up")
            body, more = body + message.get("body", b""), message.get("more_body", False)
            self.received += len(message.get("body", b""))
        self.bodies.append((dict(scope["headers"]), body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-security-policy", b"none")]})
        await send({"type": "http.response.body", "body": b""})


def asked(
    tmp_path, path="/", method="GET", hosts=ALONE, body=(b"",), query=b"", app=None, more=(), guard=None, **headers
):
    """What came back: status, headers, text, and what the guarded application saw."""
    sent, app = [], app or Application()
    waiting = [
        {"type": "http.request", "body": part, "more_body": i < len(body)} for i, part in enumerate(body, 1)
    ]  # fmt: skip

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = {"host": "127.0.0.1:1", **headers}
    pairs = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items() if value is not None]
    scope = {"type": "http", "path": path, "method": method, "query_string": query, "headers": [*pairs, *more]}
    asyncio.run((guard or RequestFilter(app, hosts, tmp_path, 2_000_000))(scope, receive, send))
    assert [message["type"] for message in sent].count("http.response.start") == 1
    text = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body").decode()
    return SimpleNamespace(status=sent[0]["status"], headers=dict(sent[0]["headers"]), text=text, app=app)


def posted(tmp_path, path=UPLOAD, **said):
    return asked(tmp_path, path, "POST", **said)


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:7860", 200), ("localhost", 200), ("[::1]:7860", 200), ("evil.example", 421),
    ("127.0.0.1.evil.example", 421), ("", 421), (None, 421),
])  # fmt: skip
def test_only_this_computers_names_are_answered(tmp_path, host, status):
    assert asked(tmp_path, host=host).status == status
    assert asked(tmp_path, hosts=AllowedHosts.serving("0.0.0.0"), host=host).status == status
    assert asked(tmp_path, host=host, more=[(b"host", b"127.0.0.1:1")]).status in (421, 200 if host is None else 421)


def test_every_answer_has_the_content_security_policy(tmp_path):
    for answer in (asked(tmp_path), asked(tmp_path, host="evil.example")):
        policy = answer.headers[b"content-security-policy"].decode()
        assert "default-src 'self'" in policy and "connect-src 'self'" in policy and "http" not in policy
        assert "*" not in policy and answer.headers[b"cross-origin-resource-policy"] == b"same-origin"


@pytest.mark.parametrize("path", [
    "/gradio_api/file=http://example.com/x.png", "/gradio_api/proxy=https://x.hf.space/a", "/file=HTTPS://x",
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=relative.jpg", "/gradio_api/file=", "/gradio_api/file/etc/passwd",
    "http://evil.example/", "/gradio_api/run-history/buckets", "/gradio_api/custom_component/1/client/a/../../x",
    "/gradio_api/dev/reload", "/gradio_api/vibe-code", "/gradio_api/call/go/1", "/gradio_api/startup-events", UPLOAD,
])  # fmt: skip
def test_only_the_pages_own_routes_are_answered(tmp_path, path):
    answer = asked(tmp_path, path)
    assert answer.status in (404, 405) and not answer.app.bodies


def test_only_files_of_the_folder_are_served(tmp_path):
    folder = tmp_path / "root"
    (folder / "job").mkdir(parents=True)
    (folder / "job" / "depth.png").write_bytes(b"x")
    (folder / "job" / "link").symlink_to("/etc")
    for name, status in (
        ("job/depth.png", 200),
        ("job/../job/depth.png", 200),
        ("../x", 404),
        ("job/link/passwd", 404),
    ):
        assert asked(folder, f"/gradio_api/file={folder}/{name}").status == status


@pytest.mark.parametrize("path", ["/", UPLOAD, JOIN, "/gradio_api/heartbeat/abc", "/config"])
@pytest.mark.parametrize("foreign", [
    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:2"},
    {"sec_fetch_site": "cross-site"},
])  # fmt: skip
def test_no_website_reaches_the_page_through_the_browser(tmp_path, path, foreign):
    method = "POST" if path in (UPLOAD, JOIN) else "GET"
    said = {"content_length": "2", "content_type": "application/json", "body": (b"{}",)}
    refused = asked(tmp_path, path, method, **said, **foreign)
    assert refused.status == 403 and not refused.app.bodies
    own = {"origin": "http://127.0.0.1:1", "sec_fetch_site": "same-origin"}
    assert asked(tmp_path, path, method, **said, **own).status == 200


def test_other_methods_and_websockets_are_refused(tmp_path):
    for method in ("OPTIONS", "PUT", "PATCH", "DELETE", "get"):
        assert asked(tmp_path, "/", method).status == 405
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    asyncio.run(
        RequestFilter(Application(), ALONE, tmp_path, 1)(
            {"type": "websocket", "path": "/", "headers": []}, receive, send
        )
    )
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("path", [
    "/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/call/go", "/gradio_api/run/go", "/login",
    "/gradio_api/vibe-edit", "/gradio_api/upload/", "/gradio_api/run-history/connect", "/", "/gradio_api/stream/1",
])  # fmt: skip
def test_other_routes_take_no_body(tmp_path, path):
    refused = posted(tmp_path, path, content_length="2", content_type="application/json", body=(b"{}",))
    assert refused.status == 404 and not refused.app.received


def test_a_refused_body_is_read_before_the_answer(tmp_path):
    waiting = [{"type": "http.request", "body": bytes(9), "more_body": i < 2} for i in range(3)]
    left_at_answer = []

    async def receive():
        return waiting.pop(0)

    async def send(message):
        left_at_answer.append(len(waiting))

    headers = [(b"host", b"127.0.0.1:1"), (b"origin", b"http://evil.example")]
    scope = {"type": "http", "path": UPLOAD, "method": "POST", "query_string": b"", "headers": headers}
    asyncio.run(RequestFilter(Application(), ALONE, tmp_path, 2_000_000)(scope, receive, send))
    assert left_at_answer == [0, 0]


def test_uploads_are_limited_by_size_and_room(tmp_path):
    def post(**headers):
        return posted(tmp_path, **headers).status

    assert (post(), post(content_length="x"), post(content_length="3000000")) == (411, 411, 413)
    assert (post(content_length="-5"), post(content_length="+5"), post(content_length="\u00b2")) == (411, 411, 411)
    assert post(content_length="1900000") == 200
    (tmp_path / "others").write_bytes(bytes(7_000_000))
    assert (post(content_length="1900000"), post(content_length="500")) == (507, 200)
    (tmp_path / "more").write_bytes(bytes(1_000_001))
    assert (post(content_length="500"), post(transfer_encoding="chunked")) == (507, 507)
    said = {"content_length": "2", "content_type": "application/json", "body": (b"{}",)}
    assert posted(tmp_path, JOIN, **said).status == 200  # whoever has uploaded already goes on


def test_a_full_disk_or_folder_refuses_uploads(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000_400))
    assert [posted(tmp_path, content_length=str(size)).status for size in (400, 500)] == [200, 507]
    monkeypatch.undo()
    guard = RequestFilter(Application(), ALONE, tmp_path, 10_000)
    for i in range(10):
        (tmp_path / f"{i}.jpg").touch()
    assert posted(tmp_path, guard=guard, content_length="1").status == 507


@pytest.mark.parametrize("headers", [
    {"transfer_encoding": "chunked"}, {"content_length": "10"}, {"content_length": "10", "transfer_encoding": "chunked"},
    {"transfer_encoding": "Chunked", "content_length": "0"},
])  # fmt: skip
def test_undeclared_bytes_are_counted(tmp_path, headers):
    refused = posted(tmp_path, body=(bytes(65_000),) * 100, **headers)
    assert refused.status == 413 and refused.app.received <= 2_000_000 and refused.app.broken == 1
    assert "uploads.total_mb" in refused.text and refused.headers[b"connection"] == b"close"
    assert posted(tmp_path, body=(bytes(65_000),) * 30, **headers).status == 200
    refused = asked(tmp_path, "/config", body=(bytes(65_000),) * 100, **headers)
    assert refused.status == 413 and refused.app.received <= 1_000_000


@pytest.mark.parametrize("more", [
    [(b"content-length", b"10"), (b"Content-Length", b"20")], [(b"transfer-encoding", b"gzip, chunked")],
    [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity")],
])  # fmt: skip
def test_a_body_with_two_sizes_is_refused(tmp_path, more):
    assert posted(tmp_path, more=more).status == 400


def test_an_upload_ends_when_the_room_runs_out(tmp_path):
    app = Application()

    async def write():
        (tmp_path / f"tmp{app.received}").write_bytes(bytes(16_500_000))

    app.during, guard = write, RequestFilter(app, ALONE, tmp_path, 50_000_000)
    (tmp_path / "others").write_bytes(bytes(170_000_000))
    refused = posted(tmp_path, guard=guard, app=app, transfer_encoding="chunked", body=(bytes(16_500_000),) * 3)
    assert refused.status == 507 and app.received == 33_000_000
    assert [file.name for file in tmp_path.iterdir()] == ["others"]  # what was left by the broken upload is gone


def test_an_upload_id_serves_one_upload_at_a_time(tmp_path):
    app, found = Application(), []
    guard = RequestFilter(app, ALONE, tmp_path, 2_000_000)
    said = {"content_length": "1", "guard": guard, "app": app}

    async def again():
        if not found:
            found.append(0)
            for query in (b"upload_id=abc", b"upload_id=other"):
                found.append((await asyncio.to_thread(posted, tmp_path, query=query, **said)).status)

    app.during = again
    assert posted(tmp_path, query=b"upload_id=abc", **said).status == 200 and found == [0, 409, 200]
    assert posted(tmp_path, query=b"upload_id=abc", **said).status == 200
    for query in (b"upload_id=a/b", b"upload_id=", b"upload_id=a&upload_id=b", b"upload_id=" + b"a" * 65):
        assert posted(tmp_path, query=query, **said).status == 400


def test_json_is_passed_on_as_it_was_checked(tmp_path):
    def post(body, kind="application/json", **headers):
        return posted(
            tmp_path, JOIN, body=(body[:9], body[9:]), content_type=kind, content_length=str(len(body)), **headers
        )

    good = post(b'{"data": [1, 2],   "session_hash": "a"}')
    headers, body = good.app.bodies[0]
    assert good.status == 200 and json.loads(body) == {"data": [1, 2], "session_hash": "a"}
    assert headers[b"content-length"] == str(len(body)).encode()
    for name in ("http://10.0.0.1/a.jpg", "/etc/hostname", "file:///etc/hostname"):
        refused = post(json.dumps({"data": [[{"path": name, "meta": {"_type": "gradio.FileData"}}]]}).encode())
        assert refused.status == 400 and not refused.app.bodies
    for kind in ("text/plain", "multipart/form-data; boundary=a", "application/x-www-form-urlencoded", ""):
        assert post(b"{}", kind).status == 415
    assert post(b"{}", "Application/JSON; charset=utf-8").status == 200
    assert post(b'{"data": "' + b"a" * 1_000_000 + b'"}').status == 413
    assert posted(tmp_path, JOIN, content_type="application/json", body=(b"{}",)).status == 411


def test_a_connection_is_closed_after_a_refused_request(tmp_path):
    uvicorn = pytest.importorskip("uvicorn")
    app = Application()
    config = uvicorn.Config(RequestFilter(app, ALONE, tmp_path, 1000), log_level="critical", lifespan="off")
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)

        def spoken(request):
            with socket.create_connection(listening.getsockname(), timeout=10) as connection:
                connection.sendall(request)
                parts = []
                while part := _received(connection):
                    parts.append(part)
            return b"".join(parts)

        head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        hidden = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        chunk = b"1f4\r\n" + bytes(500) + b"\r\n"
        for request in (
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20 + b"0\r\n\r\n",
            head + b"tRANSFER-eNCODING: CHUNKED\r\nContent-Length: 4\r\n\r\n" + chunk * 20 + b"0\r\n\r\n" + hidden,
            head + b"Content-Length: 5000\r\n\r\n" + bytes(5000) + hidden,
            head + b"Origin: http://evil.example\r\nContent-Length: 4\r\n\r\nabcd" + hidden,
            head + b"Content-Length: 4\r\nContent-Length: 99\r\n\r\nabcd" + hidden,
        ):
            answer = spoken(request)
            assert answer.startswith(b"HTTP/1.1 4") and answer.count(b"HTTP/1.1") == 1 and b" 200 " not in answer, (
                answer
            )
        assert app.received <= 3000 and not app.bodies
        assert spoken(head + b"Content-Length: 4\r\n\r\nabcd" + hidden).count(b"HTTP/1.1 200") == 2
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def _received(connection):
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""
