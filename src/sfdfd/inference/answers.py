"""What contestants of a benchmark answer, what it cost, and what an answer has to be."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.stack import FocalStack

__all__ = ["Answer", "Contestant", "Cost", "check_answer", "measured", "peak_gib"]


@dataclass
class Cost:
    """What an answer cost.

    Attributes:
        seconds: by the clock.
        cpu_seconds: of all processors together.
        peak_gib: largest resident memory of the process; None where it cannot be read.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_gib: float | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """A contestant's answer for one stack.

    Attributes:
        depth: (H,W), of the contestant's ``depth_kind``; None where it finds no depth.
        aif: (3,H,W) RGB in [0, 1]; None where it makes none.
        cost: time and memory.
    """

    depth: Tensor | None
    aif: Tensor | None
    cost: Cost = field(default_factory=Cost)


@runtime_checkable
class Contestant(Protocol):
    """Takes part in a benchmark.

    Attributes:
        name: of its row.
        depth_kind: of :data:`sfdfd.measures.alignment.DEPTH_KINDS`.
        how: what it runs, in words.
    """

    name: str
    depth_kind: str
    how: str

    def solve(self, stack: FocalStack) -> Answer:
        """Answer for a batch of one without truth.

        Raises:
            InputError: it failed; the message says how.
        """


def check_answer(answer: Answer, stack: FocalStack, depth_kind: str) -> None:
    """Refuse an answer that cannot be judged.

    Raises:
        InputError: it has neither depth nor AIF, another size than the stack, values that are not finite, or depth that is
            not positive.
    """
    size = tuple(stack.images.shape[-2:])
    if answer.depth is None and answer.aif is None:
        raise InputError("neither depth nor an all-in-focus image came back")
    for name, value, shape in (("depth", answer.depth, size), ("aif", answer.aif, (3, *size))):
        if value is None:
            continue
        if tuple(value.shape) != shape:
            raise InputError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{name}: {int((~torch.isfinite(value)).sum())} values are not finite")
    if answer.depth is not None and depth_kind in ("metric", "relative") and not bool((answer.depth > 0).all()):
        raise InputError(f"depth: {int((answer.depth <= 0).sum())} values are not positive")


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Measure what a block costs in this process."""
    cost = Cost()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        cost.peak_gib = peak_gib("self")


def peak_gib(process: int | str) -> float | None:
    """Return the largest resident memory of a process so far in GiB; None where the system does not tell."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) / 2**20
