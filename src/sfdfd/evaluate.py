"""Evaluate: ``python -m sfdfd.evaluate checkpoint=PATH data=nyu data.root=DIR``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.io.run_record import run_record
from sfdfd.runs.command import (
    as_plain_dict,
    command,
    instantiate,
    overridden_optics,
    print_optics_differences,
    seed_everything,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sfdfd.evaluation.benchmark import Benchmark
    from sfdfd.evaluation.evaluator import Evaluation
    from sfdfd.optics.render import Renderer
    from sfdfd.training.checkpoints import TrainedModel


def evaluate_command(config: DictConfig) -> dict[str, Any]:
    """Evaluate a checkpoint, or the baselines alone; return the content of ``metrics.json``."""
    from functools import partial
    from pathlib import Path

    from omegaconf import OmegaConf

    from sfdfd.errors import checked_int
    from sfdfd.evaluation.evaluator import evaluate
    from sfdfd.evaluation.processes import other_processes
    from sfdfd.evaluation.tables import print_metrics
    from sfdfd.io.files import write_json

    if config.methods is not None or config.verify is not None:
        return benchmark_command(config)
    processes = checked_int(config.processes, "processes", 1)
    as_composed = OmegaConf.to_container(config, resolve=True)
    evaluation = prepare_evaluation(config, 0, processes)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "run.json", run_record())
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    with other_processes(partial(_evaluate_rank, as_composed, processes), processes) as gather:
        result = evaluate(evaluation, output_dir, world=processes, gather=gather)
    print_metrics(result, f"{config.data._target_.rsplit('.', 1)[-1]}, split {config.data.split}")
    print(f"metrics: {output_dir / 'metrics.json'}\nreport:  {output_dir / 'report.html'}")
    return result


def benchmark_command(config: DictConfig) -> dict[str, Any]:
    """Benchmark the methods of ``methods=[...]``, or verify a submission; return the content of ``results.json``."""
    from pathlib import Path

    from omegaconf import OmegaConf

    from sfdfd.evaluation.benchmark import print_table, run_benchmark
    from sfdfd.evaluation.submission import verify_submission, write_submission

    benchmark = prepare_benchmark(config)
    output_dir = Path(config.output_dir)
    if config.verify is not None:
        content = verify_submission(Path(config.verify), benchmark)
        print(f"{config.verify}: the figures of {content['method']['name']} follow from its files")
        return content
    output_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    protocol = {**benchmark.datamodule.protocol(), "split": benchmark.split, "holdout": config.holdout}
    result = run_benchmark(benchmark, output_dir, {**protocol, "run": run_record()})
    for name, method in result["methods"].items() if benchmark.keep else ():
        write_submission(output_dir / "predictions" / name, benchmark, method, name)
    print_table(result, str(config.data.root or config.data._target_.rsplit(".", 1)[-1]))
    print(f"results: {output_dir / 'results.json'}")
    return result


def prepare_benchmark(config: DictConfig) -> Benchmark:
    """Build the contestants and the data from a config."""
    from sfdfd.evaluation.benchmark import Benchmark
    from sfdfd.evaluation.setup import known_methods
    from sfdfd.inference.contestants import contestants_of
    from sfdfd.optics.blur_model import BlurModel
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.training.checkpoints import NO_RENDERER_SHORTCUTS, load_model
    from sfdfd.training.device import pick_device

    _use_threads(config.threads, 1)
    seed_everything(config.seed)
    preferred = NO_RENDERER_SHORTCUTS if config.data.get("optics") else None
    renderer = load_model(config.checkpoint, config.optics.renderer, preferred)[1]

    def load() -> TrainedModel:
        module = load_model(config.checkpoint or "pretrained", config.optics.renderer, preferred)[0]
        assert module is not None
        return module

    datamodule = instantiate(config.data)
    datamodule.set_holdout(as_plain_dict(config)["holdout"])
    datamodule.check()
    refiner = Refiner(**as_plain_dict(config.refine))
    known = known_methods(load, renderer, refiner, config.working_px, pick_device(config.device))
    entries = as_plain_dict(config)["methods"]
    contestants = [] if entries is None else contestants_of(entries, known)
    optics = BlurModel().updated(overridden_optics(config))
    planes = as_plain_dict(config)["planes"] or {}
    return Benchmark(contestants, datamodule, config.data.split, renderer, optics, planes, config.submission)


def prepare_evaluation(config: DictConfig, rank: int, processes: int) -> Evaluation:
    """Build methods and data from a config; each of several processes builds the same."""
    from sfdfd.datasets.synthetic import SynthesisDataModule
    from sfdfd.evaluation.evaluator import Evaluation
    from sfdfd.evaluation.processes import device_of_rank
    from sfdfd.evaluation.setup import evaluation_methods, model_camera, needs_its_training_blur
    from sfdfd.optics.blur_model import BlurModel
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.training.checkpoints import NO_RENDERER_SHORTCUTS, load_model
    from sfdfd.training.device import pick_device

    _use_threads(config.threads, processes)
    seed_everything(config.seed)
    device, refiner = (
        device_of_rank(pick_device(config.device), rank, processes),
        Refiner(**as_plain_dict(config.refine)),
    )
    blur = overridden_optics(config)
    # the optics of a training do not describe the lens that took photographs
    preferred = NO_RENDERER_SHORTCUTS if config.data.get("optics") else None
    module, renderer = load_model(config.checkpoint, config.optics.renderer, preferred)
    _settle_synthesis_blur(config, renderer, blur)
    datamodule = instantiate(config.data)
    if needs_its_training_blur(module) and isinstance(datamodule, SynthesisDataModule):
        blur = {**BlurModel().updated(BlurModel.of(renderer)).known(), **blur}
    datamodule.set_holdout(as_plain_dict(config)["holdout"])
    datamodule.check()
    split = config.data.split
    methods = evaluation_methods(module, renderer, datamodule, split, refiner, config.working_px, device)
    protocol = {"checkpoint": config.checkpoint}
    if module is not None:
        protocol["model_camera"], data = model_camera(module), datamodule.protocol()
        sigma_scale = data.get("synthesis_sigma_scale")
        if rank == 0:
            print_optics_differences(data.get("camera"), protocol["model_camera"], sigma_scale, renderer.sigma_scale)
    protocol["constant_depth_m"] = datamodule.constant_baseline_depth_m() if "constant" in methods else None
    optics = BlurModel().updated(blur)
    return Evaluation(methods, datamodule, split, renderer, optics, device, config.pictures, protocol)


def _use_threads(threads: int | None, processes: int) -> None:
    """Divide the CPU among several processes unless the user gives a number of threads."""
    import os

    from sfdfd.training.device import use_threads

    share = max(1, (os.cpu_count() or 1) // processes) if processes > 1 else None
    use_threads(share if threads is None else threads)


def _settle_synthesis_blur(config: DictConfig, renderer: Renderer, blur: dict[str, Any]) -> None:
    """Synthesize with the model's ``sigma_scale``; where the data set its own, the model keeps assuming its own."""
    if config.data.get("renderer") is None:
        return
    if config.data.renderer.sigma_scale is None:
        config.data.renderer.sigma_scale = renderer.sigma_scale
    else:
        blur.setdefault("sigma_scale", renderer.sigma_scale)


def _evaluate_rank(as_composed: Any, processes: int, rank: int) -> bytes:
    """Evaluate the share of process ``rank``; return it pickled."""
    import pickle
    from pathlib import Path

    from omegaconf import OmegaConf

    from sfdfd.evaluation.evaluator import evaluate_share

    evaluation = prepare_evaluation(OmegaConf.create(as_composed), rank, processes)
    output_dir = Path(as_composed["output_dir"])
    return pickle.dumps(evaluate_share(evaluation, output_dir, rank=rank, world=processes))


main = command("evaluate")(evaluate_command)

if __name__ == "__main__":
    main()
