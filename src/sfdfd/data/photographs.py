"""Photographs of one stack as they were taken, and all that is known of their camera."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfdfd.data.description import CAMERA_KEYS, PLAUSIBLE, STACK_KEYS, Description, checked_keys
from sfdfd.data.files import readable
from sfdfd.data.holdout import held_out, remaining
from sfdfd.data.images import PhotoFacts, read_photograph, to_float
from sfdfd.data.names import ambiguous_distances, distances_in_names
from sfdfd.errors import InputError, checked_number
from sfdfd.optics.camera import Camera

__all__ = ["STACK_KEYS", "Photographs", "depth_range_m", "read_photographs"]

TRUTH_KEYS = ("depth_m", "aif")
AGREEMENT = 0.05
"""Share by which the EXIF of a stack's photographs may differ: lenses breathe, but a stack has one lens."""
NEAREST_M, FARTHEST_M = 1e-3, 100.0
"""A stack whose focus distances all lie below or beyond these is one in wrong units."""
PRACTICALLY_INFINITE_M = 1000.0


@dataclass(frozen=True)
class Photographs:
    """A stack as it was photographed.

    Attributes:
        name: of the stack.
        files: the slices, in the order of everything else.
        images: one (H,W,3) uint8, uint16 or float32 each, all of one size.
        camera: focal_length_m, f_number, pixel_pitch_m, each None where nothing says it.
        focus_distances_m: in metres, inf is possible; None where nothing says them.
        near_m, far_m: depth range where it is given, else None.
        sources: key -> where its value comes from, in words.
        missing: what nothing says, and how to give it.
        depth_m, aif: (H,W) float32 metres (0 unknown) and (H,W,3) like the images, where ``stack.yaml`` names the truth.
        optics: what ``stack.yaml`` says of how they are blurred.
        left_out: which of the slices are kept aside (``holdout``); nothing of them has entered ``camera``.
        places: the place of each slice in the order of the whole stack, and ``whole``, the number of its slices, where
            these are not all of them.
    """

    name: str
    files: tuple[Path, ...]
    images: tuple[np.ndarray, ...]
    camera: dict[str, float | None]
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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images[0].shape[:2]

    def known_camera(self) -> Camera | None:
        """The camera, if all of it is known."""
        return None if None in self.camera.values() else Camera(**self.camera)

    def as_tensor(self) -> Tensor:
        """(S,3,H,W) float32 in [0, 1]."""
        return torch.stack([to_float(image) for image in self.images])

    def with_images(self, images: Sequence[np.ndarray]) -> Photographs:
        """The same with other images (aligned, for example)."""
        return replace(self, images=tuple(images))

    def parted(self) -> tuple[Photographs, Photographs]:
        """The slices to predict from, and those that are kept aside."""
        return self.with_slices(remaining(self.left_out, len(self.images))), self.with_slices(self.left_out)

    def with_slices(self, indices: Sequence[int]) -> Photographs:
        """These slices alone, in this order; they know their places in the whole stack."""
        places = range(len(self.images)) if self.places is None else self.places
        focus = self.focus_distances_m
        return replace(
            self,
            files=tuple(self.files[i] for i in indices),
            images=tuple(self.images[i] for i in indices),
            focus_distances_m=None if focus is None else tuple(focus[i] for i in indices),
            left_out=(),
            places=tuple(places[i] for i in indices),
            whole=self.whole or len(self.images),
        )


def read_photographs(
    folder: str | Path, overrides: Mapping[str, Any] | None = None, holdout: Any = None
) -> Photographs:
    """Read the photographs of one stack and whatever is known about them.

    Camera and focus distances come from the command line (``overrides``), ``stack.yaml``, EXIF (focal length, f-number,
    35 mm equivalent or sensor resolution, subject distance), ``focus_distance.txt`` (one number a line), or the file
    names (:func:`sfdfd.data.names.distances_in_names`): for each the first that knows it. What none of them knows stays
    None.

    Args:
        folder: slices (PNG, JPEG, TIFF), perhaps with a ``stack.yaml`` with the keys camera (focal_length_m, f_number,
            pixel_pitch_m of the images as they lie in the folder), focus_distances_m (one per slice in the order of the
            sorted file names, or of ``files``; ``.inf`` is allowed), near_m, far_m, files, crop ([left, top, right,
            bottom] pixels cut off), focus_distance_unit_m (what distances without a unit of their own are multiplied by),
            optics (psf, linear_light, weighting, sigma_scale: how the photographs are blurred).
        overrides: the same keys; those that are not None take precedence.
        holdout: the slices to keep aside, see :func:`sfdfd.data.holdout.held_out`; their EXIF says nothing of the lens.

    Raises:
        InputError: naming the file or key and what was expected; also where the EXIF of the photographs disagree.
    """
    said = Description.read(Path(folder), overrides)  # numbers before pixels: what is wrong with them is said at once
    held_out(holdout, len(said.files))
    images, facts = _slices(said.files)
    focus = next((found for source in FOCUS_SOURCES if (found := source(said, facts)) is not None), None)
    focus_distances_m = None if focus is None else _checked_distances(*focus)
    left_out = held_out(holdout, len(said.files), focus_distances_m)
    kept = remaining(left_out, len(said.files))
    camera = _camera(said, [(said.files[i], facts[i]) for i in kept])
    sources = {**{key: origin for key, (_, origin) in camera.items()}, **said.range_origins}
    values = {key: camera[key][0] if key in camera else None for key in CAMERA_KEYS}
    missing = {
        f"camera.{key}": f"camera.{key}=NUMBER, or camera: {{{key}: NUMBER}} in stack.yaml"
        for key in CAMERA_KEYS
        if values[key] is None
    }
    if focus is None:
        missing["focus_distances_m"] = (ambiguous_distances(said.files) or "") + (
            "'focus_distances_m=[0.5,1,2]', stack.yaml, focus_distance.txt (one number a line), or file names such as "
            "0.5m.jpg"
        )
    else:
        origin = focus[1]
        sources["focus_distances_m"] = origin if said.unit_m is None else f"{origin} (unit {said.unit_m:g} m)"
        if values["focal_length_m"] is not None and min(focus_distances_m) <= values["focal_length_m"]:
            raise InputError(
                f"{origin}: focus distance {min(focus_distances_m):.6g} m lies inside the focal length "
                f"{values['focal_length_m']:.6g} m (focus_distances_m; camera.focal_length_m from "
                f"{sources['focal_length_m']})"
            )
    height, width = images[0].shape[:2]
    part = said.crop_of(height, width)
    return Photographs(
        name=readable(said.folder.resolve().name),
        files=tuple(said.files),
        images=tuple(np.ascontiguousarray(image[part]) for image in images),
        camera=values,
        focus_distances_m=focus_distances_m,
        near_m=said.near_m,
        far_m=said.far_m,
        **_truth(said, (height, width), part),
        sources=sources,
        missing=missing,
        optics=said.optics,
        left_out=left_out,
    )


def _slices(files: Sequence[Path]) -> tuple[list[np.ndarray], list[PhotoFacts]]:
    """The pixels and the EXIF of every file; all of one size."""
    images, facts = [], []
    for file in files:
        image, fact = read_photograph(file)
        images.append(image)
        facts.append(fact)
        if image.shape != images[0].shape:
            raise InputError(
                f"{file}: {image.shape[1]} x {image.shape[0]} pixels, but {files[0].name} has "
                f"{images[0].shape[1]} x {images[0].shape[0]}; all slices must have one size"
            )
    height, width = images[0].shape[:2]
    if min(height, width) < 16:
        raise InputError(f"{files[0]}: {width} x {height} pixels are too few; 16 x 16 are the least")
    return images, facts


def _camera(said: Description, facts: Sequence[tuple[Path, PhotoFacts]]) -> dict[str, tuple[float, str]]:
    """What was said, and from EXIF what was not.

    Raises:
        InputError: the photographs' EXIF disagree (a phone that switched lenses).
    """
    camera = dict(said.camera)
    for key in CAMERA_KEYS:
        known = [(value, file) for file, fact in facts if (value := getattr(fact, key))]
        if key in camera or not known:
            continue
        (least, first), (most, last) = (pick(known, key=lambda one: one[0]) for pick in (min, max))
        if most > (1 + AGREEMENT) * least:
            raise InputError(
                f"EXIF: {key} is {least:g} in {readable(first.name)} and {most:g} in {readable(last.name)}: these are not "
                f"photographs of one lens; leave the odd ones out (files), or give camera.{key}=NUMBER"
            )
        value = float(np.median([one for one, _ in known]))
        if PLAUSIBLE[key][0] <= value <= PLAUSIBLE[key][1]:
            camera[key] = value, "EXIF"
    return camera


Found = tuple[Sequence[float], str]
"""Focus distances in metres, and where they come from, in words."""


def _from_description(said: Description, facts: Sequence[PhotoFacts]) -> Found | None:
    return said.focus


def _from_exif(said: Description, facts: Sequence[PhotoFacts]) -> Found | None:
    subject = [fact.subject_distance_m for fact in facts]
    return (subject, "EXIF subject distance") if None not in subject and len(set(subject)) > 1 else None


def _from_text(said: Description, facts: Sequence[PhotoFacts]) -> Found | None:
    path = said.folder / "focus_distance.txt"
    if not path.is_file():
        return None
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from None
    if len(lines) == len(said.files):  # one number a line: a comma in it is decimal
        lines = [re.sub(r"^(\d+),(\d+)$", r"\1.\2", line) for line in lines]
    words = " ".join(lines).replace(",", " ").split()
    if len(words) != len(said.files):
        raise InputError(f"{path}: expected {len(said.files)} focus distances, one per slice, got {len(words)}")
    return [said.factor * checked_number(word, str(path), infinite=True) for word in words], str(path)


def _from_names(said: Description, facts: Sequence[PhotoFacts]) -> Found | None:
    found = distances_in_names(said.files)
    if found is None:
        return None
    values, in_metres = found
    return [value if in_metres else said.factor * value for value in values], "file names"


FOCUS_SOURCES = (_from_description, _from_exif, _from_text, _from_names)
"""In the order in which they are asked; the first that knows the distances is believed."""


def depth_range_m(
    focus_distances_m: Sequence[float], focal_length_m: float, near_m: float | None = None, far_m: float | None = None
) -> tuple[float, float]:
    """The depth range of a stack whose own is not given, from its focus distances in metres.

    0.6 of the nearest to 1.7 of the farthest; with a slice at infinity to 4 times the farthest finite one.
    """
    finite = [value for value in focus_distances_m if math.isfinite(value)]
    if not finite and (near_m is None or far_m is None):
        raise InputError("every focus distance is infinite; near_m and far_m are needed then (near_m=X far_m=Y)")
    if near_m is None:
        near_m = max(0.6 * min(finite), 1.01 * focal_length_m)
    if far_m is None:
        far_m = max((1.7 if len(finite) == len(focus_distances_m) else 4.0) * max(finite), 1.2 * near_m)
    if not near_m < far_m:
        raise InputError(f"expected near_m < far_m, got {near_m:.6g} and {far_m:.6g} (near_m, far_m)")
    return near_m, far_m


def _checked_distances(values: Sequence[float], where: str) -> tuple[float, ...]:
    """Practically infinite ones become inf; wrong units and equal distances are refused."""
    nearest = min(values)
    if nearest < NEAREST_M or (math.isfinite(nearest) and nearest > FARTHEST_M):
        raise InputError(
            f"{where}: the nearest focus distance is {nearest:.4g} m; are these metres? Say what one unit is with "
            "focus_distance_unit_m (millimetres: 0.001)"
        )
    values = tuple(math.inf if value > PRACTICALLY_INFINITE_M else value for value in values)
    if len(set(values)) == 1:
        raise InputError(f"{where}: every focus distance is {values[0]:.6g} m; depth needs two different ones")
    return values


def _truth(said: Description, size: tuple[int, int], part: tuple[slice, slice]) -> dict[str, np.ndarray]:
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
            try:
                values = np.load(file, allow_pickle=False).astype(np.float32)
            except (ValueError, OSError, EOFError) as error:
                raise InputError(f"{file}: not a NumPy array ({error})") from None
        if values.shape[:2] != size or values.ndim != (3 if key == "aif" else 2):
            raise InputError(f"{file}: shape {values.shape}, but the slices have {size[0]} x {size[1]} pixels")
        found[key] = np.ascontiguousarray(values[part])
    return found
