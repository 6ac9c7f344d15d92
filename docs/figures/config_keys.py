"""A hook of mkdocs: docs/reference/config_keys.md lists every key of conf/, with type, default and meaning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from hydra.utils import get_object

from sfdfd.runs.command import CONF_DIR
from sfdfd.runs.config_checks import annotations_of, describe_type
from sfdfd.runs.config_keys import ConfigKey, format_default, groups_of, keys_of, own_keys, summary_of

PAGE = "reference/config_keys.md"
CHOICES_ONLY = ("experiment",)
"""Groups whose options set keys of other groups."""
NUMBER, WHOLE, TEXT, LIST = "a number", "a whole number", "text", "a list"
OPTIONAL = {
    **dict.fromkeys(("threads", "steps", "warmup_steps", "stacks"), WHOLE),
    **dict.fromkeys(
        ("focal_length_m", "f_number", "pixel_pitch_m", "near_m", "far_m", "focus_distance_unit_m"), NUMBER
    ),
    **dict.fromkeys(("focus_m", "focus", "timeout_s"), NUMBER),
    **dict.fromkeys(("files", "crop", "focus_distances_m"), LIST),
    **dict.fromkeys(("frames", "holdout"), f"{WHOLE} or {LIST}"),
    "focus_distances_std": f"{NUMBER} or {LIST}",
    "cluster": f"{WHOLE} or {TEXT}",
    "outputs": f"{TEXT} or {LIST}",
}
"""Types of command keys that are null by default; the others are text."""
AUTOMATIC = {"working_px": WHOLE, "slices": WHOLE, "mode": "true or false", "open": "true or false"}
"""Types of keys that are "auto" by default, beside text."""


def meaning_of(key: ConfigKey) -> str:
    """Return the comment of a key, else what the docstring of its class says of the argument."""
    if key.meaning:
        return key.meaning
    source = re.fullmatch(r"\$\{([\w.]+)\}", str(key.default))
    if source:
        return f"follows `{source[1]}`"
    if not key.target:
        return ""
    target = get_object(key.target)
    argument = key.name.rpartition(".")[2]
    for documented in inspect.getmro(target) if inspect.isclass(target) else [target]:
        for names, text in arguments_in(inspect.getdoc(documented) or ""):
            if argument in names:
                return text
    return ""


def arguments_in(docstring: str) -> list[tuple[list[str], str]]:
    """Return (names, explanation) of each entry under Args or Attributes of a Google-style docstring."""
    entries = []
    for section in re.findall(r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)", docstring, re.MULTILINE):
        for names, text in re.findall(r"^ {4}(\w[\w, ]*): ((?:.*\n?)(?:^ {5,}.*\n?)*)", section, re.MULTILINE):
            entries.append((re.split(r",\s*", names), " ".join(text.split()).rstrip(".")))
    return entries


def type_of(key: ConfigKey) -> str:
    """Return the type by the annotation of the class's argument, else by the default and the tables above."""
    argument = key.name.rpartition(".")[2]
    annotation = annotations_of(get_object(key.target)).get(argument) if key.target else None
    if annotation is not None and annotation is not Any:
        return " or ".join(dict.fromkeys(describe_type(annotation)))
    if key.default is None:
        return f"{OPTIONAL.get(argument, TEXT)} or null"
    if key.default == "???" or is_interpolation(key.default):
        return OPTIONAL.get(argument, TEXT)
    if key.default == "auto" and argument in AUTOMATIC:
        return f"{AUTOMATIC[argument]} or {TEXT}"
    return describe_type(type(key.default))[0]


def is_interpolation(default: Any) -> bool:
    return isinstance(default, str) and default.startswith("${")


def cell(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def code(value: Any) -> str:
    return f"`{cell(format_default(value))}`"


def table(keys: Iterable[tuple[ConfigKey, str]], package: str = "") -> list[str]:
    """Return a table of (key, its default as text)."""
    rows = [
        f"| `{package}{key.name}` | {cell(type_of(key))} | {default} | {cell(meaning_of(key))} |"
        for key, default in keys
    ]
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]


def keys_of_group(group: str, options: list[str]) -> list[tuple[ConfigKey, str]]:
    """Return every key of a group's options, with the defaults of all options as text."""
    keys: dict[str, list[ConfigKey]] = {}
    defaults: dict[str, dict[str, list[str]]] = {}
    for option in options:
        for key in keys_of(CONF_DIR, group, option):
            keys.setdefault(key.name, []).append(key)
            defaults.setdefault(key.name, {}).setdefault(code(key.default), []).append(option)
    return [(telling_key(candidates), defaults_by_option(defaults[name])) for name, candidates in keys.items()]


def telling_key(keys: list[ConfigKey]) -> ConfigKey:
    """Return the key of the option that says most: a meaning, a class, a default that shows the type."""
    return max(
        keys,
        key=lambda key: (
            bool(key.meaning),
            bool(key.target),
            key.default is not None,
            not is_interpolation(key.default),
        ),
    )


def defaults_by_option(options: dict[str, list[str]]) -> str:
    """Return the usual default, and the others with the options that have them."""
    if len(options) == 1:
        return next(iter(options))
    usual = max(options, key=lambda value: len(options[value]))
    others = [f"{value} ({', '.join(names)})" for value, names in options.items() if value != usual]
    return "; ".join([usual if len(options[usual]) > 1 else f"{usual} ({options[usual][0]})", *others])


def tables() -> str:
    """Return the commands with their keys, then the groups with their options and keys."""
    commands = sorted(path.stem for path in CONF_DIR.glob("*.yaml"))
    lines = ["", "## Commands", ""]
    for command in commands:
        groups = [
            f"`{name}`" + (f" ({default})" if default else "") for name, default in groups_of(CONF_DIR, command).items()
        ]
        lines += [f"### {command}", ""]
        lines += [f"Groups, with the options that are chosen by default: {', '.join(groups)}.", ""] if groups else []
        lines += table((key, code(key.default)) for key in own_keys(CONF_DIR, command))
    lines += ["## Groups", ""]
    for group in dict.fromkeys(group for command in commands for group in groups_of(CONF_DIR, command)):
        folder, _, package = group.partition("@")
        files = {file.stem: file for file in sorted((CONF_DIR / folder).glob("*.yaml"))}
        lines += [f"### {folder}", "", f"| `{group}=` | |", "|---|---|"]
        lines += [f"| `{name}` | {cell(summary_of(file))} |" for name, file in files.items()] + [""]
        if group not in CHOICES_ONLY:
            lines += table(keys_of_group(folder, list(files)), f"{package or folder}.")
    return "\n".join(lines)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return markdown + tables() if page.file.src_uri == PAGE else markdown
