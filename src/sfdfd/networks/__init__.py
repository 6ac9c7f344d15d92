"""Networks that map a focal stack and its focus distances to depth and an all-in-focus image."""

from sfdfd.networks.classical import classical_network, constant_network
from sfdfd.networks.daif import DAIFNet
from sfdfd.networks.focus_attention import FocusAttentionNet
from sfdfd.networks.interface import Network, NetworkOutput
from sfdfd.networks.plane_sweep import PlaneSweepNet

__all__ = [
    "DAIFNet",
    "FocusAttentionNet",
    "Network",
    "NetworkOutput",
    "PlaneSweepNet",
    "classical_network",
    "constant_network",
]
