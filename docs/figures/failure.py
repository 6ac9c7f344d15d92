"""A real failure: python docs/figures/failure.py PREDICTION.

A ring on white paper, six photographs by Charles McGuinness (github.com/cmcguinness/focusstack, Apache-2.0). PREDICTION is
the folder of

    python -m sfdfd.predict stack=$SFDFD_REAL_DATA/stacks/ring output_dir=PREDICTION refine.seconds=60 seconds=null

Not drawn by ``make docs``: it needs the photographs. Writes docs/assets/failure_ring.webp.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sfdfd.io.images import read_image
from sfdfd.report.pictures import colour_confidence, colour_depth

OUT = Path(__file__).resolve().parents[1] / "assets" / "failure_ring.webp"
WIDTH, HEIGHT, GAP = 400, 300, 6


def main() -> None:
    folder = Path(sys.argv[1])
    relative = np.clip(
        np.load(folder / "relative_depth.npy"), 0, 1
    )  # 0: in focus in the first photograph, 1: in the last
    panels = [
        read_image(folder / "aif.png").permute(1, 2, 0).numpy(),
        colour_depth(1 / (1.001 - relative * 0.999), 1.0, 1000.0),  # linear in relative depth
        colour_confidence(np.load(folder / "confidence.npy").astype(np.float32)),
    ]
    whole = Image.new("RGB", (len(panels) * (WIDTH + GAP) - GAP, HEIGHT), "white")
    for index, panel in enumerate(panels):
        picture = Image.fromarray((np.clip(panel, 0, 1) * 255).round().astype(np.uint8))
        whole.paste(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), (index * (WIDTH + GAP), 0))
    whole.save(OUT, quality=82)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
