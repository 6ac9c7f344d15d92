"""Training with weights that are sharded over processes (FSDP, ``trainer=fsdp``).

Each forward gathers the weights from all processes. A forward on one process alone would wait for ever, so every process
has to make every prediction (:func:`predict_on_all_ranks`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.plugins.precision.fsdp import FSDPPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.stack import FocalStack, Prediction

__all__ = ["ShardedStrategy", "check_strategy", "clip_sharded", "gradient_norm", "is_sharded", "predict_on_all_ranks"]


class ShardedPrecision(FSDPPrecision):
    """FSDP's precision without casts of inputs and outputs: images, distances and depth stay float32.

    Within the network, autocast decides as it does without shards.
    """

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data

    @property
    def mixed_precision_config(self) -> Any:
        config = super().mixed_precision_config
        config.cast_forward_inputs = config.cast_root_forward_inputs = False
        config.buffer_dtype = torch.float32
        return config

    def forward_context(self) -> AbstractContextManager:
        if "mixed" not in self.precision:
            return super().forward_context()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.autocast(device, torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16)


class ShardedStrategy(FSDPStrategy):
    """Lightning's FSDP for batches of :class:`sfdfd.stack.FocalStack`.

    Args:
        options: of :class:`lightning.pytorch.strategies.FSDPStrategy`. Stacks of different image sizes need no
            ``auto_wrap_policy``: the processes would gather parts of the weights a different number of times.
    """

    @property
    def precision_plugin(self) -> FSDPPrecision:
        return cast(FSDPPrecision, self._precision_plugin or ShardedPrecision("32-true"))

    @precision_plugin.setter
    def precision_plugin(self, precision_plugin: Precision | None) -> None:
        if isinstance(precision_plugin, FSDPPrecision):
            precision_plugin = ShardedPrecision(precision_plugin.precision)  # type: ignore[arg-type] # FSDP's own are
        self._precision_plugin = precision_plugin


def check_strategy(strategy: Any, keeps_checkpoints: bool) -> None:
    """Refuse a strategy that cannot train, before any data is read.

    Raises:
        InputError: Lightning's own FSDP, or shards without the checkpoints that the final test reads.
    """
    if isinstance(strategy, str) and strategy.startswith("fsdp"):
        offload = " trainer.strategy.cpu_offload=true" if "offload" in strategy else ""
        raise InputError(
            f"trainer.strategy={strategy}: Lightning's own takes none of these stacks; give "
            f"trainer=fsdp{offload} instead"
        )
    if isinstance(strategy, FSDPStrategy) and not keeps_checkpoints:
        raise InputError(
            "trainer=fsdp: the final test reads the weights from a checkpoint, and none is kept; leave "
            "callbacks.checkpoint as it is"
        )


def is_sharded(trainer: lightning.Trainer) -> bool:
    """Return whether each process holds only a part of the weights."""
    return isinstance(trainer.strategy, FSDPStrategy)


@torch.no_grad()
def predict_on_all_ranks(
    trainer: lightning.Trainer, module: lightning.LightningModule, stack: FocalStack
) -> Prediction:
    """Predict one stack in evaluation mode; every process must call this with the same stack."""
    model = cast(torch.nn.Module, trainer.strategy.model) if is_sharded(trainer) else module
    was_training = module.training
    module.eval()
    try:
        with trainer.precision_plugin.forward_context():
            return model(stack)
    finally:
        module.train(was_training)


def clip_sharded(trainer: lightning.Trainer, largest: float | None, algorithm: str | None) -> bool:
    """Clip the gradient norm over all shards; return False, and do nothing, where Lightning's own clipping applies."""
    if not is_sharded(trainer) or not largest or algorithm not in (None, "norm"):
        return False
    cast(Any, trainer.strategy.model).clip_grad_norm_(float(largest))
    return True


def gradient_norm(trainer: lightning.Trainer, module: torch.nn.Module) -> Tensor | None:
    """Return the norm of all gradients together, None without gradients. With shards, every process must call this."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not is_sharded(trainer):
        return torch.nn.utils.get_total_norm(gradients) if gradients else None
    square = torch.zeros((), device=trainer.strategy.root_device)
    if gradients:
        square = torch.nn.utils.get_total_norm(gradients).square().to(square)
    return cast(Tensor, trainer.strategy.reduce(square, reduce_op="sum")).sqrt()
