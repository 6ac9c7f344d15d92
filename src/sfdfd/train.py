"""Train: ``python -m sfdfd.train experiment=procedural``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.io.run_record import run_record
from sfdfd.runs.command import (
    as_plain_dict,
    command,
    instantiate,
    print_optics_differences,
    print_to_stderr,
    resolve_optics,
    run_labels,
    seed_everything,
)

if TYPE_CHECKING:
    from pathlib import Path

    import lightning
    from omegaconf import DictConfig

    from sfdfd.training.module import DepthFromDefocus
    from sfdfd.training.run import StartPoint


def train(config: DictConfig) -> dict[str, Any]:
    """Train as configured, then test the best checkpoint; return the content of ``metrics.json``."""
    from pathlib import Path

    from sfdfd.evaluation.final_test import final_test, log_test
    from sfdfd.evaluation.tables import print_metrics
    from sfdfd.runs.sweep import finished_metrics, run_in_own_process
    from sfdfd.training import run
    from sfdfd.training.device import checked_precision, use_threads

    run.quiet_lightning("ended before the epoch ended")  # ours continue in the middle of an epoch
    resolve_optics(config)
    settings = as_plain_dict(config)
    metrics = finished_metrics(settings) or run_in_own_process(settings)
    if metrics is not None:
        return metrics
    output_dir, max_steps = Path(settings["output_dir"]), config.trainer.max_steps
    checked_precision(settings["trainer"]["precision"])
    use_threads(settings["threads"])
    seed_everything(settings["seed"])
    datamodule = instantiate(config.data)
    datamodule.check()
    module = _module(config, settings)
    untrained = instantiate(config.network)
    untrained.load_state_dict(module.network.state_dict())
    intervals = run.shortened_intervals(config.trainer)
    start = run.start_point(settings["resume"], output_dir, max_steps, module, datamodule, print_to_stderr)
    trainer = _trainer(config, start, intervals)
    record = _recorded(trainer, settings, output_dir)
    try:
        run.log_settings(trainer, {**settings, "run": record})
        run.fit(trainer, module, datamodule, start)
        steps = run.steps_taken(trainer, start, max_steps)
        if run.exit_if_stopped(trainer, steps):
            return {}
        saver, pictures = run.checkpoint_callback(trainer), settings["pictures"]
        metrics, best = final_test(trainer, module, untrained, datamodule, saver, steps, output_dir, pictures)
        if not trainer.is_global_zero:
            return {}
        run.log_test_metrics(trainer, metrics, steps)
        log_test(trainer.loggers, metrics, best, output_dir, steps)
        for logger in trainer.loggers:
            logger.save()
    finally:
        run.finish_loggers()
    print_metrics(metrics, f"test, {config.data._target_.rsplit('.', 1)[-1]}, after {steps} steps")
    print(f"run folder: {output_dir}\npictures:   {output_dir / 'pictures'}\ncheckpoint: {best}", flush=True)
    return metrics


def _module(config: DictConfig, settings: dict[str, Any]) -> DepthFromDefocus:
    """Build the LightningModule, with the model's own camera and the weights to start from."""
    from sfdfd.training.checkpoints import load_weights, model_camera
    from sfdfd.training.run import check_trainable

    renderer = instantiate(config.optics.renderer)
    check_trainable(renderer)
    parts = {name: instantiate(config[name]) for name in ("network", "loss", "optimizer")}
    module = instantiate(config.module, renderer=renderer, **parts)
    module.run_config, module.camera = settings, model_camera(settings)
    print_optics_differences(settings["data"].get("camera"), settings["optics"]["camera"])
    if settings["checkpoint"]:
        load_weights(module, str(settings["checkpoint"]))
    return module


def _trainer(config: DictConfig, start: StartPoint, intervals: dict[str, int]) -> lightning.Trainer:
    """Build the trainer with its loggers, callbacks and strategy."""
    from omegaconf import OmegaConf

    from sfdfd.training.run import trainer_parts

    loggers = [instantiate(node, **_wandb_names(node)) for node in (config.logger or {}).values()]
    callbacks = [instantiate(node) for node in (config.callbacks or {}).values()]
    strategy = config.trainer.strategy
    if OmegaConf.is_config(strategy):
        strategy = instantiate(strategy)
    return instantiate(config.trainer, **intervals, **trainer_parts(loggers, callbacks, strategy, start))


def _wandb_names(node: DictConfig) -> dict[str, Any]:
    """Return name, group and tags of a W&B run where the config leaves them open."""
    if not str(node.get("_target_", "")).endswith("wandb_logger"):
        return {}
    return {key: value for key, value in run_labels().items() if node.get(key) is None and value}


def _recorded(trainer: lightning.Trainer, settings: dict[str, Any], output_dir: Path) -> dict[str, Any]:
    """Write ``run.json`` and ``config.yaml`` into the run folder; return the record."""
    from omegaconf import OmegaConf

    from sfdfd.io.files import write_json

    record = run_record()
    if trainer.is_global_zero:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / "run.json", record)
        OmegaConf.save(OmegaConf.create(settings), output_dir / "config.yaml")
    return record


main = command("train")(train)

if __name__ == "__main__":
    main()
