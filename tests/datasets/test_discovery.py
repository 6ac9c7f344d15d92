"""The stacks below a folder."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfdfd.datasets.discovery import bursts, find_stacks
from sfdfd.errors import InputError


def photographs(folder, *seconds):
    """Small photographs, named in order, taken so many seconds after noon; None does not say when."""
    folder.mkdir(parents=True, exist_ok=True)
    start = len(list(folder.iterdir()))
    for index, second in enumerate(seconds, start):
        exif = Image.Exif()
        if second is not None:
            time = f"2026:05:01 {12 + second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
            exif.get_ifd(0x8769)[0x9003] = time
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / f"{index:02d}.jpg", exif=exif)


def names(found):
    return {one.name: one.files for one in found}


def test_folders_videos_and_bursts(tmp_path):
    photographs(tmp_path, 0, 1, 2, 100, 300, 301)  # a camera's roll: a burst of three, one alone, a burst of two
    photographs(tmp_path / "a", None, None)
    photographs(tmp_path / "b" / "c", 0, 15, 30, 50)  # by hand: one stack
    photographs(tmp_path / "d", 0, 1, 600, 601)
    photographs(tmp_path / "e", 0, 1, 600)  # a straggler
    photographs(tmp_path / "f", None)
    photographs(tmp_path / "g", 0, 1, 600, 601)
    (tmp_path / "g" / "dioptres.txt").write_text("1 2 3 4")
    photographs(tmp_path / ".hidden", None, None)
    photographs(tmp_path / "out" / "aligned", None, None)
    photographs(tmp_path / "earlier", None, None)
    (tmp_path / "earlier" / "prediction.json").touch()
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "x.mp4").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found, passed = find_stacks(tmp_path, 10, [tmp_path / "out"])
    assert names(found) == {
        "2026-05-01_12-00-00": ("00.jpg", "01.jpg", "02.jpg"), "2026-05-01_12-05-00": ("04.jpg", "05.jpg"),
        "a": None, "b/c": None, "d/2026-05-01_12-00-00": ("00.jpg", "01.jpg"),
        "d/2026-05-01_12-10-00": ("02.jpg", "03.jpg"), "e": None, "g": None, "v": None,
    }  # fmt: skip
    assert [one.rsplit("/", 1)[1] for one in passed] == [
        "03.jpg: one photograph is no stack", "00.jpg: one photograph is no stack"
    ]  # fmt: skip


def test_bursts_use_fractions_of_seconds_and_need_all_times(tmp_path):
    photographs(tmp_path, 0, 1, 5)
    files = sorted(tmp_path.iterdir())
    assert [len(part) for _, part in bursts(files, 3)] == [2, 1] and len(bursts(files, 4)) == 1
    photographs(tmp_path, None)
    assert len(bursts(sorted(tmp_path.iterdir()), 3)) == 1


def test_a_folder_without_stacks_is_reported(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="stacks="):
            find_stacks(folder)


def test_stacks_get_unique_names(tmp_path):
    """Videos of one stem, a number that is taken, and names that only some file systems tell apart."""
    for name in ("IMG.mov", "IMG.mp4", "IMG_2.mp4", "other.mp4", "index.html.mp4"):
        (tmp_path / name).touch()
    photographs(tmp_path / "img", None, None)
    for name in ("caf\u00e9", "cafe\u0301", "CAF\u00c9", "caf\u00e9_2"):
        photographs(tmp_path / name, None, None)
    for name in (b"bad\xe9", b"bad\xe8"):
        photographs(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), None, None)
    found, _ = find_stacks(tmp_path)
    by_source = {os.fsencode(one.source.name): one.name for one in found}
    assert len(by_source) == 12
    seen = {unicodedata.normalize("NFC", name.casefold()) for name in by_source.values()}
    assert len(seen) == 12 and "index.html" not in seen
    assert [by_source[name] for name in (b"IMG.mov", b"IMG.mp4", b"IMG_2.mp4", b"other.mp4", b"img")] == [
        "IMG.mov", "IMG.mp4", "IMG_2", "other", "img"
    ]  # fmt: skip
    (tmp_path / "IMG.avi").touch()
    names_now = {os.fsencode(one.source.name): one.name for one in find_stacks(tmp_path)[0]}
    assert {name: names_now[name] for name in by_source} == by_source


def test_identity_covers_every_file_that_describes_a_stack(tmp_path):
    """On the text beside a video, the slices that stack.yaml takes from elsewhere, and no file manager's leavings."""
    (tmp_path / "v" / "sweep.mp4").parent.mkdir()
    (tmp_path / "v" / "sweep.mp4").touch()
    photographs(tmp_path / "s" / "all", None, None, None)
    photographs(tmp_path / "s", None, None)
    (tmp_path / "s" / "stack.yaml").write_text("files: [all/00.jpg, all/01.jpg]")

    def identities():
        return {one.name: one.identity() for one in find_stacks(tmp_path)[0] if one.name != "s/all"}

    before = identities()
    (tmp_path / "s" / ".DS_Store").touch()
    (tmp_path / "s" / "Thumbs.db").touch()
    assert identities() == before
    (tmp_path / "v" / "dioptres.txt").write_text("1 2")
    (tmp_path / "s" / "all" / "01.jpg").write_bytes(b"another")
    after = identities()
    assert after["v"] != before["v"] and after["s"] != before["s"]
