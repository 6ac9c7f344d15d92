"""The estimator: a focal stack of any size in, a :class:`sfdfd.stack.Prediction` out.

estimator = DefocusEstimator.from_pretrained(refine_seconds=20)
stack = FocalStack.single(images, [0.5, 1.0, 2.0], Camera(0.05, 8.0, 1.2e-5), near_m=0.3, far_m=4.0)
prediction = estimator.predict(stack)
prediction.depth_m, prediction.aif, prediction.confidence
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import checked_keywords
from sfdfd.inference.methods import NetworkMethod, ReducedMethod, RefinedMethod, SweepMethod, with_confidence
from sfdfd.inference.out_of_range import pin_out_of_range
from sfdfd.inference.upsampling import enlarged
from sfdfd.io.images import working_px_for, working_size
from sfdfd.networks.interface import Network
from sfdfd.optics.blur_model import BLUR_KEYS, BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.refinement.refiner import DEFAULT_SECONDS, Refinement, Refiner
from sfdfd.stack import FocalStack, Method, Prediction
from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS, load_model
from sfdfd.training.device import pick_device

__all__ = ["DefocusEstimator", "Solution"]

Progress = Callable[[float, int, float], None]


@dataclass(frozen=True)
class Solution:
    """A prediction at the size it was worked out at, and at the size of the images.

    Attributes:
        stack, small: at the working size.
        full: at the size of the images; ``small`` itself where they are the same.
        refinement: what refinement did; None without one.
    """

    stack: FocalStack
    small: Prediction
    full: Prediction
    refinement: Refinement | None


class DefocusEstimator(torch.nn.Module):
    """Estimate depth, all-in-focus image and confidence of focal stacks: a :class:`sfdfd.stack.Method`.

    Images larger than ``working_px`` are reduced to that size first. Depth returns to full size along the edges of the AIF,
    which is blended from the full-size slices.

    It inverts the physics that a stack carries (``FocalStack.optics``), and that of ``renderer`` where a stack carries none.

    Args:
        network: stack -> depth and AIF; None for a plane sweep (:mod:`sfdfd.plane_sweep.sweep`).
        renderer: how stacks are blurred that do not say it themselves; None: as photographs are
            (:data:`sfdfd.optics.blur_model.PHOTOGRAPH_BLUR`).
        refiner: per-scene refinement; None for none.
        working_px: longer side in pixels of the images that are worked on, or "auto"; see
            :func:`sfdfd.io.images.working_px_for`.
        device: where.
        camera: the model's own camera, where it is not the one that each stack carries.
        optics: what is known of the blur whatever a stack says, by name or as a
            :class:`sfdfd.optics.blur_model.BlurModel`.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> estimator = DefocusEstimator.from_pretrained(refine_seconds=0)
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
        optics: BlurModel | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        working_px_for(working_px, 1.0, 1)  # a wrong one is refused here
        self.working_px, self.camera, self.refiner = working_px, camera, refiner
        self.optics = BlurModel().updated(optics)
        self.renderer = DefocusRenderer(method="fast", **PHOTOGRAPH_OPTICS) if renderer is None else renderer
        self.network = network
        self.register_buffer("_where", torch.empty(0), persistent=False)  # follows .to(device)
        self.start: Method = SweepMethod(self.renderer)
        if network is not None:
            self.start = NetworkMethod(network, self.renderer)
            if refiner is not None and refiner.enabled and getattr(network, "requires_defocus", False):
                self.start = ReducedMethod(self.start)
        self.to(device).eval()

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self._where.device  # type: ignore[return-value] # a buffer is a tensor

    @classmethod
    @checked_keywords
    def from_pretrained(
        cls,
        weights: str | Path = "pretrained",
        *,
        refine_seconds: float = DEFAULT_SECONDS,
        working_px: int | str = "auto",
        device: str = "auto",
        sigma_scale: float | None = None,
        weighting: str | None = None,
        psf: str | None = None,
        method: str | None = None,
        linear_light: bool | None = None,
        layers: int | None = None,
        level_px: float | None = None,
        window_px: int | None = None,
        smallest_radius_px: float | None = None,
        copied_radius_px: float | None = None,
    ) -> DefocusEstimator:
        """Make the estimator that ``python -m sfdfd.predict`` uses: weights of any origin, the optics of photographs.

        Args:
            weights: "pretrained" for those in the package, or the path of a checkpoint.
            refine_seconds: time in seconds for the refinement of each stack; 0 for the network's answer alone.
            working_px: see the class.
            device: "auto", "cpu", "cuda", "mps".
            sigma_scale, weighting, psf, method, linear_light, layers, level_px, window_px, smallest_radius_px,
                copied_radius_px: options of the renderer (:class:`sfdfd.optics.options.RenderOptions`) that hold whatever a
                stack says of its blur; None: the stack's, else those of photographs.

        Raises:
            InputError: no such file, not one of our checkpoints, or a wrong option.

        Examples:
            >>> print(DefocusEstimator.from_pretrained())
            DefocusEstimator(
              network: PlaneSweepNet, 2,170,647 parameters
              inverts: disc, occlusion weighting, linear light, where a stack does not say how it was blurred
              refinement: 10 s for each stack
              working_px: auto
            )
        """
        told = _told(locals())
        preferred = {"method": "fast", **PHOTOGRAPH_OPTICS}
        return cls._loaded(weights, told, preferred, refine_seconds, working_px, device, camera=False)

    @classmethod
    @checked_keywords
    def from_checkpoint(
        cls,
        checkpoint: str | Path | None = "pretrained",
        *,
        refine_seconds: float = 0.0,
        working_px: int | str = "auto",
        device: str = "auto",
        sigma_scale: float | None = None,
        weighting: str | None = None,
        psf: str | None = None,
        method: str | None = None,
        linear_light: bool | None = None,
        layers: int | None = None,
        level_px: float | None = None,
        window_px: int | None = None,
        smallest_radius_px: float | None = None,
        copied_radius_px: float | None = None,
    ) -> DefocusEstimator:
        """Make an estimator of a trained run, with the optics and the camera it was trained with.

        Args:
            checkpoint: its path. None is a plane sweep and "pretrained" the weights in the package; both take the optics of
                photographs, as :meth:`from_pretrained`.
            refine_seconds, working_px, device: as of :meth:`from_pretrained`.
            sigma_scale, weighting, psf, method, linear_light, layers, level_px, window_px, smallest_radius_px,
                copied_radius_px: as of :meth:`from_pretrained`; None: the stack's, else the checkpoint's.

        Raises:
            InputError: no such file, not one of our checkpoints, or a wrong option.
        """
        told = _told(locals())
        of_run = checkpoint is not None and str(checkpoint) != "pretrained"
        preferred = None if of_run else {"method": "fast", **PHOTOGRAPH_OPTICS}
        return cls._loaded(checkpoint, told, preferred, refine_seconds, working_px, device, camera=of_run)

    @classmethod
    def _loaded(
        cls,
        checkpoint: str | Path | None,
        told: dict[str, Any],
        preferred: dict[str, Any] | None,
        refine_seconds: float,
        working_px: int | str,
        device: str,
        camera: bool,
    ) -> DefocusEstimator:
        module, renderer = load_model(checkpoint, told, preferred)
        refiner = Refiner(seconds=refine_seconds) if refine_seconds else None
        network, own = (None, None) if module is None else (module.network, module.camera if camera else None)
        blur = {key: value for key, value in told.items() if key in BLUR_KEYS}
        return cls(network, renderer, refiner, working_px, pick_device(device), own, blur)

    def __repr__(self) -> str:
        network = "none: a plane sweep"
        if self.network is not None:
            count = (
                sum(p.numel() for p in self.network.parameters()) if isinstance(self.network, torch.nn.Module) else 0
            )
            network = getattr(self.network, "__name__", type(self.network).__name__)
            network += f", {count:,} parameters" if count else ""
        physics = BlurModel.of(self.renderer) or type(self.renderer).__name__
        inverts = f"{physics}, where a stack does not say how it was blurred"
        if self.optics.known():
            inverts += f"; always {self.optics}"
        refined = self.refiner is not None and self.refiner.enabled
        refinement = "none"
        if refined:
            assert self.refiner is not None
            steps = self.refiner.steps
            refinement = f"{steps} steps" if steps is not None else f"{self.refiner.seconds:g} s"
            refinement += " for each stack"
        lines = [
            f"network: {network}",
            f"inverts: {inverts}",
            f"refinement: {refinement}",
            f"working_px: {self.working_px}",
        ]
        if self.camera is not None:
            lines.append(f"camera: {self.camera}, whatever a stack says")
        return "DefocusEstimator(\n" + "".join(f"  {line}\n" for line in lines) + ")"

    def forward(self, stack: FocalStack) -> Prediction:
        """Predict; see :meth:`predict`."""
        return self.predict(stack)

    def predict(
        self,
        stack: FocalStack,
        *,
        weight: Float[Tensor, "b s h w"] | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Estimate depth (metres), AIF, defocus maps and confidence of a batch of aligned stacks, one after the other.

        Args:
            stack: see :class:`FocalStack`; of one or of several sizes.
            weight: (B,S,H,W) how far each pixel shows something; in place of the stack's ``covered``.
            progress: see :class:`sfdfd.refinement.refiner.Refiner`.

        Returns:
            On the stack's device. ``rendered`` is None where images were larger than ``working_px``.

        Raises:
            InputError: a pixel is not finite, or far outside of [0, 1].
        """
        if weight is not None:
            stack = replace(stack, covered=weight)
        return Prediction.collate(
            [
                self._predict_one(one.without_truth(), progress)
                for one in stack.check().with_camera(self.camera).to(torch.float32)
            ]
        )

    def _predict_one(self, stack: FocalStack, progress: Progress | None) -> Prediction:
        small = self.reduced(stack)
        covered = None if stack.covered is None else list(stack.covered[0])
        clipped = list(saturated[0]) if bool((saturated := stack.saturated()).any()) else None
        slices, camera = list(stack.images[0]), stack.camera[0]
        return self.solve_reduced(small, slices, camera, covered, clipped=clipped, progress=progress).full

    def reduced(self, stack: FocalStack) -> FocalStack:
        """Return the stack at the working size; itself where it is no larger."""
        size = tuple(stack.images.shape[-2:])
        largest = float(stack.blur_radii_at_range_px().abs().max())
        return stack.resized(*working_size(*size, longer_px=working_px_for(self.working_px, largest, max(size))))

    def solve_reduced(
        self,
        small: FocalStack,
        slices: Sequence[Tensor | Callable[[], Tensor]],
        camera: Camera,
        covered: Sequence[Tensor] | None = None,
        *,
        clipped: Sequence[Tensor] | None = None,
        defocus: bool = True,
        progress: Progress | None = None,
    ) -> Solution:
        """Solve a stack at the working size, and bring the answer to the size of its images.

        Args:
            small: the stack at the working size, a batch of one.
            slices: its images at full size, (3,H,W) each in [0, 1], or functions that make them.
            camera: of the full-size images.
            covered: (H,W) each, 0 where a slice shows nothing; None: everywhere.
            clipped: (3,H,W) each, true where a slice says only "at least so bright"; None: nowhere.
            defocus: whether the full-size prediction gets its own defocus maps (S times the memory of its depth).
            progress: see :class:`sfdfd.refinement.refiner.Refiner`.
        """
        prediction, refinement = self.solve(small, progress)
        first = slices[0]() if callable(slices[0]) else slices[0]
        full = prediction
        if small.images.shape[-2:] != first.shape[-2:]:
            full = enlarged(prediction, small, slices, camera, covered, defocus=defocus, clipped=clipped)
        return Solution(small, prediction, full, refinement)

    def solve(self, stack: FocalStack, progress: Progress | None = None) -> tuple[Prediction, Refinement | None]:
        """Solve one stack at the size it has: start, refinement, confidence."""
        home = stack.images.device
        stack = stack.to(torch.float32).to(self.device).with_optics(self.optics)  # not every device has float64
        refinement = None
        if self.refiner is None or not self.refiner.enabled:
            prediction = self.start(stack)
        else:
            prediction, refinement = RefinedMethod(self.start, self.refiner, self.renderer).solve(stack, progress)
        prediction = with_confidence(prediction, stack, self.renderer)
        return pin_out_of_range(prediction, stack, self.renderer).to(home), refinement


_OPTIONS = (*BLUR_KEYS, "method", "layers", "level_px")


def _told(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of a function's arguments the renderer options that were given."""
    return {key: arguments[key] for key in _OPTIONS if arguments[key] is not None}
