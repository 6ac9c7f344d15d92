"""Where a run is in its epochs, as a checkpoint of Lightning's loops says it."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["LoopPosition", "loop_position_of", "repair_loop_position"]


class LoopPosition(NamedTuple):
    """Where a run is.

    Attributes:
        step: optimizer steps made.
        epoch: the epoch it is in, from 0.
        batches: how many of its batches are done.
    """

    step: int
    epoch: int
    batches: int


def loop_position_of(checkpoint: dict[str, Any]) -> LoopPosition:
    """Where the run was, whatever moment of Lightning's loops the checkpoint was written at."""
    loop = checkpoint["loops"]["fit_loop"]
    batch, epoch = loop["epoch_loop.batch_progress"], loop["epoch_progress"]["current"]["ready"] - 1
    done = batch["current"]["processed"]
    if batch["is_last_batch"] and batch["current"]["ready"] == done:  # else the mark is of the batch to come
        epoch, done = epoch + 1, 0
    return LoopPosition(int(checkpoint["global_step"]), epoch, done)


def repair_loop_position(checkpoint: dict[str, Any]) -> None:
    """Rewrite the loops' counters as Lightning expects them from a checkpoint written right after a batch in the middle of
    an epoch: then it goes on with the next batch, repeats no validation, skips none, and counts steps on.

    Lightning 2.6 tells eleven moments apart by these counters, and continues some of them with a batch or a validation too
    many or too few.
    """
    place, loop = loop_position_of(checkpoint), checkpoint["loops"]["fit_loop"]
    total = loop["epoch_loop.batch_progress"]["total"]["processed"]

    def counted(done: int, completed: int) -> dict[str, int]:
        return {"ready": done, "started": done, "processed": done, "completed": completed}

    loop["epoch_loop.batch_progress"] = {
        "total": counted(total, total - 1),
        "current": counted(place.batches, place.batches - 1),  # -1: the epoch has begun, and no batch of it
        "is_last_batch": False,
    }
    epochs = {"ready": place.epoch + 1, "started": place.epoch + 1, "processed": place.epoch, "completed": place.epoch}
    loop["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = place.step - 1
    validated = loop["epoch_loop.val_loop.batch_progress"]
    loop["epoch_loop.val_loop.batch_progress"] = {**validated, "total": counted(0, 0), "current": counted(0, 0)}
