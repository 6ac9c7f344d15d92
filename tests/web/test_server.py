"""What stands between the network and the page."""

import asyncio

import pytest

from sfdfd.web.server import LOOPBACK, Guard


def asked(tmp_path, path="/", method="GET", hosts=LOOPBACK, **headers):
    """The status and the headers of an answer; the guarded application says 200 and names another policy."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-security-policy", b"none")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "path": path, "method": method,
        "headers": [
            (key.replace("_", "-").encode(), value.encode()) for key, value in {"host": "127.0.0.1:1", **headers}.items()
        ],
    }  # fmt: skip
    asyncio.run(Guard(app, hosts, tmp_path, 2_000_000)(scope, lambda: None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:7860", 200), ("localhost", 200), ("[::1]:7860", 200), ("evil.example", 421),
    ("127.0.0.1.evil.example", 421), ("", 421),
])  # fmt: skip
def test_only_this_computers_names_are_answered(tmp_path, host, status):
    assert asked(tmp_path, host=host)[0] == status
    assert asked(tmp_path, hosts=(), host=host)[0] == 200


def test_every_answer_forbids_the_browser_to_load_from_elsewhere(tmp_path):
    policy = asked(tmp_path)[1][b"content-security-policy"].decode()
    assert (
        "default-src 'self'" in policy and "connect-src 'self'" in policy and "http" not in policy and "*" not in policy
    )


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=http://example.com/x.png", "/gradio_api/proxy=https://x.hf.space/a", "/file=HTTPS://x"]
)
def test_nothing_is_fetched_for_anybody(tmp_path, path):
    assert asked(tmp_path, path)[0] == 404


def test_uploads_have_a_size_and_room(tmp_path):
    def post(**headers):
        return asked(tmp_path, "/gradio_api/upload", "POST", **headers)[0]

    assert (post(), post(content_length="x"), post(content_length="3000000")) == (411, 411, 413)
    assert post(content_length="1900000") == 200
    (tmp_path / "others").write_bytes(bytes(7_000_000))
    assert (post(content_length="1900000"), post(content_length="500")) == (507, 200)
