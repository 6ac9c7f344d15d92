"""Run commands on odd input in a process of their own, and say what has to hold of every run.

The process stays alive between cases. It runs the commands' main functions without the shape checks of the test session.
"""

import contextlib
import json
import multiprocessing
import os
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
    if match := re.search(r"\w+Error: .*\(\w+\.py, line \d+\)", done.stdout + done.stderr):
        return f"a bug in one of many stacks: {match[0]}"
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
