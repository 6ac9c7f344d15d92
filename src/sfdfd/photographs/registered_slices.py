"""Bring the slices of a stack onto one canvas and to one exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sfdfd.errors import checked_choice
from sfdfd.measures.exposure import apply_gain, clipped_pixels, exposure_gains
from sfdfd.photographs.align import Alignment, AlignSettings, align_clipped, align_slices, estimate_alignment
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.slice_files import refuse_identical

__all__ = ["RegisteredSlices"]


@dataclass(frozen=True)
class RegisteredSlices:
    """Slices on one canvas, of one exposure; attributes as of :class:`sfdfd.photographs.capture.Capture`."""

    images: Sequence[np.ndarray]
    covered: LazySlices
    clipped: LazySlices
    alignment: Alignment
    aligned: bool
    gains: np.ndarray
    notes: list[str]

    @classmethod
    def of(
        cls, photographs: Photographs, settings: AlignSettings, alignment: Alignment | None = None
    ) -> RegisteredSlices:
        """Align photographs and even out their exposure; an alignment that is None is estimated.

        Raises:
            InputError: two photographs are identical, or a setting is wrong.
        """
        refuse_identical(photographs.images, photographs.files)
        checked_choice(settings.mode, "align.mode", (True, False, "auto"))
        images = photographs.images
        if alignment is None:
            alignment = estimate_alignment(images, photographs.focus_distances_m, settings.model)
        notes = list(alignment.notes)
        aligned = alignment.is_applied(settings.mode)
        if aligned:
            clipped = align_clipped(images, alignment)
            images, covered = align_slices(images, alignment)
        else:
            clipped = LazySlices([partial(_clipped_pixels, images, index) for index in range(len(images))])
            covered = LazySlices([np.ones(photographs.size, bool).view] * len(images))  # one array for all
            if settings.mode is False and alignment.has_motion:
                notes.append(
                    f"slices move by up to {alignment.motion_px.max():.2g} px and were not aligned (align.mode=false)"
                )
        gains = np.ones((len(images), 3))
        if settings.exposure:
            gains = exposure_gains(images, alignment.reference, covered)
            if (gains != 1).any():
                images = LazySlices([partial(_with_gain, images, index, gain) for index, gain in enumerate(gains)])
        return cls(images, covered, clipped, alignment, aligned, gains, notes)


def _clipped_pixels(images: Sequence[np.ndarray], index: int) -> np.ndarray:
    return clipped_pixels(images[index])


def _with_gain(images: Sequence[np.ndarray], index: int, gain: np.ndarray) -> np.ndarray:
    return apply_gain(images[index], gain)
