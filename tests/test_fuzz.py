"""Odd input of every kind, to every command: it ends well, or with one line that says what is wrong; never with a traceback.

The cases are the same every time; ``SFDFD_FUZZ=5`` makes five times as many, and ``SFDFD_FUZZ_LOG=FILE`` writes down the
result of each. ``tests/fuzz/`` makes the input, and ``tests/fuzz/bench.py`` says what has to hold.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.commands import QUIET
from tests.fuzz.bench import LONGEST_S, MOST_GROWN_BYTES, Bench
from tests.fuzz.command_lines import BASES, BROKEN, TINY, given_arguments, keys_of
from tests.fuzz.images import image_file
from tests.fuzz.mutations import ODD, mutate_file, mutated_tree, quoted, seeded
from tests.fuzz.outputs import FOLDERS, checkpoint_arguments, folder_case, mutated_checkpoint
from tests.fuzz.published import PUBLISHED, absurd_sizes, archive_of, mutated_text
from tests.fuzz.stacks import MORE, STACK, broken_yaml, write_slices

pytestmark = pytest.mark.slow

SCALE = float(os.environ.get("SFDFD_FUZZ", "1"))
LEAST, LEAST_PROCESSES = 2000, 50


def cases(number):
    """So many examples, the same every time."""
    return settings(
        max_examples=max(1, round(number * SCALE)), derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("fuzz"))
    yield bench
    bench.worker.stop()


def settled(failures):
    assert not failures, f"{len(failures)} cases went wrong\n\n" + "\n\n".join(failures[:20])


def made(bench, command, *arguments, cwd):
    """What later cases begin from: a command that ends well."""
    done, _ = bench.worker.run(command, list(arguments), cwd)
    assert done.code == 0, f"{done.crash}\n{done.stderr}"


@pytest.fixture(scope="module")
def things(bench):
    """A stack, a trained run, a multirun, and predictions, in one folder."""
    folder = bench.folder / "things"
    folder.mkdir()
    write_slices(folder / "stack", STACK)
    write_slices(folder / "many" / "one", STACK)
    made(
        bench, "train", "experiment=procedural", *TINY, "pictures=1", "logger=[csv,wandb]", "output_dir=run", cwd=folder
    )
    made(bench, "train", "-m", "seed=1", "experiment=procedural", *TINY, "output_dir=sweep", cwd=folder)
    made(bench, "predict", "stack=stack", "refine.steps=0", "threads=1", "output_dir=prediction", cwd=folder)
    made(bench, "predict", "stacks=many", "refine.steps=0", "threads=1", "output_dir=predictions", cwd=folder)
    return folder


def test_stack_yaml(bench):
    failures = []

    @cases(420)
    @given(st.data())
    def run_case(data):
        folder, random_ = bench.case("stack"), seeded(data.draw, st)
        described = json.loads(json.dumps({**STACK, **{k: v for k, v in MORE.items() if random_.random() < 0.3}}))
        write_slices(folder / "s")
        if random_.random() < 0.65:
            described = mutated_tree(described, random_, times=random_.choice([1, 1, 2, 4]))
            if random_.random() < 0.3:
                described[random_.choice([*MORE, *STACK, "nonsense", "ä"])] = copy.deepcopy(random_.choice(ODD))
            content = yaml.safe_dump(described, allow_unicode=True).encode("utf-8", "surrogatepass")
        else:
            content = broken_yaml(yaml.safe_dump(described), random_)
        (folder / "s" / "stack.yaml").write_bytes(content)
        if random_.random() < 0.6:
            command, arguments = "diagnose", ["stack=s", "output_dir=o"]
        else:
            command, arguments = "predict", ["stack=s", "refine.steps=0", "threads=1", "output_dir=o"]
        bench.tried("stack", folder, command, arguments, failures)

    run_case()
    settled(failures)


@pytest.mark.parametrize("command", BASES)
def test_overrides(bench, things, command):
    failures = []
    base, number = BASES[command]
    base = [argument.replace("THINGS", str(things)) for argument in base]
    keys = [] if command == "compare" else keys_of(command, base)

    @cases(number)
    @given(st.data())
    def run_case(data):
        folder = bench.case(f"overrides of {command}")
        arguments = given_arguments(command, base, keys, seeded(data.draw, st))
        bench.tried(f"overrides of {command}", folder, command, arguments, failures)

    run_case()
    settled(failures)


def test_broken_command_lines(bench):
    failures = []
    for broken in BROKEN:
        bench.tried(
            "broken command line", bench.case("broken command line"), "export", ["checkpoint=no", broken], failures
        )
    settled(failures)


def test_images(bench):
    failures = []

    @cases(300)
    @given(st.data())
    def run_case(data):
        folder, random_ = bench.case("image"), seeded(data.draw, st)
        stack = folder / "s"
        stack.mkdir()
        same = random_.random() < 0.5
        state = random_.getstate()
        for index in range(3):
            if same:
                random_.setstate(state)
            file = image_file(stack / f"{index}", random_)
            if file.is_file() and not same and random_.random() < 0.6:
                mutate_file(file, random_)
        if same and file.is_file() and random_.random() < 0.8:
            mutate_file(file, random_)
        if random_.random() < 0.5:
            (stack / "stack.yaml").write_text(yaml.safe_dump(STACK))
        name = random_.choice(["stack=s", "stack=s", "stacks=."])
        if name == "stack=s" and random_.random() < 0.6:
            command, arguments = "diagnose", [name, "output_dir=o"]
        else:
            command, arguments = "predict", [name, "refine.steps=0", "threads=1", "output_dir=o"]
        bench.tried("image", folder, command, arguments, failures)

    run_case()
    settled(failures)


@pytest.fixture(scope="module")
def published(bench):
    """Each data set as its authors write it, small."""
    pytest.importorskip("h5py")
    pytest.importorskip("OpenEXR")
    for write in PUBLISHED:
        folder = bench.folder / "published" / write.__name__
        folder.mkdir(parents=True)
        write(folder)
    return bench.folder / "published"


def test_archives_and_published_data(bench, published):
    failures = []

    @cases(330)
    @given(st.data())
    def run_case(data):
        folder, random_ = bench.case("archive"), seeded(data.draw, st)
        name = random_.choice(PUBLISHED).__name__
        shutil.copytree(published / name, folder / "src")
        files = sorted(file for file in (folder / "src").rglob("*") if file.is_file())
        described_files = [
            file for file in files if file.suffix in (".txt", ".cfg", ".pfm", ".npy", ".exr", ".mat", ".h5")
        ]
        source, choice = folder / "src", random_.randrange(10)
        if choice < 6:
            file = random_.choice(described_files or files) if random_.random() < 0.75 else random_.choice(files)
            if file.suffix in (".txt", ".cfg") and random_.random() < 0.6:
                file.write_bytes(mutated_text(file.read_bytes(), random_))
            else:
                mutate_file(file, random_)
            if random_.random() < 0.1:
                random_.choice(files).unlink(missing_ok=True)
            if len(files) == 1 and random_.random() < 0.5:
                source = files[0]
        if choice >= 5:
            source = archive_of(folder / "src", folder / "packed", random_)
            if random_.random() < 0.6:
                (absurd_sizes if random_.random() < 0.4 else mutate_file)(source, random_)
        arguments = [f"data={name}", "data.root=set", f"source={quoted(source)}"]
        bench.tried("archive", folder, "prepare", arguments, failures)

    run_case()
    settled(failures)


def test_checkpoints(bench, things):
    failures = []

    @cases(200)
    @given(st.data())
    def run_case(data):
        folder, random_ = bench.case("checkpoint"), seeded(data.draw, st)
        shutil.copy(things / "run" / "checkpoints" / "last.ckpt", folder / "c.ckpt")
        mutated_checkpoint(folder / "c.ckpt", random_)
        command, arguments = checkpoint_arguments(random_)
        arguments = [argument.replace("THINGS", str(things)) for argument in arguments]
        bench.tried("checkpoint", folder, command, arguments, failures)

    run_case()
    settled(failures)


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(bench, things, kind):
    failures = []

    @cases(FOLDERS[kind][1])
    @given(st.data())
    def run_case(data):
        folder, random_ = bench.case(kind), seeded(data.draw, st)
        command, arguments = folder_case(kind, folder, things, random_)
        bench.tried(kind, folder, command, arguments, failures)

    run_case()
    settled(failures)


def as_process(command, arguments, cwd):
    started = time.monotonic()
    line = [sys.executable, "-m", f"sfdfd.{command}", *(argument.replace("\0", "") for argument in arguments)]
    try:
        done = subprocess.run(
            line,
            cwd=cwd,
            capture_output=True,
            env={**os.environ, **QUIET},
            timeout=LONGEST_S + 20,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return SimpleNamespace(code=None, stdout="", stderr="", crash="it hung", seconds=LONGEST_S + 20.0)
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return SimpleNamespace(code=done.returncode, stdout=out, stderr=err, crash="", seconds=time.monotonic() - started)


def test_real_processes(bench, things, published):
    """Some of each kind, as a user starts them."""
    failures = []

    @cases(LEAST_PROCESSES)
    @given(st.data())
    def run_case(data):
        folder, random_ = bench.case("process"), seeded(data.draw, st)
        kind = bench.counts["process"] % 5
        if kind == 0:
            write_slices(folder / "s", mutated_tree(json.loads(json.dumps(STACK)), random_))
            command, arguments = "diagnose", ["stack=s", "output_dir=o"]
        elif kind == 1:
            command = random_.choice([name for name in BASES if name not in ("tune", "distil")])
            base = [argument.replace("THINGS", str(things)) for argument in BASES[command][0]]
            arguments = given_arguments(command, base, [] if command == "compare" else keys_of(command, base), random_)
        elif kind == 2:
            write_slices(folder / "s", STACK)
            mutate_file(folder / "s" / "1.png", random_)
            command, arguments = "predict", ["stack=s", "refine.steps=0", "threads=1", "output_dir=o"]
        elif kind == 3:
            shutil.copy(things / "run" / "checkpoints" / "last.ckpt", folder / "c.ckpt")
            mutated_checkpoint(folder / "c.ckpt", random_)
            command, arguments = "export", ["checkpoint=c.ckpt", "format=weights", "output_dir=o"]
        else:
            command, arguments = folder_case(random_.choice(["compare run", "refocus"]), folder, things, random_)
        bench.tried("process", folder, command, arguments, failures, as_process)

    run_case()
    settled(failures)


def test_so_many_were_run_and_memory_stayed(bench, request):
    counts = dict(bench.counts)
    lines = [
        f"{kind}: {number} in {bench.seconds[kind]:.0f} s, exit codes {bench.codes[kind]}"
        for kind, number in counts.items()
    ]
    print("\n".join(lines))
    if bench.first_peak is not None:
        grown = bench.peak - bench.first_peak
        print(f"peak memory grew by {grown / 2**20:.0f} MiB to {bench.peak / 2**20:.0f} MiB")
        assert grown < MOST_GROWN_BYTES
    here = [item for item in request.session.items if item.path == request.path]
    if len({item.originalname for item in here}) < 9:
        pytest.skip("not the whole file was run")
    processes = counts.pop("process")
    assert processes >= LEAST_PROCESSES * min(1, SCALE) and sum(counts.values()) >= LEAST * min(1, SCALE)
