"""Fully self-supervised depth from defocus: predict -> render -> compare."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfdfd.errors import InputError
    from sfdfd.inference.estimator import DefocusEstimator
    from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod
    from sfdfd.inference.predict_photographs import PhotographPrediction, predict_photographs
    from sfdfd.measures.losses import SelfSupervisedLoss
    from sfdfd.measures.metrics import EvaluationMetrics
    from sfdfd.networks.classical import classical_network
    from sfdfd.networks.daif import DAIFNet
    from sfdfd.networks.plane_sweep import PlaneSweepNet
    from sfdfd.optics.blur_model import BlurModel
    from sfdfd.optics.camera import Camera
    from sfdfd.optics.render import DefocusRenderer, defocus_map_px, render_blurred, render_focal_stack
    from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.stack import FocalStack, Method, Prediction
    from sfdfd.training.module import DepthFromDefocus

__version__ = "0.1.0"

_HOMES = {
    "BlurModel": "sfdfd.optics.blur_model",
    "Camera": "sfdfd.optics.camera",
    "DAIFNet": "sfdfd.networks.daif",
    "DefocusEstimator": "sfdfd.inference.estimator",
    "DefocusRenderer": "sfdfd.optics.render",
    "DepthFromDefocus": "sfdfd.training.module",
    "EvaluationMetrics": "sfdfd.measures.metrics",
    "FocalStack": "sfdfd.stack",
    "InputError": "sfdfd.errors",
    "Method": "sfdfd.stack",
    "NetworkMethod": "sfdfd.inference.methods",
    "PhotographPrediction": "sfdfd.inference.predict_photographs",
    "PlaneSweepNet": "sfdfd.networks.plane_sweep",
    "Prediction": "sfdfd.stack",
    "RefinedMethod": "sfdfd.inference.methods",
    "Refiner": "sfdfd.refinement.refiner",
    "SelfSupervisedLoss": "sfdfd.measures.losses",
    "SweepMethod": "sfdfd.inference.methods",
    "classical_network": "sfdfd.networks.classical",
    "defocus_map_px": "sfdfd.optics.render",
    "depth_from_plane_sweep": "sfdfd.plane_sweep.sweep",
    "predict_photographs": "sfdfd.inference.predict_photographs",
    "render_blurred": "sfdfd.optics.render",
    "render_focal_stack": "sfdfd.optics.render",
}
"""The public names and the modules that define them; each is imported when it is first used (PEP 562)."""
__all__ = [
    "BlurModel",
    "Camera",
    "DAIFNet",
    "DefocusEstimator",
    "DefocusRenderer",
    "DepthFromDefocus",
    "EvaluationMetrics",
    "FocalStack",
    "InputError",
    "Method",
    "NetworkMethod",
    "PhotographPrediction",
    "PlaneSweepNet",
    "Prediction",
    "RefinedMethod",
    "Refiner",
    "SelfSupervisedLoss",
    "SweepMethod",
    "__version__",
    "classical_network",
    "defocus_map_px",
    "depth_from_plane_sweep",
    "predict_photographs",
    "render_blurred",
    "render_focal_stack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
