"""What ends a training that is nobody's bug, in one line: a full disk, a worker or a process that died or hangs."""

from __future__ import annotations

import errno
import re

from sfdfd.errors import one_line

__all__ = ["describe_fault"]

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
SIGNS = (
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
    """One line on what happened and how to go on, where it is one of these faults; else None."""
    again = "continue with resume=last and the same output_dir"
    if isinstance(error, OSError) and error.errno in DISK:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; {again}"
    told = re.findall(r"^sfdfd\.errors\.InputError: (.+)$", str(error), re.MULTILINE)  # of a spawned process
    if told:
        return told[-1]
    if isinstance(error, RuntimeError) or type(error).__name__.startswith("Process"):
        for sign, words in SIGNS:
            if re.search(sign, str(error)):
                return f"{words}; {again} ({one_line(error)[:160]})"
    return None
