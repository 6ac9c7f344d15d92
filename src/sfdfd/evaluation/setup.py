"""Choose the methods of an evaluation and describe the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.evaluation.tables import MAIN
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import NetworkMethod, SweepMethod, baselines
from sfdfd.networks.classical import classical_network, constant_network
from sfdfd.networks.focus_operators import FOCUS_OPERATORS, sharpest_slice_network
from sfdfd.optics.render import Renderer
from sfdfd.refinement.refiner import Refiner
from sfdfd.stack import FocalStack, Method, Prediction
from sfdfd.training.checkpoints import TrainedModel

__all__ = ["MIDDLE", "evaluation_methods", "known_methods", "model_camera", "needs_its_training_blur"]

MIDDLE = "constant"
DEFAULT_SECONDS = 20.0
"""Of refinement, where ``refine.seconds`` does not say it."""


def evaluation_methods(
    module: TrainedModel | None,
    renderer: Renderer,
    datamodule: FocalStackDataModule,
    split: str,
    refiner: Refiner,
    working_px: int | str,
    device: torch.device,
) -> dict[str, Method]:
    """Return the network, the baselines and refinement, as far as there is a model and refinement is enabled.

    Args:
        module: the trained model; None evaluates the baselines.
        renderer: the model's optics.
        datamodule, split: decide which baselines there are.
        refiner: per-scene refinement.
        working_px: of refinement, see :class:`sfdfd.inference.estimator.DefocusEstimator`.
        device: where the methods run.
    """
    network, camera = (None, None) if module is None else (module.network, module.camera)
    methods: dict[str, Method] = {}
    if network is not None:
        methods[MAIN] = NetworkMethod(network, renderer, camera, device)
    methods |= baselines(datamodule, split, renderer, device=device)
    if refiner.enabled:
        methods["refined"] = DefocusEstimator(network, renderer, refiner, working_px, device, camera)
    return methods


def model_camera(module: TrainedModel) -> dict[str, Any]:
    """Return the camera that the model assumes, or was trained with."""
    return module.run_config["optics"]["camera"] if module.camera is None else module.camera.as_dict()


def needs_its_training_blur(module: TrainedModel | None) -> bool:
    """Whether the blur of the training stacks is part of the network's weights."""
    return module is not None and not module.network.requires_defocus


def known_methods(
    load: Callable[[], TrainedModel], renderer: Renderer, refiner: Refiner, working_px: int | str, device: torch.device
) -> Mapping[str, Callable[[], Method]]:
    """Return what makes the package's methods, by the names that ``methods=[...]`` takes.

    Args:
        load: returns the trained model of "pretrained" and "refined".
        renderer: its optics, where a stack carries none.
        refiner: of "refined"; for 20 s where it has no duration.
        working_px: of "refined".
        device: where they run.
    """
    if not refiner.enabled:
        refiner = Refiner(seconds=DEFAULT_SECONDS)

    def pretrained() -> Method:
        module = load()
        return NetworkMethod(module.network, renderer, module.camera, device)

    def refined() -> Method:
        module = load()
        return DefocusEstimator(module.network, renderer, refiner, working_px, device, module.camera)

    def middle(stack: FocalStack) -> Prediction:
        depth_m = float((stack.near_m * stack.far_m).sqrt())
        return NetworkMethod(constant_network(depth_m), renderer)(stack)

    known: dict[str, Callable[[], Method]] = {
        MIDDLE: lambda: middle,
        "classical": lambda: NetworkMethod(classical_network, renderer),
        "sweep": lambda: SweepMethod(renderer),
        "pretrained": pretrained,
        "refined": refined,
    }
    for operator in FOCUS_OPERATORS:
        known[operator] = lambda operator=operator: NetworkMethod(sharpest_slice_network(operator), renderer)
    return known
