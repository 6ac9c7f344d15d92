"""What goes wrong without each term of refinement's energy: python docs/figures/terms.py.

Five small scenes, each rendered with occlusion in linear light and rounded to 8 bits, then refined from a plane sweep with
all terms and without one. About two minutes on a free core, so not drawn by ``make docs``. Writes docs/assets/terms.webp.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image

from sfdfd import Camera, FocalStack
from sfdfd.inference.methods import RefinedMethod, SweepMethod
from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.refiner import Refiner

OUT = Path(__file__).resolve().parents[1] / "assets" / "terms.webp"
HEIGHT, WIDTH, STEPS = 72, 96, 60
FOCUS_M = [1.0, 1.4, 2.0, 3.0, 5.0]
NEAR_M, FAR_M = 0.9, 6.0
CAMERA = Camera(0.05, 4.0, 0.05**2 / (2 * 4.0 * 12.0))  # k = 12 px m: 11 px of blur between near and far
RENDERER = DefocusRenderer(psf="disc", linear_light=True, weighting="occlusion")


def texture(seed: int, contrast: float, smooth_px: int = 3) -> torch.Tensor:
    """Return a (3,H,W) grey texture around 0.5."""
    noise = torch.rand(
        1, 1, HEIGHT + smooth_px - 1, WIDTH + smooth_px - 1, generator=torch.Generator().manual_seed(seed)
    )
    noise = F.avg_pool2d(noise, smooth_px, 1)
    return (0.5 + contrast * (noise - noise.mean()) / noise.std())[0].expand(3, -1, -1).clamp(0.02, 0.98)


def bar() -> tuple[torch.Tensor, torch.Tensor]:
    """A slanted bar in front of a wall, both textured."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    inside = (x + 0.3 * y - 58).abs() < 12
    colours = torch.tensor([1.0, 0.6, 0.3])[:, None, None] * texture(1, 0.2)
    return torch.where(inside, colours, texture(2, 0.15)), torch.where(inside, 1.2, 3.5)


def slanted(contrast: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A wall that recedes to the right."""
    inverse = torch.linspace(1 / 1.1, 1 / 4.0, WIDTH).expand(HEIGHT, -1)
    return texture(seed, contrast), 1 / inverse


def bricks() -> tuple[torch.Tensor, torch.Tensor]:
    """A flat wall of bricks: strong edges, no relief."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mortar = (y % 12 < 2) | ((x + 12 * (y // 12 % 2)) % 24 < 2)
    aif = np.where(mortar[None], 0.85, np.array([0.55, 0.25, 0.18])[:, None, None])
    return torch.from_numpy(aif).float() * (0.9 + 0.2 * texture(5, 0.1)), torch.full((HEIGHT, WIDTH), 2.3)


CASES: list[tuple[str, Any, float, float, dict[str, Any]]] = [
    ("limit on outliers", bar(), 0.004, 0.5, {"outlier_level": 2.0}),
    ("trust in the start", slanted(0.012, 7), 0.004, 0.08, {"start_trust": 0.0}),
    ("image prior", slanted(0.15, 4), 0.02, 0.0, {"aif_smoothness": 0.0}),
    ("slopes", slanted(0.02, 3), 0.004, 0.1, {"bending": 0.0}),
    ("cost of ripples", bricks(), 0.004, 0.01, {"ripple_px": 0.0}),
]
"""Name, (AIF, depth), noise of the slices, relative error that is drawn white, and the setting that leaves the term out."""


def main() -> None:
    torch.set_num_threads(1)
    matplotlib.use("agg")
    figure = Figure(figsize=(8.4, 8.6), layout="constrained", dpi=110)
    axes = figure.subplots(len(CASES), 4)
    for row, (name, (aif, depth_m), noise_std, white, without) in zip(axes, CASES, strict=True):
        with torch.no_grad():
            images = RENDERER(aif[None], depth_m[None], torch.tensor(FOCUS_M), CAMERA)[0]
        noise = noise_std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        stack = FocalStack.single(((images + noise).clamp(0, 1) * 255).round() / 255, FOCUS_M, CAMERA, NEAR_M, FAR_M)
        start = SweepMethod(RENDERER)
        found = [RefinedMethod(start, Refiner(steps=STEPS, **more), RENDERER)(stack) for more in ({}, without)]
        row[0].imshow(aif.permute(1, 2, 0).clamp(0, 1))
        row[0].set_ylabel(name)
        if name == "image prior":
            errors = [10 * float((each.aif[0] - aif).square().mean().log10()) for each in found]
            pictures = [aif, *(each.aif[0] for each in found)]
            for axis, image in zip(row[1:], pictures, strict=True):
                axis.imshow(image[:, 20:52, 30:73].permute(1, 2, 0).clamp(0, 1))
            titles = ["true image, enlarged", *(f"{-error:.1f} dB" for error in errors)]
        else:
            maps = [(each.depth_m[0] - depth_m).abs() / depth_m for each in found]
            errors = [float(error.mean()) for error in maps]
            row[1].imshow(1 / depth_m, cmap="plasma", vmin=1 / FAR_M, vmax=1 / NEAR_M)
            for axis, error in zip(row[2:], maps, strict=True):
                axis.imshow(error, cmap="inferno", vmin=0, vmax=white)
            titles = [f"true depth (error: white is {white:.0%})", *(f"AbsRel {error:.4f}" for error in errors)]
        print(name, [round(error, 4) for error in errors], flush=True)
        titles[1], titles[2] = f"all terms: {titles[1]}", f"without: {titles[2]}"
        for axis, title in zip(row, ("", *titles), strict=True):
            axis.set_title(title, fontsize=9)
            axis.set(xticks=[], yticks=[])
    file = io.BytesIO()
    figure.savefig(file)
    Image.open(file).convert("RGB").save(OUT, quality=85)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
