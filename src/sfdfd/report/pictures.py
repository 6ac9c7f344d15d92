"""Draw tensors as colour images and figures; nothing here reads or writes a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sfdfd.measures.diagnosis import Diagnosis
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.stack import FocalStack, Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "apertures_in_words",
    "colour_confidence",
    "colour_defocus",
    "colour_depth",
    "colour_error",
    "defocus_figure",
    "depth_figure",
    "depth_palette",
    "diagnosis_figure",
    "map_figure",
    "overview",
    "set_plain_title",
    "shown_range",
    "subsampled",
    "to_rgb",
]

DEPTH_COLOURS = "plasma"
DEPTH_ERROR_SHOWN = 0.25
"""The relative depth error that is drawn white."""


def _new_figure(**options: Any) -> Figure:
    """Create a figure; matplotlib takes a second to load and is loaded here."""
    from matplotlib.figure import Figure

    return Figure(layout="constrained", **options)


def _map_colours(name: str, values: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] to (...,3) by a colour map of matplotlib."""
    import matplotlib

    return matplotlib.colormaps[name](values)[..., :3]


def to_rgb(figure: Figure) -> np.ndarray:
    """Draw a figure; return (H,W,3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def colour_depth(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """Colour (H,W) metres as (H,W,3) in [0, 1], linear in inverse depth: near is bright yellow, far is dark blue."""
    share = np.clip(normalized_inverse_depth(depth_m, near_m, far_m), 0, 1)
    return _map_colours(DEPTH_COLOURS, share)


def depth_palette(count: int) -> list[list[int]]:
    """Return the colours of :func:`colour_depth` from far to near, as RGB codes."""
    return (255 * _map_colours(DEPTH_COLOURS, np.linspace(0, 1, count))).round().astype(int).tolist()


def colour_confidence(confidence: np.ndarray) -> np.ndarray:
    """Colour (H,W) in [0, 1] as (H,W,3) in [0, 1]; bright is confident."""
    return _map_colours("viridis", np.clip(confidence, 0, 1))


def colour_defocus(defocus_px: np.ndarray, limit_px: float) -> np.ndarray:
    """Colour (H,W) signed blur radii as (H,W,3) in [0, 1]: blue in front of the focus, red behind it."""
    return _map_colours("coolwarm", np.clip(0.5 + 0.5 * defocus_px / limit_px, 0, 1))


def colour_error(error: np.ndarray, largest: float = 0.06) -> np.ndarray:
    """Colour (H,W) absolute errors as (H,W,3) in [0, 1]; black is 0, white ``largest``."""
    return _map_colours("inferno", np.clip(error / largest, 0, 1))


def set_plain_title(axis, title: str, **options) -> None:
    """Set a title that may hold file names, without parsing it as a formula."""
    axis.set_title(title, parse_math=False, **options)


def shown_range(depth_m: np.ndarray) -> tuple[float, float]:
    """Return near and far for the colours of a depth map, without its outliers."""
    near, far = np.percentile(depth_m, [1, 99])
    return (float(near), float(far)) if far > 1.01 * near else (0.95 * float(near), 1.05 * float(near))


def _axes_for_scale(figure: Figure, axis, near: float, far: float, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    inverse = Normalize(1 / far, 1 / near)
    bar = figure.colorbar(ScalarMappable(inverse, DEPTH_COLOURS), ax=axis, fraction=0.046, pad=0.02)
    ticks = np.linspace(1 / far, 1 / near, 6).tolist()
    bar.set_ticks(ticks, labels=[f"{1 / tick:.3g}" for tick in ticks])
    bar.set_label(label)


def depth_figure(depth_m: Float[Tensor, "h w"], title: str = "depth", label: str = "depth in metres") -> Figure:
    """Draw the depth map in colour, with a scale bar."""
    values = depth_m.detach().cpu().numpy()
    near, far = shown_range(values)
    figure = _new_figure(figsize=(1.6 + 5 * values.shape[1] / values.shape[0], 5))
    axis = figure.subplots()
    axis.imshow(colour_depth(values, near, far))
    set_plain_title(axis, title)
    axis.set_axis_off()
    _axes_for_scale(figure, axis, near, far, label)
    return figure


def subsampled(values: Tensor, largest: int = 1200) -> Tensor:
    """Return every n-th row and column of (H,W), so that the longer side is at most ``largest``."""
    stride = -(-max(values.shape) // largest)
    return values[::stride, ::stride]


def map_figure(values: Float[Tensor, "h w"], title: str) -> Figure:
    """Draw a map of values in [0, 1] (confidence, relative depth) in colour, with a scale bar."""
    array = values.detach().cpu().numpy()
    figure = _new_figure(figsize=(1.6 + 5 * array.shape[1] / array.shape[0], 5))
    axis = figure.subplots()
    image = axis.imshow(array, cmap="viridis", vmin=0, vmax=1)
    set_plain_title(axis, title)
    axis.set_axis_off()
    figure.colorbar(image, ax=axis, fraction=0.046, pad=0.02)
    return figure


def defocus_figure(
    defocus_px: Float[Tensor, "s h w"], focus_distances_m: Sequence[float], titles: Sequence[str] | None = None
) -> Figure:
    """Draw the signed defocus map of each slice: blue in front of the focus distance, red behind it."""
    values = defocus_px.detach().cpu().numpy()
    limit = max(1e-3, float(np.abs(values).max()))
    figure, axes = _grid(len(values), min(len(values), 5), values.shape[2] / values.shape[1])
    image = None
    titles = titles or [f"focus {focus:.3g} m" for focus in focus_distances_m]
    for axis, value, title in zip(axes, values, titles, strict=False):
        image = axis.imshow(value, cmap="coolwarm", vmin=-limit, vmax=limit)
        set_plain_title(axis, title, fontsize=9)
    assert image is not None  # there are slices
    figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01, label="blur radius in pixels")
    return figure


def _grid(number: int, columns: int, aspect: float) -> tuple[Figure, list]:
    rows = math.ceil(number / columns)
    figure = _new_figure(figsize=(2.2 * columns * aspect + 1.0, 2.4 * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def apertures_in_words(stack: FocalStack, index: int = 0) -> list[str]:
    """Return ", f/N" for each slice of a sample whose slices differ in aperture, else empty texts."""
    if not stack.camera[index].brackets_aperture:
        return [""] * stack.images.shape[1]
    return [f", f/{number:.3g}" for number in stack.f_numbers()[index].tolist()]


def overview(stack: FocalStack, prediction: Prediction, index: int = 0) -> Figure:
    """Draw one sample: the stack, its reconstruction and error, depth, AIF and confidence, and truth where it is known."""
    keep = stack.slice_mask[index].cpu()
    images = stack.images[index].cpu()[keep].permute(0, 2, 3, 1).numpy()
    rendered: np.ndarray | None = None
    if prediction.rendered is not None:
        rendered = prediction.rendered[index].detach().float().cpu()[keep].permute(0, 2, 3, 1).numpy()
    focus, apertures = stack.focus_distances_m[index].tolist(), apertures_in_words(stack, index)
    titles = [f"input, focus {focus[place]:.3g} m{apertures[place]}" for place in keep.nonzero()[:, 0].tolist()]
    height, width = images.shape[1:3]
    columns = max(len(images), 4)
    rows = 4 if stack.depth_m is None and stack.aif is None else 5
    figure, axes = _grid(rows * columns, columns, width / height)

    def show(row: int, column: int, picture: np.ndarray, title: str) -> None:
        axis = axes[row * columns + column]
        axis.imshow(np.clip(picture, 0, 1))
        set_plain_title(axis, title, fontsize=8)

    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        show(0, column, image, title)
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


def diagnosis_figure(diagnosis: Diagnosis, title: str, unit: str = "m") -> Figure:
    """Draw the blur radius of each slice over depth, and the smallest visible depth step."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = _new_figure(figsize=(10, 4.2))
    left, right = figure.subplots(1, 2)
    slices = zip(diagnosis.focus_distances_m, diagnosis.blur_radius_px, strict=True)
    for index, (focus, radius) in enumerate(slices):
        aperture = "" if diagnosis.f_numbers is None else f", f/{diagnosis.f_numbers[index]:.3g}"
        left.plot(diagnosis.depth_m, radius, label=f"focus {focus:.3g} {unit}".strip() + aperture)
    left.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    left.set(ylabel="blur radius in pixels")
    set_plain_title(left, title)
    left.legend(fontsize=8)
    finite = np.isfinite(diagnosis.depth_step_m)
    right.plot(diagnosis.depth_m[finite], 100 * (diagnosis.depth_step_m / diagnosis.depth_m)[finite], color="C3")
    right.set(ylabel="depth step of one 8-bit level, % of depth")
    set_plain_title(right, f"verdict: {diagnosis.verdict}")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set(xscale="log", xlabel=f"depth in {unit}" if unit else "depth")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    return figure
