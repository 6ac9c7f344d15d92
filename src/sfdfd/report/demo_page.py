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


def write_demo_page(
    path: Path,
    stacks: Sequence[FocalStack],
    predictions: Mapping[str, Sequence[Prediction]],
    renderer: Renderer,
    run: Path,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        stacks: unseen scenes with truth.
        predictions: by method, from plain to best, one for each stack.
        renderer: refocuses the first scene.
        run: the folder of the training.
    """
    best = list(predictions.values())[-1]
    sections = [
        Section(
            title="Click to refocus",
            viewer=viewer(stacks[0], best[0], renderer),
            text=[
                "The input is five photographs of a scene, each focused at a different distance: no depth, no all-in-focus "
                "image. The frames here are rendered from the depth and the sharp image that were estimated."
            ],
        ),
        Section(
            title="Depth, by method",
            rows=[
                _scene_row(stack, {name: each[index] for name, each in predictions.items()})
                for index, stack in enumerate(stacks)
            ],
        ),
        Section(
            title="Metrics",
            table={"header": ["method", *METRICS], "rows": _metric_rows(stacks, predictions)},
            text=[
                f"Means over the {len(stacks)} unseen scenes above. The renderer that the methods invert also made their "
                "slices: these figures compare methods, and say nothing about photographs (docs/reference/results.md)."
            ],
        ),
        Section(title="Training", rows=[{"title": "", "pictures": _curve_pictures(run)}]),
    ]
    write_page(path, "sfdfd: depth from defocus, learned from focal stacks alone", sections)


def _scene_row(stack: FocalStack, predictions: Mapping[str, Prediction]) -> dict[str, Any]:
    """Return a gallery row: the sharp image, and every method's depth on the colour scale of the true depth."""
    assert stack.depth_m is not None
    near_m, far_m = float(stack.depth_m.min()), float(stack.depth_m.max())

    def depth(title: str, depth_m: Tensor) -> dict[str, str]:
        return picture(title, colour_depth(depth_m.cpu().numpy(), near_m, far_m))

    best = list(predictions.values())[-1]
    pictures = [picture("the photograph focused nearest", stack.images[0, 0]), picture("all in focus", best.aif[0])]
    pictures += [depth(name, prediction.depth_m[0]) for name, prediction in reversed(list(predictions.items()))]
    pictures.append(depth("true depth, which no method saw", stack.depth_m[0]))
    return {"title": f"{near_m:.2g} m (bright) to {far_m:.2g} m (dark), linear in inverse depth", "pictures": pictures}


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
