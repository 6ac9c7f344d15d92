"""Composed configs against what they are read as: a section that is none and a value of a wrong type are said by their keys,
before anything is made."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import yaml

from sfdfd.errors import InputError

__all__ = ["check_arguments", "check_sections"]

GROUPS = ("data", "optics", "network", "loss", "optimizer", "trainer", "module", "optics.renderer", "optics.camera")
"""What is a mapping wherever it is."""
OPEN = ("data.renderer", "data.camera", "data.sensor", "data.optics")
"""What is one, or null."""
LISTED = ("logger", "callbacks")
"""What holds mappings by name, or is null."""

SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
LISTS = (Sequence, Iterable, list, tuple)


def check_arguments(target: Callable[..., Any], given: Mapping[str, Any], named: Callable[[str], str]) -> None:
    """Refuse plain values (numbers, text, lists, mappings) that a class or function does not take.

    Args:
        target: whose annotations count; those that are no plain types say nothing of mappings.
        given: argument -> value.
        named: argument -> the key by which a user gives it.

    Raises:
        InputError: a value is of another type.
    """
    hints = _hints(target)
    for key, value in given.items():
        hint = hints.get(key, Any)
        if not _fits(value, hint):
            wanted = ", ".join(dict.fromkeys(_words(hint)))
            raise InputError(f"{named(key)}: expected {wanted}, got {str(value)[:80]!r}")


def check_sections(config: Mapping[str, Any], folder: Path, name: str) -> None:
    """Refuse a config that lacks a key which the command's own file has, or has a value in the place of a section.

    Args:
        config: composed, as plain containers.
        folder: of the configuration.
        name: of the command's file there.

    Raises:
        InputError: so.
    """
    _check_like(config, _own_keys(folder, name), "")
    for key in (*GROUPS, *OPEN):
        value: Any = config
        for part in key.split("."):
            value = value.get(part, {}) if isinstance(value, Mapping) else {}
        following = isinstance(value, str) and value.startswith("${")
        if not isinstance(value, Mapping) and not following and not (value is None and key in OPEN):
            raise InputError(f"{key}: expected a mapping, got {value!r}; give one of its keys: {key}.KEY=VALUE")
    for key in LISTED:
        named = config.get(key) or {}
        for name, value in named.items() if isinstance(named, Mapping) else [("NAME", named)]:
            if not isinstance(value, Mapping):
                raise InputError(f"{key}.{name}: expected a mapping with _target_, got {value!r}")


def _own_keys(folder: Path, name: str) -> dict[str, Any]:
    """What a command's file has, and the files that it takes in."""
    content = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    keys: dict[str, Any] = {}
    for one in content.pop("defaults", []):
        if isinstance(one, str) and one.endswith("@_here_"):
            keys |= _own_keys(folder, one.removesuffix("@_here_"))
    content.pop("hydra", None)
    return keys | content


def _check_like(config: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str) -> None:
    for key, value in wanted.items():
        if key not in config:
            raise InputError(f"{prefix}{key}: it is needed; leave ~{prefix}{key} out")
        section = isinstance(value, dict) and value and "_target_" not in value
        if section and not isinstance(config[key], Mapping):
            raise InputError(f"{prefix}{key}: expected a mapping with {', '.join(value)}, got {config[key]!r}")
        if section:
            _check_like(config[key], value, f"{prefix}{key}.")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Argument -> annotation, those of base classes that the arguments are handed on to included."""
    functions = [one.__init__ for one in target.__mro__] if inspect.isclass(target) else [target]  # type: ignore[misc]
    hints: dict[str, Any] = {}
    for function in functions:
        scope = vars(inspect.getmodule(function) or types)
        for key, hint in getattr(function, "__annotations__", {}).items():
            if key not in hints:
                try:
                    hints[key] = eval(hint, scope) if isinstance(hint, str) else hint  # our own source
                except Exception:  # of what is imported for type checkers alone
                    hints[key] = Any
    return hints


def _parts(hint: Any) -> list[Any]:
    """The members of a union, else the hint alone."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [part for one in typing.get_args(hint) for part in _parts(one)]
    return [type(None) if hint is None else hint]


def _fits(value: Any, hint: Any) -> bool:
    return any(_fits_part(value, part) for part in _parts(hint))


def _fits_part(value: Any, part: Any) -> bool:
    origin, inner = typing.get_origin(part) or part, typing.get_args(part)
    if origin is Literal:
        return value in inner
    if isinstance(value, Mapping):
        return origin not in SCALARS and origin not in LISTS and origin is not Path
    if origin in SCALARS:
        number = origin is float and isinstance(value, int) and not isinstance(value, bool)
        return number or type(value) is origin
    if origin is Path:
        return isinstance(value, str)
    if isinstance(value, list):
        elements = inner[0] if inner else Any
        same = len(inner) == 1 or inner[1:] == (...,)
        return origin not in (Mapping, dict) and (
            origin not in LISTS or not same or all(_fits(one, elements) for one in value)
        )
    return origin is Any or isinstance(part, typing.TypeVar)


def _words(hint: Any) -> list[str]:
    words = []
    for part in _parts(hint):
        origin, inner = typing.get_origin(part) or part, typing.get_args(part)
        if origin is Literal:
            words += [str(one) for one in inner]
        elif origin in LISTS:
            words.append("a list")
        elif origin is Path:
            words.append("a path")
        else:
            words.append(SCALARS.get(origin, "a mapping"))
    return words
