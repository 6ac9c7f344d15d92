"""The dashboard of a run: which panels there are, and how they are drawn where W&B's server is not at hand.

The layout is data (:data:`SECTIONS`): ``python -m sfdfd.dashboard workspace=PROJECT`` makes a W&B workspace of it, and
``run=DIR`` draws it from what a run wrote on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from sfdfd.report.pictures import titled

__all__ = ["SECTIONS", "Panel", "dashboard_figure", "panel_figure"]

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: above it.
        keys: what is drawn over the steps, one line each.
        kind: "lines", "areas" (stacked shares), "histograms" (one over the steps, as a picture).
        log: logarithmic values.
    """

    title: str
    keys: tuple[str, ...]
    kind: str = "lines"
    log: bool = False


SECTIONS: Mapping[str, tuple[Panel, ...]] = {
    "Depth against truth, constant and classical": (
        Panel("AbsRel", ("truth/depth_abs_rel", "truth/constant_abs_rel", "truth/classical_abs_rel"), log=True),
        Panel("RMSE in metres", ("truth/depth_rmse", "truth/constant_rmse", "truth/classical_rmse"), log=True),
    ),
    "Losses": (
        Panel("total", ("train/total", "val/total")),
        Panel("reconstruction", ("train/reconstruction", "val/reconstruction")),
        Panel("AIF against the coarse AIF", ("train/aif_consistency", "val/aif_consistency")),
        Panel("smoothness", ("train/smoothness", "val/smoothness")),
    ),
    "Health": (
        Panel("spread of depth (0: collapsed)", ("health/depth_std",), log=True),
        Panel("gradient norm", ("gradient/norm",), log=True),
        Panel("learning rate", ("lr-AdamW", "lr-Adam")),
        Panel("pixels without signal", ("health/no_signal_share",)),
        Panel("predicted blur radius, median and 95 %", ("health/blur_radius_median_px", "health/blur_radius_p95_px")),
        Panel("predicted blur radius in pixels", ("health/blur_radius_px",), "histograms"),
    ),
    "Cost": (
        Panel("seconds a step", ("time/step_s",)),
        Panel(
            "shares of a step",
            tuple(f"time/share_{part}" for part in ("data", "network", "renderer", "loss", "backward", "optimizer")),
            "areas",
        ),
        Panel("stacks a second", ("throughput/stacks_per_s",)),
        Panel("peak memory in GiB", ("memory/peak_gib",)),
    ),
}
SCENES, FRAMES = "scenes/", "test/frames"
"""The keys of the fixed scenes' pictures and of the table of the test's frames."""
SWEPT = ("optics.sigma_scale", "optimizer.lr", "data.slices", "seed")
SUMMARY = ("test/depth/abs_rel", "test/depth/rmse", "test/aif/psnr", "test/stack/psnr")
"""The columns of a sweep's parallel coordinates: what is usually varied, and what came of it."""
COLOURS = ("#3b5bdb", "#e8590c", "#2b8a3e", "#ae3ec9", "#0b7285", "#868e96")


def panel_figure(
    panel: Panel, curves: Callable[[str], Curve], histograms: Callable[[str], Sequence[tuple[float, Any]]]
) -> Figure | None:
    """One panel drawn; None where nothing of it was logged.

    Args:
        panel: which.
        curves: key -> (step, value).
        histograms: key -> (step, {"values", "bins"}).
    """
    figure = Figure(figsize=(5, 3), dpi=100, layout="constrained")
    return figure if _draw(figure.subplots(), panel, curves, histograms) else None


def dashboard_figure(
    title: str, curves: Callable[[str], Curve], histograms: Callable[[str], Sequence[tuple[float, Any]]]
) -> Figure:
    """All panels for which something was logged, on one page; arguments as :func:`panel_figure`."""
    panels = [panel for row in SECTIONS.values() for panel in row if any(map(curves, panel.keys))]
    panels += [p for row in SECTIONS.values() for p in row if p.kind == "histograms" and any(map(histograms, p.keys))]
    columns = 4
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(4 * columns, 2.6 * rows + 0.4), dpi=100, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, curves, histograms)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _draw(axis: Any, panel: Panel, curves: Callable[[str], Curve], histograms: Callable[[str], Any]) -> bool:
    """Draw a panel; false where there is nothing to draw."""
    if panel.kind == "histograms":
        found = [(step, told) for key in panel.keys for step, told in histograms(key)]
        if not found:
            return False
        edges = np.asarray(found[-1][1]["bins"], float)
        columns = np.stack([np.asarray(told["values"], float) / max(1.0, sum(told["values"])) for _, told in found], 1)
        shown = np.sqrt(columns)  # rare radii are seen, too
        axis.imshow(
            shown, origin="lower", aspect="auto", cmap="viridis", extent=(-0.5, len(found) - 0.5, edges[0], edges[-1])
        )
        ticks = np.unique(np.linspace(0, len(found) - 1, 5).astype(int))
        axis.set_xticks(ticks, labels=[f"{found[i][0]:g}" for i in ticks])
        occupied = np.flatnonzero(columns.sum(1) > 1e-4)
        axis.set_ylim(edges[0], edges[min(len(edges) - 1, occupied[-1] + 2)] if len(occupied) else edges[-1])
    else:
        lines = {key: curve for key in panel.keys if (curve := curves(key))}
        if not lines:
            return False
        if panel.kind == "areas":
            steps = [step for step, _ in next(iter(lines.values()))]
            values = [np.interp(steps, [s for s, _ in curve], [v for _, v in curve]) for curve in lines.values()]
            axis.stackplot(steps, values, labels=[_label(key, panel) for key in lines], colors=COLOURS)
            axis.set_ylim(0, 1)
        else:
            for (key, curve), colour in zip(lines.items(), COLOURS, strict=False):
                marker = "." if len(curve) < 3 else None
                axis.plot(
                    *zip(*curve, strict=True), label=_label(key, panel), color=colour, linewidth=1.3, marker=marker
                )
            positive = all(value > 0 for curve in lines.values() for _, value in curve)
            if panel.log and positive:
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
                axis.yaxis.set_minor_formatter(FormatStrFormatter("%.3g"))
        if len(lines) > 1:
            axis.legend(
                fontsize=6, framealpha=0.7, **({"loc": "lower left", "ncols": 3} if panel.kind == "areas" else {})
            )
    titled(axis, panel.title, fontsize=9)
    axis.set_xlabel("step", fontsize=7)
    axis.tick_params(which="both", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    return True


def _label(key: str, panel: Panel) -> str:
    """What tells a key from the panel's others."""
    rooms = {one.split("/")[0] for one in panel.keys}
    return key if len(rooms) > 1 else key.split("/")[-1].removeprefix("share_").replace("_", " ")
