"""Lightning callbacks: pictures to the run folder and the loggers, and a word when depth collapses."""

from __future__ import annotations

import math
import netrc
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import imageio.v3 as iio
import lightning
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sfdfd.errors import InputError
from sfdfd.module import DepthFromDefocus
from sfdfd.stack import FocalStack
from sfdfd.visualize import overview, to_rgb

__all__ = ["CollapseDetector", "PictureLogger", "StepProgress", "wandb_logger"]


def wandb_logger(save_dir: str, mode: str = "auto", **options: Any) -> WandbLogger:
    """A W&B logger that needs no account.

    Args:
        save_dir: the run folder; the W&B run lies in ``save_dir/wandb``.
        mode: "online", "offline" or "disabled"; "auto" is online with a key (WANDB_API_KEY, ``wandb login``), offline
            without; the environment variable WANDB_MODE takes precedence over "auto".
        options: what :class:`lightning.pytorch.loggers.WandbLogger` and ``wandb.init`` take.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")
    elif mode not in ("online", "offline", "disabled"):
        raise InputError(f"expected mode auto, online, offline or disabled, got {mode!r} (logger.wandb.mode)")
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return WandbLogger(save_dir=save_dir, mode=mode, offline=mode == "offline", **options)


def _has_wandb_key() -> bool:
    """Whether ``wandb login`` or the environment left a key; asks no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


class CollapseDetector(lightning.Callback):
    """Says in plain words when the predicted depth has gone constant.

    Args:
        smallest_std: ``health/depth_std`` (std of inverse depth over the range of inverse depth) below which depth
            counts as constant; a real scene has about 0.05 to 0.2.
    """

    def __init__(self, smallest_std: float = 0.003) -> None:
        self.smallest_std = smallest_std
        self.collapsed = False

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        spread = trainer.callback_metrics.get("health/depth_std")
        if trainer.sanity_checking or spread is None:
            return
        self.collapsed = not float(spread) >= self.smallest_std  # NaN counts as collapsed
        if self.collapsed:
            rank_zero_warn(
                f"depth has collapsed: the predicted depth map is constant (health/depth_std {float(spread):.2g} < "
                f"{self.smallest_std:g}) after step {trainer.global_step}. The network has stopped using the blur; a "
                "lower optimizer.lr, a longer module.warmup_steps or network=focus_attention usually mends it, and a "
                "camera whose blur stays under a pixel never shows a signal.",
                category=UserWarning,
            )


class PictureLogger(lightning.Callback):
    """One page per sample every few epochs: stack, reconstruction, depth, AIF, error.

    Args:
        folder: where the PNG files go, ``step_NNNNNN_NAME.png``.
        every_n_epochs: how often, at the next validation, and once at the end of training.
        samples: how many of the validation set's first samples.
    """

    def __init__(self, folder: str, every_n_epochs: int = 1, samples: int = 2) -> None:
        self.folder, self.every_n_epochs, self.samples = Path(folder), every_n_epochs, samples
        self.drawn_epoch, self.drawn_step = -every_n_epochs, -1

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: DepthFromDefocus) -> None:
        if trainer.sanity_checking or trainer.current_epoch - self.drawn_epoch < self.every_n_epochs:
            return
        self.drawn_epoch = trainer.current_epoch
        self.write(trainer, module)

    def on_train_end(self, trainer: lightning.Trainer, module: DepthFromDefocus) -> None:
        if trainer.global_step != self.drawn_step:
            self.write(trainer, module)

    @rank_zero_only
    def write(self, trainer: lightning.Trainer, module: DepthFromDefocus) -> None:
        """Write the pages now and hand them to the loggers that take pictures."""
        self.drawn_step = trainer.global_step
        self.folder.mkdir(parents=True, exist_ok=True)
        dataset = trainer.datamodule.dataset("val")
        was_training = module.training
        module.eval()
        for index in range(min(self.samples, len(dataset))):
            stack: FocalStack = dataset[index].to(module.device)
            with torch.no_grad():
                picture = to_rgb(overview(stack, module(stack)))
            iio.imwrite(self.folder / f"step_{trainer.global_step:06d}_{stack.name[0] or index}.png", picture)
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image(f"val/{index}", [picture], step=trainer.global_step)
                elif isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(f"val/{index}", picture, trainer.global_step, dataformats="HWC")
        module.train(was_training)


class StepProgress(ProgressBar):
    """A bar over the steps of the whole run, with the time that remains; plain lines where there is no terminal.

    Args:
        lines: how many lines a run prints where the output is no terminal.
    """

    def __init__(self, lines: int = 20) -> None:
        super().__init__()
        self.lines = max(1, lines)
        self.progress: Progress | None = None
        self.total: int | None = None
        self.enabled, self.started, self.first_step, self.printed = True, 0.0, 0, 0

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if not (self.enabled and trainer.is_global_zero):
            return
        self.started, self.first_step = time.monotonic(), trainer.global_step
        self.printed = self.first_step
        total = trainer.estimated_stepping_batches
        self.total = int(total) if math.isfinite(total) else None
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, TextColumn("{task.fields[values]}"), console=console)
            self.progress.start()
            self.task = self.progress.add_task("training", total=self.total, completed=self.first_step, values="")

    @staticmethod
    def _values(trainer: lightning.Trainer) -> str:
        shown = {"loss": "loss", "val/reconstruction": "val", "truth/depth_abs_rel": "truth abs_rel"}
        values = trainer.callback_metrics
        return "  ".join(f"{label} {float(values[key]):.4f}" for key, label in shown.items() if key in values)

    def on_train_batch_end(self, trainer: lightning.Trainer, module, outputs, batch, batch_idx) -> None:
        if not (self.enabled and trainer.is_global_zero):
            return
        step = trainer.global_step
        if self.progress is not None:
            self.progress.update(self.task, completed=step, values=self._values(trainer))
            return
        if self.total and step - self.printed >= max(1, (self.total - self.first_step) // self.lines):
            self.printed = step
            spent = time.monotonic() - self.started
            left = spent / (step - self.first_step) * (self.total - step)
            print(
                f"step {step}/{self.total}  {spent:.0f} s, {left:.0f} s left  {self._values(trainer)}",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_exception(self, trainer: lightning.Trainer, module, exception: BaseException) -> None:
        self.on_train_end(trainer, module)
