"""The data sets of the field: where they live, what they are, and how each becomes one of our two layouts.

``rgbd``: ``rgb/NAME.png`` and ``depth/NAME.png`` (16 bit), rendered into stacks. ``stacks``: ``NAME/`` with slices and a
``stack.yaml`` that names camera, focus distances, and the true depth and AIF where there are any. Both have ``splits/``.

A module of this folder that makes a :class:`DataSource` adds a data set.
"""

import importlib
import pkgutil

from sfdfd.datasets.sources.base import DataSource

__all__ = ["FIRST", "SOURCES", "DataSource"]

FIRST = ("nyu", "defocusnet", "ddff12", "mobile_depth", "middlebury", "zedd", "lightfield")
"""Of the table, as docs/datasets.md has them; others follow by name."""


def collected() -> dict[str, DataSource]:
    """Name -> data set, of all the modules here."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    sources = {
        value.name: value for module in modules for value in vars(module).values() if isinstance(value, DataSource)
    }
    order = [*FIRST, *sorted(sources)]
    return {name: sources[name] for name in sorted(sources, key=order.index)}


SOURCES = collected()
