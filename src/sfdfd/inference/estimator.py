"""The inference object: a focal stack of any size in, a Prediction out.

estimator = DefocusEstimator.from_checkpoint("pretrained", refine_seconds=20)
stack = FocalStack.single(images, [0.5, 1.0, 2.0], Camera(0.05, 8.0, 1.2e-5), near_m=0.3, far_m=4.0)
prediction = estimator.predict(stack)
prediction.depth_m, prediction.aif, prediction.confidence
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.data.images import working_px_for, working_size
from sfdfd.inference.methods import NetworkMethod, ReducedMethod, RefinedMethod, SweepMethod, with_confidence
from sfdfd.inference.refine import Refinement, Refiner
from sfdfd.inference.upsampling import enlarged
from sfdfd.networks.interface import Network
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.stack import FocalStack, Method, Prediction
from sfdfd.training.checkpoints import load_model
from sfdfd.training.device import pick_device

__all__ = ["DefocusEstimator"]


class DefocusEstimator:
    """Depth, all-in-focus image and confidence of focal stacks: a :class:`sfdfd.stack.Method`.

    Images larger than ``working_px`` are worked on at that size; depth returns to full size along the edges of the AIF,
    which is blended from the full-size slices.

    Args:
        network: stack -> depth and AIF; None for a plane sweep (:mod:`sfdfd.inference.sweep`).
        renderer: the model's optics.
        refiner: per-scene refinement; None for none.
        working_px: longer side of the images that are worked on, or "auto"; see
            :func:`sfdfd.data.images.working_px_for`.
        device: where.
        camera: the model's own camera, where it is not the one that each stack carries.

    Examples:
        >>> from sfdfd.data.example import example_stack
        >>> stack = example_stack()
        >>> estimator = DefocusEstimator.from_checkpoint("pretrained")
        >>> prediction = estimator.predict(stack)
        >>> prediction.depth_m.shape, prediction.confidence.shape
        (torch.Size([1, 48, 64]), torch.Size([1, 48, 64]))
    """

    def __init__(
        self,
        network: Network | None = None,
        renderer: Renderer | None = None,
        refiner: Refiner | None = None,
        working_px: int | str = "auto",
        device: torch.device | str = "cpu",
        camera: Camera | None = None,
    ) -> None:
        working_px_for(working_px, 1.0, 1)  # a wrong one is refused here
        self.working_px = working_px
        self.device, self.camera = torch.device(device), camera
        self.renderer = renderer or DefocusRenderer(sigma_scale=0.5)
        self.refiner = refiner
        self.network = network
        self.start: Method = SweepMethod(self.renderer)
        if network is not None:
            self.start = NetworkMethod(network, self.renderer, device=self.device)
            if refiner is not None and getattr(network, "needs_defocus", False):
                self.start = ReducedMethod(self.start)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path | None = "pretrained",
        *,
        refine_seconds: float = 0.0,
        working_px: int | str = "auto",
        device: str = "auto",
        **optics: float | str | bool,
    ) -> DefocusEstimator:
        """An estimator of a trained run.

        Args:
            checkpoint: its path; "pretrained" for the weights that the package carries; None for a plane sweep.
            refine_seconds: time for the refinement of each stack.
            working_px: see the class.
            device: "auto", "cpu", "cuda", "mps".
            optics: options of the renderer that differ from the checkpoint's, e.g. ``sigma_scale=1.0``.

        Raises:
            InputError: no such file, or not one of our checkpoints.
        """
        module, renderer = load_model(checkpoint, optics)
        network = None if module is None else module.network
        refiner = Refiner(seconds=refine_seconds) if refine_seconds else None
        camera = None if module is None else module.camera
        return cls(network, renderer, refiner, working_px, pick_device(device), camera)

    def __call__(self, stack: FocalStack) -> Prediction:
        return self.predict(stack)

    def predict(
        self,
        stack: FocalStack,
        *,
        weight: Float[Tensor, "b s h w"] | None = None,
        progress: Callable[[float, int, float], None] | None = None,
    ) -> Prediction:
        """Depth (metres), AIF, defocus maps and confidence of a batch of aligned stacks, one after the other.

        Args:
            stack: see :class:`FocalStack`; of one or of several sizes.
            weight: (B,S,H,W) how far each pixel shows something; in place of the stack's ``covered``.
            progress: see :class:`sfdfd.inference.refine.Refiner`.

        Returns:
            On the stack's device. ``rendered`` is None where images were larger than ``working_px``.
        """
        if weight is not None:
            stack = replace(stack, covered=weight)
        return Prediction.collate(
            [self._predict_one(one.without_truth(), progress) for one in stack.seen_by(self.camera).to(torch.float32)]
        )

    def _predict_one(self, stack: FocalStack, progress: Callable[[float, int, float], None] | None) -> Prediction:
        small = self.reduced(stack)
        prediction, _ = self.solve(small, progress)
        if small is stack:
            return prediction
        covered = None if stack.covered is None else list(stack.covered[0])
        return enlarged(prediction, small, list(stack.images[0]), stack.camera[0], covered)

    def reduced(self, stack: FocalStack) -> FocalStack:
        """The stack at the working size; itself where it is no larger."""
        size = tuple(stack.images.shape[-2:])
        largest = float(stack.blur_at_ends_px().abs().max())
        return stack.resized(*working_size(*size, longer_px=working_px_for(self.working_px, largest, max(size))))

    def solve(
        self, stack: FocalStack, progress: Callable[[float, int, float], None] | None = None
    ) -> tuple[Prediction, Refinement | None]:
        """One stack at the size it has: start, refinement, confidence."""
        home, stack = stack.images.device, stack.to(torch.float32).to(self.device)  # not every device has float64
        refinement = None
        if self.refiner is None or not self.refiner.enabled:
            prediction = self.start(stack)
        else:
            prediction, refinement = RefinedMethod(self.start, self.refiner, self.renderer).solve(stack, progress)
        return with_confidence(prediction, stack, self.renderer).to(home), refinement
