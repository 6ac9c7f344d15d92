"""Describe failures of the machine that end a training: a full disk, a process that died or hangs."""

from __future__ import annotations

import errno
import re

from sfdfd.errors import one_line

__all__ = ["describe_fault"]

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
PROCESS_FAILURES = (
    (
        r"DataLoader worker \(pid\(?s?\)? [^)]*\)",
        "a loader's process died (out of memory? data.workers=0 loads without)",
    ),
    (
        r"DataLoader timed out",
        "a loader's process gave nothing for data.worker_timeout_s; data.workers=0 loads without",
    ),
    (
        r"process \d+ (terminated|exited)|Connection (closed|reset)|ProcessGroup|gloo|NCCL",
        "another process of the run died",
    ),
)


def describe_fault(error: BaseException) -> str | None:
    """Return one line on what happened and how to continue; None for any other error."""
    advice = "continue with resume=last and the same output_dir"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror}; {advice}"
    messages = re.findall(r"^sfdfd\.errors\.InputError: (.+)$", str(error), re.MULTILINE)  # of a spawned process
    if messages:
        return messages[-1]
    if isinstance(error, RuntimeError) or type(error).__name__.startswith("Process"):
        for pattern, description in PROCESS_FAILURES:
            if re.search(pattern, str(error)):
                return f"{description}; {advice} ({one_line(error)[:160]})"
    return None
