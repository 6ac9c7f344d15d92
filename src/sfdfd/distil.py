"""Distil: ``python -m sfdfd.distil data=raytraced data.root=DIR``, weights from a teacher made of stacks alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, instantiate, plain, seed_everything

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.optics.render import Renderer
    from sfdfd.stack import FocalStack

LAST, PLAN = "last.ckpt", "distil"
"""The checkpoint of a training that may go on, and where its configuration says how it was made."""
NOT_OF_STACKS = {
    "batch_size", "workers", "worker_timeout_s", "on_error", "in_memory", "cache", "split", "constant_depth_m",
    "near_mask_m", "far_mask_m", "train_length", "val_length", "test_length", "limit",
}  # fmt: skip
"""Keys of ``data`` that say which stacks are loaded, and how, and not what is in them."""
ANY_CAMERA = dict.fromkeys(("focal_length_m", "f_number", "pixel_pitch_m"))
"""The weights hold for the camera that each stack carries."""


def distil(config: DictConfig) -> None:
    """Answer, train on stacks made of the answers; what a call finds in ``output_dir`` it keeps."""
    from pathlib import Path

    from sfdfd.errors import InputError, checked_number, checked_whole
    from sfdfd.io.files import write_json
    from sfdfd.io.run_record import run_record
    from sfdfd.training.device import use_threads

    output_dir = Path(config.output_dir)
    for key in ("size", "crop", "batch_size", "steps", "save_every", "memory"):
        checked_whole(config[key], key, 1)
    checked_whole(config.fresh, "fresh", 0, config.batch_size)
    checked_whole(config.workers, "workers", 0)
    for key, value in config.weights.items():
        checked_number(value, f"weights.{key}", least=0)
    if config.crop > config.size:
        raise InputError(f"expected crop <= size, got {config.crop} and {config.size} (crop)")
    if config.crop % 2:
        raise InputError(f"expected an even number, got {config.crop} (crop)")
    use_threads(config.threads)
    seed_everything(config.seed)
    questions = _questions(config)
    plan = _plan(config, questions)
    _check_continues(output_dir / LAST, plan)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "run.json", {"config": plain(config), "run": run_record()})
    answered = _answers(config, questions, output_dir / "answers")
    _trained(config, answered, output_dir, plan)


@dataclass(frozen=True)
class Question:
    """A stack that the teacher answers: its place in the training split, or among the procedural scenes. The name of its
    file ends in a digest of all that the answer depends on, so that an answer of another configuration is never taken
    for it."""

    name: str
    index: int
    procedural: bool


def _questions(config: DictConfig) -> list[Question]:
    """The training split, then the procedural scenes."""
    from sfdfd import __version__
    from sfdfd.datasets.protocols import IdentifiedDataset
    from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS

    datamodule = instantiate(config.data)
    datamodule.check()
    dataset, stacks = datamodule.dataset("train"), datamodule.make_dataset("train")
    identified = isinstance(stacks, IdentifiedDataset)
    same = {"sfdfd": __version__, "teacher": plain(config.teacher.refine), "planes": _planes(config)}
    data = {key: value for key, value in plain(config.data).items() if key not in NOT_OF_STACKS}
    own = {**same, "optics": plain(config.optics.renderer), "data": data}
    procedural = {**same, "optics": PHOTOGRAPH_OPTICS, "seed": config.seed}
    return [
        Question(
            _named("stack", index, {**own, "stack": stacks.identity(index) if identified else index}), index, False
        )
        for index in range(len(dataset))
    ] + [Question(_named("procedural", index, procedural), index, True) for index in range(config.teacher.procedural)]


def _named(kind: str, index: int, depends_on: dict[str, Any]) -> str:
    import hashlib
    import json

    text = json.dumps(depends_on, sort_keys=True, default=str)
    return f"{kind}{index:05d}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _plan(config: DictConfig, questions: list[Question]) -> dict[str, Any]:
    """What a training that goes on must share with the one that was interrupted."""
    import hashlib

    keys = ("network", "optimizer", "weights", "fresh", "memory", "size", "crop", "batch_size", "ema_decay", "seed")
    answers = "\n".join(question.name for question in questions)
    return {
        **{key: plain(config)[key] for key in keys},
        "optics": _optics_of(config),
        "answers": hashlib.sha256(answers.encode()).hexdigest(),
    }


def _check_continues(last: Path, plan: dict[str, Any]) -> None:
    """Refuse to go on with a training of another configuration, before anything is written.

    Raises:
        InputError: it differs from ``plan``; names the first key.
    """
    from sfdfd.errors import InputError
    from sfdfd.training.checkpoints import load_checkpoint
    from sfdfd.training.module import CONFIG_KEY

    if not last.is_file():
        return
    config = load_checkpoint(last)[CONFIG_KEY]
    known = config.get(PLAN, {key: config[key] for key in ("network", "optics") if key in config})
    for key, value in plan.items():
        if key not in known or known[key] == value:
            continue
        what = f"with {key}={known[key]}, not {value}"
        if key == "answers":
            what = "from other answers (teacher, optics, data or release differ)"
        raise InputError(
            f"{last}: this training was made {what}; give the same, or another output_dir (answers/ may be copied there: "
            "those that still fit are used)"
        )


def _asked(question: Question, config: DictConfig, dataset: Any) -> tuple[FocalStack, Renderer]:
    """The stack, and the optics in which the teacher thinks of it: those of the config, or a photograph's."""
    from sfdfd.optics.render import DefocusRenderer
    from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS

    if question.procedural:
        return _procedural(config.seed, question.index), DefocusRenderer(**PHOTOGRAPH_OPTICS)
    return dataset[question.index], instantiate(config.optics.renderer)


def _procedural(seed: int, index: int) -> FocalStack:
    """A procedural scene, photographed by a random camera."""
    import numpy as np

    from sfdfd.optics.camera import Camera
    from sfdfd.scenes.example_stack import example_stack
    from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS

    g = np.random.default_rng([seed, index])
    near_m = float(np.exp(g.uniform(np.log(0.2), 0)))
    far_m = near_m * float(np.exp(g.uniform(np.log(4), np.log(16))))
    f, k = 0.08 * near_m, float(g.uniform(5, 12)) / (1 / near_m - 1 / far_m)
    camera = Camera(f, 2.0, f * f / (4 * k))
    focus_m = 1 / np.linspace(1 / (1.15 * near_m), 1 / (0.85 * far_m), 5)
    return example_stack(index, 240, 320, focus_m.tolist(), camera, near_m, far_m, seed + 77, **PHOTOGRAPH_OPTICS)


def _planes(config: DictConfig) -> int:
    """Of the sweep that the network is given; 0 for one that takes none."""
    return int(config.network.get("planes", 0))


def _answers(config: DictConfig, questions: list[Question], folder: Path) -> list[Path]:
    """A file for each stack: what the teacher answered, and that stack as a lesson."""
    from functools import partial

    from omegaconf import OmegaConf

    from sfdfd import distil as module  # as workers find it: this file may be __main__
    from sfdfd.runs.cluster import spreading

    folder.mkdir(exist_ok=True)
    folder = folder.resolve()
    missing = [one for one in questions if not (folder / f"{one.name}.pt").is_file()]
    told = OmegaConf.to_yaml(config, resolve=True)
    with spreading(config.cluster) as spread:
        for number, (place, result) in enumerate(spread(partial(module.answered, told, folder), missing)):
            if isinstance(result, Exception):
                raise result
            print(f"answered {missing[place].name} ({len(questions) - len(missing) + number + 1})", flush=True)
    return [folder / f"{one.name}.pt" for one in questions]


@functools.lru_cache(maxsize=1)
def _told(text: str) -> tuple[DictConfig, Any]:
    """The configuration and the training split, once a process."""
    from omegaconf import OmegaConf

    from sfdfd.training.device import use_threads

    config: Any = OmegaConf.create(text)
    use_threads(config.threads)
    return config, instantiate(config.data).dataset("train")


def answered(told: str, folder: Path, question: Question) -> None:
    """What the teacher answers to one stack, into its file."""
    import torch

    from sfdfd.inference.methods import RefinedMethod, SweepMethod, with_confidence
    from sfdfd.io.files import atomic_write
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.training.distillation_samples import pack, sample_from_stack, teacher_prediction

    config, dataset = _told(told)
    asked, renderer = _asked(question, config, dataset)
    stack = asked.without_truth()
    teacher = RefinedMethod(SweepMethod(renderer), Refiner(**plain(config.teacher.refine)), renderer)
    answer = teacher_prediction(with_confidence(teacher(stack), stack, renderer), stack)
    with torch.no_grad(), atomic_write(folder / f"{question.name}.pt") as part:
        torch.save(pack(sample_from_stack(stack, answer, renderer, _planes(config))), part)


def _optics_of(config: DictConfig) -> dict[str, Any]:
    """What the weights say of their optics. A network that is told the blur learns no optics and no camera: the defaults of
    the published protocols, which photographs and data sets that say their own come before."""
    from sfdfd.training.checkpoints import DEFAULT_OPTICS

    if not _planes(config):
        return {"renderer": plain(config.optics.renderer), "camera": plain(config.optics.camera)}
    renderer = {"_target_": "sfdfd.optics.render.DefocusRenderer", **DEFAULT_OPTICS}
    return {"renderer": renderer, "camera": ANY_CAMERA}


def _trained(config: DictConfig, answered: list[Path], output_dir: Path, plan: dict[str, Any]) -> None:
    """Train on the lessons, from where an earlier call in the same folder stopped."""
    import logging
    import warnings

    import lightning
    import torch
    from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
    from torch.utils.data import DataLoader

    from sfdfd.training.checkpoints import checked_loop_position, load_checkpoint, save_weights
    from sfdfd.training.distillation import Distillation
    from sfdfd.training.distillation_samples import BatchPlans, ReplayBuffer, StoredSamples, collate_samples, unpack
    from sfdfd.training.loggers import ResumableCSVLogger
    from sfdfd.training.resuming import WholeCheckpoints

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for known in (
        "does not have many workers",
        "smaller than the logging interval",
        "exists and is not empty",
        "dataloader is not resumable",
    ):  # the lessons are: they begin where they stopped
        warnings.filterwarnings("ignore", message=f".*{known}.*")
    warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*")  # Lightning 2.6 on torch 2.13
    run_config = {
        "network": plain(config.network),
        "optics": _optics_of(config),
        "loss": {"_target_": "sfdfd.measures.losses.SelfSupervisedLoss"},
        "data": {},
        PLAN: plan,
    }
    last = output_dir / LAST
    step = checked_loop_position(load_checkpoint(last), str(last)).step if last.is_file() else 0
    network, optimizer = instantiate(config.network), instantiate(config.optimizer)
    saver = ModelCheckpoint(
        output_dir, filename="last", every_n_train_steps=config.save_every, enable_version_counter=False
    )
    logger = ResumableCSVLogger(save_dir=str(output_dir), name=None, version="csv")
    if step:
        logger.continue_from(step)
    trainer = lightning.Trainer(
        default_root_dir=output_dir, accelerator=config.accelerator, max_steps=config.steps, max_epochs=1,
        precision=config.precision,
        gradient_clip_val=1.0, callbacks=[saver, EMAWeightAveraging(decay=config.ema_decay)], logger=logger,
        enable_model_summary=False, plugins=[WholeCheckpoints()], benchmark=True,
    )  # fmt: skip
    practice, device = None, trainer.strategy.root_device
    if config.fresh:
        answers = [unpack(torch.load(path, weights_only=True)).answer for path in answered]
        sizes = (config.fresh, config.batch_size, config.memory, config.size, config.seed)
        exercises = BatchPlans(answers, config.steps, step, *sizes, _planes(config), device)
        practice = ReplayBuffer(exercises, config.crop)
        context = "spawn" if config.workers and device.type != "cpu" else None  # CUDA outlives no fork
        loader = DataLoader(exercises, None, num_workers=config.workers, multiprocessing_context=context)
    else:
        length = config.steps * config.batch_size
        lessons = StoredSamples(answered, length, config.crop, config.seed, step * config.batch_size)
        loader = DataLoader(lessons, config.batch_size, num_workers=config.workers, collate_fn=collate_samples)
    module = Distillation(network, optimizer, plain(config.weights), practice, run_config=run_config)
    trainer.fit(module, loader, ckpt_path=last if last.is_file() else None, weights_only=True)
    save_weights(output_dir / "weights.ckpt", module.state_dict(), run_config)
    print(f"written to {output_dir / 'weights.ckpt'}; read it as checkpoint=PATH")


main: Any = command("distil")(distil)

if __name__ == "__main__":
    main()
