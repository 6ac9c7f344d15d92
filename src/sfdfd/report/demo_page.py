"""The page of the demonstration: scenes by several methods, their metrics, and the curves of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from sfdfd.io.run_record import logged
from sfdfd.measures.metrics import image_metrics
from sfdfd.optics.render import Renderer
from sfdfd.report.html import Section, picture, viewer, write_page
from sfdfd.report.pictures import colour_depth, to_rgb
from sfdfd.stack import FocalStack, Prediction

__all__ = ["write_demo_page"]

METRICS = {"AbsRel": "depth/abs_rel", "RMSE m": "depth/rmse", "delta1": "depth/delta1", "AIF dB": "aif/psnr"}
CURVES = {
    "val/reconstruction": "reconstruction error of unseen stacks: the only supervision",
    "truth/depth_abs_rel": "relative depth error: logged, not used for training",
}
ERRORS = (
    "AbsRel is the mean of |depth - true depth| / true depth: .05 is wrong by 5 %. delta1 is the share of pixels within a "
    "factor of 1.25 of the truth, and AIF dB the PSNR of the all-in-focus image. The package's own renderer blurred these "
    "scenes: the figures compare methods, and say nothing about photographs. docs/reference/results.md has figures that do."
)
NEXT = (
    "python -m sfdfd.predict stack=DIR does this for a folder of your photographs, and python -m sfdfd.app in the browser. "
    "How to take them: docs/howto/take_a_stack.md."
)


def write_demo_page(
    path: Path,
    stacks: Sequence[FocalStack],
    predictions: Mapping[str, Sequence[Prediction]],
    explanations: Mapping[str, str],
    renderer: Renderer,
    run: Path,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        stacks: unseen scenes with truth.
        predictions: by method, from plain to best, one for each stack.
        explanations: by method, a sentence on what it does.
        renderer: refocuses the first scene.
        run: the folder of the training.
    """
    best = list(predictions.values())[-1]
    sections = [
        Section(
            title="Click into the picture to focus there",
            viewer={**viewer(stacks[0], best[0], renderer), "pull": True},
            text=[
                "Every frame is rendered from depth and a sharp image, and both were found from the five pictures below "
                "alone. Move the aperture to the left to see everything in focus."
            ],
            rows=[{"title": "What went in, and what came out", "pictures": _input_and_result(stacks[0], best[0])}],
        ),
        Section(title="Four methods, compared on scenes that none of them has seen", facts=list(explanations.items())),
        Section(
            title="Their depth, beside the truth",
            rows=[
                _scene_row(stack, {name: each[index] for name, each in predictions.items()})
                for index, stack in enumerate(stacks)
            ],
        ),
        Section(
            title="Their errors",
            table={"header": ["method", *METRICS], "rows": _metric_rows(stacks, predictions)},
            text=[f"Means over the {len(stacks)} scenes above. {ERRORS}"],
        ),
        Section(
            title="The training that has just run",
            text=["It minimized the reconstruction error alone. The depth error was only logged, and falls with it."],
            rows=[{"title": "", "pictures": _curve_pictures(run)}],
        ),
        Section(title="Now with your photographs", text=[NEXT]),
    ]
    write_page(path, "sfdfd: a few photographs in, depth and any focus out", sections)


def _input_and_result(stack: FocalStack, prediction: Prediction) -> list[dict[str, str]]:
    """Return pictures of all slices, of the AIF, and of depth."""
    names = [
        f"photograph {index + 1}: focused at {focus:.2g} m" for index, focus in enumerate(stack.focus_distances_m[0])
    ]
    pictures = [picture(name, image) for name, image in zip(names, stack.images[0], strict=True)]
    depth_m = prediction.depth_m[0].cpu().numpy()
    ends = float(depth_m.min()), float(depth_m.max())
    depth = picture(f"found: depth, {ends[0]:.2g} m (yellow) to {ends[1]:.2g} m (blue)", colour_depth(depth_m, *ends))
    return [*pictures, picture("found: everything in focus", prediction.aif[0]), depth]


def _scene_row(stack: FocalStack, predictions: Mapping[str, Prediction]) -> dict[str, Any]:
    """Return a gallery row: the sharp image, and every method's depth on the colour scale of the true depth."""
    assert stack.depth_m is not None
    near_m, far_m = float(stack.depth_m.min()), float(stack.depth_m.max())

    def depth(title: str, depth_m: Tensor) -> dict[str, str]:
        return picture(title, colour_depth(depth_m.cpu().numpy(), near_m, far_m))

    best = list(predictions.values())[-1]
    pictures = [picture("in: focused nearest", stack.images[0, 0]), picture("out: everything in focus", best.aif[0])]
    pictures += [depth(name, prediction.depth_m[0]) for name, prediction in reversed(list(predictions.items()))]
    pictures.append(depth("true depth, which no method saw", stack.depth_m[0]))
    return {"title": f"depth from {near_m:.2g} m (yellow) to {far_m:.2g} m (blue)", "pictures": pictures}


def _metric_rows(stacks: Sequence[FocalStack], predictions: Mapping[str, Sequence[Prediction]]) -> list[list[str]]:
    rows = []
    for name, each in predictions.items():
        metrics = [image_metrics(one, stack).as_dicts()[0] for one, stack in zip(each, stacks, strict=True)]
        means = [sum(image[key] for image in metrics) / len(metrics) for key in METRICS.values()]
        rows.append([name, *(f"{mean:.3f}" for mean in means)])
    return rows


def _curve_pictures(run: Path) -> list[dict[str, str]]:
    pictures = []
    for key, title in CURVES.items():
        points = [(step + 1, value) for step, value in logged(run, key)]
        if not points:
            continue
        figure = Figure(figsize=(6, 3.2), dpi=110, layout="constrained")
        axis = figure.subplots()
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, color="#2b6cb0")
        axis.set(xlabel="training step", ylim=(0, None))
        axis.grid(alpha=0.3)
        pictures.append(picture(title, to_rgb(figure)))
    return pictures
