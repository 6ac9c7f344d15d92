"""Path-traced scenes: ``python bench.py [dslr|phone|all] 'Refiner(steps=300)'``; means over scenes at start and end."""
from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from refine import Refiner
from sfdfd.data.stacks import read_stack
from sfdfd.optics import DefocusRenderer
from sweep import plane_sweep

ROOT = Path(os.environ["SFDFD_REAL_DATA"]) / "raytraced"


def edges_of(depth_m: torch.Tensor, reach: int = 8) -> torch.Tensor:
    """(H,W) within ``reach`` px of a step of inverse depth above .03/z between neighbours."""
    edge = torch.zeros_like(depth_m, dtype=torch.bool)
    for axis in (0, 1):
        n = depth_m.shape[axis] - 1
        one, two = depth_m.narrow(axis, 0, n), depth_m.narrow(axis, 1, n)
        step = (1 / one - 1 / two).abs() > 0.03 / torch.minimum(one, two)
        edge.narrow(axis, 0, n).logical_or_(step), edge.narrow(axis, 1, n).logical_or_(step)
    return F.max_pool2d(edge.float()[None, None], 2 * reach + 1, 1, reach)[0, 0] > 0


def figures(depth_m, aif, truth_m, truth_aif) -> dict[str, float]:
    error, edge = (depth_m - truth_m).abs() / truth_m, edges_of(truth_m)
    ratio = torch.maximum(depth_m / truth_m, truth_m / depth_m)
    values = (error.mean(), error[~edge].mean(), error[edge].mean(), (depth_m - truth_m).square().mean().sqrt(),
              (ratio < 1.25).float().mean(), -10 * torch.log10((aif.clamp(0, 1) - truth_aif).square().mean()))  # fmt: skip
    return dict(zip(("abs_rel", "interior", "edges", "rmse_m", "delta1", "aif_db"), map(float, values), strict=True))


def main() -> None:
    which, text = (sys.argv[1:] + ["all", "Refiner(steps=100)"][len(sys.argv) - 1 :])[:2]
    torch.set_num_threads(1)
    renderer = DefocusRenderer(weighting="occlusion", psf="disc", linear_light=True, sigma_scale=0.5)
    names = [p.name for p in sorted(ROOT.iterdir()) if p.is_dir() and (which == "all" or p.name.startswith(which) or p.name in which)]
    rows = []
    for name in names:
        stack = read_stack(ROOT / name)
        truth = torch.from_numpy(np.load(ROOT / name / "truth_depth_m.npy"))
        truth_aif = torch.from_numpy(np.array(Image.open(ROOT / name / "truth_aif.png").convert("RGB"))).permute(2, 0, 1) / 255
        began = time.process_time()
        depth, aif = plane_sweep(stack, renderer)
        start, sweep_s = figures(depth[0], aif[0], truth, truth_aif), time.process_time() - began
        found = eval(text)(replace(stack), renderer, depth, aif)
        end = figures(found.depth_m[0], found.aif[0], truth, truth_aif)
        cpu = time.process_time() - began - sweep_s
        rows.append((start, end))
        print(name, {k: round(v, 4) for k, v in end.items()}, f"sweep {sweep_s:.1f} s, {cpu / max(found.steps, 1):.3f} cpu s/step, "
              f"{found.steps} steps, energy {found.objective_start:.5f} -> {found.objective:.5f}", flush=True)  # fmt: skip
    for label, column in (("start", 0), ("end", 1)):
        print(text, which, label, {k: round(float(np.mean([r[column][k] for r in rows])), 4) for k in rows[0][0]}, flush=True)


if __name__ == "__main__":
    main()
