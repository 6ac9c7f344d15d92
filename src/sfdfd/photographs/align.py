"""Registration of the slices of a real stack: handheld shift, focus breathing.

Focusing moves the lens and so changes the field of view ("breathing"): a scale about the image centre; hands add a shift.
The lens' distortion changes with it: on three real phones the corners lag behind that scale by a third to a half of it
(docs/your_own_stack.md), and depth bends into a bowl where that is taken for blur.
Neighbouring slices (by focus distance) are blurred alike, so they are registered pairwise, by maximising the enhanced
correlation coefficient (Evangelidis and Psarakis, PAMI 2008; OpenCV), which exposure does not change, on smoothed images
from coarse to fine, and the motions are chained to a reference slice. Blur that differs from place to place looks like a
little motion; one that explains too little of the difference between the slices, or explains it at a few edges only, is
taken for none (:mod:`sfdfd.photographs.registration`). Clipped pixels and dust on the sensor have no say
(:mod:`sfdfd.photographs.registration_masks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from sfdfd.errors import InputError
from sfdfd.measures.exposure import clipped_pixels
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.registration import MOVED_TOO, Motion, register, residual_px, warped
from sfdfd.photographs.registration_masks import both, gray_of
from sfdfd.photographs.warping import drawn, motions, warp

__all__ = ["Alignment", "align", "align_clipped", "estimate_alignment", "motions"]

Array = np.ndarray
WORKING_PX = 1024
"""Longer side of the images that motion is estimated on."""
MODELS = ("radial", "scale_shift", "affine", "homography")


@dataclass(frozen=True)
class Alignment:
    """Where each slice sees what the reference slice sees.

    Attributes:
        reference: index of the reference slice.
        matrices: (S,3,3) homogeneous; pixel (x, y, 1) of the reference -> pixel of the slice.
        radial: (S,) third-order distortion against the reference: before the matrix, a pixel at r half diagonals from the
            image's centre is drawn away from it by ``radial * r^2`` of its distance.
        shift_px: (S,2) horizontal and vertical shift of the image centre in pixels.
        scale: (S,) magnification against the reference, at the centre.
        motion_px: (S,) largest displacement of an image corner, or halfway to it, in pixels.
        residual_px: (S,) displacement against the next slice towards the reference that is left after alignment (median
            over tiles, by phase correlation), in pixels; 0 for the reference; NaN where nothing could be measured.
        notes: what went wrong, in words.
    """

    reference: int
    matrices: Array
    radial: Array
    shift_px: Array
    scale: Array
    motion_px: Array
    residual_px: Array
    notes: tuple[str, ...] = ()

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain numbers per slice, for JSON and tables."""
        return {
            "reference": names[self.reference],
            "slices": [
                {
                    "file": name,
                    "shift_px": [round(float(v), 3) for v in self.shift_px[i]],
                    "scale": round(float(self.scale[i]), 6),
                    "radial": round(float(self.radial[i]), 6),
                    "motion_px": round(float(self.motion_px[i]), 3),
                    "residual_px": round(float(self.residual_px[i]), 3),
                }
                for i, name in enumerate(names)
            ],
            "notes": list(self.notes),
        }


def estimate_alignment(
    images: Sequence[Array], focus_distances_m: Sequence[float] | None = None, model: str = "radial"
) -> Alignment:
    """How each slice lies against the reference, the middle one in order of focus.

    Args:
        images: two or more (H,W,3) arrays of one size, uint8, uint16 or float in [0, 1].
        focus_distances_m: gives the order of the chain; None takes the slices as they come.
        model: "radial" (scale about a centre, translation, and the distortion that changes with focus, where it is seen),
            "scale_shift" (without it), "affine" or "homography".

    Returns:
        See :class:`Alignment`; a pair that cannot be registered keeps the identity and is noted.

    Raises:
        InputError: an unknown model.
    """
    if model not in MODELS:
        raise InputError(f"align.model: expected one of {', '.join(MODELS)}, got {model!r}")
    height, width = images[0].shape[:2]
    factor = min(1.0, WORKING_PX / max(height, width))
    grays = [gray_of(image, factor) for image in images]
    order = list(range(len(images)))
    if focus_distances_m is not None:
        order.sort(key=lambda i: 1 / focus_distances_m[i])
    middle = len(order) // 2
    reference = order[middle]
    zoom = np.diag([grays[0].image.shape[1] / width, grays[0].image.shape[0] / height, 1.0])
    matrices, radial = np.tile(np.eye(3), (len(images), 1, 1)), np.zeros(len(images))
    towards: dict[int, int] = {}
    notes = []
    pairs = [pair for steps in (order[middle::-1], order[middle:]) for pair in pairwise(steps)]
    registered = register([(grays[near], grays[far]) for near, far in pairs], model)  # near: nearer to the reference
    moved = any(motion.sure for motion in registered)
    for (near, far), motion in zip(pairs, registered, strict=True):
        if motion.gain is None:
            usable = both(grays[near].usable, grays[far].usable)
            why = "" if usable is None or usable.mean() > 0.5 else f" ({1 - usable.mean():.0%} of the two are clipped)"
            notes.append(f"slice {far} could not be registered against slice {near}{why}; it is taken as it lies")
        accepted = moved and motion.bears(MOVED_TOO)
        matrices[far] = motion.matrix @ matrices[near] if accepted else matrices[near]
        radial[far] = radial[near] + (motion.radial if accepted else 0.0)  # to first order
        towards[far] = near
    small = matrices.copy()
    matrices = np.linalg.inv(zoom) @ matrices @ zoom
    residual = np.zeros(len(images))
    placed = [warped(gray, Motion(*place)) for gray, *place in zip(grays, small, radial.tolist(), strict=True)]
    for index, neighbour in towards.items():
        residual[index] = residual_px(placed[neighbour], placed[index]) / factor
    return Alignment(
        reference=reference,
        matrices=matrices,
        radial=radial,
        **motions(matrices, radial, height, width),
        residual_px=residual,
        notes=tuple(notes),
    )


def align(images: Sequence[Array], alignment: Alignment) -> tuple[LazySlices, LazySlices]:
    """Every slice on the canvas of the reference, made when it is needed.

    Returns:
        The slices, of their type, edges repeated where a slice does not reach, and (H,W) bool each: where it does.
    """
    height, width = images.shape[:2] if isinstance(images, LazySlices) else images[0].shape[:2]
    size = height, width
    motion = _motions_of(alignment)
    aligned = LazySlices([partial(_moved, images, index, one) for index, one in enumerate(motion)])
    return aligned, LazySlices([partial(_reach, one, size) for one in motion])


def align_clipped(images: Sequence[Array], alignment: Alignment) -> LazySlices:
    """(H,W,3) bool each, where a slice on the canvas of the reference draws on a clipped pixel; made when needed.

    Args:
        images: the slices as they were photographed: resampling brings clipped values below white.
        alignment: of them.
    """
    return LazySlices([partial(_moved_clipped, images, index, one) for index, one in enumerate(_motions_of(alignment))])


def _moved_clipped(images: Sequence[Array], index: int, motion: tuple[Array, float] | None) -> Array:
    clipped = clipped_pixels(images[index])
    if motion is None or not clipped.any():
        return clipped
    grown = cv2.dilate(clipped.astype(np.uint8), np.ones((3, 3), np.uint8))  # bicubic weights reach that far
    return drawn(grown, *motion, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE) > 0


def _motions_of(alignment: Alignment) -> list[tuple[Array, float] | None]:
    """Matrix and distortion of each slice; None where it stays."""
    motion: list[tuple[Array, float] | None] = []
    for index, (matrix, radial) in enumerate(zip(alignment.matrices, alignment.radial.tolist(), strict=True)):
        lies = index == alignment.reference or (np.allclose(matrix, np.eye(3)) and not radial)
        motion.append(None if lies else (matrix, radial))
    return motion


def _moved(images: Sequence[Array], index: int, motion: tuple[Array, float] | None) -> Array:
    return images[index] if motion is None else warp(images[index], *motion)


def _reach(motion: tuple[Array, float] | None, size: tuple[int, int]) -> Array:
    """(H,W) bool, where a slice shows something."""
    if motion is None:
        return np.ones(size, bool)
    return drawn(np.ones(size, np.uint8), *motion, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0
