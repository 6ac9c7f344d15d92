"""The page of an evaluation: a table of methods, and the best and worst cases of one of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfdfd.measures.left_out import HOW_TO_READ
from sfdfd.optics.render import Renderer
from sfdfd.report.html import Section, picture, viewer, write_page
from sfdfd.report.pictures import overview, to_rgb
from sfdfd.stack import FocalStack, Prediction, renderer_for

__all__ = ["BestAndWorst", "Case", "write_evaluation_page"]


@dataclass(frozen=True)
class Case:
    """A sample and what one method predicted.

    Attributes:
        error: the smaller, the better.
        index: of the sample in its data set.
        left_out: gallery rows of its left-out slices.
    """

    error: float
    index: int
    stack: FocalStack
    prediction: Prediction
    left_out: list[dict[str, Any]]


@dataclass
class BestAndWorst:
    """Keep the best two and the worst two cases: by depth where there is truth, else by the rendered stack."""

    cases: list[Case] = field(default_factory=list)
    key: str = ""

    def add(
        self,
        row: Mapping[str, Any],
        index: int,
        stack: FocalStack,
        prediction: Prediction,
        left_out: list[dict[str, Any]],
    ) -> None:
        """Keep a sample if it is among the best or the worst.

        Args:
            row: its metrics.
            index, stack, prediction, left_out: see :class:`Case`.
        """
        if not self.key:
            self.key = "depth/abs_rel" if math.isfinite(row["depth/abs_rel"]) else "stack/psnr"
        error = row[self.key] if self.key == "depth/abs_rel" else -row[self.key]
        if math.isfinite(error):
            self.cases.append(Case(error, index, stack.to("cpu"), prediction.to("cpu"), left_out))
            self._drop_middle()

    def _drop_middle(self) -> None:
        self.cases.sort(key=lambda case: (case.error, case.index))
        del self.cases[2:-2]

    @classmethod
    def merged(cls, parts: Sequence[BestAndWorst]) -> BestAndWorst:
        """Return the best and worst of all parts that are ranked by the first part's key."""
        key = next((part.key for part in parts if part.key), "")
        merged = cls([case for part in parts if part.key == key for case in part.cases], key)
        merged._drop_middle()
        return merged

    def labelled(self) -> list[tuple[str, Case]]:
        """Return each case with its label, the best first."""
        best = min(2, len(self.cases))
        labels = [f"best by {self.key}"] * best + [f"worst by {self.key}"] * (len(self.cases) - best)
        return list(zip(labels, self.cases, strict=True))


def write_evaluation_page(
    path: Path,
    result: Mapping[str, Any],
    table: Mapping[str, Any],
    method: str,
    cases: Iterable[tuple[str, Case]],
    renderer: Renderer,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        result: the content of ``metrics.json``.
        table: header and rows, one row per method.
        method: whose cases are shown.
        cases: labels and cases; each gets a viewer that refocuses.
        renderer: the optics where a stack does not carry its own.
    """
    text = [HOW_TO_READ] if "left_out" in result["protocol"] else []
    sections = [Section(title=f"{result['samples']} samples", table=table, text=text)]
    for label, case in cases:
        page = to_rgb(overview(case.stack, case.prediction))
        optics = renderer_for(case.stack, renderer)
        sections.append(
            Section(
                title=f"{method}, {label}: {case.stack.name[0] or case.index}",
                viewer=viewer(case.stack, case.prediction, optics, focuses=8, apertures=(0.0, 1.0), largest_px=360),
                rows=[{"title": "Overview", "pictures": [picture(label, page, largest_px=1400)]}, *case.left_out],
            )
        )
    facts = [(str(key), str(value)) for key, value in result["protocol"].items()]
    write_page(path, "sfdfd: evaluation", [*sections, Section(title="Protocol", facts=facts)])
