"""Networks: a focal stack and its focus distances in, depth and an all-in-focus image out.

Every network is called as ``network(images, focus_distances_m, near_m=..., far_m=..., slice_mask=...)`` and returns a
:class:`NetworkOutput`; it takes any number of slices, in any order, and any image size.
"""

from sfdfd.networks.attention import FocusAttentionNet
from sfdfd.networks.baseline import classical_network, constant_network
from sfdfd.networks.daif import DAIFNet
from sfdfd.networks.interface import NetworkOutput

__all__ = ["DAIFNet", "FocusAttentionNet", "NetworkOutput", "classical_network", "constant_network"]
