"""Refinement, confidence and calibration on an RGB-D folder: ``python benchmarks/refinement.py ROOT [--quick]``.

Writes benchmarks/results/refinement.json and the curve docs/assets/sparsification.png. Protocol: DEReD's camera and focus
distances (f/8, 50 mm, 12 um; 1, 1.5, 2.5, 4, 6 m), stacks by the exact renderer, mask: depth in [0.5, 10] m; a figure is the
metric of each image over its valid pixels, averaged over images.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sfdfd.datasets.wrappers import RenderedStacks
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.measures.metrics import depth_metrics, psnr
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.photographs.blur_scale import estimate_blur_scale
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.rgbd import RGBDFolder
from sfdfd.scenes.synthesis import StackSynthesis

ROOT = Path(__file__).resolve().parents[1]
CAMERA = Camera(0.05, 8.0, 1.2e-5)
FOCUS_M = (1.0, 1.5, 2.5, 4.0, 6.0)
FRAMES = (30, 67, 104, 141, 178, 215, 252, 289, 326, 363)
CASES = {
    # name: (synthesis options, rounded to 8 bits, the model's sigma_scale, seconds, number of frames)
    "8 bits, 5 s": ({"sigma_scale": 0.5}, True, 0.5, 5, 10),
    "8 bits, 15 s": ({"sigma_scale": 0.5}, True, 0.5, 15, 10),
    "8 bits, 60 s": ({"sigma_scale": 0.5}, True, 0.5, 60, 10),
    "sigma_scale 1.0, 60 s": ({"sigma_scale": 1.0}, True, 1.0, 60, 5),
    "float, 30 s": ({"sigma_scale": 0.5}, False, 0.5, 30, 5),
    "occlusion-aware synthesis, 30 s": ({"sigma_scale": 0.5, "weighting": "occlusion"}, True, 0.5, 30, 5),
    "sigma_scale 10 % too large, 30 s": ({"sigma_scale": 0.5}, True, 0.55, 30, 5),
    "sigma_scale 10 % too small, 30 s": ({"sigma_scale": 0.5}, True, 0.45, 30, 5),
}
SHARES = np.linspace(0, 0.95, 20)


def measured(depth_m, aif, stack) -> dict[str, float]:
    values = depth_metrics(depth_m, stack.depth_m, stack.valid)
    return {
        **{key: float(values[key][0]) for key in ("abs_rel", "rmse", "delta1")},
        "aif_psnr": float(psnr(aif, stack.aif)[0]),
    }


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def sparsification(std_m, depth_m, stack) -> dict[str, object]:
    """Share of the squared error in the least confident fifth, and the RMSE left without the least confident share."""
    error = (depth_m - stack.depth_m)[stack.valid].square().numpy()
    result = {}
    for name, order in (("confidence", (-std_m[stack.valid]).argsort().numpy()), ("oracle", (-error).argsort())):
        sorted_error = error[order]
        result[f"{name}_fifth"] = float(sorted_error[: len(error) // 5].sum() / error.sum())
        total = np.sqrt(error.mean())
        result[f"{name}_curve"] = [float(np.sqrt(sorted_error[int(s * len(error)) :].mean()) / total) for s in SHARES]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--quick", action="store_true", help="two frames and a tenth of the time (a smoke test)")
    parser.add_argument("--only", choices=CASES, help="one case, printed and not written")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    results: dict[str, object] = {"machine": platform.processor() or platform.machine(), "frames": {}, "cases": {}}
    curves = []
    cases = {arguments.only: CASES[arguments.only]} if arguments.only else CASES
    for name, (options, rounded, model_sigma, seconds, number) in cases.items():
        renderer = DefocusRenderer(**options, method="exact", layers=48)
        synthesis = StackSynthesis(renderer, CAMERA, FOCUS_M, 0.5, 10.0, round_to_8_bits=rounded)
        dataset = RenderedStacks(RGBDFolder(arguments.root), synthesis)
        model = DefocusRenderer(sigma_scale=model_sigma, method="fast")
        before, after, steps = [], [], []
        for index in FRAMES[: 2 if arguments.quick else number]:
            stack = dataset[index % len(dataset)]
            refiner = Refiner(seconds=seconds / (10 if arguments.quick else 1))
            start, _ = DefocusEstimator(renderer=model, refiner=None).solve(stack)
            found, refinement = DefocusEstimator(renderer=model, refiner=refiner).solve(stack)
            before.append(measured(start.depth_m, start.aif, stack))
            after.append(measured(found.depth_m, found.aif, stack))
            steps.append(refinement.steps)
            print(name, stack.name[0], after[-1], steps[-1], flush=True)
            if name == "8 bits, 60 s":
                curves.append(sparsification(found.depth_std_m, found.depth_m, stack))
                scale = estimate_blur_scale(
                    stack.images[0], stack.focus_distances_m[0], 0.5, 10.0, model, focal_length_m=0.05
                )
                results["frames"][stack.name[0]] = {
                    "share_of_squared_error_in_least_confident_fifth": curves[-1]["confidence_fifth"],
                    "blur_scale_over_truth": scale.value_px_m / CAMERA.blur_scale_px_m,
                    "blur_scale_relative_std": scale.relative_std,
                }
        spread = {key: float(np.std([row[key] for row in after])) for key in after[0]}
        results["cases"][name] = {
            "frames": len(after), "seconds": seconds, "start_from": "plane sweep", "steps": float(np.mean(steps)),
            "start": mean(before), "refined": mean(after), "std_over_frames": spread,
        }  # fmt: skip
        if not arguments.quick and not arguments.only:
            path = ROOT / "benchmarks" / "results" / "refinement.json"
            path.write_text(json.dumps(results, indent=2) + "\n")
        print(name, results["cases"][name], flush=True)
    if not arguments.quick and not arguments.only:
        draw(curves)


def draw(curves: list[dict[str, object]]) -> None:
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis = figure.subplots()
    for key, label, colour in (("confidence", "by our confidence", "C0"), ("oracle", "by the true error", "0.5")):
        values = np.array([curve[f"{key}_curve"] for curve in curves])
        axis.plot(100 * SHARES, values.mean(0), color=colour, label=label)
        axis.fill_between(100 * SHARES, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axis.axhline(1, color="0.8", linewidth=1)
    axis.set(xlabel="least confident pixels left out, %", ylabel="RMSE of the rest / RMSE of all")
    axis.set(xlim=(0, 95), ylim=(0, None))
    axis.legend()
    FigureCanvasAgg(figure).print_figure(ROOT / "docs" / "assets" / "sparsification.png", dpi=110)


if __name__ == "__main__":
    main()
