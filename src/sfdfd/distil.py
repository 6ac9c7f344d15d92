"""Distil: ``python -m sfdfd.distil data=raytraced data.root=DIR``, weights from a teacher made of stacks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, instantiate, plain, seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.optics.render import Renderer
    from sfdfd.stack import FocalStack

ANY_CAMERA = dict.fromkeys(("focal_length_m", "f_number", "pixel_pitch_m"))
"""The weights hold for the camera that each stack carries."""


def distil(config: DictConfig) -> None:
    """Answer, make stacks of the answers, train; what a call finds in ``output_dir`` it keeps."""
    from pathlib import Path

    from sfdfd.data.files import write_json
    from sfdfd.errors import InputError, checked_number, checked_whole
    from sfdfd.runs.record import run_record
    from sfdfd.training.device import use_threads

    output_dir = Path(config.output_dir)
    checked_whole(config.stacks, "stacks", 0)
    for key in ("size", "crop", "batch_size", "steps", "save_every"):
        checked_whole(config[key], key, 1)
    checked_number(config.own_share, "own_share", least=0, most=1)
    if config.crop > config.size:
        raise InputError(f"expected crop <= size, got {config.crop} and {config.size} (crop)")
    use_threads(config.threads)
    seed_everything(config.seed)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "run.json", {"config": plain(config), "run": run_record()})
    answered = _answers(config, output_dir / "answers")
    own, made = _lessons(config, answered, output_dir / "lessons")
    _trained(config, own, made, output_dir)


def _stacks(config: DictConfig) -> Iterator[tuple[str, Callable[[], FocalStack], Renderer]]:
    """What the teacher answers, by name, made when it is asked for, and the optics in which it thinks of them: the training
    split in those of the config, then procedural scenes as photographs."""
    from functools import partial

    from sfdfd.optics.render import DefocusRenderer
    from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS

    datamodule = instantiate(config.data)
    datamodule.check()
    dataset, renderer = datamodule.dataset("train"), instantiate(config.optics.renderer)
    for index in range(len(dataset)):
        yield f"stack{index:05d}", partial(dataset.__getitem__, index), renderer
    for index in range(config.teacher.procedural):
        yield f"procedural{index:05d}", partial(_procedural, config.seed, index), DefocusRenderer(**PHOTOGRAPH_OPTICS)


def _procedural(seed: int, index: int) -> FocalStack:
    """A procedural scene, photographed by a random camera."""
    import numpy as np

    from sfdfd.data.example import example_stack
    from sfdfd.optics.camera import Camera
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


def _answers(config: DictConfig, folder: Path) -> list[Path]:
    """A file for each stack: what the teacher answered, and that stack as a lesson."""
    import torch

    from sfdfd.data.files import written_aside
    from sfdfd.inference.methods import RefinedMethod, SweepMethod, with_confidence
    from sfdfd.inference.refine import Refiner
    from sfdfd.training.selfmade import answer_of, own_lesson, packed

    folder.mkdir(exist_ok=True)
    refiner, found = Refiner(**plain(config.teacher.refine)), []
    for name, make, renderer in _stacks(config):
        path = folder / f"{name}.pt"
        found.append(path)
        if path.is_file():
            continue
        stack = make().without_truth()
        teacher = RefinedMethod(SweepMethod(renderer), refiner, renderer)
        answer = answer_of(with_confidence(teacher(stack), stack, renderer), stack)
        with torch.no_grad(), written_aside(path) as part:
            torch.save(packed(own_lesson(stack, answer, renderer, _planes(config))), part)
        print(f"answered {name} ({len(found)})", flush=True)
    return found


def _lessons(config: DictConfig, answered: list[Path], folder: Path) -> tuple[list[Path], list[Path]]:
    """The teacher's own stacks, and self-made ones: answer ``i mod n`` with the random camera of (seed, i)."""
    import torch

    from sfdfd.data.files import written_aside
    from sfdfd.training.selfmade import packed, random_lesson, unpacked

    folder.mkdir(exist_ok=True)
    made = [folder / f"{index:06d}.pt" for index in range(config.stacks)]
    for index, path in enumerate(made):
        if path.is_file():
            continue
        answer = unpacked(torch.load(answered[index % len(answered)], weights_only=True)).answer
        lesson = random_lesson(answer, (config.seed, index), config.size, _planes(config))
        with written_aside(path) as part:
            torch.save(packed(lesson), part)
        if index % 50 == 0:
            print(f"made {index} of {len(made)} stacks", flush=True)
    return answered, made


def _optics_of(config: DictConfig) -> dict[str, Any]:
    """What the weights say of their optics: any camera, and photographs, where the network needs no camera of its own."""
    from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS

    if not _planes(config):
        return {"renderer": plain(config.optics.renderer), "camera": plain(config.optics.camera)}
    renderer = {"_target_": "sfdfd.optics.render.DefocusRenderer", **PHOTOGRAPH_OPTICS}
    return {"renderer": renderer, "camera": ANY_CAMERA}


def _trained(config: DictConfig, own: list[Path], made: list[Path], output_dir: Path) -> None:
    """Train on the lessons, from where an earlier call in the same folder stopped."""
    import logging
    import warnings

    import lightning
    from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
    from torch.utils.data import DataLoader

    from sfdfd.training.checkpoints import save_weights
    from sfdfd.training.distillation import Distillation
    from sfdfd.training.loggers import ContinuedCSVLogger
    from sfdfd.training.selfmade import LessonsOf, together

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for known in ("does not have many workers", "smaller than the logging interval", "exists and is not empty"):
        warnings.filterwarnings("ignore", message=f".*{known}.*")
    warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*")  # Lightning 2.6 on torch 2.13
    run_config = {
        "network": plain(config.network),
        "optics": _optics_of(config),
        "loss": {"_target_": "sfdfd.measures.losses.SelfSupervisedLoss"},
        "data": {},
    }
    network, optimizer = instantiate(config.network), instantiate(config.optimizer)
    module = Distillation(network, optimizer, plain(config.weights), run_config=run_config)
    every = max(1, round(len(made) * config.own_share / max(1e-6, 1 - config.own_share) / len(own)))
    length = config.steps * config.batch_size
    lessons = LessonsOf([*made, *own * every], length, config.crop, config.seed)
    loader = DataLoader(lessons, config.batch_size, collate_fn=together)
    saver = ModelCheckpoint(
        output_dir, filename="last", every_n_train_steps=config.save_every, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        default_root_dir=output_dir, accelerator="cpu", max_steps=config.steps, max_epochs=1, precision=config.precision,
        gradient_clip_val=1.0, callbacks=[saver, EMAWeightAveraging(decay=config.ema_decay)],
        logger=ContinuedCSVLogger(save_dir=str(output_dir), name=None, version="csv"), enable_model_summary=False,
    )  # fmt: skip
    last = output_dir / "last.ckpt"
    trainer.fit(module, loader, ckpt_path=last if last.is_file() else None, weights_only=True)
    save_weights(output_dir / "weights.ckpt", module.state_dict(), run_config)
    print(f"written to {output_dir / 'weights.ckpt'}; read it as checkpoint=PATH")


main: Any = command("distil")(distil)

if __name__ == "__main__":
    main()
