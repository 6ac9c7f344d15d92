"""Fully self-supervised depth from defocus: predict -> render -> compare."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfdfd.inference.estimator import DefocusEstimator
    from sfdfd.optics.camera import Camera
    from sfdfd.optics.render import render_focal_stack
    from sfdfd.stack import FocalStack, Prediction

__version__ = "0.1.0"
__all__ = ["Camera", "DefocusEstimator", "FocalStack", "Prediction", "__version__", "render_focal_stack"]

_HOMES = {
    "Camera": "sfdfd.optics.camera",
    "DefocusEstimator": "sfdfd.inference.estimator",
    "FocalStack": "sfdfd.stack",
    "Prediction": "sfdfd.stack",
    "render_focal_stack": "sfdfd.optics.render",
}
"""Where the names of the flat face live; they are read when they are first used (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
