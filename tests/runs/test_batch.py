"""Many stacks: what is done is skipped, what fails is listed."""

import json
import shutil

import pytest

from sfdfd.errors import InputError
from sfdfd.runs.batch import Job, run_batch


def jobs(**changes):
    return [Job(name, {"of": changes.get(name, 0)}, item) for item, name in enumerate(("a", "b/c", "d"))]


def working(calls, fail=None):
    def work(index, folder, watch):
        calls.append(index)
        if index == 1 and isinstance(fail, BaseException):
            raise fail
        watch(0.5)
        folder.mkdir(parents=True)
        print("said of", index)
        return {"index": index, "interrupted": fail == "stop" and index == 1}

    return work


def test_a_row_of_an_earlier_call_that_is_not_whole_is_made_again(tmp_path):
    calls = []
    run_batch(jobs(), tmp_path, working(calls))
    (tmp_path / "b" / "c").rename(tmp_path / "earlier")
    rows = run_batch(jobs(), tmp_path, working(calls), is_whole=lambda row: row["name"] != "b/c")
    assert calls == [0, 1, 2, 1] and [row["status"] for row in rows] == ["skipped", "done", "skipped"]


@pytest.mark.parametrize("failure", [InputError("no\nslices"), ZeroDivisionError("bug"), MemoryError()])
def test_one_failure_does_not_end_it_and_is_tried_again(tmp_path, failure):
    calls, seen = [], []
    rows = run_batch(jobs(), tmp_path, working(calls, failure), lambda rows: seen.append([r["status"] for r in rows]))
    assert [row["status"] for row in rows] == ["done", "failed", "done"] and not (tmp_path / "b").exists()
    assert rows[1]["error"].startswith("no slices" if isinstance(failure, InputError) else type(failure).__name__)
    assert seen[0] == ["done", "waiting", "waiting"] and len(seen) == 3
    assert (tmp_path / "a" / "said.txt").read_text() == "said of 0\n"
    rows = run_batch(jobs(), tmp_path, working(calls))
    assert calls == [0, 1, 2, 1] and [row["status"] for row in rows] == ["skipped", "done", "skipped"]
    assert rows[0]["facts"] == {"index": 0}
    assert [row["status"] for row in json.loads((tmp_path / "index.json").read_text())["stacks"]] == [
        "skipped", "done", "skipped"
    ]  # fmt: skip


def test_what_has_changed_is_done_again(tmp_path):
    calls = []
    run_batch(jobs(), tmp_path, lambda index, folder, watch: calls.append(index) or folder.mkdir(parents=True) or {})
    run_batch(jobs(d=1), tmp_path, lambda index, folder, watch: calls.append(index) or {})
    assert calls == [0, 1, 2, 2]


def test_ctrl_c_ends_with_the_stack_at_hand(tmp_path):
    rows = run_batch(jobs(), tmp_path, working([], "stop"))
    assert [row["status"] for row in rows] == ["done", "stopped", "waiting"]
    rows = run_batch(jobs(), tmp_path / "x", working([], KeyboardInterrupt()))
    assert [row["status"] for row in rows] == ["done", "stopped", "waiting"]


def test_a_foreign_index_is_not_overwritten(tmp_path):
    (tmp_path / "index.json").write_text("[1]")
    with pytest.raises(InputError, match=r"index\.json: not the index"):
        run_batch(jobs(), tmp_path, working([]))
    assert (tmp_path / "index.json").read_text() == "[1]"


def test_a_result_that_is_gone_is_made_again(tmp_path):
    """The whole folder or one file of it; what another program leaves beside the files does not matter."""
    calls = []

    def work(index, folder, watch):
        calls.append(index)
        (folder / "maps").mkdir(parents=True, exist_ok=True)
        (folder / "maps" / "depth.npy").write_bytes(b"0")
        return {}

    run_batch(jobs(), tmp_path, work)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "d" / "maps" / "depth.npy").unlink()
    (tmp_path / "b" / "c" / "mine.txt").touch()
    rows = run_batch(jobs(), tmp_path, work)
    assert calls == [0, 1, 2, 0, 2] and [row["status"] for row in rows] == ["done", "skipped", "done"]
    assert (tmp_path / "a" / "maps" / "depth.npy").is_file()
    (tmp_path / "b" / "c" / "mine.txt").unlink()
    run_batch(jobs(), tmp_path, work)
    assert calls == [0, 1, 2, 0, 2] and rows[0]["files"] == ["maps/depth.npy", "said.txt"]


def test_a_stack_whose_folder_lies_in_that_of_another_counts_for_itself(tmp_path):
    nested = [Job("a", {}, "a"), Job("a/b", {}, "a/b")]

    def work(item, folder, watch):
        (folder / "b").mkdir(parents=True, exist_ok=True)
        (folder / "depth.npy").touch()
        (tmp_path / "a" / "b" / "depth.npy").touch()  # as if both ran at once
        return {}

    rows = run_batch(nested, tmp_path, work)
    assert [row["files"] for row in rows] == [["depth.npy", "said.txt"], ["depth.npy", "said.txt"]]
    shutil.rmtree(tmp_path / "a" / "b")
    assert [row["status"] for row in run_batch(nested, tmp_path, work)] == ["skipped", "done"]
