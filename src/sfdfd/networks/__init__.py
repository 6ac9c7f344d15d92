"""Networks: a focal stack and its focus distances in, depth and an all-in-focus image out (:class:`Network`)."""

from sfdfd.networks.attention import FocusAttentionNet
from sfdfd.networks.classical import classical_network, constant_network
from sfdfd.networks.daif import DAIFNet
from sfdfd.networks.interface import Network, NetworkOutput
from sfdfd.networks.sweep import PlaneSweepNet

__all__ = [
    "DAIFNet",
    "FocusAttentionNet",
    "Network",
    "NetworkOutput",
    "PlaneSweepNet",
    "classical_network",
    "constant_network",
]
