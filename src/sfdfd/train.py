"""Train: ``python -m sfdfd.train experiment=procedural``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs import (
    PRETRAINED,
    command,
    instantiate,
    load_checkpoint,
    load_run,
    pick_device,
    plain,
    run_record,
    say_where_optics_differ,
    seed_everything,
    use_threads,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig


def train(config: DictConfig) -> dict[str, Any]:
    """Train as configured, then test the best checkpoint; returns the content of ``metrics.json``."""
    import logging
    import sys
    import warnings
    from pathlib import Path

    from lightning.pytorch.callbacks import ModelCheckpoint
    from omegaconf import OmegaConf

    from sfdfd.errors import InputError
    from sfdfd.evaluation import evaluate, print_metrics
    from sfdfd.optics.camera import Camera
    from sfdfd.report import write_json

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its greetings say nothing about the run
    warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*")  # Lightning 2.6 on torch 2.13
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # stacks are kept in memory
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # intervals count steps here
    resolved = plain(config)
    _refuse_relaunching_sweeps(resolved)
    if resolved["optics"]["weighting"] == "occlusion":
        raise InputError(
            "optics.weighting=occlusion has no gradient in depth and cannot train; it is for synthesis "
            "(data.renderer.weighting=occlusion)"
        )
    output_dir = Path(resolved["output_dir"])
    use_threads(resolved["threads"])
    seed_everything(resolved["seed"])
    datamodule = instantiate(config.data)
    module = instantiate(
        config.module,
        network=instantiate(config.network),
        renderer=instantiate(config.optics.renderer),
        loss=instantiate(config.loss),
        optimizer=instantiate(config.optimizer),
    )
    module.run_config = resolved
    model_camera = resolved["optics"]["camera"]
    if say_where_optics_differ(resolved["data"].get("camera"), model_camera):
        module.camera = Camera(**{key: value for key, value in model_camera.items() if key != "_target_"})
    if resolved["weights_path"]:
        path = PRETRAINED if str(resolved["weights_path"]) == "pretrained" else resolved["weights_path"]
        try:
            module.load_state_dict(load_checkpoint(path, "weights_path")["state_dict"])
        except RuntimeError:
            raise InputError(f"weights_path={resolved['weights_path']}: these weights are of another network") from None
    if resolved["ckpt_path"]:
        load_checkpoint(resolved["ckpt_path"], "ckpt_path")  # refuses what is not ours before anything is written
    untrained = instantiate(config.network)
    untrained.load_state_dict(module.network.state_dict())
    _fit_intervals(config)
    loggers = [instantiate(node) for node in (config.logger or {}).values()]
    callbacks = [instantiate(node) for node in (config.callbacks or {}).values()]
    trainer = instantiate(config.trainer, logger=loggers or False, callbacks=callbacks)
    if trainer.is_global_zero:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / "run.json", run_record())
        OmegaConf.save(OmegaConf.create(resolved), output_dir / "config.yaml")
    try:
        for logger in trainer.loggers:
            logger.log_hyperparams(_flat(resolved))
        trainer.fit(module, datamodule, ckpt_path=resolved["ckpt_path"], weights_only=True)
        if not trainer.is_global_zero:
            return {}
        saver = next((one for one in trainer.callbacks if isinstance(one, ModelCheckpoint)), None)
        best = getattr(saver, "best_model_path", "") or getattr(saver, "last_model_path", "")
        if best and Path(best).is_file():
            module = load_run(best)
        result = evaluate(
            module.network,
            module.renderer,
            datamodule,
            "test",
            output_dir,
            device=pick_device("auto"),
            pictures=resolved["pictures"],
            beside={"untrained": untrained},
            protocol={
                "checkpoint": best or None,
                "steps": trainer.global_step,
                "optics": resolved["optics"]["camera"],
                "selection": f"best {saver.monitor}" if saver is not None and saver.monitor else "last",
            },
        )
        for logger in trainer.loggers:
            logger.log_metrics({f"test/{k}": v for k, v in result.items() if isinstance(v, (int, float))})
    finally:
        _finish_loggers()
    print_metrics(result, f"test, {config.data._target_.rsplit('.', 1)[-1]}, after {trainer.global_step} steps")
    print(f"run folder: {output_dir}\npictures:   {output_dir / 'pictures'}\ncheckpoint: {best}")
    sys.stdout.flush()
    return result


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested config -> {"a.b": value}, which every logger can show."""
    if not isinstance(node, dict):
        return {prefix: node if isinstance(node, (int, float, str, bool)) or node is None else str(node)}
    return {
        key: value
        for name, child in node.items()
        for key, value in _flat(child, f"{prefix}.{name}" if prefix else name).items()
    }


def _fit_intervals(config: DictConfig) -> None:
    """A run shorter than its intervals validates and logs once, at its end: else there is nothing to select."""
    from sfdfd.errors import InputError

    steps = config.trainer.max_steps
    if not isinstance(steps, int) or isinstance(steps, bool) or steps == 0 or steps < -1:
        raise InputError(f"trainer.max_steps: expected a whole number of steps, got {steps!r}")
    for key in ("val_check_interval", "log_every_n_steps"):
        interval = config.trainer[key]
        if isinstance(interval, int) and 0 < steps < interval:
            config.trainer[key] = steps


def _finish_loggers() -> None:
    """End the W&B run, so that the next job of a multirun begins its own."""
    import sys

    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _refuse_relaunching_sweeps(resolved: dict[str, Any]) -> None:
    """Script-launched DDP in an in-process multirun would make every rank run the whole sweep again."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from sfdfd.errors import InputError

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    strategy = str(resolved["trainer"].get("strategy", "auto"))
    several = resolved["trainer"].get("devices", 1) not in (1, "1")
    if several and strategy.startswith("ddp") and "spawn" not in strategy and "fork" not in strategy:
        raise InputError(
            f"trainer.strategy={strategy} starts this command once per device, and each would run the whole sweep "
            "again; use trainer=ddp_spawn in a multirun, or give each job its own process"
        )


main = command("train")(train)

if __name__ == "__main__":
    main()
