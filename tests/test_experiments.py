"""Every experiment file composes, and trains two steps on a small data set of its layout, truth untouched."""

import json

import numpy as np
import pytest
import torch

from sfdfd.datasets.sources.base import write_rgbd, write_splits, write_stack
from sfdfd.runs.command import CONF_DIR
from sfdfd.train import train
from tests.test_architecture import EXPERIMENTS, composed

HEIGHT, WIDTH = 72, 88
LIKE_ANOTHER = [name for name in EXPERIMENTS if name.endswith("_paper") and name != "nyu_synth_paper"]
"""A recipe on data that another experiment has: what they compose to is in tests/test_configs.py."""
QUICK = [name for name in EXPERIMENTS if name not in LIKE_ANOTHER]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in LIKE_ANOTHER]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """One root per layout, four samples each: RGB-D, prepared stacks with truth, photographs."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("roots")
    found = {name: folder / name for name in ("rgbd", "stacks", "photographs")}
    names = [f"{index:04d}" for index in range(4)]
    splits = {"train": names[:2], "val": names[2:3], "test": names[3:]}
    for name in names:
        for root in found.values():
            root.mkdir(exist_ok=True)
        image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        depth_m = rng.uniform(0.6, 2.5, (HEIGHT, WIDTH)).astype(np.float32)
        slices = [np.clip(image.astype(int) // (1 + i) + 20, 0, 255).astype(np.uint8) for i in range(3)]
        camera = {"focal_length_m": 0.0072, "f_number": 1.2, "pixel_pitch_m": 2.4e-5}
        write_rgbd(found["rgbd"], name, image, depth_m)
        write_stack(found["stacks"], name, slices, camera, [0.6, 1.0, 2.0], 0.5, 3.0, depth_m, image)
        write_stack(found["photographs"], name, slices, camera, [0.6, 1.0, 2.0], 0.5, 3.0)
    for root in found.values():
        write_splits(root, splits)
    return found


def root_for(target, roots):
    layout = {
        "RGBD": "rgbd",
        "Stacks": "stacks",
        "Rerendered": "stacks",
        "Raytraced": "stacks",
        "Recorded": "photographs",
    }
    return roots.get(layout.get(target.rsplit(".", 1)[-1].removesuffix("DataModule")))


@pytest.mark.filterwarnings("ignore:depth has collapsed")  # two steps on noise
@pytest.mark.parametrize("experiment", QUICK + SLOW)
def test_every_experiment_trains_two_steps(experiment, roots, tmp_path):
    target = composed([f"experiment={experiment}"]).data._target_
    root = root_for(target, roots)
    own = [f"data.root={root}"] if root else ["data.train_length=2", "data.val_length=1", "data.test_length=1",
                                              "data.height=40", "data.width=48"]  # fmt: skip
    config = composed([
        f"experiment={experiment}", *own, f"output_dir={tmp_path}", "data.batch_size=2", "module.augmentation.crop=32",
        "trainer.max_steps=2", "pictures=0",
        "threads=1",
    ])  # fmt: skip
    train(config)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["protocol"]["steps"] == 2 and metrics["samples"] == 1 and metrics["stack/psnr"] > 0
    assert ("depth/abs_rel" in metrics) == (root is None or root.name != "photographs")
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in content["state_dict"].values())
    if experiment.startswith("nyu_hybriddepth"):
        assert "leaks" in metrics["protocol"]
    assert (CONF_DIR / "experiment" / f"{experiment}.yaml").read_text().startswith("# @package _global_\n# ")
