"""Score the left-out slices of a stack of photographs: register each photograph, and compare the rendered slice with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfdfd.io.files import readable
from sfdfd.io.images import to_float
from sfdfd.measures.left_out import LeftOutScore, judge, neighbours, render_slice
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.photographs.align import AlignSettings, align_slices, estimate_alignment
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.resizing import resize_array, resize_coverage
from sfdfd.stack import SATURATED, FocalStack, Prediction

__all__ = ["LeftOut", "left_out_slices", "register_onto", "stack_with_left_out_slices"]


@dataclass(frozen=True)
class LeftOut:
    """One left-out slice of a stack of photographs.

    Attributes:
        index: its index in the order of the names (or of ``files``).
        focus_distance_m: in metres; None if unknown.
        judged: pictures and figures.
        facts: file, fitted motion and gain, and the figures, as plain values.
    """

    index: int
    focus_distance_m: float | None
    judged: LeftOutScore
    facts: dict[str, Any]


def register_onto(
    image: np.ndarray, canvas: np.ndarray, settings: AlignSettings
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Register a photograph onto another picture of the same scene.

    Args:
        image, canvas: (H,W,3) uint8, uint16 or float in [0, 1].
        settings: mode and model.

    Returns:
        The photograph, (H,W) bool the pixels that it covers, and its shift, scale and motion against the canvas.
    """
    covered = np.ones(image.shape[:2], bool)
    alignment = estimate_alignment([image, canvas], model=settings.model)  # the second of two is the reference
    if alignment.is_applied(settings.mode):
        aligned, reach = align_slices([image, canvas], alignment)
        image, covered = aligned[0], reach[0]
    motion = alignment.as_dict(["photograph", "canvas"])["slices"][0]
    return image, covered, {key: motion[key] for key in ("shift_px", "scale", "radial", "motion_px")}


def left_out_slices(
    capture: Capture,
    left_out: Photographs,
    prediction: Prediction,
    renderer: Renderer,
    *,
    align: AlignSettings | None = None,
    size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[LeftOut]:
    """Yield each left-out slice with its registered photograph, its rendering, and their score.

    The photograph is registered onto the input slice nearest in inverse focus distance, as an input would have been, and not
    onto the rendered slice: the figures that a method has to beat must not depend on the method. (The two differ by 0.1 to
    0.2 dB in all three figures of a phone's stack, each in favour of the picture that was registered onto.)

    Args:
        capture: of the other slices.
        left_out: the left-out slices, as they were photographed.
        prediction: at the size of the photographs, or at ``size`` (a batch of one).
        renderer: the model's optics.
        align: mode, model and exposure; None for the defaults.
        size: height and width of the comparison; None for those of the photographs.
        device: of the renderer.
    """
    height, width = capture.photographs.size
    size = size or (height, width)
    cameras = _left_out_cameras(capture, left_out)
    factor = math.sqrt(size[0] * size[1] / (height * width))
    per_slice = (left_out.indices, left_out.files, left_out.images, left_out.nominal_focus_distances_m, cameras)
    aif, depth_m = prediction.aif[0], prediction.depth_m[0]
    for index, file, image, focus_m, lens in zip(*per_slice, strict=True):
        camera = lens.resized(factor)
        rendered = render_slice(renderer, aif, depth_m, focus_m, camera, device=device).cpu()
        yield _Photograph(index, file, image, focus_m).score(rendered, capture, align or AlignSettings(), size)


def _left_out_cameras(capture: Capture, left_out: Photographs) -> list[Camera]:
    """Return the camera of each left-out slice: that of the capture, with its own f-number where slices differ in it."""
    given, used = left_out.camera["f_number"], capture.photographs.camera["f_number"]
    if not given or given == used:  # the capture's may be nominal
        return capture.camera.per_slice(len(left_out.images)) if len(left_out.images) else []
    return replace(capture.camera, f_number=given).per_slice(len(left_out.images))


@dataclass(frozen=True)
class _Photograph:
    """One left-out photograph."""

    index: int
    file: Path
    image: np.ndarray
    focus_distance_m: float

    def score(self, rendered: Tensor, capture: Capture, align: AlignSettings, size: tuple[int, int]) -> LeftOut:
        """Register the photograph onto the nearest input slice, and compare the rendered slice with it."""
        nearest, pair = neighbours(self.focus_distance_m, capture.focus_distances_m)
        inputs: dict[int, Any] = {i: capture.photographs.images[i] for i in {nearest, *pair}}
        moved, covered, motion = register_onto(self.image, inputs[nearest], align)
        inputs = {i: to_float(resize_array(array, size)) for i, array in inputs.items()}
        is_covered = resize_coverage([covered], size)[0] > 0.999
        judged = judge(
            to_float(resize_array(moved, size)),
            rendered,
            inputs[nearest],
            (inputs[pair[0]], inputs[pair[1]]),
            None if is_covered.all() else is_covered,
            exposure=align.exposure,
        )
        names = [readable(file.name) for file in capture.photographs.files]
        facts = {
            "index": self.index,
            "file": readable(self.file.name),
            "focus_distance_m": None if capture.relative else self.focus_distance_m,
            **judged.figures.as_dict(),
            **motion,
            "exposure_gains": [round(gain, 4) for gain in judged.gain],
            "neighbours": [names[i] for i in pair],
            "nearest_slice": names[nearest],
        }
        return LeftOut(self.index, facts["focus_distance_m"], judged, facts)


def stack_with_left_out_slices(
    capture: Capture, left_out: Photographs, longer_px: int | None = None, align: AlignSettings | None = None
) -> FocalStack:
    """Return the captured stack with its left-out slices put back in their order (a batch of one).

    It serves the evaluation of methods. Camera and depth range come from the other slices alone. There is no prediction yet,
    so each left-out slice is registered onto the input slice nearest in inverse focus distance.

    Args:
        capture: of the other slices.
        left_out: the left-out slices, as they were photographed.
        longer_px: as of :meth:`sfdfd.photographs.capture.Capture.stack`.
        align: mode and model; None for the defaults.
    """
    stack = capture.stack(longer_px)
    size = stack.images.shape[-2], stack.images.shape[-1]
    focus_m = left_out.nominal_focus_distances_m
    images, covered = [], []
    for image, distance in zip(left_out.images, focus_m, strict=True):
        nearest, _ = neighbours(distance, capture.focus_distances_m)
        moved, reach, _ = register_onto(image, capture.photographs.images[nearest], align or AlignSettings())
        images.append(to_float(resize_array(moved, size)))
        covered.append(reach)
    order = torch.tensor((*capture.photographs.indices, *left_out.indices)).argsort()
    added, used = torch.stack(images)[None], stack.camera[0]
    others = [lens.widest_f_number for lens in _left_out_cameras(capture, left_out)]
    numbers = (*used.f_numbers(stack.images.shape[1]), *others)
    camera = replace(used, f_number=tuple(numbers[index] for index in order.tolist()))
    clipped = torch.cat([stack.saturated(), added >= SATURATED], 1)[:, order]
    return replace(
        stack,
        images=torch.cat([stack.images, added], 1)[:, order],
        clipped=clipped if bool(clipped.any()) else None,
        covered=torch.cat([stack.coverage(), resize_coverage(covered, size)[None]], 1)[:, order],
        camera=(camera,),
        focus_distances_m=torch.cat([stack.focus_distances_m, torch.tensor([focus_m])], 1)[:, order],
        slice_mask=torch.ones(1, len(order), dtype=torch.bool),
    )
