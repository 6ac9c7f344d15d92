"""The data sets of the field: where they live, what they are, and how each becomes one of our two layouts.

``rgbd``: ``rgb/NAME.png`` and ``depth/NAME.png`` (16 bit), rendered into stacks. ``stacks``: ``NAME/`` with slices and a
``stack.yaml`` that names camera, focus distances, and the true depth and AIF where there are any. Both have ``splits/``.
"""

from sfdfd.data.sources.base import DataSource
from sfdfd.data.sources.ddff12 import DDFF12
from sfdfd.data.sources.defocusnet import DEFOCUSNET
from sfdfd.data.sources.lightfield import LIGHTFIELD
from sfdfd.data.sources.middlebury import MIDDLEBURY
from sfdfd.data.sources.mobile_depth import MOBILE_DEPTH
from sfdfd.data.sources.nyu import NYU
from sfdfd.data.sources.zedd import ZEDD

__all__ = ["SOURCES", "DataSource"]

SOURCES: dict[str, DataSource] = {
    source.name: source for source in (NYU, DEFOCUSNET, DDFF12, MOBILE_DEPTH, MIDDLEBURY, ZEDD, LIGHTFIELD)
}
