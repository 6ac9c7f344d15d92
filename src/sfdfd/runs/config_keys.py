"""Read the keys of conf/ with their defaults and comments, for ``--help`` and the reference page.

The files are read as YAML, without Hydra, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

__all__ = ["ConfigKey", "format_default", "groups_of", "help_text", "keys_of", "own_keys", "raw_content", "summary_of"]

WIDTH = 120
TARGET = "_target_"
FOOTER = """\
More
  GROUP.KEY=VALUE      set any key of a chosen option; docs/reference/config_keys.md lists them
  --cfg job            show the composed configuration and end
  -m KEY=A,B           run every combination (multirun)
  --help               show this text"""


@dataclass(frozen=True)
class ConfigKey:
    """One key of the configuration.

    Attributes:
        name: dotted, from the top.
        default: as the file has it, interpolations unresolved.
        meaning: the comment beside it or above it; empty without one.
        target: the ``_target_`` of the mapping that holds it; empty without one.
    """

    name: str
    default: Any
    meaning: str = ""
    target: str = ""


def own_keys(folder: Path, command: str) -> list[ConfigKey]:
    """Return the keys of a command's file and of the bases that it takes in (``@_here_``), without Hydra's own."""
    keys = {key.name: key for key in _keys_in(folder / f"{command}.yaml") if not key.name.endswith(TARGET)}
    for entry in _defaults(folder / f"{command}.yaml"):
        if isinstance(entry, str) and entry.endswith("@_here_"):
            for key in own_keys(folder, entry.removesuffix("@_here_")):
                keys.setdefault(key.name, key)
    return list(keys.values())


def keys_of(folder: Path, group: str, option: str) -> list[ConfigKey]:
    """Return every key that an option of a group sets, by its name within the group; bases and defaults included."""
    keys = _composed(folder, group, option)
    targets = {name.removesuffix(TARGET): key.default for name, key in keys.items() if name.endswith(TARGET)}
    return [
        replace(key, target=targets.get(f"{name.rpartition('.')[0]}.".lstrip("."), ""))
        for name, key in keys.items()
        if not name.endswith(TARGET)
    ]


def _composed(folder: Path, group: str, option: str) -> dict[str, ConfigKey]:
    """Compose as Hydra does: entries of the defaults list in order, the file's own keys last (or at ``_self_``)."""
    file = folder / group / f"{option}.yaml"
    entries = _defaults(file)
    keys: dict[str, ConfigKey] = {}
    for entry in entries if "_self_" in entries else [*entries, "_self_"]:
        if entry == "_self_":
            _merge(keys, _keys_in(file))
        else:
            _take_in(keys, folder, group, entry)
    return keys


def _take_in(keys: dict[str, ConfigKey], folder: Path, group: str, entry: str | dict[str, str]) -> None:
    """Merge the file of an entry of a defaults list: ``FILE@PACKAGE``, or ``GROUP@PACKAGE: OPTION``."""
    if isinstance(entry, str):
        path, _, package = entry.partition("@")
    else:
        (name, option), *_ = entry.items()
        within, _, package = name.removeprefix("override ").partition("@")
        path, package = f"{within}/{option}", package or within
        if name.startswith("override "):
            for overridden in [key for key in keys if key.startswith(f"{package}.")]:
                del keys[overridden]
    whole = path[1:] if path.startswith("/") else f"{group}/{path}"
    below, _, option = whole.rpartition("/")
    _merge(keys, _composed(folder, below, option).values(), "" if package in ("", "_here_") else f"{package}.")


def _merge(keys: dict[str, ConfigKey], more: Iterable[ConfigKey], prefix: str = "") -> None:
    """Add keys, or replace their defaults; the first meaning that was given stays."""
    for key in more:
        name = f"{prefix}{key.name}"
        before = keys.get(name, ConfigKey(name, None))
        keys[name] = replace(key, name=name, meaning=before.meaning or key.meaning)
        for parent in [parent for parent in keys if name.startswith(f"{parent}.")]:  # a mapping takes its place
            del keys[parent]


def raw_content(file: Path) -> dict[str, Any]:
    """Return the content of a config file, without composing it."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _defaults(file: Path) -> list[Any]:
    return raw_content(file).get("defaults", [])


def _keys_in(file: Path) -> Iterator[ConfigKey]:
    """Yield the keys that a file itself sets."""
    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text, yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        nodes = [(key, value) for key, value in root.value if key.value not in ("defaults", "hydra")]
        yield from _keys_below(nodes, text.splitlines(), "", "")


def _keys_below(nodes: list[Any], lines: list[str], prefix: str, above: str) -> Iterator[ConfigKey]:
    target = next((value.value for key, value in nodes if key.value == TARGET), "")
    for key, value in nodes:
        if key.value == "_partial_":
            continue
        name, meaning = f"{prefix}{key.value}", _comment(key, value, lines) or above
        if isinstance(value, yaml.MappingNode) and value.value and not _is_leaf(value):
            # the entries of a mapping in one line share its comment
            yield from _keys_below(value.value, lines, f"{name}.", meaning if value.flow_style else "")
        else:
            yield ConfigKey(name, _plain_value(value), meaning, target)


def _is_leaf(value: Any) -> bool:
    """Whether a mapping is one value: how tune varies a key."""
    return {"low", "choices"} & {key.value for key, _ in value.value} != set()


def _plain_value(node: Any) -> Any:
    loader = yaml.SafeLoader("")
    return loader.construct_object(node, deep=True)


def _comment(key: Any, value: Any, lines: list[str]) -> str:
    """Return the comment behind a value (or behind the key of a block), else the comment lines above the key."""
    block = isinstance(value, yaml.MappingNode) and not value.flow_style
    mark = key.end_mark if block else value.end_mark
    rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    behind = re.match(r"[:,}\]\s]*#\s*(.*)", rest)
    if behind:
        return behind[1].strip()
    above: list[str] = []
    line = key.start_mark.line - 1
    while line >= 0 and key.start_mark.column == len(lines[line]) - len(lines[line].lstrip()):
        if not lines[line].lstrip().startswith("#"):
            break
        above.insert(0, lines[line].lstrip("# ").strip())
        line -= 1
    # a comment at the top of the file is about the file
    return " ".join(above) if line >= 0 else ""


def summary_of(file: Path) -> str:
    """Return the first sentence of an option's file."""
    comments = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            comments.append(line.lstrip("# "))
    return re.split(r"(?<=[.])\s+(?=[A-Z`\"0-9])", " ".join(comments), maxsplit=1)[0].removesuffix(".")


def groups_of(folder: Path, command: str) -> dict[str, str | None]:
    """Return the groups that a command composes, each with the option that is taken by default."""
    groups: dict[str, str | None] = {}
    for entry in _defaults(folder / f"{command}.yaml"):
        if isinstance(entry, dict):
            groups |= {
                name.lstrip("/"): ",".join(choice) if isinstance(choice, list) else choice
                for name, choice in entry.items()
                if not name.startswith("override ")
            }
        elif entry.endswith("@_here_"):
            groups |= groups_of(folder, entry.removesuffix("@_here_"))
    if "data" in groups:
        groups["optics/camera@data.camera"] = None
    return groups


def format_default(value: Any) -> str:
    """Write a default as one types it on the command line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_default(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(format_default(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) or "''"


def help_text(folder: Path, command: str) -> str:
    """Return what ``python -m sfdfd.COMMAND --help`` prints: header and examples of its file, its keys, its groups."""
    lines = [
        raw_content(folder / f"{command}.yaml")["hydra"]["help"]["header"].rstrip(),
        "",
        "Keys, with their defaults",
    ]
    for key in own_keys(folder, command):
        unset = {"output_dir": "DIR"}.get(key.name, "NAME") if str(key.default).startswith("${hydra:") else None
        lines += _columns(f"{key.name}={unset or format_default(key.default)}", key.meaning, 34)
    for group, default in groups_of(folder, command).items():
        lines += ["", f"{group}=NAME" + (f" (default {default})" if default else "")]
        for file in sorted((folder / group.partition("@")[0]).glob("*.yaml")):
            if group != "experiment" or not file.stem.endswith("_paper"):
                summary = textwrap.shorten(summary_of(file), WIDTH - 26, placeholder=" ...")
                lines += _columns(file.stem, summary, 26)
        if group == "experiment":
            lines += _columns(
                "..._paper", "the published ones with the published network, head, losses and optimizer", 26
            )
    return "\n".join([*lines, "", FOOTER]) + "\n"


def _columns(left: str, right: str, indent: int) -> list[str]:
    """Set a word and its explanation in two columns; a long word stands on a line of its own."""
    wrapped = textwrap.wrap(right, WIDTH - indent) or [""]
    if len(left) + 4 > indent:
        return [f"  {left}", *(" " * indent + line for line in wrapped if line)]
    return [f"  {left}".ljust(indent) + wrapped[0], *(" " * indent + line for line in wrapped[1:])]
