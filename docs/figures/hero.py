"""The moving picture of the README: python docs/figures/hero.py $SFDFD_REAL_DATA/middlebury_rgbd [--seconds 60].

Middlebury's Motorcycle (D. Scharstein et al., GCPR 2014), whose pictures may be passed on; its five slices are synthesised
with occlusion, depth and all-in-focus image are refined from those slices alone. Not drawn by ``make docs``: it needs the
data. Writes docs/assets/hero.webp.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from sfdfd import Camera, FocalStack
from sfdfd.inference.methods import RefinedMethod, SweepMethod
from sfdfd.measures.metrics import depth_metrics
from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.refiner import Refiner
from sfdfd.report.pictures import colour_depth

OUT = Path(__file__).resolve().parents[1] / "assets" / "hero.webp"
NAME, WIDTH, SLICES = "mb2014_Motorcycle", 400, 5
INK, PAPER = (219, 227, 240), (23, 34, 58)


def scene(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(1,3,H,W) picture and (1,H,W) depth in metres; holes take the farthest depth."""
    picture = (
        torch.from_numpy(iio.imread(root / f"{NAME}_rgb.png")[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
    )
    depth = torch.from_numpy(iio.imread(root / f"{NAME}_depth_0.1mm.png").astype(np.float32))[None] * 1e-4
    depth = torch.where(depth > 0, depth, depth.max())
    height = round(WIDTH * picture.shape[2] / picture.shape[3])
    picture = F.interpolate(picture, (height, WIDTH), mode="area")
    return picture, F.interpolate(depth[None], (height, WIDTH), mode="nearest")[0]


def framed(image: np.ndarray, caption: str, font: ImageFont.ImageFont) -> Image.Image:
    """A picture with a line of words below."""
    height, width = image.shape[:2]
    frame = Image.new("RGB", (width, height + 26), PAPER)
    frame.paste(Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)), (0, 0))
    ImageDraw.Draw(frame).text((8, height + 5), caption, fill=INK, font=font)
    return frame


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    aif, depth_m = scene(arguments.root)
    near_m, far_m = 0.9 * float(depth_m.min()), 1.1 * float(depth_m.max())
    f = 0.05
    camera = Camera(f, 2.0, f * f / (4 * 11.0 / (1 / near_m - 1 / far_m)))  # 11 px of blur between near and far
    focus = 1 / torch.linspace(1 / near_m - 0.05, 1 / far_m + 0.01, SLICES)
    renderer = DefocusRenderer(psf="disc", linear_light=True, weighting="occlusion")
    with torch.no_grad():
        images = renderer(aif, depth_m, focus, camera)[0]
    stack = FocalStack.single((images.clamp(0, 1) * 255).round() / 255, focus, camera, near_m, far_m)
    found = RefinedMethod(SweepMethod(renderer), Refiner(arguments.seconds), renderer)(stack)
    error = depth_metrics(found.depth_m, depth_m, torch.ones_like(depth_m, dtype=torch.bool))["abs_rel"].item()
    print(f"AbsRel {error:.4f} (stacks of our own renderer)")

    font = ImageFont.load_default(13)
    picture = [image.permute(1, 2, 0).numpy() for image in stack.images[0]]
    sharp = found.aif[0].permute(1, 2, 0).numpy()
    depth = colour_depth(found.depth_m[0].numpy(), float(depth_m.min()), float(depth_m.max()))
    frames = [
        framed(one, f"in: photograph {i + 1} of 5, focused at {focus[i]:.1f} m", font) for i, one in enumerate(picture)
    ]
    frames += [framed(sharp, "out: all in focus", font)] * 2
    frames += [framed(sharp * (1 - t) + depth * t, "out: metric depth", font) for t in (0.35, 0.7, 1.0, 1.0, 1.0)]
    pull = 1 / np.linspace(1 / near_m, 1 / far_m, 12)
    with torch.no_grad():
        for focus_m in [*pull, *pull[::-1]]:
            image = renderer(found.aif, found.depth_m, torch.tensor([focus_m]), camera, blur_factor=1.4)[0, 0]
            frames.append(framed(image.permute(1, 2, 0).numpy(), f"and then: refocus, {focus_m:.1f} m", font))
    times = [550] * 5 + [700] * 2 + [120, 120, 700, 700, 300] + [110] * 24
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=times, loop=0, quality=70, method=6)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
