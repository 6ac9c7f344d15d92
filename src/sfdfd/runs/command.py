"""The command line around Hydra: run folders, and errors as one line.

Only the commands and this file know Hydra. Nothing heavy is imported before a command starts, so that ``--help`` answers
at once.
"""

from __future__ import annotations

import errno
import functools
import io
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfdfd.errors import InputError, checked_int

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "CONF_DIR",
    "ERROR_FILE",
    "IGNORED_OVERRIDES",
    "as_plain_dict",
    "command",
    "configure_allocator",
    "exit_on_input_error",
    "failed_jobs",
    "instantiate",
    "is_multirun",
    "overridden_optics",
    "print_optics_differences",
    "print_to_stderr",
    "quote_value",
    "resolve_optics",
    "run_labels",
    "seed_everything",
    "swept_keys",
    "unquote_value",
]

_PACKAGE = Path(__file__).resolve().parents[1]
CONF_DIR = next(
    folder
    for folder in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf", _PACKAGE)
    if (folder / "train.yaml").is_file() or folder == _PACKAGE
)
"""The configuration: beside the package in a wheel, at the top of a checkout."""


IGNORED_OVERRIDES = ("sweep.", "resume", "hydra.", "output_dir", "data.root", "logger")
"""Beginnings of overrides that do not distinguish one run from another."""
ERROR_FILE = "error.json"
"""A failed job of a multirun leaves this file in its folder."""
DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ELOOP,
)  # fmt: skip
"""Faults of a disk or a path that the user can mend."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Constants of malloc.h."""
PARSING_ERRORS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError)
"""Errors that Hydra raises, beside its own, for a command line that it cannot parse."""
LONGEST_TAG, LONGEST_NAME = 64, 128
"""Characters that W&B takes."""
failed_jobs: list[str] = []
"""The folders of the multirun's failed jobs, once it has ended (:mod:`sfdfd.runs.comparison`)."""


def is_multirun() -> bool:
    """Return whether this is a job of a multirun."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def run_labels() -> dict[str, Any]:
    """Return how this run is labelled among others.

    Returns:
        ``name``: the experiment and the varied values; ``group``: the sweep's folder, None outside a sweep; ``tags``: the
        choices of experiment, data, network and loss.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {"name": None, "group": None, "tags": []}
    hydra = HydraConfig.get()
    choices = {key.lstrip("/"): value for key, value in hydra.runtime.choices.items()}
    tags = [str(choices[key])[:LONGEST_TAG] for key in ("experiment", "data", "network", "loss") if choices.get(key)]
    overrides = _distinguishing_overrides(hydra)
    words = [_short_override(override) for override in overrides]
    if choices.get("experiment") and not any(override.startswith("experiment=") for override in overrides):
        words.insert(0, choices["experiment"])
    return {
        "name": " ".join(words)[:LONGEST_NAME] or "train",
        "group": Path(hydra.sweep.dir).name if is_multirun() else None,
        "tags": list(dict.fromkeys(tags)),
    }


def _distinguishing_overrides(hydra: Any) -> list[str]:
    """Return the overrides that a multirun varies, else all that matter."""
    if is_multirun():
        swept = swept_keys(Path(hydra.sweep.dir))
        varied = [override for override in hydra.overrides.task if override.split("=", 1)[0] in swept]
        if varied:
            return varied
    return [override for override in hydra.overrides.task if not override.startswith(IGNORED_OVERRIDES)]


def _short_override(override: str) -> str:
    """``optimizer.lr=1e-3`` -> ``lr=1e-3``; ``experiment=NAME`` -> ``NAME``."""
    key, equals, value = override.lstrip("+").partition("=")
    return value if key == "experiment" else f"{key.rsplit('.', 1)[-1]}{equals}{unquote_value(value)}"


def unquote_value(value: str) -> str:
    """Return the value of an override without the quotes of Hydra's grammar.

    Examples:
        >>> unquote_value('"a folder"'), unquote_value("[1,2]")
        ('a folder', '[1,2]')
    """
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def quote_value(value: str) -> str:
    """Quote a path for Hydra's grammar, whatever characters it has (commas, brackets, =); a quoted one stays."""
    if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1:
        return value
    escaped = re.sub(r"(\\*)'", lambda match: 2 * match[1] + "\\'", value)  # backslashes count where a quote follows
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{trailing * chr(92)}'"


def swept_keys(folder: Path) -> set[str]:
    """Return the keys that a multirun varies, from the file that Hydra wrote into its folder."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    file = folder / "multirun.yaml"
    if not file.is_file():
        return set()
    overrides = OmegaConf.load(file).hydra.overrides.task  # type: ignore[union-attr] # a mapping
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {str(override.input_line).split("=", 1)[0] for override in parsed if override.is_sweep_override()}


def print_to_stderr(message: str) -> None:
    """Print a message to stderr as one line."""
    print(f"sfdfd: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def _with_run_folder(arguments: list[str]) -> list[str]:
    """Translate ``output_dir=X`` into Hydra's run folder, or the sweep's in a multirun: each run has one folder."""
    multirun = any(argument in ("-m", "--multirun") for argument in arguments)
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    translated = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "sweep.resume" and "=" in argument:
            translated += [argument, f"{key}={quote_value(value)}"]
        elif name == "output_dir" and "=" in argument:
            translated.append(f"{key}={quote_value(value)}")
        else:
            translated.append(argument)
    return translated


def _message_of(error: BaseException) -> str:
    """Return the lines of an error that help a user, without Hydra's references."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = ("full_key", "object_type", "reference_type", "set the environment variable", "error executing job")
    lines = [line for line in lines if not line.lower().startswith(noise)]
    return " ".join(lines) or type(error).__name__


def _user_message(error: BaseException) -> str | None:
    """Return one line about an error that the user can mend; None for a bug."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        advice = "; number the jobs instead: hydra.sweep.subdir='${hydra.job.num}'" if _by_overrides(error) else ""
        return f"{error.filename or 'output_dir'}: {error.strerror}{advice}"
    return _hydra_message(error)


def _hydra_message(error: BaseException) -> str | None:
    """Return one line about an error of Hydra; None for another error."""
    from hydra.errors import HydraException, InstantiationException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, InstantiationException):
        return _instantiation_message(error)
    if isinstance(error, OverrideParseException):
        return _unparsed_override(error.override, _message_of(error))
    if not isinstance(error, HydraException):
        return _message_of(error) if isinstance(error, OmegaConfBaseException) else None
    ambiguous = re.match(r"Ambiguous value for argument '(.*)'$", str(error).split("\n", 1)[0])
    if ambiguous:
        return _unparsed_override(ambiguous[1], "give -m for a sweep over its parts")
    if str(error).startswith("Error merging override") and error.__cause__:
        return f"{_message_of(error)}: {_message_of(error.__cause__)}"
    return _message_of(error)


def _instantiation_message(error: BaseException) -> str | None:
    """Return the first cause of a failed instantiation; None where it is a bug."""
    from hydra.errors import InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    cause: BaseException | None = error
    while isinstance(cause, InstantiationException):
        cause = cause.__cause__
    if cause is not None and not isinstance(cause, (ValueError, TypeError, MisconfigurationException)):
        return None
    return _message_of(cause or error)


def _by_overrides(error: OSError) -> bool:
    """Return whether a folder's name is too long because it lists a job's overrides (``hydra.job.override_dirname``)."""
    return error.errno == errno.ENAMETOOLONG and str(error.filename or "").count("=") > 1


def _unparsed_override(override: str, reason: str) -> str:
    """Return how to write an override that Hydra's grammar does not take."""
    key, equals, value = override.partition("=")
    if not equals or not value or value[0] in "[{'\"":
        return f"{override}: {reason}"
    text = shlex.quote(key + '="' + value.replace('"', '\\"') + '"')
    lines = [f"{key}: {value!r} cannot be read as it stands; where it is one text, quote it twice: {text}"]
    if "," in value:
        lines.append(f"where it is a list, '{key}=[{value}]'; where it is a sweep over its parts, give -m")
    return "; ".join(lines)


@contextmanager
def exit_on_input_error(composing: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """End with one line and exit code 2 on an error that the user can mend; let bugs through.

    Args:
        composing: whether the config is still being composed. The files are ours, so every error is about the command line.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("sfdfd: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = _user_message(error)
        if message is None and composing() and isinstance(error, PARSING_ERRORS):
            message = f"not a command line that can be read: {_message_of(error)}"
        if message is None:
            raise
        print_to_stderr(message)
        sys.exit(2)


def _run_job(function: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    """Run one job of a multirun; a failed one leaves ``error.json`` in its folder, and the others go on."""
    import traceback

    from hydra.core.hydra_config import HydraConfig

    from sfdfd.io.files import write_json

    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        return function(config)
    except Exception as error:
        message = _user_message(error)
        line = message or f"{type(error).__name__}: {error}"
        print_to_stderr(f"job {HydraConfig.get().job.num} failed: {line}")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / ERROR_FILE,
            {"error": " ".join(line.split()), "bug": traceback.format_exc() if message is None else None},
        )
        return None


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Turn a function of the composed config into a command.

    Bad input, an unknown key or a wrong value ends it with one line and exit code 2; a bug shows its traceback.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        begun: list[bool] = []

        def checked(config: DictConfig) -> Any:
            from omegaconf import OmegaConf

            from sfdfd.runs.config_checks import check_sections

            check_sections(OmegaConf.to_container(config), CONF_DIR, config_name)  # type: ignore[arg-type] # a mapping
            return function(config)

        @functools.wraps(function)
        def guarded(config: DictConfig) -> Any:
            begun.append(True)
            if is_multirun():
                return _run_job(checked, config)
            with exit_on_input_error():  # inside Hydra, which would print its own lines first
                return checked(config)

        @functools.wraps(function)
        def main() -> None:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")  # names of files may be no text
            if {"-h", "--help"} & set(sys.argv[1:]):
                _print_help(config_name)
                return
            begun.clear()
            with exit_on_input_error(lambda: not begun):
                _run_hydra(config_name, guarded, begun)
            if failed_jobs:
                sys.exit(1)

        return main

    return decorate


def _print_help(config_name: str) -> None:
    from sfdfd.runs.config_keys import help_text

    print(help_text(CONF_DIR, config_name), end="")


def _run_hydra(config_name: str, function: Callable[[DictConfig], Any], begun: list[bool]) -> None:
    """Let Hydra compose the config and call the function; ``begun`` is filled once it has."""
    import hydra

    from sfdfd.runs.config_checks import check_overrides

    configure_allocator()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads: idle threads leave the core to others
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors of composing reach us instead of being printed by Hydra
    failed_jobs.clear()
    check_overrides(sys.argv[1:])
    sys.argv[1:] = _with_run_folder(sys.argv[1:])
    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(function)()
    except SystemExit as stop:
        if stop.code == 2 and not begun:  # the parser of flags has printed its own lines
            print_to_stderr(f"not a flag that is known; python -m sfdfd.{config_name} --help has the keys")
        raise


def configure_allocator() -> None:
    """Let glibc keep a quarter of a gigabyte of freed memory, in pieces of up to 32 MiB.

    By default the kernel maps and clears such pieces anew as soon as one has been freed at the heap's end
    (docs/explanation/refinement.md). Other C libraries are left alone.
    """
    import ctypes

    with suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest that it takes
        mallopt(M_TRIM_THRESHOLD, 2**28)


def as_plain_dict(config: Any) -> Any:
    """Return a config node as plain Python, interpolations resolved."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def instantiate(node: Any, **more: Any) -> Any:
    """Build the object that a config node describes (``_target_``), with its containers as plain Python.

    Raises:
        InputError: the node has no ``_target_``, or a value of a wrong type.
    """
    import hydra.utils

    _check_node(node)
    if node.get("_target_") is None:
        raise InputError(
            f"{node._get_full_key(None)}: has no _target_, nothing can be built; give it one, or remove the whole node"
        )
    return hydra.utils.instantiate(node, _convert_="all", **more)


def _check_node(node: Any) -> None:
    """Check every value of a node, and of the nodes in it, against the arguments of its ``_target_``."""
    import hydra.utils
    from omegaconf import DictConfig

    from sfdfd.runs.config_checks import check_arguments

    if not isinstance(node, DictConfig):
        raise InputError(f"expected a mapping with _target_, got {node!r} where something is to be built")
    values = as_plain_dict(node)
    if not isinstance(values, dict):
        raise InputError(f"{node._get_full_key(None)}: expected a mapping with _target_, got {values!r}")
    for key, value in values.items():
        if isinstance(value, dict):
            _check_node(node[key])
    name = values.get("_target_")
    if name is None:
        return
    try:
        target = hydra.utils.get_object(name)
    except Exception:  # whatever an import raises
        raise InputError(f"{_users_key(node, '_target_')}: there is no class or function {name!r}") from None
    for key in ("_partial_", "_recursive_"):
        if not isinstance(values.get(key, True), bool):
            raise InputError(f"{_users_key(node, key)}: expected true or false, got {values[key]!r}")
    arguments = {str(key): value for key, value in values.items() if not str(key).startswith("_")}
    check_arguments(target, arguments, lambda key: _users_key(node, key))


def _users_key(node: DictConfig, key: str) -> str:
    """Return the key by which a user gives a value: the key that it follows where it is an interpolation."""
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(node, resolve=False)
    source = re.fullmatch(r"\$\{([a-z][\w.]*)\}", str(raw[key])) if isinstance(raw, dict) else None
    return source[1] if source else str(node._get_full_key(key))


def resolve_optics(config: DictConfig) -> None:
    """Give the model that trains the optics of its stacks.

    The command line comes first, then what all ``stack.yaml`` files agree on, then the defaults of ``data.optics``.

    Raises:
        InputError: one of the files is wrong, or they do not agree.
    """
    from sfdfd.datasets.common_optics import common_optics

    if config.data.get("optics") is None:
        return
    for key, value in common_optics(str(config.data.root), overridden_optics(config)).items():
        config.optics[key] = value


def overridden_optics(config: DictConfig) -> dict[str, Any]:
    """Return the blur options that the command line or an optics group sets; the others follow the data."""
    from omegaconf import OmegaConf

    from sfdfd.optics.blur_model import BLUR_KEYS

    overrides = {}
    for node in (config.optics, config.optics.get("renderer") or {}):
        for key in BLUR_KEYS:
            if key in node and not OmegaConf.is_interpolation(node, key) and node[key] is not None:
                overrides[key] = node[key]
    return overrides


def seed_everything(seed: Any) -> None:
    """Seed Python, NumPy and torch, and the loaders' workers.

    Raises:
        InputError: not a whole number that they all take.
    """
    import lightning

    lightning.seed_everything(checked_int(seed, "seed", 0, 2**32 - 1), workers=True, verbose=False)


def print_optics_differences(
    camera: Mapping[str, Any] | None,
    model_camera: Mapping[str, Any],
    sigma_scale: float | None = None,
    model_sigma_scale: float | None = None,
) -> bool:
    """Print one line to stderr where the data's optics and the model's differ; return whether they do."""
    pairs = [(key, value, model_camera.get(key)) for key, value in (camera or {}).items() if key != "_target_"]
    pairs.append(("sigma_scale", sigma_scale, model_sigma_scale))
    differences = [
        f"{key} {value:g} in the data (the model's is {model_value:g})"
        for key, value, model_value in pairs
        if value is not None and model_value is not None and not math.isclose(value, model_value, rel_tol=1e-6)
    ]
    if differences:
        print(f"sfdfd: the data's optics differ from the model's: {'; '.join(differences)}", file=sys.stderr)
    return bool(differences)
