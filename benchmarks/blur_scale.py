"""Error of the estimated blur scale k on stacks whose camera is known: ``python benchmarks/blur_scale.py ROOT``.

ROOT holds prepared stacks (path-traced ones, for example). Each is estimated twice: with its focus distances in metres, and
with their ratios alone, as a stack in an unknown unit. Writes benchmarks/results/blur_scale.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch

from sfdfd.datasets.stack_folders import read_stack, stack_folders
from sfdfd.io.depth_range import depth_range_m
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.blur_scale import estimate_blur_scale
from sfdfd.stack import FocalStack
from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS

RESULTS = Path(__file__).parent / "results" / "blur_scale.json"
UNIT_M = 0.37
"""An unknown unit of length."""


def estimated(stack: FocalStack, renderer: DefocusRenderer, unit_m: float) -> dict[str, float]:
    """Return the estimate over the true k, its standard error, and the seconds it took."""
    camera, focus = stack.camera[0], stack.focus_distances_m[0] / unit_m
    near, far = depth_range_m(focus.tolist(), camera.focal_length_m / unit_m)
    begun_s = time.monotonic()
    focal_length_m = camera.focal_length_m if unit_m == 1 else None  # in another unit it cannot be known
    found = estimate_blur_scale(stack.images[0], focus, near, far, renderer, focal_length_m=focal_length_m)
    seconds = time.monotonic() - begun_s
    ratio = found.value_px_m * unit_m / camera.blur_scale_px_m
    return {"ratio": round(ratio, 4), "relative_std": round(found.relative_std, 4), "seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    arguments = parser.parse_args()
    renderer = DefocusRenderer(method="fast", **PHOTOGRAPH_OPTICS)
    rows = {}
    for folder in stack_folders(arguments.root):
        stack = read_stack(folder)
        rows[folder.name] = {
            name: estimated(stack, renderer, unit) for name, unit in (("metres", 1.0), ("other unit", UNIT_M))
        }
        print(folder.name, rows[folder.name], flush=True)
    errors = torch.tensor([abs(math.log(row["metres"]["ratio"])) for row in rows.values()])
    summary = {"mean_error": round(float(errors.mean()), 4), "largest_error": round(float(errors.max()), 4)}
    RESULTS.write_text(json.dumps({"threads": torch.get_num_threads(), **summary, "stacks": rows}, indent=1) + "\n")
    print(summary)


if __name__ == "__main__":
    main()
