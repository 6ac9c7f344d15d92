"""The baselines, called as networks are: they stand in every table, and refinement may start from them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sfdfd.classical import depth_from_focus
from sfdfd.networks.interface import NetworkOutput

__all__ = ["classical_network", "constant_network"]


def classical_network(images, focus_distances_m, *, near_m, far_m, slice_mask=None) -> NetworkOutput:
    """Classical depth from focus."""
    return NetworkOutput(*depth_from_focus(images, focus_distances_m, near_m, far_m, slice_mask))


def constant_network(depth_m: float) -> Callable[..., NetworkOutput]:
    """The same depth everywhere, and the mean of the slices as AIF."""

    def network(images, focus_distances_m, *, near_m, far_m, slice_mask=None) -> NetworkOutput:
        depth = images.new_full((images.shape[0], *images.shape[-2:]), depth_m)
        share = slice_mask.float() / slice_mask.sum(1, keepdim=True)
        return NetworkOutput(depth, torch.einsum("bs,bschw->bchw", share.to(images), images))

    return network
