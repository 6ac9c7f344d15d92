"""Every figure of the pages, made anew by ``make docs``: python docs/figures/make.py [NAME ...]."""

from __future__ import annotations

import base64
import json
import sys

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch
from packages import packages
from style import DEPTH, GENERATED, drawn_twice, picture

from sfdfd import Camera, FocalStack, render_focal_stack
from sfdfd.inference.methods import SweepMethod, with_confidence
from sfdfd.measures.diagnosis import diagnose
from sfdfd.optics import DefocusRenderer
from sfdfd.optics.psf import get_psf
from sfdfd.scenes.procedural import make_scene

CAMERA = Camera(focal_length_m=0.05, f_number=8.0, pixel_pitch_m=1.2e-5)
FOCUS_M = [1.0, 1.5, 2.5, 4.0, 6.0]
NEAR_M, FAR_M = 0.5, 10.0


def thin_lens(palette: dict[str, str]) -> Figure:
    """Rays of a point in focus and of one behind it."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    axis = figure.subplots()
    focal, focus, far, half = 1.0, 3.0, 5.2, 0.9
    sensor, image = (1 / (1 / focal - 1 / d) for d in (focus, far))
    axis.add_patch(Ellipse((0, 0), 0.22, 2 * half + 0.3, facecolor=palette["grid"], edgecolor=palette["soft"]))
    axis.axhline(0, color=palette["grid"], linewidth=1)
    axis.axvline(sensor, ymin=0.08, ymax=0.92, color=palette["ink"], linewidth=2.5)
    for sign in (-1, 0, 1):
        axis.plot([-focus, 0, sensor], [0, sign * half, 0], color=palette["far"], linewidth=1.3)
        slope = -sign * half / image
        axis.plot(
            [-far, 0, sensor], [0, sign * half, sign * half + slope * sensor], color=palette["near"], linewidth=1.3
        )
    coc = half * (sensor - image) / image
    axis.plot([sensor + 0.06] * 2, [-coc, coc], color=palette["near"], linewidth=4, solid_capstyle="butt")
    axis.text(sensor + 0.16, 0, "circle of\nconfusion, 2 r p", va="center", color=palette["near"])
    axis.plot([-focus, -far], [0, 0], "o", color=palette["ink"], markersize=4)
    for x, text in ((-focus, "focus distance F"), (-far, "depth d")):
        axis.annotate("", (x, -1.2), (0, -1.2), arrowprops={"arrowstyle": "<->", "color": palette["soft"]})
        axis.text(x + 0.1, -1.13, text, color=palette["ink"], fontsize=8.5, va="bottom")
        axis.set_ylim(-1.65, 1.25)
    axis.text(0, 1.12, "aperture f / N", ha="center", fontsize=8.5)
    axis.text(sensor, -1.45, "sensor", ha="center", fontsize=8.5)
    axis.set_xlim(-5.5, 3.1)
    axis.set_axis_off()
    return figure


def coc_over_depth(palette: dict[str, str]) -> Figure:
    """Blur radius of five slices: linear in inverse depth, a V at each focus distance."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    depth = 1 / np.linspace(1 / FAR_M, 1 / NEAR_M, 400)
    for axis, value, label in ((left, depth, "depth d in metres"), (right, 1 / depth, "inverse depth 1/d in 1/m")):
        for focus in FOCUS_M:
            share = (1 / focus - 1 / FOCUS_M[-1]) / (1 / FOCUS_M[0] - 1 / FOCUS_M[-1])
            colour = palette["near"] if share > 0.66 else palette["mark"] if share > 0.15 else palette["far"]
            axis.plot(value, CAMERA.blur_radius_px(depth, focus), color=colour, alpha=0.95, label=f"F = {focus:g} m")
        axis.set_xlabel(label)
    left.set_ylabel("blur radius r in pixels")
    left.legend(fontsize=7.5)
    return figure


def psf_families(palette: dict[str, str]) -> Figure:
    """The three families at one blur radius."""
    figure = Figure(figsize=(7.2, 2.4), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.6])
    grid = np.arange(-10, 11)
    square = grid[:, None] ** 2 + grid[None] ** 2
    for axis, name, colour in zip(axes, ("gaussian", "power:4", "disc"), ("near", "mark", "far"), strict=False):
        family = get_psf(name)
        size = np.asarray(family.size_px(6.0, 0.5))
        kernel = family.weight(square.astype(float), size) / family.mass
        picture(axis, np.sqrt(kernel), name, cmap="gray")
        distance = np.linspace(0, 10, 300)
        axes[3].plot(distance, family.weight(distance**2, size) / family.mass, color=palette[colour], label=name)
    axes[3].set(xlabel="distance q in pixels", ylabel="weight", title="r = 6 px, sigma_scale 0.5")
    axes[3].legend(fontsize=8)
    return figure


def sigmas(palette: dict[str, str]) -> Figure:
    """One edge, one blur radius, three conventions."""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axis = figure.subplots()
    aif = torch.zeros(1, 3, 33, 97)
    aif[..., 48:] = 1
    camera, depth_m = Camera(0.05, 8.0, 1.2e-5), torch.full((1, 33, 97), 5.0)
    radius = float(camera.blur_radius_px(5.0, 1.0))
    for label, colour, options in (
        ("slides: sigma_scale 1.0", "near", {"sigma_scale": 1.0, "weighting": "target"}),
        ("DEReD's kernel: sigma_scale 0.5", "far", {"sigma_scale": 0.5}),
        ("the same in its 7 x 7 window", "mark", {"sigma_scale": 0.5, "window_px": 7}),
        ("disc (light)", "soft", {"psf": "disc"}),
    ):
        row = render_focal_stack(aif, depth_m, torch.tensor([1.0]), camera, **options)[0, 0, 0, 16]
        axis.plot(np.arange(97) - 48, row, color=palette[colour], label=label)
    axis.set(xlabel="pixels from the edge", ylabel="brightness", xlim=(-36, 36))
    axis.set_title(f"an edge at 5 m, focus 1 m: the same blur radius r = {radius:.1f} px in all four")
    axis.legend(fontsize=8)
    return figure


def occlusion(palette: dict[str, str]) -> Figure:
    """A blurred foreground in front of a sharp background, by two weightings."""
    height, width = 96, 160
    y, x = np.mgrid[:height, :width]
    checks = ((x // 8 + y // 8) % 2).astype(np.float32)[..., None]
    back = checks * np.array([0.20, 0.42, 0.69]) + (1 - checks) * np.array([0.93, 0.95, 0.98])
    inside = np.abs(x + 0.35 * y - 96) < 17
    aif = torch.from_numpy(np.where(inside[..., None], [0.90, 0.45, 0.12], back)).float().permute(2, 0, 1)[None]
    depth_m = torch.from_numpy(np.where(inside, 0.8, 4.0)).float()[None]
    options = {"psf": "disc", "linear_light": True}
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    axes = figure.subplots(2, 3)
    for row, (focus, said) in enumerate(((4.0, "focus behind"), (0.8, "focus in front"))):
        picture(axes[row, 0], aif[0].permute(1, 2, 0), "all in focus" if row == 0 else "")
        for column, weighting in enumerate(("source", "occlusion"), 1):
            image = render_focal_stack(aif, depth_m, torch.tensor([focus]), CAMERA, weighting=weighting, **options)
            picture(axes[row, column], image[0, 0].permute(1, 2, 0).clamp(0, 1), f"{weighting}, {said}")
    return figure


def why_five(palette: dict[str, str]) -> Figure:
    """One slice has two answers; and the smallest visible depth step by the number of slices."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    inverse = np.linspace(1 / FAR_M, 1 / NEAR_M, 400)
    radius = CAMERA.blur_radius_px(1 / inverse, 1.5)
    left.plot(inverse, radius, color=palette["far"])
    target = 4.0
    roots = inverse[np.flatnonzero(np.diff(np.sign(radius - target)))]
    left.axhline(target, color=palette["soft"], linestyle=":", linewidth=1.2)
    left.plot(roots, [target] * len(roots), "o", color=palette["near"])
    for root in roots:
        left.annotate(f"{1 / root:.2f} m", (root, target), (4, 6), textcoords="offset points", color=palette["near"])
    left.set(xlabel="inverse depth in 1/m", ylabel="blur radius in pixels", title="one slice: two depths for one blur")
    for count, colour in ((1, "soft"), (2, "mark"), (3, "far"), (5, "near")):
        focus = [1 / v for v in np.linspace(1 / 0.7, 1 / 7, count)] if count > 1 else [1.5]
        found = diagnose(CAMERA, focus, NEAR_M, FAR_M)
        fine = np.isfinite(found.depth_step_m)
        share = 100 * found.depth_step_m[fine] / found.depth_m[fine]
        right.plot(found.depth_m[fine], share, color=palette[colour], label=f"{count} slice{'s' * (count > 1)}")
    right.set(xscale="log", ylim=(0, 30), xlabel="depth in metres", ylabel="depth step of one 8-bit level, %")
    right.set_title("more slices, no blind depths")
    right.legend(fontsize=8)
    return figure


def _scene(index: int, height: int = 120, width: int = 160):
    aif, depth_m = (torch.from_numpy(a) for a in make_scene(0, index, height, width, NEAR_M, FAR_M))
    return aif.permute(2, 0, 1)[None].contiguous(), depth_m[None]


def failures(palette: dict[str, str]) -> Figure:
    """A patch without texture: what a plane sweep says there, and how sure it says it is."""
    aif, depth_m = _scene(3)
    aif[..., 30:90, 50:120] = 0.5
    renderer = DefocusRenderer(sigma_scale=0.5)
    images = renderer(aif, depth_m, torch.tensor(FOCUS_M), CAMERA)[0]
    stack = FocalStack.single((images * 255).round() / 255, FOCUS_M, CAMERA, NEAR_M, FAR_M)
    found = with_confidence(SweepMethod(renderer)(stack), stack, renderer)
    figure = Figure(figsize=(7.2, 2.1), layout="constrained")
    axes = figure.subplots(1, 4)
    low, high = 1 / float(depth_m.max()), 1 / float(depth_m.min())
    picture(axes[0], aif[0].permute(1, 2, 0), "a patch without texture")
    picture(axes[1], 1 / depth_m[0], "true depth", cmap=DEPTH, vmin=low, vmax=high)
    shown = picture(axes[2], 1 / found.depth_m[0], "depth found", cmap=DEPTH, vmin=low, vmax=high)
    bar = figure.colorbar(shown, ax=axes[2], fraction=0.04, pad=0.02)
    ticks = np.linspace(low, high, 4)
    bar.set_ticks(ticks, labels=[f"{1 / tick:.2g} m" for tick in ticks])
    sure = picture(axes[3], found.confidence[0], "confidence", cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(sure, ax=axes[3], fraction=0.04, pad=0.02)
    return figure


def scene_for_the_browser() -> None:
    """The scene of the interactive picture, as a script: 192 x 144, colours and inverse depth in bytes."""
    aif, depth_m = _scene(8, 144, 192)
    near_m, far_m = float(depth_m.min()), float(depth_m.max())
    inverse = (1 / depth_m - 1 / far_m) / (1 / near_m - 1 / far_m)
    packed = {
        "width": 192, "height": 144, "near_m": round(near_m, 3), "far_m": round(far_m, 3),
        "k": round(0.6 * CAMERA.blur_scale_px_m, 2),
        "aif": base64.b64encode((aif[0].permute(1, 2, 0) * 255).round().byte().numpy().tobytes()).decode(),
        "inverse": base64.b64encode((inverse[0] * 255).round().byte().numpy().tobytes()).decode(),
    }  # fmt: skip
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "scene.js").write_text(f"window.SFDFD_SCENE = {json.dumps(packed)};\n")


def predict_render_compare(palette: dict[str, str]) -> Figure:
    """The loop in one line."""
    figure = Figure(figsize=(7.2, 1.7), layout="constrained")
    axis = figure.subplots()
    places = {"focal stack": 0.0, "network": 1.5, "depth, AIF": 3.0, "thin-lens\nrenderer": 4.5, "stack again": 6.0}
    for index, (name, x) in enumerate(places.items()):
        learnt = name == "network"
        edge = palette["near"] if learnt else palette["far"] if "renderer" in name else palette["soft"]
        axis.text(x, 0, name, ha="center", va="center", fontsize=9.5, color=palette["ink"],
                  bbox={"boxstyle": "round,pad=0.55", "facecolor": "none", "edgecolor": edge, "linewidth": 1.6})  # fmt: skip
        if index:
            axis.add_patch(
                FancyArrowPatch(
                    (x - 0.97, 0), (x - 0.53, 0), arrowstyle="-|>", mutation_scale=11, color=palette["soft"]
                )
            )
    axis.add_patch(
        FancyArrowPatch((6.0, -0.42), (0.0, -0.42), connectionstyle="arc3,rad=-0.16", arrowstyle="<|-|>", mutation_scale=11,
                        color=palette["mark"])
    )  # fmt: skip
    axis.text(3.0, -1.12, "compare: the only teacher", ha="center", color=palette["mark"])
    axis.set(xlim=(-0.8, 6.8), ylim=(-1.4, 0.6))
    axis.set_axis_off()
    return figure


FIGURES = {
    "thin_lens": thin_lens, "coc_over_depth": coc_over_depth, "psf_families": psf_families, "sigmas": sigmas,
    "occlusion": occlusion, "why_five": why_five, "failures": failures, "loop": predict_render_compare, "packages": packages,
}  # fmt: skip


def main(names: list[str]) -> None:
    torch.set_num_threads(2)
    for name in names or FIGURES:
        drawn_twice(name, FIGURES[name])
    if not names:
        scene_for_the_browser()


if __name__ == "__main__":
    main(sys.argv[1:])
