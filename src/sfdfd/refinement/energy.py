"""The energy that refinement minimizes: a sum of terms, at one image size.

    E = data term + trust in the start + image priors + depth prior

Each term has a module, whose docstring has its formula and its keys in
:class:`~sfdfd.refinement.settings.RefinementSettings`:
:mod:`~sfdfd.refinement.data_term`, :mod:`~sfdfd.refinement.start_term`, :mod:`~sfdfd.refinement.image_prior` and
:mod:`~sfdfd.refinement.depth_prior`. :meth:`Energy.__call__` adds them up. The unknowns (:class:`Variables`) are the
normalized inverse depth, in which blur is linear and a plane is a plane, its slopes, the AIF, the colours of hidden
surfaces, and the lens. docs/explanation/refinement.md explains them one by one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.optics.render import Renderer
from sfdfd.plane_sweep.cost_volume import LARGE_PX
from sfdfd.plane_sweep.sweep import fuse_sharpest_slices
from sfdfd.refinement.data_term import DataTerm, slice_weights
from sfdfd.refinement.depth_prior import DepthPrior
from sfdfd.refinement.image_prior import ImagePrior
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.scene_model import SceneModel
from sfdfd.refinement.settings import RefinementSettings, settings_for
from sfdfd.refinement.start_term import StartTerm
from sfdfd.refinement.variables import EnergyTerm, Level, Stage, Start, TermBuilder, Variables, halve, resize_to
from sfdfd.stack import FocalStack

__all__ = ["Energy", "default_terms", "differentiable_renderer", "energy_of"]


def default_terms(level: Level, depth_prior: EnergyTerm | None = None) -> list[EnergyTerm]:
    """Build the terms of one level.

    To use another term, write a function like this and give it to ``Refiner(terms=...)``. Divide a prior by
    ``level.explained`` to keep its balance with the data term.

    Args:
        level: the problem at one size.
        depth_prior: replaces :class:`DepthPrior`.

    Examples:
        >>> def with_flat_prior(level):
        ...     def flat(variables, stage):
        ...         return 0.1 * variables.inverse_depth_01.var((1, 2)) / level.explained
        ...
        ...     return default_terms(level, depth_prior=flat)
        >>> from sfdfd import DefocusEstimator, Refiner
        >>> estimator = DefocusEstimator(refiner=Refiner(seconds=10, terms=with_flat_prior))
    """
    weight = level.settings.aif_smoothness
    priors = [ImagePrior(weight, hidden=True), ImagePrior(weight), depth_prior or DepthPrior(level)]
    return [DataTerm(level), StartTerm(level), *priors]


class Energy:
    """The sum of energy terms at one size, and the moves of a solution between sizes.

    Args:
        level: the problem at that size.
        build_terms: makes its terms.
    """

    def __init__(self, level: Level, build_terms: TermBuilder = default_terms) -> None:
        self.level, self.build_terms = level, build_terms
        self.model, self.terms = SceneModel(level), build_terms(level)

    @classmethod
    def at_full_size(
        cls,
        stack: FocalStack,
        renderer: Renderer,
        settings: RefinementSettings,
        start: Start | None = None,
        build_terms: TermBuilder = default_terms,
    ) -> Energy:
        """Return the energy of a stack, all slices weighted alike."""
        span_px = _blur_span_px(stack)
        level = Level(stack, renderer, settings, start, 1.0, torch.ones_like(stack.near_m), span_px, span_px)
        return cls(level, build_terms)

    def __call__(self, variables: Variables, stage: Stage | None = None) -> Float[Tensor, "b"]:
        """Return the energy of each sample."""
        stage = stage or Stage()
        first, *rest = self.terms
        energy = first(variables, stage)
        for term in rest:
            energy = energy + term(variables, stage)
        assert isinstance(energy, Tensor)
        return energy

    def with_slice_weights(self, variables: Variables) -> Energy:
        """Return this energy with slices weighted by the residuals of an answer, see :func:`slice_weights`.

        Images of more than ``LARGE_PX`` pixels are judged at half the size, which costs a twelfth.
        """
        expected = self.level.settings.expected_residual
        if not expected:
            return self
        judge, answer = self, variables
        if variables.aif[0, 0].numel() > LARGE_PX:
            judge = self.halved()
            answer = judge.reduced(self.model.depth_m(variables.inverse_depth_01), variables.aif, variables.lens)
        with torch.no_grad():
            residual = DataTerm(judge.level).residual(answer)
        weights, explained = slice_weights(residual, judge.level.stack, expected)
        return Energy(replace(self.level, slice_weights=weights, explained=explained), self.build_terms)

    def variables(self, depth_m: Tensor, aif: Tensor, lens: Lens) -> Variables:
        """Return an answer at this size as variables."""
        stack = self.level.stack
        inverse_depth_01 = normalized_inverse_depth(depth_m, stack.near_m, stack.far_m).clamp(0, 1)
        return Variables(inverse_depth_01, aif.clone(), lens.clone())

    def halved(self) -> Energy:
        """Return the energy at half the size, with the same slice weights and trust in the start."""
        level = self.level
        stack, start = level.stack, level.start
        if start is not None:
            start = Start(*(halve(value[:, None])[:, 0] for value in start))
        images, saturated = self._halve_light(stack.images), stack.saturated()
        clipped: Tensor | None = None
        if saturated.any():
            clipped = F.max_pool2d(saturated.flatten(0, 1).to(images), 2, ceil_mode=True).bool()
            clipped = clipped.unflatten(0, images.shape[:2])
        half = stack.with_resized_images(images, halve(stack.coverage()), clipped)
        return Energy(replace(level, stack=half, start=start, blur_span_px=_blur_span_px(half)), self.build_terms)

    def reduced(self, depth_m: Tensor, aif: Tensor, lens: Lens) -> Variables:
        """Bring an answer at full size to this size."""
        while aif.shape[-1] > self.level.stack.images.shape[-1]:
            depth_m, aif = 1 / halve(1 / depth_m[:, None])[:, 0], self._halve_light(aif)
        return self.variables(depth_m, aif, lens)

    def detailed(self, coarse: Variables, coarse_energy: Energy) -> Variables:
        """Bring a coarser solution to this size: depth enlarged, the AIF with the slices' detail at that depth."""
        stack = self.level.stack
        inverse_depth_01 = resize_to(coarse.inverse_depth_01[:, None], stack.images[:, 0])[:, 0]
        aif = fuse_sharpest_slices(stack, self.model.depth_m(inverse_depth_01))
        reduced = aif
        while reduced.shape[-1] > coarse_energy.level.stack.images.shape[-1]:
            reduced = self._halve_light(reduced)
        return Variables(inverse_depth_01, aif + resize_to(coarse.aif - reduced, aif), coarse.lens.clone())

    def _halve_light(self, images: Tensor) -> Tensor:
        """Average (...,3,H,W) to half the size, in the light that the renderer blurs."""
        flat = images.flatten(0, -4)
        linear = self.level.renderer.linear_light
        half = linear_rgb_to_rgb(halve(rgb_to_linear_rgb(flat))) if linear else halve(flat)
        return half.unflatten(0, images.shape[:-3])


def _blur_span_px(stack: FocalStack) -> Float[Tensor, "b"]:
    """Return the largest difference in blur radius over the depth range."""
    return torch.diff(stack.blur_radii_at_range_px(), dim=-1).abs().amax((1, 2))


def energy_of(
    stack: FocalStack, renderer: Renderer, depth_m: Float[Tensor, "b h w"], aif: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b"]:
    """Return the energy of a given answer, (B,), with the settings that suit the renderer and no start.

    Raises:
        InputError: the renderer is not differentiable.
    """
    stack, renderer = stack.without_truth().in_full_precision(), differentiable_renderer(renderer)
    energy = Energy.at_full_size(stack, renderer, settings_for(renderer, {}))
    with torch.no_grad():
        return energy(energy.variables(depth_m, aif, Lens((), len(stack), like=aif)))


def differentiable_renderer(renderer: Renderer) -> Renderer:
    """Return the renderer.

    Raises:
        InputError: it has no gradient in depth.
    """
    if not renderer.differentiable:
        raise InputError(f"{type(renderer).__name__} has no gradient in depth and cannot refine (optics)")
    return renderer
