"""What a request may carry: bytes that are counted, and JSON that names uploads and nothing else."""

import asyncio
import json

import pytest

from sfdfd.web.bodies import CountedBody, Refused, RequestBody, checked_json, is_upload

META = {"_type": "gradio.FileData"}


def arriving(*messages):
    """The ``receive`` of a client that sends these, then hangs up."""
    waiting = list(messages)

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    return receive


def chunks(*sizes):
    return [
        {"type": "http.request", "body": bytes(size), "more_body": i < len(sizes)} for i, size in enumerate(sizes, 1)
    ]


@pytest.fixture
def folder(tmp_path):
    uploads = tmp_path / "root"
    (uploads / "a1").mkdir(parents=True)
    (uploads / "a1" / "写真 1.jpg").write_bytes(b"x")
    (uploads / "plain.jpg").write_bytes(b"x")
    (uploads / "job" / "photographs").mkdir(parents=True)
    (uploads / "job" / "photographs" / "b.jpg").write_bytes(b"x")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "c.jpg").write_bytes(b"x")
    (uploads / "a1" / "link.jpg").symlink_to(tmp_path / "secret" / "c.jpg")
    return uploads


def test_bytes_are_counted_as_they_arrive_and_the_rest_is_not_read():
    body = CountedBody(arriving(*chunks(600, 400, 1, 600)), 1000, "uploads.total_mb")

    async def read():
        return [(await body())["type"] for _ in range(5)]

    assert asyncio.run(read()) == ["http.request"] * 2 + ["http.disconnect"] * 3
    assert (
        body.refused.status == 413
        and "1000 bytes" in body.refused.message
        and "uploads.total_mb" in body.refused.message
    )
    with pytest.raises(Refused):
        asyncio.run(CountedBody(arriving(*chunks(600, 401)), 1000).whole())
    assert asyncio.run(CountedBody(arriving(*chunks(600, 400)), 1000).whole()) == bytes(1000)
    assert (
        asyncio.run(CountedBody(arriving({"type": "http.request", "body": b"x", "more_body": True}), 9).whole()) is None
    )


def test_room_is_checked_again_while_a_body_arrives():
    asked = []

    async def check():
        asked.append(body.received)
        if body.received > 50:
            raise Refused(507, "full")

    body = CountedBody(arriving(*chunks(*[10] * 9)), 1000, check=check, every_bytes=25)
    with pytest.raises(Refused, match="full"):
        asyncio.run(body.whole())
    assert asked == [10, 40, 70]


def passed(content, folder):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return json.loads(checked_json(body, folder, lambda origin: origin == "http://127.0.0.1:1"))


def test_bodies_of_the_page_pass_without_their_urls(folder):
    path = str(folder / "a1" / "写真 1.jpg")
    for start in ("http://127.0.0.1:1", "", "/prefix"):
        file = {"path": path, "url": f"{start}/gradio_api/file={path}", "orig_name": "写真 1.jpg", "meta": META}
        sent = {
            "data": [[file], "0.5 1", None, 30, True],
            "event_data": {"index": [1, 2], "value": None},
            "fn_index": 2,
        }
        expected = {**sent, "data": [[{**file, "url": None}], *sent["data"][1:]]}
        assert passed(sent, folder) == expected
    encoded = {
        "path": path,
        "url": "/gradio_api/file=" + path.replace("写真", "%E5%86%99%E7%9C%9F").replace(" ", "%20"),
    }
    assert passed(encoded, folder)["url"] is None
    assert passed(json.dumps({"data": ["ü"]}).encode("utf-16"), folder) == {"data": ["ü"]}
    assert passed({"data": [{"path": None, "url": None}, "C:\\fakepath\\a.jpg", "a: b", "1:/2"]}, folder)


ADDRESSES = [
    "http://10.0.0.1/a.jpg", "HTTPS://example.org/a.jpg", " http://example.org", "ftp://x/a.jpg", "file:///etc/passwd",
    "file:/etc/passwd", "data:image/png;base64,AA==", "/etc/passwd", "//evil.example/a.jpg",
    "\\\\evil.example\\share\\a.jpg",
    "a.jpg", "../secret/c.jpg", "", 3, ["http://x"], True,
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("key", ["path", "url", "Path", "URL"])
def test_no_field_names_a_file_that_was_not_uploaded(folder, key, address):
    good = str(folder / "a1" / "写真 1.jpg")
    for file in ({"path": good, "meta": META, key: address}, {"meta": META, "video": {"deeper": [{key: address}]}}):
        for sent in ({"data": [[file]]}, {"data": [], "event_data": file}, {"data": [], "new key": [[[file]]]}):
            with pytest.raises(Refused) as refused:
                passed(sent, folder)
            assert refused.value.status == 400


def test_paths_reach_only_uploads_however_they_are_spelled(folder):
    root = str(folder)
    for path in (f"{root}/../secret/c.jpg", f"{root}/a1/../../secret/c.jpg", f"{root}/a1/link.jpg", f"{root}/plain.jpg",
                 f"{root}/job/photographs/b.jpg", f"{root}/a1", root,
                 f"{root}/a1/none.jpg", f"{root}/a1/写真 1.jpg\0"):  # fmt: skip
        assert not is_upload(path, folder), path
        with pytest.raises(Refused):
            passed({"data": [{"path": path}]}, folder)
    assert is_upload(f"{root}/a1/写真 1.jpg", folder) and is_upload(f"{root}/job/../a1/写真 1.jpg", folder)
    with pytest.raises(Refused):
        passed({"url": f"http://evil.example/gradio_api/file={root}/a1/写真 1.jpg"}, folder)
    with pytest.raises(Refused):
        passed({"url": f"http://127.0.0.1:1/gradio_api/file=http://evil.example/{root}/a1/写真 1.jpg"}, folder)


def test_repeated_keys_are_all_checked_and_the_checked_body_is_passed_on(folder):
    good = str(folder / "a1" / "写真 1.jpg")
    for first, second in (("http://x/a.jpg", good), (good, "http://x/a.jpg")):
        with pytest.raises(Refused):
            passed(f'{{"data": [{{"path": {json.dumps(first)}, "path": {json.dumps(second)}}}]}}'.encode(), folder)
    assert checked_json(b'{"a": 1, "a": 2}', folder, bool) == b'{"a": 2}'


@pytest.mark.parametrize("body", [
    b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b"[" * 100 + b"]" * 100, b'{"a": ' * 50 + b"1" + b"}" * 50, b"9" * 5000,
    b'{"data": ["http://example.org/a.jpg"]}', b'{"https://example.org": 1}', b'"\\u0068ttp://example.org"',
])  # fmt: skip
def test_malformed_bodies_are_refused(folder, body):
    with pytest.raises(Refused) as refused:
        passed(body, folder)
    assert refused.value.status == 400 and "\n" not in refused.value.message


def test_the_rest_of_a_refused_body_is_read_up_to_a_limit():
    async def left(messages, **bounds):
        waiting = list(messages)

        async def receive():
            if not waiting:
                await asyncio.sleep(60)
            return waiting.pop(0)

        body = RequestBody(receive)
        await body()
        await body.discard_rest(**bounds)
        return len(waiting)

    assert asyncio.run(left(chunks(10, 10, 10))) == 0
    assert asyncio.run(left(chunks(10))) == 0  # an end that was read is not waited for
    assert asyncio.run(left(chunks(*[10] * 9), most_bytes=25)) == 5
    assert asyncio.run(left(chunks(10, 10, 10)[:2], most_seconds=0.01)) == 0
