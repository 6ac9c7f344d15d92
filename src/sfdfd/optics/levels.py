"""Levels of inverse depth for the occlusion-aware renderer: where they lie, and how much of each pixel is on them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["LevelGrid", "SceneRange", "hat_slopes", "hat_weights", "hats_of_levels", "level_positions"]

PLANE_SHARE = 0.01
"""A scene's nearest or farthest depth gets a level of its own if this share of the pixels has it."""


class SceneRange(NamedTuple):
    """What levels depend on, read back from the device at once: float64, one row a sample.

    Attributes:
        low, high: (B,) smallest and largest inverse depth in 1/m; NaN if one of them is.
        low_count, high_count: (B,) pixels that have exactly these.
        in_focus: (B,S) inverse focus distances in 1/m.
        px_per_inverse: (B,S) blur radius in pixels of 1/m beside the focus.
        pixels: number of inverse depths of a sample.
    """

    low: np.ndarray
    high: np.ndarray
    low_count: np.ndarray
    high_count: np.ndarray
    in_focus: np.ndarray
    px_per_inverse: np.ndarray
    pixels: int

    @classmethod
    @torch.no_grad()
    def read(
        cls, inverse: Float[Tensor, "b n"], in_focus: Float[Tensor, "b s"], px_per_inverse: Float[Tensor, "b s"]
    ) -> SceneRange:
        low, high = torch.aminmax(inverse, dim=1, keepdim=True)
        counts = [(inverse == end).sum(1, keepdim=True) for end in (low, high)]
        numbers = torch.cat([low, high, *counts, in_focus, px_per_inverse], 1).cpu().double().numpy()
        low_np, high_np, low_count, high_count = numbers[:, :4].T
        slices, lens = in_focus.shape[1], numbers[:, 4:]
        return cls(low_np, high_np, low_count, high_count, lens[:, :slices], lens[:, slices:], inverse.shape[1])


class LevelGrid(NamedTuple):
    """The levels of a batch.

    Attributes:
        levels: (B,L) ascending inverse depths in 1/m, differentiable in the inverse focus distances; a sample with fewer
            levels repeats its last.
        positions: (B,L) their values, in NumPy.
        counts: number of levels of each sample.
    """

    levels: Tensor
    positions: np.ndarray
    counts: list[int]

    @classmethod
    def of(cls, scene: SceneRange, in_focus: Float[Tensor, "b s"], level_px: float, most: int) -> LevelGrid:
        """Return levels ``level_px`` pixels of blur apart in the slice that blurs most.

        The distance is rounded to quarters of octaves, so that levels stay in place while a blur factor or a focus distance
        is fitted.
        """
        samples = []
        for b, px_per_inverse in enumerate(scene.px_per_inverse.max(1)):
            step = level_px / 2.0 ** (round(4 * math.log2(px_per_inverse)) / 4)
            few = 16 + PLANE_SHARE * scene.pixels
            ends = (scene.low[b], scene.low_count[b]), (scene.high[b], scene.high_count[b])
            planes = [float(end) for end, count in ends if count > few]
            low, high = float(scene.low[b]), float(scene.high[b])
            samples.append(level_positions(low, high, planes, scene.in_focus[b].tolist(), step, most))
        counts = [len(sample) for sample in samples]
        padded = [sample + sample[-1:] * (max(counts) - len(sample)) for sample in samples]
        positions = np.array([[position for position, _ in sample] for sample in padded])
        focus_index = np.array([[-1 if index is None else index for _, index in sample] for sample in padded])
        levels = torch.from_numpy(positions).to(in_focus)
        if (focus_index >= 0).any():
            index = torch.from_numpy(focus_index).to(in_focus.device)
            levels = torch.where(index >= 0, in_focus.gather(1, index.clamp_min(0)), levels)
        return cls(levels, positions, counts)


def level_positions(
    low: float, high: float, planes: list[float], focus: list[float], step: float, most: int
) -> list[tuple[float, int | None]]:
    """Return ascending inverse depths in 1/m that span a scene: the planes of focus, and multiples of ``step``.

    The step doubles until there are at most ``most`` levels. Multiples do not move with the scene, so gradients are those of
    the interpolation. A scene of nearly one depth has that depth as a level.

    Args:
        low, high: the scene's smallest and largest inverse depth in 1/m.
        planes: those of the two that many pixels have.
        focus: inverse focus distances in 1/m; a level at one of them passes its gradient on.
        step: distance in 1/m.
        most: number of levels, 4 or more.

    Returns:
        Each level, and the index of the focus distance that it is at, if any.
    """
    if high - low < 0.01 * step:  # levels on both sides, or there would be no slope
        around = {max(low - 0.5 * step, 0.0), low, high, high + 0.5 * step}
        return [(position, None) for position in sorted(around)]
    while True:
        focus_indices = _separate_focus_planes(focus, planes, low, high, step)
        constant = _multiples_of_step([*planes, *(focus[k] for k in focus_indices)], low, high, step)
        if len(planes) + len(constant) + len(focus_indices) <= most:  # at the latest with both ends and one focus plane
            break
        step *= 2
    fixed: list[tuple[float, int | None]] = [(position, None) for position in (*planes, *constant)]
    return sorted([*fixed, *((focus[k], k) for k in focus_indices)], key=lambda level: level[0])


def _separate_focus_planes(focus: list[float], planes: list[float], low: float, high: float, step: float) -> list[int]:
    """Return the indices of the focus planes inside the scene that keep a quarter step from each other and from planes."""
    kept: list[int] = []
    for index in sorted(range(len(focus)), key=focus.__getitem__):
        others = planes + [focus[other] for other in kept]
        if low < focus[index] < high and _is_separate(focus[index], others, step):
            kept.append(index)
    return kept


def _multiples_of_step(taken: list[float], low: float, high: float, step: float) -> list[float]:
    """Return the multiples of the step that span the scene and keep a quarter step from the levels already taken."""
    multiples = [k * step for k in range(math.floor(low / step), math.ceil(high / step) + 1)]
    ends = [multiples[0]] * (low not in taken) + [multiples[-1]] * (high not in taken)
    return ends + [u for u in multiples if low < u < high and _is_separate(u, taken, step)]


def _is_separate(level: float, others: list[float], step: float) -> bool:
    return all(abs(level - other) > 0.25 * step for other in others)


def hats_of_levels(levels: Float[Tensor, "b l"], counts: list[int]) -> Float[Tensor, "b l1 3"]:
    """Return what defines the hat weight of each level: the distances to the levels before and behind it, and itself.

    The first and the last level of a sample have an infinite distance outside, where their hats stay 1. One level is added
    that no pixel has.
    """
    distances = F.pad(levels.diff(dim=1), (1, 1), value=torch.inf)
    if min(counts) < levels.shape[1]:
        last = torch.tensor(counts, device=levels.device)[:, None] - 1
        is_last = torch.arange(levels.shape[1], device=levels.device) == last
        distances = torch.where(F.pad(is_last, (1, 0)), torch.inf, distances)
    hats = torch.stack([distances[:, :-1], distances[:, 1:], levels], 2)
    nothing = hats.new_tensor([1.0, 1.0, torch.inf]).expand(len(hats), 1, 3)
    return torch.cat([hats, nothing], 1)


def hat_weights(inverse: Float[Tensor, "t 1 k h w"], hats: Float[Tensor, "t m 3 1 1 1"]) -> Float[Tensor, "t m k h w"]:
    """Return the share of each level in each pixel; those of all levels that span the pixels sum to 1."""
    before, behind, level = hats.unbind(2)
    offset = inverse - level
    rising, falling = (offset / before).add_(1), 1 - offset.div_(behind)
    return torch.minimum(rising, falling, out=rising).clamp_(0, 1)


def hat_slopes(inverse: Float[Tensor, "t 1 k h w"], hats: Float[Tensor, "t m 3 1 1 1"]) -> tuple[Tensor, Tensor]:
    """Return the derivatives (T,M,K,H,W) of the rising and of the falling side of a hat in inverse depth.

    For a pixel exactly on a level they are the means of those on both sides: their sum is the derivative of
    :func:`hat_weights`. Inverse depths lie inside of the first and the last level.
    """
    before, behind, level = hats.unbind(2)
    offset = inverse - level
    side = offset.sign()
    rising = (offset + before).sign_().sub_(side).div_(2 * before)
    falling = (offset - behind).sign_().sub_(side).div_(2 * behind)
    return rising, falling
