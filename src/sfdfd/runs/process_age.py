"""How long a command's process has been running: starting Python and composing the config count as its time, too."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sfdfd.runs.command import is_multirun

__all__ = ["command_age_s", "process_age_s"]

START_FIELD = 19
"""Position of the start in ``/proc/self/stat``, after the name in brackets."""


def process_age_s() -> float:
    """Return the seconds since this process began; without ``/proc``, its processor seconds so far."""
    with suppress(OSError, ValueError, IndexError):
        start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[START_FIELD]
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime_s - int(start) / os.sysconf("SC_CLK_TCK"))
    return time.process_time()


def command_age_s(main: Callable[[], Any]) -> float:
    """Return the seconds since this process began if it runs a command once; 0 for a call or a job among others.

    Args:
        main: the command's entry point, which its process has as ``main`` of the module ``__main__``.
    """
    is_own_process = getattr(sys.modules["__main__"], "main", None) is main
    return process_age_s() if is_own_process and not is_multirun() else 0.0
