"""The LightningModule of distillation: a network learns a teacher's depth and AIF, without a renderer in the loss.

Its samples come from :mod:`sfdfd.training.distillation_samples`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.networks.interface import NetworkOutput
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.optics.psf import GaussianPSF
from sfdfd.plane_sweep.cost_volume import StackDefocus
from sfdfd.training.checkpoints import CONFIG_KEY
from sfdfd.training.distillation_samples import BatchPlan, DistillationSample, ReplayBuffer

__all__ = ["Distillation", "distillation_terms"]

SMALLEST_STD = 3e-3
LEAST_SQUARE_ERROR = 3e-6
SATURATION = 0.05
"""Mean depth error from which an image's share of the loss grows only logarithmically."""
SILHOUETTE_STEP = 0.04
"""Least step of the normalized inverse depth between neighbours that counts as a silhouette."""
EDGE_PX = 8
EDGE_WEIGHT = 3.0
"""Additional weight of pixels within ``EDGE_PX`` of a silhouette, where a sweep errs most."""


def distillation_terms(
    output: NetworkOutput, sample: DistillationSample, weights: dict[str, float]
) -> dict[str, Tensor]:
    """Return every loss term per image (B,), and their weighted sum as "total".

    - log_depth, inverse_depth_01: mean absolute errors of log depth (relative errors) and of the normalized inverse depth,
      weighted by the teacher's certainty and more near silhouettes (:func:`near_silhouettes`). In the sum an error e counts
      as log(1 + e / ``SATURATION``), so that images without a depth cue do not dominate.
    - aif: mean absolute error of the AIF.
    - aif_log, where it has a weight: half the log of the mean square error of the AIF, so that each image counts by its
      decibels. A mean absolute error is mostly noise, and misses the few pixels that are much too bright or dark.
    - scores: :func:`cross_entropy`, of networks with scores.
    - std: |error| / s + log s, of networks with a std alone: the negative log-likelihood of a Laplace distribution of the
      inverse depth. The error is detached, so the term trains s alone.
    """
    depth_m, aif, std, scores = output
    true_01, true_aif, certainty = sample.target
    weight = certainty * (1 + EDGE_WEIGHT * near_silhouettes(true_01))
    weight = weight / weight.mean((1, 2), keepdim=True).clamp_min(1e-6) * certainty.mean((1, 2), keepdim=True)
    low, high = (1 / end[:, None, None] for end in (sample.far_m, sample.near_m))
    error = (normalized_inverse_depth(depth_m, sample.near_m, sample.far_m) - true_01).abs()
    values = {
        "log_depth": (weight * (torch.log(depth_m * (low + true_01 * (high - low)))).abs()).mean((1, 2)),
        "inverse_depth_01": (weight * error).mean((1, 2)),
        "aif": (aif - true_aif).abs().mean((1, 2, 3)),
    }
    if weights.get("aif_log"):
        values["aif_log"] = 0.5 * torch.log((aif - true_aif).square().mean((1, 2, 3)) + LEAST_SQUARE_ERROR)
    if scores is not None:
        values["scores"] = cross_entropy(scores, true_01, weight)
    elif std is not None:
        s = std.clamp_min(SMALLEST_STD)
        values["std"] = (weight * (error.detach() / s + torch.log(s))).mean((1, 2))
    summands = {
        key: torch.log(1 + value / SATURATION) if key in ("log_depth", "inverse_depth_01") else value
        for key, value in values.items()
    }
    return {**values, "total": sum(weights[key] * value for key, value in summands.items())}


def near_silhouettes(inverse_depth_01: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Return 1 within ``EDGE_PX`` of a silhouette, else 0."""
    maps = inverse_depth_01[:, None]
    steps = F.max_pool2d(maps, 3, 1, 1) + F.max_pool2d(-maps, 3, 1, 1) > SILHOUETTE_STEP
    return F.max_pool2d(steps.float(), 2 * EDGE_PX + 1, 1, EDGE_PX)[:, 0]


def cross_entropy(
    scores: Float[Tensor, "b d y x"], inverse_depth_01: Float[Tensor, "b h w"], weight: Float[Tensor, "b h w"]
) -> Float[Tensor, "b"]:
    """Return the weighted cross-entropy of scores of D planes at half the size.

    The target of a pixel is shared by the two planes on both sides of its inverse depth.
    """
    planes = torch.arange(scores.shape[1], device=scores.device)[:, None, None]
    shares = (1 - (inverse_depth_01[:, None] * (len(planes) - 1) - planes).abs()).clamp_min(0)
    halves = F.avg_pool2d(torch.cat([shares, weight[:, None]], 1), 2, ceil_mode=True, count_include_pad=False)
    logs = torch.log_softmax(scores, 1)
    return -(halves[:, -1] * (halves[:, :-1] * logs).sum(1)).mean((1, 2))


class Distillation(lightning.LightningModule):
    """Trains a network on :class:`sfdfd.training.distillation_samples.DistillationSample` batches.

    Args:
        network: any; one with ``requires_defocus`` is given the blur and the sweep's costs.
        optimizer: called with the parameters.
        weights: of the terms, see :func:`distillation_terms`.
        replay: makes the samples of a batch that is an :class:`sfdfd.training.distillation_samples.BatchPlan`.
        warmup_steps, final_lr_share: linear warm-up, then a cosine to this share of the learning rate.
        run_config: kept in the checkpoint.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
        weights: dict[str, float],
        replay: ReplayBuffer | None = None,
        warmup_steps: int = 100,
        final_lr_share: float = 0.02,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in torch's stubs
        self.make_optimizer, self.weights, self.replay = optimizer, weights, replay
        self.warmup_steps, self.final_lr_share = warmup_steps, final_lr_share
        self.run_config = run_config or {}

    def terms(self, sample: DistillationSample) -> dict[str, Tensor]:
        cues: dict[str, Any] = {}
        if self.network.requires_defocus:
            cues = {"defocus": StackDefocus(sample.ends_px, GaussianPSF()), "costs": sample.costs}
        output = self.network(
            sample.images,
            sample.focus_m,
            near_m=sample.near_m,
            far_m=sample.far_m,
            slice_mask=sample.slice_mask,
            **cues,
        )
        others = (value if value is None else value.float() for value in output[2:])
        output = NetworkOutput(output.depth_m.float(), output.aif.float(), *others)
        return distillation_terms(output, sample, self.weights)

    def transfer_batch_to_device(
        self, batch: DistillationSample | BatchPlan, device: torch.device, dataloader_idx: int
    ) -> DistillationSample:
        if isinstance(batch, BatchPlan):
            assert self.replay is not None
            return self.replay(batch, device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, sample: DistillationSample, index: int) -> Tensor:
        values = {f"train/{key}": value.mean() for key, value in self.terms(sample).items()}
        self.log_dict(values, batch_size=len(sample.images))
        return values["train/total"]

    def configure_optimizers(self):
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = self.make_optimizer(trained)
        total, warmup = int(self.trainer.estimated_stepping_batches), self.warmup_steps

        def factor(step: int) -> float:
            share = min(1.0, step / max(1, total))
            cosine = self.final_lr_share + (1 - self.final_lr_share) * 0.5 * (1 + math.cos(math.pi * share))
            return cosine * min(1.0, (step + 1) / warmup)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.run_config
