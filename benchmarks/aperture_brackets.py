"""AbsRel of focus stacks, aperture pairs and both, on path-traced scenes: ``python benchmarks/aperture_brackets.py ROOT``.

ROOT holds stacks of six slices: f/2 at 0.8, 1.2, 1.8 and 3.2 m, then f/11 at 0.8 and 1.8 m. It is made by

    python -m sfdfd.prepare data=raytraced data.root=ROOT 'data.camera.f_number=[2,2,2,2,11,11]' \
        'data.focus_distances_m=[0.8,1.2,1.8,3.2,0.8,1.8]' data.near_m=0.8 data.far_m=6 \
        data.train_length=0 data.val_length=0 data.test_length=4 'data.kinds=[room,tabletop,clutter,walls]'

Prints a line per stack, and the means. Nothing is written.
"""

from __future__ import annotations

import argparse

import torch

from sfdfd.datasets.stack_folders import read_stack, stack_folders
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import NetworkMethod, SweepMethod
from sfdfd.measures.metrics import depth_metrics
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.refinement.refiner import Refiner
from sfdfd.stack import FocalStack, Method
from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS, load_model

SUBSETS = {
    "apertures: f/2, f/11 at 0.8 m": [0, 4],
    "focus: f/2 at 0.8, 1.8 m": [0, 2],
    "both: f/2, f/11 at 0.8, 1.8 m": [0, 2, 4, 5],
    "focus: f/2 at 0.8, 1.2, 1.8, 3.2 m": [0, 1, 2, 3],
}


def abs_rel(depth_m: torch.Tensor, stack: FocalStack) -> float:
    assert stack.depth_m is not None and stack.valid is not None
    return float(depth_metrics(depth_m.expand_as(stack.depth_m), stack.depth_m, stack.valid)["abs_rel"])


def methods(refine_steps: int) -> dict[str, Method]:
    model, renderer = load_model("pretrained", PHOTOGRAPH_OPTICS, preferred={"method": "fast"})
    assert model is not None
    estimator = DefocusEstimator(model.network, renderer, Refiner(steps=refine_steps))
    return {"sweep": SweepMethod(renderer), "weights": NetworkMethod(model.network, renderer), "refined": estimator}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--steps", type=int, default=40, help="of refinement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compared, rows = methods(arguments.steps), dict[tuple[str, str], list[float]]()
    for folder in stack_folders(arguments.root):
        whole = read_stack(folder, optics=PHOTOGRAPH_OPTICS)
        for name, indices in SUBSETS.items():
            stack = whole.with_slices(indices)
            middle = depth_from_normalized(torch.tensor([0.5]), stack.near_m, stack.far_m)
            rows.setdefault((name, "constant"), []).append(abs_rel(middle[:, None, None], stack))
            for method, predict in compared.items():
                rows.setdefault((name, method), []).append(abs_rel(predict(stack.without_truth()).depth_m, stack))
            found = {method: f"{rows[name, method][-1]:.4f}" for method in ("constant", *compared)}
            print(folder.name, name, found, flush=True)
    for (name, method), values in rows.items():
        print(f"{name:40} {method:10} {sum(values) / len(values):.4f}  {' '.join(f'{value:.4f}' for value in values)}")


if __name__ == "__main__":
    main()
