"""From photographs to a focal stack that the methods can use: alignment, exposure, and the camera where it is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from sfdfd.errors import InputError, checked_choice
from sfdfd.io.colour_spaces import colour_summary
from sfdfd.io.depth_range import depth_range_m
from sfdfd.io.embedded_metadata import carried_exif
from sfdfd.io.files import readable
from sfdfd.io.images import channels_first, to_float, working_size
from sfdfd.measures.exposure import apply_gain, clipped_pixels, exposure_gains
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.photographs.align import Alignment, align, align_clipped, estimate_alignment
from sfdfd.photographs.blur_scale import BlurScale, camera_for, estimate_blur_scale, scale_std
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.slice_files import refuse_identical
from sfdfd.stack import FocalStack, resize_area

__all__ = ["Capture", "focus_of_places", "reduced", "reduced_clipped"]

MOTION_LIMIT_PX = 0.5
"""Estimated motion from which a stack is aligned unless told otherwise."""
ROUGHLY = 0.25
"""By how much a rough estimate of k errs beyond what its patches say (docs/refinement.md), as a logarithm."""


@dataclass(frozen=True)
class Capture:
    """A stack made ready, and everything that was found out on the way.

    Attributes:
        photographs: with aligned images of even exposure.
        covered: (H,W) bool each, where a slice shows something; made when needed, as the images are.
        clipped: (H,W,3) bool each, where a colour was clipped when it was photographed, or is by its gain; the same.
        alignment: as estimated; ``aligned`` says whether it was applied.
        gains: (S,3) exposure gains that were applied.
        camera: of the full images; nominal where ``camera_source`` is not "known".
        camera_source: "known", "estimated" (k from the stack) or "relative" (in units of the order of focus).
        focus_distances_m: in metres; without unit where ``relative``.
        near_m, far_m: depth range in the same unit.
        blur_scale: the estimate of k, in full pixels, or None. Where EXIF says k, a rougher one, which is only compared.
        notes: in plain words, for the user.
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
            assert self.blur_scale is not None
            percent = 100 * self.blur_scale.relative_std
            trust = f"+- {percent:.2g} % (spread between image patches)" if math.isfinite(percent) else "undetermined"
            return (
                "Depth is in metres on the scale of the given focus distances; the camera is not known, so its blur scale "
                f"was estimated from the stack: k = f^2/(2 N p) = {self.blur_scale.value_px_m:.4g} px m {trust}."
            )
        return "Depth is in metres: camera and focus distances are known."

    @property
    def focal_length_px(self) -> tuple[float, str]:
        """Focal length in pixels, and how it is known."""
        known = self.photographs.camera
        focal_m, pitch_m = known["focal_length_m"], known["pixel_pitch_m"]
        if focal_m is not None and pitch_m is not None:  # of a relative stack, too, whose own camera is nominal
            return focal_m / pitch_m, "focal length known"
        if focal_m is not None and known["f_number"] is not None and not self.relative:
            return self.camera.focal_length_m / self.camera.pixel_pitch_m, "focal length from the estimated blur scale"
        diagonal_px = math.hypot(*self.photographs.size)
        return 28 / math.hypot(36, 24) * diagonal_px, "field of view assumed: 28 mm on 35 mm film"

    @property
    def exif(self) -> Image.Exif:
        """The EXIF of pictures in the place of the reference slice (:mod:`sfdfd.io.embedded_metadata`)."""
        photographs = self.photographs
        facts = photographs.facts[self.alignment.reference] if photographs.facts else None
        return carried_exif(facts, photographs.size, photographs.uncropped, photographs.camera)

    @cached_property
    def common(self) -> np.ndarray:
        """(H,W) bool, where every slice shows something."""
        return reduce(np.logical_and, self.covered)

    def stack(self, longer_px: int | None = None) -> FocalStack:
        """The focal stack (a batch of one) with its longer side at most ``longer_px``; ``covered`` is None where every slice
        reaches everywhere."""
        height, width = self.photographs.size
        size = (height, width) if longer_px is None else working_size(height, width, longer_px)
        images = torch.stack([resize_area(to_float(image), *size) for image in self.photographs.images])
        covered = None
        if not self.common.all():
            covered = torch.stack([torch.from_numpy(reduced(one.astype(np.float32), size)) for one in self.covered])
        clipped = torch.stack([channels_first(reduced_clipped(one, size)) for one in self.clipped])
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
        """Largest blur radius between near and far, in pixels of the full images."""
        ends = torch.tensor([self.near_m, self.far_m])[:, None]
        return float(self.camera.blur_radius_px(ends, torch.tensor(self.focus_distances_m)).max())

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, for ``prediction.json``."""
        names = [readable(file.name) for file in self.photographs.files]
        return {
            "metric": not self.relative,
            "statement": self.statement,
            "camera": self.camera.as_dict() if self.camera_source == "known" else dict(self.photographs.camera),
            "camera_source": self.camera_source,
            "blur_scale_px_m": None if self.relative else self.camera.blur_scale_px_m,
            "blur_scale_relative_std": None if self.blur_scale is None else self.blur_scale.relative_std,
            "blur_scale_patches_px_m": None if self.blur_scale is None else list(self.blur_scale.patches_px_m),
            "focus_distances_m": None if self.relative else list(self.focus_distances_m),
            "focus_distances_std_dpt": None if self.relative else self.photographs.focus_std_dpt,
            "depth_range_m": None if self.relative else [self.near_m, self.far_m],
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
        align_mode: bool | str = "auto",
        align_model: str = "radial",
        exposure: bool = True,
        working_px: int = 512,
        calibrate: bool = True,
        alignment: Alignment | None = None,
    ) -> Capture:
        """Align, even out the exposure, and find the camera.

        Args:
            photographs: what there is.
            renderer: the model's optics, for the estimate of an unknown blur scale.
            align_mode: True, False, or "auto": where the estimated motion exceeds half a pixel.
            align_model: see :func:`sfdfd.photographs.align.estimate_alignment`.
            exposure: even out exposure and white balance.
            working_px: longer side of the images on which the blur scale is estimated.
            alignment: what is known of it already; None estimates it.
            calibrate: False takes a rough blur scale instead of estimating it (when only a picture is wanted).

        Raises:
            InputError: a value is wrong, or the blur it means is larger than the image.
        """
        refuse_identical(photographs.images, photographs.files)
        registered = _Registered.of(photographs, align_mode, align_model, exposure, alignment)
        photographs = photographs.with_images(registered.images)
        focus, near_m, far_m = _distances(photographs)
        camera, source, blur_scale = photographs.known_camera(), "known", None
        notes = [*photographs.notes, *registered.notes, *_uncertainty(photographs)]
        if photographs.focus_distances_m is not None and camera is not None:
            _check_blur(camera, focus, near_m, far_m, photographs.size)
            if calibrate and len(focus) > 2 and _by_exif(photographs):
                blur_scale = _blur_scale(
                    registered, focus, (near_m, far_m), renderer, camera.focal_length_m, working_px,
                    photographs.focus_std_dpt, steps=24, patches=4,
                )  # fmt: skip
                notes.extend(_contradiction(camera.blur_scale_px_m, blur_scale, photographs.sources))
        else:
            source = "relative" if photographs.focus_distances_m is None else "estimated"
            known = dict.fromkeys(photographs.camera) if source == "relative" else dict(photographs.camera)
            blur_scale = _blur_scale(
                registered, focus, (near_m, far_m), renderer, known["focal_length_m"], working_px,
                photographs.focus_std_dpt, steps=160 if calibrate else 0,
            )  # fmt: skip
            if len(focus) == 2:
                notes.append(
                    "two slices do not determine an unknown blur scale: take distances between them as an order"
                )
            camera = camera_for(blur_scale.value_px_m, min(focus), **known)
        return cls(
            photographs=photographs,
            covered=registered.covered,
            clipped=registered.clipped,
            alignment=registered.alignment,
            aligned=registered.aligned,
            gains=registered.gains,
            camera=camera,
            camera_source=source,
            focus_distances_m=focus,
            near_m=near_m,
            far_m=far_m,
            blur_scale=blur_scale,
            notes=notes,
        )


@dataclass(frozen=True)
class _Registered:
    """Slices on one canvas, of one exposure."""

    images: Sequence[np.ndarray]
    covered: LazySlices
    clipped: LazySlices
    alignment: Alignment
    aligned: bool
    gains: np.ndarray
    notes: list[str]

    @classmethod
    def of(
        cls, photographs: Photographs, mode: bool | str, model: str, exposure: bool, alignment: Alignment | None
    ) -> _Registered:
        checked_choice(mode, "align.mode", (True, False, "auto"))
        images = photographs.images
        if alignment is None:
            alignment = estimate_alignment(images, photographs.focus_distances_m, model)
        notes, moves = list(alignment.notes), float(alignment.motion_px.max()) > MOTION_LIMIT_PX
        covered = LazySlices([np.ones(photographs.size, bool).view] * len(images))  # one memory for all
        aligned = mode is True or (mode == "auto" and moves)
        clipped = LazySlices([partial(_clipped, images, index) for index in range(len(images))])
        if aligned:
            clipped = align_clipped(images, alignment)
            images, covered = align(images, alignment)
        elif moves and mode is False:
            notes.append(
                f"slices move by up to {alignment.motion_px.max():.2g} px and were not aligned (align.mode=false)"
            )
        gains = np.ones((len(images), 3))
        if exposure:
            gains = exposure_gains(images, alignment.reference, covered)
            if (gains != 1).any():
                images = LazySlices([partial(_apply_gain, images, index, gain) for index, gain in enumerate(gains)])
        return cls(images, covered, clipped, alignment, aligned, gains, notes)


def _clipped(images: Sequence[np.ndarray], index: int) -> np.ndarray:
    return clipped_pixels(images[index])


def _apply_gain(images: Sequence[np.ndarray], index: int, gain: np.ndarray) -> np.ndarray:
    return apply_gain(images[index], gain)


def _uncertainty(photographs: Photographs) -> list[str]:
    """What the uncertainty of the focus distances means for depth, in words."""
    std = photographs.focus_std_dpt
    if std is None or not any(std):
        return []
    typical = float(np.median(std))
    return [
        f"focus distances are known to {typical:.2g} dioptres (standard deviation): a depth of 1 m is uncertain by "
        f"{typical:.2g} m for that alone, one of 3 m by {9 * typical:.2g} m"
    ]


def _distances(photographs: Photographs) -> tuple[tuple[float, ...], float, float]:
    """Focus distances and depth range in metres; without distances, equal steps of inverse distance in an arbitrary unit:
    all that an order says."""
    focus = photographs.focus_distances_m
    if focus is not None:
        focal = photographs.camera["focal_length_m"] or 0.0
        return tuple(focus), *depth_range_m(focus, focal, photographs.near_m, photographs.far_m)
    places = _places(photographs)
    step = 0.8 / ((photographs.whole or len(places)) - 1)
    focus = focus_of_places(photographs)
    first, last = 1 - step * min(places), 1 - step * max(places)
    return focus, 1 / (first + 0.5 * step), 1 / max(last - 0.5 * step, 0.05)


def focus_of_places(photographs: Photographs) -> tuple[float, ...]:
    """Focus distances, or the stand-ins for them where none is known: slices that were left out keep their place in the
    order of the whole stack."""
    if photographs.focus_distances_m is not None:
        return photographs.focus_distances_m
    places = _places(photographs)
    step = 0.8 / ((photographs.whole or len(places)) - 1)
    return tuple(1 / (1 - step * place) for place in places)


def _places(photographs: Photographs) -> Sequence[int]:
    return range(len(photographs.images)) if photographs.places is None else photographs.places


def _check_blur(camera: Camera, focus: Sequence[float], near_m: float, far_m: float, size: tuple[int, int]) -> None:
    distances = torch.tensor([near_m, far_m])[:, None]
    radius = float(camera.blur_radius_px(distances, torch.tensor(focus)).max())
    if radius > 0.5 * max(size):
        raise InputError(
            f"the blur radius would reach {radius:.4g} pixels in an image of {size[1]} x {size[0]}; check the units "
            f"(metres) of camera {camera.as_dict()} and focus_distances_m"
        )


def _blur_scale(
    registered: _Registered,
    focus: Sequence[float],
    range_m: tuple[float, float],
    renderer: Renderer,
    focal_length_m: float | None,
    working_px: int,
    focus_std_dpt: Sequence[float] | None,
    steps: int,
    patches: int = 8,
) -> BlurScale:
    """k of the full images, estimated at the working size where every slice shows something."""
    height, width = registered.covered.shape
    size = working_size(height, width, working_px)
    found = estimate_blur_scale(
        torch.stack([to_float(reduced(image, size)) for image in registered.images]),
        torch.tensor(focus, dtype=torch.float32),
        *range_m,
        renderer,
        focal_length_m=focal_length_m,
        covered=torch.stack([torch.from_numpy(reduced(one.astype(np.float32), size)) for one in registered.covered]),
        steps=steps,
        patches=patches,
    )
    factor = math.sqrt(size[0] * size[1] / (height * width))
    std = math.inf
    if len(focus) > 2 and steps:
        std = math.hypot(found.relative_std, scale_std(focus, focus_std_dpt))
    return BlurScale(found.value_px_m / factor, std, tuple(value / factor for value in found.patches_px_m))


CAMERA_WORDS = {"focal_length_m": "focal length", "f_number": "f-number", "pixel_pitch_m": "pixel pitch"}


def _by_exif(photographs: Photographs) -> list[str]:
    """Return which of the camera's values come from EXIF."""
    return [key for key in photographs.camera if photographs.sources.get(key, "").startswith("EXIF")]


def _contradiction(known_px_m: float, found: BlurScale, sources: Mapping[str, str]) -> list[str]:
    """Say whose k was used where those of the camera and of the stack differ by more than both can err."""
    if not abs(math.log(found.value_px_m / known_px_m)) > 2 * found.relative_std + ROUGHLY:
        return []
    said_by: dict[str, list[str]] = {}
    for key, words in CAMERA_WORDS.items():
        said_by.setdefault(sources.get(key, "an unknown source").split(",")[0], []).append(words)
    if len(said_by) == 1:
        (origin,) = said_by
        subject, owner, verb = origin, f"{origin}'s", "means"
    else:
        subject = ", ".join(f"{' and '.join(words)} from {origin}" for origin, words in said_by.items())
        owner, verb = "that of the camera", "mean"
    doubted = [CAMERA_WORDS[key] for key in CAMERA_WORDS if sources.get(key, "").startswith("EXIF")]
    cause = "A wrong pixel pitch" if "pixel pitch" in doubted else f"A wrong {' or '.join(doubted)}"
    remedy = "give camera.pixel_pitch_m, or" if "pixel pitch" in doubted else "check the camera's values, or"
    return [
        f"{subject} {verb} a blur scale of k = f^2/(2 N p) = {known_px_m:.3g} px m, but the stack looks like "
        f"{found.value_px_m:.3g} (+- {100 * found.relative_std:.2g} %); {owner} was used. {cause}, or focus distances that "
        f"are nominal, do that: {remedy} have k fitted (refine.fit=[k])"
    ]


def reduced_clipped(clipped: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H,W,3) bool at another (height, width): where any of the averaged pixels is clipped, the average is too small."""
    if clipped.shape[:2] == size or not clipped.any():
        return clipped if clipped.shape[:2] == size else np.zeros((*size, 3), bool)
    return cv2.resize(clipped.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_AREA) > 0


def reduced(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image or a map at another (height, width), averaged over areas; itself where it has that size."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
