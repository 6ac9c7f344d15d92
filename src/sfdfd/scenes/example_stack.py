"""A small synthetic focal stack with ground truth, for examples, notebooks and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer
from sfdfd.scenes.procedural import make_scene
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack

__all__ = ["example_stack"]


def example_stack(
    index: int = 3,
    height: int = 48,
    width: int = 64,
    focus_distances_m: Sequence[float] = (1.0, 1.5, 2.5, 4.0, 6.0),
    camera: Camera | None = None,
    near_m: float = 0.5,
    far_m: float = 10.0,
    seed: int = 0,
    **optics: Any,
) -> FocalStack:
    """Render a procedural scene as a focal stack, rounded to 8 bits, with true depth and all-in-focus image.

    Args:
        index: number of the scene.
        height, width: in pixels.
        focus_distances_m: of the slices, in metres.
        camera: by default that of DEReD's generator (50 mm, f/8, 12 um).
        near_m, far_m: depth range in metres.
        seed: of the scenes.
        optics: options of :func:`sfdfd.optics.render.render_focal_stack`; ``sigma_scale`` is 0.5 by default.

    Returns:
        A batch of one.

    Examples:
        >>> stack = example_stack()
        >>> stack.images.shape, stack.focus_distances_m.tolist()
        (torch.Size([1, 5, 3, 48, 64]), [[1.0, 1.5, 2.5, 4.0, 6.0]])
        >>> float(stack.images.max()) <= 1 and stack.depth_m is not None
        True
    """
    image, depth = make_scene(seed, index, height, width, near_m, far_m)
    aif, depth_m = torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(depth)
    camera = camera or Camera(focal_length_m=0.05, f_number=8.0, pixel_pitch_m=1.2e-5)
    options: dict[str, Any] = {"sigma_scale": 0.5, **optics}
    synthesis = StackSynthesis(DefocusRenderer(**options), camera, focus_distances_m, near_m, far_m)
    return synthesis(Scene(aif, depth_m, name=f"example {index}"))
