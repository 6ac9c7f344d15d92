"""A data set folder is complete or absent; interrupted work resumes."""

import errno
import os
from pathlib import Path

import pytest

from sfdfd.datasets.folders import (
    MANIFEST,
    atomic_folder,
    check_vacant,
    finish_move,
    read_manifest,
    resumable_folder,
    unfinished_options,
)
from sfdfd.errors import InputError
from tests.datasets.sources.helpers import file_contents


def test_a_folder_is_complete_or_absent(tmp_path):
    root = tmp_path / "set"
    with pytest.raises(RuntimeError), atomic_folder(root, {}) as part:
        (part / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".set.part").mkdir()  # what a killed run leaves
    (tmp_path / ".set.part" / "old").write_text("x")
    with atomic_folder(root, {"data": "x"}) as part:
        (part / "new").write_text("x")
    assert sorted(path.name for path in root.iterdir()) == [MANIFEST, "new"] and read_manifest(root) == {"data": "x"}


def filled(root, record):
    with atomic_folder(root, record) as part:
        (part / "rgb").mkdir()
        (part / "rgb" / "x").write_text("x")
        (part / "z").write_text("z")
    return root


@pytest.mark.parametrize("there", [True, False], ids=["folder", "dangling"])
def test_links_are_followed_to_the_target_folder(tmp_path, there):
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
def test_a_mount_point_is_filled_manifest_last(tmp_path, monkeypatch, code):
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
def test_a_full_disk_at_the_end_loses_nothing(tmp_path, monkeypatch, there):
    """Of what takes long to make, the next call makes nothing again; a call that is killed after the manifest neither."""
    root, plan = tmp_path / "root", {"samples": 4}
    if there:
        root.mkdir()
    with monkeypatch.context() as patch:
        fail_to(patch, "write_text", lambda path, *_: MANIFEST in path.name, errno.ENOSPC)
        with (
            pytest.raises(InputError, match="run the command again"),
            resumable_folder(root, {"data": "x"}, plan) as part,
        ):
            (part / "scene").write_text("traced for days")
    assert unfinished_options(root) == plan
    with monkeypatch.context() as patch:
        fail_to(patch, "unlink", lambda path, *_: path.name == "plan.json", errno.EIO)
        with pytest.raises(InputError, match="could not be moved"), resumable_folder(root, {"data": "x"}, plan) as part:
            assert (part / "scene").read_text() == "traced for days"
    finish_move(root)
    assert sorted(path.name for path in root.iterdir()) == [MANIFEST, "scene"] and read_manifest(root) == {"data": "x"}


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY, errno.ENOSPC])
@pytest.mark.parametrize("there", [True, False], ids=["in it", "beside it"])
def test_a_failed_move_is_finished_by_the_next_call(tmp_path, monkeypatch, there, code):
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
            finish_move(root)
    with pytest.raises(InputError, match=rf"{part} holds a whole data set"):
        filled(root, {"data": "again"})
    finish_move(root)
    assert read_manifest(root) == {"data": "x"}
    assert sorted(file_contents(root)) == [MANIFEST, "rgb/x", "z"] and [p.name for p in tmp_path.iterdir()] == ["root"]


def test_leftovers_of_a_killed_run_are_ignored(tmp_path):
    (tmp_path / "root" / ".part" / "rgb").mkdir(parents=True)
    finish_move(tmp_path / "root")
    check_vacant(tmp_path / "root")
    filled(tmp_path / "root", {})
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == [MANIFEST, "rgb", "z"]


def test_an_unwritable_root_is_refused_before_any_work(tmp_path, monkeypatch):
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
        with pytest.raises(InputError, match=message), atomic_folder(tmp_path / root, {}):
            raise AssertionError("begun")
    assert (tmp_path / "full" / "x").exists() and (tmp_path / "empty").is_dir()


def test_a_broken_manifest_is_reported(tmp_path):
    for content in (b"{", b"\xff\xfe", b"[1]"):
        (tmp_path / MANIFEST).write_bytes(content)
        with pytest.raises(InputError, match=r"manifest\.json.*prepare it again"):
            read_manifest(tmp_path)
