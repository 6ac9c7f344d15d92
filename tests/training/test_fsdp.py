"""Sharded weights: every process makes every forward, and results equal those of unsharded weights."""

import csv
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from sfdfd.datasets.synthetic import ProceduralDataModule
from sfdfd.errors import InputError
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.stack import FocalStack
from sfdfd.training.callbacks import PictureLogger
from sfdfd.training.device import checked_precision
from sfdfd.training.fsdp import ShardedPrecision, ShardedStrategy, check_strategy
from tests.commands import SMALL, process
from tests.training.test_module import module, stacks


def trainer_of(rank):
    """What a picture needs of a trainer, as process ``rank`` has it."""
    trainer = Mock(spec=lightning.Trainer, global_step=3, is_global_zero=rank == 0, loggers=[], strategy=None)
    trainer.precision_plugin = lightning.pytorch.plugins.precision.Precision()
    trainer.datamodule = SimpleNamespace(dataset=lambda split: stacks(2))
    return trainer


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_predicts_and_the_first_writes_pictures(tmp_path, monkeypatch, rank):
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    model, modes, finished = module(), [], []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda stack: (modes.append(model.training), forward(stack))[1])
    pictures = PictureLogger(str(tmp_path / "pictures"), finish=lambda one, *_: (finished.append(one), one)[1])
    model.train()
    pictures.write(trainer_of(rank), model)
    assert modes == [False, False] and model.training and pictures.drawn_step == 3
    assert len(list(tmp_path.glob("pictures/*.png"))) == len(finished) == (2 if rank == 0 else 0)


def test_sharded_predictions_use_the_strategys_model(tmp_path):
    """The module's own forward would see this process's part of the weights alone."""
    model, called = module(), []

    def whole(stack):
        called.append(model.training)
        return model(stack)

    trainer = trainer_of(0)
    trainer.strategy = ShardedStrategy()
    trainer.strategy.model = whole
    PictureLogger(str(tmp_path), samples=1).write(trainer, model)
    assert called == [False]


@pytest.mark.parametrize("length", [1, 3, 4])
def test_processes_with_shards_validate_equally_often(length):
    """A forward that one process makes more often than the others never ends."""
    data = ProceduralDataModule(
        train_length=2, val_length=length, test_length=1, height=32, width=40,
        renderer=DefocusRenderer(sigma_scale=0.5), camera=Camera(0.05, 8.0, 1.2e-5), focus_distances_m=[1, 2], near_m=0.5,
        far_m=10.0,
    )  # fmt: skip
    seen = []
    for rank in (0, 1):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=ShardedStrategy())
        seen.append([batch.name[0] for batch in data.val_dataloader()])
    assert len(seen[0]) == len(seen[1]) and len({*seen[0], *seen[1]}) == length


def test_precision_with_shards_leaves_stacks_in_float32():
    strategy = ShardedStrategy(accelerator=None)
    strategy.precision_plugin = lightning.pytorch.plugins.precision.fsdp.FSDPPrecision("bf16-mixed")
    plugin, batch = strategy.precision_plugin, FocalStack.collate(stacks(1))
    assert isinstance(plugin, ShardedPrecision) and plugin.precision == "bf16-mixed"
    assert plugin.convert_input(batch) is batch and plugin.convert_output(batch) is batch
    config = plugin.mixed_precision_config
    assert config.param_dtype == torch.bfloat16 and config.buffer_dtype == torch.float32
    assert not config.cast_forward_inputs and not config.cast_root_forward_inputs


def test_strategies_that_cannot_train_are_refused():
    with pytest.raises(InputError, match=r"trainer\.strategy=fsdp: .*give trainer=fsdp instead"):
        check_strategy("fsdp", True)
    with pytest.raises(InputError, match=r"give trainer=fsdp trainer\.strategy\.cpu_offload=true"):
        check_strategy("fsdp_cpu_offload", True)
    with pytest.raises(InputError, match=r"callbacks\.checkpoint"):
        check_strategy(FSDPStrategy(), False)
    for strategy in ("auto", "ddp", "ddp_spawn"):
        check_strategy(strategy, False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("bf16-true", "use trainer.precision=bf16-mixed"),
        ("16-true", "use trainer.precision=16-mixed"),
        ("64-true", "expected 32-true, bf16-mixed or 16-mixed, got '64-true'"),
        (None, "got None"),
    ],
)
def test_unsupported_precisions_name_a_supported_one(given, words):
    with pytest.raises(InputError, match=r"trainer\.precision") as error:
        checked_precision(given)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_unsupported_precisions_are_refused_before_the_first_step(precision):
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    load = partial(DataLoader, stacks(2), batch_size=2, collate_fn=FocalStack.collate)
    with pytest.raises(InputError, match="-mixed for half-precision convolutions"):
        trainer.fit(module(), load(), load())


@pytest.mark.slow
def test_training_with_shards_equals_training_without(tmp_path):
    """Weights, gradient norms, validation of an odd number of stacks and pictures; then both go on."""
    repository = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), repository)))
    common = [
        "experiment=procedural", "trainer.max_steps=4", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1",
        "callbacks.pictures.every_n_epochs=1", *SMALL, "data.val_length=3", "trainer.gradient_clip_val=0.02",
    ]  # fmt: skip
    sharded = [
        "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2",
        "trainer.strategy._target_=tests.training.sharded.ShardedOnCPUs",
    ]  # fmt: skip
    runs = {"whole": ["trainer=ddp_cpu"], "sharded": sharded}
    for name, options in runs.items():
        process("train", *common, *options, f"output_dir={name}", cwd=tmp_path, env={"PYTHONPATH": path})
    weights, rows = [], []
    for name in runs:
        content = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append(content["state_dict"])
        with (tmp_path / name / "csv" / "metrics.csv").open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
        assert len(list((tmp_path / name / "pictures").glob("step_*.png"))) == 2
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-4, atol=1e-7)
    for key in ("gradient/norm", "train/total", "val/reconstruction", "truth/depth_abs_rel"):
        whole, parts = ([float(row[key]) for row in found if row.get(key)] for found in rows)
        assert whole
        np.testing.assert_allclose(parts, whole, rtol=1e-4)
    again = ["trainer.max_steps=6", "resume=last", "trainer.precision=bf16-mixed"]
    done = process("train", *common, *sharded, *again, "output_dir=sharded", cwd=tmp_path, env={"PYTHONPATH": path})
    assert "after 6 steps" in done.stdout
