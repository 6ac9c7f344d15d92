"""Export as a user runs it."""

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.networks import PlaneSweepNet
from sfdfd.networks.onnx import export_onnx
from sfdfd.training.checkpoints import load_run
from tests.commands import inside


@pytest.mark.slow
def test_export_runs_in_onnxruntime(trained, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    inside("export", f"checkpoint='{trained[0] / 'checkpoints/best.ckpt'}'", "output_dir=x", cwd=tmp_path)
    session = runtime.InferenceSession(tmp_path / "x" / "network.onnx")
    images = np.random.default_rng(0).random((1, 4, 3, 38, 50), dtype=np.float32)
    feeds = {"images": images, "focus_distances_m": np.array([[1, 2, 4, 6]], np.float32),
             "near_m": np.array([0.5], np.float32), "far_m": np.array([10], np.float32)}  # fmt: skip
    depth_m, aif = session.run(["depth_m", "aif"], feeds)
    assert depth_m.shape == (1, 38, 50) and aif.shape == (1, 3, 38, 50) and np.isfinite(depth_m).all()


def test_exported_weights_equal_the_checkpoints(trained, tmp_path):
    checkpoint = trained[0] / "checkpoints/best.ckpt"
    inside("export", f"checkpoint='{checkpoint}'", "format=weights", "output_dir=x", cwd=tmp_path)
    small = tmp_path / "x" / "weights.ckpt"
    assert small.stat().st_size < 0.4 * checkpoint.stat().st_size
    full, half = load_run(checkpoint).state_dict(), load_run(small).state_dict()
    assert all(torch.allclose(full[key], half[key], atol=1e-3) for key in full)


def test_a_network_that_requires_defocus_cannot_be_exported_to_onnx(tmp_path):
    with pytest.raises(InputError, match="cannot be exported to ONNX"):
        export_onnx(PlaneSweepNet(planes=8, width=8), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())
