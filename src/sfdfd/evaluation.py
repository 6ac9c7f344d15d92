"""A method over a data set -> ``metrics.json``, ``metrics.csv``, pictures, and the baselines beside it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sfdfd.data.datamodule import StackDataModule
from sfdfd.metrics import EvaluationMetrics, image_metrics
from sfdfd.networks.baseline import classical_network, constant_network
from sfdfd.networks.interface import NetworkOutput, predict_stack
from sfdfd.optics.render import DefocusRenderer
from sfdfd.refine import Refiner
from sfdfd.report import Section, picture, viewer, write_json, write_page
from sfdfd.stack import FocalStack, Prediction
from sfdfd.visualize import overview, to_rgb

__all__ = ["evaluate", "print_metrics"]

SHOWN = ("depth/abs_rel", "depth/rmse", "depth/delta1", "aif/psnr", "aif/ssim", "stack/psnr", "stack/ssim")


def evaluate(
    network: Callable[..., NetworkOutput] | None,
    renderer: DefocusRenderer,
    datamodule: StackDataModule,
    split: str,
    output_dir: Path,
    *,
    device: torch.device | str = "cpu",
    pictures: int = 4,
    name: str = "network",
    beside: Mapping[str, Callable[..., NetworkOutput]] | None = None,
    refiner: Refiner | None = None,
    protocol: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a network, and the constant and classical baselines, on one split; write all that it found.

    Args:
        network: the method; None evaluates the baselines alone.
        renderer: the model's optics, which re-renders the stack.
        datamodule, split: the data.
        output_dir: receives ``metrics.json``, ``metrics.csv`` (one row per image and method), ``pictures/`` and
            ``report.html`` (table, worst and best cases).
        device: where the network runs.
        pictures: number of samples to draw.
        name: the method's name in tables.
        beside: more methods by name, reported under ``baselines/NAME/`` (the network before training, say).
        refiner: if it has time, "refined" is one more method: from the network's answer, or the classical one without a
            network.
        protocol: added to the data's protocol in ``metrics.json``.

    Returns:
        The content of ``metrics.json``: a flat object of means over images, ``pooled/...``, ``baselines/...``,
        "samples", and the object "protocol".
    """
    dataset = datamodule.dataset(split)
    constant_depth_m = datamodule.constant_baseline_m() if dataset[0].depth_m is not None else None
    methods = {} if network is None else {name: network}
    if constant_depth_m is not None:
        methods["constant"] = constant_network(constant_depth_m)
    methods["classical"] = classical_network
    methods.update(beside or {})
    for method in methods.values():
        if isinstance(method, torch.nn.Module):
            method.eval().to(device)
    predictors = {method: partial(predict_stack, function, renderer) for method, function in methods.items()}
    if refiner is not None and refiner.enabled:
        start = predictors[name if network is not None else "classical"]

        def refined(stack: FocalStack) -> Prediction:
            begun = start(stack)
            found = refiner(stack, renderer, begun.depth_m, begun.aif)
            return predict_stack(lambda *_, **__: found, renderer, stack)

        predictors["refined"] = refined
    metrics = {method: EvaluationMetrics(sync_on_compute=False) for method in predictors}  # one process evaluates
    rows: list[dict[str, Any]] = []
    resolution: set[tuple[int, int]] = set()
    drawn = {round(i) for i in torch.linspace(0, len(dataset) - 1, min(pictures, len(dataset))).tolist()}
    folder = output_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    for index in track(range(len(dataset)), description="evaluating", console=console, disable=not console.is_terminal):
        stack: FocalStack = dataset[index].to(device)
        resolution.add(tuple(stack.images.shape[-2:]))
        for method, predictor in predictors.items():
            with torch.no_grad():
                prediction = predictor(stack)
            measured = image_metrics(prediction, stack)
            metrics[method].update(measured)
            rows.append({"name": stack.name[0], "method": method, **measured.as_dicts()[0]})
            if index in drawn and method in (name, "classical", "refined"):
                picture = to_rgb(overview(stack, prediction))
                iio.imwrite(folder / f"{method}_{stack.name[0] or index}.png", picture)

    result: dict[str, Any] = {}
    for method, accumulated in metrics.items():
        values = accumulated.compute()
        samples = values.pop("samples")
        prefix = "" if method == name else f"baselines/{method}/"
        result.update({prefix + key: value for key, value in values.items()})
        result["samples"] = samples
    result["protocol"] = {
        **datamodule.protocol(),
        "split": split,
        "resolution": sorted(list(size) for size in resolution),
        "model_sigma_scale": renderer.sigma_scale,
        "model_renderer": dict(renderer.options),
        "constant_depth_m": constant_depth_m,
        "average": "per image over valid pixels, then the unweighted mean over images; pooled/... over all pixels",
        **(protocol or {}),
    }
    write_json(output_dir / "metrics.json", result)
    shown = next(method for method in ("refined", name, "classical") if method in predictors)
    _report(output_dir / "report.html", result, rows, shown, name, predictors[shown], dataset, renderer, device)
    with (output_dir / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return result


def _table(result: Mapping[str, Any], name: str) -> list[list[str]]:
    """One row per method over the ``SHOWN`` metrics."""
    beside = dict.fromkeys(key.split("/")[1] for key in result if key.startswith("baselines/"))
    rows = []
    for label, prefix in ((name, ""), *((label, f"baselines/{label}/") for label in beside)):
        values = [result.get(prefix + key) for key in SHOWN]
        if any(value is not None for value in values):
            rows.append([label, *("-" if value is None else f"{value:.4g}" for value in values)])
    return rows


def _report(path, result, rows, shown, name, predictor, dataset, renderer, device) -> None:
    """Table, worst and best cases of one method, each with a viewer."""
    key, sign = ("depth/abs_rel", 1) if "depth/abs_rel" in rows[0] else ("stack/psnr", -1)
    ranked = sorted(
        (sign * row[key], index)
        for index, row in enumerate(row for row in rows if row["method"] == shown)
        if math.isfinite(row[key])
    )
    cases = {index: f"best by {key}" for _, index in ranked[:2]}
    cases |= {index: f"worst by {key}" for _, index in ranked[::-1][:2] if index not in cases}
    sections = [
        Section(
            title=f"{result['samples']} samples", table={"header": ["method", *SHOWN], "rows": _table(result, name)}
        ),
    ]
    for index, label in cases.items():
        stack = dataset[index].to(device)
        with torch.no_grad():
            prediction = predictor(stack)
        page = to_rgb(overview(stack, prediction))
        sections.append(
            Section(
                title=f"{shown}, {label}: {stack.name[0] or index}",
                viewer=viewer(stack, prediction, renderer, focuses=8, apertures=(0.0, 1.0), largest_px=360),
                rows=[{"title": "Overview", "pictures": [picture(label, page, largest_px=1400)]}],
            )
        )
    facts = [(str(key), str(value)) for key, value in result["protocol"].items()]
    write_page(path, "sfdfd: evaluation", [*sections, Section(title="Protocol", facts=facts)])


def print_metrics(result: Mapping[str, Any], title: str, name: str = "network") -> None:
    """The method and its baselines as a table on the terminal."""
    table = Table(title=f"{title} ({result['samples']} samples)")
    table.add_column("method")
    for key in SHOWN:
        table.add_column(key, justify="right")
    for row in _table(result, name):
        table.add_row(*row)
    Console(width=120).print(table)
