"""Benchmark contestants on a data set: scores of each scene, means with intervals, time and memory, failures."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.errors import InputError, one_line
from sfdfd.evaluation.evaluator import split_holdout
from sfdfd.evaluation.intervals import mean_interval, paired_interval
from sfdfd.inference.answers import Answer, Contestant, check_answer
from sfdfd.inference.contestants import write_answer
from sfdfd.io.files import write_json
from sfdfd.measures.alignment import as_depth_m
from sfdfd.measures.left_out import mean_left_out_psnr, score_left_out_slices
from sfdfd.measures.metrics import depth_metrics, psnr
from sfdfd.measures.planes import plane_deviation
from sfdfd.measures.regions import near_depth_edges, occluded, plain
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.scenes.truebench import CAMERA_CLASSES
from sfdfd.stack import FocalStack, Prediction, renderer_for

__all__ = ["COLUMNS", "Benchmark", "SceneScore", "print_table", "run_benchmark", "score", "score_scene", "summarize"]

COLUMNS = {
    "seconds": "s",
    "cpu_seconds": "CPU s",
    "peak_gib": "GiB",
    "abs_rel": "AbsRel",
    "abs_rel_edges": "edges",
    "abs_rel_occluded": "occluded",
    "abs_rel_plain": "plain",
    "delta1": "delta1",
    "abs_rel_aligned": "aligned",
    "aif_psnr": "AIF dB",
    "left_out_psnr": "left out dB",
    "left_out_over_nearest": "- nearest",
    "left_out_over_blend": "- blend",
    "plane_deviation": "plane",
}
"""Figures and their headings."""
COSTS = ("seconds", "cpu_seconds", "peak_gib")
WHOLE = "all"
RELATIVE_NOTE = (
    "* relative depth: aligned with the truth by scale and shift in inverse depth, scene by scene (least squares)"
)


@dataclass(frozen=True)
class SceneScore:
    """What one contestant reached on one scene; ``error`` says why it has no figures."""

    figures: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_gib: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Benchmark:
    """What is run, and on which scenes.

    Attributes:
        contestants: in the order of the table.
        datamodule, split: the data.
        renderer: the optics where a stack does not carry its own; it renders left-out slices.
        optics: the blur to assume, whatever the stacks say.
        planes: rectangle of a plane by a stack's name, see :func:`sfdfd.measures.planes.plane_deviation`.
        keep: whether to write every answer.
    """

    contestants: Sequence[Contestant]
    datamodule: FocalStackDataModule
    split: str
    renderer: Renderer
    optics: BlurModel | None = None
    planes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    keep: bool = False


def group_of(name: str) -> str:
    """Return the camera class in a scene's name; "" where there is none."""
    first = name.split("_")[0]
    return first if first in CAMERA_CLASSES else ""


# ---------------------------------------------------------------- one scene


def score(answer: Answer, stack: FocalStack, depth_kind: str) -> dict[str, float]:
    """Return the figures of an answer against the truth of a batch of one; without those that it cannot have.

    Depth is clamped to the stack's range. Relative kinds are aligned first (:mod:`sfdfd.measures.alignment`);
    "abs_rel_aligned" is AbsRel after the same alignment for every kind.
    """
    figures: dict[str, float] = {}
    if answer.depth is not None and stack.depth_m is not None:
        assert stack.valid is not None
        truth, valid = stack.depth_m[0], stack.valid[0]
        kinds = (answer.depth, depth_kind, stack.focus_distances_m[0], truth, valid)
        ends = float(stack.near_m[0]), float(stack.far_m[0])
        depth_m = as_depth_m(*kinds, *ends)
        masks = {"": torch.ones_like(valid), "_edges": near_depth_edges(stack.depth_m)[0]}
        masks["_occluded"] = occluded(stack.depth_m, stack.camera[0])[0]
        if stack.aif is not None:
            masks["_plain"] = plain(stack.aif)[0]
        for suffix, mask in masks.items():
            inside = mask & valid
            if bool(inside.any()):
                metrics = depth_metrics(depth_m[None], truth[None], inside[None])
                figures[f"abs_rel{suffix}"] = float(metrics["abs_rel"])
                if not suffix:
                    figures["delta1"] = float(metrics["delta1"])
        aligned = as_depth_m(*kinds, *ends, aligned=True)
        figures["abs_rel_aligned"] = float(depth_metrics(aligned[None], truth[None], valid[None])["abs_rel"])
    if answer.aif is not None and stack.aif is not None:
        figures["aif_psnr"] = float(psnr(answer.aif[None], stack.aif))
    return figures


def score_without_truth(
    answer: Answer, stack: FocalStack, left_out: FocalStack | None, renderer: Renderer, depth_kind: str
) -> dict[str, float]:
    """Return PSNR of the rendered left-out slices, and by how much it beats the nearest slice and the best blend of two."""
    if left_out is None or answer.depth is None or answer.aif is None or depth_kind not in ("metric", "index"):
        return {}
    ends = float(stack.near_m[0]), float(stack.far_m[0])
    depth_m = as_depth_m(answer.depth, depth_kind, stack.focus_distances_m[0], None, None, *ends)[None]
    defocus_px = defocus_map_px(depth_m, stack.focus_distances_m, stack.camera)
    prediction = Prediction(depth_m, answer.aif[None], defocus_px, None)
    scores = score_left_out_slices(stack, prediction, renderer_for(stack, renderer), left_out)
    means = mean_left_out_psnr([one.figures for one in scores])
    return {
        "left_out_psnr": means["psnr_db"],
        "left_out_over_nearest": means["psnr_db"] - means["nearest_slice_psnr_db"],
        "left_out_over_blend": means["psnr_db"] - means["best_blend_psnr_db"],
    }


def score_scene(benchmark: Benchmark, contestant: Contestant, sample: FocalStack, folder: Path) -> SceneScore:
    """Let a contestant solve a scene; a failure is a result."""
    stack, left_out, _ = split_holdout(sample, benchmark.datamodule.holdout)
    name, kind = stack.name[0], contestant.depth_kind
    try:
        answer = contestant.solve(stack.without_truth())
        check_answer(answer, stack, kind)
        figures = score(answer, stack, kind)
        figures |= score_without_truth(answer, stack, left_out, benchmark.renderer, kind)
        if answer.depth is not None and name in benchmark.planes and kind in ("metric", "index"):
            ends = float(stack.near_m[0]), float(stack.far_m[0])
            depth_m = as_depth_m(answer.depth, kind, stack.focus_distances_m[0], None, None, *ends)
            top, bottom, left, right = benchmark.planes[name]
            figures["plane_deviation"] = plane_deviation(depth_m, *ends, (top, bottom, left, right))
    except InputError as error:
        return SceneScore(error=one_line(error))
    except Exception as error:  # of somebody else's code: the other scenes and contestants go on
        return SceneScore(error=f"{type(error).__name__}: {one_line(error)}")
    if benchmark.keep:
        write_answer(folder / contestant.name / name, answer)
    return SceneScore(figures, **asdict(answer.cost))


# ---------------------------------------------------------------- all scenes


def run_benchmark(benchmark: Benchmark, output_dir: Path, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Run every contestant on every scene, and write ``results.json`` after each of them.

    Returns:
        The content of ``results.json``: "protocol", and for each of "methods" what it is, its scores by scene, and its
        "summary" by group of scenes.
    """
    dataset = benchmark.datamodule.dataset(benchmark.split)
    sample_at = lru_cache(maxsize=8)(dataset.__getitem__)  # photographs take long to align
    result: dict[str, Any] = {"protocol": dict(protocol), "methods": {}}
    for contestant in benchmark.contestants:
        scores: dict[str, SceneScore] = {}
        for index in _with_progress_bar(range(len(dataset)), contestant.name):
            sample = sample_at(index).with_optics(benchmark.optics)
            name = sample.name[0] or str(index)
            scores[name] = score_scene(benchmark, contestant, sample, output_dir / "predictions")
        result["methods"][contestant.name] = {
            "depth": contestant.depth_kind,
            "how": contestant.how,
            "scenes": {name: asdict(one) for name, one in scores.items()},
            "summary": summarize(scores),
        }
        result["differences"] = differences(result["methods"])
        write_json(output_dir / "results.json", result)
    return result


def _with_progress_bar(indices: Sequence[int], name: str) -> Iterable[int]:
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    return track(indices, description=name, console=console, disable=not console.is_terminal)


def summarize(scores: Mapping[str, SceneScore]) -> dict[str, Any]:
    """Return, by group of scenes and for "all", each figure's mean with the ends of its interval, and the failures.

    Time is the median over scenes, memory the largest.
    """
    groups = dict.fromkeys([WHOLE, *filter(None, (group_of(name) for name in scores))])
    return {
        group: _summary_of([one for name, one in scores.items() if group in (WHOLE, group_of(name))])
        for group in groups
    }


def _summary_of(scores: Sequence[SceneScore]) -> dict[str, Any]:
    """Return the summary of one group."""
    solved = [one for one in scores if not one.error]
    row: dict[str, Any] = {"scenes": len(scores), "failed": len(scores) - len(solved)}
    for key in COSTS:
        costs = [getattr(one, key) for one in solved if getattr(one, key) is not None]
        if costs:
            row[key] = max(costs) if key == "peak_gib" else statistics.median(costs)
    for key in COLUMNS:
        values = [one.figures[key] for one in solved if key in one.figures]
        if values:
            row[key] = list(mean_interval(values))
    return row


def differences(methods: Mapping[str, Any], key: str = "abs_rel") -> dict[str, list[float]]:
    """Return each method's mean AbsRel minus that of the best one, with its paired interval, over the scenes of both."""
    figures = {
        name: {scene: one["figures"][key] for scene, one in method["scenes"].items() if key in one["figures"]}
        for name, method in methods.items()
    }
    means = {name: sum(values.values()) / len(values) for name, values in figures.items() if values}
    if not means:
        return {}
    best = min(means, key=means.__getitem__)
    found = {}
    for name in means:
        common = sorted(set(figures[name]) & set(figures[best]))
        if common:
            pairs = [[figures[one][scene] for scene in common] for one in (name, best)]
            found[name] = list(paired_interval(*pairs))
    return {f"{name} - {best}": value for name, value in found.items() if name != best}


# ---------------------------------------------------------------- the table


def table_rows(result: Mapping[str, Any], group: str = WHOLE) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a group; a column that no method has is left out, relative methods carry a star."""
    summaries = {name: method["summary"].get(group, {}) for name, method in result["methods"].items()}
    keys = [key for key in COLUMNS if any(key in row for row in summaries.values())]
    rows = []
    for name, row in summaries.items():
        star = "*" if result["methods"][name]["depth"] in ("relative", "inverse") else ""
        failed = f" ({row['failed']} of {row['scenes']} failed)" if row.get("failed") else ""
        rows.append([f"{name}{star}{failed}", *(_cell(key, row.get(key)) for key in keys)])
    return ["method", *(COLUMNS[key] for key in keys)], rows


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key in COSTS:
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    digits = 1 if key == "aif_psnr" or key.startswith("left_out") else 3
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*value, d=digits)


def print_table(result: Mapping[str, Any], title: str) -> None:
    """Print one table for each group of scenes."""
    groups = dict.fromkeys(group for method in result["methods"].values() for group in method["summary"])
    console = Console(width=200)
    for group in groups:
        head, rows = table_rows(result, group)
        number = next(iter(result["methods"].values()))["summary"][group]["scenes"]
        table = Table(title=f"{title}, {group} ({number} scenes; mean [95 % bootstrap interval over scenes])")
        for position, heading in enumerate(head):
            table.add_column(heading, justify="right" if position else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if any(method["depth"] in ("relative", "inverse") for method in result["methods"].values()):
        print(RELATIVE_NOTE)
    for name, method in result["methods"].items():
        failed = {scene: one["error"] for scene, one in method["scenes"].items() if one["error"]}
        if failed:
            scene, error = next(iter(failed.items()))
            print(f"{name} failed on {len(failed)} scenes, first {scene}: {error}")
