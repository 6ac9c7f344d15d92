"""The table of classes that a checkpoint may name; no other class is ever built from a checkpoint."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

__all__ = ["PARTS", "part", "parts_of"]

PARTS: dict[str, type] = {}
"""Full name -> class; filled by :func:`part`."""
Class = TypeVar("Class", bound=type)


def part(cls: Class) -> Class:
    """Register a network, renderer or loss class in the table (a class decorator). Its arguments must be plain values."""
    PARTS[f"{cls.__module__}.{cls.__name__}"] = cls
    return cls


def parts_of(package: str) -> dict[str, type]:
    """Return the registered classes of one of our packages, after importing all of its modules."""
    root = importlib.import_module(package)
    for module in pkgutil.iter_modules(root.__path__):
        importlib.import_module(f"{package}.{module.name}")
    return {name: cls for name, cls in PARTS.items() if name.startswith(f"{package}.")}
