"""The same work for many stacks: what is done is skipped, what fails is listed, and nothing of it ends the rest."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sfdfd.data.files import readable, write_json
from sfdfd.errors import InputError, one_line

__all__ = ["INDEX", "Job", "Watch", "run_many"]

INDEX = "index.json"
SAID = "said.txt"
"""What the command said of a stack, beside its files."""
Watch = Callable[[float], None]
"""Told the share of a job that is done."""


@dataclass(frozen=True)
class Job:
    """One stack: the name of its folder below the output folder, and everything that its result depends on."""

    name: str
    depends_on: Any


def run_many(
    jobs: Sequence[Job],
    output_dir: Path,
    work: Callable[[int, Path, Watch], Mapping[str, Any]],
    after_each: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Do every job that is not done; ``output_dir/index.json`` says after each how all of them stand.

    Args:
        jobs: in order.
        output_dir: a job's files lie in the folder of its name there.
        work: does the job of an index into its folder, and returns plain facts; with ``interrupted`` among them it was the
            last. Writes whole or not at all.
        after_each: told the rows; draws the page.

    Returns:
        One row for each job: name, status ("done", "skipped", "failed", "stopped", "waiting"), seconds, error, facts.

    Raises:
        InputError: ``output_dir`` holds something else's index.
    """
    before = _read_index(output_dir)
    rows: list[dict[str, Any]] = [
        {"name": job.name, "status": "waiting", "seconds": None, "error": None, "facts": {}} for job in jobs
    ]
    output_dir.mkdir(parents=True, exist_ok=True)
    with _bar(len(jobs)) as say:
        for index, job in enumerate(jobs):
            row, known = rows[index], before.get(job.name)
            key = json.loads(json.dumps(job.depends_on, default=str))
            row["depends_on"] = key
            if known and known["status"] in ("done", "skipped") and known.get("depends_on") == key:
                row.update(known, status="skipped")
            else:
                _do(job, row, output_dir / job.name, lambda folder, watch, i=index: work(i, folder, watch), index, say)
            say(index + 1.0, job.name, row)
            write_json(output_dir / INDEX, {"stacks": rows})
            after_each(rows)
            if row["status"] == "stopped":
                break
    return rows


def _do(
    job: Job,
    row: dict[str, Any],
    folder: Path,
    work: Callable[[Path, Watch], Mapping[str, Any]],
    index: int,
    say: Callable[..., None],
) -> None:
    """One job: its result or its failure goes into the row, and what it said into a file beside its result."""
    started, said = time.monotonic(), io.StringIO()
    say(float(index), job.name, None)
    try:
        with contextlib.redirect_stdout(said):
            facts = dict(work(folder, lambda share: say(index + share, job.name, None)))
        row.update(status="stopped" if facts.pop("interrupted", False) else "done", facts=facts)
        (folder / SAID).write_text(readable(said.getvalue()), encoding="utf-8")
    except InputError as error:
        row.update(status="failed", error=one_line(error))
    except KeyboardInterrupt:
        row.update(status="stopped")
    except Exception as error:  # a bug, or no memory: the others are not to suffer from it
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {one_line(error)} ({Path(where.filename).name}, line {where.lineno})"
        row.update(status="failed", error=words)
    row["seconds"] = round(time.monotonic() - started, 1)


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
