"""What a page names that does not exist: commands, configuration keys, files, tests and symbols."""

import builtins
import functools
import importlib
import inspect
import re
import shlex
from pathlib import Path

from sfdfd.runs.command import CONF_DIR
from sfdfd.runs.config_keys import keys_of, own_keys

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "sfdfd"
COMMANDS = sorted(file.stem for file in CONF_DIR.glob("*.yaml"))
WITHOUT_CONFIG = ("compare",)
PLACEHOLDER = re.compile(r"^[A-Z][A-Z0-9_]*$")
"""What a reader replaces: DIR, NAME, PATH."""
NOT_OURS = ("hydra", "logger.wandb")
"""Keys that other libraries read."""
ADDED = ("callbacks.checkpoint.last_every_s", "loss.curvature")
"""Keys that a page adds: an argument that no file sets, and what its reader writes."""
OF_FILES = {"truth", "run", "protocol", "camera", "left_out", "model", "scenes", "refinement", "io", "datasets"}
"""First parts of keys of JSON and YAML files, and of packages, that look like configuration keys without a value."""


def spans(text: str) -> list[str]:
    """Return what stands between backticks in a line, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


# ------------------------------------------------------------------------------------------------ commands


def command_lines(text: str) -> list[str]:
    """Return every command of the package, whole, from blocks and from within sentences."""
    lines = [line for block in blocks(text, "(?:bash|console)") for line in block.replace("\\\n", " ").splitlines()]
    lines = [line.strip().removeprefix("$ ") for line in [*lines, *(span.replace("\\|", "|") for span in spans(text))]]
    return [line for line in lines if re.search(r"-m sfdfd\.\w|^make [a-z]|python (benchmarks|docs|notebooks)/", line)]


def wrong_commands(text: str) -> list[str]:
    """Return each command whose module, make target, script or overrides do not exist, with the reason."""
    wrong = []
    for line in command_lines(text):
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            wrong += [f"{line}: no target {word}" for word in words[1:] if "=" not in word and word not in targets]
        elif "-m" not in words:
            wrong += [f"{line}: no {word}" for word in words if word.endswith(".py") and not (ROOT / word).is_file()]
        else:
            wrong += _wrong_module(line, words[words.index("-m") + 1 :])
    return wrong


def _wrong_module(line: str, words: list[str]) -> list[str]:
    command, overrides = words[0].removeprefix("sfdfd."), [_first_choice(word) for word in words[1:]]
    if command in ("COMMAND", *WITHOUT_CONFIG):
        return []
    if command not in COMMANDS:
        return [f"{line}: no command {command}"]
    wrong = []
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or key.startswith(("+", "~", *NOT_OURS)) or PLACEHOLDER.match(value):
            continue
        if (CONF_DIR / key.partition("@")[0]).is_dir():
            options = value.strip("[]").split(",")
            wrong += [f"{line}: no {key}={one}" for one in options if not (CONF_DIR / key / f"{one}.yaml").is_file()]
        elif not _is_key(key):
            wrong.append(f"{line}: nothing reads {key}")
    return wrong


def _first_choice(word: str) -> str:
    """Return an override with the first of the values that a sweep gives it."""
    key, equals, value = word.partition("=")
    if not equals or value[:1] in "[{'\"":
        return word if not re.match(r"\[[^]]*\],", value) else f"{key}={value[: value.index(']') + 1]}"
    return f"{key}={value.split(',')[0]}"


# ------------------------------------------------------------------------------------------------ keys


@functools.cache
def config_keys() -> frozenset[str]:
    """Return every key of every command and of every option of every group, dotted, and the groups."""
    keys = {key.name for command in COMMANDS for key in own_keys(CONF_DIR, command)}
    for file in CONF_DIR.rglob("*.yaml"):
        group = file.parent.relative_to(CONF_DIR).as_posix()
        if group == "." or "base" in file.parts or group.split("/")[0] in ("hydra", "space", "recipe"):
            continue
        keys.add(group)
        prefix = "" if group == "experiment" else f"{group.replace('/', '.')}."
        keys |= {prefix + key.name for key in keys_of(CONF_DIR, group, file.stem)}
    keys |= {key.replace("optics.renderer.", "optics.") for key in keys}
    keys |= {key.replace("optics.camera.", name) for key in keys for name in ("data.camera.", "camera.")}
    keys |= {f"data.renderer.{key.removeprefix('optics.')}" for key in keys if key.startswith("optics.")}
    return frozenset(keys)


@functools.cache
def short_keys() -> frozenset[str]:
    """Return last parts of keys, and arguments of functions: what a sentence may write without its group."""
    arguments = set()
    for file in SOURCE.rglob("*.py"):
        arguments |= set(re.findall(r"^\s+(\w+)\s*:", file.read_text(), re.MULTILINE))
        for given in re.findall(r"def \w+\((.*?)\)(?: ->|:)", file.read_text(), re.DOTALL):
            arguments |= set(re.findall(r"(\w+)\s*[:=,)]", given + ")"))
    return frozenset({key.rpartition(".")[2] for key in config_keys()} | arguments)


def wrong_keys(text: str) -> list[str]:
    """Return each ``key=value``, and each dotted key, that nothing reads."""
    wrong, groups = [], {key.partition(".")[0] for key in config_keys() if "." in key} - OF_FILES
    for span in spans(text):
        if "python" in span or " -m " in span or "(" in span:
            continue
        for word in re.split(r"\s+", span.strip("'")):
            key, equals, _ = word.lstrip("+~'").partition("=")
            if not re.fullmatch(r"[a-z]\w*(?:[./@][a-z]\w*)*(?:\.\*)?", key) or key.startswith(NOT_OURS):
                continue
            dotted = "." in key and "/" not in key
            if not equals and not (dotted and key.partition(".")[0] in groups):
                continue
            if re.search(r"\.(py|md|json|yaml|png|npy|csv|html|ckpt|txt|db|pt|toml|onnx)$", key):
                continue
            if not _is_key(key):
                wrong.append(f"{span}: nothing reads {key}")
    return wrong


def _is_key(key: str) -> bool:
    if key.endswith(".*"):
        return any(name.startswith(key[:-1]) for name in config_keys())
    if "@" in key or "/" in key:
        return (CONF_DIR / key.partition("@")[0]).is_dir()
    known = config_keys()
    inside = any(name.startswith(f"{key}.") for name in known)
    return key in known or key in ADDED or inside or ("." not in key and key in short_keys()) or _is_of_trainer(key)


def _is_of_trainer(key: str) -> bool:
    """Whether Lightning's trainer or strategy has the argument."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import FSDPStrategy

    owner, _, name = key.rpartition(".")
    owners = {"trainer": Trainer, "trainer.strategy": FSDPStrategy}
    return owner in owners and name in inspect.signature(owners[owner]).parameters


# ------------------------------------------------------------------------------------------------ files and tests


def wrong_files(text: str) -> list[str]:
    """Return each file of the repository that does not exist; paths may begin below src/sfdfd."""
    folders = {path.name for place in (ROOT, SOURCE) for path in place.iterdir() if path.is_dir()}
    wrong = []
    for span in spans(text):
        if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)*\.(?:py|md|json|yaml|yml|toml|ipynb)", span):
            continue
        if re.search(r"NAME|YYYY", span) or ("/" in span and span.partition("/")[0] not in folders):
            continue
        if "/" not in span and not span.endswith(".py"):
            continue  # files that commands write
        places = (ROOT / span, SOURCE / span)
        if not any(place.exists() for place in places) and not ("/" not in span and any(_named(span))):
            wrong.append(f"no file {span}")
    return wrong


@functools.cache
def _named(name: str) -> list[Path]:
    return [path for folder in ("src", "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob(name)]


@functools.cache
def existing_tests() -> dict[str, set[str]]:
    """Return the names of the tests in each file."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {file.name: set(re.findall(r"def (test_\w+)", file.read_text())) for file in files}


def wrong_tests(text: str) -> list[str]:
    """Return each test, and each test of a file, that does not exist; what a diff adds is not there yet."""
    tests, wrong = existing_tests(), []
    text = re.sub(r"```diff.*?```", "", text, flags=re.DOTALL)
    for file, name in re.findall(r"\b(test_\w+\.py)(?:::(test_\w+))?", text):
        if "NAME" not in file and (file not in tests or (name and name not in tests[file])):
            wrong.append(f"no test {file}::{name}")
    names = {span for span in spans(text) if re.fullmatch(r"test_\w+", span)}
    return [*wrong, *(f"no test {name}" for name in names - set().union(*tests.values()))]


# ------------------------------------------------------------------------------------------------ symbols


@functools.cache
def source_text() -> str:
    return "\n".join(file.read_text() for file in sorted(SOURCE.rglob("*.py")))


def wrong_symbols(text: str) -> list[str]:
    """Return each module, class, attribute or imported name of the package that does not exist."""
    wrong = []
    for module, names in re.findall(r"from (sfdfd[\w.]*) import ([\w, ]+)", "\n".join(blocks(text, "python"))):
        wrong += [
            f"{module} has no {name}" for name in re.split(r",\s*", names.strip()) if not _exists(f"{module}.{name}")
        ]
    for span in spans(text):
        name = re.sub(r"\(.*\)$", "", span)
        if re.fullmatch(r"sfdfd(?:\.\w+)+", name):
            found = _exists(name)
        elif re.fullmatch(r"[A-Z][a-z]\w*[A-Z]?\w*(?:\.\w+)?", name) and not hasattr(builtins, name):
            class_, _, attribute = name.partition(".")
            found = not re.search(r"[a-z][A-Z]|\.", name) or _has(class_, attribute)
        elif re.fullmatch(r"[a-z]\w*_\w+", name) and span.endswith(")"):
            found = re.search(rf"\bdef {name}\b", source_text()) is not None
        else:
            continue
        if not found:
            wrong.append(f"no symbol {span}")
    return wrong


def _exists(name: str) -> bool:
    try:
        importlib.import_module(name)
        return True
    except ImportError:
        module, _, attribute = name.rpartition(".")
        try:
            return hasattr(importlib.import_module(module), attribute)
        except ImportError:
            return False


def _has(class_: str, attribute: str) -> bool:
    """Whether some module of the package defines, or takes from a library, the class and its attribute."""
    if not re.search(rf"\b{class_}\b", source_text()):
        return False
    return (
        not attribute
        or re.search(rf"(?:def {attribute}\b|^\s+{attribute}\s*:)", source_text(), re.MULTILINE) is not None
    )


CHECKS = {
    "commands": wrong_commands,
    "keys": wrong_keys,
    "files": wrong_files,
    "tests": wrong_tests,
    "symbols": wrong_symbols,
}
