"""The estimator: predicts depth, all-in-focus image and confidence of a focal stack of any size.

estimator = DefocusEstimator.from_pretrained(refine_seconds=20)
stack = FocalStack.single(images, [0.5, 1.0, 2.0], Camera(0.05, 8.0, 1.2e-5), near_m=0.3, far_m=4.0)
prediction = estimator.predict(stack)
prediction.depth_m, prediction.aif, prediction.confidence
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import checked_keywords
from sfdfd.inference.methods import (
    NetworkMethod,
    Progress,
    ReducedMethod,
    RefinedMethod,
    SweepMethod,
    with_confidence,
)
from sfdfd.inference.out_of_range import clamp_out_of_range
from sfdfd.inference.prior_method import ExternalDepth, PriorMethod
from sfdfd.inference.upsampling import upsample_prediction
from sfdfd.io.images import resolve_working_px, working_size
from sfdfd.networks.interface import Network
from sfdfd.optics.blur_model import BLUR_KEYS, BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.refinement.refiner import DEFAULT_SECONDS, Refinement, Refiner
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training.checkpoints import PHOTOGRAPH_OPTICS, load_model
from sfdfd.training.device import pick_device

__all__ = ["DefocusEstimator", "Solution"]


@dataclass(frozen=True)
class Solution:
    """A prediction at the working size and at the size of the images.

    Attributes:
        stack, working: the stack and its prediction at the working size.
        full: the prediction at the size of the images; ``working`` itself where the sizes are the same.
        refinement: its record; None without refinement.
    """

    stack: FocalStack
    working: Prediction
    full: Prediction
    refinement: Refinement | None


class DefocusEstimator(torch.nn.Module):
    """Estimate depth, all-in-focus image and confidence of focal stacks: a :class:`sfdfd.stack.Method`.

    Images larger than ``working_px`` are reduced to that size first. The full-size AIF is blended from the full-size slices,
    and depth is upsampled along its edges.

    The estimator inverts the blur that a stack carries (``FocalStack.optics``), and that of ``renderer`` where it carries
    none.

    Args:
        network: stack -> depth and AIF; None for a plane sweep (:mod:`sfdfd.plane_sweep.sweep`).
        renderer: the blur of stacks that carry none; None: that of photographs
            (:data:`sfdfd.optics.blur_model.PHOTOGRAPH_BLUR`).
        refiner: per-scene refinement; None for none.
        working_px: longer side of the working size in pixels, or "auto"; see :func:`sfdfd.io.images.resolve_working_px`.
        device: where it runs.
        camera: the model's own camera; replaces the camera of each stack.
        optics: parts of the blur that replace those of each stack, by name or as a
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
        resolve_working_px(working_px, 1.0, 1)  # refuses a wrong value
        self.working_px, self.camera, self.refiner = working_px, camera, refiner
        self.optics = BlurModel().updated(optics)
        self.renderer = DefocusRenderer(method="fast", **PHOTOGRAPH_OPTICS) if renderer is None else renderer
        self.network = network
        self.register_buffer("_device_marker", torch.empty(0), persistent=False)  # follows .to(device)
        self.start: SweepMethod | NetworkMethod | ReducedMethod | PriorMethod = SweepMethod(self.renderer)
        if network is not None:
            self.start = NetworkMethod(network, self.renderer)
            if refiner is not None and refiner.enabled and network.requires_defocus:
                self.start = ReducedMethod(self.start)
        self.to(device).eval()

    @property
    def device(self) -> torch.device:
        """The device it runs on."""
        return self._device_marker.device  # type: ignore[return-value] # a buffer is a tensor

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
        """Make the estimator that ``python -m sfdfd.predict`` uses, with the optics of photographs.

        Args:
            weights: "pretrained" for those in the package, or the path of a checkpoint.
            refine_seconds: time in seconds for the refinement of each stack; 0 for the network's prediction alone.
            working_px: see the class.
            device: "auto", "cpu", "cuda", "mps".
            sigma_scale, weighting, psf, method, linear_light: options of the renderer
                (:class:`sfdfd.optics.options.RenderOptions`) that replace those of a stack; None: the stack's, else those
                of photographs.
            layers, level_px, window_px, smallest_radius_px, copied_radius_px: likewise.

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
        options = _renderer_options(locals())
        preferred = {"method": "fast", **PHOTOGRAPH_OPTICS}
        return cls._load(weights, options, preferred, refine_seconds, working_px, device, own_camera=False)

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
        """Make an estimator from a checkpoint, with the optics and the camera of its training.

        Args:
            checkpoint: its path. None is a plane sweep and "pretrained" the weights in the package; both use the optics of
                photographs, as :meth:`from_pretrained` does.
            refine_seconds, working_px, device: as of :meth:`from_pretrained`.
            sigma_scale, weighting, psf, method, linear_light: as of :meth:`from_pretrained`; None: the stack's, else the
                checkpoint's.
            layers, level_px, window_px, smallest_radius_px, copied_radius_px: likewise.

        Raises:
            InputError: no such file, not one of our checkpoints, or a wrong option.
        """
        options = _renderer_options(locals())
        is_run = checkpoint is not None and str(checkpoint) != "pretrained"
        preferred = None if is_run else {"method": "fast", **PHOTOGRAPH_OPTICS}
        return cls._load(checkpoint, options, preferred, refine_seconds, working_px, device, own_camera=is_run)

    @classmethod
    def _load(
        cls,
        checkpoint: str | Path | None,
        options: dict[str, Any],
        preferred: dict[str, Any] | None,
        refine_seconds: float,
        working_px: int | str,
        device: str,
        own_camera: bool,
    ) -> DefocusEstimator:
        module, renderer = load_model(checkpoint, options, preferred)
        refiner = Refiner(seconds=refine_seconds) if refine_seconds else None
        network, camera = (None, None) if module is None else (module.network, module.camera if own_camera else None)
        blur = {key: value for key, value in options.items() if key in BLUR_KEYS}
        return cls(network, renderer, refiner, working_px, pick_device(device), camera, blur)

    def __repr__(self) -> str:
        blur = BlurModel.of(self.renderer) or type(self.renderer).__name__
        always = f"; always {self.optics}" if self.optics.known() else ""
        lines = [
            f"network: {self._network_name()}",
            f"inverts: {blur}, where a stack does not say how it was blurred{always}",
            f"refinement: {self._refinement_length()}",
            f"working_px: {self.working_px}",
        ]
        if self.camera is not None:
            lines.append(f"camera: {self.camera}, whatever a stack says")
        return "DefocusEstimator(\n" + "".join(f"  {line}\n" for line in lines) + ")"

    def _network_name(self) -> str:
        if self.network is None:
            return "none: a plane sweep"
        if not isinstance(self.network, torch.nn.Module):
            return getattr(self.network, "__name__", type(self.network).__name__)
        count = sum(p.numel() for p in self.network.parameters())
        return type(self.network).__name__ + (f", {count:,} parameters" if count else "")

    def _refinement_length(self) -> str:
        if self.refiner is None or not self.refiner.enabled:
            return "none"
        steps = self.refiner.steps
        return (f"{steps} steps" if steps is not None else f"{self.refiner.seconds:g} s") + " for each stack"

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
        """Estimate depth (metres), AIF, defocus maps and confidence of each aligned stack of a batch.

        Args:
            stack: see :class:`FocalStack`; of one or of several sizes.
            weight: (B,S,H,W) in [0, 1], 0 where a pixel shows nothing; replaces the stack's ``covered``.
            progress: see :class:`sfdfd.refinement.refiner.Refiner`.

        Returns:
            The prediction, on the stack's device. ``rendered`` is None where images were larger than ``working_px``.

        Raises:
            InputError: a pixel is not finite, or is far outside [0, 1].
        """
        if weight is not None:
            stack = replace(stack, covered=weight)
        return Prediction.collate(
            [
                self._predict_one(sample.without_truth(), progress)
                for sample in stack.check().with_camera(self.camera).to(torch.float32)
            ]
        )

    def _predict_one(self, stack: FocalStack, progress: Progress | None) -> Prediction:
        reduced = self.reduced(stack)
        covered = None if stack.covered is None else list(stack.covered[0])
        clipped = list(saturated[0]) if bool((saturated := stack.saturated()).any()) else None
        height, width = stack.images.shape[-2:]
        prediction, refinement = self.solve(reduced, progress)
        return self.at_full_size(
            prediction,
            refinement,
            reduced,
            list(stack.images[0]),
            (height, width),
            stack.camera[0],
            covered,
            clipped,
            defocus=True,
        ).full

    @property
    def refines(self) -> bool:
        """Whether predictions are refined."""
        return self.refiner is not None and self.refiner.enabled

    def with_refinement_seconds(self, seconds: float) -> DefocusEstimator:
        """Return an estimator of the same parts whose refinement takes this time; itself where it does already."""
        if self.refiner is None or self.refiner.seconds == seconds:
            return self
        estimator_copy, twin_refiner = copy.copy(self), copy.copy(self.refiner)
        twin_refiner.seconds, estimator_copy.refiner = seconds, twin_refiner
        return estimator_copy

    def with_prior(self, prior: ExternalDepth | None) -> DefocusEstimator:
        """Return an estimator of the same parts that takes a depth map of one scene into account; itself for None."""
        if prior is None:
            return self
        estimator_copy = copy.copy(self)
        estimator_copy.start = PriorMethod(self.start, prior, self.renderer)
        return estimator_copy

    def reduced(self, stack: FocalStack) -> FocalStack:
        """Return the stack at the working size, or itself where it is no larger."""
        size = tuple(stack.images.shape[-2:])
        largest = float(stack.blur_radii_at_range_px().abs().max())
        return stack.resized(*working_size(*size, longer_px=resolve_working_px(self.working_px, largest, max(size))))

    def at_full_size(
        self,
        prediction: Prediction,
        refinement: Refinement | None,
        reduced: FocalStack,
        slices: Sequence[Tensor | Callable[[], Tensor]],
        size: tuple[int, int],
        camera: Camera,
        covered: Sequence[Tensor] | None = None,
        clipped: Sequence[Tensor] | None = None,
        *,
        defocus: bool = False,
    ) -> Solution:
        """Upsample a prediction at the working size to the size of the images.

        Args:
            prediction, refinement: of :meth:`solve`.
            reduced: the stack at the working size, a batch of one.
            slices: its images at full size, (3,H,W) each in [0, 1], or functions that load them.
            size: (H, W) of the full-size images.
            camera: of the full-size images.
            covered: (H,W) each, 0 where a slice shows nothing; None: it shows something everywhere.
            clipped: (3,H,W) each, true where a colour value is clipped; None: nowhere.
            defocus: whether to compute full-size defocus maps (S times the memory of depth).
        """
        full = prediction
        if tuple(reduced.images.shape[-2:]) != size:
            full = upsample_prediction(
                prediction, reduced, slices, size, camera, covered, defocus=defocus, clipped=clipped
            )
        return Solution(reduced, prediction, full, refinement)

    def solve(self, stack: FocalStack, progress: Progress | None = None) -> tuple[Prediction, Refinement | None]:
        """Predict one stack at the size it has: start, refinement, confidence."""
        device = stack.images.device
        stack = stack.to(torch.float32).to(self.device).with_optics(self.optics)  # not every device has float64
        refinement, refiner, prior = None, self.refiner, self.start if isinstance(self.start, PriorMethod) else None
        if refiner is None or not self.refines:
            prediction = self.start(stack)
        else:
            refiner = refiner if prior is None else prior.joined(refiner)
            prediction, refinement = RefinedMethod(self.start, refiner, self.renderer).solve(stack, progress)
        prediction = with_confidence(prediction, stack, self.renderer)
        prediction = prediction if prior is None else prior.with_std(prediction, stack)
        return clamp_out_of_range(prediction, stack, self.renderer).to(device), refinement


_OPTION_NAMES = (*BLUR_KEYS, "method", "layers", "level_px")


def _renderer_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the renderer options among a function's arguments, without those that are None."""
    return {key: arguments[key] for key in _OPTION_NAMES if arguments[key] is not None}
