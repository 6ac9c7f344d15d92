"""AIF + depth -> a focal stack as a camera would have saved it: rendering, sensor noise, 8-bit rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

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
        slices_in_depth_range: if given, each image has so many focus distances, evenly spaced from its smallest to its
            largest true depth, instead of ``focus_distances_m`` (HybridDepth's protocol). They tell the method the range
            of the truth, and :class:`sfdfd.data.datamodule.StackDataModule` says so in the protocol.
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
        slices_in_depth_range: int | None = None,
    ) -> None:
        if slices_in_depth_range is not None and not (
            isinstance(slices_in_depth_range, int) and slices_in_depth_range >= 2
        ):
            raise InputError(f"expected two or more slices, got {slices_in_depth_range!r} (data.slices_in_depth_range)")
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
        self.slices_in_depth_range = slices_in_depth_range

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
        stack = self.unrendered(aif, depth_m, valid=valid, name=name)
        return self.rendered(stack, torch.Generator().manual_seed(seed))

    def unrendered(
        self,
        aif: Float[Tensor, "3 h w"],
        depth_m: Float[Tensor, "h w"],
        *,
        valid: Bool[Tensor, "h w"] | None = None,
        name: str = "",
        seed: int = 0,
    ) -> FocalStack:
        """All but the rendering: every slice still is the AIF. ``seed`` says nothing here."""
        known = torch.ones_like(depth_m, dtype=torch.bool) if valid is None else valid
        valid = known & (depth_m >= self.near_m) & (depth_m <= self.far_m)
        focus_distances_m = self.focus_distances_m
        if self.slices_in_depth_range is not None:
            seen = depth_m[valid] if bool(valid.any()) else depth_m.clamp(self.near_m, self.far_m)
            focus_distances_m = torch.linspace(float(seen.min()), float(seen.max()), self.slices_in_depth_range)
        return FocalStack.single(
            aif.expand(len(focus_distances_m), *aif.shape),
            focus_distances_m,
            self.camera,
            self.near_m,
            self.far_m,
            name=name,
            depth_m=depth_m,
            aif=aif,
            valid=valid,
        )

    @torch.no_grad()
    def rendered(self, stack: FocalStack, generator: torch.Generator) -> FocalStack:
        """A batch of :meth:`unrendered` stacks with their slices rendered, disturbed and rounded, on the batch's device.

        One at a time: a stack of little blur does not pay for the widest blur of its batch.
        """
        if len(stack) > 1:
            return FocalStack.collate([self.rendered(stack[index], generator) for index in range(len(stack))])
        depth_m = stack.depth_m.clamp(self.near_m, self.far_m)
        images = self.renderer(stack.aif, depth_m, stack.focus_distances_m, stack.camera)
        images = self.sensor(images[0], generator)[None].clamp(0.0, 1.0)
        if self.round_to_8_bits:
            images = (images * 255).round() / 255
        return replace(stack, images=images)
