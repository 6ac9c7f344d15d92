"""The exported network is the network, for any number of slices and any size."""

import numpy as np
import pytest
import torch

from sfdfd.networks import DAIFNet, FocusAttentionNet
from sfdfd.networks.onnx import export_onnx

onnxruntime = pytest.importorskip("onnxruntime")


pytest.importorskip("onnxscript")


@pytest.mark.slow
@pytest.mark.parametrize("network", [
    FocusAttentionNet(width=8, depth=2), FocusAttentionNet(), DAIFNet(),
])  # fmt: skip
def test_onnxruntime_agrees_with_torch(network, tmp_path):
    export_onnx(network, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    for slices, height, width in ((5, 70, 90), (2, 33, 47), (8, 64, 48)):
        images = torch.rand(1, slices, 3, height, width)
        focus = torch.linspace(0.7, 8.0, slices)[None]
        near, far = torch.tensor([0.5]), torch.tensor([10.0])
        with torch.no_grad():
            expected = network.eval()(images, focus, near_m=near, far_m=far)
        inputs = {"images": images, "focus_distances_m": focus, "near_m": near, "far_m": far}
        depth, aif = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        np.testing.assert_allclose(depth, expected.depth_m.numpy(), atol=1e-4)
        np.testing.assert_allclose(aif, expected.aif.numpy(), atol=1e-5)
