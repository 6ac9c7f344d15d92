"""The inference object: a focal stack of any size in, a Prediction out.

estimator = DefocusEstimator.from_checkpoint("pretrained", refine_seconds=20)
stack = FocalStack.single(images, [0.5, 1.0, 2.0], Camera(0.05, 8.0, 1.2e-5), near_m=0.3, far_m=4.0)
prediction = estimator.predict(stack)
prediction.depth_m, prediction.aif, prediction.confidence
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from kornia.filters import box_blur
from torch import Tensor

from sfdfd.capture import working_size
from sfdfd.confidence import confidence_of, depth_std_m
from sfdfd.errors import InputError
from sfdfd.networks.baseline import classical_network
from sfdfd.networks.interface import NetworkOutput, predict_stack
from sfdfd.optics.render import DefocusRenderer, defocus_map_px
from sfdfd.refine import Refinement, Refiner
from sfdfd.runs import load_model, pick_device
from sfdfd.stack import FocalStack, Prediction

__all__ = ["DefocusEstimator", "blend_slices", "guided_upsampling"]

UNEXPLAINED = 0.02
"""Residual from which the slices count more than the model, of a range of 1."""


class DefocusEstimator:
    """Depth, all-in-focus image and confidence of focal stacks.

    Images larger than ``working_px`` are worked on at that size; depth returns to full size along the edges of the AIF,
    which is blended from the full-size slices.

    Args:
        network: stack -> depth and AIF; classical depth from focus by default.
        renderer: the model's optics.
        refiner: per-scene refinement; None for none.
        working_px: longer side of the images that are worked on.
        device: where.
    """

    def __init__(
        self,
        network: Callable[..., NetworkOutput] = classical_network,
        renderer: DefocusRenderer | None = None,
        refiner: Refiner | None = None,
        working_px: int = 512,
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(working_px, bool) or not isinstance(working_px, int) or working_px < 32:
            raise InputError(f"expected a working size of 32 pixels or more, got {working_px} (working_px)")
        self.device = torch.device(device)
        self.network = network.eval().to(self.device) if isinstance(network, torch.nn.Module) else network
        self.renderer = renderer or DefocusRenderer(sigma_scale=0.5)
        self.refiner, self.working_px = refiner, working_px

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path | None = "pretrained",
        *,
        refine_seconds: float = 0.0,
        working_px: int = 512,
        device: str = "auto",
        **optics: float | str | bool,
    ) -> DefocusEstimator:
        """An estimator of a trained run.

        Args:
            checkpoint: its path; "pretrained" for the weights that the package carries; None for classical depth from focus.
            refine_seconds: time for the refinement of each stack.
            working_px: see the class.
            device: "auto", "cpu", "cuda", "mps".
            optics: options of the renderer that differ from the checkpoint's, e.g. ``sigma_scale=1.0``.

        Raises:
            InputError: no such file, or not one of our checkpoints.
        """
        module, renderer = load_model(checkpoint, optics)
        network = classical_network if module is None else module.network
        refiner = Refiner(seconds=refine_seconds) if refine_seconds else None
        return cls(network, renderer, refiner, working_px, pick_device(device))

    def predict(
        self,
        stack: FocalStack,
        *,
        weight: Float[Tensor, "b s h w"] | None = None,
        progress: Callable[[float, int, float], None] | None = None,
    ) -> Prediction:
        """Depth (metres), AIF, defocus maps and confidence of a batch of aligned stacks, one after the other.

        Args:
            stack: see :class:`FocalStack`.
            weight: (B,S,H,W) weight of each measured pixel, 0 where nothing was measured.
            progress: see :class:`sfdfd.refine.Refiner`.

        Returns:
            On the stack's device. ``rendered`` is None where images were larger than ``working_px``.
        """
        results = []
        for index in range(len(stack)):
            one = stack[index].without_truth()
            measured = None if weight is None else weight[index : index + 1][:, stack.slice_mask[index]]
            small = self.reduced(one)
            reach = None if measured is None else F.interpolate(measured, small.images.shape[-2:], mode="area")
            result, _ = self.solve(small, reach, progress)
            if small is not one:
                result = self.enlarged(result, small, list(one.images[0]), one.camera[0])
            results.append(result)
        if len(results) == 1:
            return results[0]
        slices = stack.images.shape[1]

        def joined(key: str) -> Tensor | None:
            values = [getattr(result, key) for result in results]
            if any(value is None for value in values):
                return None
            if key in ("defocus_px", "rendered"):  # padding slices are 0
                values = [F.pad(v, (0, 0) * (v.ndim - 2) + (0, slices - v.shape[1])) for v in values]
            return torch.cat(values)

        return Prediction(
            **{key: joined(key) for key in ("depth_m", "aif", "defocus_px", "rendered", "confidence", "depth_std_m")}
        )

    def reduced(self, stack: FocalStack) -> FocalStack:
        """The stack at the working size; itself where it is no larger."""
        height, width = stack.images.shape[-2:]
        size = working_size(height, width, self.working_px)
        if size == (height, width):
            return stack
        images = F.interpolate(stack.images.flatten(0, 1), size, mode="area").unflatten(0, stack.images.shape[:2])
        factor = (size[0] * size[1] / (height * width)) ** 0.5
        return replace(stack, images=images, camera=tuple(camera.resized(factor) for camera in stack.camera))

    def solve(
        self,
        stack: FocalStack,
        weight: Float[Tensor, "b s h w"] | None = None,
        progress: Callable[[float, int, float], None] | None = None,
    ) -> tuple[Prediction, Refinement | None]:
        """One stack at the size it has: start, refinement, confidence."""
        home = stack.images.device
        stack = stack.to(self.device)
        weight = None if weight is None else weight.to(self.device)
        with torch.no_grad():
            prediction = predict_stack(self.network, self.renderer, stack)
        refinement = None
        if self.refiner is not None and self.refiner.enabled:
            refinement = self.refiner(
                stack, self.renderer, prediction.depth_m, prediction.aif, weight=weight, progress=progress
            )
            with torch.no_grad():
                prediction = predict_stack(lambda *_, **__: refinement, self.renderer, stack)
                aif = mended_aif(stack, prediction, weight)
                prediction = replace(prediction, aif=aif)
        std = depth_std_m(stack, self.renderer, prediction.depth_m, prediction.aif, prediction.rendered)
        prediction = replace(prediction, depth_std_m=std, confidence=confidence_of(std, prediction.depth_m))
        return Prediction(**{key: value.to(home) for key, value in vars(prediction).items()}), refinement

    def enlarged(
        self,
        prediction: Prediction,
        stack: FocalStack,
        slices: Sequence[Tensor | Callable[[], Tensor]],
        camera,
        reach: Sequence[Tensor] | None = None,
        defocus: bool = True,
    ) -> Prediction:
        """A prediction at working size brought to the size of the full slices (a batch of one).

        Args:
            prediction, stack: at the working size.
            slices: (3,H,W) each in [0, 1], or functions that make them, so that not all need to be in memory.
            camera: of the full slices.
            reach: (H,W) each, 0 where a slice shows nothing.
            defocus: whether to keep the (1,S,H,W) defocus maps, S times the depth's memory.
        """
        focus = stack.focus_distances_m[0]
        low, high = float(1 / stack.far_m), float(1 / stack.near_m)
        size = (slices[0]() if callable(slices[0]) else slices[0]).shape[-2:]
        inverse = (1 / prediction.depth_m)[:, None]
        full = F.interpolate(inverse, size, mode="bilinear", align_corners=False)
        aif = blend_slices(slices, (1 / full)[0, 0], focus, camera, reach)
        full = guided_upsampling(inverse, rgb_to_grayscale(prediction.aif), rgb_to_grayscale(aif[None]), 4, 1e-3)
        depth_m = 1 / full[:, 0].clamp(low, high)
        aif = blend_slices(slices, depth_m[0], focus, camera, reach)[None]
        # what the slices have sharp, and from the AIF at working size what they all have blurred
        lacking = prediction.aif - F.interpolate(aif, prediction.aif.shape[-2:], mode="area")
        lacking = F.interpolate(lacking, size, mode="bilinear", align_corners=False)
        blur = _smallest_blur_px(depth_m[0], focus, camera).square()
        aif = aif.addcmul_(lacking, blur / (blur + 1)).clamp_(0, 1)
        std = F.interpolate(prediction.depth_std_m[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        confidence = F.interpolate(prediction.confidence[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        maps = defocus_map_px(depth_m, focus[None], camera) if defocus else prediction.defocus_px
        return Prediction(depth_m, aif, maps, None, confidence, std)


def blend_slices(
    slices: Sequence[Tensor | Callable[[], Tensor]],
    depth_m: Float[Tensor, "h w"],
    focus_distances_m: Float[Tensor, "s"],
    camera,
    reach: Sequence[Tensor] | None = None,
) -> Float[Tensor, "3 h w"]:
    """An all-in-focus image of the slices alone: at each pixel the ones that its depth says are sharpest.

    Weights exp(-(r^2 - r_min^2) / (2 t^2)), r the blur radius in pixels and t = 0.7 px.
    """
    smallest = _smallest_blur_px(depth_m, focus_distances_m, camera)
    total, weights = None, None
    for index, (item, focus) in enumerate(zip(slices, focus_distances_m, strict=True)):
        image = item() if callable(item) else item
        radius = camera.blur_radius_px(depth_m, focus)
        weight = torch.exp((smallest.square() - radius.square()) / (2 * 0.7**2)) + 1e-9
        if reach is not None:
            weight = weight * (reach[index] + 1e-6)
        total = weight * image if total is None else total.addcmul_(weight.expand_as(image), image)
        weights = weight if weights is None else weights.add_(weight)
    return total / weights


def _smallest_blur_px(depth_m: Tensor, focus_distances_m: Tensor, camera) -> Tensor:
    smallest = camera.blur_radius_px(depth_m, focus_distances_m[0])
    for focus in focus_distances_m[1:]:
        smallest = torch.minimum(smallest, camera.blur_radius_px(depth_m, focus))
    return smallest


def mended_aif(
    stack: FocalStack, prediction: Prediction, weight: Float[Tensor, "b s h w"] | None = None
) -> Float[Tensor, "b 3 h w"]:
    """The AIF, and where the model does not explain the slices (beside occlusion edges, where something moved), the slices'
    own sharpest pixels instead: those need depth alone, not the renderer.

    The share of the slices is m / (m + 0.02^2), m the mean square of the residual in a window of 5 pixels.
    """
    measured = stack.slice_mask[:, :, None, None].to(stack.images).expand(-1, -1, *stack.images.shape[-2:])
    measured = measured if weight is None else measured * weight
    residual = (measured[:, :, None] * (prediction.rendered - stack.images).square()).sum((1, 2), keepdim=False)
    residual = box_blur((residual / (3 * measured.sum(1).clamp_min(1e-6)))[:, None], 5, separable=True)
    share = residual / (residual + UNEXPLAINED**2)
    slices = torch.stack(
        [
            blend_slices(list(images), depth_m, focus, camera, list(reach))
            for images, depth_m, focus, camera, reach in zip(
                stack.images, prediction.depth_m, stack.focus_distances_m, stack.camera, measured, strict=True
            )
        ]
    )
    return torch.lerp(prediction.aif, slices, share)


def guided_upsampling(
    values: Float[Tensor, "1 1 h w"],
    guide: Float[Tensor, "1 1 h w"],
    full_guide: Float[Tensor, "1 1 y x"],
    radius_px: int,
    eps: float,
) -> Float[Tensor, "1 1 y x"]:
    """Fast guided filter (He and Sun, arXiv 1505.00996): local linear models ``values = a guide + b``, enlarged and applied.

    Args:
        values, guide: at the small size.
        full_guide: at the full size.
        radius_px: of the window at the small size.
        eps: variance of the guide below which it is not followed.
    """

    def mean(x: Tensor) -> Tensor:
        return box_blur(x, 2 * radius_px + 1, separable=True)

    guide_mean, values_mean = mean(guide), mean(values)
    slope = (mean(guide * values) - guide_mean * values_mean) / (mean(guide * guide) - guide_mean.square() + eps)
    offset = values_mean - slope * guide_mean
    slope, offset = (
        F.interpolate(mean(c), full_guide.shape[-2:], mode="bilinear", align_corners=False) for c in (slope, offset)
    )
    return slope.mul_(full_guide).add_(offset)
