"""Slices of a captured stack that were kept aside: registered afterwards, and judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfdfd.io.files import readable
from sfdfd.io.images import to_float
from sfdfd.measures.left_out import LeftOutScore, judge, neighbours, render_slice
from sfdfd.optics.render import Renderer
from sfdfd.photographs.align import align, estimate_alignment
from sfdfd.photographs.capture import MOTION_LIMIT_PX, Capture, focus_of_places, reduced
from sfdfd.photographs.read import Photographs
from sfdfd.stack import SATURATED, FocalStack, Prediction

__all__ = ["LeftOut", "left_out_slices", "registered_onto", "whole_stack"]


@dataclass(frozen=True)
class LeftOut:
    """One left-out slice of a stack of photographs.

    Attributes:
        index: its place in the order of the names (or of ``files``).
        focus_distance_m: in metres; None where no distance is known.
        judged: pictures and figures.
        facts: file, motion and gain that were fitted to it, and the figures, as plain values.
    """

    index: int
    focus_distance_m: float | None
    judged: LeftOutScore
    facts: dict[str, Any]


def registered_onto(
    image: np.ndarray, canvas: np.ndarray, mode: bool | str = "auto", model: str = "radial"
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """A photograph on the canvas of another picture of the same scene.

    Args:
        image, canvas: (H,W,3) uint8, uint16 or float in [0, 1].
        mode, model: as ``align.mode`` and ``align.model``.

    Returns:
        The photograph, (H,W) bool where it shows something, and its shift, scale and motion against the canvas.
    """
    covered = np.ones(image.shape[:2], bool)
    alignment = estimate_alignment([image, canvas], model=model)  # the second of two is the reference
    if mode is True or (mode == "auto" and float(alignment.motion_px.max()) > MOTION_LIMIT_PX):
        aligned, reach = align([image, canvas], alignment)
        image, covered = aligned[0], reach[0]
    moved = alignment.as_dict(["photograph", "canvas"])["slices"][0]
    return image, covered, {key: moved[key] for key in ("shift_px", "scale", "radial", "motion_px")}


def left_out_slices(
    capture: Capture,
    aside: Photographs,
    prediction: Prediction,
    renderer: Renderer,
    *,
    align_mode: bool | str = "auto",
    align_model: str = "radial",
    exposure: bool = True,
    size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[LeftOut]:
    """Each slice that was kept aside, one after the other: its photograph registered, and rendered.

    Registered onto the input slice nearest in inverse focus distance, as an input would have been, and not onto the
    rendered slice: what a method has to beat must not depend on the method (the two differ by 0.1 to 0.2 dB in all three
    figures of a phone's stack, each in favour of what was registered onto).

    Args:
        capture: of the other slices.
        aside: the slices kept aside, as they were photographed.
        prediction: at the size of the photographs, or at ``size`` (a batch of one).
        renderer: the model's optics.
        size: height and width at which is judged; None for that of the photographs.
        align_mode, align_model, exposure: as of :meth:`sfdfd.photographs.capture.Capture.of`.
        device: where is rendered.
    """
    height, width = capture.photographs.size
    size = size or (height, width)
    camera = capture.camera.resized(math.sqrt(size[0] * size[1] / (height * width)))
    inputs = capture.photographs.images
    for place, file, image, focus in zip(
        aside.places or (), aside.files, aside.images, focus_of_places(aside), strict=True
    ):
        rendered = render_slice(renderer, prediction.aif[0], prediction.depth_m[0], focus, camera, device=device).cpu()
        nearest, pair = neighbours(focus, capture.focus_distances_m)
        loaded: dict[int, Any] = {one: inputs[one] for one in {nearest, *pair}}
        moved, covered, motion = registered_onto(image, loaded[nearest], align_mode, align_model)
        loaded = {one: to_float(reduced(array, size)) for one, array in loaded.items()}
        first, second = (loaded[one] for one in pair)
        covered = reduced(covered.astype(np.float32), size) > 0.999
        judged = judge(
            to_float(reduced(moved, size)),
            rendered,
            loaded[nearest],
            (first, second),
            _mask(covered),
            exposure=exposure,
        )
        facts = {
            "index": place,
            "file": readable(file.name),
            "focus_distance_m": None if capture.relative else focus,
            **judged.figures.as_dict(),
            **motion,
            "exposure_gains": [round(gain, 4) for gain in judged.gain],
            "neighbours": [readable(capture.photographs.files[one].name) for one in pair],
            "nearest_slice": readable(capture.photographs.files[nearest].name),
        }
        yield LeftOut(place, facts["focus_distance_m"], judged, facts)


def whole_stack(
    capture: Capture, aside: Photographs, longer_px: int | None = None, align_mode: bool | str = "auto"
) -> FocalStack:
    """The captured stack with the slices that were kept aside put back into their places, for whoever has methods judged
    (a batch of one): all that the stack knows comes from the others.

    There is no prediction yet, so each is registered onto the input slice nearest in inverse focus distance.

    Args:
        capture: of the other slices.
        aside: the slices kept aside, as they were photographed.
        longer_px: as of :meth:`sfdfd.photographs.capture.Capture.stack`.
        align_mode: as of :meth:`sfdfd.photographs.capture.Capture.of`.
    """
    stack = capture.stack(longer_px)
    size = stack.images.shape[-2], stack.images.shape[-1]
    focus = focus_of_places(aside)
    images, covered = [], []
    for image, distance in zip(aside.images, focus, strict=True):
        nearest, _ = neighbours(distance, capture.focus_distances_m)
        moved, reach, _ = registered_onto(image, capture.photographs.images[nearest], align_mode)
        images.append(to_float(reduced(moved, size)))
        covered.append(torch.from_numpy(reduced(reach.astype(np.float32), size)))
    order = torch.tensor((*(capture.photographs.places or ()), *(aside.places or ()))).argsort()
    judged = torch.stack(images)[None]
    clipped = torch.cat([stack.saturated(), judged >= SATURATED], 1)[:, order]
    return replace(
        stack,
        images=torch.cat([stack.images, judged], 1)[:, order],
        clipped=clipped if bool(clipped.any()) else None,
        covered=torch.cat([stack.coverage(), torch.stack(covered)[None]], 1)[:, order],
        focus_distances_m=torch.cat([stack.focus_distances_m, torch.tensor([focus])], 1)[:, order],
        slice_mask=torch.ones(1, len(order), dtype=torch.bool),
    )


def _mask(covered: np.ndarray) -> Tensor | None:
    return None if covered.all() else torch.from_numpy(covered)
