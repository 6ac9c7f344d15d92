"""The page over HTTP, as a browser and as somebody who means harm speak to it."""

import io
import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from sfdfd.photographs.lookup import example_photographs

META = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A client of a running page, and the folder of its files; it is a process of its own, as Gradio leaves sockets open."""
    pytest.importorskip("gradio")
    import httpx

    folder = tmp_path_factory.mktemp("page").resolve()
    bounds = ("uploads.total_mb=5", "uploads.file_mb=2")
    command = [sys.executable, "-u", "-m", "sfdfd.app", "port=0", "open=false", f"folder='{folder}'", *bounds]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        address = next(
            found.group() for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line))
        )
        with httpx.Client(base_url=address, timeout=60) as client:
            end = time.monotonic() + 60
            while True:
                try:
                    client.get("/config")
                    break
                except httpx.TransportError:
                    assert time.monotonic() < end, "the page does not answer"
                    time.sleep(0.05)
            yield client, next(folder.iterdir())
        process.terminate()
        process.wait(60)


def jpeg(size=(40, 30), seed=0):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue()


def uploaded(client, files, **headers):
    """Answer to an upload of files by name."""
    return client.post("/gradio_api/upload", files=[("files", (name, data)) for name, data in files], headers=headers)


def as_sent(client, path, name):
    """What the browser says of a file that it has uploaded."""
    return {"path": path, "url": f"{client.base_url}/gradio_api/file={path}", "orig_name": name, "meta": META}


def happened(client, data, function=0, session="s1"):
    """The last message about a press on the page."""
    said = {"data": data, "fn_index": function, "session_hash": session}
    client.post("/gradio_api/queue/join", json=said).raise_for_status()
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") == "process_completed":
                return message
    raise AssertionError("the page said nothing")


def test_the_page_is_served_but_not_to_other_websites(page):
    client, root = page
    assert client.get("/").status_code == client.get("/config").status_code == 200
    before = set(root.rglob("*"))
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"},
                    {"Sec-Fetch-Site": "cross-site"}):  # fmt: skip
        assert uploaded(client, [("a.jpg", jpeg())], **headers).status_code in (403, 421)
        assert client.get("/config", headers=headers).status_code in (403, 421)
    assert set(root.rglob("*")) == before
    own = str(client.base_url)
    assert uploaded(client, [("a.jpg", jpeg())], Origin=own).status_code == 200


def test_bodies_that_name_server_files_or_urls_are_refused(page, tmp_path):
    client, root = page
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg())
    (good,) = uploaded(client, [("a.jpg", jpeg())]).json()
    before = set(root.rglob("*"))
    for path in ("http://192.0.2.1/a.jpg", "https://example.org/a.jpg", str(secret), f"{root}/../{secret}",
                 f"{good}/../../../../{secret}", "file:///etc/hostname", str(root), f"{root}/none/a.jpg"):  # fmt: skip
        for file in ({"path": path, "meta": META}, {**as_sent(client, good, "a.jpg"), "url": path}):
            said = {"data": [[file, as_sent(client, good, "a.jpg")]], "fn_index": 0, "session_hash": "s2"}
            assert client.post("/gradio_api/queue/join", json=said).status_code == 400
        if path != str(root):  # a folder of the page: Gradio's own answer
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
    assert set(root.rglob("*")) == before


def test_chunked_uploads_are_counted_and_aborted_ones_removed(page):
    client, root = page

    def parts(megabytes):
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        for _ in range(megabytes):
            yield bytes(1_000_000)
        yield b"\r\n--x--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/gradio_api/upload", content=parts(1), headers=headers).status_code == 200
    many = (part for _ in range(5) for part in parts(1))  # each part within the bound of a file
    for content in (parts(3), many):
        answer = client.post("/gradio_api/upload", content=content, headers=headers)
        assert answer.status_code == 413
    assert not [file for file in root.iterdir() if file.is_file()]


def test_names_with_folders_in_them_stay_in_the_folder(page):
    client, root = page
    names = ["../../../a.jpg", "..\\..\\b.jpg", "/etc/c.jpg", "写真 1.25 dpt.jpg", "CON.jpg", "x" * 200 + ".jpg"]
    paths = uploaded(client, [(name, jpeg(seed=i)) for i, name in enumerate(names)]).json()
    assert len(paths) == len(names) and all(root in (root / path).resolve().parents for path in paths)
    for name in ("..", ".", "../"):
        answer = uploaded(client, [(name, jpeg())])
        assert answer.status_code == 400 or all(root in (root / path).resolve().parents for path in answer.json())


@pytest.mark.slow
def test_distances_are_recognised_from_the_users_file_names(page):
    client, root = page
    named = ["1 dpt.jpg", "0.75 dpt.jpg", "写真 0.5 dpt!.jpg", "0.25 dpt.jpg", "0 dpt.jpg"]
    files = []
    for name, image in zip(named, example_photographs(72, 96).images, strict=True):
        data = io.BytesIO()
        Image.fromarray(image).save(data, "JPEG", quality=97)
        files.append((name, data.getvalue()))
    sent = [as_sent(client, path, name) for path, name in zip(uploaded(client, files).json(), named, strict=True)]
    message = happened(client, [sent])
    found = message["output"]["data"][0]
    assert message["success"] and all(f"| {words} |" in found for words in ("1 m", "1.333 m", "2 m", "4 m", "infinity"))
    assert {file.name for file in root.glob("*/photographs/*")} == set(named)
    millimetres = [{**file, "orig_name": f"{500 + 100 * i}.0.jpg"} for i, file in enumerate(sent)]
    message = happened(client, [millimetres], session="s4")  # 500 m or more as the names stand, which the fields mend
    found, go, _ = message["output"]["data"]
    assert message["success"] and "are these metres?" in found and go["interactive"] is True
    message = happened(client, ["500 600", "mm", None, None, None, 2, False], 2, "s4")
    assert "expected 5 focus distances" in message["output"]["error"]  # the photographs are still there
    twice = [*sent, {**sent[0], "orig_name": "1 dpt.jpg"}, as_sent(client, sent[0]["path"], "notes.pdf")]
    message = happened(client, [twice], session="s3")
    assert not message["success"] and "notes.pdf" in message["output"]["error"]
