"""Evaluate methods on a data set: ``metrics.json``, ``metrics.csv``, pictures and a report."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import imageio.v3 as iio
import torch
from rich.console import Console
from rich.progress import track

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.errors import InputError
from sfdfd.evaluation.tables import LEFT_OUT_KEYS, MAIN, method_table, write_rows
from sfdfd.io.files import write_json
from sfdfd.measures.left_out import LeftOutScore, mean_left_out_psnr, score_left_out_slices
from sfdfd.measures.metrics import EvaluationMetrics, ImageMetrics, image_metrics
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.photographs.holdout import parse_holdout, remaining
from sfdfd.report.evaluation_page import BestAndWorst, write_evaluation_page
from sfdfd.report.html import left_out_gallery_row
from sfdfd.report.pictures import overview, to_rgb
from sfdfd.stack import FocalStack, Method, renderer_for

__all__ = ["Evaluation", "PartialEvaluation", "evaluate", "evaluate_share", "split_holdout"]

DRAWN_METHODS = (MAIN, "classical", "refined")
REPORTED_METHODS = ("refined", MAIN, "classical")
"""The report shows the best and worst cases of the first of these that is evaluated."""


@runtime_checkable
class HasOwnCamera(Protocol):
    """A method that may assume another camera than a stack's own."""

    camera: Camera | None


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on which data, and how.

    Attributes:
        methods: by name; see :data:`sfdfd.evaluation.tables.MAIN`.
        datamodule: the data; no method sees the slices it holds out, and every method is scored on them.
        split: of the data.
        renderer: the optics where a stack does not carry its own; it also refocuses in the report.
        optics: the blur to assume, whatever the stacks say.
        device: where the stacks go.
        pictures: number of samples to draw; with 0 the report shows no cases either.
        protocol: added to the data's protocol in ``metrics.json``.
    """

    methods: Mapping[str, Method]
    datamodule: FocalStackDataModule
    split: str
    renderer: Renderer
    optics: BlurModel | None = None
    device: torch.device | str = "cpu"
    pictures: int = 4
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reported(self) -> str:
        """The method whose cases the report shows."""
        return next((name for name in REPORTED_METHODS if name in self.methods), next(iter(self.methods)))


@dataclass
class ImageResult:
    """The metrics of one image.

    Attributes:
        index: in the data set.
        metrics: by method.
        rows: of ``metrics.csv``, by method.
    """

    index: int
    metrics: dict[str, ImageMetrics] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class PartialEvaluation:
    """What one of several processes computed; it can be pickled.

    Attributes:
        images: one result each.
        cases: the best and worst.
        sizes: (height, width) that occurred.
        blur_models: how the stacks were assumed to be blurred, in words.
    """

    images: list[ImageResult] = field(default_factory=list)
    cases: BestAndWorst = field(default_factory=BestAndWorst)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    blur_models: set[str] = field(default_factory=set)


Gather = Callable[[PartialEvaluation], Sequence[PartialEvaluation] | None]
"""Takes this process's share; returns all shares, or None where another process writes the result."""


def evaluate(
    evaluation: Evaluation, output_dir: Path, *, rank: int = 0, world: int = 1, gather: Gather | None = None
) -> dict[str, Any]:
    """Evaluate methods on one split, each sample once, and write the results.

    Args:
        evaluation: methods and data.
        output_dir: receives ``metrics.json``, ``metrics.csv`` (one row per image and method), ``pictures/`` and
            ``report.html`` (table, worst and best cases).
        rank, world: this process, and how many share the images. The figures equal those of one process, bit for bit.
        gather: collects the shares of all processes.

    Returns:
        The content of ``metrics.json``: a flat object of means over images, ``pooled/...``, ``baselines/...``,
        "samples", and the object "protocol"; an empty one where another process writes.
    """
    own_share = evaluate_share(evaluation, output_dir, rank=rank, world=world)
    shares = [own_share] if gather is None else gather(own_share)
    if shares is None:
        return {}
    images = sorted((image for share in shares for image in share.images), key=lambda image: image.index)
    rows = [row for image in images for row in image.rows.values()]
    result = {**_means(evaluation.methods, images, rows), "protocol": _protocol(evaluation, shares, world)}
    write_json(output_dir / "metrics.json", result)
    write_rows(output_dir / "metrics.csv", rows)
    write_evaluation_page(
        output_dir / "report.html",
        result,
        method_table(result),
        evaluation.reported,
        BestAndWorst.merged([share.cases for share in shares]).labelled(),
        evaluation.renderer,
    )
    return result


def evaluate_share(evaluation: Evaluation, output_dir: Path, *, rank: int = 0, world: int = 1) -> PartialEvaluation:
    """Evaluate every ``world``-th image from ``rank`` on, and draw its pictures."""
    dataset, share = evaluation.datamodule.dataset(evaluation.split), PartialEvaluation()
    count = min(evaluation.pictures, len(dataset))
    drawn = {round(index) for index in torch.linspace(0, len(dataset) - 1, count).tolist()}
    folder = output_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for index in _with_progress_bar(range(rank, len(dataset), world), rank):
        sample = dataset[index].to(evaluation.device).with_optics(evaluation.optics)
        share.images.append(_evaluate_image(evaluation, share, index, sample, folder if index in drawn else None))
    return share


def _with_progress_bar(indices: Sequence[int], rank: int) -> Iterable[int]:
    """Show progress on the terminal of the first process."""
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # FORCE_COLOR makes no terminal
    silent = rank > 0 or not console.is_terminal
    return track(indices, description="evaluating", console=console, disable=silent)


def _evaluate_image(
    evaluation: Evaluation, share: PartialEvaluation, index: int, sample: FocalStack, pictures: Path | None
) -> ImageResult:
    """Run every method on one sample; add what the report needs to ``share``."""
    stack, left_out, places = split_holdout(sample, evaluation.datamodule.holdout)
    renderer = renderer_for(stack, evaluation.renderer)
    share.blur_models.add(str(BlurModel.of(renderer) or type(renderer).__name__))
    share.sizes.add((stack.images.shape[-2], stack.images.shape[-1]))
    image = ImageResult(index)
    for name, method in evaluation.methods.items():
        prediction = method(stack)
        image.metrics[name] = image_metrics(prediction, stack)
        row = {"name": stack.name[0], "method": name, **image.metrics[name].as_dicts()[0]}
        scores: Sequence[LeftOutScore] = ()
        if left_out is not None:
            camera = method.camera if isinstance(method, HasOwnCamera) else None
            scores = score_left_out_slices(stack, prediction, renderer, left_out, camera)
        if scores:
            means = mean_left_out_psnr([score.figures for score in scores])
            row.update({LEFT_OUT_KEYS[key]: value for key, value in means.items()})
        image.rows[name] = row
        if name == evaluation.reported and evaluation.pictures:
            share.cases.add(row, index, stack, prediction, _left_out_gallery(places, scores))
        if pictures is not None and name in DRAWN_METHODS:
            iio.imwrite(pictures / f"{name}_{stack.name[0] or index}.png", to_rgb(overview(stack, prediction)))
    return image


def split_holdout(stack: FocalStack, holdout: Any) -> tuple[FocalStack, FocalStack | None, tuple[int, ...]]:
    """Return the slices that methods see, the held-out slices, and the indices of the latter."""
    focus = stack.focus_distances_m[0].tolist()
    try:
        places = parse_holdout(holdout, len(focus), focus)
    except InputError as error:
        raise InputError(f"{stack.name[0] or 'a stack of the data'}: {error}") from None
    if not places:
        return stack, None, ()
    return stack.with_slices(remaining(places, len(focus))), stack.with_slices(places), places


def _left_out_gallery(places: Sequence[int], scores: Sequence[LeftOutScore]) -> list[dict[str, Any]]:
    if not scores:
        return []
    return [
        left_out_gallery_row(f"Left out: slice {place}", score) for place, score in zip(places, scores, strict=True)
    ]


def _means(methods: Iterable[str], images: Sequence[ImageResult], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return every method's means under its prefix, and the number of samples."""
    result: dict[str, Any] = {}
    for name in methods:
        accumulated = EvaluationMetrics(sync_on_compute=False)  # the shares of all processes are here already
        for image in images:
            accumulated.update(image.metrics[name])
        values = accumulated.compute()
        samples = values.pop("samples")
        prefix = "" if name == MAIN else f"baselines/{name}/"
        result.update({prefix + key: value for key, value in values.items()})
        for key in LEFT_OUT_KEYS.values():
            finite = [row[key] for row in rows if row["method"] == name and math.isfinite(row.get(key, math.nan))]
            if finite:
                result[prefix + key] = sum(finite) / len(finite)
        result["samples"] = samples
    return result


def _protocol(evaluation: Evaluation, shares: Sequence[PartialEvaluation], world: int) -> dict[str, Any]:
    """Return what a reader has to know to repeat the evaluation."""
    datamodule = evaluation.datamodule
    return {
        **datamodule.protocol(),
        "split": evaluation.split,
        "resolution": [list(size) for size in sorted({size for share in shares for size in share.sizes})],
        "model_sigma_scale": evaluation.renderer.sigma_scale,
        "model_renderer": dict(evaluation.renderer.options),
        "inverted": sorted({model for share in shares for model in share.blur_models}),
        "average": "per image over valid pixels, then the unweighted mean over images; pooled/... over all pixels",
        **_left_out_protocol(datamodule.holdout),
        **({"processes": world} if world > 1 else {}),
        **evaluation.protocol,
    }


def _left_out_protocol(holdout: Any) -> dict[str, Any]:
    if holdout is None:
        return {}
    description = (
        "no method saw these slices; rendered from its depth and AIF; PSNR per slice after evening the exposure, 3 % of "
        "the border left out, mean over a stack's slices, then over stacks; stack/... is over the slices that were seen"
    )
    return {"holdout": holdout, "left_out": description}
