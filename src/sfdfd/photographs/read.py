"""Photographs of one stack as they were taken, and all that is known of their camera."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.files import readable
from sfdfd.io.images import read_npy, read_photograph, to_float
from sfdfd.io.stack_yaml import CAMERA_KEYS, PLAUSIBLE, STACK_KEYS, Description, checked_keys
from sfdfd.optics.camera import Camera
from sfdfd.photographs.file_names import focal_length_in_names
from sfdfd.photographs.focus_distances import focus_distances, how_to_give_distances
from sfdfd.photographs.holdout import parse_holdout, remaining
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.slice_files import read_slices
from sfdfd.photographs.slice_selection import informative, wanted_slices

__all__ = ["STACK_KEYS", "Photographs", "read_photographs"]

TRUTH_KEYS = ("depth_m", "aif")
AGREEMENT = 0.05
"""Share by which the EXIF of a stack's photographs may differ: lenses breathe, but a stack has one lens."""


@dataclass(frozen=True)
class Photographs:
    """A stack as it was photographed.

    Attributes:
        name: of the stack.
        files: the slices, in the order of everything else.
        images: one (H,W,3) uint8, uint16 or float32 each, all of one size; perhaps read when they are needed.
        camera: focal_length_m, f_number, pixel_pitch_m, each None where nothing says it.
        focus_distances_m: in metres, inf is possible; None where nothing says them.
        focus_std_dpt: standard deviation of each inverse focus distance in dioptres, where something says it.
        near_m, far_m: depth range where it is given, else None.
        sources: key -> where its value comes from, in words.
        missing: what nothing says, and how to give it.
        depth_m, aif: (H,W) float32 metres (0 unknown) and (H,W,3) like the images, where ``stack.yaml`` names the truth.
        optics: what ``stack.yaml`` says of how they are blurred.
        left_out: which of the slices are kept aside (``holdout``); nothing of them has entered ``camera``.
        passed_over: which of the others are not worked on (``slices``); nor do they say anything of the camera.
        notes: what was found out in reading, in words.
        places: the place of each slice in the order of the whole stack, and ``whole``, the number of its slices, where
            these are not all of them.
        principal_point_px: (x, y) where the optical axis meets the images, from the corner of the first pixel; None is
            their middle, where a crop has not moved it.
        facts: what each of the files says of itself; empty where there are no files.
        uncropped: height and width before the crop.
    """

    name: str
    files: tuple[Path, ...]
    images: Sequence[np.ndarray]
    camera: Mapping[str, float | None]
    focus_distances_m: tuple[float, ...] | None
    near_m: float | None = None
    far_m: float | None = None
    sources: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    depth_m: np.ndarray | None = None
    aif: np.ndarray | None = None
    optics: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()
    places: tuple[int, ...] | None = None
    whole: int | None = None
    focus_std_dpt: tuple[float, ...] | None = None
    passed_over: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    principal_point_px: tuple[float, float] | None = None
    facts: tuple[PhotoFacts, ...] = ()
    uncropped: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        images = self.images
        height, width = (images.shape if isinstance(images, LazySlices) else images[0].shape)[:2]
        return height, width

    def known_camera(self) -> Camera | None:
        """The camera, if all of it is known."""
        known = {key: value for key, value in self.camera.items() if value is not None}
        return Camera(**known) if len(known) == len(self.camera) else None

    def as_tensor(self) -> Tensor:
        """(S,3,H,W) float32 in [0, 1]."""
        return torch.stack([to_float(image) for image in self.images])

    def with_images(self, images: Sequence[np.ndarray]) -> Photographs:
        """The same with other images (aligned, for example)."""
        return replace(self, images=images)

    def parted(self) -> tuple[Photographs, Photographs]:
        """The slices to predict from, and those that judge: the ones kept aside, or where there are none, the ones passed
        over."""
        kept = remaining((*self.left_out, *self.passed_over), len(self.images))
        return self.with_slices(kept), self.with_slices(self.left_out or self.passed_over)

    def with_slices(self, indices: Sequence[int]) -> Photographs:
        """These slices alone, in this order; they know their places in the whole stack."""
        places = range(len(self.images)) if self.places is None else self.places
        images, focus, std = self.images, self.focus_distances_m, self.focus_std_dpt
        return replace(
            self,
            files=tuple(self.files[i] for i in indices),
            images=images.chosen(indices) if isinstance(images, LazySlices) else tuple(images[i] for i in indices),
            focus_distances_m=None if focus is None else tuple(focus[i] for i in indices),
            focus_std_dpt=None if std is None else tuple(std[i] for i in indices),
            facts=tuple(self.facts[i] for i in indices) if self.facts else (),
            left_out=(),
            passed_over=(),
            places=tuple(places[i] for i in indices),
            whole=self.whole or len(self.images),
        )


def read_photographs(
    folder: str | Path, overrides: Mapping[str, Any] | None = None, holdout: Any = None, slices: Any = "all"
) -> Photographs:
    """Read the photographs of one stack and whatever is known about them.

    The camera comes from the command line (``overrides``), ``stack.yaml``, EXIF (focal length, f-number, and the pixel pitch
    by :mod:`sfdfd.io.pixel_pitch`) or the file names; focus distances from the sources in the order of
    :data:`sfdfd.photographs.focus_distances.SOURCES`. The first that knows a value gives it. What none knows stays None.

    Args:
        folder: slices (:func:`sfdfd.io.images.read_photograph`), or a video or a folder with one
            (:mod:`sfdfd.io.formats.video`), perhaps with a ``stack.yaml`` with the keys camera (focal_length_m, f_number,
            pixel_pitch_m of the images as they lie in the folder), focus_distances_m (one per slice in the order of the
            sorted file names, or of ``files``; ``.inf`` is allowed), near_m, far_m, files, crop ([left, top, right,
            bottom] pixels cut off), focus_distance_unit_m (what distances without a unit of their own are multiplied by),
            focus_unit ("metre", or "dioptre": 1/m, 0 is infinity), focus_distances_std (their standard deviation in the same
            unit: one number or one per slice), frames (of a video: which, or how many),
            principal_point_px ([x, y] of the images as they lie in the folder, from the corner of the first pixel; only in
            ``stack.yaml``), optics (psf, linear_light, weighting, sigma_scale: how the photographs are blurred).
        overrides: the same keys; those that are not None take precedence.
        holdout: the slices to keep aside, see :func:`sfdfd.photographs.holdout.parse_holdout`; their EXIF is not read.
        slices: how many are worked on, see :func:`sfdfd.photographs.slice_selection.wanted_slices`.

    Raises:
        InputError: naming the file or key and what was expected; also where the EXIF of the photographs disagree.
    """
    said = Description.read(Path(folder), overrides)  # numbers before pixels: what is wrong with them is said at once
    parse_holdout(holdout, len(said.files))
    wanted = wanted_slices(slices, len(said.files))
    read = read_slices(said, judged=wanted < len(said.files))
    said, facts = read.said, read.facts
    focus = focus_distances(said, facts)
    focus_distances_m = None if focus is None else focus.values_m
    left_out = parse_holdout(holdout, len(said.files), focus_distances_m)
    rest = remaining(left_out, len(said.files))
    kept = _chosen(read.sharp, rest, focus_distances_m, wanted)
    if len(kept) < len(rest):
        numbers = ", ".join(str(index) for index in kept)
        read.notes.append(
            f"{len(kept)} of {len(said.files)} slices are worked on, in equal steps of what is sharp (slices={slices}): "
            + numbers
        )
    camera, camera_notes = _camera(said, [(said.files[i], facts[i]) for i in kept])
    read.notes.extend(camera_notes)
    sources = {**{key: origin for key, (_, origin) in camera.items()}, **said.range_origins}
    values = {key: camera[key][0] if key in camera else None for key in CAMERA_KEYS}
    missing = {
        f"camera.{key}": f"camera.{key}=NUMBER, or camera: {{{key}: NUMBER}} in stack.yaml"
        for key in CAMERA_KEYS
        if values[key] is None
    }
    if focus is None:
        missing["focus_distances_m"] = how_to_give_distances(said, facts)
    else:
        sources["focus_distances_m"] = focus.origin + said.unit_in_words
        read.notes.extend(focus.notes)
        if values["focal_length_m"] is not None and min(focus.values_m) <= values["focal_length_m"]:
            raise InputError(
                f"{focus.origin}: focus distance {min(focus.values_m):.6g} m lies inside the focal length "
                f"{values['focal_length_m']:.6g} m (focus_distances_m; camera.focal_length_m from "
                f"{sources['focal_length_m']})"
            )
    return Photographs(
        name=readable(said.folder.resolve().name if (one := said.video or said.pages) is None else one.stem),
        files=tuple(said.files),
        images=read.images,
        camera=values,
        focus_distances_m=focus_distances_m,
        focus_std_dpt=None if focus is None else focus.std_dpt,
        near_m=said.near_m,
        far_m=said.far_m,
        **_truth(said, read.size, read.part),
        sources=sources,
        missing=missing,
        optics=said.optics,
        left_out=left_out,
        passed_over=tuple(index for index in rest if index not in kept),
        notes=tuple(read.notes),
        principal_point_px=_principal_point(said, read.size, read.part),
        facts=tuple(facts),
        uncropped=read.size,
    )


def _principal_point(said: Description, size: tuple[int, int], part: tuple[slice, slice]) -> tuple[float, float] | None:
    """Where the optical axis meets what the crop leaves; None is its middle."""
    rows, columns = part
    x, y = said.principal_point_px or (size[1] / 2, size[0] / 2)
    point = x - columns.start, y - rows.start
    middle = (columns.stop - columns.start) / 2, (rows.stop - rows.start) / 2
    return None if point == middle else point


def _chosen(
    sharp: Sequence[np.ndarray], rest: Sequence[int], focus_distances_m: Sequence[float] | None, wanted: int
) -> tuple[int, ...]:
    """The slices that are worked on, of those that are not kept aside, ascending."""
    if wanted >= len(rest):
        return tuple(rest)
    order = list(rest)
    if focus_distances_m is not None:
        order.sort(key=lambda index: 1 / focus_distances_m[index])
    return tuple(sorted(order[place] for place in informative([sharp[index] for index in order], wanted)))


def _camera(
    said: Description, facts: Sequence[tuple[Path, PhotoFacts]]
) -> tuple[dict[str, tuple[float, str]], list[str]]:
    """Return what was said, and from EXIF what was not, as key -> (value, source); and notes.

    Raises:
        InputError: the photographs' EXIF disagree (a phone that switched lenses).
    """
    camera: dict[str, tuple[float, str]] = dict(said.camera)
    notes: list[str] = []
    for key in CAMERA_KEYS:
        known = [(value, file) for file, fact in facts if (value := getattr(fact, key))]
        origin = "EXIF"
        if key in camera:
            continue
        if key == "pixel_pitch_m":
            known, origin, notes = _pitches(facts)
        if not known:
            continue
        (least, first), (most, last) = (pick(known, key=lambda one: one[0]) for pick in (min, max))
        if most > (1 + AGREEMENT) * least:
            raise InputError(
                f"EXIF: {key} is {least:g} in {readable(first.name)} and {most:g} in {readable(last.name)}: these are not "
                f"photographs of one lens; leave the odd ones out (files), or give camera.{key}=NUMBER"
            )
        value = float(np.median([one for one, _ in known]))
        if PLAUSIBLE[key][0] <= value <= PLAUSIBLE[key][1]:
            camera[key] = value, origin
    if "focal_length_m" not in camera and (value := focal_length_in_names(said.files)) is not None:
        low, high = PLAUSIBLE["focal_length_m"]
        if low <= value <= high:
            camera["focal_length_m"] = value, "file names"
    return camera, notes


def _pitches(facts: Sequence[tuple[Path, PhotoFacts]]) -> tuple[list[tuple[float, Path]], str, list[str]]:
    """Return the pixel pitches that EXIF gives and that agree, where they come from, and notes.

    All slices have one size, so all of one lens have one pitch: what more than half of the photographs agree on is believed,
    and where no such majority is there, nothing.
    """
    notes = list(dict.fromkeys(fact.pixel_pitch_note for _, fact in facts if fact.pixel_pitch_note is not None))
    known = [(fact.pixel_pitch_m, file, fact.pixel_pitch_origin) for file, fact in facts if fact.pixel_pitch_m]
    if not known:
        return [], "EXIF", notes
    middle = sorted(pitch for pitch, *_ in known)[(len(known) - 1) // 2]
    near = math.sqrt(1 + AGREEMENT)
    agreeing = [one for one in known if middle / near <= one[0] <= middle * near]
    odd = [one for one in known if one not in agreeing]
    if odd:
        others = f"{1e6 * odd[0][0]:.3g} um in {readable(odd[0][1].name)}"
        most = f"{1e6 * middle:.3g} um in {len(agreeing)} of {len(known)} photographs"
        of_all = f"EXIF means a pixel pitch of {most}, {others}"
        if 2 * len(agreeing) <= len(known):
            remedy = "neither was used (camera.pixel_pitch_m=NUMBER gives it)"
            return [], "EXIF", [*notes, f"{of_all}: {remedy}"]
        notes.append(f"{of_all}: the majority's was used")
    origins = [origin for *_, origin in agreeing]
    return [(pitch, file) for pitch, file, _ in agreeing], max(set(origins), key=origins.count), notes


def _truth(said: Description, size: tuple[int, int], part: tuple[slice, slice]) -> dict[str, Any]:
    """The files that ``stack.yaml`` names under truth: ``depth_m`` (.npy, metres, 0 unknown) and ``aif`` (an image)."""
    named, described = said.truth, said.yaml
    if named is None:
        return {}
    if not isinstance(named, Mapping):
        raise InputError(f"{described}: truth: expected depth_m and aif, got {named!r}")
    checked_keys(named, TRUTH_KEYS, f"{described}: truth")
    found = {}
    for key, name in named.items():
        file = said.folder / str(name)
        if not file.is_file():
            raise InputError(f"{file}: named in truth of {described}, but not there")
        if key == "aif":
            values, _ = read_photograph(file)
        else:
            values = read_npy(file, np.float32)
        if values.shape[:2] != size or values.ndim != (3 if key == "aif" else 2):
            raise InputError(f"{file}: shape {values.shape}, but the slices have {size[0]} x {size[1]} pixels")
        found[key] = np.ascontiguousarray(values[part])
    return found
