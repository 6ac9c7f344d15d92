"""Each published format, written here as its authors write it, read back in metres."""

import errno
import hashlib
import http.server
import io
import json
import os
import shutil
import sys
import tarfile
import threading
import warnings
import zipfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sfdfd.datasets import sources
from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.folders import MANIFEST, aside, check_vacant, continued, finish, half_made, read_manifest
from sfdfd.datasets.recorded import RecordedDataModule
from sfdfd.datasets.sources import FIRST, SOURCES
from sfdfd.datasets.sources.base import write_depth, write_rgbd, write_stack
from sfdfd.datasets.sources.ddff12 import BASELINE_M, FOCAL_PX, depth_of_disparity_m
from sfdfd.datasets.sources.lightfield import refocused
from sfdfd.datasets.sources.middlebury import depth_of_scene_m, read_pfm
from sfdfd.datasets.sources.nyu import nyu_split
from sfdfd.datasets.sources.zedd import write_submission
from sfdfd.datasets.synthetic import RGBDDataModule
from sfdfd.errors import InputError
from sfdfd.io.archives import extract, opened
from sfdfd.io.downloads import RemoteFile, download
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.read import read_photographs
from tests.conftest import CAMERA, FOCUS_M

RNG = np.random.default_rng(0)


def by_message(value):
    """Cases of one test are told apart by the message that they expect."""
    return value if isinstance(value, str) and value.isprintable() else ""


def image(height=24, width=32):
    return RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)


def nothing(done, total):
    pass


def converted(name, paths, root):
    record = {"data": name}
    with aside(root, record) as part:
        record["samples"] = SOURCES[name].convert(paths, part, nothing)
    return root


def write_pfm(path, values):
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1\n".encode() + values[::-1].astype("<f4").tobytes())


# ---------------------------------------------------------------- files


def test_the_official_nyu_split_is_complete_and_disjoint():
    train, val, test = (nyu_split(split) for split in ("train", "val", "test"))
    assert len(test) == 654 and len(train) + len(val) == 795
    assert sorted([*train, *val, *test]) == [f"{i:04d}" for i in range(1449)]
    assert test[:5] == ["0000", "0001", "0008", "0013", "0014"] and test[-1] == "1448"


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../outside", "C:/x"])
def test_archive_members_never_leave_the_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", "x")
        archive.writestr(name, "x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    for archive in ("a.zip", "a.tar"):
        with pytest.raises(InputError, match="outside of the folder"):
            extract(tmp_path / archive, tmp_path / "inside")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "inside" / "good").exists()


def test_links_in_archives_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        entry = tarfile.TarInfo("file")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    extract(tmp_path / "a.tar.gz", tmp_path / "inside")
    assert [path.name for path in (tmp_path / "inside").iterdir()] == ["file"]


def test_broken_archives_and_missing_links_are_said(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(InputError, match=r"a\.zip"):
        extract(tmp_path / "a.zip", tmp_path / "inside")
    with pytest.raises(InputError, match="by hand"):
        download(RemoteFile("x.zip"), tmp_path / "x.zip", nothing, "somewhere")


def test_downloads_are_checked_and_dead_links_say_what_to_do(tmp_path):
    content = bytes(range(256)) * 100
    (tmp_path / "served").write_bytes(content)
    url = (tmp_path / "served").as_uri()
    target = tmp_path / "got"
    with pytest.raises(InputError, match="checksum"):
        download(RemoteFile("got", url, "0" * 64), target, nothing, "here")
    assert not target.exists() and not list(tmp_path.glob("*.part"))
    download(RemoteFile("got", url), target, nothing, "here")
    assert target.read_bytes() == content
    with pytest.raises(InputError, match="fetch other by hand"):
        download(RemoteFile("other", (tmp_path / "none").as_uri()), tmp_path / "other", nothing, "here")


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
        download(RemoteFile("got", url), folder / "got", nothing, "here")
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
    download(RemoteFile("got", url), tmp_path / "got", nothing, "here")
    assert whole_and_nothing_else(tmp_path, handler.content) and handler.conditions[0] == '"one"'


def test_a_version_that_only_differs_in_length_is_another_one(server, tmp_path):
    handler, url = server
    handler.honest = False
    interrupted(handler, url, tmp_path)
    handler.content = b"x" * 30000
    download(RemoteFile("got", url), tmp_path / "got", nothing, "here")
    assert whole_and_nothing_else(tmp_path, handler.content)


def test_a_part_of_a_version_that_nobody_noted_is_fetched_anew_unless_a_checksum_will_tell(server, tmp_path):
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
        download(RemoteFile("got", url, known), tmp_path / "got", nothing, "here")
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
def test_a_note_that_is_broken_or_of_another_address_notes_nothing(server, tmp_path, note):
    handler, url = server
    (tmp_path / "got.part").write_bytes(b"other")
    (tmp_path / "got.part.json").write_text(note.replace("HERE", url))
    download(RemoteFile("got", url), tmp_path / "got", nothing, "here")
    assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == [None]


def test_weak_etags_are_never_sent_and_a_date_stands_in_for_them(server, tmp_path):
    handler, url = server
    for validators, asked, sent in (
        ({"ETag": 'W/"one"'}, [None], [None]),
        ({"ETag": 'W/"one"', "Last-Modified": "yesterday"}, ["bytes=10000-"], ["yesterday"]),
    ):
        handler.validators = validators
        interrupted(handler, url, tmp_path)
        download(RemoteFile("got", url), tmp_path / "got", nothing, "here")
        assert whole_and_nothing_else(tmp_path, handler.content)
        assert (handler.asked, handler.conditions) == (asked, sent)
        (tmp_path / "got").unlink()


def test_an_answer_that_starts_elsewhere_is_not_appended(server, tmp_path):
    handler, url = server
    interrupted(handler, url, tmp_path)
    handler.start = 9_000
    download(RemoteFile("got", url), tmp_path / "got", nothing, "here")
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
        download(RemoteFile("got", url, known), tmp_path / "got", nothing, "here")
        assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == ["bytes=25600-"]


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "none"])
def test_a_part_longer_than_the_file_is_fetched_anew_in_the_same_call(server, tmp_path, known):
    handler, url = server
    interrupted(handler, url, tmp_path)
    with (tmp_path / "got.part").open("ab") as part:
        part.write(b"x" * 20_000)
    sha256 = hashlib.sha256(handler.content).hexdigest() if known else None
    download(RemoteFile("got", url, sha256), tmp_path / "got", nothing, "here")
    assert whole_and_nothing_else(tmp_path, handler.content) and handler.asked == ["bytes=30000-", None]


def test_a_server_without_ranges_starts_afresh(server, tmp_path):
    handler, url = server
    interrupted(handler, url, tmp_path)
    handler.ranges = False
    download(RemoteFile("got", url), tmp_path / "got", nothing, "here")
    assert whole_and_nothing_else(tmp_path, handler.content)


@pytest.mark.parametrize("url", ["http://[broken", "nothing://x/got", "http://a b/got", "no address"])
def test_unusable_addresses_are_one_line(tmp_path, url):
    with pytest.raises(InputError, match=r"^could not download [^\n]*fetch got by hand[^\n]*$"):
        download(RemoteFile("got", url), tmp_path / "got", nothing, "here")


def test_a_download_that_has_no_place_says_so(server, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "got").mkdir()
    for target in (tmp_path / "file" / "got", tmp_path / "got"):
        with pytest.raises(InputError, match="could not download"):
            download(RemoteFile("got", server[1]), target, nothing, "here")


# ---------------------------------------------------------------- archives


FILES = {"a/b.txt": b"hello" * 50, "c.bin": bytes(range(256)) * 3, "a/empty": b""}


def tarred(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
            else:
                entry.size = len(content)
            archive.addfile(entry, None if content is None else io.BytesIO(content))
    return path


def zipped(path, files, compression=zipfile.ZIP_DEFLATED):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name) if content is None else name, content or b"", compression)
    return path


def packed(folder, kind):
    if kind.endswith("zip"):
        compression = {"zip": zipfile.ZIP_DEFLATED, "bzip2.zip": zipfile.ZIP_BZIP2, "lzma.zip": zipfile.ZIP_LZMA}[kind]
        return zipped(folder / f"set.{kind}", FILES.items(), compression)
    return tarred(folder / f"set.{kind}", FILES.items(), f"w:{kind.removeprefix('tar.')}")


def unpacked(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "bzip2.zip", "lzma.zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_flipped_bit_or_a_cut_never_unpacks_as_if_it_were_whole(tmp_path, kind):
    archive = packed(tmp_path, kind)
    whole = archive.read_bytes()
    extract(archive, tmp_path / "whole")
    assert unpacked(tmp_path / "whole") == FILES
    refused = 0
    for index in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[index] ^= 1 << index % 8
        for broken in (bytes(flipped), whole[:index]):
            archive.write_bytes(broken)
            try:
                extract(archive, tmp_path / "inside")
            except InputError as error:
                refused += 1
                assert str(archive) in str(error) and "\n" not in str(error) and not (tmp_path / "inside").exists()
            else:  # of what nobody reads, such as dates
                assert unpacked(tmp_path / "inside") == FILES
                shutil.rmtree(tmp_path / "inside")
    assert refused > 1.6 * len(range(0, len(whole), 7)) and len(list(tmp_path.iterdir())) == 2


def test_a_broken_header_does_not_end_a_tar_file_silently(tmp_path):
    archive = tarred(tmp_path / "a.tar", FILES.items())
    whole = archive.read_bytes()
    second = whole.index(b"c.bin")
    for broken in (whole[:second] + b"x" + whole[second + 1 :], whole[:second], whole[: second + 100]):
        archive.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.tar: a broken archive"):
            extract(archive, tmp_path / "inside")
        assert not (tmp_path / "inside").exists()


def test_encrypted_and_unknown_archives_say_what_to_do(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("file", b"content")], zipfile.ZIP_STORED)
    whole = archive.read_bytes()
    central = whole.index(b"PK\x01\x02")
    for place, value, message in ((8, 1, "encrypted"), (10, 9, "unknown kind"), (6, 99, "unknown kind")):
        changed = bytearray(whole)
        changed[central + place] = value
        if place != 6:
            changed[place - 2] = value
        archive.write_bytes(changed)
        with pytest.raises(InputError, match=rf"a\.zip.*{message}.*source=FOLDER"):
            extract(archive, tmp_path / "inside")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(InputError, match="neither a zip nor a tar"):
        extract(archive, tmp_path / "inside")
    assert not (tmp_path / "inside").exists()


@pytest.mark.parametrize("write", [zipped, tarred])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a", b"1"), ("a", b"2")], "two members"),
        ([("a", b"1"), ("./a", b"2")], "two members"),
        ([("a", b"1"), ("a/b", b"2")], "both a file and a folder"),
        ([("a/b", b"1"), ("a", b"2")], "both a file and a folder"),
        ([("a", b"1"), ("a/", None)], "both a file and a folder"),
        ([(".", b"1")], "both a file and a folder"),
        ([("a/", None)], "without files"),
        ([], "without files"),
        ([("a" * 300, b"1")], "could not be unpacked"),
        ([("\\\\server\\share", b"1")], "outside of the folder"),
        ([("C:secret", b"1")], "outside of the folder"),
        ([("..\\a", b"1")], "outside of the folder"),
    ],
    ids=by_message,
)
def test_members_without_a_place_of_their_own_are_refused(tmp_path, write, files, message):
    archive = write(tmp_path / "a.archive", files)
    with pytest.raises(InputError, match=rf"a\.archive.*{message}"):
        extract(archive, tmp_path / "inside")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_zip_in_a_tar_file_is_a_file(tmp_path):
    inner = zipped(tmp_path / "inner.zip", [("file", b"x")])
    archive = tarred(tmp_path / "outer.tar", [("first", b"1"), ("inner.zip", inner.read_bytes())])
    extract(archive, tmp_path / "inside")
    assert sorted(unpacked(tmp_path / "inside")) == ["first", "inner.zip"]


def test_archives_of_more_than_there_is_room_for_are_refused(tmp_path, monkeypatch):
    archive = packed(tmp_path, "zip")
    monkeypatch.setattr("sfdfd.io.archives.MOST_MEMBERS", 2)
    for one in (archive, packed(tmp_path, "tar.gz")):
        with pytest.raises(InputError, match=r"at most 2 members"):
            extract(one, tmp_path / "inside")
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10_000, 9_000, 1_000))
    with pytest.raises(InputError, match=r"holds 1018 bytes.*room for 1000"):
        extract(archive, tmp_path / "inside")
    assert not (tmp_path / "inside").exists()


def test_archives_that_lie_in_a_given_folder_are_opened(tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "loose").write_text("x")
    zipped(folder / "one.zip", [("one", b"1")])
    tarred(folder / "two.tar.gz", [("two", b"2")], "w:gz")
    (folder / "three.bin").write_bytes(bytes(1024))  # an empty tar file, by its content
    zipped(folder / "four.zip", [("four", b"4")])
    (folder / "four").mkdir()
    (folder / "four" / "four").write_text("4")  # unpacked already
    with opened([folder], tmp_path / "scratch") as folders:
        found = [sorted(unpacked(content)) for content in folders[1:]]
        assert folders[0] == folder and found == [["one"], ["two"]]
        assert [content.name for content in folders[1:]] == ["one", "two"]
    assert not (tmp_path / "scratch").exists()
    (folder / "two.tar.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"two\.tar\.gz"), opened([folder], tmp_path / "scratch"):
        pass
    assert not (tmp_path / "scratch").exists()


# ---------------------------------------------------------------- folders


def test_a_folder_is_whole_or_not_there(tmp_path):
    root = tmp_path / "set"
    with pytest.raises(RuntimeError), aside(root, {}) as part:
        (part / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".set.part").mkdir()  # what a killed run leaves
    (tmp_path / ".set.part" / "old").write_text("x")
    with aside(root, {"data": "x"}) as part:
        (part / "new").write_text("x")
    assert sorted(path.name for path in root.iterdir()) == [MANIFEST, "new"] and read_manifest(root) == {"data": "x"}


def filled(root, record):
    with aside(root, record) as part:
        (part / "rgb").mkdir()
        (part / "rgb" / "x").write_text("x")
        (part / "z").write_text("z")
    return root


@pytest.mark.parametrize("there", [True, False], ids=["folder", "dangling"])
def test_a_link_to_a_folder_is_worked_at_its_target(tmp_path, there):
    target, root = tmp_path / "disk" / "target", tmp_path / "root"
    if there:
        target.mkdir(parents=True)
    root.symlink_to(target)
    filled(root, {"data": "x"})
    assert root.is_symlink() and sorted(p.name for p in target.iterdir()) == [MANIFEST, "rgb", "z"]
    assert (
        sorted(p.name for p in tmp_path.iterdir()) == ["disk", "root"] and len(list((tmp_path / "disk").iterdir())) == 1
    )


def fail_to(monkeypatch, name, wanted, code):
    """What ``name`` of Path does to paths of which ``wanted`` says so fails."""
    real = getattr(Path, name)

    def failing(self, *arguments, **options):
        if wanted(self, *arguments):
            raise OSError(code, os.strerror(code), str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, name, failing)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY])
def test_a_mount_point_is_filled_and_its_manifest_comes_last(tmp_path, monkeypatch, code):
    root = tmp_path / "root"
    (root / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == root)
    fail_to(monkeypatch, "rmdir", lambda path: path == root, code)
    fail_to(monkeypatch, "rename", lambda path, target: root in (path, Path(target)), code)
    fail_to(monkeypatch, "mkdir", lambda path, *_: path.parent == tmp_path, errno.EROFS)
    moved, rename = [], Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, target: (moved.append(path.name), rename(path, target))[1])
    filled(root, {"data": "x"})
    assert sorted(p.name for p in root.iterdir()) == ["lost+found", MANIFEST, "rgb", "z"]
    assert moved[-1] == MANIFEST and read_manifest(root) == {"data": "x"}


@pytest.mark.parametrize("there", [True, False], ids=["in it", "beside it"])
def test_a_disk_that_is_full_at_the_very_end_loses_nothing(tmp_path, monkeypatch, there):
    """Of what takes long to make, the next call makes nothing again; a call that is killed after the manifest neither."""
    root, plan = tmp_path / "root", {"samples": 4}
    if there:
        root.mkdir()
    with monkeypatch.context() as patch:
        fail_to(patch, "write_text", lambda path, *_: MANIFEST in path.name, errno.ENOSPC)
        with pytest.raises(InputError, match="run the command again"), continued(root, {"data": "x"}, plan) as part:
            (part / "scene").write_text("traced for days")
    assert half_made(root) == plan
    with monkeypatch.context() as patch:
        fail_to(patch, "unlink", lambda path, *_: path.name == "plan.json", errno.EIO)
        with pytest.raises(InputError, match="could not be moved"), continued(root, {"data": "x"}, plan) as part:
            assert (part / "scene").read_text() == "traced for days"
    finish(root)
    assert sorted(path.name for path in root.iterdir()) == [MANIFEST, "scene"] and read_manifest(root) == {"data": "x"}


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY, errno.ENOSPC])
@pytest.mark.parametrize("there", [True, False], ids=["in it", "beside it"])
def test_a_whole_data_set_that_cannot_be_moved_is_kept_and_finished_by_the_next_call(
    tmp_path, monkeypatch, there, code
):
    root = tmp_path / "root"
    if there:
        root.mkdir()
    part = root / ".part" if there else tmp_path / ".root.part"
    with monkeypatch.context() as patch:
        fail_to(patch, "rename", lambda path, target: path.name in ("z", ".root.part"), code)
        with pytest.raises(InputError, match=rf"{part} holds the whole data set.*could not be moved to {root}"):
            filled(root, {"data": "x"})
        assert (part / "z").read_text() == "z" and read_manifest(root) is None
        with pytest.raises(InputError, match=r"holds the whole data set"):
            finish(root)
    with pytest.raises(InputError, match=rf"{part} holds a whole data set"):
        filled(root, {"data": "again"})
    finish(root)
    assert read_manifest(root) == {"data": "x"}
    assert sorted(unpacked(root)) == [MANIFEST, "rgb/x", "z"] and [p.name for p in tmp_path.iterdir()] == ["root"]


def test_what_a_killed_run_left_in_a_folder_is_no_obstacle(tmp_path):
    (tmp_path / "root" / ".part" / "rgb").mkdir(parents=True)
    finish(tmp_path / "root")
    check_vacant(tmp_path / "root")
    filled(tmp_path / "root", {})
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == [MANIFEST, "rgb", "z"]


def test_a_place_that_cannot_be_written_to_is_said_before_anything_is_done(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    fail_to(monkeypatch, "mkdir", lambda path, *_: path == tmp_path / "empty" / ".part", errno.EROFS)
    for root, message in (
        ("file", "exists, but was not made by this command"),
        ("full", "exists, but was not made by this command"),
        ("file/below", r"data\.root"),
        ("empty", r"data\.root.*Read-only"),
        ("loop", r"data\.root"),
    ):
        with pytest.raises(InputError, match=message), aside(tmp_path / root, {}):
            raise AssertionError("begun")
    assert (tmp_path / "full" / "x").exists() and (tmp_path / "empty").is_dir()


def test_a_manifest_that_is_none_is_said(tmp_path):
    for content in (b"{", b"\xff\xfe", b"[1]"):
        (tmp_path / MANIFEST).write_bytes(content)
        with pytest.raises(InputError, match=r"manifest\.json.*prepare it again"):
            read_manifest(tmp_path)


# ---------------------------------------------------------------- DefocusNet


def defocusnet_scene(folder, number, slices=range(5)):
    openexr = pytest.importorskip("OpenEXR")
    folder.mkdir(parents=True, exist_ok=True)
    for index in slices:
        Image.fromarray(image()).save(folder / f"{number:06d}_{index:02d}All.tif")
    depth = RNG.uniform(0.1, 2.5, (24, 32)).astype(np.float16)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, dict.fromkeys("RGB", depth)) as file:
        file.write(str(folder / f"{number:06d}Dpt.exr"))
    return depth


@pytest.fixture
def defocusnet(tmp_path):
    folder = tmp_path / "fs_6"
    depth = {number: defocusnet_scene(folder, number) for number in (0, 1, 399, 400)}
    Image.fromarray(image()).save(folder / "000400Aif.tif")
    return folder, depth


def test_defocusnet(defocusnet, tmp_path):
    folder, depth = defocusnet
    root = converted("defocusnet", [folder], tmp_path / "out")
    module = StacksDataModule(str(root), split="test")
    stack = module.dataset("test")[0]
    assert stack.focus_distances_m[0].tolist() == pytest.approx([0.1, 0.15, 0.3, 0.7, 1.5])
    np.testing.assert_allclose(stack.depth_m[0].numpy(), depth[400].astype(np.float32))
    assert stack.aif is not None and stack.camera[0].f_number == 1.0
    assert [len(module.dataset(split)) for split in ("train", "val", "test")] == [2, 1, 1]
    low = StacksDataModule(str(root), far_mask_m=0.5).dataset("test")[0]
    assert torch.equal(low.valid, stack.valid & (stack.depth_m <= 0.5)) and not torch.equal(low.valid, stack.valid)


def splits_of(root):
    return {path.stem: path.read_text().split() for path in (root / "splits").iterdir()}


def test_defocusnet_takes_the_split_from_folders_that_name_it(tmp_path):
    for split in ("train", "test"):
        for number in (1, 500):
            defocusnet_scene(tmp_path / "fs_6" / split, number)
    root = converted("defocusnet", [tmp_path / "fs_6"], tmp_path / "out")
    assert splits_of(root) == {
        "train": ["train_000001"],
        "val": ["train_000500"],
        "test": ["test_000001", "test_000500"],
    }
    first = np.asarray(Image.open(tmp_path / "fs_6" / "test" / "000001_00All.tif"))
    np.testing.assert_array_equal(iio.imread(root / "test_000001" / "slice_00.png"), first)


def test_defocusnet_scenes_of_one_number_are_told_apart_by_their_folders(tmp_path):
    for folder in ("a", "b"):
        defocusnet_scene(tmp_path / "fs_6" / folder, 401)
    root = converted("defocusnet", [tmp_path / "fs_6"], tmp_path / "out")
    assert splits_of(root) == {"train": [], "val": [], "test": ["a_000401", "b_000401"]}


def test_defocusnet_passes_over_what_is_no_slice_and_names_a_slice_without_focus(tmp_path):
    folder = tmp_path / "fs_6"
    defocusnet_scene(folder, 1)
    (folder / "000001_0aAll.tif").write_text("no slice")
    root = converted("defocusnet", [folder], tmp_path / "out")
    assert len(yaml.safe_load((root / "000001" / "stack.yaml").read_text())["files"]) == 5
    for name, message in (("000001_06All.tif", "from 00 to 05"), ("000001_4All.tif", "is slice 4, too")):
        Image.fromarray(image()).save(folder / name)
        with pytest.raises(InputError, match=f"{name}.*{message}"):
            converted("defocusnet", [folder], tmp_path / "again")
        (folder / name).unlink()
    Image.fromarray(image(24, 48)).save(folder / "000001_04All.tif")
    with pytest.raises(InputError, match="000001: slices and AIF of one size"):
        converted("defocusnet", [folder], tmp_path / "again")


# ---------------------------------------------------------------- DDFF-12


@pytest.fixture
def ddff12(tmp_path):
    h5py = pytest.importorskip("h5py")
    disparity = RNG.uniform(0.02, 0.28, (2, 24, 32)).astype(np.float32)
    disparity[0, :3] = 0
    with h5py.File(tmp_path / "my_ddff_trainVal.h5", "w") as file:
        for split in ("train", "val"):
            file[f"stack_{split}"] = RNG.uniform(0, 255, (2, 10, 24, 32, 3)).astype(np.float32)
            file[f"disp_{split}"] = disparity
    return tmp_path / "my_ddff_trainVal.h5", disparity


def test_ddff12(ddff12, tmp_path):
    source, disparity = ddff12
    root = converted("ddff12", [source], tmp_path / "out")
    stack = StacksDataModule(str(root)).dataset("val")[0]
    focus = stack.focus_distances_m[0].numpy()
    np.testing.assert_allclose(focus[[0, -1]], [0.504, 7.062], rtol=2e-3)  # 0.5 to 7 m, as the authors say
    assert stack.images.shape == (1, 10, 3, 24, 32)
    known = disparity[0] > 0
    assert not stack.valid[0].numpy()[~known].any()
    np.testing.assert_allclose(
        stack.depth_m[0].numpy()[known], 1 / (disparity[0][known] / (FOCAL_PX * BASELINE_M)), rtol=1e-5
    )
    np.testing.assert_allclose(depth_of_disparity_m(depth_of_disparity_m(disparity)), disparity, rtol=1e-6)
    h5py = pytest.importorskip("h5py")
    with h5py.File(source) as file, h5py.File(tmp_path / "other.h5", "w") as other:  # colour before height
        for key in file:
            other[key] = file[key][:].transpose(0, 1, 4, 2, 3) if key.startswith("stack") else file[key][:]
    again = StacksDataModule(str(converted("ddff12", [tmp_path / "other.h5"], tmp_path / "again"))).dataset("val")[0]
    assert torch.equal(again.images, stack.images)
    # a slice averages nine views: a point one pixel of disparity off its focus is spread over nine pixels, a radius of 4.5
    camera = stack.camera[0]
    assert camera.blur_scale_px_m / (FOCAL_PX * BASELINE_M) == pytest.approx(4.5, rel=0.02)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("disp_val", lambda a: a[:1], "2 of stack_val, but 1 of disp_val"),
        ("disp_val", lambda a: a[:, 1:], "disp_val N x H x W"),
        ("stack_train", lambda a: a[..., :2], "stack_train N x S"),
        ("stack_train", lambda a: a[:, :1], "stack_train N x S"),
        ("stack_train", lambda a: a[:0], "stack_train N x S"),
        ("stack_train", lambda a: np.full_like(a, np.nan), "finite values from 0 to 255"),
        ("stack_train", lambda a: a / 255, "finite values from 0 to 255"),
        ("stack_train", lambda a: None, "stack_train and disp_train"),
        ("stack_train", lambda a: np.bytes_(b"text"), "stack_train and disp_train"),
    ],
    ids=by_message,
)
def test_ddff12_that_is_not_as_published_is_refused(ddff12, tmp_path, key, change, message):
    source, _ = ddff12
    h5py = pytest.importorskip("h5py")
    with h5py.File(source, "r+") as file:
        changed = change(file[key][:])
        del file[key]
        if changed is not None:
            file[key] = changed
    with pytest.raises(InputError, match=rf"my_ddff_trainVal\.h5.*{message}"):
        converted("ddff12", [source], tmp_path / "out")


def test_hdf5_is_found_in_the_folder_or_archive_that_is_given(ddff12, tmp_path):
    source, _ = ddff12
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(source, "folder/file.h5")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "set.zip").write_bytes((tmp_path / "set.zip").read_bytes())
    for index, given in enumerate((source, tmp_path / "set.zip", tmp_path / "given")):
        root = converted("ddff12", [given], tmp_path / f"out{index}")
        assert sorted(path.name for path in root.iterdir() if path.name != MANIFEST) == [
            "splits",
            *(f"{split}_{i:04d}" for split in ("train", "val") for i in range(2)),
        ]
    (tmp_path / "given" / "other.h5").write_bytes(source.read_bytes())
    with pytest.raises(InputError, match=r"found other\.h5, file\.h5; give it as source=FILE"):
        converted("ddff12", [tmp_path / "given"], tmp_path / "out")


def test_hdf5_that_breaks_in_the_middle_is_one_line(ddff12, tmp_path):
    source, _ = ddff12
    h5py = pytest.importorskip("h5py")
    with h5py.File(source, "r+") as file:
        stored = file["stack_val"][:]
        del file["stack_val"]
        file.create_dataset("stack_val", data=stored, chunks=(1, *stored.shape[1:]), compression="gzip")
        where = file["stack_val"].id.get_chunk_info(1).byte_offset
    content = bytearray(source.read_bytes())
    content[where : where + 200] = bytes(200)
    source.write_bytes(content)
    with pytest.raises(InputError, match=r"my_ddff_trainVal\.h5: /stack_val\[1\] is not readable"):
        converted("ddff12", [source], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- NYU


def nyu_file(path, **changed):
    h5py = pytest.importorskip("h5py")
    content = {
        "images": RNG.integers(0, 255, (2, 3, 8, 6), dtype=np.uint8),
        "depths": np.full((2, 8, 6), 2.0, np.float32),
        "rawDepths": np.full((2, 8, 6), 2.0, np.float32),
        **changed,
    }
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file[key] = values
    return path


def test_depth_that_16_bits_cannot_hold_is_unknown_everywhere(tmp_path):
    depths = np.full((2, 8, 6), 2.0, np.float32)
    depths[0, :, 0] = (65.535, 65.5354, 65.536, 70, np.inf, np.nan, -1, 0)
    depths[1, 0, 0] = 1e-5
    source = nyu_file(tmp_path / "labeled.mat", depths=depths[:, :1].repeat(8, 1), rawDepths=depths)
    write_depth(tmp_path / "depth.png", depths[0])
    assert iio.imread(tmp_path / "depth.png")[:, 0].tolist() == [65535, 65535, 0, 0, 0, 0, 0, 0]
    root = converted("nyu", [source], tmp_path / "out")
    assert iio.imread(root / "raw_depth" / "0000.png")[0].tolist() == [65535, 0, 0, 0]
    assert iio.imread(root / "raw_depth" / "0001.png")[0].tolist() == [1, 2000, 2000, 2000]
    write_depth(tmp_path / "fine.png", np.array([[6.5535, 6.5536, 6.6]]), 1e-4)
    assert iio.imread(tmp_path / "fine.png").tolist() == [[65535, 0, 0]]


@pytest.mark.parametrize(
    "changed",
    [
        {"images": np.zeros((0, 3, 8, 6), np.uint8), "depths": np.zeros((0, 8, 6))},
        {"images": np.zeros((2, 3, 8, 6), np.float32)},
        {"images": np.zeros((2, 3, 1, 6), np.uint8), "depths": np.zeros((2, 1, 6)), "rawDepths": np.zeros((2, 1, 6))},
        {"depths": np.zeros((1, 8, 6))},
        {"rawDepths": np.zeros((1, 8, 6))},
        {"images/group": np.zeros(3)},
    ],
    ids=by_message,
)
def test_nyu_that_is_not_as_published_is_refused(tmp_path, changed):
    if "images/group" in changed:
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "labeled.mat", "w") as file:
            file["images/group"] = changed["images/group"]
    else:
        nyu_file(tmp_path / "labeled.mat", **changed)
    with pytest.raises(InputError, match=r"labeled\.mat: expected images N x 3 x W x H uint8"):
        converted("nyu", [tmp_path / "labeled.mat"], tmp_path / "out")


# ---------------------------------------------------------------- Mobile Depth


@pytest.fixture
def mobile_depth(tmp_path):
    folder = tmp_path / "mobile"
    aligned = folder / "Aligned" / "Figure6" / "metals"
    aligned.mkdir(parents=True)
    for index in range(3):
        iio.imwrite(aligned / f"a{index:02d}.jpg", image(48, 64))
        iio.imwrite(aligned / f"{index:02d}.jpg", image(48, 64))
    calibration = folder / "calibration" / "metal"
    calibration.mkdir(parents=True)
    (calibration / "calibrated.txt").write_text("10.0 1.1\n20.0 1.1\n40000.0 1.1\n1200.5\n")
    return folder


def test_mobile_depth(mobile_depth, tmp_path):
    root = converted("mobile_depth", [mobile_depth], tmp_path / "out")
    described = yaml.safe_load((root / "metals" / "stack.yaml").read_text())
    assert described["focus_distances_m"] == [float("inf"), pytest.approx(0.508), pytest.approx(0.254)]
    assert len(described["files"]) == 3 and described["camera"]["f_number"] is None and "truth" not in described
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for file in mobile_depth.rglob("*.*"):
            archive.write(file, file.relative_to(mobile_depth))
    again = converted("mobile_depth", [tmp_path / "two.zip"], tmp_path / "again")
    assert (again / "metals" / "stack.yaml").read_text() == (root / "metals" / "stack.yaml").read_text()
    assert sorted(path.name for path in again.iterdir()) == [MANIFEST, "metals", "splits"]


def test_mobile_depth_slices_stand_in_the_order_of_their_numbers(tmp_path):
    aligned, calibration = tmp_path / "set" / "Aligned" / "bags", tmp_path / "set" / "calibration" / "bags"
    aligned.mkdir(parents=True)
    calibration.mkdir(parents=True)
    for index in range(1, 12):
        iio.imwrite(aligned / f"a{index}.jpg", np.full((24, 32, 3), 20 * index, np.uint8))
    (calibration / "calibrated.txt").write_text("".join(f"{10 * i} 1.1\n" for i in range(1, 12)) + "1200.5\n")
    root = converted("mobile_depth", [tmp_path / "set"], tmp_path / "out")
    described = yaml.safe_load((root / "bags" / "stack.yaml").read_text())
    assert described["focus_distances_m"] == pytest.approx([0.254 * i for i in range(1, 12)])
    shown = [iio.imread(root / "bags" / file).mean() / 20 for file in described["files"]]
    assert shown == pytest.approx(range(1, 12), abs=0.1)


def test_mobile_depth_in_two_archives_in_one_folder_is_found(mobile_depth, tmp_path):
    expected = converted("mobile_depth", [mobile_depth], tmp_path / "expected")
    (tmp_path / "given").mkdir()
    for name, part in (("data2.zip", "Aligned"), ("data3.tar.gz", "calibration")):
        shutil.make_archive(
            str(tmp_path / "given" / name.split(".")[0]), "zip" if name.endswith("zip") else "gztar", mobile_depth, part
        )
    for index, given in enumerate(([tmp_path / "given"], sorted((tmp_path / "given").iterdir()))):
        root = converted("mobile_depth", given, tmp_path / "given" / f"out{index}")  # beside the archives
        assert unpacked(root) == unpacked(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\x00", "not readable as text"),
        (b"10 1.1\n20 1.1\nnear 1.1\n1200\n", "expected numbers"),
        (b"10 1.1\n20 1.1\nnan 1.1\n1200\n", "other than 0, got nan"),
        (b"10 1.1\n0 1.1\n30 1.1\n1200\n", "other than 0, got 0"),
        (b"10 1.1\n1200\n", "got 2 lines"),
        (b"10 1.1\n20 1.1\n1200\n", "2 distances for 3 slices"),
        (b"1e9 1.1\n1e9 1.1\ninf 1.1\n1200\n", "expected a focus distance below"),
    ],
    ids=by_message,
)
def test_mobile_depth_calibrations_that_are_none_are_named(mobile_depth, tmp_path, text, message):
    (mobile_depth / "calibration" / "metal" / "calibrated.txt").write_bytes(text)
    with pytest.raises(InputError, match=rf"calibrated\.txt.*{message}"):
        converted("mobile_depth", [mobile_depth], tmp_path / "out")


def test_mobile_depth_scenes_that_are_there_twice_are_named(mobile_depth, tmp_path):
    shutil.copytree(mobile_depth / "Aligned" / "Figure6", mobile_depth / "Aligned" / "Figure7")
    with pytest.raises(InputError, match=r"two folders of metals: .*Figure6.*Figure7"):
        converted("mobile_depth", [mobile_depth], tmp_path / "out")


# ---------------------------------------------------------------- Middlebury


def middlebury_scene(scene, disparity):
    scene.mkdir(parents=True)
    iio.imwrite(scene / "im0.png", image(*disparity.shape))
    write_pfm(scene / "disp0.pfm", disparity)
    (scene / "calib.txt").write_text(
        "cam0=[3979.911 0 1244.772; 0 3979.911 1019.507; 0 0 1]\ncam1=[3979.911 0 1369.115; 0 3979.911 1019.507; 0 0 1]\n"
        "doffs=124.343\nbaseline=193.001\nwidth=2964\nheight=2000\n"
    )
    return scene


def test_middlebury(tmp_path):
    disparity = RNG.uniform(20, 200, (30, 40)).astype(np.float32)
    disparity[:2] = np.inf
    scene = middlebury_scene(tmp_path / "zips" / "Motorcycle-perfect", disparity)
    np.testing.assert_array_equal(read_pfm(scene / "disp0.pfm"), disparity)
    calibration = {"focal_px": 3979.911, "baseline_mm": 193.001, "doffs": 124.343}
    expected = 0.193001 * 3979.911 / (disparity[2:] + 124.343)
    np.testing.assert_allclose(depth_of_scene_m(disparity, calibration)[2:], expected, rtol=1e-6)
    root = converted("middlebury", [tmp_path / "zips"], tmp_path / "out")
    module = RGBDDataModule(
        str(root),
        depth_unit_m=1e-4,
        renderer=DefocusRenderer(),
        camera=CAMERA,
        focus_distances_m=FOCUS_M,
        near_m=0.5,
        far_m=10.0,
    )
    stack = module.dataset("test")[0]
    assert stack.name == ("Motorcycle",) and not stack.valid[0, :2].any() and stack.valid[0, 2:].all()
    np.testing.assert_allclose(stack.depth_m[0, 2:].numpy(), expected, atol=6e-5)


def test_middlebury_depth_beyond_its_units_is_unknown_and_so_is_what_lies_behind_the_camera(tmp_path):
    disparity = np.full((24, 32), 100, np.float32)
    disparity[0, :4] = -20, -124.343, -200, np.nan  # 7.36 m, infinitely far, behind, nothing
    middlebury_scene(tmp_path / "set" / "Piano", disparity)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = converted("middlebury", [tmp_path / "set"], tmp_path / "out")
    stored = iio.imread(root / "depth" / "Piano.png")
    assert (stored[0, :4] == 0).all() and (stored[1:] == round(0.193001 * 3979.911 / 224.343 * 1e4)).all()


def test_middlebury_archives_in_one_folder_are_found(tmp_path):
    for name in ("Piano-perfect", "Pipes-perfect", "Motorcycle-perfect", "Motorcycle-imperfect"):
        middlebury_scene(tmp_path / "scenes" / name, RNG.uniform(20, 200, (24, 32)).astype(np.float32))
    expected = converted("middlebury", [tmp_path / "scenes"], tmp_path / "expected")
    names = ["Motorcycle-imperfect", "Motorcycle-perfect", "Piano", "Pipes"]
    assert sorted(path.stem for path in (expected / "rgb").iterdir()) == names
    given = tmp_path / "given"
    given.mkdir()
    for scene in (tmp_path / "scenes").iterdir():
        shutil.make_archive(str(given / scene.name), "zip", tmp_path / "scenes", scene.name)
    shutil.copytree(tmp_path / "scenes" / "Piano-perfect", given / "Piano-perfect")  # one is unpacked already
    shutil.copytree(tmp_path / "scenes" / "Pipes-perfect", given / ".trash" / "Pipes-perfect")
    root = converted("middlebury", [given], given / "out")
    assert unpacked(root) == unpacked(expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PF\n2 2\n-1\n" + bytes(48),
        b"Pf\n2 2\n-1\n" + bytes(15),
        b"Pf\n2 2\n-1\n" + bytes(20),
        b"Pf\n0 2\n-1\n",
        b"Pf\n999999 999999\n-1\n" + bytes(16),
        b"Pf\n99999999999999999999 1\n-1\n",
        b"Pf\n2 2\nscale\n" + bytes(16),
        b"Pf\n2 2\n\xff\n" + bytes(16),
        b"Pf\n" + b"2" * 1000,
    ],
    ids=by_message,
)
def test_float_maps_whose_headers_lie_are_refused(tmp_path, content):
    (tmp_path / "disp0.pfm").write_bytes(content)
    with pytest.raises(InputError, match=r"disp0\.pfm: (not a portable float map|\d+ bytes for \d+ x \d+ pixels)"):
        read_pfm(tmp_path / "disp0.pfm")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"cam0=[3979.911", b"cam0=[1.2.3", "focal_px"),
        (b"baseline=193.001", b"baseline=-1", "baseline_mm"),
        (b"baseline=193.001", b"baseline=0", "baseline_mm"),
        (b"doffs=124.343", b"doffs=nan", "doffs"),
        (b"doffs=124.343", b"", "doffs"),
        (b"doffs", b"\xff\xfe", "not readable as text"),
    ],
    ids=by_message,
)
def test_middlebury_calibrations_that_are_none_are_named(tmp_path, old, new, message):
    scene = middlebury_scene(tmp_path / "set" / "Piano", np.full((24, 32), 100, np.float32))
    calibration = scene / "calib.txt"
    calibration.write_bytes(calibration.read_bytes().replace(old, new))
    with pytest.raises(InputError, match=rf"calib\.txt.*{message}"):
        converted("middlebury", [tmp_path / "set"], tmp_path / "out")


# ---------------------------------------------------------------- ZEDD


@pytest.fixture
def zedd(tmp_path):
    folder = tmp_path / "ZEDD"
    motors = {1: ("6D3E", 0.82), 2: ("4EA8", 1.2), 5: ("2371", 3.0)}
    folder.mkdir()
    (folder / "metadata.txt").write_text(
        "# run\tmotor\tfocus\n" + "".join(f"run_{k}\t{m}\t{f}\n" for k, (m, f) in motors.items())
    )
    depth = RNG.uniform(0.8, 9, (60, 90)).astype(np.float32)
    depth[0] = 0
    for scene, truth in (("val/val_0001", True), ("test/test_0001", False)):
        (folder / scene / "focus_stack").mkdir(parents=True)
        (folder / scene / "gt").mkdir()
        for run, (motor, _) in motors.items():
            for stop in ("1.4", "2.8", "16.0"):
                iio.imwrite(
                    folder / scene / "focus_stack" / f"img_run_{run}_motor_{motor}_aperture_F{stop}.jpg", image(60, 90)
                )
        np.savetxt(folder / scene / "gt" / "K.txt", np.array([[125.0, 0, 45], [0, 125.0, 30], [0, 0, 1]]))
        if truth:
            np.save(folder / scene / "gt" / "depth.npy", depth)
    return folder, depth


def test_zedd_and_its_submission(zedd, tmp_path):
    folder, depth = zedd
    root = converted("zedd", [folder], tmp_path / "out")
    module = StacksDataModule(str(root))
    stack = module.dataset("val")[0]
    assert stack.focus_distances_m[0].tolist() == pytest.approx([0.82, 1.2, 3.0]) and stack.aif is not None
    camera = stack.camera[0]
    assert (
        camera.focal_length_m == pytest.approx(0.05)
        and camera.f_number == 2.8
        and camera.pixel_pitch_m == pytest.approx(4e-4)
    )
    assert torch.equal(stack.valid[0], torch.from_numpy((depth >= 0.5) & (depth <= 20)))
    assert module.dataset("test")[0].depth_m is None
    with pytest.raises(InputError, match="50 depth maps"):
        write_submission(tmp_path / "s.zip", [depth])
    write_submission(tmp_path / "s.zip", [np.ones((12, 18))] * 50)
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == [f"zedd_output_{i:04d}.npy" for i in range(1, 51)]
        values = np.load(io.BytesIO(archive.read("zedd_output_0050.npy")))
    assert values.shape == (1216, 1824) and values.dtype == np.float32
    bad = [np.ones((12, 18))] * 49 + [np.full((12, 18), np.nan)]
    with pytest.raises(InputError, match="not finite"):
        write_submission(tmp_path / "bad.zip", bad)
    with pytest.raises(InputError, match=r"depth map 50.*not H x W"):
        write_submission(tmp_path / "s.zip", [*bad[:49], np.ones((2, 12, 18))])
    assert not list(tmp_path.glob("*bad*")) and zipfile.is_zipfile(tmp_path / "s.zip")


def test_zedd_scenes_of_one_name_are_told_apart_by_their_split(zedd, tmp_path):
    folder, _ = zedd
    for split in ("val", "test"):
        (folder / split / f"{split}_0001").rename(folder / split / "scene 1")
    root = converted("zedd", [folder], tmp_path / "out")
    assert splits_of(root) == {"train": ["test_scene_1"], "val": ["val_scene_1"], "test": ["test_scene_1"]}


LISTED = "run_1\t6D3E\t0.82\nrun_2\t4EA8\t1.2\nrun_5\t2371\t3.0\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.txt", LISTED + "run_2\t4EA8\t1.3\n", "one focus distance per run"),
        ("metadata.txt", LISTED + "run_3\t4EA8\t1.2\n", "one focus distance per run"),
        ("metadata.txt", LISTED.replace("1.2", "nan"), "positive number"),
        ("metadata.txt", LISTED.replace("1.2", "0"), "positive number"),
        ("metadata.txt", LISTED.replace("\t", " "), "between tabs"),
        ("metadata.txt", b"\xff\xfe", "not readable as text"),
        ("metadata.txt", "run_1\t6D3E\t0.82\n", r"run_2.*metadata\.txt"),
        ("val/metadata.txt", LISTED.replace("1.2", "1.3"), "other focus distances"),
        ("val/val_0001/gt/K.txt", "", "3 x 3 numbers, got 0"),
        ("val/val_0001/gt/K.txt", "x 0 0\n0 1 0\n0 0 1\n", "positive number"),
        ("val/val_0001/gt/K.txt", "-5 0 0\n0 1 0\n0 0 1\n", "positive number"),
        ("val/val_0001/gt/depth.npy", b"no array", "H x W metres"),
        ("val/val_0001/gt/depth.npy", np.zeros((60, 90, 2)), "H x W metres"),
        ("val/val_0001/gt/depth.npy", np.array([[{}]]), "H x W metres"),
        ("val/val_0001/gt/depth.npy", np.zeros((60, 60)), "but slices of 60 x 90"),
        ("val/val_0001/focus_stack/img_run_x_motor_1_aperture_F2.8.jpg", b"x", "expected img_run_K"),
        ("val/val_0001/focus_stack/img_run_2_motor_1_aperture_F2.80.jpg", b"x", "is run_2 at f/2.8, too"),
    ],
    ids=by_message,
)
def test_zedd_that_is_not_as_published_is_refused(zedd, tmp_path, name, content, message):
    folder, _ = zedd
    if isinstance(content, np.ndarray):
        np.save(folder / name, content, allow_pickle=True)
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"{Path(name).name}.*{message}|{message}"):
        converted("zedd", [folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- light fields


def shifted_views(texture, disparity, views=9):
    """A plane of constant disparity: as the camera goes right (or down), its texture goes left (or up)."""
    middle = views // 2
    rows = [
        [np.roll(texture, (-disparity * (v - middle), -disparity * (u - middle)), (0, 1)) for u in range(views)]
        for v in range(views)
    ]
    return np.array(rows)


def test_refocusing_makes_the_plane_of_its_disparity_sharp():
    texture = image(40, 48)
    views = shifted_views(texture, 1)
    sharp = refocused(views, 1.0)
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(sharp[inner], texture[inner], atol=1e-3)
    for disparity in (0.0, -1.0):
        assert np.abs(refocused(views, disparity)[inner] - texture[inner]).mean() > 20


@pytest.fixture
def lightfield(tmp_path):
    scene = tmp_path / "hci" / "training" / "cotton"
    scene.mkdir(parents=True)
    for index in range(81):
        iio.imwrite(scene / f"input_Cam{index:03d}.png", image(24, 24))
    (scene / "parameters.cfg").write_text(
        "[intrinsics]\nfocal_length_mm = 100.0\nsensor_size_mm = 5.0\nfstop = 100.0\n[extrinsics]\nbaseline_mm = 50.0\n"
        "focus_distance_m = 3.0\n[meta]\nscene = cotton\ncategory = training\ndisp_min = -1.0\ndisp_max = 1.0\n"
    )
    disparity = RNG.uniform(-1, 1, (24, 24)).astype(np.float32)
    write_pfm(scene / "gt_disp_lowres.pfm", disparity)
    return scene, disparity


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"focus_distance_m = 3.0", b"focus_distance_m = 0", "focus_distance_m: expected a positive"),
        (b"sensor_size_mm = 5.0", b"sensor_size_mm = 0", "sensor_size_mm: expected a positive"),
        (b"baseline_mm = 50.0", b"baseline_mm = nan", "baseline_mm: expected a positive"),
        (b"disp_min = -1.0", b"disp_min = -inf", "disp_min: expected a finite"),
        (b"disp_min = -1.0", b"disp_min = 1.0", "disp_min < disp_max"),
        (b"disp_min = -1.0", b"disp_min = -100", "no depth in front of the camera"),
        (b"scene = cotton", b"disp_min = 1%(", "parameters"),
        (b"scene = cotton", b"\xff\xfe", "not readable as text"),
    ],
    ids=by_message,
)
def test_lightfield_parameters_that_cannot_be_are_named(lightfield, tmp_path, old, new, message):
    file = lightfield[0] / "parameters.cfg"
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(InputError, match=rf"parameters\.cfg.*{message}"):
        converted("lightfield", [tmp_path / "hci"], tmp_path / "out")


def test_lightfield_views_have_one_size_and_their_depth_has_it(lightfield, tmp_path):
    scene, disparity = lightfield
    disparity[0] = -24  # infinitely far
    disparity[1] = np.nan
    write_pfm(scene / "gt_disp_lowres.pfm", disparity)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = converted("lightfield", [tmp_path / "hci"], tmp_path / "out")
    assert (np.load(root / "cotton" / "truth" / "depth_m.npy")[:2] == 0).all()
    write_pfm(scene / "gt_disp_lowres.pfm", disparity[:12])
    with pytest.raises(InputError, match="cotton: a depth of shape"):
        converted("lightfield", [tmp_path / "hci"], tmp_path / "again")
    iio.imwrite(scene / "input_Cam080.png", image(24, 12))
    with pytest.raises(InputError, match=r"input_Cam080\.png: .*one size"):
        converted("lightfield", [tmp_path / "hci"], tmp_path / "again")


def test_lightfield(lightfield, tmp_path):
    _, disparity = lightfield
    root = converted("lightfield", [tmp_path / "hci"], tmp_path / "out")
    stack = StacksDataModule(str(root)).dataset("train")[0]
    focal_px = 100.0 / 5.0 * 24
    np.testing.assert_allclose(stack.depth_m[0].numpy(), 1 / (1 / 3 + disparity / (focal_px * 0.05)), rtol=1e-5)
    assert stack.images.shape == (1, 7, 3, 24, 24) and stack.focus_distances_m[0, 3] == pytest.approx(3.0)
    assert bool((stack.focus_distances_m[0].diff() > 0).all()) and stack.aif is not None


@pytest.mark.slow
def test_refocused_pictures_become_stacks_whose_optics_nobody_knows(tmp_path):
    for name in ("flower", "street/night"):
        scene = tmp_path / "lytro" / name
        scene.mkdir(parents=True)
        for index in (10, 9):
            iio.imwrite(scene / f"slice_{index}.png", image(40, 48))
    (tmp_path / "lytro" / "flower" / "focus_distance.txt").write_text("0.2\n0.5\n")
    root = converted("lightfield", [tmp_path / "lytro"], tmp_path / "out")
    flower, night = read_photographs(root / "flower"), read_photographs(root / "street_night")
    assert flower.focus_distances_m == (0.2, 0.5) and flower.known_camera() is None
    assert night.focus_distances_m is None and "focus_distances_m" in night.missing
    first = iio.imread(tmp_path / "lytro" / "flower" / "slice_9.png")
    np.testing.assert_array_equal(flower.images[0], first)
    common = {"renderer": DefocusRenderer(sigma_scale=0.5), "align": False, "working_px": 48}
    with pytest.raises(InputError, match=r"street_night.*data\.relative=true"):
        RecordedDataModule(str(root), **common).dataset("all")[1]
    module = RecordedDataModule(str(root), relative=True, **common)
    assert module.dataset("all")[1].images.shape == (1, 2, 3, 40, 48) and module.protocol()["relative"]
    (tmp_path / "lytro" / "flower" / "focus_distance.txt").write_text("0.2\n")
    with pytest.raises(InputError, match=r"focus_distance\.txt: 1 distances for 2"):
        converted("lightfield", [tmp_path / "lytro"], tmp_path / "again")


def test_folders_of_refocused_pictures_have_names_of_their_own_whatever_else_is_there(tmp_path):
    places = ["a b", "a_b", "a/b", "splits", "plain", "tab\there", "street/.hidden", "street/__MACOSX"]
    for place in places:
        (tmp_path / "lytro" / place).mkdir(parents=True)
        for index in range(2):
            iio.imwrite(tmp_path / "lytro" / place / f"{index}.png", image(16, 16))
    root = converted("lightfield", [tmp_path / "lytro"], tmp_path / "out")
    names = splits_of(root)["train"]
    assert len(set(names)) == 6 and {"a_b", "plain", "tab_here"} < set(names)
    assert sorted(names) == sorted(path.parent.name for path in root.rglob("stack.yaml"))
    for name, place in (("a_b", "a_b"), ("tab_here", "tab\there")):
        there = iio.imread(root / name / "slice_00.png")
        np.testing.assert_array_equal(there, iio.imread(tmp_path / "lytro" / place / "0.png"))
    shutil.rmtree(tmp_path / "lytro" / "a b")
    again = converted("lightfield", [tmp_path / "lytro"], tmp_path / "again")
    assert set(splits_of(again)["train"]) < set(names) and len(splits_of(again)["train"]) == 5


@pytest.mark.parametrize(
    "text", [b"0.2\nnan\n", b"0.2\n-1\n", b"0.2\nfar\n", b"\xff\xfe", b"0.2,0.5,0.7"], ids=by_message
)
def test_focus_distances_that_are_none_are_named(tmp_path, text):
    (tmp_path / "lytro" / "flower").mkdir(parents=True)
    for index in range(2):
        iio.imwrite(tmp_path / "lytro" / "flower" / f"{index}.png", image(16, 16))
    (tmp_path / "lytro" / "flower" / "focus_distance.txt").write_bytes(text)
    with pytest.raises(InputError, match=r"focus_distance\.txt"):
        converted("lightfield", [tmp_path / "lytro"], tmp_path / "out")


# ---------------------------------------------------------------- what all of them write


def test_stacks_are_stored_only_if_they_can_be_read_back(tmp_path):
    pictures = [image(), image()]
    write_stack(tmp_path, "a", pictures, CAMERA.as_dict(), [1, 2], 0.5, 3)
    for name, changed, message in (
        ("a", {}, "two samples have this name"),
        ("splits", {}, "cannot name a sample"),
        (".a", {}, "cannot name a sample"),
        ("a b", {}, "cannot name a sample"),
        ("", {}, "cannot name a sample"),
        ("b", {"slices": [image(), image(24, 33)]}, "one size"),
        ("b", {"slices": []}, "one size"),
        ("b", {"aif": image(24, 33)}, "one size"),
        ("b", {"depth_m": np.ones((24, 33))}, "one size"),
        ("b", {"focus_distances_m": [1, 2, 3]}, "3 for 2"),
        ("b", {"focus_distances_m": [1, np.nan]}, "positive number"),
        ("b", {"focus_distances_m": [0, 1]}, "positive number"),
    ):
        options = {
            "slices": pictures,
            "camera": CAMERA.as_dict(),
            "focus_distances_m": [1, 2],
            "near_m": 0.5,
            "far_m": 3,
        }
        with pytest.raises(InputError, match=message):
            write_stack(tmp_path, name, **{**options, **changed})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    write_rgbd(tmp_path, "x", image(), np.ones((24, 32)))
    for name, depth, message in (("x", np.ones((24, 32)), "two samples"), ("y", np.ones((24, 33)), "one size")):
        with pytest.raises(InputError, match=message):
            write_rgbd(tmp_path, name, image(), depth)


def test_pictures_of_16_bits_and_floats_keep_them(tmp_path):
    deep = RNG.integers(0, 65535, (24, 32, 3), dtype=np.uint16)
    write_stack(tmp_path, "a", [deep, deep[::-1]], CAMERA.as_dict(), [1, 2], 0.5, 3, aif=deep)
    write_stack(tmp_path, "b", [(deep / 65535).astype(np.float32)] * 2, CAMERA.as_dict(), [1, 2], 0.5, 3)
    read = read_photographs(tmp_path / "a")
    np.testing.assert_array_equal(read.images[1], deep[::-1])
    np.testing.assert_array_equal(read.aif, deep)
    np.testing.assert_array_equal(read_photographs(tmp_path / "b").images[0], deep)


def test_a_module_in_the_folder_of_sources_is_a_data_set(tmp_path, monkeypatch):
    assert list(SOURCES)[: len(FIRST)] == list(FIRST)
    (tmp_path / "another.py").write_text(
        "from dataclasses import replace\nfrom sfdfd.datasets.sources.nyu import NYU\n"
        "ANOTHER = replace(NYU, name='another')\n"
    )
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    try:
        assert list(sources.collected()) == [*FIRST, *sorted({*SOURCES, "another"} - {*FIRST})]
    finally:
        sys.modules.pop("sfdfd.datasets.sources.another", None)
        vars(sources).pop("another", None)


# ---------------------------------------------------------------- what is not the published layout


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_foreign_sources_are_refused_and_leave_nothing(name, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "readme.txt").write_text("nothing of the kind")
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing of the kind")
    for source in ("foreign", "foreign.zip"):
        with pytest.raises(InputError, match="foreign"):
            converted(name, [tmp_path / source], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.part").exists()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_says_what_people_need(name):
    source = SOURCES[name]
    for key in ("title", "citation", "licence", "home", "size", "uncertain"):
        assert getattr(source, key), key
    assert source.files and source.layout in ("rgbd", "stacks") and callable(source.convert)
