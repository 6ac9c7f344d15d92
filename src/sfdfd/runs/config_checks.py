"""Validate command lines and composed configs before anything is built, and report errors by key."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from sfdfd.errors import InputError
from sfdfd.runs.config_keys import raw_content

__all__ = ["RENAMED", "annotations_of", "check_arguments", "check_overrides", "check_sections", "describe_type"]

RENAMED = {
    "ckpt_path": "resume",
    "weights_path": "checkpoint",
    "data.exposure": "data.align.exposure",
    "data=nyu_dered": "data=nyu",
}
"""Former keys (or choices) -> those of today."""
SECTIONS = (
    "data", "optics", "network", "loss", "optimizer", "trainer", "module", "optics.renderer", "optics.camera", "data.align",
)  # fmt: skip
"""Keys that are mappings wherever they exist."""
OPTIONAL_SECTIONS = ("data.renderer", "data.camera", "data.sensor", "data.optics")
"""Keys that are mappings, or null."""
NAMED_SECTIONS = ("logger", "callbacks")
"""Keys that hold mappings by name, or are null."""

SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
LISTS = (Sequence, Iterable, list, tuple)


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], key_of: Callable[[str], str]) -> None:
    """Refuse plain values (numbers, text, lists, mappings) that a class or function does not take.

    Args:
        target: whose annotations count; annotations that are no plain types accept any mapping.
        arguments: argument -> value.
        key_of: argument -> the key by which a user gives it.

    Raises:
        InputError: a value is of another type.
    """
    annotations = annotations_of(target)
    for name, value in arguments.items():
        annotation = annotations.get(name, Any)
        if not _fits(value, annotation):
            wanted = ", ".join(dict.fromkeys(describe_type(annotation)))
            raise InputError(f"{key_of(name)}: expected {wanted}, got {str(value)[:80]!r}")


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse overrides that use a former key.

    Raises:
        InputError: with the key of today.
    """
    for argument in arguments:
        override = argument.lstrip("+~")
        for former in (override, override.partition("=")[0]):
            if former in RENAMED:
                raise InputError(f"{former}: it is called {RENAMED[former]} now")


def check_sections(config: Mapping[str, Any], folder: Path, name: str) -> None:
    """Refuse a config that lacks a key of the command's file, or has a value in place of a section.

    Args:
        config: composed, as plain containers.
        folder: of the configuration.
        name: of the command's file there.

    Raises:
        InputError: so, or a former key is used, or a key without a default is not given.
    """
    for former, current in RENAMED.items():
        if _lookup(config, former) is not None:
            raise InputError(f"{former}: it is called {current} now")
    _check_like(config, _keys_of_command(folder, name), "")
    for key in (*SECTIONS, *OPTIONAL_SECTIONS):
        value = _lookup(config, key, missing={})
        interpolated = isinstance(value, str) and value.startswith("${")
        if not isinstance(value, Mapping) and not interpolated and not (value is None and key in OPTIONAL_SECTIONS):
            raise InputError(f"{key}: expected a mapping, got {value!r}; give one of its keys: {key}.KEY=VALUE")
    for key in NAMED_SECTIONS:
        section = config.get(key) or {}
        for name, value in section.items() if isinstance(section, Mapping) else [("NAME", section)]:
            if not isinstance(value, Mapping):
                raise InputError(f"{key}.{name}: expected a mapping with _target_, got {value!r}")
    for key in _without_value(config, ""):
        raise InputError(f"{key}: it has no default; give {key}=VALUE")


def _lookup(config: Mapping[str, Any], key: str, missing: Any = None) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part, missing) if isinstance(value, Mapping) else missing
    return value


def _without_value(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yield the keys whose value is mandatory and missing (``???``)."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _without_value(value, f"{prefix}{key}.")
        elif isinstance(value, str) and value == "???":
            yield f"{prefix}{key}"


def _keys_of_command(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a command's file and of the bases that it takes in."""
    content = raw_content(folder / f"{name}.yaml")
    keys: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry.endswith("@_here_"):
            keys |= _keys_of_command(folder, entry.removesuffix("@_here_"))
    content.pop("hydra", None)
    return keys | content


def _check_like(config: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str) -> None:
    for key, value in wanted.items():
        if key not in config:
            raise InputError(f"{prefix}{key}: it is needed; leave ~{prefix}{key} out")
        if not isinstance(value, dict) or not value or "_target_" in value:
            continue
        if not isinstance(config[key], Mapping):
            raise InputError(f"{prefix}{key}: expected a mapping with {', '.join(value)}, got {config[key]!r}")
        _check_like(config[key], value, f"{prefix}{key}.")


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return argument -> annotation, with those of base classes that the arguments are handed on to."""
    functions = [cls.__init__ for cls in target.__mro__] if inspect.isclass(target) else [target]  # type: ignore[misc]
    annotations: dict[str, Any] = {}
    for function in functions:
        scope = vars(inspect.getmodule(function) or types)
        for name, annotation in inspect.get_annotations(function).items() if inspect.isfunction(function) else ():
            if name not in annotations:
                try:
                    # the expressions are our own source
                    annotations[name] = eval(annotation, scope) if isinstance(annotation, str) else annotation
                except Exception:  # names that are imported for type checkers alone
                    annotations[name] = Any
    return annotations


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, else the annotation alone."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [type(None) if annotation is None else annotation]


def _fits(value: Any, annotation: Any) -> bool:
    return any(_fits_member(value, member) for member in _members(annotation))


def _fits_member(value: Any, member: Any) -> bool:
    origin, arguments = typing.get_origin(member) or member, typing.get_args(member)
    if origin is Literal:
        return value in arguments
    if isinstance(value, Mapping):
        return origin not in (*SCALARS, *LISTS, Path)
    if origin in SCALARS:
        return _fits_scalar(value, origin)
    if origin is Path:
        return isinstance(value, str)
    if isinstance(value, list):
        return _fits_list(value, origin, arguments)
    return origin is Any or isinstance(member, typing.TypeVar)


def _fits_scalar(value: Any, wanted: type) -> bool:
    return type(value) is wanted or (wanted is float and type(value) is int)


def _fits_list(value: list[Any], origin: Any, arguments: tuple[Any, ...]) -> bool:
    """Check the elements where they are of one type: ``list[T]``, ``tuple[T, ...]``."""
    if origin in (Mapping, dict):
        return False
    of_one_type = len(arguments) == 1 or arguments[1:] == (...,)
    if origin not in LISTS or not of_one_type:
        return True
    return all(_fits(element, arguments[0]) for element in value)


def describe_type(annotation: Any) -> list[str]:
    """Describe each member of an annotation in words.

    Examples:
        >>> describe_type(float | None)
        ['a number', 'null']
    """
    words = []
    for member in _members(annotation):
        origin, arguments = typing.get_origin(member) or member, typing.get_args(member)
        if origin is Literal:
            words += [str(value) for value in arguments]
        elif origin in LISTS:
            words.append("a list")
        elif origin is Path:
            words.append("a path")
        else:
            words.append(SCALARS.get(origin, "a mapping"))
    return words
