"""Device, threads, precision and memory of this process."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import torch

from sfdfd.errors import InputError, checked_int, short_repr

__all__ = ["checked_precision", "peak_memory_gib", "pick_device", "use_threads"]


def use_threads(threads: Any) -> None:
    """Set the number of torch's threads; None keeps torch's choice.

    Raises:
        InputError: not a whole number of 1 or more.
    """
    if threads is not None:
        torch.set_num_threads(checked_int(threads, "threads", 1))


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions of training; optics, losses and metrics are float32 in each."""
SHORT_PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Lightning's short names."""


def checked_precision(precision: Any) -> str:
    """Return Lightning's name of a precision that can train.

    Raises:
        InputError: the precision cannot train; the message names one that can.

    Examples:
        >>> checked_precision(32), checked_precision("bf16-mixed")
        ('32-true', 'bf16-mixed')
    """
    name = SHORT_PRECISIONS.get(str(precision), str(precision))
    if name in PRECISIONS:
        return name
    if name in ("bf16-true", "16-true"):
        raise InputError(
            f"trainer.precision={precision}: depth and optics need float32, which weights and stacks in half precision do "
            f"not give; use trainer.precision={name.replace('true', 'mixed')} for half-precision convolutions"
        )
    raise InputError(
        f"trainer.precision: expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {short_repr(precision)}"
    )


def peak_memory_gib() -> float:
    """Return the peak resident memory of this process; NaN if it is unknown.

    On Linux it is VmHWM, because ``getrusage`` includes the parent's memory.

    Examples:
        >>> 0.01 < peak_memory_gib() < 1000
        True
    """
    status = Path("/proc/self/status")
    if status.is_file():
        match = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if match:
            return int(match.group(1)) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def pick_device(name: Any) -> torch.device:
    """Return the device of a name; "auto" is CUDA if available, else the CPU.

    Raises:
        InputError: torch does not know the name, or the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device={name}: not available here ({str(error).splitlines()[0]})") from None
