"""Commands on odd input: their main functions in a process that lives on, without the shape checks of the tests' own, and
what has to hold of every one of them."""

import contextlib
import copy
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from sfdfd.training.device import peak_memory_gib
from tests.commands import ended

LONGEST_S = 60
MOST_GROWN_BYTES = 1.5 * 2**30
MOST_DATA_BYTES = 8 * 2**30
"""What the process may allocate at all: an absurd size fails here as it would on a small machine."""
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is none: a case that would reach the network fails at once."""


def serve(pipe):
    """Run what comes through the pipe until None does."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_DATA_BYTES, MOST_DATA_BYTES))
    os.environ.update(http_proxy=NOWHERE, https_proxy=NOWHERE)
    while (case := pipe.recv()) is not None:
        command, arguments, cwd = case
        done = SimpleNamespace(code=None, stdout="", stderr="", crash="")
        try:
            done = SimpleNamespace(**vars(ended(command, *arguments, cwd=cwd)), crash="")
        except BaseException:
            done.crash = traceback.format_exc()
        pipe.send((done, peak_memory_gib() * 2**30))


class Worker:
    """The process; started anew where a case has killed it."""

    def __init__(self):
        self.process = None

    def run(self, command, arguments, cwd):
        """What came of it, with ``seconds``; its peak memory."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs,), daemon=False)
            self.process.start()
            theirs.close()
        started = time.monotonic()
        self.pipe.send((command, arguments, cwd))
        try:
            if self.pipe.poll(LONGEST_S + 20):
                done, peak = self.pipe.recv()
                done.seconds = time.monotonic() - started
                return done, peak
            crash = f"it hung for more than {LONGEST_S} s"
        except EOFError:
            crash = "the process died"
        self.process.kill()
        self.process.join()
        self.process = None
        return SimpleNamespace(code=None, stdout="", stderr="", crash=crash, seconds=time.monotonic() - started), None

    def stop(self):
        if self.process is not None:
            self.pipe.send(None)
            self.process.join(30)
            self.process.kill()
            self.process = None


def wrong_with(done, folder):
    """What must not be, in words; nothing where all is well."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.crash:
        return done.crash
    if type(done.code) is not int or done.code not in (0, 1, 2):
        return f"exit code {done.code!r}\n{done.stderr}"
    if "Traceback (most recent call last)" in done.stderr:
        return f"a traceback on stderr\n{done.stderr}"
    if done.code == 2 and not (lines and lines[-1].startswith("sfdfd: ")):
        return f"exit code 2 without a line that says why\n{done.stderr}"
    if done.code == 2 and len(lines[-1].split()) < 4:
        return f"a line that says nothing: {lines[-1]}"
    if done.seconds > LONGEST_S:
        return f"it took {done.seconds:.0f} s"
    if found := re.search(r"\w+Error: .*\(\w+\.py, line \d+\)", done.stdout + done.stderr):
        return f"a bug in one of many stacks: {found[0]}"
    for file in folder.rglob("error.json"):
        with contextlib.suppress(ValueError):
            if bug := json.loads(file.read_text()).get("bug"):
                return f"a bug in a job of a multirun\n{bug}"
    return None


@dataclass
class Bench:
    """The cases of a file: how many were run, and what was wrong with them."""

    folder: Path
    worker: Worker = field(default_factory=Worker)
    counts: dict[str, int] = field(default_factory=dict)
    codes: dict[str, dict] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    first_peak: int | None = None
    peak: int = 0

    def case(self, kind):
        """An empty folder."""
        number = self.counts[kind] = self.counts.get(kind, 0) + 1
        folder = self.folder / f"{kind} {number}"
        folder.mkdir(parents=True)
        return folder

    def tried(self, kind, folder, command, arguments, failures, run=None):
        """Run one case in its folder, which is kept where something was wrong; that goes into ``failures``."""
        if run is None:
            done, peak = self.worker.run(command, arguments, folder)
            if peak is not None:
                self.first_peak, self.peak = self.first_peak or peak, max(self.peak, peak)
        else:
            done = run(command, arguments, folder)
        self.seconds[kind] = self.seconds.get(kind, 0.0) + done.seconds
        codes = self.codes.setdefault(kind, {})
        codes[done.code] = codes.get(done.code, 0) + 1
        wrong = wrong_with(done, folder)
        if wrong:
            failures.append(f"{folder.name}: {command} {' '.join(arguments)}\n{wrong}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        if log := os.environ.get("SFDFD_FUZZ_LOG"):
            with open(log, "a", errors="backslashreplace") as file:
                last = (done.stderr.strip().splitlines() or [""])[-1]
                print(
                    f"{done.code} {done.seconds:.2f}s {self.peak >> 20}M {folder.name}: {command} "
                    f"{' '.join(arguments)!r}: {last[:300]!r}",
                    file=file,
                )
                if wrong:
                    print(f"WRONG {folder}\n{wrong}\nENDWRONG", file=file)


# ---------------------------------------------------------------- odd values

ODD = [
    None, "", [], {}, -1, 0, 0.5, 3, float("nan"), float("inf"), float("-inf"), 1e30, 10**30, "x", True, "${nonsense}",
    "long" * 800, "ä漢字\u202e\U0001f4f7", [[1]], [1, "x", None], {"a": {"b": [1]}}, "nan", "../..", "a\nb", [-1, -2],
]  # fmt: skip


def mutated_tree(tree, random_, odd=ODD, times=1):
    """A JSON-like tree with values replaced, taken away, renamed, doubled or wrapped."""
    for _ in range(times):
        places = list(_places(tree))
        if not places:
            return tree
        holder, key = random_.choice(places)
        what = random_.randrange(8)
        if what < 5:
            holder[key] = copy.deepcopy(random_.choice(odd))
        elif what == 5:
            del holder[key]
        elif what == 6 and isinstance(holder, dict):
            holder[random_.choice(["nonsense", "ä", "", "-1"])] = holder.pop(key)
        elif isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[key]))
        else:
            holder[key] = [holder[key]]
    return tree


def _places(node):
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _places(node[key])


def mutated_bytes(content, random_):
    """Bytes flipped, cut, put in, doubled, or made nought."""
    content = bytearray(content)
    what = random_.randrange(7)
    place = random_.randrange(len(content) + 1)
    if random_.random() < 0.5:  # headers lie at the beginning
        place = min(place, random_.randrange(200))
    if what <= 1:
        for _ in range(random_.choice([1, 1, 2, 8, 64])):
            if content:
                spot = (
                    random_.randrange(min(len(content), 400))
                    if random_.random() < 0.5
                    else random_.randrange(len(content))
                )
                content[spot] ^= 1 << random_.randrange(8)
    elif what == 2:
        del content[place:]
    elif what == 3:
        content[place:place] = random_.randbytes(random_.choice([1, 2, 7, 300]))
    elif what == 4:
        del content[place : place + random_.choice([1, 4, 50])]
    elif what == 5:
        content[place : place + random_.choice([4, 40])] = bytes([random_.choice([0, 255])]) * random_.choice([4, 40])
    else:
        content = bytearray(random_.choice([b"", b"\0", b"\xff\xfe", bytes(300), content[::-1], content * 2]))
    return bytes(content)


def mutate_file(path, random_):
    path.write_bytes(mutated_bytes(path.read_bytes(), random_))


def seeded(draw, st):
    """A source of chance that a case is drawn from."""
    return random.Random(draw(st.integers(0, 2**63)))


def quoted(path):
    """A path as an override's value."""
    return "'" + str(path).replace("'", "\\'") + "'"
