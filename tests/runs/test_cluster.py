"""Work on a local cluster of two workers: what one does alone; a worker that is lost in the middle loses nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.io.images import write_image
from sfdfd.runs.batch import Job, run_batch
from sfdfd.runs.cluster import in_order, spreading
from tests.commands import inside, one_line

distributed = pytest.importorskip("distributed")
# a nanny says that its worker was lost; Dask's own event loop closes sockets late
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def doubled(item):
    if item == "bad":
        raise InputError("this one is bad")
    return 2 * item


def fatal_once(folder, item):
    """The third item takes its worker along, the first time."""
    marker = Path(folder) / "died"
    if item == 3 and not marker.exists():
        marker.touch()
        os._exit(9)
    time.sleep(0.05)
    (Path(folder) / f"{item}.txt").write_text(str(2 * item))
    return 2 * item


def fatal(item):
    if item == 1:
        os._exit(9)
    return item


def test_in_order_and_on_workers_alike():
    assert list(in_order(doubled, [1, 2, 3])) == [(0, 2), (1, 4), (2, 6)]
    with spreading(2) as spread:
        found = dict(spread(doubled, [1, "bad", 3]))
    assert found[0] == 2 and found[2] == 6 and isinstance(found[1], InputError) and "is bad" in str(found[1])


def test_two_clusters_of_a_machine_do_not_mind_each_other():
    """Both listened on port 8787, and the second warned of it."""
    with spreading(1) as one, spreading(1) as other:
        assert dict(one(doubled, [1])) == {0: 2} and dict(other(doubled, [2])) == {0: 4}


def test_a_worker_that_is_lost_loses_nothing(tmp_path):
    with spreading(2) as spread:
        found = dict(spread(partial(fatal_once, str(tmp_path)), list(range(12))))
    assert found == {i: 2 * i for i in range(12)} and (tmp_path / "died").exists()
    assert len(list(tmp_path.glob("*.txt"))) == 12


@pytest.mark.slow
def test_an_item_that_kills_every_worker_is_given_up_and_the_others_are_done():
    with spreading(2) as spread:
        found = dict(spread(fatal, list(range(6))))
    assert isinstance(found.pop(1), InputError) and found == {0: 0, 2: 2, 3: 3, 4: 4, 5: 5}


@pytest.mark.slow
def test_who_waits_with_a_worker_that_is_killed_is_not_given_up_for_it():
    """Dask suspects all that lies with a lost worker: under load an innocent item went with the fatal one."""
    with spreading(1) as spread:
        found = dict(spread(fatal, [1, 7]))
    assert isinstance(found[0], InputError) and "died" in str(found[0]) and found[1] == 7


def facts_of_item(item, folder, watch):
    folder.mkdir(parents=True)
    print("said", item)
    if item == 1:
        raise ZeroDivisionError("bug")
    return {"item": item}


def test_many_jobs_on_a_cluster_keep_one_index(tmp_path):
    jobs = [Job(name, {}, index) for index, name in enumerate(("a", "b/c", "d"))]
    with spreading(2) as spread:
        rows = run_batch(jobs, tmp_path, facts_of_item, spread=spread)
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert re.fullmatch(r"ZeroDivisionError: bug \(test_cluster\.py, line \d+\)", rows[1]["error"])
    assert rows[2]["facts"] == {"item": 2}
    assert json.loads((tmp_path / "index.json").read_text())["stacks"] == rows
    assert (tmp_path / "a" / "said.txt").read_text() == "said 0\n"


@pytest.mark.parametrize(("cluster", "words"), [
    (0, "cluster: expected a whole number of 1 or more"),
    (True, "cluster: expected a whole number"),
    ("nonsense", "no scheduler answers there"),
])  # fmt: skip
def test_what_is_no_cluster_is_said(cluster, words):
    with pytest.raises(InputError, match=words), spreading(cluster):
        pass


@pytest.mark.slow
def test_predict_on_two_workers_gives_what_one_gives(tmp_path):
    generator = np.random.default_rng(0)
    import torch

    for name in "abc":
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for index in range(3):
            write_image(folder / f"{index}.png", torch.from_numpy(generator.random((3, 30, 42)).astype(np.float32)))
        (folder / "stack.yaml").write_text(
            "camera: {focal_length_m: 0.05, f_number: 8.0, pixel_pitch_m: 1.2e-5}\nfocus_distances_m: [1, 2, 4]\n"
        )
    common = ["stacks=in", "refine.steps=2", "align.mode=false", "threads=1"]
    inside("predict", *common, "output_dir=one", cwd=tmp_path)
    inside("predict", *common, "output_dir=two", "cluster=2", cwd=tmp_path)
    for name in "abc":
        assert np.array_equal(*(np.load(tmp_path / out / name / "depth_m.npy") for out in ("one", "two")))
        assert (tmp_path / "two" / name / "said.txt").is_file()
    assert (tmp_path / "two" / "index.html").is_file()
    done = inside("predict", *common, "output_dir=two", "cluster=tcp://127.0.0.1:9", expect=2, cwd=tmp_path)
    assert "no scheduler answers there" in one_line(done.stderr)


@pytest.mark.slow
def test_the_teacher_answers_on_two_workers_what_it_answers_alone(tmp_path):
    import torch

    common = ["data=procedural", "data.train_length=2", "data.height=48", "data.width=64", "data.val_length=1",
              "data.test_length=1", "network=daif", "network.width=4", "fresh=0", "teacher.procedural=1",
              "teacher.refine.steps=1", "crop=32", "size=40", "steps=1", "batch_size=1", "threads=1"]  # fmt: skip
    inside("distil", *common, "output_dir=one", cwd=tmp_path)
    inside("distil", *common, "output_dir=two", "cluster=2", cwd=tmp_path)
    names = sorted(path.name for path in (tmp_path / "one" / "answers").iterdir())
    assert names == ["procedural00000.pt", "stack00000.pt", "stack00001.pt"]
    for name in names:
        one, two = (torch.load(tmp_path / out / "answers" / name, weights_only=True) for out in ("one", "two"))
        assert one.keys() == two.keys()
        for key, value in one.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, two[key]), (name, key)


@pytest.mark.slow
def test_path_tracing_on_two_workers_makes_the_same_set(tmp_path):
    pytest.importorskip("mitsuba")
    common = ["data=raytraced", "data.train_length=2", "data.val_length=0", "data.test_length=1", "data.height=48",
              "data.width=64", "data.samples=4", "data.variant=scalar_rgb"]  # fmt: skip
    inside("prepare", *common, "data.root=one", cwd=tmp_path)
    inside("prepare", *common, "data.root=two", "cluster=2", cwd=tmp_path)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*") if p.is_file())
    for file in files:
        if file.name != "manifest.json":
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.slow
def test_prediction_goes_on_when_one_of_two_workers_is_killed(tmp_path):
    """Real processes: the worker dies while it refines; every stack is predicted, and the command knows of nothing."""
    import torch

    generator = torch.Generator().manual_seed(0)
    names = [f"s{i}" for i in range(6)]
    for name in names:
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for index in range(3):
            write_image(folder / f"{index}.png", torch.rand(3, 30, 42, generator=generator))
        (folder / "stack.yaml").write_text(
            "camera: {focal_length_m: 0.05, f_number: 8.0, pixel_pitch_m: 1.2e-5}\nfocus_distances_m: [1, 2, 4]\n"
        )
    line = [sys.executable, "-m", "sfdfd.predict", "stacks=in", "output_dir=out", "cluster=2", "refine.seconds=3",
            "align.mode=false", "threads=1"]  # fmt: skip
    running = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*/prediction.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)  # both are at their next
    found = subprocess.run(
        ["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    workers = [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2, f"expected two workers, found {workers}"
    os.kill(workers[0], signal.SIGKILL)
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 0, said
    rows = json.loads((tmp_path / "out" / "index.json").read_text())["stacks"]
    assert [(row["name"], row["status"]) for row in rows] == [(name, "done") for name in names]
    assert all((tmp_path / "out" / name / "depth_m.npy").is_file() for name in names)
