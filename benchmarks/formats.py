"""Prepare three data sets from files in their official formats and train 200 steps on each: ``make bench-formats``.

The files are made here, of the layout, types and value ranges of the published ones, at a small size: the contents of
NYUv2's are RGB-D frames given by ``--frames DIR`` (``rgb/``, ``depth/`` in 16-bit millimetres) or else procedural scenes;
those of DefocusNet and DDFF-12 are procedural scenes rendered with the camera of each. Then ``sfdfd.prepare`` and
``sfdfd.train`` run as a user runs them. Writes ``benchmarks/results/formats.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import OpenEXR
import torch

from sfdfd.datasets.sources import ddff12, defocusnet
from sfdfd.optics import Camera, render_focal_stack
from sfdfd.scenes.procedural import make_scene

ROOT = Path(__file__).resolve().parents[1]


def scene(index: int, height: int, width: int, near_m: float, far_m: float) -> tuple[np.ndarray, np.ndarray]:
    """(H,W,3) bytes and (H,W) metres."""
    aif, depth_m = make_scene(1, index, height, width, near_m, far_m)
    return (aif * 255).round().astype(np.uint8), depth_m


def slices_of(image: np.ndarray, depth_m: np.ndarray, camera: Camera, focus_m) -> np.ndarray:
    """(S,H,W,3) bytes, source-weighted, sigma_scale 0.5."""
    aif = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    focus = torch.tensor([float(value) for value in focus_m])
    stack = render_focal_stack(aif, torch.from_numpy(depth_m)[None], focus, camera, sigma_scale=0.5)[0]
    return (stack.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def write_nyu(folder: Path, frames: Path | None, count: int) -> Path:
    """``nyu_depth_v2_labeled.mat``; frames are doubled in size, which the conversion takes back."""
    images, depths = [], []
    for index in range(count):
        if frames is None:
            image, depth_m = scene(index, 208, 272, 0.6, 9.5)
        else:
            file = sorted((frames / "rgb").iterdir())[index]
            image = iio.imread(file)
            depth_m = iio.imread(frames / "depth" / f"{file.stem}.png").astype(np.float32) / 1000
        images.append(image.repeat(2, 0).repeat(2, 1).transpose(2, 1, 0))
        depths.append(depth_m.repeat(2, 0).repeat(2, 1).T)
    path = folder / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB's header lies in the user block
        file["images"], file["depths"] = np.stack(images), np.stack(depths)
        file["rawDepths"] = file["depths"][:]
    return path


def write_defocusnet(folder: Path, count: int) -> Path:
    camera = Camera(**defocusnet.CAMERA)
    for index in range(count):
        number = index if index < count * 4 // 5 else 400 + index  # scenes from 400 on test
        image, depth_m = scene(index, 256, 256, 0.15, 2.5)
        for position, one in enumerate(slices_of(image, depth_m, camera, defocusnet.FOCUS_M[:5])):
            iio.imwrite(folder / f"{number:06d}_{position:02d}All.tif", one)
        half = {"R": depth_m.astype(np.float16)}
        with OpenEXR.File({}, half) as file:
            file.write(str(folder / f"{number:06d}Dpt.exr"))
    return folder


def write_ddff12(folder: Path, count: int) -> Path:
    camera = Camera(**ddff12.camera())
    focus_m = ddff12.depth_of_disparity_m(np.linspace(*ddff12.DISPARITIES, 10))
    path = folder / "my_ddff_trainVal.h5"
    with h5py.File(path, "w") as file:
        for split, indices in (("train", range(count - 4)), ("val", range(count - 4, count))):
            scenes = [scene(index, 192, 276, 0.6, 6.5) for index in indices]
            file[f"stack_{split}"] = np.stack([slices_of(*one, camera, focus_m) for one in scenes])
            file[f"disp_{split}"] = np.stack([ddff12.depth_of_disparity_m(d) for _, d in scenes]).astype(np.float32)
    return path


def run(*arguments: str) -> None:
    command = [sys.executable, "-m", *arguments]
    print("$", "python", *command[1:], flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, help="RGB-D frames for the NYUv2 file")
    parser.add_argument("--count", type=int, default=40, help="frames or stacks of each")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "formats.json")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, experiment in (("nyu", "nyu_dered"), ("defocusnet", "fod500"), ("ddff12", "ddff12")):
            folder = Path(scratch) / name
            folder.mkdir()
            if name == "nyu":
                source = write_nyu(folder, options.frames, options.count)
            else:
                source = (write_defocusnet if name == "defocusnet" else write_ddff12)(folder, options.count)
            root, output = folder / "prepared", folder / "run"
            run("sfdfd.prepare", f"data={name}", f"data.root={root}", f"source={source}")
            split = []
            if name == "nyu":  # the official split names frames that are not in a small file
                names = sorted(path.stem for path in (root / "rgb").iterdir())
                parts = {"train": names[:-8], "val": names[-8:-4], "test": names[-4:]}
                for part, chosen in parts.items():
                    (folder / f"{part}.txt").write_text("\n".join(chosen))
                    split.append(f"data.split_files.{part}={folder / part}.txt")
            run(
                "sfdfd.train", f"experiment={experiment}", f"data.root={root}", f"trainer.max_steps={options.steps}",
                f"output_dir={output}", *split,
            )  # fmt: skip
            metrics = json.loads((output / "metrics.json").read_text())
            keys = ("depth/abs_rel", "depth/rmse", "stack/psnr")
            found[name] = {
                "samples": metrics["samples"],
                **{
                    key: {
                        "constant": metrics[f"baselines/constant/{key}"],
                        "step 0": metrics[f"baselines/untrained/{key}"],
                        f"step {options.steps}": metrics[key],
                    }
                    for key in keys
                },
            }
            print(name, json.dumps(found[name], indent=1), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    contents = "procedural" if options.frames is None else "RGB-D frames for NYUv2, procedural else"
    record = {"machine": machine, "contents": contents, "count": options.count, "formats": found}
    options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
