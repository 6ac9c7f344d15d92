"""Where tensors live, and on how many threads."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import torch

from sfdfd.errors import InputError, checked_whole

__all__ = ["peak_memory_gib", "pick_device", "use_threads"]


def use_threads(threads: Any) -> None:
    """Bound the threads of torch's operators; None leaves torch's choice.

    Raises:
        InputError: not a whole number of 1 or more.
    """
    if threads is not None:
        torch.set_num_threads(checked_whole(threads, "threads", 1))


def peak_memory_gib() -> float:
    """The largest memory that this process has had, of the machine's (VmHWM on Linux, where ``getrusage`` counts
    what the parent had); NaN where nobody tells.

    Examples:
        >>> 0.01 < peak_memory_gib() < 1000
        True
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found.group(1)) / 2**20
    try:
        import resource
    except ImportError:  # Windows has none
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def pick_device(name: Any) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU; else what torch takes for a device (Apple's MPS by name).

    Raises:
        InputError: torch takes it for none, or there is none of that name here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device={name}: not available here ({str(error).splitlines()[0]})") from None
