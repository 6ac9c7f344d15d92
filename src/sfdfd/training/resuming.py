"""The newest whole checkpoint of a run, and checkpoints that are whole or not there."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.trainer.connectors import checkpoint_connector

from sfdfd.errors import InputError, one_line
from sfdfd.io.files import atomic_write
from sfdfd.training.checkpoints import checked_loop_position, load_checkpoint

__all__ = ["WholeCheckpoints", "newest_checkpoint", "restoring_fault"]


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The whole checkpoint of the most steps that can be continued, ``last.ckpt`` before others of that step; and what was
    found broken, in words."""
    found, broken = [], []
    for path in sorted(folder.glob("*.ckpt")):
        try:
            content = load_checkpoint(path, "resume")
            if content.get("optimizer_states") and "loops" in content:
                place = checked_loop_position(content, f"resume={path}")
                found.append((place.step, path.name == "last.ckpt", path))
        except InputError as error:
            broken.append(str(error))
    return (max(found)[-1] if found else None), broken


def restoring_fault(error: BaseException) -> str | None:
    """What a checkpoint holds that cannot be taken over, where an error came while Lightning restored a run; else None."""
    frames = traceback.walk_tb(error.__traceback__)
    restoring = any(frame.f_code.co_filename == checkpoint_connector.__file__ for frame, _ in frames)
    return f"{type(error).__name__}: {one_line(error)[:160]}" if restoring else None


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints written aside, brought to the disk, and only then given their name: a killed process, a full disk or a
    power cut leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in _left_behind(path):
            left.unlink(missing_ok=True)
        with atomic_write(path) as part:
            try:
                with part.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:  # torch's writer hides the reason
                raise (_reason(error) or error) from None


def _left_behind(path: Path) -> Iterator[Path]:
    """What killed processes were writing."""
    return path.parent.glob(f".{path.name}.*.part")


def _reason(error: BaseException) -> OSError | None:
    """The OSError that an error came from, if any."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause
