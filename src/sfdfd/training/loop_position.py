"""Read and repair a run's position in the loop counters of Lightning's checkpoints."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["LoopPosition", "loop_position_of", "repair_loop_position"]


class LoopPosition(NamedTuple):
    """A run's position.

    Attributes:
        step: optimizer steps made.
        epoch: current epoch, from 0.
        batches: batches of the epoch that are done.
    """

    step: int
    epoch: int
    batches: int


def loop_position_of(checkpoint: dict[str, Any]) -> LoopPosition:
    """Return the position, whatever hook of Lightning's loops wrote the checkpoint."""
    loop = checkpoint["loops"]["fit_loop"]
    batch, epoch = loop["epoch_loop.batch_progress"], loop["epoch_progress"]["current"]["ready"] - 1
    done = batch["current"]["processed"]
    if batch["is_last_batch"] and batch["current"]["ready"] == done:  # else the flag belongs to the next batch
        epoch, done = epoch + 1, 0
    return LoopPosition(int(checkpoint["global_step"]), epoch, done)


def repair_loop_position(checkpoint: dict[str, Any]) -> None:
    """Rewrite the loop counters as if the checkpoint had been written right after a batch in the middle of an epoch.

    Lightning then continues with the next batch and neither repeats nor skips a validation. By these counters, Lightning 2.6
    distinguishes eleven moments, and continues from some of them with a batch or a validation too many or too few.
    """
    position, loop = loop_position_of(checkpoint), checkpoint["loops"]["fit_loop"]
    total = loop["epoch_loop.batch_progress"]["total"]["processed"]

    def counted(done: int, completed: int) -> dict[str, int]:
        return {"ready": done, "started": done, "processed": done, "completed": completed}

    loop["epoch_loop.batch_progress"] = {
        "total": counted(total, total - 1),
        "current": counted(position.batches, position.batches - 1),  # -1: the epoch has begun, but none of its batches
        "is_last_batch": False,
    }
    epochs = {
        "ready": position.epoch + 1,
        "started": position.epoch + 1,
        "processed": position.epoch,
        "completed": position.epoch,
    }
    loop["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = position.step - 1
    validated = loop["epoch_loop.val_loop.batch_progress"]
    loop["epoch_loop.val_loop.batch_progress"] = {**validated, "total": counted(0, 0), "current": counted(0, 0)}
