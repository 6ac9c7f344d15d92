"""Archives are unpacked whole or not at all, and only inside their folder."""

import io
import shutil
import tarfile
import warnings
import zipfile

import pytest

from sfdfd.errors import InputError
from sfdfd.io.archives import extract, opened
from tests.datasets.sources.helpers import file_contents, message_id

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


@pytest.mark.parametrize("kind", ["zip", "bzip2.zip", "lzma.zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_damaged_archives_never_unpack_wrong_content(tmp_path, kind):
    archive = packed(tmp_path, kind)
    whole = archive.read_bytes()
    extract(archive, tmp_path / "whole")
    assert file_contents(tmp_path / "whole") == FILES
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
                assert file_contents(tmp_path / "inside") == FILES
                shutil.rmtree(tmp_path / "inside")
    assert refused > 1.6 * len(range(0, len(whole), 7)) and len(list(tmp_path.iterdir())) == 2


def test_a_broken_tar_header_is_an_error(tmp_path):
    archive = tarred(tmp_path / "a.tar", FILES.items())
    whole = archive.read_bytes()
    second = whole.index(b"c.bin")
    for broken in (whole[:second] + b"x" + whole[second + 1 :], whole[:second], whole[: second + 100]):
        archive.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.tar: a broken archive"):
            extract(archive, tmp_path / "inside")
        assert not (tmp_path / "inside").exists()


def test_encrypted_and_unknown_archives_are_reported(tmp_path):
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
    ids=message_id,
)
def test_clashing_members_are_refused(tmp_path, write, files, message):
    archive = write(tmp_path / "a.archive", files)
    with pytest.raises(InputError, match=rf"a\.archive.*{message}"):
        extract(archive, tmp_path / "inside")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_zip_inside_a_tar_stays_packed(tmp_path):
    inner = zipped(tmp_path / "inner.zip", [("file", b"x")])
    archive = tarred(tmp_path / "outer.tar", [("first", b"1"), ("inner.zip", inner.read_bytes())])
    extract(archive, tmp_path / "inside")
    assert sorted(file_contents(tmp_path / "inside")) == ["first", "inner.zip"]


def test_archives_larger_than_the_free_space_are_refused(tmp_path, monkeypatch):
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


def test_archives_in_a_folder_are_opened(tmp_path):
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
        found = [sorted(file_contents(content)) for content in folders[1:]]
        assert folders[0] == folder and found == [["one"], ["two"]]
        assert [content.name for content in folders[1:]] == ["one", "two"]
    assert not (tmp_path / "scratch").exists()
    (folder / "two.tar.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"two\.tar\.gz"), opened([folder], tmp_path / "scratch"):
        pass
    assert not (tmp_path / "scratch").exists()


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


def test_broken_archives_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(InputError, match=r"a\.zip"):
        extract(tmp_path / "a.zip", tmp_path / "inside")
