"""Camera in SI units, and the only conversion from metres to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import torch

from sfdfd.errors import InputError, checked_number

__all__ = ["Camera"]


def _all(condition: Any) -> bool:
    """Return whether a comparison holds everywhere. A comparison with NaN does not hold."""
    return bool(condition.all()) if isinstance(condition, (torch.Tensor, np.ndarray)) else bool(condition)


def _one_number(value: torch.Tensor | np.ndarray | np.generic, name: str) -> float:
    """Return the number that a tensor or array of one element holds."""
    if isinstance(value, torch.Tensor) and value.requires_grad:
        raise InputError(
            f"camera.{name}: a camera holds plain numbers and has no gradient; to fit f^2/(2 N p), give the renderer "
            "blur_factor=TENSOR, a factor on every blur radius"
        )
    if value.size != 1 if isinstance(value, (np.ndarray, np.generic)) else value.numel() != 1:
        raise InputError(f"camera.{name}: expected one number, got shape {tuple(value.shape)}")
    return float(value.item())


def _f_numbers(value: Any) -> Any:
    """Return f-numbers as a tuple of plain numbers; equal ones, and a single value, as that value."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        if value.ndim != 1 or (isinstance(value, torch.Tensor) and value.requires_grad):
            return value  # one number, or refused with its reason
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    numbers = tuple(checked_number(number, "camera.f_number") for number in value)
    if not numbers:
        raise InputError("camera.f_number: expected one number, or one per slice, got an empty list")
    return numbers[0] if len(set(numbers)) == 1 else numbers


@dataclass(frozen=True)
class Camera:
    """A thin lens and a pixel grid.

    Args:
        focal_length_m: focal length f in metres, > 0.
        f_number: N = f / aperture diameter, > 0; a sequence of S for a stack whose S slices differ in aperture. Equal
            f-numbers become one number.
        pixel_pitch_m: distance p between neighbouring pixels of the images *as they are used*, in metres, > 0;
            resizing an image resizes the pitch (:meth:`resized`), cropping does not.

    Raises:
        InputError: a value is not a positive finite number, or is a tensor with a gradient. A tensor of one number is
            converted.

    Examples:
        >>> camera = Camera(focal_length_m=0.05, f_number=8.0, pixel_pitch_m=1.2e-5)
        >>> round(camera.blur_radius_px(5.0, 1.0), 3)  # depth 5 m, focus 1 m
        10.965
        >>> camera.resized(0.5).pixel_pitch_m
        2.4e-05
        >>> bracket = Camera(focal_length_m=0.05, f_number=(2.0, 8.0), pixel_pitch_m=1.2e-5)
        >>> bracket.blur_radius_px(5.0, torch.tensor([1.0, 1.0]))  # one focus distance at two apertures
        tensor([43.8596, 10.9649])
    """

    focal_length_m: float
    f_number: float | Sequence[Any]  # of floats, which become a tuple
    pixel_pitch_m: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "f_number", _f_numbers(self.f_number))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                continue
            if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
                value = _one_number(value, field.name)
            object.__setattr__(self, field.name, checked_number(value, f"camera.{field.name}"))

    @property
    def brackets_aperture(self) -> bool:
        """Whether slices differ in f-number."""
        return isinstance(self.f_number, tuple)

    @property
    def widest_f_number(self) -> float:
        """The smallest f-number of all slices."""
        return min(self.f_number) if isinstance(self.f_number, tuple) else cast(float, self.f_number)

    @property
    def blur_scale_px_m(self) -> float:
        """k = f^2 / (2 N p) in pixel metres, of the widest aperture; the blur radius is k |1/F - 1/d| / (1 - f/F)."""
        return self.focal_length_m**2 / (2 * self.widest_f_number * self.pixel_pitch_m)

    def widest(self) -> Camera:
        """Return the camera at its widest aperture: the camera itself where slices do not differ."""
        return replace(self, f_number=self.widest_f_number)

    def f_numbers(self, slices: int) -> tuple[float, ...]:
        """Return the f-number of each of ``slices`` slices.

        Raises:
            InputError: the camera has f-numbers for another number of slices.
        """
        if not isinstance(self.f_number, tuple):
            return (cast(float, self.f_number),) * slices
        if len(self.f_number) != slices:
            raise InputError(
                f"camera.f_number: expected one number, or {slices}, one per slice, got {len(self.f_number)}"
            )
        return self.f_number

    def per_slice(self, slices: int) -> list[Camera]:
        """Return the camera of each of ``slices`` slices, with its own f-number."""
        return [replace(self, f_number=number) for number in self.f_numbers(slices)]

    def with_slices(self, indices: Sequence[int]) -> Camera:
        """Return the camera of these slices alone, in this order."""
        if not isinstance(self.f_number, tuple):
            return self
        if not indices:
            return self.widest()
        return replace(self, f_number=tuple(self.f_number[index] for index in indices))

    def _blur_scales_px_m(self, focus_distance_m: Any) -> Any:
        """Return k of the slices that are focused at these distances, shaped as the distances."""
        if not isinstance(self.f_number, tuple):
            return self.blur_scale_px_m
        is_tensor = isinstance(focus_distance_m, torch.Tensor)
        numbers = self.f_numbers(focus_distance_m.numel() if is_tensor else np.size(focus_distance_m))
        scales = [self.focal_length_m**2 / (2 * number * self.pixel_pitch_m) for number in numbers]
        if is_tensor:
            return focus_distance_m.new_tensor(scales).reshape(focus_distance_m.shape)
        return np.reshape(scales, np.shape(focus_distance_m))

    def blur_radius_px(self, depth_m: Any, focus_distance_m: Any, *, signed: bool = False) -> Any:
        """Return the radius of the circle of confusion in pixels: the defocus map.

        Thin lens: ``r = f/N * f/(F-f) * |d-F|/d / (2 p)`` (CVPR 2023 paper, "Optical Model for Defocus Blur"). It is
        computed in inverse distances, so focus and points at infinity are exact.

        Args:
            depth_m: depth d > 0 in metres; number, NumPy array or tensor of any shape.
            focus_distance_m: focus distance F > f in metres, broadcastable against depth_m; ``inf`` is allowed. With an
                f-number per slice there is one for each slice, whatever its shape.
            signed: keep the sign: positive behind the focus distance (d > F), negative in front of it.

        Returns:
            The radius in pixels, of the broadcast shape and the inputs' type, differentiable in both arguments. The
            unsigned radius has derivative 0 in focus.

        Raises:
            InputError: a focus distance lies inside the focal length, a depth is not positive, or the number of focus
                distances is not that of the f-numbers.
        """
        focal_length_m = self.focal_length_m
        if not _all(focus_distance_m > focal_length_m):
            is_array = isinstance(focus_distance_m, (torch.Tensor, np.ndarray))
            worst = float(focus_distance_m.min()) if is_array else focus_distance_m
            raise InputError(
                f"focus distance {worst:.6g} m lies inside the focal length {focal_length_m:.6g} m "
                "(focus_distances_m; optics.camera.focal_length_m)"
            )
        if not _all(depth_m > 0):
            raise InputError("depth: expected positive metres, got a value that is zero, negative or NaN (depth_m)")
        inverse_focus = 1.0 / focus_distance_m
        scale = self._blur_scales_px_m(focus_distance_m)
        radius = scale * (inverse_focus - 1.0 / depth_m) / (1.0 - focal_length_m * inverse_focus)
        return radius if signed else abs(radius)

    def resized(self, scale: float | tuple[float, float]) -> Camera:
        """Return the camera of the image resized by ``scale`` (0.5 halves the image and doubles the pixel pitch).

        Args:
            scale: one factor, or (vertical, horizontal), which must agree to 1 %.

        Raises:
            InputError: the two scales differ, or a scale is not positive.
        """
        vertical, horizontal = scale if isinstance(scale, tuple) else (scale, scale)
        if not (vertical > 0 and horizontal > 0):
            raise InputError(f"resize: expected positive scales, got {scale}")
        if abs(vertical - horizontal) > 0.01 * max(vertical, horizontal):
            raise InputError(
                f"resize: expected equal scales in x and y (pixels are square), got {vertical:.4g} and {horizontal:.4g}"
            )
        return replace(self, pixel_pitch_m=self.pixel_pitch_m / math.sqrt(vertical * horizontal))

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, for configs and JSON; several f-numbers as a list."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
