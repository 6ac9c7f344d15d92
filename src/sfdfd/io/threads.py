"""Work on several slices at once: OpenCV, NumPy and image decoders release Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["in_threads"]

MOST_THREADS = 4
"""More threads would hold as many full-size photographs in memory."""


def in_threads(function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
    """Return the results of ``map`` in order, computed in two to four threads.

    Examples:
        >>> in_threads(max, [1, 5], [4, 2])
        [4, 5]
    """
    with ThreadPoolExecutor(min(MOST_THREADS, max(2, os.cpu_count() or 1))) as pool:
        return list(pool.map(function, *arguments))
