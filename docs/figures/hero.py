"""The moving picture of the README: python docs/figures/hero.py $SFDFD_REAL_DATA/stacks/pcb PREDICTION.

Seven photographs of a circuit board under a microscope, by Petteri Aimonen (github.com/PetteriAimonen/focus-stack, MIT
licence, docs/assets/hero.license.txt). PREDICTION is the folder of

    python -m sfdfd.predict stack=$SFDFD_REAL_DATA/stacks/pcb output_dir=PREDICTION refine.seconds=60 seconds=null

Not drawn by ``make docs``: it needs the photographs. Writes docs/assets/hero.webp.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sfdfd.io.images import read_image, to_bytes
from sfdfd.report.pictures import colour_depth
from sfdfd.report.refocus import FinishedPrediction

OUT = Path(__file__).resolve().parents[1] / "assets" / "hero.webp"
WIDTH, HEIGHT, CAPTION, GAP = 300, 225, 24, 4
PLANES = 18
"""Number of focus distances of the sweep, from near to far."""
APERTURE = 1.6
"""Of the rendered pictures, over the camera's own."""
BAND = 0.05
"""Depth beside the plane of focus that is marked, as a share of the range."""
INK, PAPER = (219, 227, 240), (23, 34, 58)


def fitted(image: np.ndarray) -> Image.Image:
    """Return (H,W,3) in [0, 1] at the size of a panel."""
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def frame(panels: list[tuple[Image.Image, str]], font: ImageFont.ImageFont) -> Image.Image:
    """Return panels side by side, each with a caption below."""
    whole = Image.new("RGB", (len(panels) * (WIDTH + GAP) - GAP, HEIGHT + CAPTION), PAPER)
    for index, (panel, caption) in enumerate(panels):
        whole.paste(panel, (index * (WIDTH + GAP), 0))
        ImageDraw.Draw(whole).text((index * (WIDTH + GAP) + 6, HEIGHT + 4), caption, fill=INK, font=font)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs", type=Path)
    parser.add_argument("prediction", type=Path)
    arguments = parser.parse_args()
    files = sorted(arguments.photographs.glob("*.jpg"))
    photographs = [fitted(read_image(file).permute(1, 2, 0).numpy()) for file in files]
    finished = FinishedPrediction.read(arguments.prediction)
    relative = np.load(
        arguments.prediction / "relative_depth.npy"
    )  # 0: in focus in the first photograph, 1: in the last
    relative = np.asarray(Image.fromarray(relative).resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    coloured = colour_depth(1 / (1.001 - np.clip(relative, 0, 1) * 0.999), 1.0, 1000.0)  # linear in relative depth
    font, frames = ImageFont.load_default(13), []
    for focus in np.linspace(0, 1, PLANES):
        nearest = round(focus * (len(files) - 1))
        refocused = finished.refocused(finished.distance_at(float(focus)), APERTURE, 2 * WIDTH)
        band = np.clip(1 - np.abs(relative - focus) / BAND, 0, 1)[..., None]
        panels = [
            (photographs[nearest], f"in: photograph {nearest + 1} of {len(files)}"),
            (fitted(coloured * (1 - 0.85 * band) + 0.85 * band), "out: depth (white: in focus now)"),
            (fitted(to_bytes(refocused).permute(1, 2, 0).numpy() / 255), "out: refocused, aperture x 1.6"),
        ]
        frames.append(frame(panels, font))
    still = frame(
        [
            (photographs[-1], f"in: {len(files)} photographs"),
            (fitted(coloured), "out: depth (yellow is near)"),
            (fitted(finished.aif.permute(1, 2, 0).numpy()), "out: everything in focus"),
        ],
        font,
    )
    frames = [still, *frames, *frames[-2:0:-1]]
    durations = [1800] + [160] * (len(frames) - 1)
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=75, method=6)
    print(f"{OUT}: {len(frames)} frames, {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
