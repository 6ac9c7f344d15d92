"""Tensors -> pictures. Pure: nothing here reads or writes a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from sfdfd.measures.diagnosis import Diagnosis
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "colour_confidence",
    "colour_defocus",
    "colour_depth",
    "colour_error",
    "defocus_figure",
    "depth_figure",
    "diagnosis_figure",
    "map_figure",
    "overview",
    "shown_range",
    "thinned",
    "titled",
    "to_rgb",
]

DEPTH_COLOURS = "plasma"
DEPTH_ERROR_SHOWN = 0.25
"""The share of the true depth at which the error of depth is drawn white."""


def to_rgb(figure: Figure) -> np.ndarray:
    """The drawn figure as (H,W,3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def colour_depth(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """(H,W) metres -> (H,W,3) in [0, 1]; linear in inverse depth, perceptually uniform: near is bright
    yellow, far is dark blue."""
    share = np.clip(normalized_inverse_depth(depth_m, near_m, far_m), 0, 1)
    return matplotlib.colormaps[DEPTH_COLOURS](share)[..., :3]


def colour_confidence(confidence: np.ndarray) -> np.ndarray:
    """(H,W) in [0, 1] -> (H,W,3) in [0, 1]; bright is sure."""
    return matplotlib.colormaps["viridis"](np.clip(confidence, 0, 1))[..., :3]


def colour_defocus(defocus_px: np.ndarray, limit_px: float) -> np.ndarray:
    """(H,W) signed blur radius -> (H,W,3) in [0, 1]: blue in front of the focus, red behind it."""
    return matplotlib.colormaps["coolwarm"](np.clip(0.5 + 0.5 * defocus_px / limit_px, 0, 1))[..., :3]


def colour_error(error: np.ndarray, largest: float = 0.06) -> np.ndarray:
    """(H,W) absolute error -> (H,W,3) in [0, 1]; black is 0, white ``largest``."""
    return matplotlib.colormaps["inferno"](np.clip(error / largest, 0, 1))[..., :3]


def titled(axis, title: str, **options) -> None:
    """A title as it stands: names of files are no formulas."""
    axis.set_title(title, parse_math=False, **options)


def shown_range(depth_m: np.ndarray) -> tuple[float, float]:
    near, far = np.percentile(depth_m, [1, 99])
    return (float(near), float(far)) if far > 1.01 * near else (0.95 * float(near), 1.05 * float(near))


def _axes_for_scale(figure: Figure, axis, near: float, far: float, label: str) -> None:
    inverse = matplotlib.colors.Normalize(1 / far, 1 / near)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(inverse, DEPTH_COLOURS), ax=axis, fraction=0.046, pad=0.02)
    ticks = np.linspace(1 / far, 1 / near, 6).tolist()
    bar.set_ticks(ticks, labels=[f"{1 / tick:.3g}" for tick in ticks])
    bar.set_label(label)


def depth_figure(depth_m: Float[Tensor, "h w"], title: str = "depth", label: str = "depth in metres") -> Figure:
    """The depth map in colour, with a scale bar."""
    values = depth_m.detach().cpu().numpy()
    near, far = shown_range(values)
    figure = Figure(figsize=(1.6 + 5 * values.shape[1] / values.shape[0], 5), layout="constrained")
    axis = figure.subplots()
    axis.imshow(colour_depth(values, near, far))
    titled(axis, title)
    axis.set_axis_off()
    _axes_for_scale(figure, axis, near, far, label)
    return figure


def thinned(values: Tensor, largest: int = 1200) -> Tensor:
    """(H,W), every so manyth row and column, so that a picture of it is no larger than ``largest``."""
    stride = -(-max(values.shape) // largest)
    return values[::stride, ::stride]


def map_figure(values: Float[Tensor, "h w"], title: str) -> Figure:
    """A map of values in [0, 1] (confidence, relative depth) in colour, with its scale."""
    array = values.detach().cpu().numpy()
    figure = Figure(figsize=(1.6 + 5 * array.shape[1] / array.shape[0], 5), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(array, cmap="viridis", vmin=0, vmax=1)
    titled(axis, title)
    axis.set_axis_off()
    figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02)
    return figure


def defocus_figure(
    defocus_px: Float[Tensor, "s h w"], focus_distances_m: Sequence[float], titles: Sequence[str] | None = None
) -> Figure:
    """The signed defocus map of each slice: blue in front of the focus distance, red behind it."""
    values = defocus_px.detach().cpu().numpy()
    limit = max(1e-3, float(np.abs(values).max()))
    figure, axes = _grid(len(values), min(len(values), 5), values.shape[2] / values.shape[1])
    shown = None
    titles = titles or [f"focus {focus:.3g} m" for focus in focus_distances_m]
    for axis, value, title in zip(axes, values, titles, strict=False):
        shown = axis.imshow(value, cmap="coolwarm", vmin=-limit, vmax=limit)
        titled(axis, title, fontsize=9)
    assert shown is not None  # there are slices
    figure.colorbar(shown, ax=axes, fraction=0.02, pad=0.01, label="blur radius in pixels")
    return figure


def _grid(number: int, columns: int, aspect: float) -> tuple[Figure, list]:
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(2.2 * columns * aspect + 1.0, 2.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def overview(stack: FocalStack, prediction: Prediction, index: int = 0) -> Figure:
    """One sample on one page: the stack, its reconstruction, the error, depth, AIF and confidence, with truth and the error
    of depth where they are known."""
    keep = stack.slice_mask[index].cpu()
    images = stack.images[index].cpu()[keep].permute(0, 2, 3, 1).numpy()
    rendered: np.ndarray | None = None
    if prediction.rendered is not None:
        rendered = prediction.rendered[index].detach().float().cpu()[keep].permute(0, 2, 3, 1).numpy()
    focus = stack.focus_distances_m[index].cpu()[keep].tolist()
    height, width = images.shape[1:3]
    columns = max(len(images), 4)
    rows = 4 if stack.depth_m is None and stack.aif is None else 5
    figure, axes = _grid(rows * columns, columns, width / height)

    def show(row: int, column: int, picture: np.ndarray, title: str) -> None:
        axis = axes[row * columns + column]
        axis.imshow(np.clip(picture, 0, 1))
        titled(axis, title, fontsize=8)

    for column, (image, distance) in enumerate(zip(images, focus, strict=True)):
        show(0, column, image, f"input, focus {distance:.3g} m")
        if rendered is not None:
            show(1, column, rendered[column], "rendered")
            show(2, column, 8 * np.abs(rendered[column] - image), "8 x |error|")
    depth = prediction.depth_m[index].detach().float().cpu().numpy()
    truth = stack.depth_m[index].cpu().numpy() if stack.depth_m is not None else None
    near, far = shown_range(depth if truth is None else truth)
    show(3, 0, colour_depth(depth, near, far), f"depth, {near:.2f} to {far:.2f} m")
    show(3, 1, prediction.aif[index].detach().float().cpu().permute(1, 2, 0).numpy(), "AIF")
    if prediction.confidence is not None:
        show(3, 2, colour_confidence(prediction.confidence[index].detach().float().cpu().numpy()), "confidence")
    if truth is not None:
        show(4, 0, colour_depth(truth, near, far), "true depth")
        relative = np.abs(depth - truth) / np.maximum(truth, 1e-6)
        if stack.valid is not None:
            relative = np.where(stack.valid[index].cpu().numpy(), relative, 0.0)
        show(3, 3, colour_error(relative, DEPTH_ERROR_SHOWN), f"|depth error|, white is {100 * DEPTH_ERROR_SHOWN:g} %")
    if stack.aif is not None:
        show(4, 1, stack.aif[index].cpu().permute(1, 2, 0).numpy(), "true AIF")
    if stack.name[index]:
        figure.suptitle(stack.name[index], fontsize=9, parse_math=False)
    return figure


def diagnosis_figure(found: Diagnosis, title: str, unit: str = "m") -> Figure:
    """Blur radius of each slice over depth, and the smallest visible depth step."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for focus, radius in zip(found.focus_distances_m, found.blur_radius_px, strict=True):
        left.plot(found.depth_m, radius, label=f"focus {focus:.3g} {unit}".strip())
    left.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    left.set(ylabel="blur radius in pixels")
    titled(left, title)
    left.legend(fontsize=8)
    finite = np.isfinite(found.depth_step_m)
    right.plot(found.depth_m[finite], 100 * (found.depth_step_m / found.depth_m)[finite], color="C3")
    right.set(ylabel="depth step of one 8-bit level, % of depth")
    titled(right, f"verdict: {found.verdict}")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set(xscale="log", xlabel=f"depth in {unit}" if unit else "depth")
        axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    return figure
