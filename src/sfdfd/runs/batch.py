"""The same work for many stacks: finished ones are skipped, failed ones are listed, and the others go on."""

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

__all__ = ["INDEX", "Job", "Watch", "run_batch"]

INDEX = "index.json"
OUTPUT_FILE = "said.txt"
"""What the command printed about a stack, beside its files."""
Row = dict[str, Any]
"""A job's entry in the index; see :func:`run_batch`."""
Watch = Callable[[float], None]
"""Called with the finished share of a job."""
Report = Callable[[float, str, Row | None], None]
"""Called with the number of finished jobs, a job's name, and its row once it has ended."""


@dataclass(frozen=True)
class Job:
    """One stack.

    Attributes:
        name: of its folder below the output folder.
        depends_on: everything that its result depends on.
        item: what ``work`` is given.
    """

    name: str
    depends_on: Any
    item: Any = None


def run_batch(
    jobs: Sequence[Job],
    output_dir: Path,
    work: Callable[[Any, Path, Watch], Mapping[str, Any]],
    after_each: Callable[[list[Row]], None] = lambda rows: None,
    is_whole: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    spread: Spread | None = None,
) -> list[Row]:
    """Do every job that is not finished; ``output_dir/index.json`` has the state of all after each.

    Args:
        jobs: in order.
        output_dir: a job's files are in the folder of its name there.
        work: does the job of an item into its folder, and returns plain facts; ``interrupted`` among them ends the batch.
            It writes whole or not at all. A job is skipped only while every file that it wrote is still there.
        after_each: called with the rows; draws the page.
        is_whole: whether a row of an earlier call has what ``after_each`` needs; else its job is done again.
        spread: sends ``work`` to several workers (:mod:`sfdfd.runs.cluster`); None does one job after the other.

    Returns:
        One row for each job: name, status ("done", "skipped", "failed", "stopped", "waiting"), seconds, error, facts, files
        (those that the job wrote, as paths below its folder).

    Raises:
        InputError: ``output_dir`` holds another program's index.
    """
    earlier = _read_index(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = [_row_of(job, earlier.get(job.name), output_dir, is_whole) for job in jobs]
    missing = [index for index, row in enumerate(rows) if row["status"] == "waiting"]
    finished = len(jobs) - len(missing)
    with _progress(len(jobs)) as report:
        for row in rows:
            if row["status"] == "skipped":
                report(finished, row["name"], row)
        tasks = [(jobs[index].item, output_dir / jobs[index].name) for index in missing]
        if spread is None:
            names = [jobs[index].name for index in missing]
            outcomes = _one_by_one(work, tasks, lambda done, place: report(finished + done, names[place], None))
        else:
            outcomes = spread(partial(_outcome, work), tasks)
        for number, (place, outcome) in enumerate(outcomes, 1):
            row = rows[missing[place]]
            row.update(_failure(outcome) if isinstance(outcome, Exception) else outcome)
            row["files"] = _files_of_its_own(row["name"], row["files"], [job.name for job in jobs])
            report(finished + number, row["name"], row)
            _write_index(output_dir, rows, after_each)
            if row["status"] == "stopped":
                break
        if not missing:
            _write_index(output_dir, rows, after_each)
    return rows


def _row_of(job: Job, earlier: Row | None, output_dir: Path, is_whole: Callable[[Mapping[str, Any]], bool]) -> Row:
    """Return the row of a job before it runs: "skipped" where the result of an earlier call still holds."""
    row: Row = {
        "name": job.name,
        "status": "waiting",
        "seconds": None,
        "error": None,
        "facts": {},
        "files": [],
        "depends_on": json.loads(json.dumps(job.depends_on, default=str)),
    }
    if earlier and _still_holds(earlier, row["depends_on"], output_dir / job.name) and is_whole(earlier):
        row.update(earlier, name=job.name, status="skipped")
    return row


def _write_index(output_dir: Path, rows: list[Row], after_each: Callable[[list[Row]], None]) -> None:
    write_json(output_dir / INDEX, {"stacks": rows})
    after_each(rows)


def _still_holds(row: Mapping[str, Any], depends_on: Any, folder: Path) -> bool:
    """Return whether the result of an earlier call depended on the same, and has all its files."""
    files = row.get("files")
    if row["status"] not in ("done", "skipped") or row.get("depends_on") != depends_on:
        return False
    return isinstance(files, list) and bool(files) and all((folder / str(name)).is_file() for name in files)


def _file_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return (inode, size, time of modification) of each file below a folder, which changes when it is written again."""
    states = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            states[path.relative_to(folder).as_posix()] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return states


def _files_of_its_own(name: str, files: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a job's files without those of jobs whose folders are inside its folder and that ran at the same time."""
    nested = tuple(f"{other[len(name) + 1 :]}/" for other in names if other.startswith(f"{name}/"))
    return sorted(readable(file) for file in files if not file.startswith(nested))


def _one_by_one(
    work: Callable[..., Any], tasks: Sequence[Any], report: Callable[[float, int], None]
) -> Iterator[tuple[int, Any]]:
    """Yield (place, outcome) of each task, done in this process; ``report`` is called with (finished tasks, place)."""
    for place, task in enumerate(tasks):
        report(place, place)
        yield place, _outcome(work, task, lambda share, place=place: report(place + share, place))


def _outcome(work: Callable[..., Any], task: tuple[Any, Path], watch: Watch = lambda share: None) -> Row:
    """Do one job and return what its row gets; what ``work`` prints goes into a file beside its result."""
    item, folder = task
    started, printed = time.monotonic(), io.StringIO()
    try:
        before = _file_states(folder)
        with contextlib.redirect_stdout(printed):
            facts = dict(work(item, folder, watch))
        outcome: Row = {
            "status": "stopped" if facts.pop("interrupted", False) else "done",
            "facts": facts,
            "error": None,
        }
        (folder / OUTPUT_FILE).write_text(readable(printed.getvalue()), encoding="utf-8")
        outcome["files"] = [file for file, state in _file_states(folder).items() if before.get(file) != state]
    except KeyboardInterrupt:
        outcome = {"status": "stopped"}
    except Exception as error:  # a bug, or no memory: the other jobs go on
        outcome = _failure(error)
    return {**outcome, "seconds": round(time.monotonic() - started, 1)}


def _failure(error: Exception) -> Row:
    if isinstance(error, InputError):
        return {"status": "failed", "error": one_line(error)}
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    location = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in frames)
    return {"status": "failed", "error": f"{type(error).__name__}: {one_line(error)}{location}"}


def _read_index(output_dir: Path) -> dict[str, Row]:
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
def _progress(number: int) -> Iterator[Report]:
    """Show one progress bar on a terminal, and a line for each stack elsewhere."""
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # FORCE_COLOR makes no terminal
    if not console.is_terminal:
        yield _print_row
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=number)
        yield lambda done, name, row: bar.update(task, completed=done, description=f"{name} (Ctrl-C ends with it)")


def _print_row(done: float, name: str, row: Row | None) -> None:
    if row is not None:
        print(f"{int(done)}: {name}: {row['status']}" + (f": {row['error']}" if row["error"] else ""), flush=True)
