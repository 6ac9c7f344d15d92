"""What a depth map from elsewhere brings and costs: ``python benchmarks/prior.py [ROOT] [--only NAME ...] [--steps 40]``.

ROOT holds path-traced stacks with ``truth_depth_m.npy`` and ``truth_aif.png`` beside their slices; by default
``$SFDFD_REAL_DATA/raytraced``. The priors are made from the truth: scaled and shifted, distorted by a monotone curve, with
a smooth error, with objects at wrong depths, with displaced or blurred edges, and pure noise. Each is a map of inverse depth
of unknown scale. Stacks are halved (160 x 120), and the network's start is refined by --steps steps. A figure is AbsRel over
a region's valid pixels (sfdfd.measures.regions), averaged over scenes; "worst" is the largest ratio to the figure without a
prior, over scenes. Rows of scenes that are not run are kept in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfdfd.datasets.stack_folders import read_stack
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.prior_method import ExternalDepth, PriorMethod
from sfdfd.io.files import write_json
from sfdfd.io.images import to_float
from sfdfd.measures.metrics import depth_metrics
from sfdfd.measures.regions import regions
from sfdfd.refinement.refiner import Refiner
from sfdfd.stack import FocalStack
from sfdfd.training.checkpoints import load_model

OPTICS = {"psf": "disc", "linear_light": True, "weighting": "occlusion", "method": "fast"}
OUT = Path(__file__).resolve().parent / "results" / "prior.json"


def halved(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2)


def stack_of(folder: Path) -> tuple[FocalStack, Tensor]:
    """The stack at half the size with its truth, and the true inverse depth, also beyond the depth range."""
    stack = read_stack(folder)
    depth_m = torch.from_numpy(np.load(folder / "truth_depth_m.npy")).float()[None]
    aif = to_float(iio.imread(folder / "truth_aif.png")[..., :3])[None]
    valid = depth_m.isfinite() & (depth_m >= stack.near_m[0]) & (depth_m <= stack.far_m[0])
    inverse = halved((1 / depth_m).nan_to_num(0.0))
    height, width = inverse.shape[-2:]
    truth = 1 / inverse.clamp(float(1 / stack.far_m), float(1 / stack.near_m))
    stack = replace(
        stack.resized(height, width), depth_m=truth, aif=halved(aif), valid=halved(valid.float()[None])[0] == 1
    )
    return stack, inverse[0]


def smooth_noise(size: tuple[int, int], cells: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(1, 1, cells, cells, generator=generator)
    return F.interpolate(noise, size, mode="bicubic", align_corners=False)[0, 0]


def with_wrong_objects(values: Tensor, generator: torch.Generator) -> Tensor:
    """Six surfaces moved in depth by 0.3 of the range (standard deviation)."""
    height, width = values.shape
    wrong = values.clone()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for _ in range(6):
        row, column = (int(torch.randint(side, (1,), generator=generator)) for side in (height, width))
        near = (rows - row).square() + (columns - column).square() < (width / 5) ** 2
        is_surface = near & ((values - values[row, column]).abs() < 0.04)
        wrong = torch.where(is_surface, wrong + 0.3 * float(torch.randn(1, generator=generator)), wrong)
    return wrong


def priors(inverse: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Maps of inverse depth of unknown scale, by name."""
    size, generator = (inverse.shape[0], inverse.shape[1]), torch.Generator().manual_seed(0)
    share = (inverse - inverse.min()) / (inverse.max() - inverse.min())

    def blurred(side: int) -> Tensor:
        return F.avg_pool2d(F.pad(share[None, None], (side // 2,) * 4, mode="replicate"), side, 1)[0, 0]

    return {
        "scaled and shifted": lambda: 7 * inverse + 3,
        "monotone curve": lambda: share.sqrt(),
        "smooth error": lambda: share + 0.1 * smooth_noise(size, 4, generator),
        "objects at wrong depths": lambda: with_wrong_objects(share, generator),
        "displaced edges": lambda: F.max_pool2d(share[None, None], 7, 1, 3)[0, 0].roll((2, -2), (0, 1)),
        "blurred edges": lambda: blurred(13),
        "noise": lambda: torch.rand(size, generator=generator),
    }


def measured(depth_m: Tensor, stack: FocalStack) -> dict[str, float]:
    masks = {"all": torch.ones_like(stack.valid), **regions(stack.depth_m, stack.aif)}
    return {
        name: float(depth_metrics(depth_m, stack.depth_m, mask & stack.valid)["abs_rel"][0])
        for name, mask in masks.items()
        if bool((mask & stack.valid).any())
    }


def rows_of(folder: Path, module, renderer, steps: int) -> list[dict]:
    """A row without a prior, and one for each prior."""
    stack, inverse = stack_of(folder)
    rows: list[dict] = []
    for name, make in {"none": None, **priors(inverse)}.items():
        begun_s = time.process_time()
        row: dict = {"scene": folder.name, "prior": name}
        for stage, number in (("start", 0), ("refined", steps)):
            estimator = DefocusEstimator(module.network, renderer, Refiner(steps=number), working_px=320)
            if make is not None:
                estimator = estimator.with_prior(ExternalDepth(make(), "inverse_depth"))
            prediction, _ = estimator.solve(stack.without_truth())
            row[stage] = measured(prediction.depth_m, stack)
            if isinstance(estimator.start, PriorMethod):
                row["alignment"] = {key: value for key, value in estimator.start.facts().items() if key != "sentence"}
                if not row["alignment"]["used"]:
                    row["refined"] = rows[0]["refined"]
                    break
        rows.append({**row, "cpu_s": round(time.process_time() - begun_s, 1)})
        print(rows[-1], flush=True)
    return rows


def summary(rows: list[dict]) -> dict[str, dict]:
    """Prior -> stage -> region -> [mean, std over scenes, worst ratio to the same scene without a prior]."""
    without = {row["scene"]: row for row in rows if row["prior"] == "none"}
    found: dict[str, dict] = {}
    for prior in dict.fromkeys(row["prior"] for row in rows):
        mine = [row for row in rows if row["prior"] == prior]
        found[prior] = {}
        for stage in ("start", "refined"):
            found[prior][stage] = {}
            for region in mine[0][stage]:
                values = [row[stage][region] for row in mine]
                worst = max(row[stage][region] / without[row["scene"]][stage][region] for row in mine)
                found[prior][stage][region] = [float(np.mean(values)), float(np.std(values)), worst]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "root", type=Path, nargs="?", default=Path(os.environ.get("SFDFD_REAL_DATA", ".")) / "raytraced"
    )
    parser.add_argument("--only", nargs="*", help="names of scenes")
    parser.add_argument("--steps", type=int, default=40, help="of refinement")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    module, renderer = load_model("pretrained", OPTICS)
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else []
    for folder in sorted(path for path in arguments.root.iterdir() if path.is_dir()):
        if arguments.only and folder.name not in arguments.only:
            continue
        rows = [row for row in rows if row["scene"] != folder.name]
        rows += rows_of(folder, module, renderer, arguments.steps)
        rows.sort(key=lambda row: row["scene"])
        scenes = sorted({row["scene"] for row in rows})
        write_json(
            arguments.out,
            {
                "command": f"python benchmarks/prior.py --steps {arguments.steps}",
                "machine": f"{platform.machine()}, 1 thread",
                "size": "160 x 120",
                "scenes": scenes,
                "mean_std_worst_ratio": summary(rows),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
