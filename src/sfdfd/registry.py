"""The table of classes that a checkpoint may name. A checkpoint is data: what is not in this table is never built."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

__all__ = ["PARTS", "part", "parts_of"]

PARTS: dict[str, type] = {}
"""Full name -> class; filled by :func:`part` where a class is defined."""
Class = TypeVar("Class", bound=type)


def part(cls: Class) -> Class:
    """Class decorator: enter a network, renderer or loss into the table. Its arguments must be plain values."""
    PARTS[f"{cls.__module__}.{cls.__name__}"] = cls
    return cls


def parts_of(package: str) -> dict[str, type]:
    """The table's classes that one of our packages defines, all of its modules read."""
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__):
        importlib.import_module(f"{package}.{module.name}")
    return {name: cls for name, cls in PARTS.items() if name.startswith(f"{package}.")}
