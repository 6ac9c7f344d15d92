"""Evaluation solves each sample once; the page shows the best and worst rows of the table."""

import csv
import json
import math

import pytest
import torch
from torch.utils.data import Dataset

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.evaluation.evaluator import Evaluation, evaluate
from sfdfd.inference.methods import NetworkMethod
from sfdfd.networks import classical_network
from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.synthesis import StackSynthesis
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


class Scenes(FocalStackDataModule):
    """Six procedural stacks, with or without truth."""

    def __init__(self, truth):
        super().__init__()
        synthesis = StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0)
        found = procedural_stacks(6, synthesis, seed=2, height=32, width=40)
        self.stacks = [stack if truth else stack.without_truth() for stack in found]

    def make_dataset(self, split):
        return Listed(self.stacks)


class Listed(Dataset):
    def __init__(self, stacks):
        self.stacks = stacks

    def __len__(self):
        return len(self.stacks)

    def __getitem__(self, index):
        return self.stacks[index]


class Counting:
    """A method that counts its calls and perturbs each prediction differently."""

    def __init__(self):
        self.calls, self.method = 0, NetworkMethod(classical_network, RENDERER)

    def __call__(self, stack):
        self.calls += 1
        torch.manual_seed(self.calls)
        found = self.method(stack)
        found.depth_m.mul_(1 + 0.2 * torch.rand(()))
        return found


@pytest.mark.parametrize("truth", [True, False])
def test_each_sample_is_solved_once_and_the_report_shows_the_best_and_worst_rows(truth, tmp_path):
    method = Counting()
    result = evaluate(Evaluation({"refined": method}, Scenes(truth), "all", RENDERER, pictures=1), tmp_path)
    assert method.calls == 6 and result["samples"] == 6
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    key = "depth/abs_rel" if truth else "stack/psnr"
    ranked = sorted(rows, key=lambda row: float(row[key]), reverse=not truth)
    page = (tmp_path / "report.html").read_text()
    for label, row in [("best", ranked[0]), ("best", ranked[1]), ("worst", ranked[-1]), ("worst", ranked[-2])]:
        assert f"refined, {label} by {key}: {row['name']}" in page
    assert math.isfinite(result["baselines/refined/stack/psnr"])
    assert ("baselines/refined/depth/abs_rel" in result) is truth
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
