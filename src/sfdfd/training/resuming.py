"""Find a run's newest complete checkpoint; write checkpoints completely or not at all."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.trainer.connectors import checkpoint_connector

from sfdfd.errors import InputError, one_line
from sfdfd.io.files import atomic_write
from sfdfd.training.checkpoints import load_checkpoint, loop_position_or_error

__all__ = ["AtomicCheckpointIO", "describe_restore_error", "newest_checkpoint"]


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the resumable checkpoint with the most steps, and a message for each broken one.

    Of two checkpoints of one step, ``last.ckpt`` comes first.
    """
    candidates, broken = [], []
    for path in sorted(folder.glob("*.ckpt")):
        try:
            content = load_checkpoint(path, "resume")
            if content.get("optimizer_states") and "loops" in content:
                position = loop_position_or_error(content, f"resume={path}")
                candidates.append((position.step, path.name == "last.ckpt", path))
        except InputError as error:
            broken.append(str(error))
    return (max(candidates)[-1] if candidates else None), broken


def describe_restore_error(error: BaseException) -> str | None:
    """Return a description of an error that Lightning raised while it restored a checkpoint; None for any other error."""
    frames = traceback.walk_tb(error.__traceback__)
    restoring = any(frame.f_code.co_filename == checkpoint_connector.__file__ for frame, _ in frames)
    return f"{type(error).__name__}: {one_line(error)[:160]}" if restoring else None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, syncs it and renames it.

    A killed process, a full disk or a power cut leaves the previous checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.part"):  # of killed processes
            leftover.unlink(missing_ok=True)
        with atomic_write(path) as part:
            try:
                with part.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:  # torch's writer hides the reason
                raise (_causing_os_error(error) or error) from None


def _causing_os_error(error: BaseException) -> OSError | None:
    """Return the OSError that caused an error, if any."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause
