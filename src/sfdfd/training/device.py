"""Where tensors live, and on how many threads."""

from __future__ import annotations

from typing import Any

import torch

from sfdfd.errors import InputError, checked_whole

__all__ = ["pick_device", "use_threads"]


def use_threads(threads: Any) -> None:
    """Bound the threads of torch's operators; None leaves torch's choice.

    Raises:
        InputError: not a whole number of 1 or more.
    """
    if threads is not None:
        torch.set_num_threads(checked_whole(threads, "threads", 1))


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU; Apple's MPS by name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not available here ({str(error).splitlines()[0]})") from None
