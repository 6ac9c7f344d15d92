"""Evaluate: ``python -m sfdfd.evaluate checkpoint=PATH data=rgbd data.root=DIR``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, instantiate, plain, say_where_optics_differ, seed_everything, settle_optics
from sfdfd.runs.record import run_record

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sfdfd.stack import Method


def evaluate_command(config: DictConfig) -> dict[str, Any]:
    """Evaluate a checkpoint, or the baselines alone, as configured; returns the content of ``metrics.json``."""
    from pathlib import Path

    from omegaconf import OmegaConf

    from sfdfd.data.files import write_json
    from sfdfd.inference.evaluation import MAIN, evaluate, print_metrics
    from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod, baselines
    from sfdfd.inference.refine import Refiner
    from sfdfd.training.checkpoints import DEFAULT_OPTICS, UNWINDOWED, load_model
    from sfdfd.training.device import pick_device, use_threads

    use_threads(config.threads)
    seed_everything(config.seed)
    device, refiner = pick_device(config.device), Refiner(**plain(config.refine))
    preferred = UNWINDOWED if settle_optics(config) else None  # photographs: what a checkpoint learnt from is no lens
    module, renderer = load_model(config.checkpoint, config.optics.renderer, preferred)
    if config.data.get("renderer") is not None and config.data.renderer.sigma_scale is None:
        # synthesis follows the model
        config.data.renderer.sigma_scale = renderer.options.get("sigma_scale") or DEFAULT_OPTICS["sigma_scale"]
    datamodule = instantiate(config.data)
    datamodule.keep_aside(plain(config)["holdout"])
    datamodule.check()
    methods: dict[str, Method] = {}
    protocol, camera = {"checkpoint": config.checkpoint}, None
    if module is not None:
        camera, data = module.camera, datamodule.protocol()
        methods[MAIN] = NetworkMethod(module.network, renderer, camera, device)
        trained = module.run_config["optics"]["camera"]
        protocol["model_camera"] = trained if camera is None else camera.as_dict()
        say_where_optics_differ(
            data.get("camera"),
            protocol["model_camera"],
            data.get("synthesis_sigma_scale"),
            renderer.options.get("sigma_scale"),
        )
    methods |= baselines(datamodule, config.data.split, renderer, device=device)
    protocol["constant_depth_m"] = None if "constant" not in methods else datamodule.constant_baseline_m()
    if refiner.enabled:
        start = methods.get(MAIN, SweepMethod(renderer))
        methods["refined"] = RefinedMethod(start, refiner, renderer, camera)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "run.json", run_record())
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    result = evaluate(
        methods,
        datamodule,
        config.data.split,
        output_dir,
        renderer=renderer,
        device=device,
        pictures=config.pictures,
        protocol=protocol,
    )
    print_metrics(result, f"{config.data._target_.rsplit('.', 1)[-1]}, split {config.data.split}")
    print(f"metrics: {output_dir / 'metrics.json'}\nreport:  {output_dir / 'report.html'}")
    return result


main = command("evaluate")(evaluate_command)

if __name__ == "__main__":
    main()
