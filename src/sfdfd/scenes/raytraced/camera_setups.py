"""With what path-traced stacks are photographed: a camera, its focus distances and a depth range, from what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfdfd.errors import InputError, checked_number, checked_whole
from sfdfd.io.depth_range import depth_range_m
from sfdfd.io.stack_yaml import CAMERA_KEYS, PLAUSIBLE, checked_keys
from sfdfd.optics.camera import Camera

__all__ = ["PRESETS", "CameraSetup"]

SETUP_KEYS = ("name", "camera", "focus_distances_m", "near_m", "far_m")


@dataclass(frozen=True)
class CameraPreset:
    """A camera on the market; its pixels are as wide as the image makes them.

    Attributes:
        focal_length_m, f_number, sensor_width_m: of the lens, and of the sensor behind it.
        focus_distances_m, near_m, far_m: what suits it.
    """

    focal_length_m: float
    f_number: float
    sensor_width_m: float
    focus_distances_m: tuple[float, ...]
    near_m: float
    far_m: float


PRESETS = {
    "dslr": CameraPreset(0.05, 1.2, 0.036, (0.8, 1.15, 1.8, 3.0, 6.0), 0.6, 8.0),
    "phone": CameraPreset(0.00681, 1.85, 0.0098, (0.1, 0.14, 0.22, 0.4, 1.0), 0.08, 1.5),
}


@dataclass(frozen=True)
class CameraSetup:
    """A camera and how it is used.

    Attributes:
        name: of the camera, in front of its stacks' names; "" for none.
        camera: of the images' own pixels.
        focus_distances_m: one per slice.
        near_m, far_m: where everything lies that can be seen.
    """

    name: str
    camera: Camera
    focus_distances_m: tuple[float, ...]
    near_m: float
    far_m: float

    @classmethod
    def of(
        cls, given: Mapping[str, Any] | str, width: int, slices: int | None = None, where: str = "data"
    ) -> CameraSetup:
        """What was given, completed.

        Args:
            given: a name of ``PRESETS``, or ``name``, ``camera`` (keys as in ``stack.yaml``), ``focus_distances_m``,
                ``near_m``, ``far_m``, each of which may be missing or None. Camera values come from the preset of that name,
                else "dslr" (the pixel pitch from the width of its sensor). Without focus distances they are spread from 4/3
                near to 3/4 far in equal ratios; without a range it follows from the focus distances; without both they are
                the preset's.
            width: of the images in pixels.
            slices: how many focus distances to spread, where none are given.
            where: the config key.

        Raises:
            InputError: an unknown key or name, or a value that cannot be.
        """
        if isinstance(given, str):
            if given not in PRESETS:
                raise InputError(
                    f"{where}: expected {' or '.join(PRESETS)}, or camera and focus distances, got {given!r}"
                )
            given = {"name": given}
        if not isinstance(given, Mapping):
            raise InputError(f"{where}: expected a mapping of {', '.join(SETUP_KEYS)}, got {given!r}")
        checked_keys(given, SETUP_KEYS, where)
        name = str(given.get("name") or "")
        preset = PRESETS.get(name, PRESETS["dslr"])
        told = {key: value for key, value in (given.get("camera") or {}).items() if value is not None}
        checked_keys(told, CAMERA_KEYS, f"{where}.camera")
        camera = Camera(
            **{
                "focal_length_m": preset.focal_length_m,
                "f_number": preset.f_number,
                "pixel_pitch_m": preset.sensor_width_m / width,
                **told,
            }
        )
        for key, (low, high) in PLAUSIBLE.items():  # else what is made could not be read
            if not low <= (value := getattr(camera, key)) <= high:
                raise InputError(
                    f"{where}.camera.{key}: expected {low:g} to {high:g}, got {value:g}; data.width={width}"
                )
        near_m, far_m, focus = (given.get(key) for key in ("near_m", "far_m", "focus_distances_m"))
        spread = focus is None and not (near_m is None and far_m is None and slices in (None, 5))
        if focus is not None:
            near_m, far_m = depth_range_m(_checked_focus(focus, camera, where), camera.focal_length_m, near_m, far_m)
        near_m = checked_number(preset.near_m if near_m is None else near_m, f"{where}.near_m")
        far_m = checked_number(preset.far_m if far_m is None else far_m, f"{where}.far_m")
        if not near_m < far_m:
            raise InputError(f"expected near_m < far_m, got {near_m:g} and {far_m:g} ({where}.near_m, {where}.far_m)")
        if spread:
            number = checked_whole(5 if slices is None else slices, "slices (data.slices)", 2)
            focus = np.geomspace(near_m * 4 / 3, max(far_m * 3 / 4, near_m * 1.5), number)
            focus = [float(f"{value:.3g}") for value in focus]
        elif focus is None:
            focus = preset.focus_distances_m
        focus = _checked_focus(focus, camera, where)
        if slices is not None and len(focus) < slices:
            raise InputError(
                f"slices: expected {len(focus)} at most, one per focus distance, got {slices} (data.slices)"
            )
        return cls(name, camera, focus, near_m, far_m)

    def described(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "camera": self.camera.as_dict(),
            "focus_distances_m": list(self.focus_distances_m),
            "near_m": self.near_m,
            "far_m": self.far_m,
        }


def _checked_focus(focus: Any, camera: Camera, where: str) -> tuple[float, ...]:
    key = f"{where}.focus_distances_m"
    if not isinstance(focus, Sequence) or isinstance(focus, str) or len(focus) < 2:
        raise InputError(f"{key}: expected two or more distances in metres, got {focus!r}")
    found = tuple(checked_number(value, key, infinite=True) for value in focus)
    if min(found) <= camera.focal_length_m:
        raise InputError(
            f"{key}: expected distances beyond the focal length {camera.focal_length_m:g} m, got {min(found):g}"
        )
    return found
