"""A start that takes a depth map from elsewhere into account, for a prediction with ``prior=``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError, checked_choice
from sfdfd.inference.methods import HasAnswer
from sfdfd.inference.monocular import monocular_depth, require_transformers
from sfdfd.inference.prior import Alignment, align_prior, evidence, fused
from sfdfd.io.depth_maps import checked_depth_values, read_depth_map
from sfdfd.networks.interface import NetworkOutput, render_prediction
from sfdfd.optics.render import Renderer
from sfdfd.refinement.confidence import confidence_of
from sfdfd.refinement.prior_term import PriorTerm
from sfdfd.refinement.refiner import Refiner
from sfdfd.refinement.variables import EnergyTerm, Level
from sfdfd.stack import FocalStack, Prediction, renderer_for, resize_area

__all__ = ["MODEL", "PRIOR_KINDS", "ExternalDepth", "PriorMethod"]

PRIOR_KINDS = ("auto", "depth", "inverse_depth")
MODEL = "transformers:"
LARGEST_STRETCH = 1.03
"""Largest ratio between the aspects of a map and of the photographs."""


class ExternalDepth:
    """A depth map of another program, or a monocular network that makes one from the all-in-focus image.

    Args:
        prior: a file or the folder of a prediction (:mod:`sfdfd.io.depth_maps`), (H,W) values, or "transformers:MODEL_ID".
        kind: "depth", "inverse_depth", or "auto": what the file says, else what fits better.
        size: (height, width) of the photographs, whose aspect the map must have; None checks nothing.

    Raises:
        InputError: there is no such map, or it shows another frame.

    Examples:
        >>> ExternalDepth(np.linspace(1, 3, 48 * 64).reshape(48, 64), "depth").source
        'prior'
    """

    def __init__(
        self, prior: str | Path | Tensor | np.ndarray, kind: str = "auto", size: tuple[int, int] | None = None
    ) -> None:
        self.kind: str = checked_choice(kind, "prior_kind", PRIOR_KINDS)
        self.model_id: str | None = None
        self.values: np.ndarray | None = None
        self.source = str(prior) if isinstance(prior, (str, Path)) else "prior"
        if isinstance(prior, str) and prior.startswith(MODEL):
            self.model_id = prior.removeprefix(MODEL)
            require_transformers()
            return
        if isinstance(prior, (str, Path)):
            read = read_depth_map(prior)
            self.values, self.source = read.values, read.source
            self.kind = read.kind if kind == "auto" and read.kind is not None else kind
        else:
            values = prior.detach().cpu().numpy() if isinstance(prior, Tensor) else prior
            self.values = checked_depth_values(values, "prior")
        if size is not None:
            _check_aspect(self.values.shape, size, self.source)

    def at_size(self, aif: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "h w"]:
        """Return the values at the size of the image; NaN where unknown, inf where infinitely far."""
        height, width = aif.shape[-2:]
        if self.values is None:
            assert self.model_id is not None
            return torch.from_numpy(monocular_depth(self.model_id, aif[0], aif.device)).to(aif)
        values = torch.from_numpy(np.ascontiguousarray(self.values)).to(aif)
        if values.shape == (height, width):
            return values
        _check_aspect((values.shape[0], values.shape[1]), (height, width), self.source)
        return _resized(values, height, width)


def _check_aspect(shape: tuple[int, ...], size: tuple[int, int], source: str) -> None:
    stretch = shape[1] / shape[0] * size[0] / size[1]
    if not 1 / LARGEST_STRETCH <= stretch <= LARGEST_STRETCH:
        raise InputError(
            f"{source}: {shape[1]} x {shape[0]} has not the shape of the photographs ({size[1]} x {size[0]}); the map must "
            "show what they show, upright and uncropped. Make it from aif.png of a first prediction"
        )


def _resized(values: Tensor, height: int, width: int) -> Tensor:
    """Average finite values over areas when reducing, interpolate when enlarging; the nearest value elsewhere."""
    finite = values.isfinite()
    filled = torch.where(finite, values, 0.0)[None, None]
    if values.shape[0] > height:
        weight = resize_area(finite.to(values)[None, None], height, width)
        resized = resize_area(filled, height, width)
    else:
        weight, resized = (
            F.interpolate(part, (height, width), mode="bilinear", align_corners=False)
            for part in (finite.to(values)[None, None], filled)
        )
    nearest = F.interpolate(values[None, None], (height, width), mode="nearest-exact")[0, 0]
    return torch.where(weight[0, 0] > 0.5, (resized / weight.clamp_min(1e-6))[0, 0], nearest)


class PriorMethod:
    """Another method's prediction, fused with a depth map from elsewhere: a method for one stack at a time.

    Args:
        start: the method whose prediction meets the map.
        prior: the map.
        renderer: the optics where a stack carries none.

    Attributes:
        alignment: how the map was aligned, after a prediction.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> from sfdfd.inference.methods import SweepMethod
        >>> from sfdfd.optics import DefocusRenderer
        >>> stack, renderer = example_stack(), DefocusRenderer(sigma_scale=0.5)
        >>> method = PriorMethod(SweepMethod(renderer), ExternalDepth(stack.depth_m[0], "depth"), renderer)
        >>> method(stack).depth_m.shape, method.alignment.is_used
        (torch.Size([1, 48, 64]), True)
    """

    def __init__(self, start: HasAnswer, prior: ExternalDepth, renderer: Renderer) -> None:
        self.start, self.prior, self.renderer = start, prior, renderer
        self.alignment: Alignment | None = None

    @torch.no_grad()
    def __call__(self, stack: FocalStack) -> Prediction:
        return render_prediction(self.answer(stack), renderer_for(stack, self.renderer), stack)

    @torch.no_grad()
    def answer(self, stack: FocalStack) -> NetworkOutput:
        """Return depth, AIF and std without rendering them."""
        output = self.start.answer(stack)
        values = self.prior.at_size(output.aif)
        start = evidence(stack, renderer_for(stack, self.renderer), output)
        self.alignment = align_prior(values, self.prior.kind, start, stack.coverage().amin(1))
        return fused(output, start, self.alignment, stack) if self.alignment.is_used else output

    def joined(self, refiner: Refiner) -> Refiner:
        """Return a copy of a refiner whose energy holds the map, too."""
        joined, build_terms = copy.copy(refiner), refiner.terms

        def with_prior(level: Level) -> list[EnergyTerm]:
            terms = build_terms(level)
            if self.alignment is not None and self.alignment.is_used:
                terms = [*terms, PriorTerm(level, self.alignment.prior)]
            return terms

        joined.terms = with_prior
        return joined

    def with_std(self, prediction: Prediction, stack: FocalStack) -> Prediction:
        """Return a prediction whose std and confidence know the map, where the map decides."""
        if self.alignment is None or not self.alignment.is_used or prediction.depth_std_m is None:
            return prediction
        prior = self.alignment.prior
        span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
        std = torch.minimum(prediction.depth_std_m, prior.std * span * prediction.depth_m.square())
        std = torch.lerp(prediction.depth_std_m, std, prior.share)
        return replace(prediction, depth_std_m=std, confidence=confidence_of(std, prediction.depth_m))

    def facts(self) -> dict[str, Any]:
        """Return what ``prediction.json`` says about the map."""
        assert self.alignment is not None
        facts = {"source": self.prior.source, **self.alignment.facts()}
        return {**facts, "sentence": _sentence(facts)}


def _sentence(facts: Mapping[str, Any]) -> str:
    """Return in words what the map was good for."""
    explained = f"{100 * max(0.0, facts['explained_share']):.0f} % of the depth where the blur is sure"
    if not facts["used"]:
        return f"{facts['source']} explains {explained}: too little, so it is not used"
    kind = facts["kind"].replace("_", " ")
    return (
        f"{facts['source']} ({kind}, aligned by a {facts['curve']}) explains {explained}; it decides on "
        f"{100 * facts['decides_on_share']:.0f} % of the picture"
    )
