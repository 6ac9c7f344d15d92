"""Prepare photographs as a focal stack: aligned, of even exposure, with a camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from PIL import Image

from sfdfd.io.colour_spaces import colour_summary
from sfdfd.io.embedded_metadata import build_exif
from sfdfd.io.files import readable
from sfdfd.io.images import channels_first, to_float, working_size
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.photographs.align import Alignment, AlignSettings
from sfdfd.photographs.blur_scale import BlurScale
from sfdfd.photographs.calibration import calibrate_camera
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.registered_slices import RegisteredSlices
from sfdfd.photographs.resizing import resize_clipped, resize_coverage
from sfdfd.stack import FocalStack, resize_area

__all__ = ["Capture"]


@dataclass(frozen=True)
class Capture:
    """Photographs that are aligned and calibrated, with all findings.

    Attributes:
        photographs: with aligned images of even exposure.
        covered: (H,W) bool each, the pixels that a slice covers; made on access, as the images are.
        clipped: (H,W,3) bool each, the values that were clipped in the photograph; made on access.
        alignment: as estimated; ``aligned`` says whether it was applied.
        gains: (S,3) exposure gains that were applied.
        camera: of the full images; nominal unless ``camera_source`` is "known".
        camera_source: "known", "estimated" (k from the stack) or "relative" (focus distances are unknown).
        focus_distances_m: in metres; without unit if ``relative``.
        near_m, far_m: depth range in the same unit.
        blur_scale: the estimated k in full pixels, or None. For a camera from EXIF it only serves as a check.
        notes: in words, for the user.
    """

    photographs: Photographs
    covered: LazySlices
    clipped: LazySlices
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
        """Whether focus distances are unknown, so that depth is a position between the first and the last slice."""
        return self.camera_source == "relative"

    @property
    def statement(self) -> str:
        """One sentence that says what the depth means."""
        if self.relative:
            return (
                "Depth is RELATIVE, not metric: no focus distance is known. 0 is in focus in the first slice, 1 in the last "
                "(order of the files); whether first is near or far is not known."
            )
        if self.camera_source == "estimated":
            assert self.blur_scale is not None
            percent = 100 * self.blur_scale.relative_std
            trust = f"+- {percent:.2g} % (disagreement of image tiles)" if math.isfinite(percent) else "undetermined"
            return (
                "Depth is in metres on the scale of the given focus distances; the camera is not known, so its blur scale "
                f"was estimated from the stack: k = f^2/(2 N p) = {self.blur_scale.value_px_m:.4g} px m {trust}."
            )
        return "Depth is in metres: camera and focus distances are known."

    @property
    def focal_length_px(self) -> tuple[float, str]:
        """Focal length in pixels, and its origin in words."""
        camera = self.photographs.camera_of_slice(0)
        focal_m, pitch_m = camera["focal_length_m"], camera["pixel_pitch_m"]
        if focal_m is not None and pitch_m is not None:  # also for a relative stack, whose camera is nominal
            return focal_m / pitch_m, "focal length known"
        if focal_m is not None and camera["f_number"] is not None and not self.relative:
            return self.camera.focal_length_m / self.camera.pixel_pitch_m, "focal length from the estimated blur scale"
        diagonal_px = math.hypot(*self.photographs.size)
        return 28 / math.hypot(36, 24) * diagonal_px, "field of view assumed: 28 mm on 35 mm film"

    @property
    def exif(self) -> Image.Exif:
        """EXIF for pictures on the canvas of the reference slice (:mod:`sfdfd.io.embedded_metadata`)."""
        photographs = self.photographs
        reference = self.alignment.reference
        facts = photographs.facts[reference] if photographs.facts else None
        return build_exif(facts, photographs.size, photographs.uncropped, photographs.camera_of_slice(reference))

    @cached_property
    def common(self) -> np.ndarray:
        """(H,W) bool, the pixels that every slice covers."""
        return reduce(np.logical_and, self.covered)

    def stack(self, longer_px: int | None = None) -> FocalStack:
        """Return the focal stack (a batch of one) with its longer side at most ``longer_px``.

        ``covered`` is None if every slice covers the whole image.
        """
        height, width = self.photographs.size
        size = (height, width) if longer_px is None else working_size(height, width, longer_px)
        images = torch.stack([resize_area(to_float(image), *size) for image in self.photographs.images])
        covered = None if self.common.all() else resize_coverage(self.covered, size)
        clipped = torch.stack([channels_first(resize_clipped(mask, size)) for mask in self.clipped])
        camera = self.camera.resized(math.sqrt(size[0] * size[1] / (height * width)))
        return FocalStack.single(
            images,
            self.focus_distances_m,
            camera,
            self.near_m,
            self.far_m,
            name=self.photographs.name,
            covered=covered,
            clipped=clipped if clipped.any() else None,
        )

    def largest_blur_px(self) -> float:
        """Return the largest blur radius between near and far, in pixels of the full images."""
        ends = torch.tensor([self.near_m, self.far_m])[:, None]
        return float(self.camera.blur_radius_px(ends, torch.tensor(self.focus_distances_m)).max())

    def _given_camera(self) -> dict[str, Any]:
        """Return what is known of the camera as plain values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in self.photographs.camera.items()
        }

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for ``prediction.json``."""
        names = [readable(file.name) for file in self.photographs.files]
        return {
            "metric": not self.relative,
            "statement": self.statement,
            "camera": self.camera.as_dict() if self.camera_source == "known" else self._given_camera(),
            "camera_source": self.camera_source,
            "blur_scale_px_m": None if self.relative else self.camera.blur_scale_px_m,
            "blur_scale_relative_std": None if self.blur_scale is None else self.blur_scale.relative_std,
            "blur_scale_tiles_px_m": None if self.blur_scale is None else list(self.blur_scale.tiles_px_m),
            "focus_distances_m": None if self.relative else list(self.focus_distances_m),
            "focus_distances_std_dpt": None if self.relative else self.photographs.focus_std_dpt,
            "depth_range_m": None if self.relative else [self.near_m, self.far_m],
            "assumed_side": self.photographs.assumed_side,
            "sources": dict(self.photographs.sources),
            "missing": dict(self.photographs.missing),
            "aligned": self.aligned,
            "alignment": self.alignment.as_dict(names),
            "colour_space": colour_summary(self.photographs.facts),
            "exposure_gains": [[round(float(g), 4) for g in gains] for gains in self.gains],
            "notes": list(self.notes),
        }

    @classmethod
    def of(
        cls,
        photographs: Photographs,
        renderer: Renderer,
        *,
        align: AlignSettings | None = None,
        working_px: int = 512,
        calibrate: bool = True,
        alignment: Alignment | None = None,
    ) -> Capture:
        """Align photographs, even out their exposure, and find their camera.

        Args:
            photographs: of one stack.
            renderer: the model's optics, for the estimate of an unknown blur scale.
            align: mode, model and exposure; None for the defaults.
            working_px: longer side of the images on which the blur scale is estimated.
            calibrate: False takes a rough blur scale instead of optimizing it (enough for aligned pictures).
            alignment: of these slices, if it is known already; None estimates it.

        Raises:
            InputError: a value is wrong, or the blur it means is larger than the image.
        """
        registered = RegisteredSlices.of(photographs, align or AlignSettings(), alignment)
        return cls.of_registered(photographs, registered, renderer, working_px=working_px, calibrate=calibrate)

    @classmethod
    def of_registered(
        cls,
        photographs: Photographs,
        registered: RegisteredSlices,
        renderer: Renderer,
        *,
        working_px: int = 512,
        calibrate: bool = True,
    ) -> Capture:
        """Find the camera of photographs that are registered already; arguments as of :meth:`of`."""
        photographs = photographs.with_images(registered.images)
        near_m, far_m = photographs.nominal_depth_range_m
        calibration = calibrate_camera(photographs, registered, renderer, working_px, precise=calibrate)
        return cls(
            photographs=photographs,
            covered=registered.covered,
            clipped=registered.clipped,
            alignment=registered.alignment,
            aligned=registered.aligned,
            gains=registered.gains,
            camera=calibration.camera,
            camera_source=calibration.camera_source,
            focus_distances_m=photographs.nominal_focus_distances_m,
            near_m=near_m,
            far_m=far_m,
            blur_scale=calibration.blur_scale,
            notes=[
                *photographs.notes,
                *registered.notes,
                *_side_notes(photographs),
                *_uncertainty_notes(photographs),
                *calibration.notes,
            ],
        )


def _side_notes(photographs: Photographs) -> list[str]:
    """Say on which side of focus the scene is taken to lie, where the stack does not tell."""
    side, focus = photographs.assumed_side, photographs.nominal_focus_distances_m
    if side is None:
        return []
    other = "before" if side == "behind" else "behind"
    reason = f"; side={other} takes the other side"
    if photographs.side is not None or _range_decides(photographs):
        reason = ", as given" if photographs.side else ", as the depth range says"
    return [
        "the slices differ in aperture alone and do not tell the side of focus: everything is taken to lie "
        f"{side} the focus distance of {focus[0]:.4g} m{reason}"
    ]


def _range_decides(photographs: Photographs) -> bool:
    """Whether the given depth range lies on one side of focus."""
    focus_m, near_m, far_m = photographs.nominal_focus_distances_m[0], photographs.near_m, photographs.far_m
    return (near_m is not None and near_m >= focus_m) or (far_m is not None and far_m <= focus_m)


def _uncertainty_notes(photographs: Photographs) -> list[str]:
    """Say what the uncertainty of the focus distances means for depth."""
    std_dpt = photographs.focus_std_dpt
    if std_dpt is None or not any(std_dpt):
        return []
    typical = float(np.median(std_dpt))
    return [
        f"focus distances are known to {typical:.2g} dioptres (standard deviation): a depth of 1 m is uncertain by "
        f"{typical:.2g} m for that alone, one of 3 m by {9 * typical:.2g} m"
    ]
