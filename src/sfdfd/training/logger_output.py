"""Pictures, histograms, tables, alerts and the best checkpoint, for every logger that can show them.

W&B and TensorBoard get the same; the CSV file holds numbers only. A failure is a warning and does not stop the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from sfdfd.training.loggers import FaultTolerantWandbLogger, fault_tolerant

__all__ = ["log_alert", "log_checkpoint", "log_histogram", "log_pictures", "log_table"]

PICTURE_COLUMN, LARGEST_WIDTH_PX = "picture", 900


@rank_zero_only
@fault_tolerant()
def log_pictures(loggers: Sequence[Any], key: str, picture: np.ndarray, step: int) -> None:
    """Log one (H,W,3) uint8 picture."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, step, dataformats="HWC")


@rank_zero_only
@fault_tolerant()
def log_histogram(loggers: Sequence[Any], key: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
    """Log (N,) counts between (N+1,) edges."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            histogram = wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
            logger.log_metrics({key: histogram}, step=step)  # type: ignore[dict-item] # W&B takes more than numbers
        elif isinstance(logger, TensorBoardLogger):
            centres = (edges[1:] + edges[:-1]) / 2
            logger.experiment.add_histogram_raw(
                key,
                min=float(edges[0]),
                max=float(edges[-1]),
                num=float(counts.sum()),
                sum=float((counts * centres).sum()),
                sum_squares=float((counts * centres**2).sum()),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )


@rank_zero_only
@fault_tolerant()
def log_table(
    loggers: Sequence[Any], key: str, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Path], step: int
) -> None:
    """Log a table that can be sorted.

    Args:
        loggers: of the run.
        key: name of the table.
        rows: values by column.
        pictures: files by ``METHOD_NAME`` of the rows that have one.
        step: of the run.
    """
    if not rows:
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    files = [pictures.get(f"{row.get('method')}_{row.get('name')}") for row in rows]
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _log_wandb_table(logger, key, columns, rows, files if pictures else None, step)
        elif isinstance(logger, TensorBoardLogger):
            _log_tensorboard_table(logger, key, columns, rows, files, step)


def _log_wandb_table(
    logger: WandbLogger,
    key: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    files: Sequence[Path | None] | None,
    step: int,
) -> None:
    """Log rows with their pictures in a last column."""
    import wandb

    data = [[row.get(column) for column in columns] for row in rows]
    if files is not None:
        columns = [*columns, PICTURE_COLUMN]
        for cells, file in zip(data, files, strict=True):
            cells.append(None if file is None else wandb.Image(_narrow(iio.imread(file))))
    logger.log_table(key, columns=list(columns), data=data, step=step)


def _log_tensorboard_table(
    logger: TensorBoardLogger,
    key: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    files: Sequence[Path | None],
    step: int,
) -> None:
    """Log rows as a Markdown table, and each picture on its own."""
    cells = [columns, ["---"] * len(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
    logger.experiment.add_text(key, "\n".join("| " + " | ".join(line) + " |" for line in cells), step)
    for row, file in zip(rows, files, strict=True):
        if file is not None:
            image = _narrow(iio.imread(file))
            logger.experiment.add_image(f"{key}/{row.get('name')}", image, step, dataformats="HWC")


@rank_zero_only
@fault_tolerant()
def log_alert(loggers: Sequence[Any], title: str, text: str, step: int) -> None:
    """Log an alert; W&B notifies the user as configured there."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.alert(title=title, text=text, level="WARN", wait_duration=300)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("alerts", f"**{title}** {text}", step)


@rank_zero_only
@fault_tolerant()
def log_checkpoint(loggers: Sequence[Any], checkpoint: str | Path, facts: Mapping[str, Any]) -> None:
    """Log the best checkpoint as the W&B artifact ``model-RUN``, version ``best``, if ``logger.wandb.log_model`` is set.

    Args:
        loggers: of the run.
        checkpoint: the file, sent in place; it must not change any more.
        facts: the artifact's metadata.
    """
    for logger in loggers:
        if isinstance(logger, FaultTolerantWandbLogger) and logger.keeps_model:
            import wandb

            artifact = wandb.Artifact(f"model-{logger.experiment.id}", type="model", metadata=dict(facts))
            artifact.add_file(str(checkpoint), name="best.ckpt", policy="immutable")
            logger.experiment.log_artifact(artifact, aliases=["best"])


def _narrow(image: np.ndarray) -> np.ndarray:
    step = max(1, -(-image.shape[1] // LARGEST_WIDTH_PX))
    return image[::step, ::step, :3]


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
