"""One look for every figure: the palette of docs/assets/site.css, drawn once for the light page and once for the dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("svg")

GENERATED = Path(__file__).resolve().parents[1] / "generated"
LIGHT = {"ink": "#22314a", "grid": "#d7dce5", "near": "#c2601a", "far": "#2b6cb0", "mark": "#8a3ffc", "soft": "#8792a6"}
DARK = {"ink": "#dbe3f0", "grid": "#3a465c", "near": "#f0a25e", "far": "#6aa5e6", "mark": "#b794ff", "soft": "#8c98ad"}
DEPTH = "plasma"
"""Perceptually uniform, as everywhere (sfdfd.report.pictures)."""


def drawn_twice(name: str, draw: Callable[[dict[str, str]], Figure]) -> None:
    """``generated/NAME.light.svg`` and ``NAME.dark.svg``, on nothing, so that they stand on paper and in the dark."""
    GENERATED.mkdir(exist_ok=True)
    for scheme, palette in (("light", LIGHT), ("dark", DARK)):
        colours = {
            key: palette["ink"]
            for key in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor")
        }
        settings = {
            **colours,
            "axes.edgecolor": palette["grid"], "grid.color": palette["grid"], "axes.grid": True, "axes.axisbelow": True,
            "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
            "axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "font.family": "DejaVu Sans",
            "svg.hashsalt": name, "svg.fonttype": "path", "lines.linewidth": 1.8,
        }  # fmt: skip
        with matplotlib.rc_context(settings):
            draw(palette).savefig(GENERATED / f"{name}.{scheme}.svg", metadata={"Date": None})


def picture(axis, image, title: str = "", **options):
    """An image without axes."""
    shown = axis.imshow(image, **options)
    axis.set_axis_off()
    axis.set_title(title, fontsize=9)
    return shown
