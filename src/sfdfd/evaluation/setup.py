"""Choose the methods of an evaluation and describe the model."""

from __future__ import annotations

from typing import Any

import torch

from sfdfd.datasets.datamodule import FocalStackDataModule
from sfdfd.evaluation.tables import MAIN
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.methods import NetworkMethod, baselines
from sfdfd.optics.render import Renderer
from sfdfd.refinement.refiner import Refiner
from sfdfd.stack import Method
from sfdfd.training.checkpoints import TrainedModel

__all__ = ["evaluation_methods", "model_camera", "needs_its_training_blur"]


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
