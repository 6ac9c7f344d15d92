"""A predicted stack, as the files and pages of a prediction need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from sfdfd.io.retouch_file import Retouch
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack, Prediction

__all__ = ["PredictedStack", "RetouchSource"]


@dataclass(frozen=True)
class RetouchSource:
    """What the page needs to paint on: the prediction before any stroke.

    Attributes:
        aif: (3,H,W) all-in-focus image at full size.
        depth_m: (H,W) depth, in the unit of the focus distances.
        slices: (3,h,w) each, uint8, the registered slices at the size of a preview.
        retouch: the strokes that were applied, perhaps none.
    """

    aif: Float[Tensor, "3 h w"]
    depth_m: Float[Tensor, "h w"]
    slices: Sequence[Tensor]
    retouch: Retouch


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
        retouch_source: for painting on the page; None leaves it out.
        picture: (3,H,W) the AIF with a blurred background; None where no stroke asks for it.
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
    retouch_source: RetouchSource | None = None
    picture: Float[Tensor, "3 h w"] | None = None

    @property
    def focus(self) -> Tensor:
        """(S,) focus distances of the slices."""
        return self.stack.focus_distances_m[0]
