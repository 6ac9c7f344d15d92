"""The command line around Hydra: run folders, and errors in words.

Only the commands and this file know Hydra. Nothing heavy is imported before a command really starts, so that ``--help``
answers at once.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfdfd.errors import InputError, checked_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "ASIDE",
    "CONF_DIR",
    "ERROR_FILE",
    "command",
    "configure_allocator",
    "failed_jobs",
    "instantiate",
    "is_multirun",
    "overridden_optics",
    "plain",
    "print_optics_differences",
    "quoted_path",
    "reported_errors",
    "resolve_optics",
    "run_name",
    "say",
    "seed_everything",
    "swept_keys",
    "unquoted",
]

_PACKAGE = Path(__file__).resolve().parents[1]
CONF_DIR = next(
    folder
    for folder in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf", _PACKAGE)
    if (folder / "train.yaml").is_file() or folder == _PACKAGE
)
"""The configuration: beside the package in a wheel, at the top of a checkout."""


ASIDE = ("sweep.", "ckpt_path", "hydra.", "output_dir", "data.root", "logger")
"""Overrides that tell no run from another."""
ERROR_FILE = "error.json"
"""What a job of a multirun that failed leaves."""
UNUSABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ELOOP,
)  # fmt: skip
"""What is wrong with a disk or a path, and not with us."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError)
"""What Hydra raises beside its own errors where it cannot read a command line."""
failed_jobs: list[str] = []
"""The folders of the multirun's jobs that failed, once it has ended (:mod:`sfdfd.runs.comparison`)."""


def is_multirun() -> bool:
    """Whether this is a job of a multirun."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def run_name() -> dict[str, Any]:
    """What this run is called where many are shown side by side: ``name`` (the experiment and what was varied), ``group``
    (the sweep's folder; None outside a sweep) and ``tags`` (the choices of experiment, data, network and loss)."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {"name": None, "group": None, "tags": []}
    hydra = HydraConfig.get()
    choices = {key.lstrip("/"): value for key, value in hydra.runtime.choices.items()}
    known = [choices.get(key) for key in ("experiment", "data", "network", "loss")]
    given = [one for one in hydra.overrides.task if not one.startswith(ASIDE)]
    if is_multirun():
        varied = swept_keys(Path(hydra.sweep.dir))
        given = [one for one in hydra.overrides.task if one.split("=", 1)[0] in varied] or given
    words = [one.split("=", 1)[-1] if one.startswith("experiment=") else _short(one) for one in given]
    if not any(one.startswith("experiment=") for one in given) and known[0]:
        words.insert(0, known[0])
    group = Path(hydra.sweep.dir).name if is_multirun() else None
    tags = list(dict.fromkeys(str(one)[:64] for one in known if one))  # W&B takes no longer ones
    return {"name": " ".join(words)[:128] or "train", "group": group, "tags": tags}


def _short(override: str) -> str:
    """``optimizer.lr=1e-3`` -> ``lr=1e-3``."""
    key, equals, value = override.lstrip("+").partition("=")
    return f"{key.rsplit('.', 1)[-1]}{equals}{unquoted(value)}"


def unquoted(value: str) -> str:
    """The value of an override without the quotes that Hydra's grammar needs.

    Examples:
        >>> unquoted('"a folder"'), unquoted("[1,2]")
        ('a folder', '[1,2]')
    """
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def swept_keys(folder: Path) -> set[str]:
    """The keys that a multirun varies, by what Hydra has written into its folder."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    file = folder / "multirun.yaml"
    if not file.is_file():
        return set()
    overrides = OmegaConf.load(file).hydra.overrides.task  # type: ignore[union-attr] # a mapping
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {str(one.input_line).split("=", 1)[0] for one in parsed if one.is_sweep_override()}


def say(message: str) -> None:
    """One line on stderr."""
    print(f"sfdfd: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def _fail(message: str) -> None:
    """One clear line and exit code 2."""
    say(message)
    sys.exit(2)


def _arguments(argv: list[str]) -> list[str]:
    """``output_dir=X`` names Hydra's run folder, or the sweep's in a multirun: there is one folder a run."""
    multirun = any(argument in ("-m", "--multirun") for argument in argv)
    argv = [more for a in argv for more in ([a, f"output_dir={a[13:]}"] if a.startswith("sweep.resume=") else [a])]
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    return [f"{key}={quoted_path(a.split('=', 1)[1])}" if a.startswith("output_dir=") else a for a in argv]


def quoted_path(path: str) -> str:
    """A path as Hydra's grammar takes any, whatever stands in it (commas, brackets, =); one that is quoted stays."""
    if path[:1] in ("'", '"') and path[-1:] == path[:1] and len(path) > 1:
        return path
    escaped = re.sub(r"(\\*)'", lambda found: 2 * found[1] + "\\'", path)  # backslashes count where a quote follows
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{trailing * chr(92)}'"


def _reason(error: BaseException) -> str:
    """The sentence of an error that a user can act on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = ("full_key", "object_type", "reference_type", "set the environment variable", "error executing job")
    lines = [line for line in lines if not line.lower().startswith(noise)]
    return " ".join(lines) or type(error).__name__


def _in_words(error: BaseException) -> str | None:
    """What the user can mend, in a line; None for a bug."""
    from hydra.errors import HydraException, InstantiationException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in UNUSABLE:
        help = "; number the jobs instead: hydra.sweep.subdir='${hydra.job.num}'" if _by_overrides(error) else ""
        return f"{error.filename or 'output_dir'}: {error.strerror}{help}"
    if isinstance(error, InstantiationException):
        cause: BaseException | None = error
        while isinstance(cause, InstantiationException):
            cause = cause.__cause__
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        if cause is not None and not isinstance(cause, (ValueError, TypeError, MisconfigurationException)):
            return None
        return _reason(cause or error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, _reason(error))
    ambiguous = re.match(r"Ambiguous value for argument '(.*)'$", str(error).split("\n", 1)[0])
    if isinstance(error, HydraException) and ambiguous:
        return _unreadable(ambiguous[1], "give -m for a sweep over its parts")
    if isinstance(error, HydraException) and str(error).startswith("Error merging override") and error.__cause__:
        return f"{_reason(error)}: {_reason(error.__cause__)}"
    return _reason(error) if isinstance(error, (HydraException, OmegaConfBaseException)) else None


def _by_overrides(error: OSError) -> bool:
    """Whether a folder's name is too long because it lists a job's overrides (``hydra.job.override_dirname``)."""
    return error.errno == errno.ENAMETOOLONG and str(error.filename or "").count("=") > 1


def _unreadable(override: str, reason: str) -> str:
    """What to write for an override that Hydra's grammar does not take as it stands."""
    key, equals, value = override.partition("=")
    if not equals or not value or value[0] in "[{'\"":
        return f"{override}: {reason}"
    text = shlex.quote(key + '="' + value.replace('"', '\\"') + '"')
    lines = [f"{key}: {value!r} cannot be read as it stands; where it is one text, quote it twice: {text}"]
    if "," in value:
        lines.append(f"where it is a list, '{key}=[{value}]'; where it is a sweep over its parts, give -m")
    return "; ".join(lines)


@contextmanager
def reported_errors(composing: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn what the user can mend into one line and exit code 2; let bugs through. While a config is still being composed,
    of files that are ours, whatever is raised is about the command line."""
    try:
        yield
    except KeyboardInterrupt:
        print("sfdfd: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        words = _in_words(error)
        if words is None and composing() and isinstance(error, UNREADABLE):
            words = f"not a command line that can be read: {_reason(error)}"
        if words is None:
            raise
        _fail(words)


def _job(function: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    """One job of a multirun: where it fails, it leaves ``error.json`` in its folder, and the others go on."""
    import traceback

    from hydra.core.hydra_config import HydraConfig

    from sfdfd.io.files import write_json

    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        return function(config)
    except Exception as error:
        words = _in_words(error)
        line = words or f"{type(error).__name__}: {error}"
        say(f"job {HydraConfig.get().job.num} failed: {line}")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / ERROR_FILE,
            {"error": " ".join(line.split()), "bug": traceback.format_exc() if words is None else None},
        )
        return None


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a command of a function of the composed config.

    Bad input, an unknown key or a wrong value ends it with one line and exit code 2; a bug still shows its traceback.
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
                return _job(checked, config)
            with reported_errors():  # inside Hydra, which would print its own lines first
                return checked(config)

        @functools.wraps(function)
        def main() -> None:
            import hydra

            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")  # names of files may be no text
            configure_allocator()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # errors of composing reach us instead of being printed by Hydra
            failed_jobs.clear()
            sys.argv[1:] = _arguments(sys.argv[1:])
            begun.clear()
            with reported_errors(lambda: not begun):
                try:
                    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(guarded)()
                except SystemExit as stop:
                    if stop.code == 2 and not begun:  # the parser of flags has printed its own lines
                        say(f"not a flag that is known; python -m sfdfd.{config_name} --help has the keys")
                    raise
            if failed_jobs:
                sys.exit(1)

        return main

    return decorate


def configure_allocator() -> None:
    """Let glibc keep a quarter of a gigabyte of what is freed, in pieces of up to 32 MiB: by default they are mapped and
    cleared by the kernel anew as soon as one has been freed at the heap's end (docs/refinement.md). Elsewhere nothing
    happens."""
    import ctypes

    with suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest that it takes
        mallopt(M_TRIM_THRESHOLD, 2**28)


def plain(config: Any) -> Any:
    """A config node as resolved plain Python."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def instantiate(node: Any, **more: Any) -> Any:
    """Build what a config node describes (``_target_``), with its containers as plain Python.

    Raises:
        InputError: it describes nothing that can be built, or has a value of a wrong type.
    """
    import hydra.utils

    _check_node(node)
    if node.get("_target_") is None:
        raise InputError(
            f"{node._get_full_key(None)}: has no _target_, nothing can be built; give it one, or remove the whole node"
        )
    return hydra.utils.instantiate(node, _convert_="all", **more)


def _check_node(node: Any) -> None:
    """Every value of a node, and of the nodes in it, against what its ``_target_`` takes."""
    import hydra.utils
    from omegaconf import DictConfig

    from sfdfd.runs.config_checks import check_arguments

    if not isinstance(node, DictConfig):
        raise InputError(f"expected a mapping with _target_, got {node!r} where something is to be built")
    values = plain(node)
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
        raise InputError(f"{_said_as(node, '_target_')}: there is no class or function {name!r}") from None
    for key in ("_partial_", "_recursive_"):
        if not isinstance(values.get(key, True), bool):
            raise InputError(f"{_said_as(node, key)}: expected true or false, got {values[key]!r}")
    given = {str(key): value for key, value in values.items() if not str(key).startswith("_")}
    check_arguments(target, given, lambda key: _said_as(node, key))


def _said_as(node: DictConfig, key: str) -> str:
    """The key by which a user gives a value: where it only follows another key, that one."""
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(node, resolve=False)
    followed = re.fullmatch(r"\$\{([a-z][\w.]*)\}", str(raw[key])) if isinstance(raw, dict) else None
    return followed[1] if followed else str(node._get_full_key(key))


def resolve_optics(config: DictConfig) -> None:
    """Give the model that trains the optics of its stacks (``data.optics``): what all ``stack.yaml`` files say comes before
    that default, and what the command line says before both.

    Raises:
        InputError: one of the files is wrong, or they do not agree.
    """
    from sfdfd.datasets.common_optics import common_optics

    if config.data.get("optics") is None:
        return
    for key, value in common_optics(str(config.data.root), overridden_optics(config)).items():
        config.optics[key] = value


def overridden_optics(config: DictConfig) -> dict[str, Any]:
    """Return what the command line or an optics group says of the blur itself, where the rest follows the data."""
    from omegaconf import OmegaConf

    from sfdfd.optics.blur_model import BLUR_KEYS

    told = {}
    for node in (config.optics, config.optics.get("renderer") or {}):
        for key in BLUR_KEYS:
            if key in node and not OmegaConf.is_interpolation(node, key) and node[key] is not None:
                told[key] = node[key]
    return told


def seed_everything(seed: Any) -> None:
    """Seed Python, NumPy and torch, and the loaders' workers.

    Raises:
        InputError: not a whole number that they all take.
    """
    import lightning

    lightning.seed_everything(checked_whole(seed, "seed", 0, 2**32 - 1), workers=True, verbose=False)


def print_optics_differences(
    camera: Mapping[str, Any] | None,
    model_camera: Mapping[str, Any],
    sigma_scale: float | None = None,
    model_sigma_scale: float | None = None,
) -> bool:
    """One line on stderr where the data's optics and the model's are not the same; true if there was one."""
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
