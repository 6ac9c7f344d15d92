"""What a training step, a synthesis and a prediction cost, over slices, resolution, batch and width, and a formula.

``python benchmarks/scale.py`` (ten minutes on two quiet cores) writes benchmarks/results/scale.json and .md;
``make results`` takes the table of speed in docs/reference/results.md from it. A time is the median of its repeats after one
that does not count. The formula
(seconds = fixed + rate x pixels of all slices) is fitted to two points of each row and checked at the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sfdfd import Camera, FocalStack
from sfdfd.datasets.shards import ShardedStacks, shards_below, write_shard
from sfdfd.datasets.sources.base import write_stack
from sfdfd.datasets.stack_folders import StackFolders
from sfdfd.io.files import write_json
from sfdfd.measures.losses import SelfSupervisedLoss
from sfdfd.networks import DAIFNet, FocusAttentionNet
from sfdfd.networks.interface import NetworkOutput, predict_stack
from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.example_stack import example_stack

HERE = Path(__file__).resolve().parent
CAMERA = Camera(0.05, 8.0, 1.2e-5)
REPEATS = 3


def median_s(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def batch_of(batch: int, slices: int, size: int) -> FocalStack:
    """Crops of procedural scenes."""
    focus = [float(v) for v in 1 / torch.linspace(1.0, 1 / 6, slices)]
    one = example_stack(3, size, size, focus)
    return FocalStack.collate([one] * batch)


def step_shares(network: torch.nn.Module, stack: FocalStack) -> dict[str, float]:
    """Seconds of a training step, and of its parts."""
    renderer, loss = DefocusRenderer(sigma_scale=0.5, method="fast"), SelfSupervisedLoss()
    network = network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    blind = stack.without_truth()

    def step() -> None:
        optimizer.zero_grad()
        loss(predict_stack(network, renderer, blind), blind)["total"].sum().backward()
        optimizer.step()

    aif, depth_m = stack.aif.clone().requires_grad_(), stack.depth_m.clone().requires_grad_()

    def render() -> None:
        renderer(aif, depth_m, stack.focus_distances_m, stack.camera).square().sum().backward()

    def learn() -> None:
        optimizer.zero_grad()
        output: NetworkOutput = network(
            stack.images, stack.focus_distances_m, near_m=stack.near_m, far_m=stack.far_m, slice_mask=stack.slice_mask
        )
        (output.depth_m.sum() + output.aif.sum()).backward()
        optimizer.step()

    found = {"step": median_s(step), "learning": median_s(learn), "renderer": median_s(render)}
    found["loss"] = max(0.0, found["step"] - found["learning"] - found["renderer"])
    return found


def steps() -> list[dict[str, float | str]]:
    rows = []
    for name, make in (
        ("focus_attention", FocusAttentionNet),
        ("daif", DAIFNet),
        ("daif, width 32", lambda: DAIFNet(width=32)),
    ):
        for batch, slices, size in ((8, 5, 64), (8, 3, 64), (8, 10, 64), (4, 5, 128), (2, 5, 192)):
            shares = step_shares(make(), batch_of(batch, slices, size))
            rows.append({"network": name, "batch": batch, "slices": slices, "size": size, **shares})
            print(rows[-1], flush=True)
    return rows


MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
import scale
from sfdfd.training.device import peak_memory_gib
from sfdfd.networks import DAIFNet
batch, slices, size = map(int, sys.argv[2:])
scale.REPEATS = 1
scale.step_shares(DAIFNet(), scale.batch_of(batch, slices, size))
print(peak_memory_gib())
"""


def memory() -> list[dict[str, float]]:
    """Peak memory of a process that trains ``daif``, GiB; each in a process of its own."""
    rows = []
    for batch, slices, size in ((8, 3, 64), (8, 5, 64), (8, 10, 64), (4, 5, 128), (2, 5, 192), (8, 5, 128)):
        line = [sys.executable, "-c", MEMORY, str(HERE), str(batch), str(slices), str(size)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        pixels = batch * slices * size**2
        rows.append(
            {"batch": batch, "slices": slices, "size": size, "pixels": pixels, "gib": float(done.stdout.split()[-1])}
        )
        print(rows[-1], flush=True)
    return rows


def synthesis() -> list[dict[str, float]]:
    """Seconds for a stack of DEReD's protocol (exact) and of light (occlusion)."""
    rows = []
    for height, width, slices in ((120, 160, 5), (240, 320, 3), (240, 320, 5), (240, 320, 10), (480, 640, 5)):
        stack = example_stack(3, height, width, [float(v) for v in 1 / torch.linspace(1.0, 1 / 6, slices)])
        row: dict[str, float] = {"height": height, "width": width, "slices": slices, "pixels": height * width * slices}
        for key, options in (
            ("source, exact", {"sigma_scale": 0.5}),
            ("occlusion, disc", {"psf": "disc", "linear_light": True, "weighting": "occlusion"}),
        ):
            renderer = DefocusRenderer(**options)
            with torch.no_grad():
                row[key] = median_s(lambda r=renderer, s=stack: r(s.aif, s.depth_m, s.focus_distances_m, s.camera))
        rows.append(row)
        print(row, flush=True)
    return rows


def reading() -> dict[str, float]:
    """Stacks a second, of five 8-bit slices of 320 x 240 with depth and AIF, from folders and from a shard; their size."""
    found: dict[str, float] = {}
    stack = example_stack(3, 240, 320)
    slices = [(255 * one).round().byte().permute(1, 2, 0).numpy() for one in stack.images[0]]
    aif = (255 * stack.aif[0]).round().byte().permute(1, 2, 0).numpy()
    with tempfile.TemporaryDirectory() as place:
        folder, number = Path(place) / "folders", 24
        folder.mkdir()
        for index in range(number):
            focus = stack.focus_distances_m[0].tolist()
            write_stack(folder, f"s{index}", slices, CAMERA.as_dict(), focus, 0.5, 10.0, stack.depth_m[0].numpy(), aif)
        shards = Path(place) / "shards"
        shards.mkdir()
        size = write_shard(shards / "stacks-000000.tar", sorted(folder.iterdir()))
        found["mb_a_stack"] = size / number / 1e6
        for key, dataset in (("folders", StackFolders(folder)), ("shards", ShardedStacks(shards_below(shards)))):
            found[key] = number / median_s(lambda d=dataset: [d[i] for i in range(number)])
    print(found, flush=True)
    return found


PREDICT = """
import sys, time, torch
from sfdfd import DefocusEstimator
from sfdfd.training.device import peak_memory_gib
from sfdfd.scenes.example_stack import example_stack
height, width, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
small = example_stack(3, 240, 320, psf="disc", linear_light=True, weighting="occlusion")
stack = small.resized(height, width).without_truth()
optics = {"psf": "disc", "linear_light": True, "weighting": "occlusion"}
estimator = DefocusEstimator.from_checkpoint(None, refine_seconds=seconds, **optics)
begun = time.perf_counter()
estimator.predict(stack)
print(time.perf_counter() - begun, peak_memory_gib())
"""


def predictions(seconds: float) -> list[dict[str, float]]:
    """Seconds and peak memory of :meth:`DefocusEstimator.predict`, each in a process of its own, five slices."""
    rows = []
    for height, width in ((240, 320), (480, 640), (960, 1280), (1920, 2560), (3000, 4000)):
        line = [sys.executable, "-c", PREDICT, str(height), str(width), str(seconds)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        spent, memory = map(float, done.stdout.split()[-2:])
        rows.append({"height": height, "width": width, "seconds": spent, "peak_gib": memory})
        print(rows[-1], flush=True)
    return rows


def line_through(rows: list[dict], key: str) -> tuple[float, float, list[float]]:
    """Fixed and rate over ``pixels`` from the smallest and the largest row, and measured / predicted of the rest."""
    rows = sorted(rows, key=lambda row: row["pixels"])
    low, high = rows[0], rows[-1]
    rate = (high[key] - low[key]) / (high["pixels"] - low["pixels"])
    fixed = low[key] - rate * low["pixels"]
    return fixed, rate, [row[key] / (fixed + rate * row["pixels"]) for row in rows[1:-1]]


def fitted(rows: list[dict]) -> list[dict]:
    """Per network, the formula of a step."""
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = [{**r, "pixels": r["batch"] * r["slices"] * r["size"] ** 2} for r in rows if r["network"] == name]
        fixed, rate, checks = line_through(mine, "step")
        found.append({"network": name, "fixed_s": fixed, "ns_per_pixel": 1e9 * rate, "checks": checks})
    return found


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)])


def markdown(result: dict) -> str:
    """Return the tables of scale.md."""
    machine, seconds = result["machine"], result["refine_seconds"]
    parts = ("step", "learning", "renderer", "loss")
    steps = [
        [row["network"], f"{row['batch']} x {row['slices']} x {row['size']}²", *(f"{row[key]:.2f}" for key in parts)]
        for row in result["steps"]
    ]
    formula = [
        [
            row["network"],
            f"{row['fixed_s']:.2f}",
            f"{row['ns_per_pixel']:.0f}",
            ", ".join(f"{c:.2f}" for c in row["checks"]),
        ]
        for row in result["formula"]
    ]
    keys = [key for key in result["synthesis"][0] if key not in ("height", "width", "slices", "pixels")]
    synthesis = [
        [f"{r['slices']} x {r['width']} x {r['height']}", *(f"{r[k]:.2f}" for k in keys)] for r in result["synthesis"]
    ]
    lines = {key: line_through(result["synthesis"], key) for key in keys}
    rates = "; ".join(
        f"{key}: {fixed:.2f} s + {1e9 * rate:.0f} ns x pixels of all slices (checks {', '.join(f'{c:.2f}' for c in checks)})"
        for key, (fixed, rate, checks) in lines.items()
    )
    memory = [[f"{row['batch']} x {row['slices']} x {row['size']}²", f"{row['gib']:.2f}"] for row in result["memory"]]
    fixed_gib, per_pixel, memory_checks = line_through(result["memory"], "gib")
    read = result["reading"]
    predict = [
        [
            f"{r['width']} x {r['height']}",
            f"{r['width'] * r['height'] / 1e6:.1f}",
            f"{r['seconds']:.1f}",
            f"{r['peak_gib']:.1f}",
        ]
        for r in result["predict"]
    ]
    return "\n\n".join(
        [
            f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, {machine['threads']} threads; "
            f"load before: {machine['load']}.",
            "**A training step** (forward, renderer, loss, backward, optimizer), seconds:",
            table(["network", "batch x slices x size", "step", "network", "renderer", "loss and rest"], steps),
            "**The formula**: seconds = fixed + rate x (batch x slices x height x width), from the smallest and the largest "
            "row; the checks are what the others measure over what it says:",
            table(["network", "fixed s", "ns a pixel", "checks"], formula),
            "**Peak memory** of a process that trains `daif`, GiB:",
            table(["batch x slices x size", "GiB"], memory),
            f"Formula: {fixed_gib:.2f} GiB + {per_pixel * 2**30 / 1024:.1f} KiB x (batch x slices x height x width); checks "
            f"{', '.join(f'{check:.2f}' for check in memory_checks)}.",
            "**Synthesis** of a stack, seconds:",
            table(["slices x size", *keys], synthesis),
            f"Formula: {rates}.",
            f"**Reading** a stack of five 8-bit slices of 320 x 240 with depth and AIF ({read['mb_a_stack']:.2f} MB): "
            f"{read['folders']:.0f} a second from folders, {read['shards']:.0f} from a shard, one process.",
            f"**A prediction** (plane sweep, {seconds:g} s of refinement, full-size outputs in memory), five slices:",
            table(["size", "megapixels", "seconds", "peak memory GiB"], predict),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--refine-seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    load = [round(value, 2) for value in os.getloadavg()]
    result = {"command": "python benchmarks/scale.py", "refine_seconds": arguments.refine_seconds}
    result["machine"] = {
        "processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__,
        "threads": torch.get_num_threads(), "load": load,
    }  # fmt: skip
    result["steps"] = steps()
    result["formula"] = fitted(result["steps"])
    result["memory"] = memory()
    result["synthesis"] = synthesis()
    result["reading"] = reading()
    result["predict"] = predictions(arguments.refine_seconds)
    publish(result)


def publish(result: dict) -> None:
    """Write the result as JSON and as Markdown."""
    write_json(HERE / "results" / "scale.json", json.loads(json.dumps(result)))
    text = markdown(result)
    (HERE / "results" / "scale.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
