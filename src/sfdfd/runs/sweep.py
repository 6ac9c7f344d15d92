"""Jobs of a training multirun: those that are finished already, and those that need a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError, one_line
from sfdfd.runs.command import as_plain_dict, is_multirun, print_to_stderr

__all__ = ["finished_metrics", "run_in_own_process"]

NOT_COMPARED = ("sweep", "output_dir", "resume")
"""Keys that may differ when a job is resumed."""


def finished_metrics(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the metrics of a job that ``sweep.resume`` finds finished; None for one that has to run.

    A job that was interrupted gets ``resume=last`` in ``settings``.

    Raises:
        InputError: its folder holds a job of another configuration, or broken records.
    """
    folder = Path(settings["output_dir"])
    if settings["sweep"]["resume"] is not None and not is_multirun():
        raise InputError("sweep.resume goes on with a multirun: give its command line again, with -m")
    if settings["sweep"]["resume"] is None or not (folder / "config.yaml").is_file():
        return None
    earlier, metrics = _records(folder)
    if _compared(earlier) != _compared(settings):
        raise InputError(
            f"{folder}: holds a job of another configuration; resume a sweep with its own command line (sweep.resume)"
        )
    if metrics is None:
        settings["resume"] = "last"
    else:
        print_to_stderr(f"{folder}: done already")
    return metrics


def _records(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a job's configuration and its metrics, None where it has not finished.

    Raises:
        InputError: one of the two files is broken.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = as_plain_dict(OmegaConf.load(folder / "config.yaml"))
        finished = (folder / "metrics.json").is_file()
        metrics = json.loads((folder / "metrics.json").read_text()) if finished else None
        if not isinstance(config, dict) or (finished and not isinstance(metrics, dict)):
            raise ValueError("expected mappings")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(
            f"{folder}: its config.yaml or metrics.json is broken ({one_line(error)}); remove the folder, and the job is "
            "made anew (sweep.resume)"
        ) from None
    return config, metrics


def _compared(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in NOT_COMPARED}


def run_in_own_process(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Run a job of a multirun as a command of its own where its strategy starts the command once per device; else
    return None.

    Within the multirun, each of these processes would run the whole sweep again.

    Raises:
        InputError: the job failed.
    """
    from hydra.core.hydra_config import HydraConfig

    strategy = str(settings["trainer"].get("strategy", "auto"))
    one_device = settings["trainer"].get("devices", 1) in (1, "1")
    if not is_multirun() or one_device or "spawn" in strategy or "fork" in strategy:
        return None
    dropped = ("output_dir=", "sweep.", *(("resume=",) if settings["resume"] == "last" else ()))
    overrides = [override for override in HydraConfig.get().overrides.task if not override.startswith(dropped)]
    if settings["resume"] == "last":
        overrides.append("resume=last")
    command = [sys.executable, "-m", "sfdfd.train", *overrides, f"output_dir={settings['output_dir']}"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(last_line.removeprefix("sfdfd: "))
    return json.loads((Path(settings["output_dir"]) / "metrics.json").read_text())
