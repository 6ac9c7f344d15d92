"""Let a depth map from another program join the evidence of the blur.

1. Alignment: a robust line, or a monotone curve where it explains clearly more, from the map to the normalized inverse depth
   of the start, on pixels weighted by how sure the start is.
2. Local correction: the residuals are averaged over cells of position and depth (a bilateral grid; Chen, Paris, Durand,
   SIGGRAPH 2007). A cell's mean moves the map there, as far as the start's evidence in the cell is better than the map's;
   what scatters about the mean is the map's local standard deviation.
3. Fusion: start and map are averaged by their precisions. The map loses where both are sure of different depths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from sfdfd.networks.interface import NetworkOutput
from sfdfd.optics.depth import depth_from_normalized, normalized_inverse_depth
from sfdfd.optics.render import Renderer
from sfdfd.plane_sweep.sweep import fuse_sharpest_slices
from sfdfd.refinement.confidence import depth_std_m
from sfdfd.refinement.prior_term import AlignedPrior
from sfdfd.refinement.start_term import extremes_nearby
from sfdfd.refinement.variables import Start
from sfdfd.stack import FocalStack

__all__ = ["Alignment", "align_prior", "depth_of", "evidence", "fused"]

NORMAL_QUANTILE_90 = 1.645
"""Absolute deviation that nine tenths of a normal distribution stay below, in standard deviations."""
SURE_STD, BINNING_STD = 0.003, 0.02
"""Smallest std of p that a start is believed to have, and the std that a network states although it is surer."""
LEAST_STD, CURVE_STD = 0.003, 0.008
"""Smallest std of p that a map is believed to have."""
UNKNOWN_STD = 10.0
LEAST_EXPLAINED, EXPLAINED_QUANTILE, CLEARLY = 0.5, 0.75, 0.01
"""Share of the variance of the start's sure depth that a map has to explain to be used; the quantile by which
it is measured; and a clear difference of it."""
CURVE_KNOTS, CURVE_GAIN = 12, 0.75
"""Knots of the monotone curve, and the largest ratio of its residual to the line's for which it is taken."""
PAIRS, FIT_STD, RARE = 256, 0.02, 0.03
CELLS, CELL_DEPTH = 10, 0.1
"""Cells along the longer side, and the depth of a cell in p."""
LEAST_EDGE_SHARE, POOR_EDGE_SHARE = 0.002, 0.02
POOLING = 1.5
"""Factor by which refinement is surer than the start, because it sees whole walls and not windows."""
TOLERANCE = 2.5
"""Departure in standard deviations from which the map loses."""


@dataclass(frozen=True)
class Alignment:
    """A depth map brought to the scale of a stack.

    Attributes:
        prior: the aligned map.
        kind: "depth" or "inverse_depth".
        curve: "line" or "monotone curve": how its values became normalized inverse depth.
        explained: share of the variance of the start's sure depth that it explains, at most 1, by quantiles.
        std: root mean square of its residuals there.
    """

    prior: AlignedPrior
    kind: str
    curve: str
    explained: float
    std: float

    @property
    def is_used(self) -> bool:
        """Whether it explains enough to join the evidence."""
        return self.explained >= LEAST_EXPLAINED

    def facts(self) -> dict[str, Any]:
        """Return what ``prediction.json`` says about it."""
        return {
            "used": self.is_used,
            "kind": self.kind,
            "curve": self.curve,
            "explained_share": round(self.explained, 3),
            "std": self.std,
            "decides_on_share": float((self.prior.share > 0.5).float().mean()) if self.is_used else 0.0,
        }


def evidence(stack: FocalStack, renderer: Renderer, output: NetworkOutput) -> Start:
    """Return a start's normalized inverse depth and a std that grows where texture is faint.

    A network's std ignores that its errors on a faint texture are alike over a whole wall; the bound of
    :mod:`sfdfd.refinement.confidence` knows how much the blur can say. The larger of both counts.
    """
    span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
    bound = depth_std_m(stack, renderer, output.depth_m, output.aif) / output.depth_m.square() / span
    if output.std is not None:
        excess = (output.std.square() - BINNING_STD**2).clamp_min(0)
        bound = (bound.square() + excess).sqrt()
    position = normalized_inverse_depth(output.depth_m, stack.near_m, stack.far_m)
    return Start(position, bound.clamp_min(SURE_STD))


def align_prior(values: Float[Tensor, "h w"], kind: str, start: Start, coverage: Float[Tensor, "b h w"]) -> Alignment:
    """Align a map of any scale to a start: a batch of one.

    Args:
        values: (H,W) at the size of the start; NaN where unknown.
        kind: "depth", "inverse_depth", or "auto" for the one that fits better.
        start: of :func:`evidence`.
        coverage: (1,H,W) in [0, 1], where the stack shows the scene.
    """
    kinds = ("inverse_depth", "depth") if kind == "auto" else (kind,)
    device, start, coverage = start.std.device, Start(*(value.cpu() for value in start)), coverage.cpu()
    candidates = [_aligned(x, name, start, coverage) for name in kinds for x in _increasing_nearer(values.cpu(), name)]
    best = candidates[0]
    for candidate in candidates[1:]:
        best = candidate if candidate.explained > best.explained + CLEARLY else best
    return replace(best, prior=AlignedPrior(*(value.to(device) for value in best.prior)))


def _increasing_nearer(values: Tensor, kind: str) -> list[Tensor]:
    """Return what may be linear in inverse depth: for depth its inverse, or where its zero is shifted the negative depth."""
    if kind == "inverse_depth":
        return [values.masked_fill(values.isinf(), torch.nan)]
    return [torch.where(values > 0, 1 / values, torch.nan), -values.masked_fill(values.isinf(), torch.nan)]


def _aligned(x: Tensor, kind: str, start: Start, coverage: Tensor) -> Alignment:
    known = x.isfinite()
    position, std = start.inverse_depth_01[0], start.std[0]
    smooth = _step_nearby(position) < CELL_DEPTH / 2
    weight = torch.where(known & smooth, coverage[0], 0.0) / std.square()
    sure = weight > 0
    if int(sure.sum()) < 10 * CURVE_KNOTS or float(x[sure].std()) == 0:
        return Alignment(_unknown_prior(position), kind, "line", -1.0, UNKNOWN_STD)
    balanced = _balanced(position, weight)
    mapped, curve = _fitted(x, position, balanced, sure)
    mapped = torch.where(known, mapped, position)
    residual = torch.where(sure, position - mapped, 0.0)
    explained = _explained(position[sure], residual[sure], balanced[sure])
    unexplained = (balanced * residual.square()).sum() / balanced.sum()
    own = _own_variance(residual, std, torch.where(std < BINNING_STD, balanced, 0.0), unexplained)
    if curve != "line":
        own = own.clamp_min(CURVE_STD**2)  # a curve follows errors of the start, too
    corrected, scatter, left = _locally_corrected(mapped, residual, weight, own)
    corrected = corrected.clamp(0, 1)
    at_edges = _edge_variance(corrected, position, torch.where(known, coverage[0], 0.0), std)
    local = (scatter + left + at_edges).clamp_min(LEAST_STD**2)
    departure = (corrected - position).square() / (local + std.square())
    agreement = 1 / (1 + (departure / TOLERANCE**2).square()).square()
    share = torch.where(known, agreement * std.square() / (std.square() + local), 0.0)
    # the correction came from the start, which must not count twice
    alone = scatter + own + at_edges
    pooled = std.square() / POOLING**2
    in_energy = torch.where(known, agreement * pooled / (pooled + alone), 0.0)
    std_alone = torch.where(known, alone.sqrt(), UNKNOWN_STD)
    prior = AlignedPrior(corrected[None], std_alone[None], share[None], in_energy[None])
    return Alignment(prior, kind, curve, explained, float(own.sqrt()))


def _balanced(position: Tensor, weight: Tensor) -> Tensor:
    """Return weights by which all depths count alike, however much of the image they fill, and all sure pixels do."""
    weight = weight / (1 + weight * FIT_STD**2)
    bins = (position / CELL_DEPTH).long().clamp_min(0)
    totals = torch.bincount(bins.flatten(), weight.flatten())
    return weight / totals.clamp_min(RARE * totals.sum())[bins]


def _edge_variance(mapped: Tensor, position: Tensor, weight: Tensor, std: Tensor) -> Tensor:
    """Return the variance that the map has because its edges may lie on the wrong side of a pixel.

    It is a share of the squared steps of the map nearby. Sure pixels of the start beside the map's edges give the share.
    """
    square = _step_nearby(mapped).square()
    beside = weight * (square > (CELL_DEPTH / 2) ** 2) * (std < BINNING_STD)
    total = (beside * square).sum()
    if float(total) == 0:
        return square
    share = (beside * (position - mapped).square()).sum() / total
    share = share * (1 + (share / POOR_EDGE_SHARE).square())  # blurred and displaced edges are not averaged in
    return square * share.clamp(LEAST_EDGE_SHARE, 1.0)


def _step_nearby(position: Tensor) -> Tensor:
    """Return the height of depth steps within reach of a pixel; 0 on planes, however slanted."""
    high, low = extremes_nearby(position[None])
    return (high[0] + low[0] - 2 * position).abs()


def _explained(position: Tensor, residual: Tensor, weight: Tensor) -> float:
    """Return the share of the variance of depth that a map explains, by a quantile: a few wrong objects do not count."""
    deviation = _weighted_quantile((position - _weighted_quantile(position, weight)).abs(), weight, EXPLAINED_QUANTILE)
    return 1 - (_weighted_quantile(residual.abs(), weight, EXPLAINED_QUANTILE) / max(deviation, 1e-9)) ** 2


def _own_variance(residual: Tensor, std: Tensor, weight: Tensor, otherwise: Tensor) -> Tensor:
    """Return the map's variance without the start's, by a quantile where the start is sure; else ``otherwise``."""
    sure = weight > 0
    if not bool(sure.any()):
        return otherwise.clamp_min(LEAST_STD**2)
    square = (_weighted_quantile(residual[sure].abs(), weight[sure], 0.9) / NORMAL_QUANTILE_90) ** 2
    of_start = (weight * std.square()).sum() / weight.sum()
    return (square - of_start).clamp_min(LEAST_STD**2)


def _unknown_prior(like: Tensor) -> AlignedPrior:
    nothing = torch.zeros_like(like)[None]
    return AlignedPrior(like[None], torch.full_like(like, UNKNOWN_STD)[None], nothing, nothing)


def _fitted(x: Tensor, position: Tensor, weight: Tensor, sure: Tensor) -> tuple[Tensor, str]:
    """Map x to normalized inverse depth by the line or the monotone curve that fits the sure pixels."""
    xs, ps, ws = x[sure].double(), position[sure].double(), weight[sure].double()
    slope, offset = _robust_line(xs, ps, ws)
    line = slope * x.double() + offset
    knots = _monotone_knots(xs.numpy(), ps.numpy(), ws.numpy())
    if knots is None:
        return line.to(position), "line"
    curve = _extrapolated(*knots)
    values = torch.from_numpy(curve(x.nan_to_num(0).double().numpy()))
    errors = [float((ws * (ps - fit[sure]).abs().clamp_max(CELL_DEPTH)).sum()) for fit in (line, values)]
    if errors[1] < CURVE_GAIN * errors[0]:
        return values.to(position), "monotone curve"
    return line.to(position), "line"


def _robust_line(x: Tensor, y: Tensor, weight: Tensor, steps: int = 20) -> tuple[float, float]:
    """Return slope >= 0 and offset of the line of least weighted Cauchy error, by re-weighted least squares.

    It begins at the best of many lines through two pixels, which errors of half the pixels do not move.
    """
    slope, offset = _best_of_pairs(x, y, weight)
    for _ in range(steps):
        error = (y - slope * x - offset).abs()
        scale = max(1.5 * _weighted_quantile(error, weight), SURE_STD)
        robust = weight / (1 + (error / scale).square())
        total = robust.sum()
        x_mean, y_mean = (robust * x).sum() / total, (robust * y).sum() / total
        variance = (robust * (x - x_mean).square()).sum().clamp_min(1e-300)
        slope = max(0.0, float((robust * (x - x_mean) * (y - y_mean)).sum() / variance))
        offset = float(y_mean) - slope * float(x_mean)
    return slope, offset


def _best_of_pairs(x: Tensor, y: Tensor, weight: Tensor) -> tuple[float, float]:
    """Return the line through two of the pixels whose weighted median error is least (least median of squares)."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.multinomial(weight.float().cpu(), 2 * PAIRS, replacement=True, generator=generator).to(x.device)
    first, second = chosen.split(PAIRS)
    steps = x[second] - x[first]
    slopes = ((y[second] - y[first]) / torch.where(steps == 0, torch.inf, steps)).clamp_min(0)
    offsets = y[first] - slopes * x[first]
    errors = (y[chosen] - slopes[:, None] * x[chosen] - offsets[:, None]).abs().median(1).values
    best = int(errors.argmin())
    return float(slopes[best]), float(offsets[best])


def _weighted_quantile(values: Tensor, weight: Tensor, quantile: float = 0.5) -> float:
    order = values.argsort()
    cumulative = weight[order].cumsum(0)
    place = torch.searchsorted(cumulative, quantile * cumulative[-1:]).clamp_max(len(values) - 1)
    return float(values[order][place])


def _monotone_knots(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return knots (x, y) of an increasing curve: weighted medians of groups of equal weight, pooled where they decrease."""
    order = np.argsort(x)
    x, y, weight = x[order], y[order], weight[order]
    groups = np.minimum((np.cumsum(weight) / weight.sum() * CURVE_KNOTS).astype(int), CURVE_KNOTS - 1)
    rows: list[list[float]] = []
    for group in range(CURVE_KNOTS):
        mine = groups == group
        if mine.any():
            middle = _weighted_quantile(torch.from_numpy(y[mine]), torch.from_numpy(weight[mine]))
            rows.append([float(np.average(x[mine], weights=weight[mine])), middle, float(weight[mine].sum())])
        while len(rows) > 1 and (rows[-1][1] < rows[-2][1] or rows[-1][0] <= rows[-2][0]):
            last, before = rows.pop(), rows.pop()
            total = last[2] + before[2]
            rows.append([*((last[k] * last[2] + before[k] * before[2]) / total for k in (0, 1)), total])
    if len(rows) < 3:
        return None
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def _extrapolated(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the monotone cubic through the knots (Fritsch and Carlson 1980), continued as straight lines."""
    curve = PchipInterpolator(x, y)
    ends = [(y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])]

    def evaluate(values: np.ndarray) -> np.ndarray:
        inside = curve(np.clip(values, x[0], x[-1]))
        return inside + ends[0] * np.minimum(values - x[0], 0) + ends[1] * np.maximum(values - x[-1], 0)

    return evaluate


def _locally_corrected(
    mapped: Tensor, residual: Tensor, weight: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the map moved by its mean residual in cells of position and depth; its scatter there; what else is uncertain.

    With W = sum w and w = 1 / variance of the start, N / W is the mean variance of the start in a cell of N pixels. The
    start's errors in a cell count as one, so the mean residual m is known to N / W and is believed by
    v / (v + N / W), with v the variance of the map over the image.
    """
    height, width = mapped.shape
    size = max(height, width) / CELLS
    shape = (round(1 / CELL_DEPTH) + 1, max(2, round(height / size) + 1), max(2, round(width / size) + 1))
    rows = torch.linspace(0, 1, height).to(mapped)[:, None].expand_as(mapped)
    columns = torch.linspace(0, 1, width).to(mapped)[None].expand_as(mapped)
    where = torch.stack([mapped.clamp(0, 1), rows, columns])
    present = (weight > 0).to(mapped)
    sums = _splat(torch.stack([present, weight, weight * residual, weight * residual.square()]), where, shape)
    count, total, first, second = _slice(sums, where)
    total = total.clamp_min(1e-12)
    mean, evidence_variance = first / total, count.clamp_min(1e-6) / total
    evidence_variance = torch.where(count < 1e-3, 1.0, evidence_variance)
    believed = variance / (variance + evidence_variance)
    scatter = (second / total - mean.square() - evidence_variance).clamp_min(0)
    return mapped + believed * mean, scatter, (1 - believed) * variance


def _splat(values: Tensor, where: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Add (C,H,W) values into a grid at (3,H,W) places in [0, 1], and blur it by one cell."""
    sizes = torch.tensor(shape, device=values.device)[:, None, None]
    index = (where * (sizes - 1)).round().long()
    flat = (index[0] * shape[1] + index[1]) * shape[2] + index[2]
    grid = values.new_zeros(len(values), shape[0] * shape[1] * shape[2])
    grid.index_add_(1, flat.flatten(), values.flatten(1))
    grid = grid.reshape(len(values), 1, *shape)
    for axis in range(3):
        kernel_shape = [1, 1, 1]
        kernel_shape[axis] = 3
        kernel = values.new_tensor([0.25, 0.5, 0.25]).reshape(1, 1, *kernel_shape)
        grid = F.conv3d(grid, kernel, padding=[n // 2 for n in kernel_shape])
    return grid[:, 0]


def _slice(grid: Tensor, where: Tensor) -> Tensor:
    """Interpolate a grid at (3,H,W) places in [0, 1]; (C,H,W)."""
    places = (2 * where - 1).flip(0).movedim(0, -1)[None, None]
    return F.grid_sample(grid[None], places, mode="bilinear", padding_mode="border", align_corners=True)[0, :, 0]


def fused(output: NetworkOutput, start: Start, alignment: Alignment, stack: FocalStack) -> NetworkOutput:
    """Return the start with the map's share of depth; its std stays that of the blur."""
    depth_m = depth_of(alignment, start, stack)
    return NetworkOutput(depth_m, fuse_sharpest_slices(stack, depth_m), output.std)


def depth_of(alignment: Alignment, start: Start, stack: FocalStack) -> Float[Tensor, "b h w"]:
    """Return the depth in metres of the start with the map's share."""
    position = torch.lerp(start.inverse_depth_01, alignment.prior.inverse_depth_01, alignment.prior.share)
    return depth_from_normalized(position, stack.near_m, stack.far_m)
