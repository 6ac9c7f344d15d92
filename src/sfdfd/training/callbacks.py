"""Lightning callbacks: resumable checkpoints, pictures, a warning when depth collapses, progress."""

from __future__ import annotations

import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sfdfd.errors import checked_number
from sfdfd.io.files import atomic_write
from sfdfd.optics.render import Renderer
from sfdfd.report.pictures import overview, to_rgb
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training.fsdp import predict_on_all_ranks
from sfdfd.training.logger_output import log_alert, log_pictures

__all__ = ["CollapseDetector", "PictureLogger", "RunCheckpoint", "StepProgress"]


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, except that a run continues from any checkpoint as if it had never stopped.

    ``last.ckpt`` is the last step, not the last validated one. Checkpoints are written between two steps, after the loggers
    have saved: after each validation, every ``last_every_s`` seconds, at the end of training, on SIGINT and SIGTERM. A run
    that continues in another folder copies its best checkpoint there.

    Args:
        last_every_s: seconds between two ``last.ckpt`` if no validation comes first; None for validations only.
        options: of :class:`lightning.pytorch.callbacks.ModelCheckpoint`.
    """

    def __init__(self, last_every_s: float | None = 600.0, **options: Any) -> None:
        super().__init__(**options)
        if last_every_s is not None:
            checked_number(last_every_s, "last_every_s (callbacks.checkpoint.last_every_s)", least=0)
        self.last_every_s = last_every_s
        self.stopped_by: signal.Signals | None = None
        self._validated, self._written_step, self._written_at = False, -1, time.monotonic()
        self._handlers: dict[int, Any] = {}
        self._loaded_from: Path | None = None

    @property
    def state_key(self) -> str:
        """The key of Lightning's class, so that older checkpoints load."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, module)
        self._written_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: Any) -> None:
        if self.stopped_by is not None:  # the second signal stops at once
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._validated = self._validated or not trainer.sanity_checking  # its metrics are logged after this hook

    def on_train_batch_start(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if self._validated:
            self._write_validated(trainer)
        elif not self._accumulates(trainer) and self.last_every_s is not None:
            due = time.monotonic() - self._written_at >= self.last_every_s
            if trainer.strategy.reduce_boolean_decision(due, all=False):
                self._write_last(trainer)

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        super().on_train_batch_end(trainer, *arguments)
        if self._accumulates(trainer):
            return
        if trainer.strategy.reduce_boolean_decision(self.stopped_by is not None, all=False):
            self.stopped_by = self.stopped_by or signal.SIGTERM
            loop = trainer.fit_loop.epoch_loop
            fetcher = trainer.fit_loop._data_fetcher
            assert fetcher is not None  # a batch came from it
            if not loop._should_check_val_fx(fetcher):
                loop._skip_next_val = True  # stopping would validate where an uninterrupted run does not
            trainer.should_stop = True

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self._validated:
            self._write_validated(trainer)
        self._write_last(trainer)
        self._restore_handlers()

    def on_exception(self, trainer: lightning.Trainer, module: Any, exception: BaseException) -> None:
        super().on_exception(trainer, module, exception)
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    @staticmethod
    def _accumulates(trainer: lightning.Trainer) -> bool:
        """Return whether accumulated gradients of an unfinished step would be lost."""
        batch = trainer.fit_loop.epoch_loop.batch_progress
        done = batch.current.processed  # type: ignore[attr-defined] # Lightning names the tracker's base class
        return done % trainer.accumulate_grad_batches != 0 and not (batch.is_last_batch and batch.current.ready == done)

    def _write_validated(self, trainer: lightning.Trainer) -> None:
        self._validated = False
        super().on_validation_end(trainer, trainer.lightning_module)

    def _write_last(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step not in (0, self._written_step):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: lightning.Trainer, monitor_candidates: dict[str, Any]) -> None:
        if self._accumulates(trainer) and not trainer.should_stop:
            self._written_at = -math.inf  # best.ckpt needs these weights; last.ckpt waits for its step
            return
        super()._save_last_checkpoint(trainer, monitor_candidates)
        self._written_step, self._written_at = trainer.global_step, time.monotonic()

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        for logger in trainer.loggers:
            logger.save()
        super()._save_checkpoint(trainer, filepath)

    def on_load_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        self._loaded_from = Path(trainer.ckpt_path).parent if trainer.ckpt_path else None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoints so far, and copy them to this folder.

        Recorded paths are those of the folder where the checkpoint was written, which may have been moved or copied since.
        """
        best = state_dict.get("best_model_path") or ""
        if not best:
            if state_dict.get("dirpath") == self.dirpath:
                super().load_state_dict(state_dict)
            return
        scores = {best: state_dict["best_model_score"], **state_dict.get("best_k_models", {})}
        copies = {path: self._copied_here(Path(path), score) for path, score in scores.items()}
        if copies[best] is None:
            rank_zero_warn(f"{best}, the best checkpoint so far, is gone: the best of the steps to come is kept")
            return
        new_paths = {path: str(copy) for path, copy in copies.items() if copy is not None}
        self.best_model_path, self.best_model_score = new_paths[best], state_dict["best_model_score"]
        self.best_k_models = {new_paths[path]: score for path, score in scores.items() if path in new_paths}
        worst = max if self.mode == "min" else min
        self.kth_best_model_path = worst(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
        self.kth_value = self.best_k_models[self.kth_best_model_path]
        if state_dict.get("dirpath") == self.dirpath:
            self.last_model_path = state_dict.get("last_model_path", self.last_model_path)

    def _copied_here(self, recorded: Path, score: Any) -> Path | None:
        """Copy one of the best checkpoints to this folder; return its path, or None if it is gone."""
        target = Path(self.dirpath or "") / recorded.name
        candidates = [recorded, target]
        if self._loaded_from is not None:
            candidates.insert(0, self._loaded_from / recorded.name)
        existing = [path for path in dict.fromkeys(candidates) if path.is_file()]
        if not existing:
            return None
        source = next((path for path in existing if _has_score(path, score)), existing[0])
        if rank_zero_only.rank == 0 and source.resolve() != target.resolve():  # type: ignore[attr-defined] # Lightning's
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as part:
                shutil.copyfile(source, part)
        return target


def _has_score(path: Path, score: Any) -> bool:
    """Return whether a checkpoint was written with this score; another run's may have the same name."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        states = [state for key, state in content["callbacks"].items() if key.startswith(ModelCheckpoint.__qualname__)]
        return any(float(state["current_score"]) == float(score) for state in states)
    except Exception:  # whatever a broken or foreign file raises
        return False


class CollapseDetector(lightning.Callback):
    """Warns when the predicted depth has become constant.

    Args:
        smallest_std: ``health/depth_std`` (std of inverse depth over the range of inverse depth) below which depth
            counts as constant; a real scene has about 0.05 to 0.2.
    """

    def __init__(self, smallest_std: float = 0.003) -> None:
        self.smallest_std = smallest_std
        self.collapsed = False

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        depth_std = trainer.callback_metrics.get("health/depth_std")
        if trainer.sanity_checking or depth_std is None:
            return
        self.collapsed = not float(depth_std) >= self.smallest_std  # NaN counts as collapsed
        if self.collapsed:
            rank_zero_warn(
                f"depth has collapsed: the predicted depth map is constant (health/depth_std {float(depth_std):.2g} < "
                f"{self.smallest_std:g}) after step {trainer.global_step}. The network has stopped using the blur; a "
                "lower optimizer.lr, a longer module.warmup_steps or network=focus_attention usually mends it, and a "
                "camera whose blur stays under a pixel never shows a signal.",
                category=UserWarning,
            )
            log_alert(
                trainer.loggers,
                "depth has collapsed",
                f"health/depth_std {float(depth_std):.2g} after step {trainer.global_step}: the depth map is constant",
                trainer.global_step,
            )


class PictureLogger(lightning.Callback):
    """Draws the same samples every few epochs: stack, reconstruction, its error, depth, confidence, AIF, ground truth.

    Args:
        folder: where the PNG files go, ``step_NNNNNN_NAME.png``.
        every_n_epochs: how often, at the next validation, and once at the end of training.
        samples: number of the validation set's first samples.
        finish: completes a prediction before it is drawn: (prediction, stack, renderer) -> prediction
            (:func:`sfdfd.inference.methods.with_confidence`).
    """

    def __init__(
        self,
        folder: str,
        every_n_epochs: int = 1,
        samples: int = 2,
        finish: Callable[[Prediction, FocalStack, Renderer], Prediction] | None = None,
    ) -> None:
        self.folder, self.every_n_epochs, self.samples, self.finish = Path(folder), every_n_epochs, samples, finish
        self.drawn_epoch, self.drawn_step = -every_n_epochs, -1

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or trainer.current_epoch - self.drawn_epoch < self.every_n_epochs:
            return
        self.drawn_epoch = trainer.current_epoch
        self.write(trainer, module)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.global_step != self.drawn_step:
            self.write(trainer, module)

    def write(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Write the pages now, and log them.

        Every process predicts, because sharded weights need all of them; the first process writes.
        """
        self.drawn_step = trainer.global_step
        dataset = trainer.datamodule.dataset("val")  # type: ignore[attr-defined] # set by Lightning without a type
        for index in range(min(self.samples, len(dataset))):
            stack: FocalStack = dataset[index].to(module.device)
            prediction = predict_on_all_ranks(trainer, module, stack)
            self._draw(trainer, module, index, stack, prediction)

    @rank_zero_only
    def _draw(
        self, trainer: lightning.Trainer, module: Any, index: int, stack: FocalStack, prediction: Prediction
    ) -> None:
        if self.finish is not None:
            prediction = self.finish(prediction, stack.with_camera(module.camera), module.renderer)
        picture = to_rgb(overview(stack, prediction))
        self.folder.mkdir(parents=True, exist_ok=True)
        iio.imwrite(self.folder / f"step_{trainer.global_step:06d}_{stack.name[0] or index}.png", picture)
        log_pictures(trainer.loggers, f"scenes/{index}", picture, trainer.global_step)


class StepProgress(ProgressBar):
    """A bar over the steps of the whole run with the remaining time; plain lines without a terminal.

    Args:
        lines: number of lines that a run prints without a terminal.
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
        console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # whatever FORCE_COLOR says
        if console.is_terminal:
            columns = (BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, TextColumn("{task.fields[values]}"), console=console)
            self.progress.start()
            self.task = self.progress.add_task("training", total=self.total, completed=self.first_step, values="")

    @staticmethod
    def _values(trainer: lightning.Trainer) -> str:
        labels = {"loss": "loss", "val/reconstruction": "val", "truth/depth_abs_rel": "truth abs_rel"}
        values = trainer.callback_metrics
        return "  ".join(f"{label} {float(values[key]):.4f}" for key, label in labels.items() if key in values)

    def on_train_batch_end(self, trainer: lightning.Trainer, module, outputs, batch, batch_idx) -> None:
        if not (self.enabled and trainer.is_global_zero):
            return
        step = trainer.global_step
        if self.progress is not None:
            self.progress.update(self.task, completed=step, values=self._values(trainer))
            return
        if self.total and step - self.printed >= max(1, (self.total - self.first_step) // self.lines):
            self.printed = step
            elapsed = time.monotonic() - self.started
            remaining = elapsed / (step - self.first_step) * (self.total - step)
            print(
                f"step {step}/{self.total}  {elapsed:.0f} s, {remaining:.0f} s left  {self._values(trainer)}",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_exception(self, trainer: lightning.Trainer, module, exception: BaseException) -> None:
        self.on_train_end(trainer, module)
