"""The thin-lens camera and the differentiable defocus renderer, on plain tensors."""

from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer, Renderer, render_focal_stack

__all__ = ["Camera", "DefocusRenderer", "Renderer", "render_focal_stack"]
