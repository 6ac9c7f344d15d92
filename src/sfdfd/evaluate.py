"""Evaluate: ``python -m sfdfd.evaluate checkpoint=PATH data=nyu data.root=DIR``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sfdfd.io.run_record import run_record
from sfdfd.runs.command import command, instantiate, overridden_optics, plain, print_optics_differences, seed_everything

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sfdfd.evaluation.evaluator import PartialEvaluation
    from sfdfd.stack import Method


def evaluate_command(config: DictConfig) -> dict[str, Any]:
    """Evaluate a checkpoint, or the baselines alone, as configured; returns the content of ``metrics.json``."""
    from pathlib import Path

    from omegaconf import OmegaConf

    from sfdfd.errors import checked_whole
    from sfdfd.evaluation.evaluator import evaluate, print_metrics
    from sfdfd.io.files import write_json

    processes = checked_whole(config.processes, "processes", 1)
    asked = OmegaConf.to_container(config, resolve=True)
    prepared = _prepared(config, 0, processes)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "run.json", run_record())
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    with _others(asked, processes) as gather:
        result = evaluate(output_dir=output_dir, **prepared, world=processes, gather=gather)
    print_metrics(result, f"{config.data._target_.rsplit('.', 1)[-1]}, split {config.data.split}")
    print(f"metrics: {output_dir / 'metrics.json'}\nreport:  {output_dir / 'report.html'}")
    return result


def _prepared(config: DictConfig, rank: int, processes: int) -> dict[str, Any]:
    """The arguments of :func:`sfdfd.evaluation.evaluator.evaluate`, in each of several processes alike."""
    import os

    from sfdfd.datasets.synthetic import SynthesisDataModule
    from sfdfd.evaluation.evaluator import MAIN
    from sfdfd.inference.estimator import DefocusEstimator
    from sfdfd.inference.methods import NetworkMethod, baselines
    from sfdfd.optics.blur_model import BlurModel
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.training.checkpoints import DEFAULT_OPTICS, UNWINDOWED, load_model
    from sfdfd.training.device import pick_device, use_threads

    share = max(1, (os.cpu_count() or 1) // processes) if processes > 1 else None
    use_threads(share if config.threads is None else config.threads)
    seed_everything(config.seed)
    device, refiner = pick_device(config.device), Refiner(**plain(config.refine))
    if device.type == "cuda" and processes > 1:
        import torch

        device = torch.device("cuda", rank % torch.cuda.device_count())
    # of photographs, what a checkpoint learnt from is no lens
    preferred = UNWINDOWED if config.data.get("optics") else None
    told = overridden_optics(config)
    module, renderer = load_model(config.checkpoint, config.optics.renderer, preferred)
    if config.data.get("renderer") is not None and config.data.renderer.sigma_scale is None:
        # synthesis follows the model
        config.data.renderer.sigma_scale = renderer.options.get("sigma_scale") or DEFAULT_OPTICS["sigma_scale"]
    elif config.data.get("renderer") is not None:  # given for the synthesised stacks alone: the model keeps its own
        told.setdefault("sigma_scale", renderer.options.get("sigma_scale"))
    datamodule = instantiate(config.data)
    learnt = module is not None and not getattr(module.network, "requires_defocus", False)
    if learnt and isinstance(datamodule, SynthesisDataModule):  # what it learnt from is part of the network
        told = {**BlurModel().updated(BlurModel.of(renderer)).known(), **told}
    datamodule.keep_aside(plain(config)["holdout"])
    datamodule.check()
    methods: dict[str, Method] = {}
    protocol, camera = {"checkpoint": config.checkpoint}, None
    if module is not None:
        camera, data = module.camera, datamodule.protocol()
        methods[MAIN] = NetworkMethod(module.network, renderer, camera, device)
        trained = module.run_config["optics"]["camera"]
        protocol["model_camera"] = trained if camera is None else camera.as_dict()
        if rank == 0:
            print_optics_differences(
                data.get("camera"),
                protocol["model_camera"],
                data.get("synthesis_sigma_scale"),
                renderer.options.get("sigma_scale"),
            )
    methods |= baselines(datamodule, config.data.split, renderer, device=device)
    protocol["constant_depth_m"] = None if "constant" not in methods else datamodule.constant_baseline_m()
    if refiner.enabled:
        network = None if module is None else module.network
        methods["refined"] = DefocusEstimator(network, renderer, refiner, config.working_px, device, camera)
    return {
        "methods": methods,
        "datamodule": datamodule,
        "split": config.data.split,
        "renderer": renderer,
        "optics": BlurModel().updated(told),
        "device": device,
        "pictures": config.pictures,
        "protocol": protocol,
    }


@contextmanager
def _others(config: Any, processes: int) -> Iterator[Callable[[PartialEvaluation], list[PartialEvaluation]] | None]:
    """Processes that evaluate the shares 1, 2, ... meanwhile; what gathers them, None where there is one process alone."""
    if processes == 1:
        yield None
        return
    import multiprocessing
    import pickle
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    from sfdfd.errors import InputError

    with ProcessPoolExecutor(processes - 1, multiprocessing.get_context("spawn")) as pool:
        shares = [pool.submit(_share, config, rank, processes) for rank in range(1, processes)]

        def gather(mine: PartialEvaluation) -> list[PartialEvaluation]:
            try:
                return [mine, *(pickle.loads(one.result()) for one in shares)]  # from our own processes
            except BrokenProcessPool:
                raise InputError(
                    "a process of the evaluation died (out of memory?); fewer processes=N need less"
                ) from None

        try:
            yield gather
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _share(config: Any, rank: int, processes: int) -> bytes:
    """What process ``rank`` of several finds, pickled."""
    import pickle
    from pathlib import Path

    from omegaconf import OmegaConf

    from sfdfd.evaluation.evaluator import evaluate_share

    prepared = _prepared(OmegaConf.create(config), rank, processes)
    del prepared["protocol"]
    return pickle.dumps(evaluate_share(output_dir=Path(config["output_dir"]), **prepared, rank=rank, world=processes))


main = command("evaluate")(evaluate_command)

if __name__ == "__main__":
    main()
