"""Align the slices of a stack: handheld shift, focus breathing, and the distortion that changes with focus.

Focusing moves the lens and so changes the field of view ("breathing"): a scale about the image centre. Hands add a shift.
The distortion of the lens changes, too: on three phones the corners lag behind that scale by a third to a half of it
(docs/howto/predict_photographs.md), and depth bends into a bowl if that is taken for blur.

Slices that are neighbours in focus are blurred alike, so they are registered pairwise
(:mod:`sfdfd.photographs.registration`), and the motions are chained to a reference slice. Blur that varies over the image
resembles a small motion; a motion that explains too little of the difference between two slices, or only a few edges of
it, is rejected. Clipped pixels and dust on the sensor are masked (:mod:`sfdfd.photographs.registration_masks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from sfdfd.errors import InputError, checked_choice
from sfdfd.io.threads import in_threads
from sfdfd.measures.exposure import clipped_pixels
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.registration import LEAST_GAIN_OTHERS, Motion, register, residual_px, warped
from sfdfd.photographs.registration_masks import Gray, both_usable, gray_of
from sfdfd.photographs.warping import displacement, magnification, max_displacement, resample, warp

__all__ = ["AlignSettings", "Alignment", "align_clipped", "align_slices", "estimate_alignment"]

Array = np.ndarray
WORKING_PX = 1024
"""Longer side of the images that motion is estimated on."""
MOTION_LIMIT_PX = 0.5
"""Estimated motion from which a stack is aligned in mode "auto"."""
MODELS = ("radial", "scale_shift", "affine", "homography")


@dataclass(frozen=True)
class AlignSettings:
    """How photographs are registered: the keys under ``align`` of ``python -m sfdfd.predict``.

    Attributes:
        mode: True, False, or "auto": where slices move by more than half a pixel.
        model: "radial", "scale_shift", "affine" or "homography".
        exposure: even out exposure and white balance.
        save, load: a JSON file to write the alignment to, or to take it from; read by the command alone.
        only: write the aligned slices and end; read by the command alone.

    Raises:
        InputError: ``only`` is no boolean, or ``load`` contradicts ``mode``.

    Examples:
        >>> AlignSettings(mode=False).exposure
        True
    """

    mode: Any = "auto"  # a command line can hold anything; values are checked where they are used
    model: Any = "radial"
    exposure: Any = True
    save: Any = None
    load: Any = None
    only: Any = False

    def __post_init__(self) -> None:
        checked_choice(self.only, "align.only", (True, False))
        if self.mode is False and self.load is not None:
            raise InputError("align.load gives an alignment and align.mode=false wants none; give one of them")


@dataclass(frozen=True)
class Alignment:
    """The motion of each slice against the reference slice.

    Attributes:
        reference: index of the reference slice.
        matrices: (S,3,3) homogeneous; pixel (x, y, 1) of the reference -> pixel of the slice.
        radial: (S,) third-order distortion against the reference, applied before the matrix: a pixel at r half diagonals
            from the image centre moves outwards by ``radial * r^2`` of its distance.
        shift_px: (S,2) horizontal and vertical shift of the image centre in pixels.
        scale: (S,) magnification against the reference, at the centre.
        motion_px: (S,) largest displacement of an image corner, or halfway to it, in pixels.
        residual_px: (S,) displacement against the next slice towards the reference after alignment (median over tiles, by
            phase correlation), in pixels; 0 for the reference; NaN if nothing could be measured.
        notes: failed registrations, in words.
    """

    reference: int
    matrices: Array
    radial: Array
    shift_px: Array
    scale: Array
    motion_px: Array
    residual_px: Array
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        reference: int,
        matrices: Array,
        radial: Array,
        residual_px: Array,
        size: tuple[int, int],
        notes: Sequence[str] = (),
    ) -> Alignment:
        """Build an alignment of images of this (height, width) from its matrices and distortions."""
        height, width = size
        center = np.array([[(width - 1) / 2], [(height - 1) / 2], [1.0]])
        return cls(
            reference=reference,
            matrices=matrices,
            radial=radial,
            shift_px=np.stack([displacement(matrix, center)[:, 0] for matrix in matrices]),
            scale=np.array([magnification(matrix) for matrix in matrices]),
            motion_px=np.array([max_displacement(m, k, *size) for m, k in zip(matrices, radial.tolist(), strict=True)]),
            residual_px=residual_px,
            notes=tuple(notes),
        )

    @property
    def has_motion(self) -> bool:
        """Whether a slice moves by more than :data:`MOTION_LIMIT_PX`."""
        return bool(self.motion_px.max() > MOTION_LIMIT_PX)

    def is_applied(self, mode: bool | str) -> bool:
        """Whether the slices are aligned in a mode of :class:`AlignSettings`."""
        return mode is True or (mode == "auto" and self.has_motion)

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain numbers per slice, for JSON and tables."""
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

    def warps(self) -> list[tuple[Array, float] | None]:
        """Return the matrix and the distortion of each slice; None if the slice does not move."""
        result: list[tuple[Array, float] | None] = []
        for index, (matrix, radial) in enumerate(zip(self.matrices, self.radial.tolist(), strict=True)):
            is_still = index == self.reference or (np.allclose(matrix, np.eye(3)) and not radial)
            result.append(None if is_still else (matrix, radial))
        return result


def estimate_alignment(
    images: Sequence[Array], focus_distances_m: Sequence[float] | None = None, model: str = "radial"
) -> Alignment:
    """Estimate the motion of each slice against the reference, the middle slice in order of focus.

    Args:
        images: two or more (H,W,3) arrays of one size, uint8, uint16 or float in [0, 1].
        focus_distances_m: gives the order of the chain; None takes the order of the slices.
        model: "radial" (scale about a centre, translation, and the distortion that changes with focus, if it is
            measurable), "scale_shift" (without distortion), "affine" or "homography".

    Returns:
        The alignment; a pair that cannot be registered keeps the identity and is noted.

    Raises:
        InputError: an unknown model.
    """
    if model not in MODELS:
        raise InputError(f"align.model: expected one of {', '.join(MODELS)}, got {model!r}")
    height, width = images[0].shape[:2]
    factor = min(1.0, WORKING_PX / max(height, width))
    grays = in_threads(lambda index: gray_of(images[index], factor), range(len(images)))
    reference, pairs = _chain_of_pairs(len(images), focus_distances_m)
    motions = register([(grays[near], grays[far]) for near, far in pairs], model)
    matrices, radial = _chain_motions(pairs, motions, len(images))
    residuals = _residuals_px(grays, matrices, radial, pairs) / factor
    zoom = np.diag([grays[0].image.shape[1] / width, grays[0].image.shape[0] / height, 1.0])
    matrices = np.linalg.inv(zoom) @ matrices @ zoom
    return Alignment.of(reference, matrices, radial, residuals, (height, width), _failure_notes(pairs, motions, grays))


def _chain_of_pairs(number: int, focus_distances_m: Sequence[float] | None) -> tuple[int, list[tuple[int, int]]]:
    """Return the reference and the pairs of neighbours from it outwards, the one nearer to the reference first."""
    order = list(range(number))
    if focus_distances_m is not None:
        order.sort(key=lambda i: 1 / focus_distances_m[i])
    middle = number // 2
    return order[middle], [pair for steps in (order[middle::-1], order[middle:]) for pair in pairwise(steps)]


def _chain_motions(pairs: Sequence[tuple[int, int]], motions: Sequence[Motion], number: int) -> tuple[Array, Array]:
    """Chain the motions of pairs: matrices (S,3,3) and distortions (S,) against the reference."""
    matrices, radial = np.tile(np.eye(3), (number, 1, 1)), np.zeros(number)
    any_certain = any(motion.is_certain for motion in motions)
    for (near, far), motion in zip(pairs, motions, strict=True):
        accepted = any_certain and motion.is_plausible(LEAST_GAIN_OTHERS)
        matrices[far] = motion.matrix @ matrices[near] if accepted else matrices[near]
        radial[far] = radial[near] + (motion.radial if accepted else 0.0)  # to first order
    return matrices, radial


def _residuals_px(grays: Sequence[Gray], matrices: Array, radial: Array, pairs: Sequence[tuple[int, int]]) -> Array:
    """Return (S,) the displacements left between aligned neighbours, in pixels of ``grays``."""
    aligned = in_threads(lambda gray, m, k: warped(gray, Motion(m, k)), grays, matrices, radial.tolist())
    residuals = np.zeros(len(grays))
    residuals[[far for _, far in pairs]] = in_threads(lambda pair: residual_px(*(aligned[i] for i in pair)), pairs)
    return residuals


def _failure_notes(pairs: Sequence[tuple[int, int]], motions: Sequence[Motion], grays: Sequence[Gray]) -> list[str]:
    notes = []
    for (near, far), motion in zip(pairs, motions, strict=True):
        if motion.gain is not None:
            continue
        usable = both_usable(grays[near].usable, grays[far].usable)
        share = 1.0 if usable is None else usable.mean()
        reason = "" if share > 0.5 else f" ({1 - share:.0%} of the two are clipped)"
        notes.append(f"slice {far} could not be registered against slice {near}{reason}; it is taken as it lies")
    return notes


def align_slices(images: Sequence[Array], alignment: Alignment) -> tuple[LazySlices, LazySlices]:
    """Resample every slice on the canvas of the reference, on access.

    Returns:
        The slices, of their type, with edges repeated; and (H,W) bool each, the pixels that a slice covers.
    """
    height, width = images.shape[:2] if isinstance(images, LazySlices) else images[0].shape[:2]
    warps = alignment.warps()
    aligned = LazySlices([partial(_aligned_slice, images, index, motion) for index, motion in enumerate(warps)])
    return aligned, LazySlices([partial(_covered_pixels, motion, (height, width)) for motion in warps])


def align_clipped(images: Sequence[Array], alignment: Alignment) -> LazySlices:
    """Return (H,W,3) bool per slice, made on access: the pixels that interpolate a clipped one, on the reference's canvas.

    Args:
        images: the slices as they were photographed: resampling brings clipped values below white.
        alignment: of them.
    """
    return LazySlices(
        [partial(_aligned_clipped, images, index, motion) for index, motion in enumerate(alignment.warps())]
    )


def _aligned_slice(images: Sequence[Array], index: int, motion: tuple[Array, float] | None) -> Array:
    return images[index] if motion is None else warp(images[index], *motion)


def _covered_pixels(motion: tuple[Array, float] | None, size: tuple[int, int]) -> Array:
    if motion is None:
        return np.ones(size, bool)
    return resample(np.ones(size, np.uint8), *motion, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0


def _aligned_clipped(images: Sequence[Array], index: int, motion: tuple[Array, float] | None) -> Array:
    clipped = clipped_pixels(images[index])
    if motion is None or not clipped.any():
        return clipped
    grown = cv2.dilate(clipped.astype(np.uint8), np.ones((3, 3), np.uint8))  # the support of bicubic interpolation
    return resample(grown, *motion, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE) > 0
