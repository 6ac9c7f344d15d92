"""Steps of a training run: where it starts, what its trainer is made of, its fit, its end.

``sfdfd.train`` composes the config and instantiates the parts.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.errors import InputError
from sfdfd.optics.render import Renderer
from sfdfd.training.callbacks import RunCheckpoint
from sfdfd.training.checkpoints import resume_position
from sfdfd.training.faults import describe_fault
from sfdfd.training.fsdp import check_strategy
from sfdfd.training.loggers import FaultTolerantWandbLogger, ResumableCSVLogger
from sfdfd.training.module import DepthFromDefocus
from sfdfd.training.resuming import AtomicCheckpointIO, describe_restore_error, newest_checkpoint

__all__ = [
    "StartPoint", "check_trainable", "checkpoint_callback", "exit_if_stopped", "finish_loggers", "fit", "log_settings",
    "log_test_metrics", "quiet_lightning", "shortened_intervals", "start_point", "steps_taken", "trainer_parts",
]  # fmt: skip

IRRELEVANT_WARNINGS = (
    "treespec.*LeafSpec",  # Lightning 2.6 on torch 2.13
    "does not have many workers",  # stacks are kept in memory
    "smaller than the logging interval",  # intervals count steps here
    "exists and is not empty",  # the run folder of a continued run
)


@dataclass(frozen=True)
class StartPoint:
    """Where a run starts: a checkpoint and its optimizer step; None and 0 for a new run."""

    checkpoint: str | None = None
    step: int = 0


def quiet_lightning(*more: str) -> None:
    """Silence Lightning's greetings and irrelevant warnings; ``more`` are regular expressions of further ones."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (*IRRELEVANT_WARNINGS, *more):
        warnings.filterwarnings("ignore", message=f".*{message}.*")


def check_trainable(renderer: Renderer) -> None:
    """Refuse a renderer without gradients.

    Raises:
        InputError: it has none.
    """
    if not renderer.differentiable:
        raise InputError(
            f"{type(renderer).__name__} has no gradient in depth and cannot train; it is for synthesis (data.renderer)"
        )


def shortened_intervals(trainer: Mapping[str, Any]) -> dict[str, int]:
    """Return the trainer's intervals that exceed ``max_steps``, cut to it.

    A run shorter than its intervals then validates and logs once, at its end, and has a checkpoint to select.

    Raises:
        InputError: ``max_steps`` is not a number of steps, or training has no end.
    """
    steps = trainer["max_steps"]
    if not isinstance(steps, int) or isinstance(steps, bool) or steps == 0 or steps < -1:
        raise InputError(f"trainer.max_steps: expected a whole number of steps, got {steps!r}")
    if steps == -1 and trainer["max_epochs"] in (-1, None) and trainer["max_time"] is None:
        raise InputError("give training an end: trainer.max_steps, trainer.max_epochs or trainer.max_time")
    intervals = {key: trainer[key] for key in ("val_check_interval", "log_every_n_steps")}
    return {key: steps for key, interval in intervals.items() if isinstance(interval, int) and 0 < steps < interval}


def start_point(
    resume: Any,
    output_dir: Path,
    max_steps: int,
    module: DepthFromDefocus,
    datamodule: FocalStackDataModule,
    say: Callable[[str], None],
) -> StartPoint:
    """Find where a run starts, and move the data to that place.

    Args:
        resume: the checkpoint to continue from; None starts a new run. "last" is the newest complete one of the run folder
            ``output_dir``, or a new run if there is none.
        say: prints one line for the user.

    Raises:
        InputError: the checkpoint cannot be continued, or has no step left and is not "last".
    """
    if resume is None:
        return StartPoint()
    path = _last_checkpoint(output_dir / "checkpoints", say) if resume == "last" else Path(str(resume))
    if path is None:
        return StartPoint()
    position = resume_position(module, path)
    if resume == "last":
        say(f"continuing from {path}, step {position.step}")
    elif 0 <= max_steps <= position.step:
        raise InputError(
            f"resume={path}: it has made {position.step} steps already; give a larger trainer.max_steps (now {max_steps})"
        )
    datamodule.continue_at(position.epoch, position.batches)
    return StartPoint(str(path), position.step)


def _last_checkpoint(folder: Path, say: Callable[[str], None]) -> Path | None:
    """Return the newest whole checkpoint; report broken ones, and that there is none."""
    newest, broken = newest_checkpoint(folder)
    for reason in broken:
        say(f"not continued from {reason}")
    if newest is None:
        say(f"{folder}: no whole checkpoint; this run starts from the beginning (resume=last)")
    return newest


def trainer_parts(loggers: Sequence[Any], callbacks: Sequence[Any], strategy: Any, start: StartPoint) -> dict[str, Any]:
    """Return the trainer's arguments that are objects; loggers of a continued run keep their earlier rows.

    Raises:
        InputError: the strategy cannot train our stacks.
    """
    if start.checkpoint is not None:
        for logger in loggers:
            if isinstance(logger, (ResumableCSVLogger, FaultTolerantWandbLogger)):
                logger.continue_from(start.step)
    if not loggers:  # LearningRateMonitor refuses to run without a logger
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    check_strategy(strategy, any(isinstance(callback, ModelCheckpoint) for callback in callbacks))
    return {
        "strategy": strategy,
        "logger": list(loggers) or False,
        "callbacks": list(callbacks),
        "plugins": [AtomicCheckpointIO()],
    }


def fit(
    trainer: lightning.Trainer, module: DepthFromDefocus, datamodule: FocalStackDataModule, start: StartPoint
) -> None:
    """Train.

    Raises:
        InputError: the checkpoint cannot be restored, or the machine failed (:mod:`sfdfd.training.faults`).
    """
    try:
        trainer.fit(module, datamodule, ckpt_path=start.checkpoint, weights_only=True)
    except Exception as error:
        message = describe_fault(error)
        if message is None and start.checkpoint is not None and (reason := describe_restore_error(error)):
            message = f"resume={start.checkpoint}: cannot be continued from, what it holds is not whole ({reason})"
        if message is None:
            raise
        raise InputError(message) from error


def steps_taken(trainer: lightning.Trainer, start: StartPoint, max_steps: int) -> int:
    """Return the optimizer steps of the run so far.

    Raises:
        InputError: this fit took none although some were left.
    """
    # a spawned process hands back its metrics, but not its counters
    steps = max(trainer.global_step, int(trainer.callback_metrics.get("steps", 0)))
    was_complete = 0 <= max_steps <= start.step
    if steps <= start.step and not was_complete:
        raise InputError(
            "training took no step: too few stacks for the batches and processes (data.batch_size, trainer.devices), or no "
            "time (trainer.max_time)"
        )
    return steps


def checkpoint_callback(trainer: lightning.Trainer) -> ModelCheckpoint | None:
    """Return the callback that keeps the checkpoints, if there is one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined] # set by Lightning without a type
    return next((callback for callback in callbacks if isinstance(callback, ModelCheckpoint)), None)


def exit_if_stopped(trainer: lightning.Trainer, steps: int) -> bool:
    """Exit with the code that a shell expects if a signal stopped the run; processes but the first only return True."""
    saver = checkpoint_callback(trainer)
    if not isinstance(saver, RunCheckpoint) or saver.stopped_by is None:
        return False
    if trainer.is_global_zero:
        print(
            f"sfdfd: stopped by {saver.stopped_by.name} after step {steps}; continue with "
            f"resume={saver.last_model_path}",
            file=sys.stderr,
        )
        sys.exit(128 + saver.stopped_by)
    return True


def log_settings(trainer: lightning.Trainer, settings: Mapping[str, Any]) -> None:
    """Give every logger the resolved configuration."""
    for logger in trainer.loggers:
        logger.log_hyperparams(_flat(settings))


def log_test_metrics(trainer: lightning.Trainer, metrics: Mapping[str, Any], steps: int) -> None:
    """Give every logger the numbers of the final test."""
    for logger in trainer.loggers:
        logger.log_metrics(
            {f"test/{key}": value for key, value in metrics.items() if isinstance(value, (int, float))}, step=steps
        )


def finish_loggers() -> None:
    """End the W&B run, so that the next job of a multirun begins its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config, {"a": {"b": 1}} -> {"a.b": 1}, for loggers."""
    if not isinstance(node, dict):
        return {prefix: node if isinstance(node, (int, float, str, bool)) or node is None else str(node)}
    return {
        key: value
        for name, child in node.items()
        for key, value in _flat(child, f"{prefix}.{name}" if prefix else name).items()
    }
