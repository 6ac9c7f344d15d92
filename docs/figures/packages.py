"""Draw the packages and their imports, from the imports themselves (grimp) and the layers of .importlinter."""

from __future__ import annotations

import configparser
from collections import Counter
from pathlib import Path

import grimp
import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = "commands"


def layers() -> list[str]:
    """Return the packages from top to bottom, as the import contract has them, below the commands."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    names = parser["importlinter:contract:layers"]["layers"].split()
    return [COMMANDS, *(layer.removeprefix("sfdfd.") for layer in names)]


def arrows() -> tuple[Counter, Counter]:
    """Count imports by (importing package, imported package), and modules by package."""
    graph = grimp.build_graph("sfdfd")
    packages_ = layers()

    def package(module: str) -> str:
        first = module.split(".")[1] if "." in module else COMMANDS
        return first if first in packages_ else COMMANDS

    counted, files = Counter(), Counter()
    for module in graph.modules:
        files[package(module)] += 1
        for imported in graph.find_modules_directly_imported_by(module):
            if package(module) != package(imported):
                counted[package(module), package(imported)] += 1
    return counted, files


def packages(palette: dict[str, str]) -> Figure:
    """Draw an arc from each package to those it imports, the thicker the more imports there are."""
    names, (counted, files) = layers(), arrows()
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axis = figure.subplots()
    place = {name: -index for index, name in enumerate(names)}
    for name, y in place.items():
        axis.text(0, y, name, ha="right", va="center", fontsize=10, color=palette["ink"], fontweight="bold")
        axis.text(
            -1.75, y, f"{files[name]} file{'s' * (files[name] != 1)}", ha="right", va="center", color=palette["soft"]
        )
        axis.plot([0.12], [y], "o", color=palette["far"], markersize=5)
    for (above, below), count in sorted(counted.items()):
        top, bottom = place[above], place[below]
        down = top > bottom
        middle, half = (top + bottom) / 2, abs(top - bottom) / 2
        angle = np.linspace(-np.pi / 2, np.pi / 2, 60)
        colour = palette["near"] if above == COMMANDS else palette["far"] if down else palette["mark"]
        axis.plot(
            0.2 + 0.62 * half * np.cos(angle), middle + half * np.sin(angle), color=colour,
            linewidth=0.5 + 0.28 * np.sqrt(count), alpha=0.55,
        )  # fmt: skip
    axis.text(4.2, 0.5, "imports only point down;\norange: commands", ha="right", va="top", color=palette["soft"])
    axis.set(xlim=(-2.7, 4.5), ylim=(-len(names) + 0.4, 0.6))
    axis.set_axis_off()
    return figure
