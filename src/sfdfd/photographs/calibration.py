"""Find the camera of registered photographs: the known one, or one of the blur scale that the stack shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sfdfd.errors import InputError
from sfdfd.io.images import to_float, working_size
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.photographs.blur_scale import BlurScale, camera_for, estimate_blur_scale, scale_std
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.registered_slices import RegisteredSlices
from sfdfd.photographs.resizing import resize_array, resize_coverage

__all__ = ["Calibration", "calibrate_camera", "contradiction"]

CONTRADICTION = 0.25
"""Difference of logarithms of k, beyond their errors, from which a camera contradicts its stack."""
CAMERA_WORDS = {"focal_length_m": "focal length", "f_number": "f-number", "pixel_pitch_m": "pixel pitch"}


@dataclass(frozen=True)
class Calibration:
    """The camera of a stack; attributes as of :class:`sfdfd.photographs.capture.Capture`."""

    camera: Camera
    camera_source: str
    blur_scale: BlurScale | None
    notes: list[str]


def calibrate_camera(
    photographs: Photographs,
    registered: RegisteredSlices,
    renderer: Renderer,
    working_px: int,
    precise: bool,
) -> Calibration:
    """Return the camera: as it is known, checked against the stack if EXIF knows it; else estimated from the stack.

    Args:
        photographs, registered: of one stack.
        renderer, working_px: optics and longer side in pixels at which k is estimated.
        precise: False takes the k of a coarse profile, and checks nothing.

    Raises:
        InputError: the blur of the known camera is larger than the image.
    """
    camera = photographs.known_camera()
    estimator = _BlurScaleEstimator(photographs, registered, renderer, working_px)
    if photographs.focus_distances_m is None:
        blur_scale = estimator.estimate(None, precise)
        camera = camera_for(blur_scale.value_px_m, min(photographs.nominal_focus_distances_m))
        return Calibration(camera, "relative", blur_scale, _notes_on_unknown_scale(photographs))
    if camera is None:
        blur_scale = estimator.estimate(photographs.focal_length_m, precise)
        known: dict[str, Any] = dict(photographs.camera)
        camera = camera_for(blur_scale.value_px_m, min(photographs.focus_distances_m), **known)
        return Calibration(camera, "estimated", blur_scale, _notes_on_unknown_scale(photographs))
    _refuse_impossible_blur(camera, photographs)
    determined = len(photographs.focus_distances_m) > 2 and photographs.assumed_side is None
    if not (precise and determined and _has_exif_camera(photographs)):
        return Calibration(camera, "known", None, [])
    blur_scale = estimator.estimate(camera.focal_length_m, precise)
    notes = contradiction(camera.blur_scale_px_m, blur_scale, photographs.sources)
    return Calibration(camera, "known", blur_scale, notes)


@dataclass(frozen=True)
class _BlurScaleEstimator:
    """Estimates k of the full images at the working size, from pixels that every slice covers."""

    photographs: Photographs
    registered: RegisteredSlices
    renderer: Renderer
    working_px: int

    def estimate(self, focal_length_m: float | None, precise: bool) -> BlurScale:
        height, width = self.registered.covered.shape
        size = working_size(height, width, self.working_px)
        focus_m = self.photographs.nominal_focus_distances_m
        estimate = estimate_blur_scale(
            torch.stack([to_float(resize_array(image, size)) for image in self.registered.images]),
            torch.tensor(focus_m, dtype=torch.float32),
            *self.photographs.nominal_depth_range_m,
            self.renderer,
            focal_length_m=focal_length_m,
            f_numbers=self.photographs.f_numbers,
            covered=resize_coverage(self.registered.covered, size),
            fine=precise,
        )
        factor = math.sqrt(size[0] * size[1] / (height * width))
        std = math.inf
        if len(set(focus_m)) > 2 and precise:
            std = math.hypot(estimate.relative_std, scale_std(focus_m, self.photographs.focus_std_dpt))
        return BlurScale(estimate.value_px_m / factor, std, tuple(k / factor for k in estimate.tiles_px_m))


def _notes_on_unknown_scale(photographs: Photographs) -> list[str]:
    if photographs.assumed_side is not None:
        return [
            "slices of one focus distance do not determine an unknown blur scale: take distances as an order, or give "
            "camera.focal_length_m, camera.f_number and camera.pixel_pitch_m"
        ]
    if len(photographs.images) != 2:
        return []
    return ["two slices do not determine an unknown blur scale: take distances between them as an order"]


def _refuse_impossible_blur(camera: Camera, photographs: Photographs) -> None:
    ends_m = torch.tensor(photographs.nominal_depth_range_m)[:, None]
    focus_m, (height, width) = torch.tensor(photographs.nominal_focus_distances_m), photographs.size
    radius_px = float(camera.blur_radius_px(ends_m, focus_m).max())
    if radius_px > 0.5 * max(height, width):
        raise InputError(
            f"the blur radius would reach {radius_px:.4g} pixels in an image of {width} x {height}; check the units "
            f"(metres) of camera {camera.as_dict()} and focus_distances_m"
        )


def _has_exif_camera(photographs: Photographs) -> bool:
    """Whether any value of the camera comes from EXIF."""
    return any(photographs.sources.get(key, "").startswith("EXIF") for key in photographs.camera)


def contradiction(known_px_m: float, estimate: BlurScale, sources: Mapping[str, str]) -> list[str]:
    """Return a note if the k of the camera and that of the stack differ by more than their errors.

    Args:
        known_px_m: k of the camera, which is used.
        estimate: k of the stack.
        sources: where the values of the camera come from, in words.
    """
    if not abs(math.log(estimate.value_px_m / known_px_m)) > 2 * estimate.relative_std + CONTRADICTION:
        return []
    by_source: dict[str, list[str]] = {}
    for key, words in CAMERA_WORDS.items():
        by_source.setdefault(sources.get(key, "an unknown source").split(",")[0], []).append(words)
    if len(by_source) == 1:
        (origin,) = by_source
        subject, owner, verb = origin, f"{origin}'s", "means"
    else:
        subject = ", ".join(f"{' and '.join(words)} from {origin}" for origin, words in by_source.items())
        owner, verb = "that of the camera", "mean"
    doubtful = [words for key, words in CAMERA_WORDS.items() if sources.get(key, "").startswith("EXIF")]
    cause = "A wrong pixel pitch" if "pixel pitch" in doubtful else f"A wrong {' or '.join(doubtful)}"
    remedy = "give camera.pixel_pitch_m, or" if "pixel pitch" in doubtful else "check the camera's values, or"
    return [
        f"{subject} {verb} a blur scale of k = f^2/(2 N p) = {known_px_m:.3g} px m, but the stack looks like "
        f"{estimate.value_px_m:.3g} (+- {100 * estimate.relative_std:.2g} %); {owner} was used. {cause}, or focus distances "
        f"that are nominal, do that: {remedy} have k fitted (refine.fit=[k])"
    ]
