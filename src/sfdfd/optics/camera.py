"""Camera in SI units, and the only conversion from metres to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

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


@dataclass(frozen=True)
class Camera:
    """A thin lens and a pixel grid.

    Args:
        focal_length_m: focal length f in metres, > 0.
        f_number: N = f / aperture diameter, > 0.
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
    """

    focal_length_m: float
    f_number: float
    pixel_pitch_m: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
                value = _one_number(value, field.name)
            object.__setattr__(self, field.name, checked_number(value, f"camera.{field.name}"))

    @property
    def blur_scale_px_m(self) -> float:
        """k = f^2 / (2 N p) in pixel metres; the blur radius is k |1/F - 1/d| / (1 - f/F)."""
        return self.focal_length_m**2 / (2 * self.f_number * self.pixel_pitch_m)

    def blur_radius_px(self, depth_m: Any, focus_distance_m: Any, *, signed: bool = False) -> Any:
        """Return the radius of the circle of confusion in pixels: the defocus map.

        Thin lens: ``r = f/N * f/(F-f) * |d-F|/d / (2 p)`` (CVPR 2023 paper, "Optical Model for Defocus Blur"). It is
        computed in inverse distances, so focus and points at infinity are exact.

        Args:
            depth_m: depth d > 0 in metres; number, NumPy array or tensor of any shape.
            focus_distance_m: focus distance F > f in metres, broadcastable against depth_m; ``inf`` is allowed.
            signed: keep the sign: positive behind the focus distance (d > F), negative in front of it.

        Returns:
            The radius in pixels, of the broadcast shape and the inputs' type, differentiable in both arguments. The
            unsigned radius has derivative 0 in focus.

        Raises:
            InputError: a focus distance lies inside the focal length, or a depth is not positive.
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
        radius = self.blur_scale_px_m * (inverse_focus - 1.0 / depth_m) / (1.0 - focal_length_m * inverse_focus)
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

    def as_dict(self) -> dict[str, float]:
        """Return plain numbers, for configs and JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
