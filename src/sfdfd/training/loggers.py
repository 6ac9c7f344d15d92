"""Loggers: a CSV file that continues with its run, and a W&B run that needs no account."""

from __future__ import annotations

import csv
import netrc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from sfdfd.errors import checked_choice, one_line
from sfdfd.io.files import atomic_write

__all__ = ["FaultTolerantWandbLogger", "ResumableCSVLogger", "fault_tolerant", "wandb_logger"]

CONFIG_FILE = "config.yaml"
"""Holds the configuration of an offline W&B run, among the run's files."""


class _AtomicCSV(ExperimentWriter):
    """Lightning's CSV writer, except that it replaces the file atomically."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.rewrite(rows, fieldnames)

    def rewrite(self, rows: list[dict[str, Any]], fieldnames: list[str]) -> None:
        """Replace the file."""
        with atomic_write(Path(self.metrics_file_path)) as part, part.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames)
            table.writeheader()
            table.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """Leave existing files to the logger."""


class ResumableCSVLogger(CSVLogger):
    """Lightning's CSVLogger, except that a continued run keeps the rows of earlier steps in ``metrics.csv``.

    A new run deletes the file. ``options`` are those of :class:`lightning.pytorch.loggers.CSVLogger`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first_step: int | None = None

    def continue_from(self, step: int) -> None:
        """Keep the rows before ``step``, the first step of this run."""
        self.first_step = step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is not None:
            return self._experiment
        path, rows, keys = Path(self.log_dir) / "metrics.csv", [], []
        if path.is_file() and self.first_step is not None:
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if _is_before(row, self.first_step)]
                keys = list(reader.fieldnames or [])
        self._experiment = writer = _AtomicCSV(log_dir=self.log_dir)
        if rows:
            writer.rewrite(rows, keys)
            writer.metrics_keys = keys
        else:
            path.unlink(missing_ok=True)
        return writer

    @rank_zero_only
    def save(self) -> None:
        """Write the logged rows; columns in the file are kept, because a spawned process may have written them."""
        path = Path(self.log_dir) / "metrics.csv"
        if path.is_file():
            with path.open(newline="") as file:
                columns = csv.DictReader(file).fieldnames or []
            self.experiment.metrics_keys = sorted({*self.experiment.metrics_keys, *columns})
        super().save()


def _is_before(row: dict[str, str], step: int) -> bool:
    """Return whether a row belongs to training before a step; rows of the final test do not."""
    is_test = any(value for key, value in row.items() if key and key.startswith("test/"))
    try:
        return int(row.get("step") or 0) < step and not is_test
    except (TypeError, ValueError):
        return False


class FaultTolerantWandbLogger(WandbLogger):
    """Lightning's WandbLogger, except that failures of W&B become warnings: the run continues offline, or without W&B.

    Args:
        keeps_model: whether the best checkpoint becomes an artifact (:func:`sfdfd.training.logger_output.log_checkpoint`).
        options: those of :class:`lightning.pytorch.loggers.WandbLogger`.
    """

    def __init__(self, keeps_model: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.keeps_model = keeps_model

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = self._start_run()
        return self._experiment

    def _start_run(self) -> Any:
        """Start the run as configured; if that fails offline, and at last disabled."""
        import wandb

        if self._wandb_init["mode"] == "online":
            try:
                return super().experiment
            except Exception as error:  # no network, a wrong key, no such project: whatever W&B raises
                _warn(error, "the run goes on offline; `wandb sync` sends it later")
            self._wandb_init["mode"] = "offline"
        try:
            return super().experiment
        except Exception as error:  # a full disk
            _warn(error, "nothing is logged there")
        self._wandb_init["mode"] = "disabled"
        return wandb.init(mode="disabled")

    def continue_from(self, step: int) -> None:
        """Continue the W&B run in the run folder, if there is one."""
        runs = sorted(Path(str(self.save_dir)).glob("wandb/*run-*-*"))
        if runs and self._experiment is None:
            self._id = self._wandb_init["id"] = runs[-1].name.rsplit("-", 1)[1]

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        with fault_tolerant():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the configuration, and write it into the folder of an offline run at once.

        W&B writes its own file seconds later; a run that is killed before would have none.
        """
        with fault_tolerant():
            super().log_hyperparams(params)
            if self._wandb_init["mode"] == "offline":
                self._write_config()

    def _write_config(self) -> None:
        """Write ``files/config.yaml`` in W&B's own form, ``KEY: {value: VALUE}``."""
        folder = Path(str(self.experiment.dir))
        values = {str(key): {"value": value} for key, value in dict(self.experiment.config).items()}
        with atomic_write(folder / CONFIG_FILE) as part:
            part.write_text(yaml.safe_dump(values, sort_keys=True, allow_unicode=True), encoding="utf-8")

    def save(self) -> None:
        with fault_tolerant():
            super().save()

    def finalize(self, status: str) -> None:
        with fault_tolerant():
            super().finalize(status)


@contextmanager
def fault_tolerant() -> Iterator[None]:
    """Turn any exception of the block into a warning."""
    try:
        yield
    except Exception as error:  # no dashboard is worth a training
        _warn(error, "the training goes on")


def _warn(error: BaseException, consequence: str) -> None:
    rank_zero_warn(f"W&B: {one_line(error) or type(error).__name__}; {consequence}", category=UserWarning)


def wandb_logger(save_dir: str, mode: str = "auto", log_model: bool = True, **options: Any) -> FaultTolerantWandbLogger:
    """Return a W&B logger that works without account and network.

    Args:
        save_dir: the run folder; the W&B run is in ``save_dir/wandb``.
        mode: "online", "offline" or "disabled"; "auto" is online with a key (WANDB_API_KEY, ``wandb login``), offline
            without; the environment variable WANDB_MODE takes precedence over "auto".
        log_model: whether the best checkpoint becomes an artifact.
        options: of :class:`lightning.pytorch.loggers.WandbLogger` and ``wandb.init``.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")
    else:
        checked_choice(mode, "mode (logger.wandb.mode)", ("online", "offline", "disabled", "auto"))
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return FaultTolerantWandbLogger(
        save_dir=save_dir, mode=mode, offline=mode == "offline", keeps_model=bool(log_model), **options
    )


def _has_wandb_key() -> bool:
    """Return whether ``wandb login`` or the environment left a key, without asking a server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
