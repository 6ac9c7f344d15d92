"""What a feed-forward answer bears: ``python benchmarks/robustness.py ROOT [--frames N] [--out DIR]``.

ROOT holds RGB-D images, rgb/NAME.png and depth/NAME.png (16 bit, millimetres). Stacks in light (disc, linear, occlusion;
50 mm f/8, 12 um, 8 bits) of every condition: the camera told wrong, noise, misalignment, 2 to 12 slices. Writes
benchmarks/results/robustness.json, and pictures of the five worst into --out; ``make results`` puts the table into the docs.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from heapq import nlargest
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfdfd.inference.methods import NetworkMethod, SweepMethod
from sfdfd.measures.metrics import depth_metrics
from sfdfd.networks.classical import classical_network
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.report.pictures import overview, to_rgb
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training.checkpoints import load_model

LIGHT = {"psf": "disc", "linear_light": True, "weighting": "occlusion", "method": "fast"}
CAMERA, NEAR_M, FAR_M = Camera(0.05, 8.0, 1.2e-5), 0.5, 10.0
FIVE = (1.0, 1.5, 2.5, 4.0, 6.0)
RESULT = Path(__file__).parent / "results" / "robustness.json"


def even(number: int) -> tuple[float, ...]:
    """Focus distances evenly in inverse distance from 1 to 6 m."""
    return tuple(1 / np.linspace(1, 1 / 6, number))


def told(factor: float) -> Callable[[FocalStack], FocalStack]:
    """The blur scale k that the model is told is so many times the true one."""
    return lambda stack: replace(stack, camera=tuple(replace(c, f_number=c.f_number / factor) for c in stack.camera))


def noisy(std: float) -> Callable[[FocalStack], FocalStack]:
    def spoiled(stack: FocalStack) -> FocalStack:
        noise = torch.randn(stack.images.shape, generator=torch.Generator().manual_seed(0))
        return replace(stack, images=(stack.images + std * noise).clamp(0, 1))

    return spoiled


def misaligned(px: float) -> Callable[[FocalStack], FocalStack]:
    """Every slice moved by so much, in directions that turn from slice to slice."""

    def moved(images: Tensor) -> Tensor:
        number, size = len(images), images.shape[-1]
        angles = 2.4 * torch.arange(number)
        moves = torch.eye(2, 3).repeat(number, 1, 1)
        moves[:, 0, 2] = 2 * px * torch.cos(angles) / size
        moves[:, 1, 2] = 2 * px * torch.sin(angles) / images.shape[-2]
        grid = F.affine_grid(moves, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    return lambda stack: replace(stack, images=torch.stack([moved(images) for images in stack.images]))


CONDITIONS: dict[str, tuple[tuple[float, ...], Callable[[FocalStack], FocalStack]]] = {
    "five slices, 1 to 6 m": (FIVE, lambda stack: stack),
    "k told 20 % too small": (FIVE, told(0.8)),
    "k told 20 % too large": (FIVE, told(1.2)),
    "noise of 1 %": (FIVE, noisy(0.01)),
    "noise of 3 %": (FIVE, noisy(0.03)),
    "misaligned by .5 px": (FIVE, misaligned(0.5)),
    "misaligned by 1 px": (FIVE, misaligned(1.0)),
    **{f"{number} slices, evenly": (even(number), lambda stack: stack) for number in (2, 3, 4, 6, 8, 12)},
}


def scene(root: Path, name: str) -> Scene:
    rgb, depth_mm = (iio.imread(root / folder / name) for folder in ("rgb", "depth"))
    aif = torch.from_numpy(rgb[..., :3]).permute(2, 0, 1).float() / 255
    return Scene(aif, torch.from_numpy(depth_mm.astype(np.float32) / 1000), name=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--frames", type=int, default=6, help="evenly among all")
    parser.add_argument("--out", type=Path, default=Path("outputs/robustness"), help="receives the five worst")
    arguments = parser.parse_args()
    renderer = DefocusRenderer(**LIGHT)
    names = sorted(path.name for path in (arguments.root / "rgb").glob("*.png"))
    chosen = [
        scene(arguments.root, names[index]) for index in np.linspace(0, len(names) - 1, arguments.frames).astype(int)
    ]
    module, _ = load_model("pretrained", LIGHT)
    assert module is not None
    methods = {
        "classical": NetworkMethod(classical_network, renderer),
        "sweep": SweepMethod(renderer),
        "pretrained": NetworkMethod(module.network, renderer),
    }
    rows: dict[str, dict[str, list[float]]] = {}
    worst: list[tuple[float, str, str, FocalStack, Prediction]] = []
    for condition, (focus_m, spoiled) in CONDITIONS.items():
        synthesis = StackSynthesis(renderer, CAMERA, focus_m, NEAR_M, FAR_M)
        rows[condition] = {}
        for name, method in methods.items():
            errors = []
            for one in chosen:
                stack = synthesis(one)
                shown = spoiled(stack)
                answer = method(shown.without_truth())
                errors.append(float(depth_metrics(answer.depth_m, stack.depth_m, stack.valid)["abs_rel"]))
                if name == "pretrained":
                    found = (errors[-1], condition, one.name, shown, answer)
                    worst = nlargest(5, [*worst, found], key=lambda row: row[0])
            rows[condition][name] = [float(np.mean(errors)), float(np.std(errors))]
        print(condition, {name: round(value[0], 4) for name, value in rows[condition].items()}, flush=True)
    result = {
        "command": f"python benchmarks/robustness.py $SFDFD_REAL_DATA/{arguments.root.parent.name}/{arguments.root.name}",
        "frames": len(chosen),
        "machine": platform.machine(),
        "rows": rows,
        "worst": [row[:3] for row in worst],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, (_, condition, name, shown, answer) in enumerate(worst):
        iio.imwrite(arguments.out / f"{number}_{condition.replace(' ', '_')}_{name}", to_rgb(overview(shown, answer)))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
