"""AIF + depth -> a focal stack as a camera would have saved it: rendering, sensor noise, 8-bit rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.data.sensor import SensorModel
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["StackSynthesis"]


class StackSynthesis:
    """Renders one RGB-D image into a focal stack.

    Args:
        renderer: called as ``renderer(aif, depth_m, focus_distances_m, camera)``; it need not be the one that trains.
        camera: of the images that come in.
        focus_distances_m: one per slice, in metres.
        near_m, far_m: depth range in metres; true depth outside of it does not count as valid.
        sensor: motion, exposure and noise, seeded per image; None for a perfect camera.
        round_to_8_bits: round to 256 levels, as a saved photograph is.
    """

    def __init__(
        self,
        renderer: Callable[..., Tensor],
        camera: Camera,
        focus_distances_m: Sequence[float],
        near_m: float,
        far_m: float,
        round_to_8_bits: bool = True,
        sensor: SensorModel | None = None,
    ) -> None:
        focus = [float(value) for value in focus_distances_m]
        if not focus:
            raise InputError("expected at least one focus distance (data.focus_distances_m)")
        if not 0 < near_m < far_m:
            raise InputError(f"expected 0 < near_m < far_m, got {near_m} and {far_m} (data.near_m, data.far_m)")
        self.renderer, self.camera = renderer, camera
        self.focus_distances_m = torch.tensor(focus, dtype=torch.float32)
        camera.blur_radius_px(1.0, self.focus_distances_m)  # refuses focus distances inside the focal length
        self.near_m, self.far_m = float(near_m), float(far_m)
        self.sensor, self.round_to_8_bits = sensor or SensorModel(), round_to_8_bits

    def resized(self, scale: float) -> StackSynthesis:
        """The same for images resized by ``scale``: another camera, everything else as it is."""
        other = copy.copy(self)
        other.camera = self.camera.resized(scale)
        return other

    def __call__(
        self,
        aif: Float[Tensor, "3 h w"],
        depth_m: Float[Tensor, "h w"],
        *,
        valid: Bool[Tensor, "h w"] | None = None,
        name: str = "",
        seed: int = 0,
    ) -> FocalStack:
        """Render; ``valid`` marks the pixels whose depth is known (the others must hold any positive depth)."""
        known = torch.ones_like(depth_m, dtype=torch.bool) if valid is None else valid
        in_range = (depth_m >= self.near_m) & (depth_m <= self.far_m)
        with torch.no_grad():
            images = self.renderer(
                aif[None], depth_m.clamp(self.near_m, self.far_m)[None], self.focus_distances_m, self.camera
            )[0]
            images = self.sensor(images, torch.Generator().manual_seed(seed))
            images = images.clamp(0.0, 1.0)
            if self.round_to_8_bits:
                images = (images * 255).round() / 255
        return FocalStack.single(
            images,
            self.focus_distances_m,
            self.camera,
            self.near_m,
            self.far_m,
            name=name,
            depth_m=depth_m,
            aif=aif,
            valid=known & in_range,
        )
