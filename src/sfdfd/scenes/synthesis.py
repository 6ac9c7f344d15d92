"""Synthesize focal stacks from AIF and depth: rendering, sensor model, rounding to 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from sfdfd.errors import InputError, checked_int
from sfdfd.io.images import to_bytes
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.sensor import SensorModel
from sfdfd.stack import FocalStack

__all__ = ["StackSynthesis"]


class StackSynthesis:
    """Renders scenes into focal stacks.

    Args:
        renderer: called as ``renderer(aif, depth_m, focus_distances_m, camera)``; training may use another one.
        camera: of the scenes' images.
        focus_distances_m: one per slice, in metres.
        near_m, far_m: depth range in metres; true depth outside is not valid.
        sensor: motion, exposure and noise, seeded per scene; None for no disturbance.
        round_to_8_bits: round to 256 levels, as a saved photograph is.
        slices_in_depth_range: number of focus distances evenly spaced from each image's smallest to its largest true depth,
            in place of ``focus_distances_m`` (HybridDepth's protocol). They reveal the range of the true depth to the
            method; the data module's protocol records this.
        seed: of the sensor's random numbers, together with each scene's seed.
    """

    def __init__(
        self,
        renderer: Renderer,
        camera: Camera,
        focus_distances_m: Sequence[float],
        near_m: float,
        far_m: float,
        round_to_8_bits: bool = True,
        sensor: SensorModel | None = None,
        slices_in_depth_range: int | None = None,
        seed: int = 0,
    ) -> None:
        if slices_in_depth_range is not None:
            checked_int(slices_in_depth_range, "slices (data.slices_in_depth_range)", 2)
        focus = [float(value) for value in focus_distances_m]
        if not focus:
            raise InputError("expected at least one focus distance (data.focus_distances_m)")
        if not 0 < near_m < far_m:
            raise InputError(f"expected 0 < near_m < far_m, got {near_m} and {far_m} (data.near_m, data.far_m)")
        self.renderer, self.camera = renderer, camera
        self.focus_distances_m = torch.tensor(focus, dtype=torch.float32)
        camera.blur_radius_px(1.0, self.focus_distances_m)  # raises for focus distances inside the focal length
        self.near_m, self.far_m = float(near_m), float(far_m)
        self.sensor, self.round_to_8_bits = sensor or SensorModel(), round_to_8_bits
        self.slices_in_depth_range, self.seed = slices_in_depth_range, seed

    def __call__(self, scene: Scene) -> FocalStack:
        """Render the scene's stack; deterministic."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + scene.seed)
        return self.rendered(self.unrendered(scene), generator)

    def unrendered(self, scene: Scene) -> FocalStack:
        """Return the stack before rendering: every slice is the AIF."""
        depth_m = scene.depth_m
        valid = scene.known & (depth_m >= self.near_m) & (depth_m <= self.far_m)
        focus_distances_m = self.focus_distances_m
        if self.slices_in_depth_range is not None:
            seen = depth_m[valid] if bool(valid.any()) else depth_m.clamp(self.near_m, self.far_m)
            focus_distances_m = torch.linspace(float(seen.min()), float(seen.max()), self.slices_in_depth_range)
        return FocalStack.single(
            scene.aif.expand(len(focus_distances_m), *scene.aif.shape),
            focus_distances_m,
            self.camera,
            self.near_m,
            self.far_m,
            name=scene.name,
            depth_m=depth_m,
            aif=scene.aif,
            valid=valid,
            optics=BlurModel.of(self.renderer),
        )

    @torch.no_grad()
    def rendered(self, stack: FocalStack, generator: torch.Generator) -> FocalStack:
        """Render, disturb and round the slices of a batch of :meth:`unrendered` stacks, on the batch's device.

        Stacks are rendered one by one, because the widest blur sets the cost of a batch.
        """
        if len(stack) > 1:
            return FocalStack.collate([self.rendered(sample, generator) for sample in stack])
        assert stack.depth_m is not None and stack.aif is not None  # unrendered stacks have both
        depth_m = stack.depth_m.clamp(self.near_m, self.far_m)
        images = self.renderer(stack.aif, depth_m, stack.focus_distances_m, stack.camera)
        images = self.sensor(images[0], generator)[None].clamp(0.0, 1.0)
        if self.round_to_8_bits:
            images = to_bytes(images).to(images) / 255
        return replace(stack, images=images)
