"""Is the loader the bottleneck? Training steps per second with real loading over those with batches held in memory.

``make bench``. Writes ``benchmarks/results/loading.json``. The frames are made by the benchmark, as PNG files in the layout
and size of the prepared NYUv2; the training is ``experiment=nyu_synth`` as configured. Each way of loading and the held
batches take turns in blocks of steps, several rounds in one run, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from hydra import compose, initialize_config_dir

from sfdfd.datasets.sources.base import write_rgbd, write_splits
from sfdfd.runs.command import CONF_DIR, instantiate
from sfdfd.scenes.procedural import make_scene

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 48
TARGET = 0.9
WAYS = {
    "cache on disk": ["data.in_memory=false", "data.cache={cache}"],
    "cache on disk, 1 worker": ["data.in_memory=false", "data.cache={cache}", "data.workers=1"],
    "in memory after the first epoch (default)": [],
    "rendered at each use": ["data.in_memory=false"],
    "rendered at each use, 1 worker": ["data.in_memory=false", "data.workers=1"],
    "rendered on the training device": ["data.in_memory=false", "data.synthesise_on=device"],
}


def write_frames(root: Path) -> None:
    """Procedural scenes as PNG files, 320 x 240."""
    names = [f"{index:04d}" for index in range(FRAMES)]
    root.mkdir()
    for index, name in enumerate(names):
        aif, depth_m = make_scene(0, index, 240, 320, 0.6, 9.5)
        write_rgbd(root, name, (aif * 255).round().astype("uint8"), depth_m)
    write_splits(root, {"train": names, "val": names[:1], "test": names[:1]})


def endless(datamodule):
    """Batches for ever, and none of the first epoch's: caches and memories are full."""
    for _ in datamodule.train_dataloader():
        pass
    while True:
        yield from datamodule.train_dataloader()


def measure(overrides: list[str], steps: int, rounds: int) -> dict[str, float]:
    """Median seconds per step, held in memory and loaded, and the ratio of the speeds."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", overrides=["output_dir=unused", "experiment=nyu_synth", *overrides])
    torch.manual_seed(0)
    datamodule = instantiate(config.data)
    module = instantiate(
        config.module, network=instantiate(config.network), renderer=instantiate(config.optics.renderer),
        loss=instantiate(config.loss),
    )  # fmt: skip
    datamodule.trainer = SimpleNamespace(training=True)
    module.log_dict = module.log = lambda *_, **__: None
    module.train()
    optimizer = instantiate(config.optimizer)(module.network.parameters())

    def train(batches) -> float:
        begin = time.perf_counter()
        for batch in itertools.islice(batches, steps):
            loss = module.training_step(datamodule.on_after_batch_transfer(batch, 0), 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - begin) / steps

    loaded = endless(datamodule)
    held = [datamodule.on_after_batch_transfer(batch, 0) for batch in itertools.islice(loaded, 4)]
    hook, seconds = datamodule.on_after_batch_transfer, {"held": [], "loaded": []}
    for turn in range(rounds + 1):
        datamodule.on_after_batch_transfer = lambda batch, _: batch
        in_memory = train(itertools.cycle(held))
        datamodule.on_after_batch_transfer = hook
        real = train(loaded)
        if turn:  # the first warms up
            seconds["held"].append(in_memory)
            seconds["loaded"].append(real)
    ratios = [a / b for a, b in zip(seconds["held"], seconds["loaded"], strict=True)]
    return {
        "held_ms": 1000 * statistics.median(seconds["held"]),
        "loaded_ms": 1000 * statistics.median(seconds["loaded"]),
        "speed_ratio": statistics.median(ratios),
        "speed_ratio_min": min(ratios),
        "speed_ratio_max": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8, help="in a block")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "loading.json")
    options = parser.parse_args()
    if os.getloadavg()[0] > 0.7:
        print(f"warning: load average {os.getloadavg()[0]:.1f}: something else runs on this machine")
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
               "torch": torch.__version__, "threads": torch.get_num_threads()}  # fmt: skip
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_frames(Path(folder) / "frames")
        for name, overrides in WAYS.items():
            given = [one.format(cache=Path(folder) / "cache") for one in overrides]
            found[name] = measure([f"data.root={folder}/frames", *given], options.steps, options.rounds)
            row = found[name]
            print(
                f"{name:45} {row['loaded_ms']:6.0f} ms a step, held in memory {row['held_ms']:6.0f} ms: "
                f"{100 * row['speed_ratio']:.0f}% of the speed ({100 * row['speed_ratio_min']:.0f} to "
                f"{100 * row['speed_ratio_max']:.0f}%)",
                flush=True,
            )
    for name in ("cache on disk", "in memory after the first epoch (default)"):
        verdict = "met" if found[name]["speed_ratio"] >= TARGET else "MISSED"
        print(f"target {100 * TARGET:.0f}% of the speed, {name}: {verdict}")
    protocol = f"experiment=nyu_synth, {FRAMES} frames of 320 x 240, {options.rounds} rounds of {options.steps} steps"
    options.output.write_text(json.dumps({"machine": machine, "protocol": protocol, "loading": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
