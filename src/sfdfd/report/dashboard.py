"""The dashboard of a run: its panels, and the page that shows them without W&B's server.

:data:`SECTIONS` is the layout. ``python -m sfdfd.dashboard workspace=PROJECT`` makes a W&B workspace of it, and ``run=DIR``
draws it from the logs on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from sfdfd.io.files import atomic_write
from sfdfd.report.html import Section, picture, picture_file, write_page
from sfdfd.report.pictures import set_plain_title, to_rgb

__all__ = ["FRAMES", "SCENES", "SECTIONS", "SUMMARY", "SWEPT", "Panel", "RunLog", "write_dashboard"]

Curve = Sequence[tuple[float, float]]
"""(step, value), by step."""
Histograms = Sequence[tuple[float, Mapping[str, Any]]]
"""(step, {"values", "bins"}), by step."""


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: above it.
        keys: logged values, one line each.
        kind: "lines", "areas" (stacked shares), or "histograms" (one column of an image per step).
        log: whether the axis of the values is logarithmic.
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
"""The keys of the fixed scenes' pictures and of the table of the test frames."""
SWEPT = ("optics.sigma_scale", "optimizer.lr", "data.slices", "seed")
SUMMARY = ("test/depth/abs_rel", "test/depth/rmse", "test/aif/psnr", "test/stack/psnr")
"""The columns of a sweep's parallel coordinates: parameters that are usually varied, and results."""
COLOURS = ("#3b5bdb", "#e8590c", "#2b8a3e", "#ae3ec9", "#0b7285", "#868e96")


@dataclass(frozen=True)
class RunLog:
    """What a run logged.

    Attributes:
        name: of the run.
        curves: key -> its values over the steps; empty where it was not logged.
        histograms: key -> its histograms over the steps.
        source: where the log comes from, in words.
        config: of the run.
    """

    name: str
    curves: Callable[[str], Curve]
    histograms: Callable[[str], Histograms]
    source: str
    config: Mapping[str, Any] = field(default_factory=dict)


def write_dashboard(
    run: Path, log: RunLog, output_dir: Path, test_frames: Mapping[str, Any] | None
) -> tuple[Path, Path]:
    """Write ``dashboard.html`` and ``dashboard.png``; return their paths.

    Args:
        run: the run folder; its ``pictures/`` are shown.
        log: what is drawn.
        output_dir: receives the files.
        test_frames: header and rows of a table of test frames.
    """
    sections = _panel_sections(log)
    if scenes := _scene_rows(run):
        sections.append(Section(title=f"The same scenes over the steps ({SCENES}*)", rows=scenes))
    if test_frames:
        sections.append(Section(title=f"Test frames, worst first ({FRAMES})", table=test_frames))
    facts = [(key, str(value)) for key, value in log.config.items() if key[0] != "_"]
    sections.append(Section(title="Configuration", text=[f"Source: {log.source}."], facts=facts))
    output_dir.mkdir(parents=True, exist_ok=True)
    page, image = output_dir / "dashboard.html", output_dir / "dashboard.png"
    write_page(page, f"sfdfd: {log.name}", sections)
    with atomic_write(image) as part:
        iio.imwrite(part, to_rgb(_dashboard_figure(log)), extension=".png")
    return page, image


def _panel_sections(log: RunLog) -> list[Section]:
    sections = []
    for title, panels in SECTIONS.items():
        pictures = []
        for panel in panels:
            figure = Figure(figsize=(5, 3), dpi=100, layout="constrained")
            if _draw(figure.subplots(), panel, log):
                pictures.append(picture(panel.title, to_rgb(figure)))
        if pictures:
            sections.append(Section(title=title, rows=[{"title": "", "pictures": pictures}]))
    return sections


def _scene_rows(run: Path) -> list[dict[str, Any]]:
    """Return gallery rows: the first, a middle and the last picture of each fixed scene."""
    by_scene: dict[str, list[Path]] = {}
    for file in sorted((run / "pictures").glob("step_*_*.png")):
        by_scene.setdefault(file.stem.split("_", 2)[2], []).append(file)
    rows = []
    for scene, files in by_scene.items():
        pictures = []
        for index in sorted({0, len(files) // 2, len(files) - 1}):
            step = files[index].stem.split("_")[1].lstrip("0") or 0
            pictures += picture_file(f"step {step}", files[index], largest_px=900)
        if pictures:
            rows.append({"title": f"scene {scene}", "pictures": pictures})
    return rows


def _dashboard_figure(log: RunLog) -> Figure:
    """Draw all panels for which something was logged on one page."""
    all_panels = [panel for row in SECTIONS.values() for panel in row]
    panels = [panel for panel in all_panels if any(map(log.curves, panel.keys))]
    panels += [panel for panel in all_panels if panel.kind == "histograms" and any(map(log.histograms, panel.keys))]
    columns = 4
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(4 * columns, 2.6 * rows + 0.4), dpi=100, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, log)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(log.name, fontsize=11, parse_math=False)
    return figure


def _draw(axis: Any, panel: Panel, log: RunLog) -> bool:
    """Draw a panel; return false where nothing of it was logged."""
    if panel.kind == "histograms":
        histograms = [entry for key in panel.keys for entry in log.histograms(key)]
        if not histograms:
            return False
        _draw_histograms(axis, histograms)
    else:
        curves = {key: curve for key in panel.keys if (curve := log.curves(key))}
        if not curves:
            return False
        (_draw_areas if panel.kind == "areas" else _draw_lines)(axis, panel, curves)
    set_plain_title(axis, panel.title, fontsize=9)
    axis.set_xlabel("step", fontsize=7)
    axis.tick_params(which="both", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    return True


def _draw_histograms(axis: Any, histograms: Histograms) -> None:
    """Draw one column per step; the square root makes rare values visible."""
    edges = np.asarray(histograms[-1][1]["bins"], float)
    shares = [np.asarray(entry["values"], float) / max(1.0, sum(entry["values"])) for _, entry in histograms]
    columns = np.stack(shares, 1)
    extent = (-0.5, len(histograms) - 0.5, edges[0], edges[-1])
    axis.imshow(np.sqrt(columns), origin="lower", aspect="auto", cmap="viridis", extent=extent)
    ticks = np.unique(np.linspace(0, len(histograms) - 1, 5).astype(int))
    axis.set_xticks(ticks, labels=[f"{histograms[i][0]:g}" for i in ticks])
    occupied = np.flatnonzero(columns.sum(1) > 1e-4)
    axis.set_ylim(edges[0], edges[min(len(edges) - 1, occupied[-1] + 2)] if len(occupied) else edges[-1])


def _draw_areas(axis: Any, panel: Panel, curves: Mapping[str, Curve]) -> None:
    steps = [step for step, _ in next(iter(curves.values()))]
    values = [np.interp(steps, [s for s, _ in curve], [v for _, v in curve]) for curve in curves.values()]
    axis.stackplot(steps, values, labels=[_label(key, panel) for key in curves], colors=COLOURS)
    axis.set_ylim(0, 1)
    if len(curves) > 1:
        axis.legend(fontsize=6, framealpha=0.7, loc="lower left", ncols=3)


def _draw_lines(axis: Any, panel: Panel, curves: Mapping[str, Curve]) -> None:
    for (key, curve), colour in zip(curves.items(), COLOURS, strict=False):
        marker = "." if len(curve) < 3 else None
        axis.plot(*zip(*curve, strict=True), label=_label(key, panel), color=colour, linewidth=1.3, marker=marker)
    if panel.log and all(value > 0 for curve in curves.values() for _, value in curve):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
        axis.yaxis.set_minor_formatter(FormatStrFormatter("%.3g"))
    if len(curves) > 1:
        axis.legend(fontsize=6, framealpha=0.7)


def _label(key: str, panel: Panel) -> str:
    """Return the part of a key that differs from the panel's other keys."""
    groups = {other.split("/")[0] for other in panel.keys}
    return key if len(groups) > 1 else key.split("/")[-1].removeprefix("share_").replace("_", " ")
