"""The same work for many stacks: what is done is skipped, what fails is listed, and nothing of it ends the rest."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sfdfd.errors import InputError, one_line
from sfdfd.io.files import readable, write_json
from sfdfd.runs.cluster import Spread

__all__ = ["INDEX", "Job", "Watch", "run_many"]

INDEX = "index.json"
SAID = "said.txt"
"""What the command said of a stack, beside its files."""
Watch = Callable[[float], None]
"""Told the share of a job that is done."""


@dataclass(frozen=True)
class Job:
    """One stack: the name of its folder below the output folder, everything that its result depends on, and what ``work`` is
    given."""

    name: str
    depends_on: Any
    item: Any = None


def run_many(
    jobs: Sequence[Job],
    output_dir: Path,
    work: Callable[[Any, Path, Watch], Mapping[str, Any]],
    after_each: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
    is_whole: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    spread: Spread | None = None,
) -> list[dict[str, Any]]:
    """Do every job that is not done; ``output_dir/index.json`` says after each how all of them stand.

    Args:
        jobs: in order.
        output_dir: a job's files lie in the folder of its name there.
        work: does the job of an item into its folder, and returns plain facts; with ``interrupted`` among them it was the
            last. Writes whole or not at all. A job is skipped only while every file that it wrote is still there.
        after_each: told the rows; draws the page.
        is_whole: whether a row of an earlier call has what ``after_each`` asks for; else its job is done again.
        spread: does them on several workers (:mod:`sfdfd.runs.cluster`), which are sent ``work``; None: one after the other.

    Returns:
        One row for each job: name, status ("done", "skipped", "failed", "stopped", "waiting"), seconds, error, facts, files
        (those that the job wrote, as paths below its folder).

    Raises:
        InputError: ``output_dir`` holds something else's index.
    """
    before = _read_index(output_dir)
    rows: list[dict[str, Any]] = [
        {
            "name": job.name,
            "status": "waiting",
            "seconds": None,
            "error": None,
            "facts": {},
            "files": [],
            "depends_on": json.loads(json.dumps(job.depends_on, default=str)),
        }
        for job in jobs
    ]
    output_dir.mkdir(parents=True, exist_ok=True)
    missing = []
    for index, row in enumerate(rows):
        known = before.get(row["name"])
        if known is not None and _still_holds(known, row["depends_on"], output_dir / row["name"]) and is_whole(known):
            row.update(known, name=row["name"], status="skipped")
        else:
            missing.append(index)
    with _bar(len(jobs)) as say:
        there = len(jobs) - len(missing)
        for row in rows:
            if row["status"] == "skipped":
                say(there, row["name"], row)
        tasks = [(jobs[index].item, output_dir / jobs[index].name) for index in missing]
        if spread is None:
            ended: Iterator[tuple[int, Any]] = _one_by_one(
                work, tasks, [jobs[index].name for index in missing], there, say
            )
        else:
            ended = spread(partial(_outcome, work), tasks)
        for number, (place, outcome) in enumerate(ended):
            row = rows[missing[place]]
            row.update(_failed(outcome) if isinstance(outcome, Exception) else outcome)
            row["files"] = _own_files(row["name"], row["files"], [job.name for job in jobs])
            say(there + number + 1.0, row["name"], row)
            write_json(output_dir / INDEX, {"stacks": rows})
            after_each(rows)
            if row["status"] == "stopped":
                break
        if not missing:
            write_json(output_dir / INDEX, {"stacks": rows})
            after_each(rows)
    return rows


def _still_holds(row: Mapping[str, Any], depends_on: Any, folder: Path) -> bool:
    """Whether the result of an earlier call can stand: made from the same, and every file of it is there."""
    files = row.get("files")
    if row["status"] not in ("done", "skipped") or row.get("depends_on") != depends_on:
        return False
    return isinstance(files, list) and bool(files) and all((folder / str(name)).is_file() for name in files)


def _written(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What tells the files below a folder from later ones of the same names: (inode, size, time of modification)."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            facts = path.stat()
            found[path.relative_to(folder).as_posix()] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return found


def _own_files(name: str, files: Sequence[str], names: Sequence[str]) -> list[str]:
    """The files of a job without those of jobs whose folders lie in its own and that ran at the same time."""
    below = tuple(f"{other[len(name) + 1 :]}/" for other in names if other.startswith(f"{name}/"))
    return sorted(readable(file) for file in files if not file.startswith(below))


def _one_by_one(
    work: Callable[..., Any], tasks: Sequence[Any], names: Sequence[str], there: int, say: Callable[..., None]
) -> Iterator[tuple[int, Any]]:
    """In this process, the bar told of every share."""
    for place, task in enumerate(tasks):
        say(float(there + place), names[place], None)
        yield place, _outcome(work, task, lambda share, p=place: say(there + p + share, names[p], None))


def _outcome(work: Callable[..., Any], task: tuple[Any, Path], watch: Watch = lambda share: None) -> dict[str, Any]:
    """One job: what its row says; what it said itself goes into a file beside its result."""
    item, folder = task
    started, said = time.monotonic(), io.StringIO()
    try:
        before = _written(folder)
        with contextlib.redirect_stdout(said):
            facts = dict(work(item, folder, watch))
        outcome: dict[str, Any] = {
            "status": "stopped" if facts.pop("interrupted", False) else "done",
            "facts": facts,
            "error": None,
        }
        (folder / SAID).write_text(readable(said.getvalue()), encoding="utf-8")
        outcome["files"] = [file for file, state in _written(folder).items() if before.get(file) != state]
    except KeyboardInterrupt:
        outcome = {"status": "stopped"}
    except Exception as error:  # a bug, or no memory: the others are not to suffer from it
        outcome = _failed(error)
    return {**outcome, "seconds": round(time.monotonic() - started, 1)}


def _failed(error: Exception) -> dict[str, Any]:
    if isinstance(error, InputError):
        return {"status": "failed", "error": one_line(error)}
    where = "".join(
        f" ({Path(at.filename).name}, line {at.lineno})" for at in traceback.extract_tb(error.__traceback__)[-1:]
    )
    return {"status": "failed", "error": f"{type(error).__name__}: {one_line(error)}{where}"}


def _read_index(output_dir: Path) -> dict[str, dict[str, Any]]:
    path = output_dir / INDEX
    if not path.is_file():
        return {}
    try:
        return {str(row["name"]): {"status": row["status"], **row} for row in json.loads(path.read_text())["stacks"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the index of an earlier call ({one_line(error)}); remove it, or give another output_dir"
        ) from None


@contextlib.contextmanager
def _bar(number: int):
    """One progress bar on a terminal, a line for each stack elsewhere."""
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # FORCE_COLOR makes no terminal
    if not console.is_terminal:
        yield _say_line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=number)
        yield lambda done, name, row: bar.update(task, completed=done, description=f"{name} (Ctrl-C ends with it)")


def _say_line(done: float, name: str, row: Mapping[str, Any] | None) -> None:
    if row is not None:
        print(f"{int(done)}: {name}: {row['status']}" + (f": {row['error']}" if row["error"] else ""), flush=True)
