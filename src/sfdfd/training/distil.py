"""Distillation step by step: the teacher's tasks, the samples made of its predictions, the training.

``sfdfd.distil`` composes the config and runs the teacher, which belongs to a package above this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.datasets.folders import read_manifest, unfinished_options
from sfdfd.datasets.protocols import IdentifiedDataset
from sfdfd.datasets.scene_bank import SceneBank
from sfdfd.errors import InputError, checked_choice, checked_int, checked_number
from sfdfd.io.files import atomic_write
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.scenes.example_stack import example_stack
from sfdfd.scenes.layered_scene import LayeredScenes
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training import distillation_samples as samples
from sfdfd.training.checkpoints import (
    CONFIG_KEY,
    DEFAULT_OPTICS,
    PHOTOGRAPH_OPTICS,
    load_checkpoint,
    loop_position_or_error,
    save_weights,
)
from sfdfd.training.distillation import Distillation
from sfdfd.training.distillation_scenes import SceneSource
from sfdfd.training.loggers import ResumableCSVLogger
from sfdfd.training.resuming import AtomicCheckpointIO
from sfdfd.training.run import quiet_lightning

__all__ = [
    "LAST", "DistillationSettings", "TeacherTask", "check_same_plan", "load_initial_weights", "task_stack", "teacher_tasks",
    "train_network", "training_plan", "weights_config", "write_sample",
]  # fmt: skip

LAST, PLAN = "last.ckpt", "distil"
"""The checkpoint from which a training continues, and the key under which its config keeps the plan."""
LOADING_KEYS = {
    "batch_size", "workers", "worker_timeout_s", "on_error", "in_memory", "cache", "split", "constant_depth_m",
    "near_mask_m", "far_mask_m", "train_length", "val_length", "test_length", "limit",
}  # fmt: skip
"""Keys of ``data`` on which the content of a stack does not depend."""
PLAN_KEYS = (
    "network", "optimizer", "weights", "fresh", "memory", "size", "crop", "batch_size", "ema_decay", "seed", "bank_share",
    "checkpoint", "layers", "warmup_steps",
)  # fmt: skip
NEW_LAYERS = ("blend.",)
"""Layers that change nothing before they are trained; initial weights may lack them."""
ANY_CAMERA = dict.fromkeys(("focal_length_m", "f_number", "pixel_pitch_m"))
"""The weights hold for the camera that each stack carries."""


@dataclass(frozen=True)
class DistillationSettings:
    """Settings of the training, explained in ``conf/distil.yaml``; ``planes`` is 0 for a network without a sweep.

    Raises:
        InputError: a value is wrong; the message names its key.
    """

    size: int
    crop: int
    batch_size: int
    micro_batch_size: int
    steps: int
    save_every: int
    memory: int
    fresh: int
    workers: int
    accelerator: str
    precision: Any
    weights: dict[str, float]
    ema_decay: float
    planes: int
    seed: int
    bank: str | None
    bank_share: float
    layers: str
    warmup_steps: int

    def __post_init__(self) -> None:
        for key in ("size", "crop", "batch_size", "micro_batch_size", "steps", "save_every", "memory"):
            checked_int(getattr(self, key), key, 1)
        checked_int(self.fresh, "fresh", 0, self.batch_size)
        checked_int(self.workers, "workers", 0)
        checked_int(self.warmup_steps, "warmup_steps", 1)
        for key, value in self.weights.items():
            checked_number(value, f"weights.{key}", least=0)
        if self.crop > self.size:
            raise InputError(f"expected crop <= size, got {self.crop} and {self.size} (crop)")
        if self.batch_size % self.micro_batch_size:
            raise InputError(
                f"expected a divisor of batch_size={self.batch_size}, got {self.micro_batch_size} (micro_batch_size)"
            )
        checked_number(self.bank_share, "bank_share", least=0, most=1)
        checked_choice(self.layers, "layers", ("all", "new"))
        if self.bank is not None and not self.fresh:
            raise InputError("a bank makes new stacks in every step: expected fresh of 1 or more (fresh)")
        if self.crop % 2:
            raise InputError(f"expected an even number, got {self.crop} (crop)")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DistillationSettings:
        """Return the settings that a resolved config has."""
        values = {**config, "planes": _planes(config)}
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def _planes(config: Mapping[str, Any]) -> int:
    return int(config["network"].get("planes", 0))


@dataclass(frozen=True)
class TeacherTask:
    """A stack that the teacher predicts.

    Attributes:
        name: of its file; ends in a digest of everything on which the prediction depends, so that a prediction of another
            configuration is never used.
        index: of the stack in the training split, or of the procedural scene.
        procedural: whether it is a procedural scene.
    """

    name: str
    index: int
    procedural: bool


def teacher_tasks(config: Mapping[str, Any], datamodule: FocalStackDataModule, version: str) -> list[TeacherTask]:
    """Return a task for each stack of the training split, then for each procedural scene, of this version of the package."""
    if config["teacher"]["stacks"] == 0:
        return _procedural_tasks(config, version)
    dataset, stacks = datamodule.dataset("train"), datamodule.make_dataset("train")
    common = {"sfdfd": version, "teacher": config["teacher"]["refine"], "planes": _planes(config)}
    data = {key: value for key, value in config["data"].items() if key not in LOADING_KEYS}
    tasks = []
    for index in range(min(len(dataset), config["teacher"]["stacks"] or len(dataset))):
        identity = stacks.identity(index) if isinstance(stacks, IdentifiedDataset) else index
        depends_on = {**common, "optics": config["optics"]["renderer"], "data": data, "stack": identity}
        tasks.append(TeacherTask(_task_name("stack", index, depends_on), index, False))
    return tasks + _procedural_tasks(config, version)


def _procedural_tasks(config: Mapping[str, Any], version: str) -> list[TeacherTask]:
    depends_on = {
        "sfdfd": version, "teacher": config["teacher"]["refine"], "planes": _planes(config), "optics": PHOTOGRAPH_OPTICS,
        "seed": config["seed"],
    }  # fmt: skip
    indices = range(config["teacher"]["procedural"])
    return [TeacherTask(_task_name("procedural", index, depends_on), index, True) for index in indices]


def _task_name(kind: str, index: int, depends_on: dict[str, Any]) -> str:
    text = json.dumps(depends_on, sort_keys=True, default=str)
    return f"{kind}{index:05d}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def training_plan(config: Mapping[str, Any], tasks: Sequence[TeacherTask]) -> dict[str, Any]:
    """Return what a training that continues must share with the interrupted one."""
    predictions = "\n".join(task.name for task in tasks)
    return {
        **{key: config[key] for key in PLAN_KEYS},
        "optics": _weights_optics(config),
        "answers": hashlib.sha256(predictions.encode()).hexdigest(),
        "bank": _bank_options(config["bank"]),
    }


def _bank_options(bank: str | None) -> dict[str, Any] | None:
    """Return the options of a bank of scenes, but for their number: a bank may grow between two calls."""
    if bank is None:
        return None
    options = (read_manifest(Path(bank)) or {}).get("options") or unfinished_options(Path(bank)) or {}
    return {key: value for key, value in options.items() if not key.endswith("_length")}


def check_same_plan(last: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to continue a training of another configuration, before anything is written.

    Raises:
        InputError: the plan of the checkpoint differs; names the first key.
    """
    if not last.is_file():
        return
    config = load_checkpoint(last)[CONFIG_KEY]
    earlier = config.get(PLAN, {key: config[key] for key in ("network", "optics") if key in config})
    for key, value in plan.items():
        if key not in earlier or earlier[key] == value:
            continue
        difference = f"with {key}={earlier[key]}, not {value}"
        if key == "answers":
            difference = "from other answers (teacher, optics, data or release differ)"
        raise InputError(
            f"{last}: this training was made {difference}; give the same, or another output_dir (answers/ may be copied "
            "there: those that still fit are used)"
        )


def task_stack(task: TeacherTask, dataset: Dataset, renderer: Renderer, seed: int) -> tuple[FocalStack, Renderer]:
    """Return a task's stack without truth, and the optics that the teacher assumes for it.

    ``dataset`` is the training split, blurred by ``renderer``. Procedural stacks have a seed and the optics of photographs.
    """
    if task.procedural:
        return _procedural_stack(seed, task.index).without_truth(), DefocusRenderer(**PHOTOGRAPH_OPTICS)
    return dataset[task.index].without_truth(), renderer


def _procedural_stack(seed: int, index: int) -> FocalStack:
    """Render a procedural scene with a random camera."""
    g = np.random.default_rng([seed, index])
    near_m = float(np.exp(g.uniform(np.log(0.2), 0)))
    far_m = near_m * float(np.exp(g.uniform(np.log(4), np.log(16))))
    focal_length_m, scale_px_m = 0.08 * near_m, float(g.uniform(5, 12)) / (1 / near_m - 1 / far_m)
    camera = Camera(focal_length_m, 2.0, focal_length_m * focal_length_m / (4 * scale_px_m))
    focus_m = 1 / np.linspace(1 / (1.15 * near_m), 1 / (0.85 * far_m), 5)
    return example_stack(index, 240, 320, focus_m.tolist(), camera, near_m, far_m, seed + 77, **PHOTOGRAPH_OPTICS)


def write_sample(path: Path, stack: FocalStack, prediction: Prediction, renderer: Renderer, planes: int) -> None:
    """Write a stack with the teacher's prediction as a packed sample."""
    target = samples.teacher_prediction(prediction, stack)
    with torch.no_grad(), atomic_write(path) as part:
        torch.save(samples.pack(samples.sample_from_stack(stack, target, renderer, planes)), part)


def weights_config(config: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that the weights carry, from which every command rebuilds the network."""
    return {
        "network": config["network"],
        "optics": _weights_optics(config),
        "loss": {"_target_": "sfdfd.measures.losses.SelfSupervisedLoss"},
        "data": {},
        PLAN: dict(plan),
    }


def _weights_optics(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optics that the weights carry.

    A network with a sweep is given the blur and learns neither optics nor camera. It carries the published protocols'
    defaults, which the optics of photographs and of data sets override.
    """
    if not _planes(config):
        return {"renderer": config["optics"]["renderer"], "camera": config["optics"]["camera"]}
    renderer = {"_target_": "sfdfd.optics.render.DefocusRenderer", **DEFAULT_OPTICS}
    return {"renderer": renderer, "camera": ANY_CAMERA}


def load_initial_weights(network: torch.nn.Module, checkpoint: str | None, layers: str = "all") -> None:
    """Start from the weights of a checkpoint; layers that change nothing yet may be missing there.

    With ``layers="new"`` only those layers will be trained, in less than half of the time.

    Raises:
        InputError: the file is no checkpoint of ours, or of another network; or no layer is left to train.
    """
    if layers == "new":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith(NEW_LAYERS))
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise InputError(
                "layers=new: the network has no layers that initial weights may lack; give network.learned_blend=true"
            )
    if checkpoint is None:
        return
    weights = {
        name.removeprefix("network."): value for name, value in load_checkpoint(checkpoint)["state_dict"].items()
    }
    expected = network.state_dict()
    differing = [name for name, value in weights.items() if name not in expected or expected[name].shape != value.shape]
    missing = [name for name in expected if name not in weights and not name.startswith(NEW_LAYERS)]
    if differing or missing:
        raise InputError(f"checkpoint={checkpoint}: these weights are of another network ({(differing + missing)[0]})")
    network.load_state_dict(weights, strict=False)


def train_network(
    network: torch.nn.Module,
    optimizer: Any,
    files: Sequence[Path],
    settings: DistillationSettings,
    run_config: dict[str, Any],
    output_dir: Path,
) -> Path:
    """Train on the teacher's samples, from where an earlier call in the same folder stopped; return the file of the weights.

    ``optimizer`` is called with the parameters; ``run_config`` is that of :func:`weights_config`.
    """
    quiet_lightning("dataloader is not resumable")  # ours continues where it stopped
    last = output_dir / LAST
    step = loop_position_or_error(load_checkpoint(last), str(last)).step if last.is_file() else 0
    trainer = _trainer(settings, step, output_dir)
    replay = None
    if settings.fresh:
        loader, replay = _random_samples(files, settings, step, trainer.strategy.root_device)
    else:
        loader = _stored_samples(files, settings, step)
    module = Distillation(network, optimizer, settings.weights, replay, settings.warmup_steps, run_config=run_config)
    trainer.fit(module, loader, ckpt_path=last if last.is_file() else None, weights_only=True)
    save_weights(output_dir / "weights.ckpt", module.state_dict(), run_config)
    return output_dir / "weights.ckpt"


def _trainer(settings: DistillationSettings, step: int, output_dir: Path) -> lightning.Trainer:
    saver = ModelCheckpoint(
        output_dir, filename="last", every_n_train_steps=settings.save_every, enable_version_counter=False
    )
    logger = ResumableCSVLogger(save_dir=str(output_dir), name=None, version="csv")
    if step:
        logger.continue_from(step)
    return lightning.Trainer(
        default_root_dir=output_dir, accelerator=settings.accelerator, max_steps=settings.steps, max_epochs=1,
        precision=settings.precision, gradient_clip_val=1.0,
        accumulate_grad_batches=settings.batch_size // settings.micro_batch_size,
        callbacks=[saver, EMAWeightAveraging(decay=settings.ema_decay)], logger=logger, enable_model_summary=False,
        plugins=[AtomicCheckpointIO()], benchmark=True,
    )  # fmt: skip


def _random_samples(
    files: Sequence[Path], settings: DistillationSettings, step: int, device: torch.device
) -> tuple[DataLoader, samples.ReplayBuffer]:
    """Return the loader of batch plans, and the buffer that makes their batches."""
    predictions = [samples.unpack(torch.load(path, weights_only=True)).target for path in files]
    bank: LayeredScenes = () if settings.bank is None else SceneBank(settings.bank)
    if not predictions and not len(bank):
        raise InputError("expected scenes: a teacher's (teacher.stacks, teacher.procedural), or a bank's (bank=DIR)")
    source = SceneSource(predictions, bank, settings.bank_share)
    plans = samples.BatchPlans(
        source, settings.steps, step, settings.fresh, settings.batch_size, settings.memory, settings.size,
        settings.seed, settings.planes, device, settings.micro_batch_size,
    )  # fmt: skip
    context = "spawn" if settings.workers and device.type != "cpu" else None  # CUDA does not survive a fork
    loader = DataLoader(plans, None, num_workers=settings.workers, multiprocessing_context=context)
    return loader, samples.ReplayBuffer(plans, settings.crop)


def _stored_samples(files: Sequence[Path], settings: DistillationSettings, step: int) -> DataLoader:
    length = settings.steps * settings.batch_size
    dataset = samples.StoredSamples(files, length, settings.crop, settings.seed, step * settings.batch_size)
    return DataLoader(
        dataset, settings.micro_batch_size, num_workers=settings.workers, collate_fn=samples.collate_samples
    )
