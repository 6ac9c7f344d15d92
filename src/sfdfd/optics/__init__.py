"""The thin lens and the differentiable defocus renderer; plain tensors, no learning, no Lightning, no Hydra."""

from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer, Renderer, render_focal_stack

__all__ = ["Camera", "DefocusRenderer", "Renderer", "render_focal_stack"]
