"""Evaluate: ``python -m sfdfd.evaluate checkpoint=PATH data=rgbd data.root=DIR``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs import (
    command,
    instantiate,
    load_model,
    pick_device,
    plain,
    run_record,
    say_where_optics_differ,
    seed_everything,
    use_threads,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig


def evaluate_command(config: DictConfig) -> dict[str, Any]:
    """Evaluate a checkpoint, or the baselines alone, as configured; returns the content of ``metrics.json``."""
    from pathlib import Path

    from omegaconf import OmegaConf

    from sfdfd.evaluation import evaluate, print_metrics
    from sfdfd.refine import Refiner
    from sfdfd.report import write_json

    use_threads(config.threads)
    seed_everything(config.seed)
    module, renderer = load_model(config.checkpoint, config.optics.renderer)
    if config.data.get("renderer") is not None and config.data.renderer.sigma_scale is None:
        config.data.renderer.sigma_scale = renderer.sigma_scale  # synthesis follows the model
    datamodule = instantiate(config.data)
    protocol: dict[str, Any] = {"checkpoint": config.checkpoint}
    if module is not None:
        protocol["model_camera"] = module.run_config["optics"]["camera"]
        data = datamodule.protocol()
        say_where_optics_differ(
            data.get("camera"), protocol["model_camera"], data.get("synthesis_sigma_scale"), renderer.sigma_scale
        )
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "run.json", run_record())
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    result = evaluate(
        module.network if module is not None else None,
        renderer,
        datamodule,
        config.data.split,
        output_dir,
        device=pick_device(config.device),
        pictures=config.pictures,
        refiner=Refiner(**plain(config.refine)),
        protocol=protocol,
    )
    print_metrics(result, f"{config.data._target_.rsplit('.', 1)[-1]}, split {config.data.split}")
    print(f"metrics: {output_dir / 'metrics.json'}\nreport:  {output_dir / 'report.html'}")
    return result


main = command("evaluate")(evaluate_command)

if __name__ == "__main__":
    main()
