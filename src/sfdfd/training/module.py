"""The one LightningModule: predict -> render -> compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from sfdfd.datasets.sampling import uniforms_for
from sfdfd.errors import InputError, checked_int, one_line
from sfdfd.io.files import atomic_write
from sfdfd.measures.metrics import depth_metrics
from sfdfd.networks.interface import (
    NetworkModule,
    NetworkOutput,
    predict_output,
    prediction_from_output,
    render_prediction,
)
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training.checkpoints import CONFIG_KEY
from sfdfd.training.device import checked_precision
from sfdfd.training.fsdp import clip_sharded
from sfdfd.training.logger_output import log_alert
from sfdfd.training.loop_position import repair_loop_position

__all__ = ["DepthFromDefocus", "NotFiniteError", "inverse_depth_std"]

FEWEST_SLICES = 2
"""Real slices of a stack that the network sees at least, however many are left out."""


def inverse_depth_std(depth_m: Tensor, near_m: Tensor, far_m: Tensor) -> Tensor:
    """Return (B,) standard deviations of inverse depth over each image, relative to the range [1/far, 1/near]."""
    return (1 / depth_m).flatten(1).std(1) / (1 / near_m - 1 / far_m)


class NotFiniteError(InputError):
    """The network's depth is not finite.

    Attributes:
        output: of the network.
    """

    def __init__(self, output: NetworkOutput) -> None:
        super().__init__(
            "the network's depth is not finite: its weights have grown without bound; a lower optimizer.lr usually mends it"
        )
        self.output = output


class DepthFromDefocus(lightning.LightningModule):
    """Fully self-supervised depth from defocus (CVPR 2023): the rendered stack must match the input stack.

    Ground truth is removed from every batch before it is used. Only the validation log reads it, for depth metrics
    (``log_truth_metrics``), which influence neither training nor selection.

    Args:
        network: stack -> depth and AIF, see :mod:`sfdfd.networks`.
        renderer: AIF, depth -> stack; the model's optics.
        loss: called with prediction, stack and renderer: :class:`sfdfd.measures.losses.SelfSupervisedLoss` or
            :class:`sfdfd.training.energy_loss.EnergyLoss`.
        optimizer: called with the parameters.
        augmentation: applied to training batches on the device; None for none.
        warmup_steps: steps of linear warm-up before the cosine decay to ``final_lr_share``.
        final_lr_share: learning rate at the end over its peak.
        log_truth_metrics: log ``truth/depth_abs_rel`` in validation if there is ground truth.
        channels_last: keep convolutions in channels-last memory (about twice as fast on CPUs).
        compile: compile the network with torch.compile for training steps (needs a C++ compiler; validation runs eager).
        left_out: slices of each stack, drawn at random, that the network does not see in a training step. The loss compares
            them as well, so the prediction has to explain unseen photographs. The network sees at least two real slices.
        skip_nonfinite: number of steps with a NaN or infinite loss or gradient that are skipped. One more ends the run, with
            its batch saved as ``nonfinite_STEP.pt`` in the run folder.
        camera: the model's camera if it differs from the data's; None uses the camera that each stack carries.
        run_config: the resolved configuration as plain Python, kept in every checkpoint.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.measures.losses import SelfSupervisedLoss
        >>> from sfdfd.networks import DAIFNet
        >>> from sfdfd.optics import DefocusRenderer
        >>> module = DepthFromDefocus(DAIFNet(), DefocusRenderer(sigma_scale=0.5), SelfSupervisedLoss())
        >>> module(stack).depth_m.shape
        torch.Size([1, 48, 64])
    """

    network: Any  # an nn.Module that is a Network

    def __init__(
        self,
        network: nn.Module,
        renderer: Renderer,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        augmentation: nn.Module | None = None,
        warmup_steps: int = 50,
        final_lr_share: float = 0.01,
        log_truth_metrics: bool = True,
        channels_last: bool = True,
        compile: bool = False,
        left_out: int = 0,
        skip_nonfinite: int = 0,
        camera: Camera | None = None,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in torch's stubs
        self.network = cast(NetworkModule, network)
        self.renderer, self.loss = renderer, cast(Any, loss)
        self.make_optimizer, self.augmentation = optimizer, augmentation
        self.warmup_steps, self.final_lr_share = warmup_steps, final_lr_share
        self.log_truth_metrics = log_truth_metrics
        self.left_out = checked_int(left_out, "left_out (module.left_out)", 0)
        self.skip_nonfinite = checked_int(skip_nonfinite, "skip_nonfinite (module.skip_nonfinite)", 0)
        self.nonfinite_steps = 0
        self._last_batch: tuple[FocalStack, Tensor] | None = None
        self.means = nn.ModuleDict()  # of validation, over images; ranks may have unequal numbers of them
        self._some_depth: bool | None = None  # whether the validation split has depth, if processes share it
        self.camera = camera
        self.run_config = run_config or {}
        # a function, because a module would add the network to state_dict twice; shapes are static, because crops are equal
        self.compiled = torch.compile(self.network.forward, dynamic=False) if compile else None

    def setup(self, stage: str) -> None:
        """Check the trainer's precision before the first step.

        Raises:
            InputError: it is neither float32 nor mixed.
        """
        checked_precision(self.trainer.precision)

    def forward(self, stack: FocalStack) -> Prediction:
        """Predict and render an unpadded batch; see :class:`sfdfd.stack.Prediction`.

        Raises:
            NotFiniteError: the network's depth is not finite.
        """
        stack = stack.with_camera(self.camera).in_full_precision()
        visible = self._leave_out_slices(stack) if self.training and self.left_out else stack
        output = predict_output(self.network, self.renderer, visible, self._finite_output)
        if self.training and not self.loss.requires_rendered_in_training:
            return prediction_from_output(output, stack)
        return render_prediction(output, self.renderer, stack)

    def _leave_out_slices(self, stack: FocalStack) -> FocalStack:
        """Draw the slices that the network sees of each sample in training.

        A sample with n real slices keeps n - ``left_out`` of them, at least ``FEWEST_SLICES`` (all, if it has no more). The
        choice depends only on its ``random_key``, not on the batch. Samples that keep fewer than others are padded.
        """
        real = stack.slice_mask.cpu()
        uniforms = uniforms_for(stack.random_key, len(stack), "left out", real.shape[1]).masked_fill(~real, torch.inf)
        available = real.sum(1)
        kept = torch.maximum(available - self.left_out, available.clamp_max(FEWEST_SLICES))
        drawn = uniforms.argsort(1)[:, : int(kept.max())]
        is_kept = torch.arange(drawn.shape[1]) < kept[:, None]
        drawn = drawn.masked_fill(~is_kept, real.shape[1]).sort(1).values  # in the stack's order, padding last
        # padding repeats a kept slice, so that the network sees nothing of those left out
        kept_slices = stack.with_slices(torch.where(is_kept, drawn, drawn[:, :1]).to(stack.images.device))
        return replace(kept_slices, slice_mask=is_kept.to(stack.slice_mask.device))

    def _finite_output(self, *arguments: Any, **keywords: Any) -> NetworkOutput:
        network = self.compiled if self.training and self.compiled is not None else self.network
        output = network(*arguments, **keywords)
        if not bool(torch.isfinite(output.depth_m).all()):
            raise NotFiniteError(output)
        return output

    def predicted(self, stack: FocalStack) -> list[tuple[list[int], FocalStack, Prediction]]:
        """Predict the batch in unpadded parts of one image size: (indices, stacks, predictions) of each part."""
        return [(indices, part, self(part.without_truth())) for indices, part in stack.split_by_size()]

    def compare(self, predicted: Sequence[tuple[list[int], FocalStack, Prediction]]) -> dict[str, Tensor]:
        """Return every term of the loss per image of the batch (B,), and their weighted sum as "total"."""
        parts = [
            self.loss(prediction, part.without_truth().with_camera(self.camera), self.renderer)
            for _, part, prediction in predicted
        ]
        order = torch.tensor([index for indices, _, _ in predicted for index in indices]).argsort()
        return {key: torch.cat([terms[key] for terms in parts])[order.to(parts[0][key].device)] for key in parts[0]}

    def training_step(self, batch: FocalStack, batch_index: int) -> Tensor:
        stack = batch.without_truth().in_full_precision()
        if self.augmentation is not None:
            parts = [self.augmentation(part) for _, part in stack.split_by_size()]
            stack = parts[0] if len(parts) == 1 else FocalStack.collate(parts)
        try:
            terms = self.compare(self.predicted(stack))
        except NotFiniteError as error:  # nothing can be rendered; a NaN loss tells every rank
            total = (error.output.depth_m.sum() + error.output.aif.sum()) * math.nan
            terms = {"total": total.expand(len(stack))}
        self._last_batch = (stack, terms["total"].detach())
        values = {f"train/{name}": value.mean() for name, value in terms.items()}
        self.log_dict({key: value.detach() for key, value in values.items()}, batch_size=len(stack))
        self.log("loss", values["train/total"].detach(), prog_bar=True, logger=False)
        return values["train/total"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skip a step with a NaN or infinite loss or gradient, on every rank; gradients are reduced by now.

        Raises:
            InputError: it is one more than ``skip_nonfinite``.
        """
        assert self._last_batch is not None
        if self.trainer.strategy.reduce_boolean_decision(self._is_finite_step(self._last_batch[1]), all=True):
            return
        optimizer.zero_grad(set_to_none=True)  # without gradients no weight moves
        self.nonfinite_steps += 1
        step = self.trainer.global_step
        if self.nonfinite_steps <= self.skip_nonfinite:
            rank_zero_warn(f"step {step}: the loss is not finite; left out ({self.nonfinite_steps} so far)")
            return
        path = Path(self.trainer.default_root_dir) / f"nonfinite_{step}.pt"
        self._save_last_batch(path)
        log_alert(self.trainer.loggers, "the loss is not finite", f"step {step}; the batch lies in {path}", step)
        raise InputError(
            f"step {step}: the loss is not finite ({', '.join(self._last_batch[0].name)}); the batch is in {path}; a lower "
            "optimizer.lr usually mends it, module.skip_nonfinite=N leaves so many steps out"
        )

    def _is_finite_step(self, losses: Tensor) -> bool:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        finite = torch.isfinite(losses).all()
        if gradients and self.trainer.precision != "16-mixed":  # its scaler handles infinite gradients itself
            finite = finite & torch.isfinite(torch.stack([g.norm() for g in gradients])).all()
        return bool(finite)

    def _save_last_batch(self, path: Path) -> None:
        """Save batch, losses and weights on the first process; all processes gather weights that are sharded."""
        assert self._last_batch is not None
        stack, losses = self._last_batch
        weights = self.trainer.strategy.lightning_module_state_dict()
        if self.trainer.is_global_zero:
            batch = {key: value for key, value in vars(stack).items() if isinstance(value, (Tensor, tuple))}
            batch["camera"] = tuple(camera.as_dict() for camera in stack.camera)
            with atomic_write(path) as part:
                torch.save({"batch": batch, "loss": losses, "state_dict": weights}, part)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by ``trainer.gradient_clip_val``, over all shards of the weights."""
        if not clip_sharded(self.trainer, gradient_clip_val, gradient_clip_algorithm):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_end(self, outputs: Any, batch: FocalStack, batch_index: int) -> None:
        self.log("steps", float(self.trainer.global_step), logger=False)  # spawned processes hand back only metrics

    def validation_step(self, batch: FocalStack, batch_index: int) -> dict[str, Any]:
        """Log losses and metrics; return the predicted parts of the batch for callbacks."""
        predicted = self.predicted(batch)
        values = {f"val/{name}": value for name, value in self.compare(predicted).items()}
        stds = [inverse_depth_std(prediction.depth_m, part.near_m, part.far_m) for _, part, prediction in predicted]
        values["health/depth_std"] = torch.cat(stds)
        values |= self._truth_metrics(batch, predicted)
        for name, value in values.items():
            mean = self._mean(name)
            mean.update(value.detach().to(self.device))
            in_bar = name in ("val/reconstruction", "truth/depth_abs_rel")
            options: dict[str, Any] = {
                "batch_size": len(batch),
                "prog_bar": in_bar,
                "metric_attribute": f"means.{name}",
            }
            self.log(name, mean, on_step=False, on_epoch=True, **options)
        return {"predicted": predicted}

    def _truth_metrics(self, batch: FocalStack, predicted: Sequence[Any]) -> dict[str, Tensor]:
        """Return depth metrics, as ``truth/depth_...``, of the images with some known depth.

        If several processes share a validation split with some depth, all return these keys, with or without values:
        otherwise the others would wait for them for ever.
        """
        measured = [
            {key: value[part.valid.flatten(1).any(1).to(value.device)] for key, value in metrics.items()}
            for _, part, prediction in predicted
            if self.log_truth_metrics and part.depth_m is not None
            for metrics in [depth_metrics(prediction.depth_m, part.depth_m, part.valid)]
        ]
        values = {
            f"truth/depth_{key}": torch.cat([torch.zeros(0), *(metrics[key].float().cpu() for metrics in measured)])
            for key in ("abs_rel", "rmse")
        }
        if self.trainer.world_size == 1:
            return {name: value for name, value in values.items() if len(value)}
        if self._some_depth is None:
            datamodule = cast(Any, self.trainer).datamodule
            self._some_depth = self.log_truth_metrics and datamodule is not None and datamodule.has_depth("val")
        return values if self._some_depth else {}

    def _mean(self, name: str) -> MeanMetric:
        """Return the mean of that name over the validation images."""
        if name not in self.means:
            self.means[name] = MeanMetric(nan_strategy=float("nan")).to(self.device)
        return cast(MeanMetric, self.means[name])

    def configure_optimizers(self):
        if self.make_optimizer is None:
            raise ValueError("this module was built without an optimizer; it can predict, not train")
        try:
            optimizer = self.make_optimizer(self.network.parameters())
        except (ValueError, TypeError) as error:  # its own checks of the arguments
            raise InputError(f"optimizer: {one_line(error)}") from None
        progress, warmup = self._progress()

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            share = min(1.0, progress(step))
            return self.final_lr_share + (1 - self.final_lr_share) * 0.5 * (1 + math.cos(math.pi * share))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _progress(self) -> tuple[Callable[[int], float], int]:
        """Return a function of the step to the progress of the cosine (0 to 1), and the number of warm-up steps.

        Progress is by steps or, if their number is not limited, by ``trainer.max_time``.
        """
        total = self.trainer.estimated_stepping_batches
        if math.isfinite(total):
            warmup = min(self.warmup_steps, int(total) // 10)
            return (lambda step: (step - warmup) / max(1, total - warmup)), warmup
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined] # set by Lightning without a type
        timer = next((callback for callback in callbacks if isinstance(callback, Timer)), None)
        if timer is None or (remaining := timer.time_remaining()) is None:
            raise InputError("the cosine needs an end: give trainer.max_steps, trainer.max_epochs or trainer.max_time")
        seconds = timer.time_elapsed() + remaining
        return (lambda step: timer.time_elapsed() / seconds), self.warmup_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "loops" in checkpoint:
            repair_loop_position(checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.run_config
