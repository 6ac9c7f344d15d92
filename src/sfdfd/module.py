"""The one LightningModule: predict -> render -> compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import kornia.augmentation as augment
import lightning
import torch
from torch import Tensor, nn

from sfdfd.metrics import depth_metrics
from sfdfd.networks.interface import predict_stack
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer
from sfdfd.stack import FocalStack, Prediction

__all__ = ["DepthFromDefocus", "StackAugmentation", "depth_spread"]

CONFIG_KEY = "sfdfd_config"
"""Where a checkpoint carries the run's resolved configuration, as plain Python."""


class StackAugmentation(nn.Module):
    """Random crops, flips and light that keep the physics of a stack true.

    Crops and flips move all slices together. Light changes are linear (gain per colour, mixed channels), the same for
    every slice, because rendering is linear in the AIF; a gamma would not be. They stay within [0, 1].

    Args:
        crop: side of the square crop in pixels, None for none; smaller images stay whole.
        flip: flip at random in x and in y.
        gain: largest relative change of each colour's gain, in [0, 1).
        permute_colours: put the colour channels in random order.
    """

    def __init__(
        self, crop: int | None = 64, flip: bool = True, gain: float = 0.2, permute_colours: bool = True
    ) -> None:
        super().__init__()
        self.crop, self.gain, self.permute_colours = crop, gain, permute_colours
        self.flips = nn.ModuleList([augment.RandomHorizontalFlip(), augment.RandomVerticalFlip()] if flip else [])

    @torch.no_grad()
    def forward(self, stack: FocalStack) -> FocalStack:
        """A new batch of the same scenes; truth, where there is any, moves along. Padding is taken off before a crop."""
        if stack.size_px is not None:
            return FocalStack.collate([self(part) for _, part in stack.parts()])
        batch, slices = stack.images.shape[:2]
        planes = [stack.images.flatten(1, 2)]
        for value in (stack.depth_m, stack.aif, stack.valid):
            if value is not None:
                planes.append(value.to(planes[0]) if value.ndim == 4 else value.to(planes[0])[:, None])
        moved = torch.cat(planes, dim=1)
        height, width = moved.shape[-2:]
        if self.crop and (height > self.crop or width > self.crop):
            rows, columns = min(self.crop, height), min(self.crop, width)
            moved = augment.RandomCrop((rows, columns))(moved)
        for flip in self.flips:
            moved = flip(moved)
        images, *truth = moved.split([plane.shape[1] for plane in planes], dim=1)
        images = images.unflatten(1, (slices, 3))
        gain = 1 + self.gain * (2 * torch.rand(batch, 1, 3, 1, 1, device=images.device) - 1)
        brightest = (images * gain).amax((1, 2, 3, 4), keepdim=True).clamp_min(1.0)
        gain = gain / brightest
        order = torch.rand(batch, 3, device=images.device).argsort(1) if self.permute_colours else None

        def relit(values: Tensor, factor: Tensor) -> Tensor:
            values = values * factor
            if order is None:
                return values
            index = order.reshape(batch, *(1,) * (values.ndim - 4), 3, 1, 1).expand_as(values)
            return values.gather(-3, index)

        changes: dict[str, Tensor] = {"images": relit(images, gain)}
        if stack.depth_m is not None:
            changes["depth_m"] = truth.pop(0)[:, 0]
        if stack.aif is not None:
            changes["aif"] = relit(truth.pop(0), gain[:, 0])
        if stack.valid is not None:
            changes["valid"] = truth.pop(0)[:, 0] > 0.5
        return replace(stack, **changes)


def depth_spread(depth_m: Tensor, near_m: Tensor, far_m: Tensor) -> Tensor:
    """(B,) standard deviation of inverse depth over each image, as a share of the range [1/far, 1/near]."""
    return (1 / depth_m).flatten(1).std(1) / (1 / near_m - 1 / far_m)


class DepthFromDefocus(lightning.LightningModule):
    """Fully self-supervised depth from defocus (CVPR 2023): the rendered stack must be the input stack.

    Ground truth is removed from every batch before the training and validation steps see it, unless
    ``log_truth_metrics`` asks for depth metrics in the validation log (they steer nothing).

    Args:
        network: stack -> depth and AIF, see :mod:`sfdfd.networks`.
        renderer: AIF, depth -> stack; the model's optics.
        loss: see :class:`sfdfd.losses.SelfSupervisedLoss`.
        optimizer: called with the parameters.
        augmentation: applied to training batches on the device; None for none.
        warmup_steps: steps of linear warm-up before the cosine decay to ``final_lr_share``, per step.
        final_lr_share: learning rate at the end over its peak.
        log_truth_metrics: log ``truth/depth_abs_rel`` in validation where truth exists.
        channels_last: keep convolutions in channels-last memory (about twice as fast on CPUs).
        compile: compile the network with torch.compile for training steps (needs a C++ compiler; validation runs eager).
        camera: the model's camera where it is not the data's; None takes the camera that each stack carries.
        run_config: the resolved configuration, plain Python; kept in every checkpoint.
    """

    def __init__(
        self,
        network: nn.Module,
        renderer: DefocusRenderer,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        augmentation: nn.Module | None = None,
        warmup_steps: int = 50,
        final_lr_share: float = 0.01,
        log_truth_metrics: bool = True,
        channels_last: bool = True,
        compile: bool = False,
        camera: Camera | None = None,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self.renderer, self.loss = renderer, loss
        self.make_optimizer, self.augmentation = optimizer, augmentation
        self.warmup_steps, self.final_lr_share = warmup_steps, final_lr_share
        self.log_truth_metrics = log_truth_metrics
        self.camera = camera
        self.run_config = run_config or {}
        # a function, not a module: state_dict must not hold the network twice. Static shapes: the crop's is always the same
        self.compiled = torch.compile(self.network.forward, dynamic=False) if compile else None

    def forward(self, stack: FocalStack) -> Prediction:
        """Predict and render; see :class:`sfdfd.stack.Prediction`."""
        if self.camera is not None:
            stack = replace(stack, camera=(self.camera,) * len(stack))
        network = self.compiled if self.training and self.compiled is not None else self.network
        return predict_stack(network, self.renderer, stack)

    def compare(self, stack: FocalStack, prediction: Prediction) -> dict[str, Tensor]:
        """Every term of the loss, per image (B,), with their weighted sum as "total"; padding does not count."""
        if stack.size_px is not None:
            found = []
            for indices, part in stack.parts():
                cut = prediction.part(indices, *part.images.shape[-2:])
                found.append((indices, self.compare(part, cut)))
            order = torch.tensor([index for indices, _ in found for index in indices]).argsort()
            return {key: torch.cat([terms[key] for _, terms in found])[order] for key in found[0][1]}
        return self.loss(
            prediction.rendered,
            stack.images,
            prediction.depth_m,
            prediction.aif,
            prediction.defocus_px,
            stack.near_m,
            stack.far_m,
            stack.slice_mask,
        )

    def training_step(self, batch: FocalStack, batch_index: int) -> Tensor:
        stack = batch.without_truth()
        if self.augmentation is not None:
            stack = self.augmentation(stack)
        terms = self.compare(stack, self(stack))
        values = {f"train/{name}": value.mean() for name, value in terms.items()}
        self.log_dict({key: value.detach() for key, value in values.items()}, batch_size=len(stack))
        self.log("loss", values["train/total"].detach(), prog_bar=True, logger=False)
        return values["train/total"]

    def validation_step(self, batch: FocalStack, batch_index: int) -> None:
        stack = batch.without_truth()
        prediction = self(stack)
        common = {"on_step": False, "on_epoch": True, "batch_size": len(stack), "sync_dist": True}
        for name, value in self.compare(stack, prediction).items():
            self.log(f"val/{name}", value.mean(), prog_bar=name == "reconstruction", **common)
        spread = depth_spread(prediction.depth_m, stack.near_m, stack.far_m).mean()
        self.log("health/depth_std", spread, **common)
        if self.log_truth_metrics and batch.depth_m is not None:
            measured = depth_metrics(prediction.depth_m, batch.depth_m, batch.valid)
            self.log("truth/depth_abs_rel", measured["abs_rel"].mean().float(), prog_bar=True, **common)

    def configure_optimizers(self):
        if self.make_optimizer is None:
            raise ValueError("this module was built without an optimizer; it can predict, not train")
        optimizer = self.make_optimizer(self.network.parameters())
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ValueError("the cosine needs an end: give trainer.max_steps or trainer.max_epochs")
        warmup = min(self.warmup_steps, int(total) // 10)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, total - warmup))
            return self.final_lr_share + (1 - self.final_lr_share) * 0.5 * (1 + math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.run_config
