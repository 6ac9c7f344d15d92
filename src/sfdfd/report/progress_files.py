"""Progress of a refinement for other processes: two files with the share done and the current depth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sfdfd.io.files import atomic_write, write_json
from sfdfd.report.pictures import colour_depth

__all__ = ["DEPTH_FILE", "PROGRESS_FILE", "ProgressFiles"]

PROGRESS_FILE, DEPTH_FILE = "progress.json", "depth.png"
EVERY_S = 1.0


class ProgressFiles:
    """A ``progress`` callback of :class:`sfdfd.refinement.refiner.Refiner` that writes files, at most every second.

    The files are ``progress.json`` (share, step, energy) and ``depth.png`` (inverse depth; bright is near).

    Args:
        folder: receives the files.
        refiner: its ``watch`` is set, so that it passes on the current depth.
        progress: another callback, called in addition.
    """

    def __init__(self, folder: Path, refiner: Any, progress: Callable[[float, int, float], None] | None = None) -> None:
        self.folder, self.progress = folder, progress
        folder.mkdir(parents=True, exist_ok=True)
        self._inverse_depth_01: Tensor | None = None
        self._next_s = 0.0
        refiner.watch = self._keep

    def _keep(self, inverse_depth_01: Tensor) -> None:
        self._inverse_depth_01 = inverse_depth_01

    def __call__(self, share: float, step: int, energy: float) -> None:
        if self._inverse_depth_01 is not None and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + EVERY_S
            inverse = self._inverse_depth_01[0].cpu().numpy() + 1e-3
            far, near = np.percentile(inverse, [1, 99])
            colours = colour_depth(1 / inverse, 1 / max(near, far + 1e-3), 1 / far)
            with atomic_write(self.folder / DEPTH_FILE) as part:
                Image.fromarray((255 * colours).round().astype(np.uint8)).save(part, "PNG")
            finite = energy if math.isfinite(energy) else None
            write_json(self.folder / PROGRESS_FILE, {"share": share, "step": step, "energy": finite})
        if self.progress is not None:
            self.progress(share, step, energy)
