"""Levels of one sample, by the functions that make those of a batch."""

import torch

from sfdfd.optics.levels import PLANE_SHARE, hat_weights, hats_of_levels, level_positions


def level_grid(inverse, in_focus, step, most):
    """Return (L,) levels of inverse depths (any shape), a distance in 1/m apart."""
    low, high = (float(end) for end in torch.aminmax(inverse))
    planes = [end for end in (low, high) if int((inverse == end).sum()) > 16 + PLANE_SHARE * inverse.numel()]
    positions = level_positions(low, high, planes, in_focus.tolist(), step, most)
    return torch.tensor([position for position, _ in positions], dtype=inverse.dtype)


def level_weights(inverse, levels):
    """Return (L,H,W) the share of each level in each pixel."""
    hats = hats_of_levels(levels[None], [len(levels)])[:, :-1, :, None, None, None]
    return hat_weights(inverse[None, None, None], hats)[0, :, 0]


def shares_of_levels(inverse, levels):
    """Linear interpolation between the two levels around each pixel."""
    upper = torch.bucketize(inverse.detach(), levels).clamp(1, len(levels) - 1)
    share = (inverse - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
    planes = torch.zeros(len(levels), *inverse.shape, dtype=inverse.dtype)
    return planes.scatter_add(0, upper[None], share[None]).scatter_add(0, upper[None] - 1, 1 - share[None])
