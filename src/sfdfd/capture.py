"""From photographs to a focal stack that the methods can use: alignment, exposure, and the camera where it is not known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from sfdfd.align import Alignment, align, estimate_alignment, even_exposure
from sfdfd.calibrate import BlurScale, camera_for, estimate_blur_scale
from sfdfd.data.images import to_float
from sfdfd.data.procedural import make_scene
from sfdfd.data.recorded import Photographs, depth_range_m
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer
from sfdfd.stack import FocalStack

__all__ = ["Capture", "example_photographs", "working_size"]

EXAMPLE_SCENE = (0, 2_000_013)
"""Seed and number of the example's scene."""
MOTION_LIMIT_PX = 0.5
"""Estimated motion from which a stack is aligned unless told otherwise."""


def working_size(height: int, width: int, longer_px: int) -> tuple[int, int]:
    """(height, width) reduced so that the longer side is at most ``longer_px``."""
    factor = min(1.0, longer_px / max(height, width))
    return max(16, round(height * factor)), max(16, round(width * factor))


@dataclass(frozen=True)
class Capture:
    """A stack made ready, and everything that was found out on the way.

    Attributes:
        photographs: with aligned images of even exposure.
        reach: (S,H,W) bool, where each slice shows something.
        alignment: as estimated; ``aligned`` says whether it was applied.
        gains: (S,3) exposure gains that were applied.
        camera: of the full images; nominal where ``camera_source`` is not "known".
        camera_source: "known", "estimated" (k from the stack) or "relative" (in units of the order of focus).
        focus_distances_m: in metres; without unit where ``relative``.
        near_m, far_m: depth range in the same unit.
        blur_scale: the estimate of k, in full pixels, or None.
        notes: in plain words, for the user.
    """

    photographs: Photographs
    reach: np.ndarray
    alignment: Alignment
    aligned: bool
    gains: np.ndarray
    camera: Camera
    camera_source: str
    focus_distances_m: tuple[float, ...]
    near_m: float
    far_m: float
    blur_scale: BlurScale | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def relative(self) -> bool:
        """Whether focus distances are unknown, so that depth is a position in the order of the slices."""
        return self.camera_source == "relative"

    @property
    def statement(self) -> str:
        """What the depth means, in one sentence."""
        if self.relative:
            return (
                "Depth is RELATIVE, not metric: no focus distance is known. 0 is in focus in the first slice, 1 in the last "
                "(order of the files); whether first is near or far is not known."
            )
        if self.camera_source == "estimated":
            percent = 100 * self.blur_scale.relative_std
            trust = f"+- {percent:.2g} % (spread between image patches)" if math.isfinite(percent) else "undetermined"
            return (
                "Depth is in metres on the scale of the given focus distances; the camera is not known, so its blur scale "
                f"was estimated from the stack: k = f^2/(2 N p) = {self.blur_scale.value_px_m:.4g} px m {trust}."
            )
        return "Depth is in metres: camera and focus distances are known."

    def stack(self, longer_px: int | None = None) -> tuple[FocalStack, Tensor | None]:
        """The focal stack (a batch of one) with its longer side at most ``longer_px``, and (1,S,h,w) weights of its pixels,
        None where every slice reaches everywhere."""
        height, width = self.photographs.size
        size = (height, width) if longer_px is None else working_size(height, width, longer_px)
        reduced = [_reduced(image, size) for image in self.photographs.images]
        images = self.photographs.with_images(reduced).as_tensor()
        factor = math.sqrt(size[0] * size[1] / (height * width))
        stack = FocalStack.single(
            images, self.focus_distances_m, self.camera.resized(factor), self.near_m, self.far_m,
            name=self.photographs.name,
        )  # fmt: skip
        if self.reach.all():
            return stack, None
        reach = [_reduced(one.astype(np.float32), size) for one in self.reach]
        return stack, torch.from_numpy(np.stack(reach))[None]

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, for ``prediction.json``."""
        names = [file.name for file in self.photographs.files]
        return {
            "metric": not self.relative,
            "statement": self.statement,
            "camera": self.camera.as_dict() if self.camera_source == "known" else dict(self.photographs.camera),
            "camera_source": self.camera_source,
            "blur_scale_px_m": None if self.relative else self.camera.blur_scale_px_m,
            "blur_scale_relative_std": None if self.blur_scale is None else self.blur_scale.relative_std,
            "blur_scale_patches_px_m": None if self.blur_scale is None else list(self.blur_scale.patches_px_m),
            "focus_distances_m": None if self.relative else list(self.focus_distances_m),
            "depth_range_m": None if self.relative else [self.near_m, self.far_m],
            "sources": dict(self.photographs.sources),
            "missing": dict(self.photographs.missing),
            "aligned": self.aligned,
            "alignment": self.alignment.as_dict(names),
            "exposure_gains": [[round(float(g), 4) for g in gains] for gains in self.gains],
            "notes": list(self.notes),
        }

    @classmethod
    def prepare(
        cls,
        photographs: Photographs,
        renderer: DefocusRenderer,
        *,
        align_mode: bool | str = "auto",
        align_model: str = "scale_shift",
        exposure: bool = True,
        working_px: int = 512,
        calibrate: bool = True,
    ) -> Capture:
        """Align, even out the exposure, and find the camera.

        Args:
            photographs: what there is.
            renderer: the model's optics, for the estimate of an unknown blur scale.
            align_mode: True, False, or "auto": where the estimated motion exceeds half a pixel.
            align_model: "scale_shift", "affine" or "homography".
            exposure: even out exposure and white balance.
            working_px: longer side of the images on which the blur scale is estimated.
            calibrate: False takes a rough blur scale instead of estimating it (when only a picture is wanted).

        Raises:
            InputError: a value is wrong, or the blur it means is larger than the image.
        """
        if align_mode not in (True, False, "auto"):
            raise InputError(f"align.mode: expected true, false or auto, got {align_mode!r}")
        notes: list[str] = []
        focus = photographs.focus_distances_m
        count = len(photographs.images)
        alignment = estimate_alignment(photographs.images, focus, align_model)
        notes += alignment.notes
        height, width = photographs.size
        reach = np.ones((count, height, width), bool)
        images = list(photographs.images)
        moves = float(alignment.motion_px.max()) > MOTION_LIMIT_PX
        aligned = align_mode is True or (align_mode == "auto" and moves)
        if aligned:
            images, reach = align(images, alignment)
        elif moves and align_mode is False:
            notes.append(
                f"slices move by up to {alignment.motion_px.max():.2g} px and were not aligned (align.mode=false)"
            )
        gains = np.ones((count, 3))
        if exposure:
            images, gains = even_exposure(images, alignment.reference, reach)
        photographs = photographs.with_images(images)

        camera, source, blur_scale = photographs.known_camera(), "known", None
        if focus is None:
            source = "relative"
            # equal steps of inverse distance in an arbitrary unit: all that an order says
            focus = tuple(1 / (1 - 0.8 * i / (count - 1)) for i in range(count))
            step = 0.8 / (count - 1)
            near_m, far_m = 1 / (1 + 0.5 * step), 1 / max(0.2 - 0.5 * step, 0.05)
        else:
            focal = photographs.camera["focal_length_m"] or 0.0
            near_m, far_m = depth_range_m(focus, focal, photographs.near_m, photographs.far_m)
        if source == "known" and camera is not None:
            distances = torch.tensor([near_m, far_m])[:, None]
            radius = float(camera.blur_radius_px(distances, torch.tensor(focus)).max())
            if radius > 0.5 * max(height, width):
                raise InputError(
                    f"the blur radius would reach {radius:.4g} pixels in an image of {width} x {height}; check the units "
                    f"(metres) of camera {camera.as_dict()} and focus_distances_m"
                )
        else:
            source = "relative" if source == "relative" else "estimated"
            known = dict.fromkeys(photographs.camera) if source == "relative" else dict(photographs.camera)
            size = working_size(height, width, working_px)
            small = torch.stack([to_float(_reduced(image, size)) for image in images])
            factor = math.sqrt(size[0] * size[1] / (height * width))
            found = estimate_blur_scale(
                small, torch.tensor(focus, dtype=torch.float32), near_m, far_m, renderer,
                focal_length_m=known["focal_length_m"], steps=160 if calibrate else 0,
            )  # fmt: skip
            std = found.relative_std if count > 2 and calibrate else math.inf
            blur_scale = BlurScale(
                found.value_px_m / factor, std, tuple(value / factor for value in found.patches_px_m)
            )
            if count == 2:
                notes.append(
                    "two slices do not determine an unknown blur scale: take distances between them as an order"
                )
            camera = camera_for(blur_scale.value_px_m, min(focus), **known)
        return cls(
            photographs,
            reach,
            alignment,
            aligned,
            gains,
            camera,
            source,
            tuple(focus),
            near_m,
            far_m,
            blur_scale,
            notes,
        )


def _reduced(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def example_photographs(height: int = 240, width: int = 320) -> Photographs:
    """A small stack of a procedural scene, as a camera would have saved it: f/8, 50 mm, five slices, 8 bits."""
    camera, near_m, far_m = Camera(0.05, 8.0, 1.2e-5), 0.5, 10.0
    focus = (1.0, 1.5, 2.5, 4.0, 6.0)
    aif, depth_m = make_scene(EXAMPLE_SCENE[0], EXAMPLE_SCENE[1], height, width, near_m, far_m)
    synthesis = StackSynthesis(DefocusRenderer(sigma_scale=0.5, method="exact"), camera, focus, near_m, far_m)
    stack = synthesis(torch.from_numpy(aif).permute(2, 0, 1).contiguous(), torch.from_numpy(depth_m))
    images = (stack.images[0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return Photographs(
        name="example",
        files=tuple(Path(f"example_{value}m.png") for value in focus),
        images=tuple(np.ascontiguousarray(image) for image in images),
        camera=camera.as_dict(),
        focus_distances_m=focus,
        near_m=near_m,
        far_m=far_m,
        sources=dict.fromkeys((*camera.as_dict(), "focus_distances_m", "near_m", "far_m"), "the example itself"),
    )
