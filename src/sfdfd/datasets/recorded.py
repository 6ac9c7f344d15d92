"""Photographed stacks as training data: :class:`sfdfd.photographs.capture.Capture` prepares them; cameras may differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.errors import InputError, checked_choice
from sfdfd.io.images import DEFAULT_WORKING_PX, resolve_working_px
from sfdfd.optics.render import Renderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.left_out import stack_with_left_out_slices
from sfdfd.photographs.read import read_photographs
from sfdfd.stack import FocalStack

__all__ = ["RecordedDataModule", "common_rectangle"]


def common_rectangle(covered: np.ndarray) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of a rectangle whose pixels are all covered.

    Its sides move in one by one, each time the side with the largest share of uncovered pixels.

    Args:
        covered: (H,W) bool.
    """
    top, bottom, left, right = 0, covered.shape[0], 0, covered.shape[1]
    while top < bottom and left < right:
        part = covered[top:bottom, left:right]
        shares = [1 - part[0].mean(), 1 - part[-1].mean(), 1 - part[:, 0].mean(), 1 - part[:, -1].mean()]
        worst = int(np.argmax(shares))
        if shares[worst] == 0:
            break
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return top, bottom, left, right


class RecordedDataModule(StacksDataModule):
    """Photographed stacks: aligned, with even exposure, an unknown blur scale estimated, reduced to a working size, and
    cropped to what every slice shows. ``in_memory`` and ``cache`` keep prepared stacks.

    Args:
        root: a folder of slices, or of such folders; ``predict`` reads their cameras in the same way.
        renderer: the model's optics, to estimate an unknown blur scale.
        align: ``mode``: true, false, or "auto" (if slices move by more than half a pixel); ``exposure``: even out exposure
            and white balance. The defaults are "auto" and true.
        working_px: longer side of the images, or "auto" (:func:`sfdfd.io.images.resolve_working_px`).
        relative: accept stacks without focus distances. Slices are then equal steps of inverse depth, and depth is not
            metric.
        common: :class:`sfdfd.datasets.datamodule.StacksDataModule`.
    """

    depth_probe_count = 1  # photographs have no true depth, and aligning them takes seconds

    def __init__(
        self,
        root: str,
        renderer: Renderer,
        align: Mapping[str, Any] | None = None,
        working_px: int | str = 512,
        relative: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        self.relative = relative
        self.renderer, self.working_px = renderer, working_px
        align = {"mode": "auto", "exposure": True, **(align or {})}
        if len(align) > 2:
            raise InputError(f"data.align: expected mode and exposure, got {', '.join(align)}")
        checked_choice(align["mode"], "data.align.mode", ("auto", True, False))
        self.align = AlignSettings(mode=align["mode"], exposure=align["exposure"])

    def read(self, folder: Path, overrides: Mapping[str, Any]) -> FocalStack:
        kept, left_out = read_photographs(folder, overrides, self.holdout).split_left_out()
        optics = self.optics.updated(kept.optics)
        capture = Capture.of(
            kept,
            optics.applied_to(self.renderer),
            align=self.align,
            working_px=DEFAULT_WORKING_PX if self.working_px == "auto" else cast(int, self.working_px),
        )
        if capture.relative and not self.relative:
            remedy = capture.photographs.missing["focus_distances_m"]
            raise InputError(
                f"{folder}: no focus distance is known; give them: {remedy}; or data.relative=true for depth without metres"
            )
        working_px = resolve_working_px(self.working_px, capture.largest_blur_px(), max(capture.photographs.size))
        stack = capture.stack(working_px).with_optics(optics)
        covered = stack.covered
        if len(left_out.images):
            stack = stack_with_left_out_slices(capture, left_out, working_px, self.align).with_optics(optics)
        if covered is None:
            return stack
        top, bottom, left, right = common_rectangle((covered[0] > 0.999).all(0).numpy())
        if bottom - top < 16 or right - left < 16:
            raise InputError(
                f"{folder}: after alignment the slices have almost nothing in common (data.align.mode=false?)"
            )
        stack = stack.cropped(top, bottom, left, right)
        return stack if len(left_out.images) else replace(stack, covered=None)

    def protocol(self) -> dict[str, Any]:
        return {
            **super().protocol(),
            "data": "recorded",
            "align": self.align.mode,
            "exposure": self.align.exposure,
            "working_px": self.working_px,
            "relative": self.relative,
            "calibration_renderer": dict(self.renderer.options),
        }
