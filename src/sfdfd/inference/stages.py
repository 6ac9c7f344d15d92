"""Stages of a prediction: what runs, how long each took, and what is left of the time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["Stages"]

HEARTBEAT_S = 5.0
"""Time without a line after which a stage says that it still runs."""
SMALLEST_REFINEMENT_S = 1.0
"""A refinement with less time than this is left out."""


class Stages:
    """Time the stages of a prediction and report them.

    Args:
        say: receives a line when a stage begins, and every ``HEARTBEAT_S`` while it runs.
        seconds: budget for everything; None for none.
        begun_s: :func:`time.monotonic` at the beginning; now by default.

    Examples:
        >>> stages = Stages(seconds=60)
        >>> with stages.stage("reading"):
        ...     pass
        >>> list(stages.seconds_by_stage), stages.left_s() < 60
        (['reading'], True)
    """

    def __init__(
        self,
        say: Callable[[str], None] | None = None,
        seconds: float | None = None,
        begun_s: float | None = None,
    ) -> None:
        self.say, self.seconds = say, seconds
        self.begun_s = time.monotonic() if begun_s is None else begun_s
        self.seconds_by_stage: dict[str, float] = {} if begun_s is None else {"starting": self.elapsed_s()}
        """Seconds of each finished stage, in order."""

    def elapsed_s(self) -> float:
        return time.monotonic() - self.begun_s

    def left_s(self) -> float:
        """Return the seconds that are left; infinite without a budget."""
        return float("inf") if self.seconds is None else self.seconds - self.elapsed_s()

    def refinement_s(self, wanted_s: float, reserved_s: float) -> float:
        """Return the time for refinement: ``wanted_s``, or what the budget leaves; 0 where it is too little.

        Args:
            wanted_s: seconds without a budget.
            reserved_s: seconds that the stages after it need.
        """
        available_s = min(wanted_s, self.left_s() - reserved_s)
        return available_s if available_s >= min(SMALLEST_REFINEMENT_S, wanted_s) else 0.0

    @contextlib.contextmanager
    def stage(self, name: str, *, heartbeat: bool = True) -> Iterator[None]:
        """Run a stage.

        Args:
            name: in words: key of :attr:`seconds_by_stage`, and part of the line.
            heartbeat: whether it reports that it still runs; not where a progress bar does.
        """
        begun_s, done = time.monotonic(), threading.Event()
        self._report(name)
        thread = threading.Thread(target=self._beat, args=(name, done), daemon=True)
        if self.say is not None and heartbeat:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if thread.ident is not None:
                thread.join()
            previous = self.seconds_by_stage.get(name, 0.0)
            self.seconds_by_stage[name] = previous + time.monotonic() - begun_s

    def _beat(self, name: str, done: threading.Event) -> None:
        while not done.wait(HEARTBEAT_S):
            self._report(name)

    def _report(self, name: str) -> None:
        if self.say is not None:
            budget = "" if self.seconds is None else f" of {self.seconds:.0f}"
            self.say(f"[{self.elapsed_s():3.0f}{budget} s] {name}")
