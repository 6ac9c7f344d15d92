"""Export a network to an ONNX file."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from sfdfd.errors import InputError
from sfdfd.networks.interface import NetworkModule

__all__ = ["export_onnx"]

INPUTS = ("images", "focus_distances_m", "near_m", "far_m")
OUTPUTS = ("depth_m", "aif")


class _Positional(nn.Module):
    """The network with positional arguments and without a mask, as ONNX requires."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Tensor, focus_distances_m: Tensor, near_m: Tensor, far_m: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = self.network(images, focus_distances_m, near_m=near_m, far_m=far_m)
        return output.depth_m, output.aif


def export_onnx(network: NetworkModule, path: Path, opset: int = 18) -> None:
    """Write ``network`` to ``path``.

    The file takes images (1,S,3,H,W) in [0, 1], and focus_distances_m (1,S), near_m (1,) and far_m (1,) in metres. S, H
    and W are free (S >= 2, H and W >= 16). It gives depth_m (1,H,W) in metres and aif (1,3,H,W).

    Raises:
        InputError: packages are not installed, or the network needs more inputs (``requires_defocus``).
    """
    if network.requires_defocus:
        raise InputError(
            "a network that needs the blur of the slices (plane_sweep) cannot be exported to ONNX: its sweep is Python"
        )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("exporting to ONNX needs onnx and onnxscript: pip install 'sfdfd[onnx]'") from None
    images = torch.rand(1, 5, 3, 70, 90)
    example = (images, torch.tensor([[1.0, 1.5, 2.5, 4.0, 6.0]]), torch.tensor([0.5]), torch.tensor([10.0]))
    Dim = torch.export.Dim
    slices, height, width = Dim("slices", min=2), Dim("height", min=16), Dim("width", min=16)
    shapes = ({1: slices, 3: height, 4: width}, {1: slices}, None, None)
    for name in ("torch.onnx", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            _Positional(network.cpu().eval()), example, str(path), input_names=list(INPUTS), output_names=list(OUTPUTS),
            dynamic_shapes=shapes, opset_version=opset, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
