"""Train: ``python -m sfdfd.train experiment=procedural``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.io.run_record import run_record
from sfdfd.runs.command import (
    command,
    instantiate,
    is_multirun,
    plain,
    print_optics_differences,
    resolve_optics,
    run_name,
    say,
    seed_everything,
)

if TYPE_CHECKING:
    import lightning
    from omegaconf import DictConfig

    from sfdfd.datasets.datamodule import FocalStackDataModule
    from sfdfd.training.callbacks import RunCheckpoint
    from sfdfd.training.module import DepthFromDefocus


def train(config: DictConfig) -> dict[str, Any]:
    """Train as configured, then test the best checkpoint; returns the content of ``metrics.json``."""
    import sys
    from pathlib import Path

    from lightning.pytorch.callbacks import ModelCheckpoint
    from omegaconf import OmegaConf

    from sfdfd.evaluation.tables import print_metrics
    from sfdfd.evaluation.final_test import final_test, log_test
    from sfdfd.io.files import write_json
    from sfdfd.training.callbacks import RunCheckpoint
    from sfdfd.training.device import checked_precision, use_threads

    _quieten()
    resolve_optics(config)
    resolved = plain(config)
    elsewhere = _already_done(config, resolved) or _in_processes_of_its_own(resolved)
    if elsewhere is not None:
        return elsewhere
    output_dir = Path(resolved["output_dir"])
    checked_precision(resolved["trainer"]["precision"])
    use_threads(resolved["threads"])
    seed_everything(resolved["seed"])
    datamodule = instantiate(config.data)
    datamodule.check()
    module = _module(config, resolved)
    untrained = instantiate(config.network)
    untrained.load_state_dict(module.network.state_dict())
    _fit_intervals(config)
    ckpt_path, first_step = _continued(config, resolved, module, datamodule)
    trainer = _trainer(config, first_step if ckpt_path is not None else None)
    record = run_record()
    if trainer.is_global_zero:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / "run.json", record)
        OmegaConf.save(OmegaConf.create(resolved), output_dir / "config.yaml")
    try:
        for logger in trainer.loggers:
            logger.log_hyperparams({**_flat(resolved), **_flat({"run": record})})
        _fit(trainer, module, datamodule, ckpt_path)
        steps = _steps_taken(trainer, first_step, complete=0 <= config.trainer.max_steps <= first_step)
        callbacks = trainer.callbacks  # type: ignore[attr-defined] # set by Lightning without a type
        saver = next((one for one in callbacks if isinstance(one, ModelCheckpoint)), None)
        if isinstance(saver, RunCheckpoint) and saver.stopped_by is not None:
            if not trainer.is_global_zero:
                return {}
            _stop(saver, steps)
        result, best = final_test(
            trainer, module, untrained, datamodule, saver, steps, output_dir, resolved["pictures"]
        )
        if not trainer.is_global_zero:
            return {}
        for logger in trainer.loggers:
            logger.log_metrics({f"test/{k}": v for k, v in result.items() if isinstance(v, (int, float))}, step=steps)
        log_test(trainer.loggers, result, best, output_dir, steps)
        for logger in trainer.loggers:
            logger.save()
    finally:
        _finish_loggers()
    print_metrics(result, f"test, {config.data._target_.rsplit('.', 1)[-1]}, after {steps} steps")
    print(f"run folder: {output_dir}\npictures:   {output_dir / 'pictures'}\ncheckpoint: {best}")
    sys.stdout.flush()
    return result


def _quieten() -> None:
    """Lightning's greetings, and warnings that say nothing about the run."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*")  # Lightning 2.6 on torch 2.13
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # stacks are kept in memory
    warnings.filterwarnings("ignore", message=".*ended before the epoch ended.*")  # ours goes on where it was
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # intervals count steps here
    warnings.filterwarnings("ignore", message=".*[Cc]heckpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory .* exists and is not empty.*")


def _module(config: DictConfig, resolved: dict[str, Any]) -> DepthFromDefocus:
    """The LightningModule with its parts, the model's own camera, and weights to start from."""
    from sfdfd.errors import InputError
    from sfdfd.training.checkpoints import load_weights, model_camera

    renderer = instantiate(config.optics.renderer)
    if not renderer.differentiable:
        raise InputError(
            f"{type(renderer).__name__} has no gradient in depth and cannot train; it is for synthesis (data.renderer)"
        )
    module = instantiate(
        config.module,
        network=instantiate(config.network),
        renderer=renderer,
        loss=instantiate(config.loss),
        optimizer=instantiate(config.optimizer),
    )
    module.run_config, module.camera = resolved, model_camera(resolved)
    print_optics_differences(resolved["data"].get("camera"), resolved["optics"]["camera"])
    if resolved["weights_path"]:
        load_weights(module, str(resolved["weights_path"]))
    return module


def _fit(trainer: lightning.Trainer, module: Any, datamodule: FocalStackDataModule, ckpt_path: str | None) -> None:
    """Train; what is no bug ends in one line."""
    from sfdfd.errors import InputError
    from sfdfd.training.faults import describe_fault
    from sfdfd.training.resuming import restoring_fault

    try:
        trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=True)
    except Exception as error:
        words = describe_fault(error)
        if words is None and ckpt_path is not None and (reason := restoring_fault(error)):
            words = f"ckpt_path={ckpt_path}: cannot be continued from, what it holds is not whole ({reason})"
        if words is None:
            raise
        raise InputError(words) from error


def _continued(
    config: DictConfig, resolved: dict[str, Any], module: DepthFromDefocus, datamodule: FocalStackDataModule
) -> tuple[str | None, int]:
    """The checkpoint that this run goes on from, and its step, the data set to its place; none and 0 for a new run.

    ``ckpt_path=last`` is the newest whole checkpoint of the run folder; where there is none, the run begins, and says so.

    Raises:
        InputError: it cannot be continued, or has nothing left to do (unless it was asked for as the last).
    """
    from pathlib import Path

    from sfdfd.errors import InputError
    from sfdfd.training.checkpoints import resumable
    from sfdfd.training.resuming import newest_checkpoint

    given = resolved["ckpt_path"]
    if given is None:
        return None, 0
    path = Path(str(given))
    if given == "last":
        folder = Path(resolved["output_dir"]) / "checkpoints"
        newest, broken = newest_checkpoint(folder)
        for one in broken:
            say(f"not continued from {one}")
        if newest is None:
            say(f"{folder}: no whole checkpoint; this run starts from the beginning (ckpt_path=last)")
            return None, 0
        path = newest
    place = resumable(module, path)
    if given == "last":
        say(f"continuing from {path}, step {place.step}")
    elif 0 <= config.trainer.max_steps <= place.step:
        raise InputError(
            f"ckpt_path={path}: it has made {place.step} steps already; give a larger trainer.max_steps (now "
            f"{config.trainer.max_steps})"
        )
    datamodule.continue_at(place.epoch, place.batches)
    return str(path), place.step


def _trainer(config: DictConfig, first_step: int | None) -> lightning.Trainer:
    """The trainer; ``first_step`` is that of a run that is continued."""
    from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
    from omegaconf import OmegaConf

    from sfdfd.training.fsdp import check_strategy
    from sfdfd.training.loggers import FaultTolerantWandbLogger, ResumableCSVLogger
    from sfdfd.training.resuming import WholeCheckpoints

    loggers = [instantiate(node, **_called(node)) for node in (config.logger or {}).values()]
    for logger in loggers:
        if isinstance(logger, (ResumableCSVLogger, FaultTolerantWandbLogger)) and first_step is not None:
            logger.continue_from(first_step)
    callbacks = [instantiate(node) for node in (config.callbacks or {}).values()]
    if not loggers:  # who has nobody to tell refuses to watch
        callbacks = [one for one in callbacks if not isinstance(one, LearningRateMonitor)]
    strategy = config.trainer.strategy
    if OmegaConf.is_config(strategy):
        strategy = instantiate(strategy)
    check_strategy(strategy, any(isinstance(one, ModelCheckpoint) for one in callbacks))
    return instantiate(
        config.trainer, strategy=strategy, logger=loggers or False, callbacks=callbacks, plugins=[WholeCheckpoints()]
    )


def _called(node: DictConfig) -> dict[str, Any]:
    """Name, group and tags of a W&B run, where the config leaves them open."""
    if not str(node.get("_target_", "")).endswith("wandb_logger"):
        return {}
    return {key: value for key, value in run_name().items() if node.get(key) is None and value}


def _steps_taken(trainer: lightning.Trainer, first_step: int, complete: bool) -> int:
    """The run's number of steps; ``complete`` where none was left to take.

    Raises:
        InputError: this fit took none.
    """
    from sfdfd.errors import InputError

    # a spawned process hands back its metrics, but not its counters
    steps = max(trainer.global_step, int(trainer.callback_metrics.get("steps", 0)))
    if steps <= first_step and not complete:
        raise InputError(
            "training took no step: too few stacks for the batches and processes (data.batch_size, trainer.devices), or no "
            "time (trainer.max_time)"
        )
    return steps


def _stop(saver: RunCheckpoint, steps: int) -> None:
    """End a run that was asked to stop, as the shell expects it."""
    import sys

    assert saver.stopped_by is not None
    print(
        f"sfdfd: stopped by {saver.stopped_by.name} after step {steps}; continue with ckpt_path={saver.last_model_path}",
        file=sys.stderr,
    )
    sys.exit(128 + saver.stopped_by)


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
    if steps == -1 and config.trainer.max_epochs in (-1, None) and config.trainer.max_time is None:
        raise InputError("give training an end: trainer.max_steps, trainer.max_epochs or trainer.max_time")
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


def _in_processes_of_its_own(resolved: dict[str, Any]) -> dict[str, Any] | None:
    """Run a job of a multirun whose strategy starts this command once per device (each would run the whole sweep again) as a
    command of its own, in the job's folder; None where it can run here.

    Raises:
        InputError: it failed.
    """
    import json
    import subprocess
    import sys
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from sfdfd.errors import InputError

    strategy = str(resolved["trainer"].get("strategy", "auto"))
    several = resolved["trainer"].get("devices", 1) not in (1, "1")
    in_place = "spawn" in strategy or "fork" in strategy
    if not is_multirun() or not several or in_place:
        return None
    overrides = [one for one in HydraConfig.get().overrides.task if not one.startswith(("output_dir=", "sweep."))]
    if resolved["ckpt_path"] == "last":
        overrides = [*(one for one in overrides if not one.startswith("ckpt_path=")), "ckpt_path=last"]
    command = [sys.executable, "-m", "sfdfd.train", *overrides, f"output_dir={resolved['output_dir']}"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(last.removeprefix("sfdfd: "))
    return json.loads((Path(resolved["output_dir"]) / "metrics.json").read_text())


def _already_done(config: DictConfig, resolved: dict[str, Any]) -> dict[str, Any] | None:
    """``sweep.resume``: the figures of a job that has ended; None for one that is missing, which then goes on from what it
    left.

    Raises:
        InputError: its folder holds a job of another configuration.
    """
    import json
    from pathlib import Path

    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from sfdfd.errors import InputError, one_line

    folder = Path(resolved["output_dir"])
    if resolved["sweep"]["resume"] is not None and not is_multirun():
        raise InputError("sweep.resume goes on with a multirun: give its command line again, with -m")
    if resolved["sweep"]["resume"] is None or not (folder / "config.yaml").is_file():
        return None

    def compared(values: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key not in ("sweep", "output_dir", "ckpt_path")}

    try:
        before = plain(OmegaConf.load(folder / "config.yaml"))
        ended = (folder / "metrics.json").is_file()
        metrics = json.loads((folder / "metrics.json").read_text()) if ended else {}
        if not isinstance(before, dict) or not isinstance(metrics, dict):
            raise ValueError("expected mappings")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(
            f"{folder}: its config.yaml or metrics.json is broken ({one_line(error)}); remove the folder, and the job is "
            "made anew (sweep.resume)"
        ) from None
    if compared(before) != compared(resolved):
        raise InputError(
            f"{folder}: holds a job of another configuration; resume a sweep with its own command line (sweep.resume)"
        )
    if ended:
        say(f"{folder}: done already")
        return metrics
    config.ckpt_path = resolved["ckpt_path"] = "last"
    return None


main = command("train")(train)

if __name__ == "__main__":
    main()
