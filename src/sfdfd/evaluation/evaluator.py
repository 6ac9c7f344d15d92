"""Methods over a data set -> ``metrics.json``, ``metrics.csv``, pictures and a report."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.errors import InputError
from sfdfd.io.files import atomic_write, write_json
from sfdfd.measures.left_out import HOW_TO_READ, LeftOutScore, mean_left_out_psnr, score_left_out_slices
from sfdfd.measures.metrics import EvaluationMetrics, ImageMetrics, image_metrics
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.render import Renderer
from sfdfd.photographs.holdout import parse_holdout, remaining
from sfdfd.report.html import Section, left_out_row, picture, viewer, write_page
from sfdfd.report.pictures import overview, to_rgb
from sfdfd.stack import FocalStack, Method, Prediction, renderer_for

__all__ = ["MAIN", "PartialEvaluation", "evaluate", "evaluate_share", "print_metrics", "read_rows"]

MAIN = "network"
"""The method whose figures stand in front; the others are ``baselines/NAME/...``."""
DRAWN = (MAIN, "classical", "refined")
REPORTED = ("refined", MAIN, "classical")
"""The first of these that is there has its best and worst cases in the report."""
LEFT_OUT = {
    "psnr_db": "left_out/psnr",
    "nearest_slice_psnr_db": "left_out/nearest_psnr",
    "best_blend_psnr_db": "left_out/blend_psnr",
}
"""What the figures of left-out slices (:mod:`sfdfd.measures.left_out`) are called among the metrics."""
SHOWN = (
    "depth/abs_rel",
    "depth/rmse",
    "depth/delta1",
    "aif/psnr",
    "aif/ssim",
    "stack/psnr",
    "stack/ssim",
    *LEFT_OUT.values(),
)


def evaluate(
    methods: Mapping[str, Method],
    datamodule: FocalStackDataModule,
    split: str,
    output_dir: Path,
    *,
    renderer: Renderer,
    optics: BlurModel | None = None,
    device: torch.device | str = "cpu",
    pictures: int = 4,
    protocol: Mapping[str, Any] | None = None,
    rank: int = 0,
    world: int = 1,
    gather: Callable[[PartialEvaluation], Sequence[PartialEvaluation] | None] | None = None,
) -> dict[str, Any]:
    """Evaluate methods on one split, each sample once; write all that was found.

    Args:
        methods: by name; :data:`MAIN` is the one whose figures stand in front.
        datamodule, split: the data; what it keeps aside (``keep_aside``) no method sees, and every method is judged by it.
        output_dir: receives ``metrics.json``, ``metrics.csv`` (one row per image and method), ``pictures/`` and
            ``report.html`` (table, worst and best cases).
        renderer: the optics where stacks do not say their own; it refocuses in the report.
        optics: what is told of the blur whatever the stacks say.
        device: where the stacks go.
        pictures: number of samples to draw; with 0 the report shows no cases either.
        protocol: added to the data's protocol in ``metrics.json``.
        rank, world: this process, and how many share the images; the figures are those of one, bit for bit.
        gather: called with this process's :class:`PartialEvaluation`; returns all of them, or None where another process writes.

    Returns:
        The content of ``metrics.json``: a flat object of means over images, ``pooled/...``, ``baselines/...``,
        "samples", and the object "protocol"; an empty one where another process writes.
    """
    mine = evaluate_share(
        methods,
        datamodule,
        split,
        output_dir,
        renderer=renderer,
        optics=optics,
        device=device,
        pictures=pictures,
        rank=rank,
        world=world,
    )
    shares = [mine] if gather is None else gather(mine)
    if shares is None:
        return {}
    images = sorted((one for share in shares for one in share.images), key=lambda one: one[0])
    metrics = {name: EvaluationMetrics(sync_on_compute=False) for name in methods}  # what others measured is here
    rows = [row for _, _, found in images for row in found.values()]
    for _, measured, _ in images:
        for name, one in measured.items():
            metrics[name].update(one)
    result = {
        **_flat(metrics, rows),
        "protocol": {
            **datamodule.protocol(),
            "split": split,
            "resolution": [list(size) for size in sorted({size for share in shares for size in share.resolution})],
            "model_sigma_scale": renderer.options.get("sigma_scale"),
            "model_renderer": dict(renderer.options),
            "inverted": sorted({name for share in shares for name in share.physics}),
            "average": "per image over valid pixels, then the unweighted mean over images; pooled/... over all pixels",
            **_left_out_protocol(datamodule.holdout),
            **({"processes": world} if world > 1 else {}),
            **(protocol or {}),
        },
    }
    write_json(output_dir / "metrics.json", result)
    _write_rows(output_dir / "metrics.csv", rows)
    _report(output_dir / "report.html", result, _reported(methods), _Cases.joined(shares), renderer)
    return result


@dataclass
class PartialEvaluation:
    """What one of several processes found; plain, so that it can be sent.

    Attributes:
        images: (index, what was measured by method, rows by method) of each image.
        cases: its best and worst.
        resolution: (height, width) that occurred.
        physics: how the stacks were taken to be blurred, in words.
    """

    images: list[tuple[int, dict[str, ImageMetrics], dict[str, dict[str, Any]]]] = field(default_factory=list)
    cases: _Cases = field(default_factory=lambda: _Cases())
    resolution: set[tuple[int, int]] = field(default_factory=set)
    physics: set[str] = field(default_factory=set)


def _reported(methods: Mapping[str, Method]) -> str:
    return next((name for name in REPORTED if name in methods), next(iter(methods)))


def evaluate_share(
    methods: Mapping[str, Method],
    datamodule: FocalStackDataModule,
    split: str,
    output_dir: Path,
    *,
    renderer: Renderer,
    optics: BlurModel | None = None,
    device: torch.device | str = "cpu",
    pictures: int = 4,
    rank: int = 0,
    world: int = 1,
) -> PartialEvaluation:
    """Every ``world``-th image from ``rank`` on; draws the pictures of those. Arguments as :func:`evaluate`."""
    dataset, share, reported = datamodule.dataset(split), PartialEvaluation(), _reported(methods)
    drawn = {round(i) for i in torch.linspace(0, len(dataset) - 1, min(pictures, len(dataset))).tolist()}
    folder = output_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # FORCE_COLOR makes no terminal
    silent = rank > 0 or not console.is_terminal
    for index in track(range(rank, len(dataset), world), description="evaluating", console=console, disable=silent):
        stack, aside, places = _parted(dataset[index].to(device).with_optics(optics), datamodule.holdout)
        model = renderer_for(stack, renderer)
        share.physics.add(str(BlurModel.of(model) or type(model).__name__))
        share.resolution.add((stack.images.shape[-2], stack.images.shape[-1]))
        measured: dict[str, ImageMetrics] = {}
        rows: dict[str, dict[str, Any]] = {}
        for name, method in methods.items():
            prediction = method(stack)
            measured[name] = image_metrics(prediction, stack)
            rows[name] = {"name": stack.name[0], "method": name, **measured[name].as_dicts()[0]}
            judged = (
                score_left_out_slices(stack, prediction, model, aside, getattr(method, "camera", None))
                if aside is not None
                else []
            )
            if judged:
                means = mean_left_out_psnr([one.figures for one in judged])
                rows[name].update({LEFT_OUT[key]: value for key, value in means.items()})
            if name == reported and pictures:
                share.cases.offer(rows[name], index, stack, prediction, _left_out_rows(places, judged))
            if index in drawn and name in DRAWN:
                iio.imwrite(folder / f"{name}_{stack.name[0] or index}.png", to_rgb(overview(stack, prediction)))
        share.images.append((index, measured, rows))
    return share


def _parted(stack: FocalStack, holdout: Any) -> tuple[FocalStack, FocalStack | None, tuple[int, ...]]:
    """The slices that methods see, those kept aside, and the places of the latter."""
    focus = stack.focus_distances_m[0].tolist()
    try:
        places = parse_holdout(holdout, len(focus), focus)
    except InputError as error:
        raise InputError(f"{stack.name[0] or 'a stack of the data'}: {error}") from None
    if not places:
        return stack, None, ()
    return stack.with_slices(remaining(places, len(focus))), stack.with_slices(places), places


def _left_out_protocol(holdout: Any) -> dict[str, Any]:
    if holdout is None:
        return {}
    how = (
        "no method saw these slices; rendered from its depth and AIF; PSNR per slice after evening the exposure, 3 % of "
        "the border left out, mean over a stack's slices, then over stacks; stack/... is over the slices that were seen"
    )
    return {"holdout": holdout, "left_out": how}


def _left_out_rows(places: Sequence[int], judged: Sequence[LeftOutScore]) -> list[dict[str, Any]]:
    """The left-out slices of one case, for the page."""
    return [left_out_row(f"Left out: slice {place}", one) for place, one in zip(places, judged, strict=True)]


def _flat(metrics: Mapping[str, EvaluationMetrics], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every method's means under its prefix, and the number of samples."""
    result: dict[str, Any] = {}
    for name, accumulated in metrics.items():
        values = accumulated.compute()
        samples = values.pop("samples")
        prefix = "" if name == MAIN else f"baselines/{name}/"
        result.update({prefix + key: value for key, value in values.items()})
        for key in LEFT_OUT.values():
            found = [row[key] for row in rows if row["method"] == name and math.isfinite(row.get(key, math.nan))]
            if found:
                result[prefix + key] = sum(found) / len(found)
        result["samples"] = samples
    return result


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_write(path) as part, part.open("w", newline="", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.csv``: one per image and method, figures as numbers, None where there is none.

    Raises:
        InputError: it is another table, or a broken one.
    """
    try:
        with path.open(newline="", errors="backslashreplace") as file:
            rows = list(csv.DictReader(file))
        return [
            {
                "name": row.pop("name"),
                "method": row.pop("method"),
                **{k: float(v) if v else None for k, v in row.items()},
            }
            for row in rows
        ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not the table that an evaluation writes ({error!r})") from None


@dataclass
class _Cases:
    """The best and the worst two samples so far, with their predictions; by depth where there is truth, else by the
    rendered stack."""

    kept: list[tuple[float, int, FocalStack, Prediction, list[dict[str, Any]]]] = field(default_factory=list)
    key: str = ""

    def offer(
        self,
        row: Mapping[str, Any],
        index: int,
        stack: FocalStack,
        prediction: Prediction,
        left_out: list[dict[str, Any]],
    ) -> None:
        if not self.key:
            self.key = "depth/abs_rel" if math.isfinite(row["depth/abs_rel"]) else "stack/psnr"
        value = row[self.key] if self.key == "depth/abs_rel" else -row[self.key]
        if math.isfinite(value):
            self.kept.append((value, index, stack.to("cpu"), prediction.to("cpu"), left_out))
            self._thin()

    def _thin(self) -> None:
        self.kept.sort(key=lambda one: one[:2])
        del self.kept[2:-2]

    @classmethod
    def joined(cls, shares: Sequence[PartialEvaluation]) -> _Cases:
        """Those of all shares whose key is the first's."""
        key = next((share.cases.key for share in shares if share.cases.key), "")
        found = cls([one for share in shares if share.cases.key == key for one in share.cases.kept], key)
        found._thin()
        return found

    def labelled(self) -> list[tuple[str, int, FocalStack, Prediction, list[dict[str, Any]]]]:
        best = min(2, len(self.kept))
        labels = [f"best by {self.key}"] * best + [f"worst by {self.key}"] * (len(self.kept) - best)
        return [(label, *one[1:]) for label, one in zip(labels, self.kept, strict=True)]


def _columns(result: Mapping[str, Any]) -> list[str]:
    """The ``SHOWN`` metrics; those of left-out slices where there are such."""
    return [key for key in SHOWN if "left_out" in result["protocol"] or key not in LEFT_OUT.values()]


def _table(result: Mapping[str, Any]) -> list[list[str]]:
    """One row per method over the ``SHOWN`` metrics."""
    beside = dict.fromkeys(key.split("/")[1] for key in result if key.startswith("baselines/"))
    rows = []
    for label, prefix in ((MAIN, ""), *((label, f"baselines/{label}/") for label in beside)):
        values = [result.get(prefix + key) for key in _columns(result)]
        if any(value is not None for value in values):
            rows.append([label, *("-" if value is None else f"{value:.4g}" for value in values)])
    return rows


def _report(path: Path, result: Mapping[str, Any], method: str, cases: _Cases, renderer: Renderer) -> None:
    """Table, worst and best cases of one method, each with a viewer."""
    table = {"header": ["method", *_columns(result)], "rows": _table(result)}
    text = [HOW_TO_READ] if "left_out" in result["protocol"] else []
    sections = [Section(title=f"{result['samples']} samples", table=table, text=text)]
    for label, index, stack, prediction, left_out in cases.labelled():
        page, model = to_rgb(overview(stack, prediction)), renderer_for(stack, renderer)
        sections.append(
            Section(
                title=f"{method}, {label}: {stack.name[0] or index}",
                viewer=viewer(stack, prediction, model, focuses=8, apertures=(0.0, 1.0), largest_px=360),
                rows=[{"title": "Overview", "pictures": [picture(label, page, largest_px=1400)]}, *left_out],
            )
        )
    facts = [(str(key), str(value)) for key, value in result["protocol"].items()]
    write_page(path, "sfdfd: evaluation", [*sections, Section(title="Protocol", facts=facts)])


def print_metrics(result: Mapping[str, Any], title: str) -> None:
    """The methods as a table on the terminal."""
    table = Table(title=f"{title} ({result['samples']} samples)")
    table.add_column("method")
    for key in _columns(result):
        table.add_column(key, justify="right")
    for row in _table(result):
        table.add_row(*row)
    Console(width=160 if "left_out" in result["protocol"] else 120).print(table)
