"""Methods on path-traced stacks, by region: ``python benchmarks/truth.py ROOT [ROOT ...] [--seconds 5 20 60] [--limit N]``.

A ROOT is what ``python -m sfdfd.prepare data=raytraced data.root=ROOT`` made, or a folder of stacks with
``truth_depth_m.npy`` and ``truth_aif.png`` beside their slices; without one, ``$SFDFD_REAL_DATA/raytraced``. Writes
``truth.json``, ``truth.md`` and ``truth_pictures/`` (best and worst case of each method) into --out. No figure here is on
stacks of our own renderer.

A figure is the metric of each image over a region's valid pixels, averaged over images; +- is the standard deviation over
images. Regions (sfdfd.measures.regions): all; edges, within 8 px of a depth jump; interior, the rest; plain, where the true
AIF has next to no texture; border, within 16 px of the image's border.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch

from sfdfd.datasets.folders import read_manifest
from sfdfd.datasets.splits import read_split_file
from sfdfd.datasets.stack_folders import folders_named, read_stack
from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod
from sfdfd.io.files import write_json
from sfdfd.io.images import to_float
from sfdfd.measures.metrics import depth_metrics, psnr
from sfdfd.measures.regions import regions
from sfdfd.networks.classical import classical_network, constant_network
from sfdfd.refinement.refiner import Refiner
from sfdfd.report.pictures import colour_depth, colour_error
from sfdfd.stack import FocalStack, Method, Prediction
from sfdfd.training.checkpoints import load_model

HERE = Path(__file__).resolve().parent
OPTICS = {"psf": "disc", "linear_light": True, "weighting": "occlusion"}
FIGURES = ("abs_rel", "rmse", "delta1", "aif_psnr")
LARGEST_ERROR = 0.5  # white in the pictures, share of the true depth


def stack_of(folder: Path) -> FocalStack:
    """A prepared stack, or one whose truth lies beside its slices."""
    stack = read_stack(folder)
    if stack.depth_m is not None or not (folder / "truth_depth_m.npy").is_file():
        return stack
    depth_m = torch.from_numpy(np.load(folder / "truth_depth_m.npy")).float()[None]
    aif = to_float(iio.imread(folder / "truth_aif.png")[..., :3])[None]
    valid = depth_m.isfinite() & (depth_m >= stack.near_m[0]) & (depth_m <= stack.far_m[0])
    return replace(stack, depth_m=torch.where(valid, depth_m, stack.near_m[0]), aif=aif, valid=valid)


def methods_for(stack: FocalStack, start: str, seconds: list[float], module, renderer) -> dict[str, Method]:
    """The rows of the table."""
    middle_m = float((stack.near_m * stack.far_m).sqrt())
    methods: dict[str, Method] = {
        "constant (geometric mean of near and far)": NetworkMethod(constant_network(middle_m), renderer),
        "classical": NetworkMethod(classical_network, renderer),
        "sweep": SweepMethod(renderer),
        "pretrained": NetworkMethod(module.network, renderer, module.camera),
    }
    for value in seconds:
        methods[f"refined from {start}, {value:g} s"] = RefinedMethod(methods[start], Refiner(seconds=value), renderer)
    return methods


def measured(prediction: Prediction, stack: FocalStack) -> dict[str, dict[str, float]]:
    """Region -> figures; without the regions that an image does not have."""
    masks = {"all": torch.ones_like(stack.valid), **regions(stack.depth_m, stack.aif)}
    found = {}
    for name, mask in masks.items():
        inside = mask & stack.valid
        if bool(inside.any()):
            depth = depth_metrics(prediction.depth_m, stack.depth_m, inside)
            row = {key: float(depth[key][0]) for key in ("abs_rel", "rmse", "delta1")}
            weight = inside[:, None].expand_as(stack.aif)
            found[name] = {**row, "aif_psnr": float(psnr(prediction.aif, stack.aif, weight)[0])}
    return found


def picture(prediction: Prediction, stack: FocalStack) -> np.ndarray:
    """(2H,3W,3) uint8: true AIF, true depth, relative error; AIF, depth, error of the AIF."""
    near_m, far_m = float(stack.near_m[0]), float(stack.far_m[0])
    truth, found = stack.depth_m[0].numpy(), prediction.depth_m[0].numpy()
    aif, own = (value[0].clamp(0, 1).permute(1, 2, 0).numpy() for value in (stack.aif, prediction.aif))
    relative = np.abs(found - truth) / truth
    upper = [aif, colour_depth(truth, near_m, far_m), colour_error(relative, LARGEST_ERROR)]
    lower = [own, colour_depth(found, near_m, far_m), colour_error(np.abs(own - aif).mean(2), 0.2)]
    return (255 * np.vstack([np.hstack(upper), np.hstack(lower)])).astype(np.uint8)


def summary(rows: list[dict]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Method -> region -> figure -> [mean, std over images]; "seconds" beside the regions."""
    result: dict = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        result[method] = {"seconds": float(np.mean([row["seconds"] for row in mine]))}
        for region in mine[0]["regions"]:
            values = [row["regions"][region] for row in mine if region in row["regions"]]
            columns = {key: [value[key] for value in values] for key in FIGURES}
            result[method][region] = {key: [float(np.mean(v)), float(np.std(v))] for key, v in columns.items()}
    return result


def table(group: str, images: int, found: dict) -> str:
    """Markdown: a row per method, AbsRel by region."""
    names = ("all", "interior", "edges", "plain", "border")
    head = ["method", *(f"AbsRel {name}" for name in names), "RMSE m", "delta1", "AIF dB", "AIF dB edges", "s"]
    lines = [f"### {group} ({images} scenes)", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method, values in found.items():
        cells = [method]
        cells += ["{:.3f} +- {:.3f}".format(*values[r]["abs_rel"]) if r in values else "-" for r in names]
        cells += [f"{values['all']['rmse'][0]:.2f}", f"{values['all']['delta1'][0]:.3f}"]
        cells += [f"{values[r]['aif_psnr'][0]:.1f}" if r in values else "-" for r in ("all", "edges")]
        lines.append("| " + " | ".join([*cells, f"{values['seconds']:.1f}"]) + " |")
    return "\n".join([*lines, ""])


def group_of(root: Path, folder: Path) -> str:
    """Stacks of one camera stand in one table: ROOT/NAME_... by the first part of the name."""
    return f"{root.name}/{folder.name.split('_')[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="*")
    parser.add_argument("--seconds", type=float, nargs="*", default=[5, 20, 60], help="of refinement")
    parser.add_argument(
        "--start", choices=("sweep", "pretrained", "classical"), default="pretrained", help="of refinement"
    )
    parser.add_argument("--split", default="test", help="of a prepared set; all takes every stack")
    parser.add_argument("--limit", type=int, help="so many stacks of each camera")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--optics", nargs="*", default=[], metavar="KEY=VALUE", help=f"the model's, beside {OPTICS}")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    optics = {**OPTICS, **{key: json_or_text(value) for key, value in (one.split("=", 1) for one in arguments.optics)}}
    model = load_model("pretrained", optics)
    roots = arguments.roots or [Path(os.environ.get("SFDFD_REAL_DATA", ".")) / "raytraced"]
    groups: dict[str, list[Path]] = {}
    for root in roots:
        for folder in folders_named(root, read_split_file(root, arguments.split)):
            groups.setdefault(group_of(root, folder), []).append(folder)
    manifests = {str(root): (read_manifest(root) or {}).get("options") for root in roots}
    result: dict = {
        "command": " ".join(["python", "benchmarks/truth.py", *map(public, sys.argv[1:])]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads",
        "load_before": os.getloadavg(),
        "model_optics": optics,
        "sets": {public(root): made or "samples unknown (made elsewhere)" for root, made in manifests.items()},
        "groups": {},
        "rows": [],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    pages = []
    for group, folders in groups.items():
        folders = folders[: arguments.limit]
        rows, cases = [], {}
        for folder in folders:
            stack = stack_of(folder)
            for method, solve in methods_for(stack, arguments.start, arguments.seconds, *model).items():
                begun = time.perf_counter()
                prediction = solve(stack.without_truth())
                row = {"group": group, "name": stack.name[0], "method": method, "seconds": time.perf_counter() - begun}
                rows.append({**row, "regions": measured(prediction, stack)})
                value = rows[-1]["regions"]["all"]["abs_rel"]
                for label, better in (("best", value < cases.get((method, "best"), (math.inf,))[0]),
                                      ("worst", value > cases.get((method, "worst"), (-math.inf,))[0])):  # fmt: skip
                    if better:
                        cases[method, label] = (value, stack.name[0], picture(prediction, stack))
                print(
                    group,
                    stack.name[0],
                    method,
                    {k: round(v, 4) for k, v in rows[-1]["regions"]["all"].items()},
                    flush=True,
                )
        draw(arguments.out / "truth_pictures", group, cases)
        result["groups"][group] = {"scenes": len(folders), "methods": summary(rows)}
        result["rows"] += rows
        pages.append(table(group, len(folders), result["groups"][group]["methods"]))
        result["load_after"] = os.getloadavg()
        write_json(arguments.out / "truth.json", result)
        (arguments.out / "truth.md").write_text(header(result) + "\n".join(pages))
    print("\n".join(pages))


def draw(folder: Path, group: str, cases: dict) -> None:
    folder.mkdir(exist_ok=True)
    for (method, label), (value, name, image) in cases.items():
        words = "".join(c if c.isalnum() else "_" for c in f"{group}_{method.split(' (')[0]}_{label}")
        iio.imwrite(folder / f"{words}_{name}_{value:.3f}.jpg", image, quality=85)


def header(result: dict) -> str:
    samples = "; ".join(
        f"{Path(root).name}: {made if isinstance(made, str) else str(made['samples']) + ' samples, ' + made['variant']}"
        for root, made in result["sets"].items()
    )
    return (
        f"# Path-traced stacks, by region\n\n`{result['command']}`\n\n{result['machine']}; load before and after "
        f"{result['load_before'][0]:.1f} and {result['load_after'][0]:.1f}; model: {result['model_optics']}; {samples}.\n"
        "Mean over scenes +- standard deviation over scenes; s: wall seconds a scene.\n\n"
    )


def public(argument: str) -> str:
    """Name a folder without the machine's path: below ``$SFDFD_REAL_DATA``, or by its last part in capitals."""
    if os.sep not in argument:
        return argument
    path, shared = Path(argument).resolve(), os.environ.get("SFDFD_REAL_DATA")
    if shared and path.is_relative_to(Path(shared).resolve()):
        return f"$SFDFD_REAL_DATA/{path.relative_to(Path(shared).resolve())}"
    return path.name.upper()


def json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


if __name__ == "__main__":
    main()
