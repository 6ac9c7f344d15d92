"""Published data sets, and their conversion to one of two layouts.

``rgbd``: ``rgb/NAME.png`` and ``depth/NAME.png`` (16 bit), rendered into stacks. ``stacks``: ``NAME/`` with slices and a
``stack.yaml`` with camera, focus distances, and perhaps true depth and AIF. Both have ``splits/``.

Every module of this package with a :class:`DataSource` adds a data set.
"""

import importlib
import pkgutil

from sfdfd.datasets.sources.base import DataSource

__all__ = ["FIRST", "SOURCES", "DataSource"]

FIRST = ("nyu", "defocusnet", "ddff12", "mobile_depth", "middlebury", "zedd", "lightfield")
"""First data sets of the table in docs/reference/datasets.md; others follow by name."""


def discover_sources() -> dict[str, DataSource]:
    """Return the data sets of all modules in this package, by name."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    sources = {
        value.name: value for module in modules for value in vars(module).values() if isinstance(value, DataSource)
    }
    order = [*FIRST, *sorted(sources)]
    return {name: sources[name] for name in sorted(sources, key=order.index)}


SOURCES = discover_sources()
