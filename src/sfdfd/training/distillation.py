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
from sfdfd.training.distillation_samples import BatchPlan, DistillationSample, ReplayBuffer
from sfdfd.training.module import CONFIG_KEY

__all__ = ["Distillation", "distillation_terms"]

LEAST_STD = 3e-3
KNOWN = 0.05
"""Mean error of an image that counts as little."""
JUMP = 0.04
"""Of the normalized inverse depth between neighbours: a silhouette."""
EDGE_PX = 8
EDGE_WEIGHT = 3.0
"""What a pixel within ``EDGE_PX`` of a silhouette counts beyond the others: there a sweep errs most."""


def distillation_terms(
    output: NetworkOutput, lesson: DistillationSample, weights: dict[str, float]
) -> dict[str, Tensor]:
    """What the answer costs, per image (B,), and the weighted sum as "total". In the sum an image's error e of depth counts
    as log(1 + e / ``KNOWN``): what a stack cannot tell shall not drown what it can.

    log_depth and inverse_depth_01 are mean absolute errors of log depth (relative errors) and of the normalized inverse depth,
    weighed by how sure the teacher is and more about silhouettes (:func:`near_silhouettes`); aif the AIF's. Where a network
    has scores, scores is their :func:`cross_entropy`; where it has a std alone, std is |error| / s + log s, the
    negative log-likelihood of a Laplace distribution of the inverse_depth_01, which teaches s alone.
    """
    depth_m, aif, std, scores = output
    known, image, sure = lesson.answer
    sure = sure * (1 + EDGE_WEIGHT * near_silhouettes(known))
    sure = sure / sure.mean((1, 2), keepdim=True).clamp_min(1e-6) * lesson.answer.weight.mean((1, 2), keepdim=True)
    inverse_depth_01 = normalized_inverse_depth(depth_m, lesson.near_m, lesson.far_m)
    low, high = (1 / end[:, None, None] for end in (lesson.far_m, lesson.near_m))
    error = (inverse_depth_01 - known).abs()
    values = {
        "log_depth": (sure * (torch.log(depth_m * (low + known * (high - low)))).abs()).mean((1, 2)),
        "inverse_depth_01": (sure * error).mean((1, 2)),
        "aif": (aif - image).abs().mean((1, 2, 3)),
    }
    if scores is not None:
        values["scores"] = cross_entropy(scores, known, sure)
    elif std is not None:
        s = std.clamp_min(LEAST_STD)
        values["std"] = (sure * (error.detach() / s + torch.log(s))).mean((1, 2))
    shares = {
        key: torch.log(1 + value / KNOWN) if key in ("log_depth", "inverse_depth_01") else value
        for key, value in values.items()
    }
    return {**values, "total": sum(weights[key] * value for key, value in shares.items())}


def near_silhouettes(inverse_depth_01: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """1 within ``EDGE_PX`` of a jump of the inverse_depth_01 between neighbours, else 0."""
    maps = inverse_depth_01[:, None]
    jumps = F.max_pool2d(maps, 3, 1, 1) + F.max_pool2d(-maps, 3, 1, 1) > JUMP
    return F.max_pool2d(jumps.float(), 2 * EDGE_PX + 1, 1, EDGE_PX)[:, 0]


def cross_entropy(
    scores: Float[Tensor, "b d y x"], inverse_depth_01: Float[Tensor, "b h w"], sure: Float[Tensor, "b h w"]
) -> Float[Tensor, "b"]:
    """Of scores of D positions at half the size: each pixel is shared by the two positions that its own lies between."""
    planes = torch.arange(scores.shape[1], device=scores.device)[:, None, None]
    shares = (1 - (inverse_depth_01[:, None] * (len(planes) - 1) - planes).abs()).clamp_min(0)
    halves = F.avg_pool2d(torch.cat([shares, sure[:, None]], 1), 2, ceil_mode=True, count_include_pad=False)
    logs = torch.log_softmax(scores, 1)
    return -(halves[:, -1] * (halves[:, :-1] * logs).sum(1)).mean((1, 2))


class Distillation(lightning.LightningModule):
    """Trains a network on lessons.

    Args:
        network: any; one that ``requires_defocus`` is told the blur and the sweep's costs.
        optimizer: called with the parameters.
        weights: of the terms, see :func:`distillation_terms`.
        practice: makes the lessons of a batch that is an :class:`sfdfd.training.distillation_samples.BatchPlan`.
        warmup_steps, final_lr_share: linear warm-up, then a cosine to this share of the learning rate.
        run_config: what the checkpoint says of itself.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
        weights: dict[str, float],
        practice: ReplayBuffer | None = None,
        warmup_steps: int = 100,
        final_lr_share: float = 0.02,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in torch's stubs
        self.make_optimizer, self.weights, self.practice = optimizer, weights, practice
        self.warmup_steps, self.final_lr_share = warmup_steps, final_lr_share
        self.run_config = run_config or {}

    def terms(self, lesson: DistillationSample) -> dict[str, Tensor]:
        known: dict[str, Any] = {}
        if getattr(self.network, "requires_defocus", False):
            known = {"defocus": StackDefocus(lesson.ends_px, GaussianPSF()), "costs": lesson.costs}
        output = self.network(
            lesson.images,
            lesson.focus_m,
            near_m=lesson.near_m,
            far_m=lesson.far_m,
            slice_mask=lesson.slice_mask,
            **known,
        )
        output = NetworkOutput(
            output.depth_m.float(),
            output.aif.float(),
            *(value if value is None else value.float() for value in output[2:]),
        )
        return distillation_terms(output, lesson, self.weights)

    def transfer_batch_to_device(
        self, batch: DistillationSample | BatchPlan, device: torch.device, dataloader_idx: int
    ) -> DistillationSample:
        if isinstance(batch, BatchPlan):
            assert self.practice is not None
            return self.practice(batch, device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, lesson: DistillationSample, index: int) -> Tensor:
        values = {f"train/{key}": value.mean() for key, value in self.terms(lesson).items()}
        self.log_dict(values, batch_size=len(lesson.images))
        return values["train/total"]

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.network.parameters())
        total, warmup = int(self.trainer.estimated_stepping_batches), self.warmup_steps

        def factor(step: int) -> float:
            share = min(1.0, step / max(1, total))
            cosine = self.final_lr_share + (1 - self.final_lr_share) * 0.5 * (1 + math.cos(math.pi * share))
            return cosine * min(1.0, (step + 1) / warmup)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.run_config
