"""What is more than a number, told to every logger that shows it: pictures, histograms, tables, alerts, the best checkpoint.

W&B and TensorBoard get the same; the CSV file holds numbers alone. What fails is said, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from sfdfd.training.loggers import fault_tolerant

__all__ = ["log_alert", "log_checkpoint", "log_histogram", "log_pictures", "log_table"]

FRAME, WIDEST_PX = "picture", 900
"""The column of a table that holds a picture, and its largest width."""


@rank_zero_only
@fault_tolerant()
def log_pictures(loggers: Sequence[Any], key: str, picture: np.ndarray, step: int) -> None:
    """One (H,W,3) uint8 picture."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, step, dataformats="HWC")


@rank_zero_only
@fault_tolerant()
def log_histogram(loggers: Sequence[Any], key: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
    """(N,) counts between (N+1,) edges."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            shown = wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
            logger.log_metrics({key: shown}, step=step)  # type: ignore[dict-item] # W&B takes more than numbers
        elif isinstance(logger, TensorBoardLogger):
            middles = (edges[1:] + edges[:-1]) / 2
            logger.experiment.add_histogram_raw(
                key,
                min=float(edges[0]),
                max=float(edges[-1]),
                num=float(counts.sum()),
                sum=float((counts * middles).sum()),
                sum_squares=float((counts * middles**2).sum()),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )


@rank_zero_only
@fault_tolerant()
def log_table(
    loggers: Sequence[Any], key: str, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Path], step: int
) -> None:
    """A table to sort.

    Args:
        loggers: those of the run.
        key: its name.
        rows: by column, the same columns in each.
        pictures: files, by the ``name`` of the rows that have one.
        step: of the run.
    """
    if not rows:
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    files = [pictures.get(f"{row.get('method')}_{row.get('name')}") for row in rows]
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            data = [[row.get(column) for column in columns] for row in rows]
            if pictures:
                for line, file in zip(data, files, strict=True):
                    line.append(None if file is None else wandb.Image(_narrow(iio.imread(file))))
            logger.log_table(key, columns=columns + [FRAME] * bool(pictures), data=data, step=step)
        elif isinstance(logger, TensorBoardLogger):
            texts = [columns, ["---"] * len(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
            logger.experiment.add_text(key, "\n".join("| " + " | ".join(line) + " |" for line in texts), step)
            for row, file in zip(rows, files, strict=True):
                if file is not None:
                    image = _narrow(iio.imread(file))
                    logger.experiment.add_image(f"{key}/{row.get('name')}", image, step, dataformats="HWC")


@rank_zero_only
@fault_tolerant()
def log_alert(loggers: Sequence[Any], title: str, text: str, step: int) -> None:
    """Something that a person who is elsewhere should know; W&B sends it as the user has set there."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.alert(title=title, text=text, level="WARN", wait_duration=300)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("alerts", f"**{title}** {text}", step)


@rank_zero_only
@fault_tolerant()
def log_checkpoint(loggers: Sequence[Any], checkpoint: str | Path, facts: Mapping[str, Any]) -> None:
    """The best checkpoint as W&B's artifact ``model-RUN``, version ``best``, where ``logger.wandb.log_model`` asks for it.

    Args:
        loggers: those of the run.
        checkpoint: the file, which nobody changes any more: it is sent from where it lies.
        facts: the artifact's metadata.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger) and getattr(logger, "keeps_model", False):
            import wandb

            artifact = wandb.Artifact(f"model-{logger.experiment.id}", type="model", metadata=dict(facts))
            artifact.add_file(str(checkpoint), name="best.ckpt", policy="immutable")
            logger.experiment.log_artifact(artifact, aliases=["best"])


def _narrow(image: np.ndarray) -> np.ndarray:
    step = max(1, -(-image.shape[1] // WIDEST_PX))
    return image[::step, ::step, :3]


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
