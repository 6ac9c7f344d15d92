"""Evaluation as a user runs it."""

import csv
import json

import imageio.v3 as iio
import numpy as np
import pytest

from tests.commands import inside


def test_evaluating_a_checkpoint_on_an_rgbd_folder(trained, rgbd_folder, tmp_path):
    done = inside("evaluate", "pictures=0", f"checkpoint='{trained[0] / 'checkpoints/best.ckpt'}'", "data=rgbd",
               f"data.root='{rgbd_folder}'", "data.renderer.sigma_scale=1.0", "output_dir=e",
               cwd=tmp_path)  # fmt: skip
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["samples"] == 4 and metrics["protocol"]["constant_depth_m"] == 2.5
    assert (metrics["protocol"]["synthesis_sigma_scale"], metrics["protocol"]["model_sigma_scale"]) == (1.0, 0.5)
    assert "differ" in done.stderr and "sigma_scale 1 in the data (the model's is 0.5)" in done.stderr
    with (tmp_path / "e" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    mine = [float(row["depth/abs_rel"]) for row in rows if row["method"] == "network"]
    assert len(mine) == 4 and np.mean(mine) == pytest.approx(metrics["depth/abs_rel"])


def test_baselines_alone_follow_their_closed_forms(rgbd_folder, tmp_path):
    inside("evaluate", "pictures=0", "data=rgbd", f"data.root='{rgbd_folder}'", "output_dir=e", cwd=tmp_path)
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert "depth/abs_rel" not in metrics and metrics["protocol"]["synthesis_sigma_scale"] == 0.5
    depths = [iio.imread(rgbd_folder / "depth" / f"{i}.png") / 1000 for i in range(4)]
    expected = np.mean([np.mean(np.abs(2.5 - depth) / depth) for depth in depths])
    assert metrics["baselines/constant/depth/abs_rel"] == pytest.approx(expected, rel=1e-5)


def test_recorded_stacks_have_stack_metrics_only(photographs_folder, tmp_path):
    inside("evaluate", "pictures=0", "data=recorded", f"data.root='{photographs_folder}'", "output_dir=e", cwd=tmp_path)
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["baselines/classical/stack/psnr"] > 0 and not [key for key in metrics if "depth/" in key]
