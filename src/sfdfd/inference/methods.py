"""Methods: objects that map a focal stack to a prediction, and combinations of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfdfd.inference.upsampling import add_residual_detail
from sfdfd.networks.classical import classical_network, constant_network
from sfdfd.networks.interface import (
    Network,
    NetworkOutput,
    depth_std_from_output,
    predict_output,
    predict_stack,
    render_prediction,
)
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.plane_sweep.cost_volume import LARGE_PX
from sfdfd.plane_sweep.sweep import depth_from_plane_sweep, fuse_sharpest_slices
from sfdfd.refinement.confidence import confidence_of, depth_std_m
from sfdfd.refinement.data_term import MIN_SLICE_WEIGHT
from sfdfd.refinement.refiner import Refinement, Refiner
from sfdfd.refinement.variables import resize_to
from sfdfd.stack import FocalStack, Method, Prediction, renderer_for

if TYPE_CHECKING:
    from sfdfd.datasets.datamodule import FocalStackDataModule

__all__ = ["NetworkMethod", "Progress", "ReducedMethod", "RefinedMethod", "SweepMethod", "baselines", "with_confidence"]

Progress = Callable[[float, int, float], None]
"""Called with (share, step, energy) during refinement."""


@runtime_checkable
class HasAnswer(Protocol):
    """A method that can predict without rendering the prediction."""

    def answer(self, stack: FocalStack) -> NetworkOutput:
        """Return depth, AIF and std."""


def _split_by_optics(
    stack: FocalStack, renderer: Renderer, run: Callable[[FocalStack, Renderer], Prediction]
) -> Prediction:
    """Run a method on each part of a batch that was blurred alike, with a renderer of that blur."""
    parts = stack.check().split_by_optics()
    predictions = [run(part, renderer_for(part, renderer)) for _, part in parts]
    if len(parts) == 1:
        return predictions[0]
    by_index = {
        index: prediction[position]
        for (indices, _), prediction in zip(parts, predictions, strict=True)
        for position, index in enumerate(indices)
    }
    return Prediction.collate([by_index[index] for index in range(len(stack))])


class NetworkMethod:
    """A network, classical depth from focus or a constant, with the renderer that renders its prediction.

    In every method here, the blur that a stack carries (``FocalStack.optics``) replaces that of the renderer.

    Args:
        network: stack -> depth and AIF; a module is put into evaluation mode.
        renderer: the optics where a stack carries none.
        camera: the model's own camera; replaces the camera of each stack.
        device: where a module goes.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.networks import classical_network
        >>> NetworkMethod(classical_network, DefocusRenderer(sigma_scale=0.5))(stack).depth_m.shape
        torch.Size([1, 48, 64])
    """

    def __init__(
        self,
        network: Network,
        renderer: Renderer,
        camera: Camera | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.eval().to(device) if isinstance(network, torch.nn.Module) else network
        self.renderer, self.camera = renderer, camera

    @torch.no_grad()
    def __call__(self, stack: FocalStack) -> Prediction:
        def run(part: FocalStack, renderer: Renderer) -> Prediction:
            return predict_stack(self.network, renderer, part)

        return _split_by_optics(stack.with_camera(self.camera), self.renderer, run)

    @torch.no_grad()
    def answer(self, stack: FocalStack) -> NetworkOutput:
        """Return depth, AIF and std without rendering them."""
        return predict_output(self.network, renderer_for(stack.check(), self.renderer), stack.with_camera(self.camera))


class SweepMethod:
    """A plane sweep (:mod:`sfdfd.plane_sweep.sweep`): the start of refinement where there is no network.

    Args:
        renderer, camera: as of :class:`NetworkMethod`.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> SweepMethod(DefocusRenderer(sigma_scale=0.5))(stack).depth_std_m.shape
        torch.Size([1, 48, 64])
    """

    def __init__(self, renderer: Renderer, camera: Camera | None = None) -> None:
        self.renderer, self.camera = renderer, camera

    @torch.no_grad()
    def __call__(self, stack: FocalStack) -> Prediction:
        def run(part: FocalStack, renderer: Renderer) -> Prediction:
            return render_prediction(NetworkOutput(*depth_from_plane_sweep(part, renderer)), renderer, part)

        return _split_by_optics(stack.with_camera(self.camera), self.renderer, run)

    @torch.no_grad()
    def answer(self, stack: FocalStack) -> NetworkOutput:
        """Return depth, AIF and std without rendering them."""
        return NetworkOutput(
            *depth_from_plane_sweep(stack.check().with_camera(self.camera), renderer_for(stack, self.renderer))
        )


class ReducedMethod:
    """Another method on images of at most ``LARGE_PX`` pixels, upsampled.

    On larger images, refinement makes better use of the time that a network takes for the finest detail.

    Args:
        method: the other method, with each stack's own camera.
    """

    def __init__(self, method: NetworkMethod | SweepMethod) -> None:
        self.method, self.renderer = method, method.renderer

    @torch.no_grad()
    def __call__(self, stack: FocalStack) -> Prediction:
        def run(part: FocalStack, renderer: Renderer) -> Prediction:
            return render_prediction(self.answer(part), renderer, part)

        return _split_by_optics(stack, self.renderer, run)

    @torch.no_grad()
    def answer(self, stack: FocalStack) -> NetworkOutput:
        """Return depth, AIF and std without rendering them; the AIF has the detail of all pixels."""
        stack = stack.in_full_precision()
        height, width = stack.images.shape[-2:]
        factor = math.sqrt(LARGE_PX / (height * width))
        if factor >= 1:
            return self.method.answer(stack)
        output = self.method.answer(stack.resized(math.floor(height * factor), math.floor(width * factor)))

        def upsampled(values: Tensor) -> Tensor:
            return resize_to(values[:, None], stack.images[:, 0])[:, 0]

        depth_m = 1 / upsampled(1 / output.depth_m)
        std = None if output.std is None else upsampled(output.std)
        return NetworkOutput(depth_m, fuse_sharpest_slices(stack, depth_m), std)


class RefinedMethod:
    """Another method's prediction, optimised through the renderer.

    Args:
        start: the method whose prediction is the start.
        refiner: settings and duration of the refinement.
        renderer, camera: as of :class:`NetworkMethod`.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> renderer = DefocusRenderer(sigma_scale=0.5, method="fast")
        >>> prediction, refinement = RefinedMethod(SweepMethod(renderer), Refiner(steps=3), renderer).solve(stack)
        >>> refinement.steps, refinement.objective <= refinement.objective_start
        (3, True)
    """

    def __init__(self, start: Method, refiner: Refiner, renderer: Renderer, camera: Camera | None = None) -> None:
        self.start, self.refiner, self.renderer, self.camera = start, refiner, renderer, camera

    def __call__(self, stack: FocalStack) -> Prediction:
        return _split_by_optics(stack, self.renderer, lambda part, renderer: self.solve(part)[0])

    def solve(self, stack: FocalStack, progress: Progress | None = None) -> tuple[Prediction, Refinement]:
        """Refine stacks that were blurred alike; return the prediction and the record of the refinement.

        Where the model explains a stack well, the residual detail of the sharpest slices goes into the AIF
        (:func:`sfdfd.inference.upsampling.add_residual_detail`). Elsewhere it stems from wrong blur or alignment.
        """
        stack, renderer = stack.check().with_camera(self.camera).in_full_precision(), renderer_for(stack, self.renderer)
        started = time.monotonic()
        depth_m, aif, depth_std_m = self._start_values(stack)
        spent_s = time.monotonic() - started
        refinement = self.refiner(
            stack, renderer, depth_m, aif, spent_s=spent_s, depth_std_m=depth_std_m, progress=progress
        )
        with torch.no_grad():
            prediction = render_prediction(
                NetworkOutput(refinement.depth_m, refinement.aif), renderer, stack, refinement.rendered
            )
            if refinement.explained is None:
                return prediction, refinement
            share = ((refinement.explained - MIN_SLICE_WEIGHT) / (1 - MIN_SLICE_WEIGHT)).square()
            return replace(prediction, aif=add_residual_detail(stack, prediction, share)), refinement

    def _start_values(self, stack: FocalStack) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return depth, AIF and standard deviation of depth of the start, without rendering them if possible."""
        if isinstance(self.start, HasAnswer):
            output = self.start.answer(stack)
            return output.depth_m, output.aif, depth_std_from_output(output, stack)
        prediction = self.start(stack)
        return prediction.depth_m, prediction.aif, prediction.depth_std_m


def with_confidence(prediction: Prediction, stack: FocalStack, renderer: Renderer) -> Prediction:
    """Add standard deviation and confidence to a prediction.

    The standard deviation is the network's own where it has one, else that of :mod:`sfdfd.refinement.confidence`.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> renderer = DefocusRenderer(sigma_scale=0.5)
        >>> prediction = with_confidence(SweepMethod(renderer)(stack), stack, renderer)
        >>> bool((prediction.confidence > 0).all() and (prediction.confidence <= 1).all())
        True
    """
    std = prediction.depth_std_m
    if std is None:
        renderer = renderer_for(stack, renderer)
        std = depth_std_m(stack, renderer, prediction.depth_m, prediction.aif, prediction.rendered)
    return replace(prediction, depth_std_m=std, confidence=confidence_of(std, prediction.depth_m))


def baselines(datamodule: FocalStackDataModule, split: str, renderer: Renderer, **options: Any) -> Mapping[str, Method]:
    """Return the baselines of every table: "classical", and "constant" where the split has depth and a constant is known.

    Examples:
        >>> from sfdfd.datasets.synthetic import ProceduralDataModule
        >>> from sfdfd.optics import DefocusRenderer
        >>> renderer, camera = DefocusRenderer(sigma_scale=0.5), Camera(0.05, 8.0, 1.2e-5)
        >>> scenes = {"train_length": 2, "val_length": 1, "test_length": 1, "height": 48, "width": 64}
        >>> optics = {"renderer": renderer, "camera": camera, "focus_distances_m": [1, 2, 4]}
        >>> data = ProceduralDataModule(**scenes, **optics, near_m=0.5, far_m=10.0)
        >>> sorted(baselines(data, "test", renderer))
        ['classical', 'constant']
    """
    methods: dict[str, Method] = {}
    if datamodule.has_depth(split) and (constant := datamodule.constant_baseline_depth_m()) is not None:
        methods["constant"] = NetworkMethod(constant_network(constant), renderer, **options)
    return {**methods, "classical": NetworkMethod(classical_network, renderer, **options)}
