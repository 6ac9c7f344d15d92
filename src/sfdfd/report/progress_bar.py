"""The progress of a refinement on the terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["refinement_progress"]

EVERY_S = 5.0
"""Time between two lines where the output is no terminal."""


@contextmanager
def refinement_progress() -> Iterator[Callable[[float, int, float], None]]:
    """Yield a ``progress`` callback: a bar on a terminal, else a line every five seconds."""
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # FORCE_COLOR makes no terminal
    if console.is_terminal:
        columns = (TextColumn("refining (Ctrl-C keeps the best so far)"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[figures]}"), console=console) as bar:
            task = bar.add_task("", total=1.0, figures="")
            yield lambda share, step, energy: bar.update(task, completed=share, figures=_figures(step, energy))
        return
    last_s = time.monotonic()

    def print_line(share: float, step: int, energy: float) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= EVERY_S:
            last_s = time.monotonic()
            figures = _figures(step, energy)
            print(f"refining: {share:.0%}{', ' if figures else ''}{figures}", flush=True)

    yield print_line


def _figures(step: int, energy: float) -> str:
    return f"step {step}, energy {energy:.5f}" if math.isfinite(energy) else ""  # none before the first step
