"""Camera, focus distances and depth range of path-traced stacks, from complete or partial settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfdfd.errors import InputError, checked_int, checked_number
from sfdfd.io.depth_range import depth_range_m
from sfdfd.io.stack_yaml import CAMERA_KEYS, PLAUSIBLE_CAMERA, refuse_unknown_keys
from sfdfd.optics.camera import Camera

__all__ = ["PRESETS", "CameraSetup"]

DEFAULT_SLICES = 5
SETUP_KEYS = ("name", "camera", "focus_distances_m", "near_m", "far_m", "side")


@dataclass(frozen=True)
class CameraPreset:
    """A typical camera with suitable focus distances and depth range. Its pixel pitch follows from the image's width."""

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
    """A camera with its focus distances and depth range.

    Attributes:
        name: prefix of its stacks' names; "" for none.
        camera: for the pixels of the images.
        focus_distances_m: one per slice.
        near_m, far_m: range of all visible depths.
    """

    name: str
    camera: Camera
    focus_distances_m: tuple[float, ...]
    near_m: float
    far_m: float

    @classmethod
    def of(
        cls, settings: Mapping[str, Any] | str, width: int, slices: int | None = None, key: str = "data"
    ) -> CameraSetup:
        """Complete partial settings.

        Args:
            settings: a name in ``PRESETS``, or a mapping of ``name``, ``camera`` (keys as in ``stack.yaml``),
                ``focus_distances_m``, ``near_m``, ``far_m`` and ``side`` (of the focus distance, for slices
                that differ in aperture alone); each may be missing or None. Missing camera values come from
                the preset of that name, or from "dslr"; the pixel pitch from the preset's sensor width.
                The f-number may be a list, one per slice.
                Missing focus distances are spread from 4/3 near to 3/4 far in equal ratios. A missing range follows from
                the focus distances. If both are missing, they are the preset's.
            width: image width in pixels.
            slices: number of missing focus distances; None: 5.
            key: config key for messages.

        Raises:
            InputError: an unknown key or name, or a wrong value.
        """
        settings = _checked_settings(settings, key)
        name = str(settings.get("name") or "")
        preset = PRESETS.get(name, PRESETS["dslr"])
        camera = _camera(settings.get("camera") or {}, preset, width, key)
        near_m, far_m, focus = (settings.get(each) for each in ("near_m", "far_m", "focus_distances_m"))
        preset_focus_fits = near_m is None and far_m is None and slices in (None, DEFAULT_SLICES)
        if focus is not None:
            focus = _checked_focus(focus, camera, key)
            camera.f_numbers(len(focus))  # as many, where there are several
            is_bracket, side = camera.brackets_aperture, settings.get("side")
            near_m, far_m = depth_range_m(focus, camera.focal_length_m, near_m, far_m, of_bracket=is_bracket, side=side)
        near_m = checked_number(preset.near_m if near_m is None else near_m, f"{key}.near_m")
        far_m = checked_number(preset.far_m if far_m is None else far_m, f"{key}.far_m")
        if not near_m < far_m:
            raise InputError(f"expected near_m < far_m, got {near_m:g} and {far_m:g} ({key}.near_m, {key}.far_m)")
        if focus is None:
            focus = preset.focus_distances_m if preset_focus_fits else _spread_focus(near_m, far_m, slices)
            focus = _checked_focus(focus, camera, key)
            camera.f_numbers(len(focus))
        if slices is not None and len(focus) < slices:
            raise InputError(
                f"slices: expected {len(focus)} at most, one per focus distance, got {slices} (data.slices)"
            )
        return cls(name, camera, focus, near_m, far_m)

    def described(self) -> dict[str, Any]:
        """Return the setup as plain values."""
        return {
            "name": self.name,
            "camera": self.camera.as_dict(),
            "focus_distances_m": list(self.focus_distances_m),
            "near_m": self.near_m,
            "far_m": self.far_m,
        }


def _checked_settings(settings: Mapping[str, Any] | str, key: str) -> Mapping[str, Any]:
    if isinstance(settings, str):
        if settings not in PRESETS:
            raise InputError(f"{key}: expected {' or '.join(PRESETS)}, or camera and focus distances, got {settings!r}")
        return {"name": settings}
    if not isinstance(settings, Mapping):
        raise InputError(f"{key}: expected a mapping of {', '.join(SETUP_KEYS)}, got {settings!r}")
    refuse_unknown_keys(settings, SETUP_KEYS, key)
    return settings


def _camera(values: Mapping[str, Any], preset: CameraPreset, width: int, key: str) -> Camera:
    """Complete camera values from a preset."""
    overrides = {name: value for name, value in values.items() if value is not None}
    refuse_unknown_keys(overrides, CAMERA_KEYS, f"{key}.camera")
    camera = Camera(
        **{
            "focal_length_m": preset.focal_length_m,
            "f_number": preset.f_number,
            "pixel_pitch_m": preset.sensor_width_m / width,
            **overrides,
        }
    )
    for name, (low, high) in PLAUSIBLE_CAMERA.items():  # stacks of implausible cameras could not be read back
        value = getattr(camera, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high:
                raise InputError(
                    f"{key}.camera.{name}: expected {low:g} to {high:g}, got {number:g}; data.width={width}"
                )
    return camera


def _spread_focus(near_m: float, far_m: float, slices: int | None) -> list[float]:
    number = checked_int(DEFAULT_SLICES if slices is None else slices, "slices (data.slices)", 2)
    focus = np.geomspace(near_m * 4 / 3, max(far_m * 3 / 4, near_m * 1.5), number)
    return [float(f"{value:.3g}") for value in focus]


def _checked_focus(focus: Any, camera: Camera, key: str) -> tuple[float, ...]:
    key = f"{key}.focus_distances_m"
    if not isinstance(focus, Sequence) or isinstance(focus, str) or len(focus) < 2:
        raise InputError(f"{key}: expected two or more distances in metres, got {focus!r}")
    distances = tuple(checked_number(value, key, infinite=True) for value in focus)
    if min(distances) <= camera.focal_length_m:
        raise InputError(
            f"{key}: expected distances beyond the focal length {camera.focal_length_m:g} m, got {min(distances):g}"
        )
    return distances
