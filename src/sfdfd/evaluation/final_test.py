"""The test after a training: the best checkpoint, the baselines and the untrained network on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.evaluation.evaluator import Evaluation, evaluate
from sfdfd.evaluation.tables import MAIN, read_rows
from sfdfd.inference.methods import NetworkMethod, baselines
from sfdfd.networks.interface import Network
from sfdfd.optics.blur_model import BlurModel
from sfdfd.training.checkpoints import TrainedModel, load_run
from sfdfd.training.device import pick_device
from sfdfd.training.logger_output import log_checkpoint, log_table
from sfdfd.training.module import DepthFromDefocus

__all__ = ["final_test", "log_test"]


def final_test(
    trainer: lightning.Trainer,
    module: DepthFromDefocus,
    untrained: Network,
    datamodule: FocalStackDataModule,
    saver: ModelCheckpoint | None,
    steps: int,
    output_dir: Path,
    pictures: int,
) -> tuple[dict[str, Any], str]:
    """Evaluate the best checkpoint; return its metrics (:func:`sfdfd.evaluation.evaluator.evaluate`) and its path.

    Launched processes share the images; spawned ones have ended by now.

    Args:
        trainer: it has trained.
        module: with the last weights, used where no checkpoint was kept.
        untrained: the network before training.
        datamodule: the data.
        saver: knows the best checkpoint.
        steps: number of training steps.
        output_dir: the run folder.
        pictures: number of samples to draw.
    """
    model: TrainedModel | DepthFromDefocus = module
    best = "" if saver is None else saver.best_model_path or saver.last_model_path
    trainer.strategy.barrier()  # the process that writes the checkpoint has finished
    if best and Path(best).is_file():
        model = load_run(best)
    sharing, renderer = _sharing(trainer), model.renderer
    device = trainer.strategy.root_device if sharing else pick_device("auto")
    options: dict[str, Any] = {"renderer": renderer, "camera": model.camera, "device": device}
    methods = {
        MAIN: NetworkMethod(model.network, **options),
        **baselines(datamodule, "test", renderer, device=device),
        "untrained": NetworkMethod(untrained, **options),
    }
    camera = model.camera or datamodule.camera
    protocol = {
        "constant_depth_m": datamodule.constant_baseline_depth_m() if "constant" in methods else None,
        "checkpoint": best or None,
        "steps": steps,
        **({"skipped_samples": skipped} if (skipped := datamodule.skipped()) else {}),
        "optics": None if camera is None else camera.as_dict(),
        "selection": f"best {saver.monitor}" if saver is not None and saver.monitor else "last",
    }
    optics = BlurModel.of(renderer)  # what the run was configured to assume
    evaluation = Evaluation(methods, datamodule, "test", renderer, optics, device, pictures, protocol)
    result = evaluate(evaluation, output_dir, **sharing)
    return result, best


def _sharing(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return rank, world size and gathering of a distributed training; empty without one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return {}

    def gather(own_share: Any) -> list[Any] | None:
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, own_share)
        return shares if trainer.is_global_zero else None

    return {"rank": trainer.global_rank, "world": trainer.world_size, "gather": gather}


def log_test(loggers: Sequence[Any], result: dict[str, Any], best: str, output_dir: Path, steps: int) -> None:
    """Log the test frames as a table with their pictures, and the best checkpoint."""
    pictures = {file.stem: file for file in (output_dir / "pictures").glob("*.png")}
    log_table(loggers, "test/frames", read_rows(output_dir / "metrics.csv"), pictures, steps)
    if best and Path(best).is_file():
        figures: dict[str, Any] = {
            key: result[key] for key in ("depth/abs_rel", "depth/rmse", "stack/psnr") if key in result
        }
        log_checkpoint(loggers, best, {**figures, "steps": steps})
