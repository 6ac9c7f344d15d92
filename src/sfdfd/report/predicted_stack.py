"""What is known of a stack once it is predicted: all that is written of it, in whatever form."""

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
    """A prediction and what is to be said about it.

    Attributes:
        name: of the stack.
        stack, small: as they were worked on.
        full: at the size of the photographs.
        camera: of the photographs.
        covered: (H,W) where every slice shows something.
        relative: whether depth is a position in the order of the slices and no metre.
        aligned: whether the slices were moved.
        focal_length_px: and how it is known, in words.
        facts: for ``prediction.json``, with statement, sources, alignment and so on.
        slice_index: (H,W) which slice is sharpest at a pixel, where ``outputs`` asks for it.
        principal_point_px: (x, y) where the optical axis meets the photographs, from the corner of the first pixel; None
            is their middle.
        exif: what the AIF says of the camera, see :mod:`sfdfd.io.embedded_metadata`.
    """

    name: str
    stack: FocalStack
    small: Prediction
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
        """(S,) focus distances."""
        return self.stack.focus_distances_m[0]
