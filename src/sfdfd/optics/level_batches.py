"""Which levels the occlusion-aware renderer blurs together: few large Fourier transforms in place of many small ones.

A level occupies a box of the image, and its light stays within a kernel's reach of it. Neighbouring levels of similar boxes
share one batch of transforms of one size. A partition of the levels that costs least is found by dynamic programming; small
images of a batch are transformed together, and large ones are cut into parts, whose transforms stay in a processor's cache.
All is decided on the host from one map of occupied cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sfdfd.optics.levels import LevelGrid

__all__ = ["Box", "Budget", "LevelBatch", "LevelPart", "fast_lengths", "level_parts", "occupied_cells"]

CELL_PX = 16
"""Side of the cells that are occupied by a level or not."""


class Box(NamedTuple):
    """Rows and columns of an image."""

    top: int
    left: int
    bottom: int
    right: int

    def seen_from(self, other: Box) -> tuple[slice, slice]:
        """Return rows and columns counted from the corner of another box."""
        return (
            slice(self.top - other.top, self.bottom - other.top),
            slice(self.left - other.left, self.right - other.left),
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @classmethod
    def around(cls, boxes: Iterable[Box]) -> Box:
        """Return the smallest box that contains all."""
        tops, lefts, bottoms, rights = zip(*boxes, strict=True)
        return cls(min(tops), min(lefts), max(bottoms), max(rights))


@dataclass(frozen=True)
class Budget:
    """How work is divided on a device.

    Attributes:
        pixels: padded pixels of all levels and slices of a batch of transforms, at most; one level is never divided.
        overhead: pixels, of all slices, whose transforms take as long as launching a batch.
        part_px: side of the parts into which a larger image is cut.
    """

    pixels: int
    overhead: int
    part_px: int


class LevelBatch(NamedTuple):
    """Levels that are blurred together.

    Attributes:
        ranks: which levels of the part, from near to far.
        has_empty: whether the image has no pixel on one of them, though gradients reach it.
        source: where their pixels lie.
        target: where their light goes.
        shape: of the transforms.
        sizes: (T,M,S) the kernels' sizes in pixels, in NumPy.
    """

    ranks: slice
    has_empty: bool
    source: Box
    target: Box
    shape: tuple[int, int]
    sizes: np.ndarray


class LevelPart(NamedTuple):
    """The levels that are seen in a part of the image, or in several images.

    Attributes:
        samples: those of the batch of images.
        levels: (T,M) index of each sample's levels from near to far; the number of levels stands for none.
        is_empty: (T,M) whether a sample has no pixel on the level.
        batches: the levels, divided; all lie in ``window``.
        window: where the pixels of the levels lie.
    """

    samples: slice
    levels: Tensor
    is_empty: Tensor
    batches: list[LevelBatch]
    window: Box


@torch.no_grad()
def occupied_cells(inverse: Tensor, used: Tensor | None, grid: LevelGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells a level's gradient reaches, and which levels have a pixel at all; one transfer to the host.

    A gradient reaches a pixel's own two levels and, where it lies exactly on one, both beside it.

    Args:
        inverse: (B,K,H,W) inverse depths.
        used: (B,K,H,W) pixels that count; by default all.
        grid: the levels.

    Returns:
        (B,rows,columns,L) of cells, and (B,L).
    """
    batch, surfaces, height, width = inverse.shape
    levels, count = grid.levels.detach().contiguous(), grid.levels.shape[1]
    rows, columns = -(-height // CELL_PX), -(-width // CELL_PX)
    flat = inverse.detach().reshape(batch, -1)
    last = torch.tensor(grid.counts, device=flat.device)[:, None] - 1
    upper = torch.minimum(torch.searchsorted(levels, flat, right=True).clamp_(min=1), last)
    lower = upper - 1
    at_lower, at_upper = flat == levels.gather(1, lower), flat == levels.gather(1, upper)
    nothing = torch.full_like(lower, count)
    if used is not None:
        lower, upper = (torch.where(used.reshape(batch, -1), index, nothing) for index in (lower, upper))
    before = torch.where(at_lower, (lower - 1).clamp_(min=0), lower)
    cell = torch.arange(height, device=flat.device)[:, None] // CELL_PX * columns
    cell = (cell + torch.arange(width, device=flat.device) // CELL_PX).flatten().repeat(surfaces)
    sample = torch.arange(batch, device=flat.device)[:, None]
    reached = ((sample * (rows * columns) + cell) * (count + 1) + torch.stack([before, lower, upper])).flatten()
    present = (
        sample * (count + 1) + torch.stack([lower.where(~at_upper, nothing), upper.where(~at_lower, nothing)])
    ).flatten()
    map_size = batch * rows * columns * (count + 1)
    occupied = flat.new_zeros(map_size + batch * (count + 1), dtype=torch.bool)
    occupied.index_fill_(0, torch.cat([reached, present + map_size]), True)
    found = occupied.cpu().numpy()
    cells = found[:map_size].reshape(batch, rows, columns, count + 1)[..., :-1]
    return cells, found[map_size:].reshape(batch, count + 1)[:, :-1]


def level_parts(
    cells: np.ndarray,
    present: np.ndarray,
    extent: tuple[int, int],
    sizes: np.ndarray,
    reach_px: Callable[[float], int],
    budget: Budget,
    device: torch.device,
) -> list[LevelPart]:
    """Divide the levels of all samples into batches.

    Args:
        cells, present: from :func:`occupied_cells`.
        extent: height and width of the image.
        sizes: (B,S,L) kernel sizes in pixels.
        reach_px: kernel size -> half width in pixels.
        budget: how much at once.
        device: where the images are.
    """
    height, width = extent
    together = max(1, budget.pixels // (64 * height * width)) if max(extent) <= budget.part_px else 1
    reaches = np.array([[reach_px(size) for size in row] for row in sizes.max(1).tolist()])
    parts = []
    for first in range(0, len(cells), together):
        samples = slice(first, min(first + together, len(cells)))
        for region in _regions(extent, budget.part_px):
            boxes, is_reached = _level_boxes(cells[samples], reaches[samples], region, extent)
            order = _near_to_far(is_reached)
            if not order.shape[1]:
                continue
            box, reach, is_empty, size = (
                _taken(values, order, fill)
                for values, fill in (
                    (boxes, NOWHERE),
                    (reaches[samples], 0),
                    (~present[samples], False),
                    (sizes[samples].swapaxes(1, 2), 1.0),
                )
            )
            split = _Split(np.concatenate([box[..., :2].min(0), box[..., 2:].max(0)], -1), reach.max(0), region)
            batches = [
                LevelBatch(ranks, bool(is_empty[:, ranks].any()), *split.geometry(ranks), size[:, ranks])
                for ranks in split.cheapest(budget, len(order) * sizes.shape[1])
            ]
            window = Box.around(batch.source for batch in batches)
            levels, empty = (torch.from_numpy(values).to(device) for values in (order, is_empty))
            parts.append(LevelPart(samples, levels, empty, batches, window))
    return parts


NOWHERE = np.array([1 << 30, 1 << 30, -1, -1])
"""Top, left, bottom and right of no pixel."""


def _regions(extent: tuple[int, int], part_px: int) -> Iterator[Box]:
    """Cut an image into boxes of nearly equal size."""
    rows, columns = (np.linspace(0, n, 1 + -(-n // part_px)).round().astype(int).tolist() for n in extent)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            yield Box(top, left, bottom, right)


def _level_boxes(
    cells: np.ndarray, reaches: np.ndarray, region: Box, extent: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (T,L,4) boxes around the levels' pixels near a region, and (T,L) whether their light reaches it."""
    most = int(reaches.max())
    low = [max(start - most, 0) // CELL_PX for start in region[:2]]
    high = [-(-min(end + most, n) // CELL_PX) for end, n in zip(region[2:], extent, strict=True)]
    near = cells[:, low[0] : high[0], low[1] : high[1]]
    starts, ends = [], []
    for axis in (0, 1):
        occupied = np.any(near, axis=2 - axis)
        starts.append((low[axis] + occupied.argmax(1)) * CELL_PX)
        ends.append(np.minimum((high[axis] - occupied[:, ::-1].argmax(1)) * CELL_PX, extent[axis]))
    boxes = np.stack([*starts, *ends], -1)
    reach = reaches[..., None]
    overlaps = (boxes[..., :2] - reach < region[2:]) & (boxes[..., 2:] + reach > region[:2])
    return boxes, near.any((1, 2)) & overlaps.all(-1)


def _near_to_far(is_reached: np.ndarray) -> np.ndarray:
    """Return (T,M) indices of each sample's levels, from near to far; the number of levels stands for none."""
    count = is_reached.shape[1]
    order = np.where(is_reached, np.arange(count), -1)
    order = -np.sort(-order, 1)[:, : is_reached.sum(1).max()]
    return np.where(order < 0, count, order)


def _taken(values: np.ndarray, order: np.ndarray, fill: Any) -> np.ndarray:
    """Return values (T,L,...) in an order (T,M), ``fill`` where there is no level."""
    padded = np.concatenate([values, np.broadcast_to(fill, values[:, :1].shape).astype(values.dtype)], 1)
    return padded[np.arange(len(order))[:, None], order]


class _Split:
    """Partitions of the levels of a region, from near to far, into batches.

    Args:
        boxes: (M,4) around the levels' pixels, of all samples that are transformed together.
        reaches: (M,) of their kernels.
        region: what is rendered.
    """

    def __init__(self, boxes: np.ndarray, reaches: np.ndarray, region: Box) -> None:
        count = len(boxes)
        is_range = np.arange(count)[:, None] <= np.arange(count)  # from a level (row) to a level (column)
        start = np.minimum.accumulate(np.where(is_range[..., None], boxes[:, :2], NOWHERE[:2]), 1)
        end = np.maximum.accumulate(np.where(is_range[..., None], boxes[:, 2:], NOWHERE[2:]), 1)
        reach = np.maximum.accumulate(np.where(is_range, reaches, 0), 1)[..., None]
        corner, opposite = np.array(region[:2]), np.array(region[2:])
        self.start, self.end = np.maximum(start, corner - reach), np.minimum(end, opposite + reach)
        self.target_start, self.target_end = np.maximum(start - reach, corner), np.minimum(end + reach, opposite)
        linear = np.maximum(self.target_end - self.start, self.end - self.target_start) + reach
        self.shape = fast_lengths(linear.clip(1))
        self.count, self.size = np.arange(count) - np.arange(count)[:, None] + 1, self.shape.prod(-1)

    def cheapest(self, budget: Budget, images: int) -> list[slice]:
        """Return the ranges of the partition whose transforms cost least, by dynamic programming.

        Args:
            budget: how much at once.
            images: number of samples times number of slices.
        """
        pixels = images * self.count * self.size
        cost = np.where((pixels > budget.pixels) & (self.count > 1), np.inf, pixels + budget.overhead)
        best, begin = np.zeros(len(cost) + 1), np.zeros(len(cost), int)
        for last in range(len(cost)):
            totals = best[: last + 1] + cost[: last + 1, last]
            begin[last] = totals.argmin()
            best[last + 1] = totals[begin[last]]
        ranges: list[slice] = []
        stop = len(cost)
        while stop:
            ranges.insert(0, slice(int(begin[stop - 1]), stop))
            stop = ranges[0].start
        return ranges

    def geometry(self, ranks: slice) -> tuple[Box, Box, tuple[int, int]]:
        """Return source, target and the transform's shape of a range of levels."""
        index = ranks.start, ranks.stop - 1
        source = Box(*self.start[index].tolist(), *self.end[index].tolist())
        target = Box(*self.target_start[index].tolist(), *self.target_end[index].tolist())
        rows, columns = self.shape[index].tolist()
        return source, target, (rows, columns)


@lru_cache(maxsize=1)
def _fast_lengths() -> np.ndarray:
    """Return lengths of 2, 3, 5 and 7 whose transforms are fast; multiples of 128 above 256 share lines of the cache."""
    lengths = np.arange(1, 1 << 15)
    step = np.where(lengths <= 128, 4, np.where(lengths <= 256, 8, 16))
    rest = lengths.copy()
    for prime in (2, 3, 5, 7):
        for _ in range(15):
            rest = np.where(rest % prime == 0, rest // prime, rest)
    return lengths[(rest == 1) & (lengths % step == 0) & ((lengths <= 256) | (lengths % 128 > 0))]


def fast_lengths(least: np.ndarray) -> np.ndarray:
    """Return the smallest fast lengths that are at least as large."""
    lengths = _fast_lengths()
    return lengths[np.searchsorted(lengths, least)]
