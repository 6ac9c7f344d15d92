"""A predicted stack, as the files and pages of a prediction need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack, Prediction

__all__ = ["PredictedStack"]


@dataclass(frozen=True)
class PredictedStack:
    """A prediction and the facts about it.

    Attributes:
        name: of the stack.
        stack, working: the stack and its prediction at the working size.
        full: the prediction at the size of the photographs.
        camera: of the photographs.
        covered: (H,W) true where every slice shows something.
        relative: whether depth is relative to the slices and not in metres.
        aligned: whether the slices were moved.
        focal_length_px: the focal length, and where it comes from, in words.
        facts: for ``prediction.json``, with statement, sources, alignment and so on.
        slice_index: (H,W) index of the sharpest slice; None unless it is an output.
        principal_point_px: (x, y) where the optical axis meets the photographs, from the corner of the first pixel; None
            is their middle.
        exif: metadata of the written AIF, see :mod:`sfdfd.io.embedded_metadata`.
    """

    name: str
    stack: FocalStack
    working: Prediction
    full: Prediction
    camera: Camera
    covered: Bool[Tensor, "h w"]
    relative: bool
    aligned: bool
    focal_length_px: tuple[float, str]
    facts: dict[str, Any]
    slice_index: Tensor | None = None
    principal_point_px: tuple[float, float] | None = None
    exif: Image.Exif | None = None

    @property
    def focus(self) -> Tensor:
        """(S,) focus distances of the slices."""
        return self.stack.focus_distances_m[0]
