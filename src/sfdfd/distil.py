"""Distil: ``python -m sfdfd.distil data=raytraced data.root=DIR``, weights from a teacher made of stacks alone."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import as_plain_dict, command, instantiate, seed_everything

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.training.distil import TeacherTask


def distil(config: DictConfig) -> None:
    """Run the teacher, then train on samples of its predictions and of a bank of scenes; keep what is in ``output_dir``."""
    from pathlib import Path

    from sfdfd import __version__
    from sfdfd.io.files import write_json
    from sfdfd.io.run_record import run_record
    from sfdfd.training import distil as steps
    from sfdfd.training.device import use_threads

    values, output_dir = as_plain_dict(config), Path(config.output_dir)
    use_threads(config.threads)
    seed_everything(config.seed)
    settings = steps.DistillationSettings.of(values)
    datamodule = instantiate(config.data)
    if config.teacher.stacks != 0:
        datamodule.check()
    tasks = steps.teacher_tasks(values, datamodule, __version__)
    plan = steps.training_plan(values, tasks)
    steps.check_same_plan(output_dir / steps.LAST, plan)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "run.json", {"config": values, "run": run_record()})
    files = _run_teacher(config, tasks, output_dir / "answers")
    network, optimizer = instantiate(config.network), instantiate(config.optimizer)
    steps.load_initial_weights(network, config.checkpoint, config.layers)
    path = steps.train_network(network, optimizer, files, settings, steps.weights_config(values, plan), output_dir)
    print(f"written to {path}; read it as checkpoint=PATH")


def _run_teacher(config: DictConfig, tasks: list[TeacherTask], folder: Path) -> list[Path]:
    """Run the teacher on every task without a file, on the workers of ``cluster``; return the files of all tasks."""
    from omegaconf import OmegaConf

    from sfdfd import distil as module  # by this name workers find it; this file may be __main__
    from sfdfd.runs.cluster import spreading

    folder.mkdir(exist_ok=True)
    folder = folder.resolve()
    missing = [task for task in tasks if not (folder / f"{task.name}.pt").is_file()]
    predict = functools.partial(module.predict_task, OmegaConf.to_yaml(config, resolve=True), folder)
    with spreading(config.cluster) as spread:
        for done, (index, result) in enumerate(spread(predict, missing), len(tasks) - len(missing) + 1):
            if isinstance(result, Exception):
                raise result
            print(f"answered {missing[index].name} ({done})", flush=True)
    return [folder / f"{task.name}.pt" for task in tasks]


def predict_task(config_yaml: str, folder: Path, task: TeacherTask) -> None:
    """Run the teacher on one stack, and write its prediction as a sample."""
    from sfdfd.inference.methods import RefinedMethod, SweepMethod, with_confidence
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.training.distil import task_stack, write_sample

    config, dataset = _parsed(config_yaml)
    stack, renderer = task_stack(task, dataset, instantiate(config.optics.renderer), config.seed)
    teacher = RefinedMethod(SweepMethod(renderer), Refiner(**as_plain_dict(config.teacher.refine)), renderer)
    prediction = with_confidence(teacher(stack), stack, renderer)
    write_sample(folder / f"{task.name}.pt", stack, prediction, renderer, int(config.network.get("planes", 0)))


@functools.lru_cache(maxsize=1)
def _parsed(config_yaml: str) -> tuple[DictConfig, Any]:
    """Return the configuration and the training split, built once in each process."""
    from omegaconf import OmegaConf

    from sfdfd.training.device import use_threads

    config: Any = OmegaConf.create(config_yaml)
    use_threads(config.threads)
    return config, instantiate(config.data).dataset("train")


main: Any = command("distil")(distil)

if __name__ == "__main__":
    main()
