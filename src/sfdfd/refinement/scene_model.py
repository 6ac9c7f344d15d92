"""The forward model of refinement: render a stack from the optimized variables."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.psf import DiscPSF
from sfdfd.optics.render import Renderer
from sfdfd.refinement.variables import Level, Variables

__all__ = ["SceneModel"]

HIDING_BLUR_PX = 1.5
"""Difference in blur radius from which a surface hides another."""


class SceneModel:
    """Render the stack of depth, AIF, lens and hidden surface, at one size.

    Args:
        level: the problem at that size.
    """

    def __init__(self, level: Level) -> None:
        self.stack, self.renderer = level.stack, level.renderer
        self.hidden_reach_px = level.settings.hidden_reach_px
        self.hiding_step = HIDING_BLUR_PX / level.blur_span_px.clamp_min(1e-6)

    @cached_property
    def draft_renderer(self) -> Renderer:
        return self.renderer.draft()

    @cached_property
    def gaussian_renderer(self) -> Renderer:
        """A renderer whose Gaussian PSF has the second moment of the disc."""
        if not isinstance(self.renderer.psf, DiscPSF):
            raise InputError(
                f"refine.fit: shape lies between a disc and a Gaussian; it needs optics.psf=disc, not {self.renderer.psf}"
            )
        return self.renderer.with_options(psf="gaussian", sigma_scale=0.5)

    def depth_m(self, inverse_depth_01: Tensor) -> Tensor:
        """Return (B,H,W) depth in metres."""
        return depth_from_normalized(inverse_depth_01.clamp(0, 1), self.stack.near_m, self.stack.far_m)

    def render(self, variables: Variables, draft: bool = False) -> Float[Tensor, "b s 3 h w"]:
        """Render every slice."""
        inverse_depth_01, aif, lens, _, hidden_colours = variables
        options: dict[str, Any] = {"blur_factor": lens.blur_factor}
        if hidden_colours is not None:
            options["hidden"] = self._hidden_surface(inverse_depth_01.detach(), hidden_colours)
        inputs = aif, self.depth_m(inverse_depth_01), self.stack.focus_distances_m, self.stack.camera
        stack = (self.draft_renderer if draft else self.renderer)(*inputs, **options)
        if "shape" in lens.fitted:
            gaussian = self.gaussian_renderer(*inputs, **options)
            stack = lens.blend_psfs(stack, gaussian, self.renderer.linear_light)
        return stack

    def _hidden_surface(self, inverse_depth_01: Tensor, colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return colours, depth in metres and coverage of the surface behind silhouettes."""
        farthest, _ = self._farthest_nearby(inverse_depth_01)
        coverage = (inverse_depth_01 - farthest > self.hiding_step[:, None, None]).to(colours)
        return colours, self.depth_m(farthest), coverage

    def _farthest_nearby(self, inverse_depth_01: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest inverse depth within ``hidden_reach_px``, and where it is (flattened pixel index)."""
        reach = self.hidden_reach_px
        least, index = F.max_pool2d(-inverse_depth_01[:, None], 2 * reach + 1, 1, reach, return_indices=True)
        return -least[:, 0], index[:, 0]

    @torch.no_grad()
    def initial_hidden_colours(self, inverse_depth_01: Tensor, aif: Tensor) -> Float[Tensor, "b 3 h w"] | None:
        """Return the colours of the farthest pixels nearby; None for a renderer without occlusion."""
        if not self.renderer.models_occlusion or not self.hidden_reach_px:
            return None
        _, index = self._farthest_nearby(inverse_depth_01)
        colours = aif.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).reshape(aif.shape)
        return F.avg_pool2d(colours, 3, 1, 1, count_include_pad=False)
