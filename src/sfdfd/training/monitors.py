"""Callbacks that measure a training: time, gradients, and baselines for the validation metrics."""

from __future__ import annotations

import math
import time
from itertools import product
from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from sfdfd.measures.diagnosis import textured_share
from sfdfd.measures.metrics import depth_metrics
from sfdfd.networks.classical import classical_network, constant_network
from sfdfd.networks.interface import Network, run_network
from sfdfd.stack import FocalStack
from sfdfd.training.device import peak_memory_gib
from sfdfd.training.fsdp import gradient_norm
from sfdfd.training.logger_output import log_histogram

__all__ = ["StepMonitor", "ValidationMonitor"]

PARTS = ("data", "network", "renderer", "loss", "backward", "optimizer")


class StepMonitor(lightning.Callback):
    """Logs the cost of a step and the size of its gradient, every ``trainer.log_every_n_steps`` steps.

    - ``gradient/norm``: of all parameters together, before clipping.
    - ``time/step_s``: mean since the last log, without validation and checkpoints.
    - ``time/share_*``: shares of one step: data (waiting for the loader), network (with augmentation), renderer, loss (all
      three forward), backward and optimizer. Only such a step waits for the device.
    - ``throughput/stacks_per_s``, ``throughput/megapixels_per_s`` (of all slices), over all processes.
    - ``memory/peak_gib``: of this process, or of its GPU.
    """

    def __init__(self) -> None:
        self._hooks: list[Any] = []
        self._measuring, self._interrupted = False, True
        self._seconds: dict[str, float] = {}
        self._mark = self._ended = 0.0
        self._sum_s, self._steps, self._stacks, self._pixels = 0.0, 0, 0, 0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._ended, self._interrupted = time.perf_counter(), True
        renderer, loss = cast(Any, module.renderer), cast(Any, module.loss)
        self._hooks = [
            renderer.register_forward_pre_hook(lambda *_: self._lap("network", module)),
            renderer.register_forward_hook(lambda *_: self._lap("renderer", module)),
            loss.register_forward_pre_hook(
                lambda *_: self._lap("network", module)
            ),  # between the two lies almost nothing
            loss.register_forward_hook(lambda *_: self._lap("loss", module)),
        ]

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._interrupted = True

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: Any, batch: FocalStack, batch_index: int
    ) -> None:
        interval = trainer.log_every_n_steps  # type: ignore[attr-defined] # set by Lightning without a type
        self._measuring = bool(interval) and (trainer.global_step + 1) % interval == 0
        if self._measuring:
            self._seconds = dict.fromkeys(PARTS, 0.0)
            self._mark = self._ended
            self._lap("data", module)
            if self._interrupted:
                self._seconds["data"] = 0.0

    def _lap(self, part: str, module: lightning.LightningModule) -> None:
        """Count the time since the last lap for this part."""
        if self._measuring and module.training:
            if module.device.type == "cuda":
                torch.cuda.synchronize(module.device)
            now = time.perf_counter()
            self._seconds[part] += now - self._mark
            self._mark = now

    def on_before_backward(self, trainer: lightning.Trainer, module: lightning.LightningModule, loss: Tensor) -> None:
        self._lap("loss", module)

    def on_after_backward(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._lap("backward", module)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._measuring:
            norm = gradient_norm(trainer, module)
            if norm is not None:
                module.log("gradient/norm", norm)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: FocalStack, batch_index: int
    ) -> None:
        now = time.perf_counter()
        if not self._interrupted:
            self._sum_s += now - self._ended
            self._steps += 1
            self._stacks += len(batch) * trainer.world_size
            self._pixels += batch.images[:, :, 0].numel() * trainer.world_size
        if self._measuring:
            self._lap("optimizer", module)
            self._log(module)
        self._ended, self._interrupted, self._measuring = time.perf_counter(), False, False

    def _log(self, module: lightning.LightningModule) -> None:
        total = sum(self._seconds.values())
        values = {f"time/share_{part}": seconds / total for part, seconds in self._seconds.items()}
        if self._steps:
            values["time/step_s"] = self._sum_s / self._steps
            values["throughput/stacks_per_s"] = self._stacks / self._sum_s
            values["throughput/megapixels_per_s"] = self._pixels / self._sum_s / 1e6
        if module.device.type == "cuda":
            values["memory/peak_gib"] = torch.cuda.max_memory_allocated(module.device) / 2**30
        else:
            values["memory/peak_gib"] = peak_memory_gib()
        module.log_dict({key: value for key, value in values.items() if math.isfinite(value)})
        self._sum_s, self._steps, self._stacks, self._pixels = 0.0, 0, 0, 0

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def on_exception(self, trainer: lightning.Trainer, module: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, module)


class ValidationMonitor(lightning.Callback):
    """Logs baselines for the validation metrics, and the blur that the network predicts.

    - ``truth/constant_abs_rel``, ``truth/constant_rmse``, ``truth/classical_abs_rel``, ``truth/classical_rmse``:
    baselines on
      the same images, if they have ground truth. A network at the constant's level has learnt nothing. Selection
      ignores them.
    - ``health/blur_radius_px``: a histogram of the predicted blur radius over all slices and pixels; its median and 95th
      percentile as ``health/blur_radius_median_px`` and ``health/blur_radius_p95_px``.
    - ``health/no_signal_share``: share of pixels whose sharpness does not change over the slices (too little texture or
      blur), so that their depth is unknown. This and the baselines do not depend on the network and are computed once.

    Args:
        largest_px: end of the histogram; larger radii count in the last bin.
        bins: of the histogram.
    """

    def __init__(self, largest_px: float = 32.0, bins: int = 64) -> None:
        self.largest_px, self.bins = largest_px, bins
        self._counts = torch.zeros(bins)
        self._means: dict[str, MeanMetric] = {}
        self._baselines: dict[str, Network] = {}
        self._fixed_values: dict[str, float] = {}

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._counts, self._means = torch.zeros(self.bins, device=module.device), {}
        if trainer.sanity_checking or self._fixed_values:
            return
        constant_m = trainer.datamodule.constant_baseline_depth_m()  # type: ignore[attr-defined] # set by Lightning without a type
        self._baselines = {"classical": classical_network}
        if constant_m is not None:
            self._baselines["constant"] = constant_network(constant_m)
        if module.log_truth_metrics:  # on every rank, with or without truth: all compute the same means
            for name, key in product(self._baselines, ("abs_rel", "rmse")):
                self._add(f"truth/{name}_{key}", torch.zeros(0))

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: FocalStack, batch_index: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if trainer.sanity_checking:
            return
        for _, part, prediction in outputs["predicted"]:
            radius = prediction.defocus_px.abs().float()[part.slice_mask].clamp_max(self.largest_px)
            self._counts += torch.histc(radius, self.bins, 0.0, self.largest_px)
            if self._fixed_values:
                continue
            self._add("health/no_signal_share", 1 - textured_share(part))
            if part.depth_m is not None and module.log_truth_metrics:
                for name, network in self._baselines.items():
                    depth_m = run_network(network, part.without_truth()).depth_m
                    measured = depth_metrics(depth_m, part.depth_m, cast(Tensor, part.valid))
                    for key in ("abs_rel", "rmse"):
                        self._add(f"truth/{name}_{key}", measured[key])

    def _add(self, key: str, values: Tensor) -> None:
        if key not in self._means:
            self._means[key] = MeanMetric(nan_strategy="ignore").to(self._counts.device)
        self._means[key].update(values.detach().float().to(self._counts.device))

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._fixed_values |= {key: float(mean.compute()) for key, mean in self._means.items()}  # over all processes
        counts = cast(Tensor, trainer.strategy.reduce(self._counts, reduce_op="sum")).cpu().numpy()
        edges = np.linspace(0, self.largest_px, self.bins + 1)
        blur = {
            f"health/blur_radius_{name}_px": _quantile(counts, edges, share)
            for share, name in ((0.5, "median"), (0.95, "p95"))
        }
        values = {key: value for key, value in {**blur, **self._fixed_values}.items() if math.isfinite(value)}
        module.log_dict(values, rank_zero_only=False, sync_dist=False)
        log_histogram(trainer.loggers, "health/blur_radius_px", counts, edges, trainer.global_step)


def _quantile(counts: np.ndarray, edges: np.ndarray, share: float) -> float:
    """Return a quantile of a histogram, linear within a bin; NaN if it is empty."""
    total = counts.sum()
    if not total > 0:
        return math.nan
    return float(np.interp(share, np.concatenate([[0.0], np.cumsum(counts) / total]), edges))
