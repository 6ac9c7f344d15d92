"""Contestants of a benchmark: methods of this package, any Python callable, external programs, finished predictions."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
import yaml

from sfdfd.datasets.sources.base import write_stack
from sfdfd.errors import InputError, checked_choice, checked_number, one_line
from sfdfd.inference.answers import Answer, Contestant, Cost, measured, peak_gib
from sfdfd.io.images import to_float
from sfdfd.io.stack_yaml import refuse_unknown_keys
from sfdfd.measures.alignment import DEPTH_KINDS
from sfdfd.stack import FocalStack, Method, Prediction

__all__ = ["CommandContestant", "FolderContestant", "MethodContestant", "contestants_of", "read_answer", "write_answer"]

KEYS = ("name", "call", "options", "command", "predictions", "depth", "timeout_s", "note")
SOURCES = ("call", "command", "predictions")
TIMEOUT_S = 600.0
POLL_S = 0.05
LAST_WORDS = 300
"""Characters of a failed program's output that the message quotes."""


class MethodContestant:
    """A :class:`sfdfd.stack.Method`, or any callable that maps a focal stack to a prediction.

    A prediction whose depth (or AIF) is NaN everywhere has none.

    Args:
        name, depth_kind, how: as of :class:`sfdfd.inference.answers.Contestant`.
        method: called with a batch of one without truth.
    """

    def __init__(self, name: str, method: Method, depth_kind: str = "metric", how: str = "") -> None:
        self.name, self.method, self.depth_kind, self.how = name, method, depth_kind, how

    def solve(self, stack: FocalStack) -> Answer:
        with measured() as cost:
            prediction = self.method(stack)
        if not isinstance(prediction, Prediction):
            raise InputError(f"expected a Prediction, got {type(prediction).__name__}")
        depth, aif = prediction.depth_m[0].detach().cpu(), prediction.aif[0].detach().cpu()
        return Answer(
            None if depth.isnan().all() else depth.float(), None if aif.isnan().all() else aif.float().clamp(0, 1), cost
        )


class CommandContestant:
    """An external program. For each stack it runs once, in an empty folder of its own.

    The folder ``{input}`` has ``slice_00.png`` ... and ``stack.yaml`` (camera, focus distances, depth range).
    It writes ``depth.npy`` (or ``depth.png``) and ``aif.png`` into the folder ``{output}``, or one of the two.

    Args:
        name, depth_kind: as of :class:`sfdfd.inference.answers.Contestant`.
        command: a command line with ``{input}`` and ``{output}``; ``{python}`` is this Python, ``$NAME`` a variable of the
            environment. No shell runs it.
        timeout_s: seconds after which it is ended.
    """

    def __init__(self, name: str, command: str, depth_kind: str = "metric", timeout_s: float = TIMEOUT_S) -> None:
        if "{input}" not in command or "{output}" not in command:
            raise InputError(f"methods: {name}: expected a command with {{input}} and {{output}}, got {command!r}")
        self.name, self.depth_kind, self.how, self.timeout_s = name, depth_kind, command, timeout_s
        unset = re.findall(r"\$\{?(\w+)", os.path.expandvars(command))
        if unset:
            raise InputError(
                f"methods: {name}: its command needs {', '.join(unset)}, which the environment does not have"
            )

    def solve(self, stack: FocalStack) -> Answer:
        with tempfile.TemporaryDirectory() as scratch:
            given, written = Path(scratch) / "stack", Path(scratch) / "answer"
            written.mkdir()
            write_input(Path(scratch), stack)
            places = {"{input}": str(given), "{output}": str(written), "{python}": sys.executable}
            parts = []
            for part in shlex.split(os.path.expandvars(self.how)):
                for key, value in places.items():
                    part = part.replace(key, value)
                parts.append(part)
            cost = _run(parts, Path(scratch), self.timeout_s)
            depth, aif = read_answer(written)
        return Answer(depth, aif, cost)


class FolderContestant:
    """Finished predictions: ``NAME/depth.npy`` (or ``depth.png``) and ``NAME/aif.png`` for each stack's name.

    Args:
        name, depth_kind: as of :class:`sfdfd.inference.answers.Contestant`.
        folder: of the predictions.
    """

    def __init__(self, name: str, folder: str | Path, depth_kind: str = "metric") -> None:
        self.name, self.depth_kind, self.folder = name, depth_kind, Path(folder)
        self.how = "finished predictions"
        if not self.folder.is_dir():
            raise InputError(f"methods: {name}: no folder {folder}")

    def solve(self, stack: FocalStack) -> Answer:
        folder = self.folder / stack.name[0]
        if not folder.is_dir():
            raise InputError("no prediction of this stack")
        return Answer(*read_answer(folder))


# ---------------------------------------------------------------- files


def write_input(folder: Path, stack: FocalStack) -> None:
    """Write a batch of one as ``folder/stack``: 8-bit slices, and ``stack.yaml``."""
    codes = (stack.images[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    focus_m = stack.focus_distances_m[0].tolist()
    near_m, far_m = float(stack.near_m[0]), float(stack.far_m[0])
    write_stack(folder, "stack", list(codes), stack.camera[0].as_dict(), focus_m, near_m, far_m)


def read_answer(folder: Path) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Read depth and AIF from a folder; None for what is not there.

    Raises:
        InputError: a file is not readable, or is no image or array of one channel or three.
    """
    depth, aif = None, None
    try:
        if (folder / "depth.npy").is_file():
            depth = np.load(folder / "depth.npy", allow_pickle=False)
        elif (folder / "depth.png").is_file():
            depth = iio.imread(folder / "depth.png")
        if (folder / "aif.png").is_file():
            aif = iio.imread(folder / "aif.png")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"an answer is not readable: {one_line(error)}") from None
    if depth is not None and (depth.ndim != 2 or depth.dtype.kind not in "fiu"):
        raise InputError(f"depth: expected numbers of shape (height, width), got {depth.dtype} {depth.shape}")
    if aif is not None and (aif.ndim != 3 or aif.shape[2] < 3):
        raise InputError(f"aif: expected a picture with three colours, got shape {aif.shape}")
    return (
        None if depth is None else torch.from_numpy(depth.astype(np.float32)),
        None if aif is None else to_float(aif[..., :3]),
    )


def write_answer(folder: Path, answer: Answer) -> None:
    """Write an answer as :func:`read_answer` reads it; the AIF is rounded to 8 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    if answer.depth is not None:
        np.save(folder / "depth.npy", answer.depth.numpy().astype(np.float32))
    if answer.aif is not None:
        codes = (answer.aif.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        iio.imwrite(folder / "aif.png", codes)


# ---------------------------------------------------------------- processes


def _run(command: Sequence[str], folder: Path, timeout_s: float) -> Cost:
    """Run a program to its end and return what it cost.

    Raises:
        InputError: it cannot be started, fails, or takes too long.
    """
    log = folder / "log.txt"
    begun, before = time.perf_counter(), os.times()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise InputError(f"cannot start {command[0]}: {one_line(error)}") from None
    peak: float | None = None
    try:
        while True:
            peak = peak_gib(process.pid) or peak
            try:
                code = process.wait(POLL_S)
                break
            except subprocess.TimeoutExpired:
                if time.perf_counter() - begun > timeout_s:
                    raise InputError(f"took longer than {timeout_s:g} s (timeout_s)") from None
    finally:
        _end(process)
    if code != 0:
        words = " ".join(log.read_text(errors="replace").split())[-LAST_WORDS:]
        raise InputError(f"exit code {code}: {words or 'no message'}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.perf_counter() - begun, cpu, peak)


def _end(process: subprocess.Popen) -> None:
    """End a program and the programs that it has started."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


# ---------------------------------------------------------------- from a config


def contestants_of(entries: Any, known: Mapping[str, Callable[[], Method]]) -> list[Contestant]:
    """Return the contestants that ``methods=[...]`` names.

    Args:
        entries: each is a name in ``known``; an import path ``package.module:Name`` of a callable or of a class that is made
            without arguments; a YAML file with a list of entries; or a mapping with ``name`` and one of ``call`` (import
            path, with ``options``), ``command`` or ``predictions``, and perhaps ``depth``, ``timeout_s`` and ``note``.
        known: makes the package's own methods.

    Raises:
        InputError: an entry is none of these, or two have one name.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise InputError(f"methods: expected a list, got {entries!r}; for example methods=[pretrained,classical]")
    contestants: list[Contestant] = []
    for entry in _without_files(entries):
        contestants.append(_named(entry, known) if isinstance(entry, str) else _described(entry))
    names = [contestant.name for contestant in contestants]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"methods: two are called {doubled}; give one another name: {{name: ..., ...}}")
    return contestants


def _without_files(entries: Sequence[Any]) -> list[Any]:
    """Replace the names of YAML files by the entries in them."""
    flat = []
    for entry in entries:
        if not (isinstance(entry, str) and entry.endswith((".yaml", ".yml"))):
            flat.append(entry)
            continue
        try:
            content = yaml.safe_load(Path(entry).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"methods: {entry}: not readable ({one_line(error)})") from None
        if not isinstance(content, list):
            raise InputError(f"methods: {entry}: expected a list of methods, got {type(content).__name__}")
        flat += content
    return flat


def _named(entry: str, known: Mapping[str, Callable[[], Method]]) -> Contestant:
    if entry in known:
        return MethodContestant(entry, known[entry](), how="of this package")
    if ":" not in entry:
        raise InputError(
            f"methods: {entry!r}: expected {', '.join(known)}, package.module:Name, a YAML file or a mapping"
        )
    return MethodContestant(entry.rsplit(":", 1)[1], _imported(entry, {}), how=entry)


def _described(entry: Any) -> Contestant:
    if not isinstance(entry, Mapping):
        raise InputError(f"methods: expected a name or a mapping, got {entry!r}")
    refuse_unknown_keys(entry, KEYS, "methods")
    name, given = entry.get("name"), [key for key in SOURCES if entry.get(key) is not None]
    if not isinstance(name, str) or not name or "/" in name:
        raise InputError(f"methods: expected a name without slashes for each, got {name!r} (name)")
    if len(given) != 1:
        raise InputError(f"methods: {name}: expected one of {', '.join(SOURCES)}, got {' and '.join(given) or 'none'}")
    kind = checked_choice(entry.get("depth", "metric"), f"methods: {name}: depth", DEPTH_KINDS)
    (source,) = given
    if source == "command":
        timeout_s = checked_number(entry.get("timeout_s", TIMEOUT_S), f"methods: {name}: timeout_s")
        return CommandContestant(name, str(entry["command"]), kind, timeout_s)
    if source == "predictions":
        return FolderContestant(name, str(entry["predictions"]), kind)
    options = entry.get("options") or {}
    return MethodContestant(name, _imported(str(entry["call"]), options), kind, str(entry["call"]))


def _imported(path: str, options: Mapping[str, Any]) -> Method:
    """Import ``package.module:Name``; a class is made with the options, a function gets them at each call."""
    module, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:  # a console script does not look here
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        if isinstance(found, type):
            return found(**options)
        return partial(found, **options) if options else found
    except Exception as error:  # of somebody else's code
        raise InputError(f"methods: {path}: {type(error).__name__}: {one_line(error)}") from None
