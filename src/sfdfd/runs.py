"""Runs: the command line around Hydra, run folders, the run record, and loading a run from its checkpoint.

Only the commands and this file know Hydra. Nothing heavy is imported before a command really starts, so that ``--help``
answers at once.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfdfd.errors import InputError

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from sfdfd.module import DepthFromDefocus
    from sfdfd.optics.render import DefocusRenderer

__all__ = [
    "CONF_DIR",
    "PRETRAINED",
    "command",
    "instantiate",
    "load_model",
    "load_run",
    "plain",
    "run_record",
    "say_where_optics_differ",
    "seed_everything",
]

_PACKAGE = Path(__file__).resolve().parent
CONF_DIR = next(
    folder
    for folder in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf", _PACKAGE)
    if (folder / "train.yaml").is_file() or folder == _PACKAGE
)
"""The configuration: beside the package in a wheel, at the top of a checkout."""
PRETRAINED = _PACKAGE / "weights" / "pretrained.ckpt"
"""Weights trained on procedural scenes, in the package (docs/results.md)."""


def _fail(message: str) -> None:
    """One clear line and exit code 2."""
    line = " ".join(str(message).split())
    print(f"sfdfd: {line}", file=sys.stderr)
    sys.exit(2)


def _arguments(argv: list[str]) -> list[str]:
    """``output_dir=X`` names Hydra's run folder, or the sweep's in a multirun: there is one folder a run."""
    multirun = any(argument in ("-m", "--multirun") for argument in argv)
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    return [f"{key}={a.split('=', 1)[1]}" if a.startswith("output_dir=") else a for a in argv]


def _reason(error: BaseException) -> str:
    """The sentence of an error that a user can act on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = ("full_key", "object_type", "reference_type", "set the environment variable", "error executing job")
    lines = [line for line in lines if not line.lower().startswith(noise)]
    return " ".join(lines) or type(error).__name__


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Turn what the user can mend into one line and exit code 2; let bugs through."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except InputError as error:
        _fail(str(error))
    except InstantiationException as error:
        cause: BaseException | None = error
        while isinstance(cause, InstantiationException):
            cause = cause.__cause__
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        if cause is not None and not isinstance(cause, (ValueError, TypeError, MisconfigurationException)):
            raise
        _fail(_reason(cause or error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_reason(error))
    except KeyboardInterrupt:
        print("sfdfd: stopped", file=sys.stderr)
        sys.exit(130)


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a command of a function of the composed config.

    Bad input, an unknown key or a wrong value ends it with one line and exit code 2; a bug still shows its traceback.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(function)
        def guarded(config: DictConfig) -> Any:
            with _errors_in_words():  # inside Hydra, which would print its own lines first
                return function(config)

        @functools.wraps(function)
        def main() -> None:
            import hydra

            os.environ["HYDRA_FULL_ERROR"] = "1"  # errors of composing reach us instead of being printed by Hydra
            sys.argv[1:] = _arguments(sys.argv[1:])
            with _errors_in_words():
                hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(guarded)()

        return main

    return decorate


def plain(config: Any) -> Any:
    """A config node as resolved plain Python."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def instantiate(node: Any, **more: Any) -> Any:
    """Build what a config node describes (``_target_``), with its containers as plain Python."""
    import hydra.utils

    return hydra.utils.instantiate(node, _convert_="all", **more)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and the loaders' workers."""
    import lightning

    lightning.seed_everything(seed, workers=True, verbose=False)


def run_record() -> dict[str, Any]:
    """What a figure needs beside its config: when, where, from which sources, with which versions."""
    from importlib.metadata import PackageNotFoundError, version

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(_PACKAGE), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("rev-parse", "--show-toplevel") != str(_PACKAGE.parents[1]):  # installed: the repository around is not ours
        sha, changed = None, None
    else:
        sha, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    versions = {}
    for package in ("sfdfd", "torch", "lightning", "hydra-core", "omegaconf", "kornia", "torchmetrics", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "working_directory": os.getcwd(),
        "git_sha": sha,
        "git_dirty": None if changed is None else bool(changed),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor_cores": os.cpu_count(),
        "versions": versions,
    }


def say_where_optics_differ(
    camera: Mapping[str, Any] | None,
    model_camera: Mapping[str, Any],
    sigma_scale: float | None = None,
    model_sigma_scale: float | None = None,
) -> bool:
    """One line on stderr where the data's optics and the model's are not the same; true if there was one."""
    import math

    pairs = [(key, value, model_camera.get(key)) for key, value in (camera or {}).items() if key != "_target_"]
    pairs.append(("sigma_scale", sigma_scale, model_sigma_scale))
    differences = [
        f"{key} {value:g} in the data (the model's is {own:g})"
        for key, value, own in pairs
        if value is not None and own is not None and not math.isclose(value, own, rel_tol=1e-6)
    ]
    if differences:
        print(f"sfdfd: the data's optics differ from the model's: {'; '.join(differences)}", file=sys.stderr)
    return bool(differences)


def _only_ours(node: Any, where: str) -> None:
    """A checkpoint may name our own classes only: it is data, not a program."""
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not str(target).startswith("sfdfd."):
            raise InputError(f"{where}: its config wants to build {target!r}, which is not part of sfdfd")
        for value in node.values():
            _only_ours(value, where)
    elif isinstance(node, list):
        for value in node:
            _only_ours(value, where)


def load_checkpoint(checkpoint: str | Path, key: str = "checkpoint") -> dict[str, Any]:
    """The content of one of our checkpoints, never unpickling objects; ``key`` is what the user gave it as.

    Raises:
        InputError: the file is missing, not a checkpoint, or not one of ours.
    """
    import torch

    from sfdfd.module import CONFIG_KEY

    path = Path(checkpoint)
    if not path.is_file():
        raise InputError(f"{key}={path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or foreign file raises
        raise InputError(f"{key}={path}: not a readable checkpoint ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict) or CONFIG_KEY not in content or "state_dict" not in content:
        raise InputError(f"{key}={path}: not a checkpoint of sfdfd (it carries no {CONFIG_KEY})")
    return content


def load_run(checkpoint: str | Path, optics_overrides: dict[str, Any] | None = None) -> DepthFromDefocus:
    """The trained module from its checkpoint alone: network, the model's optics and loss, in evaluation mode.

    Args:
        checkpoint: the path.
        optics_overrides: options of the renderer that differ from the checkpoint's, e.g. ``{"sigma_scale": 1.0}``.

    Raises:
        InputError: the file is no checkpoint of ours, or does not fit its own config.
    """
    from sfdfd.module import CONFIG_KEY, DepthFromDefocus

    content = load_checkpoint(checkpoint)
    config = content[CONFIG_KEY]
    try:
        parts = {"network": config["network"], "renderer": config["optics"]["renderer"], "loss": config["loss"]}
    except (KeyError, TypeError):
        raise InputError(f"checkpoint={checkpoint}: its config lacks network, optics or loss") from None
    _only_ours(parts, f"checkpoint={checkpoint}")
    parts["renderer"] = {**parts["renderer"], **(optics_overrides or {})}
    module = DepthFromDefocus(**{key: instantiate(value) for key, value in parts.items()}, run_config=config)
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise InputError(
            f"checkpoint={checkpoint}: its weights do not fit its network ({_reason(error)[:300]})"
        ) from None
    return module.eval()


DEFAULT_OPTICS = {"sigma_scale": 0.5}


def load_model(
    checkpoint: str | Path | None, optics: Mapping[str, Any]
) -> tuple[DepthFromDefocus | None, DefocusRenderer]:
    """The trained module and its renderer, with what the command line says of the optics; without a checkpoint, none and
    a renderer with ``DEFAULT_OPTICS``.

    Args:
        checkpoint: a path, "pretrained" (the weights that the package carries), or None.
        optics: options of the renderer; None and ``_target_`` say nothing.
    """
    from sfdfd.optics.render import DefocusRenderer

    said = {key: value for key, value in optics.items() if value is not None and key != "_target_"}
    if checkpoint is None:
        return None, DefocusRenderer(**{**DEFAULT_OPTICS, **said})
    module = load_run(PRETRAINED if str(checkpoint) == "pretrained" else checkpoint, said)
    return module, module.renderer


def use_threads(threads: Any) -> None:
    """Bound the threads of torch's operators; None leaves torch's choice.

    Raises:
        InputError: not a whole number of 1 or more.
    """
    import torch

    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads={threads}: expected a whole number of 1 or more, or null")
    torch.set_num_threads(threads)


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU; Apple's MPS by name."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not available here ({str(error).splitlines()[0]})") from None
