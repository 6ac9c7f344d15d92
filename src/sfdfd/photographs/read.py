"""Read the photographs of one stack with everything that is known about their camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.io.depth_range import depth_range_m
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.files import readable
from sfdfd.io.images import read_npy, read_photograph, to_float
from sfdfd.io.stack_yaml import STACK_KEYS, StackDescription, refuse_unknown_keys
from sfdfd.optics.camera import Camera
from sfdfd.photographs.camera_values import CameraValue, CameraValues, collect_camera
from sfdfd.photographs.focus_distances import FocusDistances, focus_distances, focus_distances_remedy
from sfdfd.photographs.holdout import parse_holdout, remaining
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.slice_files import ReadSlices, read_slices
from sfdfd.photographs.slice_selection import count_to_use, select_slices

__all__ = ["STACK_KEYS", "Photographs", "read_photographs"]

TRUTH_KEYS = ("depth_m", "aif")


@dataclass(frozen=True)
class Photographs:
    """A stack as it was photographed.

    Attributes:
        name: of the stack.
        files: the slices, in the order of everything else.
        images: one (H,W,3) uint8, uint16 or float32 each, all of one size; perhaps read on access.
        camera: focal_length_m, f_number, pixel_pitch_m, each None if unknown; f_number is a tuple, one per slice, where the
            slices differ in aperture.
        focus_distances_m: in metres, inf is possible; None if unknown.
        focus_std_dpt: standard deviation of each inverse focus distance in dioptres, if known.
        near_m, far_m: depth range if it is given, else None.
        sources: key -> where its value comes from, in words.
        missing: unknown key -> how to give it.
        depth_m, aif: (H,W) float32 metres (0 unknown) and (H,W,3) like the images, if ``stack.yaml`` names the truth.
        optics: the ``optics`` of ``stack.yaml``: how the photographs are blurred.
        left_out: indices of the slices that ``holdout`` names; ``camera`` does not depend on them.
        unselected: indices of the other slices that ``slices`` drops; ``camera`` does not depend on them either.
        notes: findings while reading, in words.
        original_indices: index of each slice in the whole stack, if these are not all of its slices; ``original_count`` is
            then the number of its slices.
        principal_point_px: (x, y) where the optical axis meets the images, from the corner of the first pixel; None for
            their middle.
        facts: EXIF and the like of each file; empty if there are no files.
        uncropped: height and width before the crop.
        side: "behind" or "before": the side of the focus distance, for slices that differ in aperture alone; None if it is
            not given.
    """

    name: str
    files: tuple[Path, ...]
    images: Sequence[np.ndarray]
    camera: Mapping[str, CameraValue]
    focus_distances_m: tuple[float, ...] | None
    near_m: float | None = None
    far_m: float | None = None
    sources: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    depth_m: np.ndarray | None = None
    aif: np.ndarray | None = None
    optics: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()
    original_indices: tuple[int, ...] | None = None
    original_count: int | None = None
    focus_std_dpt: tuple[float, ...] | None = None
    unselected: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    principal_point_px: tuple[float, float] | None = None
    facts: tuple[PhotoFacts, ...] = ()
    uncropped: tuple[int, int] | None = None
    side: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        images = self.images
        height, width = (images.shape if isinstance(images, LazySlices) else images[0].shape)[:2]
        return height, width

    @property
    def indices(self) -> Sequence[int]:
        """The index of each slice in the whole stack."""
        return range(len(self.images)) if self.original_indices is None else self.original_indices

    @property
    def nominal_focus_distances_m(self) -> tuple[float, ...]:
        """Focus distances in metres; if unknown, equal steps of inverse distance in the order of the whole stack."""
        if self.focus_distances_m is not None:
            return self.focus_distances_m
        return tuple(1 / (1 - self._nominal_step * index) for index in self.indices)

    @property
    def nominal_depth_range_m(self) -> tuple[float, float]:
        """Nearest and farthest depth in the unit of :attr:`nominal_focus_distances_m`."""
        if self.focus_distances_m is not None:
            return depth_range_m(
                self.focus_distances_m,
                self.focal_length_m or 0.0,
                self.near_m,
                self.far_m,
                of_bracket=self.f_numbers is not None,
                side=self.side,
            )
        step = self._nominal_step
        first, last = 1 - step * min(self.indices), 1 - step * max(self.indices)
        return 1 / (first + 0.5 * step), 1 / max(last - 0.5 * step, 0.05)

    @property
    def focal_length_m(self) -> float | None:
        """Focal length in metres; None if unknown."""
        value = self.camera["focal_length_m"]
        return None if value is None or isinstance(value, tuple) else value

    @property
    def f_numbers(self) -> tuple[float, ...] | None:
        """The f-number of each slice, where they differ."""
        value = self.camera["f_number"]
        return value if isinstance(value, tuple) else None

    def camera_of_slice(self, index: int) -> dict[str, float | None]:
        """Return the camera of one slice."""
        return {key: value[index] if isinstance(value, tuple) else value for key, value in self.camera.items()}

    @property
    def assumed_side(self) -> str | None:
        """The side of focus ("behind" or "before") that depth is confined to; None where the stack tells it.

        Slices that differ in aperture alone do not.
        """
        focus = self.focus_distances_m
        if focus is None or self.f_numbers is None or len(set(focus)) > 1:
            return None
        return "before" if self.nominal_depth_range_m[1] <= focus[0] else "behind"

    @property
    def _nominal_step(self) -> float:
        return 0.8 / ((self.original_count or len(self.indices)) - 1)

    def known_camera(self) -> Camera | None:
        """Return the camera if all of it is known."""
        known: dict[str, Any] = {key: value for key, value in self.camera.items() if value is not None}
        return Camera(**known) if len(known) == len(self.camera) else None

    def as_tensor(self) -> Tensor:
        """Return (S,3,H,W) float32 in [0, 1]."""
        return torch.stack([to_float(image) for image in self.images])

    def with_images(self, images: Sequence[np.ndarray]) -> Photographs:
        """Return the same with other images (aligned, for example)."""
        return replace(self, images=images)

    def split_left_out(self) -> tuple[Photographs, Photographs]:
        """Split into the slices to predict from, and those to score: the left-out ones, else the unselected ones."""
        kept = remaining((*self.left_out, *self.unselected), len(self.images))
        return self.with_slices(kept), self.with_slices(self.left_out or self.unselected)

    def with_slices(self, indices: Sequence[int]) -> Photographs:
        """Return these slices alone, in this order; they keep their indices in the whole stack."""
        images, focus, std = self.images, self.focus_distances_m, self.focus_std_dpt
        numbers = self.f_numbers
        camera = {**self.camera, **({} if numbers is None else {"f_number": _shared([numbers[i] for i in indices])})}
        return replace(
            self,
            files=tuple(self.files[i] for i in indices),
            camera=camera,
            images=images.select(indices) if isinstance(images, LazySlices) else tuple(images[i] for i in indices),
            focus_distances_m=None if focus is None else tuple(focus[i] for i in indices),
            focus_std_dpt=None if std is None else tuple(std[i] for i in indices),
            facts=tuple(self.facts[i] for i in indices) if self.facts else (),
            left_out=(),
            unselected=(),
            original_indices=tuple(self.indices[i] for i in indices),
            original_count=self.original_count or len(self.images),
        )


def read_photographs(
    folder: str | Path, overrides: Mapping[str, Any] | None = None, holdout: Any = None, slices: Any = "all"
) -> Photographs:
    """Read the photographs of one stack and everything that is known about them.

    The camera comes from the command line (``overrides``), ``stack.yaml``, EXIF (focal length, f-number, and the pixel pitch
    by :mod:`sfdfd.io.pixel_pitch`) or the file names; focus distances from
    :data:`sfdfd.photographs.focus_distances.SOURCES`. The first source that knows a value gives it. Unknown values are None.

    Args:
        folder: slices (:func:`sfdfd.io.images.read_photograph`), or a video or a folder with one
            (:mod:`sfdfd.io.formats.video`), perhaps with a ``stack.yaml`` with the keys camera (focal_length_m, f_number,
            pixel_pitch_m of the images in the folder; f_number is one number or one per slice), focus_distances_m (one per
            slice in the order of the sorted file names, or of ``files``; ``.inf`` is allowed), near_m, far_m, files, crop
            ([left, top, right, bottom] pixels cut off), focus_distance_unit_m (factor of distances without a unit of their
            own), focus_unit ("metre", or "dioptre": 1/m, 0 is infinity), focus_distances_std (their standard deviation in
            the same unit: one number or one per slice), side ("behind" or "before" the focus distance: where the scene lies
            if slices differ in aperture alone), frames (of a video: which, or how many), principal_point_px ([x, y] of the
            images in the folder, from the corner of the first pixel; only in ``stack.yaml``), optics (psf, linear_light,
            weighting, sigma_scale: how the photographs are blurred).
        overrides: the same keys; those that are not None take precedence.
        holdout: the slices to leave out, see :func:`sfdfd.photographs.holdout.parse_holdout`; their EXIF is not used.
        slices: how many are used, see :func:`sfdfd.photographs.slice_selection.count_to_use`.

    Raises:
        InputError: naming the file or key and what was expected; also if the EXIF of the photographs disagree.
    """
    description = StackDescription.read(Path(folder), overrides)
    parse_holdout(holdout, len(description.files))  # reports wrong numbers before any pixel is read
    count = count_to_use(slices, len(description.files))
    reading = read_slices(description, measure_sharpness=count < len(description.files))
    description = reading.description
    focus = focus_distances(description, reading.facts)
    selection = _Selection.of(reading, None if focus is None else focus.values_m, holdout, count)
    camera = collect_camera(description, reading.facts, selection.kept)
    if focus is None and isinstance(camera.values["f_number"], tuple):
        _refuse_bracket_without_focus(camera.values["f_number"], description, reading.facts)
    sources = {**camera.sources, **description.range_origins}
    if focus is not None:
        sources["focus_distances_m"] = focus.origin + description.unit_in_words
        _refuse_focus_inside_focal_length(focus, camera)
    return Photographs(
        name=_name_of(description),
        files=tuple(description.files),
        images=reading.images,
        camera=camera.values,
        focus_distances_m=None if focus is None else focus.values_m,
        focus_std_dpt=None if focus is None else focus.std_dpt,
        near_m=description.near_m,
        far_m=description.far_m,
        **_read_truth(description, reading.size, reading.part),
        sources=sources,
        missing=_remedies(camera, focus, reading),
        optics=description.optics,
        left_out=selection.left_out,
        unselected=selection.unselected,
        notes=(*reading.notes, *selection.notes(slices), *camera.notes, *(() if focus is None else focus.notes)),
        principal_point_px=_principal_point_px(description, reading.size, reading.part),
        facts=tuple(reading.facts),
        uncropped=reading.size,
        side=description.side,
    )


def _shared(f_numbers: Sequence[float]) -> CameraValue:
    """Return f-numbers as a tuple; equal ones as one number."""
    return f_numbers[0] if len(set(f_numbers)) == 1 else tuple(f_numbers)


def _refuse_bracket_without_focus(
    f_numbers: Sequence[float], description: StackDescription, facts: Sequence[PhotoFacts]
) -> None:
    raise InputError(
        f"the photographs differ in aperture (f/{min(f_numbers):g} to f/{max(f_numbers):g}), and their focus distances are "
        f"not known. Give one per slice, equal ones where only the aperture changed: "
        f"{focus_distances_remedy(description, facts)}; or camera.f_number=N if the aperture did not change"
    )


@dataclass(frozen=True)
class _Selection:
    """The slices of a stack by their use, as indices: used, left out (``holdout``), or not selected (``slices``)."""

    kept: tuple[int, ...]
    left_out: tuple[int, ...]
    unselected: tuple[int, ...]

    @classmethod
    def of(cls, reading: ReadSlices, focus_m: Sequence[float] | None, holdout: Any, count: int) -> _Selection:
        number = len(reading.facts)
        left_out = parse_holdout(holdout, number, focus_m)
        candidates = remaining(left_out, number)
        kept = select_slices(candidates, count, reading.sharpness.__getitem__, focus_m)
        return cls(kept, left_out, tuple(index for index in candidates if index not in kept))

    def notes(self, slices: Any) -> list[str]:
        """Say which slices are used, unless all of them are; ``slices`` is the setting that caused it."""
        if not self.unselected:
            return []
        number = len(self.kept) + len(self.left_out) + len(self.unselected)
        indices = ", ".join(str(index) for index in self.kept)
        return [
            f"{len(self.kept)} of {number} slices are used, in equal steps of sharpness (slices={slices}): {indices}"
        ]


def _refuse_focus_inside_focal_length(focus: FocusDistances, camera: CameraValues) -> None:
    focal_m = camera.values["focal_length_m"]
    if isinstance(focal_m, float) and min(focus.values_m) <= focal_m:
        raise InputError(
            f"{focus.origin}: focus distance {min(focus.values_m):.6g} m lies inside the focal length {focal_m:.6g} m "
            f"(focus_distances_m; camera.focal_length_m from {camera.sources['focal_length_m']})"
        )


def _remedies(camera: CameraValues, focus: FocusDistances | None, reading: ReadSlices) -> dict[str, str]:
    """Return how to give each value that is unknown."""
    missing = {
        f"camera.{key}": f"camera.{key}=NUMBER, or camera: {{{key}: NUMBER}} in stack.yaml"
        for key, value in camera.values.items()
        if value is None
    }
    if focus is None:
        missing["focus_distances_m"] = focus_distances_remedy(reading.description, reading.facts)
    return missing


def _name_of(description: StackDescription) -> str:
    file = description.video or description.pages
    return readable(description.folder.resolve().name if file is None else file.stem)


def _principal_point_px(
    description: StackDescription, size: tuple[int, int], part: tuple[slice, slice]
) -> tuple[float, float] | None:
    """Return where the optical axis meets the cropped images; None for their middle."""
    rows, columns = part
    x, y = description.principal_point_px or (size[1] / 2, size[0] / 2)
    point = x - columns.start, y - rows.start
    middle = (columns.stop - columns.start) / 2, (rows.stop - rows.start) / 2
    return None if point == middle else point


def _read_truth(description: StackDescription, size: tuple[int, int], part: tuple[slice, slice]) -> dict[str, Any]:
    """Read the files that ``stack.yaml`` names under truth: ``depth_m`` (.npy, metres, 0 unknown) and ``aif`` (an image)."""
    truth, stack_yaml = description.truth, description.yaml
    if truth is None:
        return {}
    if not isinstance(truth, Mapping):
        raise InputError(f"{stack_yaml}: truth: expected depth_m and aif, got {truth!r}")
    refuse_unknown_keys(truth, TRUTH_KEYS, f"{stack_yaml}: truth")
    arrays = {}
    for key, name in truth.items():
        file = description.folder / str(name)
        if not file.is_file():
            raise InputError(f"{file}: named in truth of {stack_yaml}, but it does not exist")
        values = read_photograph(file)[0] if key == "aif" else read_npy(file, np.float32)
        if values.shape[:2] != size or values.ndim != (3 if key == "aif" else 2):
            raise InputError(f"{file}: shape {values.shape}, but the slices have {size[0]} x {size[1]} pixels")
        arrays[key] = np.ascontiguousarray(values[part])
    return arrays
