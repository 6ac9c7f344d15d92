"""Downloads are checked, resumed, and never spliced from two versions of a file."""

import hashlib
import http.server
import json
import threading

import pytest

from sfdfd.errors import InputError
from sfdfd.io.downloads import RemoteFile, download
from tests.datasets.sources.helpers import no_progress


def test_a_file_without_url_has_to_be_fetched_by_hand(tmp_path):
    with pytest.raises(InputError, match="by hand"):
        download(RemoteFile("x.zip"), tmp_path / "x.zip", no_progress, "somewhere")


def test_checksums_are_verified_and_dead_links_reported(tmp_path):
    content = bytes(range(256)) * 100
    (tmp_path / "served").write_bytes(content)
    url = (tmp_path / "served").as_uri()
    target = tmp_path / "got"
    with pytest.raises(InputError, match="checksum"):
        download(RemoteFile("got", url, "0" * 64), target, no_progress, "here")
    assert not target.exists() and not list(tmp_path.glob("*.part"))
    download(RemoteFile("got", url), target, no_progress, "here")
    assert target.read_bytes() == content
    with pytest.raises(InputError, match="fetch other by hand"):
        download(RemoteFile("other", (tmp_path / "none").as_uri()), tmp_path / "other", no_progress, "here")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content`` under ``validators``; breaks off after ``limit`` bytes of an answer.

    ``ranges``: knows them. ``honest``: knows If-Range. ``start``: where its Content-Range says that a part starts.
    ``asked``, ``conditions``: Range and If-Range of each request.
    """

    content, ranges, honest, limit, start = b"", True, True, None, None

    def do_GET(self):
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        self.asked.append(wanted)
        self.conditions.append(condition)
        same = not self.honest or condition in (None, *self.validators.values())
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges and same else None
        size = len(self.content)
        self.send_response(200 if first is None else 206 if first < size else 416)
        for key, value in self.validators.items():
            self.send_header(key, value)
        if first is not None:
            start = first if self.start is None else self.start
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}" if first < size else f"bytes */{size}")
        self.send_header("Content-Length", str(max(0, size - (first or 0))))
        self.end_headers()
        self.wfile.write(self.content[first or 0 :][: self.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    class Fresh(Server):
        content, validators = bytes(range(256)) * 100, {"ETag": '"one"'}
        asked, conditions = [], []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Fresh, f"http://127.0.0.1:{one.server_port}/got"
        one.shutdown()
        thread.join()


def interrupted(handler, url, folder, size=10_000):
    """What an earlier try leaves of the server's present version."""
    handler.limit = size
    with pytest.raises(InputError, match=rf"{size} of {len(handler.content)} bytes; run the command again"):
        download(RemoteFile("got", url), folder / "got", no_progress, "here")
    assert (folder / "got.part").read_bytes() == handler.content[:size] and not (folder / "got").exists()
    handler.limit = None
    handler.asked.clear(), handler.conditions.clear()


def whole_and_nothing_else(folder, content):
    return [path.name for path in folder.iterdir()] == ["got"] and (folder / "got").read_bytes() == content


def test_an_interrupted_download_continues_where_it_stopped(server, tmp_path):
    handler, url = server
    file = RemoteFile("got", url, hashlib.sha256(handler.content).hexdigest())
    interrupted(handler, url, tmp_path)
    seen = []
    download(file, tmp_path / "got", lambda done, total: seen.append((done, total)), "here")
    assert whole_and_nothing_else(tmp_path, handler.content)
    assert (handler.asked, handler.conditions) == (["bytes=10000-"], ['"one"']) and seen[-1] == (25600, 25600)


@pytest.mark.parametrize("honest", [True, False], ids=["if-range", "no if-range"])
@pytest.mark.parametrize("size", [25600, 30000, 10_000, 5_000], ids=["as long", "longer", "as the part", "shorter"])
@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_two_versions_of_a_file_are_never_spliced(server, tmp_path, validator, size, honest):
    handler, url = server
    handler.validators, handler.honest = {validator: '"one"'}, honest
    interrupted(handler, url, tmp_path)
    handler.content, handler.validators = b"x" * size, {validator: '"two"'}
    download(RemoteFile("got", url), tmp_path / "got", no_progress, "here")
    assert whole_and_nothing_else(tmp_path, handler.content) and handler.conditions[0] == '"one"'


def test_a_different_length_is_a_different_version(server, tmp_path):
    handler, url = server
    handler.honest = False
    interrupted(handler, url, tmp_path)
    handler.content = b"x" * 30000
    download(RemoteFile("got", url), tmp_path / "got", no_progress, "here")
    assert whole_and_nothing_else(tmp_path, handler.content)


def test_a_part_of_unknown_version_resumes_only_with_a_checksum(server, tmp_path):
    handler, url = server
    sha256 = hashlib.sha256(handler.content).hexdigest()
    for known, left, asked in (
        (None, handler.content[:5], [None]),
        (sha256, handler.content[:5], ["bytes=5-"]),
        (sha256, b"other", ["bytes=5-", None]),
    ):
        handler.asked.clear()
        (tmp_path / "got").unlink(missing_ok=True)
        (tmp_path / "got.part").write_bytes(left)
        download(RemoteFile("got", url, known), tmp_path / "got", no_progress, "here")
        assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == asked


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        "no json",
        '{"url": "http://elsewhere/got", "version": {"etag": "\\"one\\""}}',
        '{"url": "HERE", "version": {"etag": 5}}',
        '{"url": "HERE", "version": {"other": "one"}}',
    ],
)
def test_broken_notes_and_those_of_other_urls_are_ignored(server, tmp_path, note):
    handler, url = server
    (tmp_path / "got.part").write_bytes(b"other")
    (tmp_path / "got.part.json").write_text(note.replace("HERE", url))
    download(RemoteFile("got", url), tmp_path / "got", no_progress, "here")
    assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == [None]


def test_weak_etags_are_replaced_by_the_date(server, tmp_path):
    handler, url = server
    for validators, asked, sent in (
        ({"ETag": 'W/"one"'}, [None], [None]),
        ({"ETag": 'W/"one"', "Last-Modified": "yesterday"}, ["bytes=10000-"], ["yesterday"]),
    ):
        handler.validators = validators
        interrupted(handler, url, tmp_path)
        download(RemoteFile("got", url), tmp_path / "got", no_progress, "here")
        assert whole_and_nothing_else(tmp_path, handler.content)
        assert (handler.asked, handler.conditions) == (asked, sent)
        (tmp_path / "got").unlink()


def test_a_response_with_another_start_is_not_appended(server, tmp_path):
    handler, url = server
    interrupted(handler, url, tmp_path)
    handler.start = 9_000
    download(RemoteFile("got", url), tmp_path / "got", no_progress, "here")
    assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == ["bytes=10000-", None]


def test_a_download_that_stopped_before_its_last_rename_is_finished(server, tmp_path):
    handler, url = server
    sha256 = hashlib.sha256(handler.content).hexdigest()
    interrupted(handler, url, tmp_path)
    for known, note in ((sha256, False), (None, True)):
        handler.asked.clear()
        (tmp_path / "got.part").write_bytes(handler.content)
        if note:
            (tmp_path / "got").unlink()
            version = {"etag": '"one"', "modified": None, "size": 25600}
            (tmp_path / "got.part.json").write_text(json.dumps({"url": url, "version": version}))
        download(RemoteFile("got", url, known), tmp_path / "got", no_progress, "here")
        assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == ["bytes=25600-"]


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "none"])
def test_a_part_longer_than_the_file_is_fetched_again(server, tmp_path, known):
    handler, url = server
    interrupted(handler, url, tmp_path)
    with (tmp_path / "got.part").open("ab") as part:
        part.write(b"x" * 20_000)
    sha256 = hashlib.sha256(handler.content).hexdigest() if known else None
    download(RemoteFile("got", url, sha256), tmp_path / "got", no_progress, "here")
    assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == ["bytes=30000-", None]


def test_without_range_support_the_download_restarts(server, tmp_path):
    handler, url = server
    interrupted(handler, url, tmp_path)
    handler.ranges = False
    download(RemoteFile("got", url), tmp_path / "got", no_progress, "here")
    assert whole_and_nothing_else(tmp_path, handler.content)


@pytest.mark.parametrize("url", ["http://[broken", "nothing://x/got", "http://a b/got", "no address"])
def test_unusable_urls_are_reported_in_one_line(tmp_path, url):
    with pytest.raises(InputError, match=r"^could not download [^\n]*fetch got by hand[^\n]*$"):
        download(RemoteFile("got", url), tmp_path / "got", no_progress, "here")


def test_an_unwritable_target_is_reported(server, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "got").mkdir()
    for target in (tmp_path / "file" / "got", tmp_path / "got"):
        with pytest.raises(InputError, match="could not download"):
            download(RemoteFile("got", server[1]), target, no_progress, "here")
