"""The energy of an answer: how badly depth and AIF explain a stack through the renderer, and how unlike a scene they are.

    E = mean psi(R(I, p) - J) + sum_o mean [alpha_1 h_o(p(x+o) - p(x) - o v) + alpha_2 h_o(o (v(x+o) - v(x)))]
        + gamma mean rho(dI) + tau mean log(1 + ((p - p_0) / s)^2 / 2)
    h_o(x) = w_o rho(x) + (1 - w_o) q rho(x) / (q + rho(x)),   w_o = exp(-beta |I(x+o) - I(x)|)
    rho(x) = sqrt(x^2 + eps^2),   psi(x) = c log(1 + rho(x) / c)

over the inverse_depth_01 p of inverse depth between far and near, in which blur is linear (and a plane is a plane), the AIF I, and
the slopes v of p: total generalised variation (Bredies, Kunisch, Pock, SIAM J. Imaging Sci. 3, 2010), which lets surfaces
slant for nothing and asks a price for their bends (less eps: slopes of 0 cost nothing). Offsets o of a few lengths along
both axes: beside a foreground in front of a plain wall, data cannot tell whether a strip of wall colour belongs to the one
or the other (both render alike); the wall's colour farther away can. An edge of the AIF frees a jump of p, and not a ripple
of the size q: the texture of a flat wall is no relief. What a jump costs there ends at q (Geman, Reynolds, IEEE PAMI 14,
1992); of bends q is a tenth, or across a true edge the slopes of both sides would be one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.optics.depth import depth_from_normalized, normalized_inverse_depth
from sfdfd.optics.render import Renderer
from sfdfd.plane_sweep.cost_volume import LARGE_PX
from sfdfd.plane_sweep.sweep import fuse_sharpest_slices
from sfdfd.refinement.lens import Lens
from sfdfd.stack import FocalStack

__all__ = [
    "LEAST_SAID",
    "Energy",
    "Priors",
    "differentiable_renderer",
    "energy_of",
    "enlarged_to",
    "priors_for",
    "start_of",
]

TRUST_SPAN_PX = (3.0, 30.0)
"""Differences in blur over the depth range beyond which the trust in the start changes no more."""
HIDING_PX = 1.5
"""Difference in blur radius from which a surface hides another."""
BESIDE_PX = 6
"""So far from a jump a start may be on its wrong side."""
LEAST_SAID = 0.5
"""A slice says so much at least, however little of it is explained."""
BENT_RIPPLE = 0.1
"""q of bends in that of steps."""


@dataclass(frozen=True)
class Priors:
    """What the energy weighs, and how fast its unknowns move; the values are those for light (occlusion, linear).

    Attributes:
        smoothness: alpha_1, weight of first differences of the inverse_depth_01 p, less what its slopes explain.
        bending: alpha_2, weight of the differences of the slopes: surfaces continue. 0 for no slopes: p is to be flat.
        offsets: lengths o in pixels.
        early: factor on the smoothness of plain regions at the beginning; it falls to 1 over most of the coarse stage.
        farness: weight of mean p of plain regions at the beginning, which falls to 0: of two explanations that render
            alike, the one in which a foreground ends at its silhouette is taken.
        edge_sharpness: beta, how fast an edge of the AIF frees the depth.
        outlier_level: c, the residual (of a range of 1) from which a pixel counts less and less.
        aif_smoothness: gamma, weight of the AIF's total variation: keeps it from fitting the rounding.
        softness: eps of p.
        lr_depth, lr_slopes, lr_aif: Adam's learning rates for p and its slopes (each level of the pyramid) and for the AIF.
        pyramid: number of levels of p.
        coarse_share: share of the time spent at half the size and at a quarter, at most.
        coarse_steps: steps at each of these, at most: longer, and silhouettes settle where half the size has them.
        coarse_px: blur radius, the largest over the depth range, from which a size below the full one is of use: where it
            blurs less, it tells nothing sooner and forgets fine texture.
        draft_share: share of the full size's stage whose renderer is a draft (``method="draft"``), where it has such. (At
            half the size already, the AIF would take over what the wide levels of an occlusion-aware draft blur.)
        draft_steps: steps so rendered at most.
        hidden_px: how far behind a silhouette the surface that it hides is a second layer of unknown colour, at full size
            (other slices see it through the blurred foreground); 0 for none.
        trust: weight of the departure from the start where the start says how sure it is,
            log(1 + ((p - p_0) / s)^2 / 2), where the blur differs by 10 px over the depth range: a faint texture has too
            little light to hold its depth against the priors. It grows with the inverse square of that difference, as what
            the model cannot explain moves a depth the farther the less the blur says of it, and fades to 0 over the last
            stage.
        least_std: smallest s.
        unexplained: first quartile of the residuals (of a range of 1) up to which a slice counts in full; 0 where all
            shall; see :meth:`Energy.weigh`.
        ripple_px: difference in blur radius, about, up to which depth is held together across an edge of the AIF, too; 0
            where it is not.
    """

    smoothness: float = 0.04
    bending: float = 0.64
    offsets: tuple[int, ...] = (1, 2, 4, 8, 16)
    early: float = 5.0
    farness: float = 0.006
    edge_sharpness: float = 40.0
    outlier_level: float = 0.02
    aif_smoothness: float = 0.007
    softness: float = 1e-3
    lr_depth: float = 0.006
    lr_slopes: float = 0.0005
    lr_aif: float = 0.01
    pyramid: int = 6
    coarse_share: float = 0.5
    coarse_steps: float = 30
    coarse_px: float = 6.0
    draft_share: float = 0.3
    draft_steps: float = 10
    hidden_px: int = 6
    trust: float = 0.0023
    least_std: float = 0.06
    unexplained: float = 0.0013
    ripple_px: float = 0.3


SPREAD = Priors(
    smoothness=0.038,
    bending=0.0,
    offsets=(1,),
    early=1.0,
    farness=0.0,
    edge_sharpness=12.0,
    outlier_level=0.006,
    aif_smoothness=0.001,
    softness=5.5e-4,
    lr_depth=0.004,
    lr_aif=0.006,
    coarse_share=0.15,
    coarse_steps=math.inf,
    coarse_px=0.0,
    draft_share=0.7,
    draft_steps=math.inf,
    hidden_px=0,
    trust=0.0,
    unexplained=0.0,
    ripple_px=0.0,
)
"""For models that only spread light (source, target): what they cannot explain beside an edge is given up early."""


def priors_for(renderer: Renderer, changes: dict[str, Any]) -> Priors:
    """Those that go with a model, with ``changes``."""
    return replace(Priors() if renderer.options.get("weighting") == "occlusion" else SPREAD, **changes)


def _halve(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def enlarged_to(values: Float[Tensor, "b c h w"], like: Tensor) -> Tensor:
    return F.interpolate(values, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Energy:
    """The energy of a stack at one size, over (normalized inverse depth, AIF, lens)."""

    def __init__(
        self, priors: Priors, stack: FocalStack, renderer: Renderer, start: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.priors, self.stack, self.renderer, self.start = priors, stack, renderer, start
        shown = stack.coverage()
        self.weight = (shown / shown.mean((1, 2, 3), keepdim=True).clamp_min(1e-12))[:, :, None]
        self.said: Tensor | float = 1.0
        """(B,S,1,1,1) how much each slice says of the scene, 1 in the mean; see :meth:`weigh`."""
        self.explained = torch.ones_like(stack.near_m)
        """(B,) m, the mean of what the slices say before that; see :meth:`weigh`."""
        self.saturated = stack.saturated()
        self.linear = bool(renderer.options.get("linear_light"))
        self.occludes = renderer.options.get("weighting") == "occlusion"
        self.drafts = False
        """Whether it renders with the draft."""
        span_px = torch.diff(stack.blur_radii_at_range_px(), dim=-1).abs().amax((1, 2))
        self.jump = HIDING_PX / span_px.clamp_min(1e-6)
        self.ripple: Tensor | None = (
            (priors.ripple_px / span_px.clamp_min(1e-6))[:, None, None] if priors.ripple_px else None
        )
        self.trust = priors.trust * (10 / span_px.clamp(*TRUST_SPAN_PX)).square()

    def weigh(self, inverse_depth_01: Tensor, aif: Tensor, lens: Lens) -> None:
        """Let data say the less the more of them an answer leaves unexplained: noise, a lens that the model does not have,
        what moved.

        A slice says (u / r)^2, r the first quartile of its residuals and u ``unexplained``, 1 at most and ``LEAST_SAID`` at
        least. (A quartile does not see where an answer is wrong, if it is right in a quarter of the image.) Slices weigh by
        that, the prior of depth by the inverse of its mean m, and the trust in a start, which knows light alone, by m^2.
        Of images of more than ``LARGE_PX`` pixels half the size is asked: it costs a twelfth.
        """
        level = self.priors.unexplained
        if not level:
            return
        asked, answer = self, (inverse_depth_01, aif, lens)
        if aif[0, 0].numel() > LARGE_PX:
            asked = self.halved()
            answer = asked.reduced(self.depth_m(inverse_depth_01), aif, lens)
        with torch.no_grad():
            residual = asked.residual(*answer).abs()
        residual = residual.masked_fill(asked.stack.coverage()[:, :, None] < 0.5, torch.nan).flatten(2)
        few = residual[..., :: 1 + residual.shape[-1] // 100_000]  # torch.quantile has a largest size
        ordered = few.sort(-1).values  # nan last
        place = (ordered.isfinite().sum(-1, keepdim=True) - 1).clamp_min(0) // 4
        quartile = ordered.gather(-1, place)[..., 0].nan_to_num(level)
        said = (level / quartile.clamp(level, level * LEAST_SAID**-0.5)).square()
        mask = self.stack.slice_mask
        self.explained = torch.where(mask, said, 0.0).sum(1) / mask.sum(1)
        self.said = (said / self.explained[:, None])[..., None, None, None]
        self.trust = self.trust * self.explained.square()

    @cached_property
    def draft_renderer(self) -> Renderer:
        """A faster and coarser one."""
        return self._like(method="draft")

    @cached_property
    def soft_renderer(self) -> Renderer:
        """The like of a renderer of discs, with Gaussians of the same second moment."""
        psf = self.renderer.options.get("psf")
        if psf != "disc":
            raise InputError(
                f"refine.fit: shape lies between a disc and a Gaussian; it needs optics.psf=disc, not {psf}"
            )
        return self._like(psf="gaussian", sigma_scale=0.5)

    def _like(self, **changes: Any) -> Renderer:
        return type(self.renderer)(**{**self.renderer.options, **changes})

    def halved_light(self, images: Tensor) -> Tensor:
        """(...,3,H,W) at half the size, averaged in the light that the renderer blurs."""
        flat = images.flatten(0, -4)
        half = linear_rgb_to_rgb(_halve(rgb_to_linear_rgb(flat))) if self.linear else _halve(flat)
        return half.unflatten(0, images.shape[:-3])

    def halved(self) -> Energy:
        stack = self.stack
        start: Any = None if self.start is None else tuple(_halve(value[:, None])[:, 0] for value in self.start)
        images = self.halved_light(stack.images)
        clipped: Tensor | None = None
        if self.saturated.any():
            clipped = F.max_pool2d(self.saturated.flatten(0, 1).to(images), 2, ceil_mode=True).bool()
            clipped = clipped.unflatten(0, images.shape[:2])
        half = Energy(
            self.priors, stack.with_resized_images(images, _halve(stack.coverage()), clipped), self.renderer, start
        )
        half.trust, half.said, half.explained = self.trust, self.said, self.explained
        return half

    def reduced(self, depth_m: Tensor, aif: Tensor, lens: Lens) -> tuple[Tensor, Tensor, Lens]:
        """A start at the full size, at this one."""
        while aif.shape[-1] > self.stack.images.shape[-1]:
            depth_m, aif = 1 / _halve(1 / depth_m[:, None])[:, 0], self.halved_light(aif)
        return self.unknowns(depth_m, aif, lens)

    def detailed(self, coarse: tuple[Tensor, Tensor, Lens], level: Energy) -> tuple[Tensor, Tensor, Lens]:
        """A coarser level's solution at this size: depth as it is, the AIF with the slices' detail at that depth."""
        images = self.stack.images[:, 0]
        inverse_depth_01 = enlarged_to(coarse[0][:, None], images)[:, 0]
        image = fuse_sharpest_slices(self.stack, self.depth_m(inverse_depth_01))
        small = image
        while small.shape[-1] > level.stack.images.shape[-1]:
            small = self.halved_light(small)
        factor = images.shape[-1] / level.stack.images.shape[-1]
        return inverse_depth_01, image + enlarged_to(coarse[1] - small, image), coarse[2].scaled(factor)

    def unknowns(self, depth_m: Tensor, aif: Tensor, lens: Lens) -> tuple[Tensor, Tensor, Lens]:
        inverse_depth_01 = normalized_inverse_depth(depth_m, self.stack.near_m, self.stack.far_m).clamp(0, 1)
        return inverse_depth_01, aif.clone(), lens.clone()

    def depth_m(self, inverse_depth_01: Tensor) -> Tensor:
        return depth_from_normalized(inverse_depth_01.clamp(0, 1), self.stack.near_m, self.stack.far_m)

    def render(self, inverse_depth_01: Tensor, aif: Tensor, lens: Lens, hidden: Tensor | None = None) -> Tensor:
        focus, camera, factor = self.stack.focus_distances_m, self.stack.camera, lens.blur_factor
        depth_m = self.depth_m(lens.seen(inverse_depth_01))
        known: dict[str, Any] = {}
        if hidden is not None:
            behind, _ = self.behind(inverse_depth_01.detach())
            cover = (inverse_depth_01.detach() - behind > self.jump[:, None, None]).to(aif)
            known = {"hidden": (hidden, self.depth_m(lens.seen(behind).detach()), cover)}
        renderer = self.draft_renderer if self.drafts else self.renderer
        stack = renderer(aif, depth_m, focus, camera, blur_factor=factor, **known)
        if "shape" in lens.fitted:
            gaussian = self.soft_renderer(aif, depth_m, focus, camera, blur_factor=factor, **known)
            stack = lens.shaped(stack, gaussian, self.linear)
        return lens.applied(stack)

    def behind(self, inverse_depth_01: Tensor) -> tuple[Tensor, Tensor]:
        """(B,H,W) the farthest inverse_depth_01 within ``hidden_px``, and where it is (indices of flattened pixels)."""
        reach = self.priors.hidden_px
        least, index = F.max_pool2d(-inverse_depth_01[:, None], 2 * reach + 1, 1, reach, return_indices=True)
        return -least[:, 0], index[:, 0]

    def hidden_colours(self, inverse_depth_01: Tensor, image: Tensor) -> Tensor | None:
        """(B,3,H,W) what may lie behind: the colours of the farthest pixels around; None for a renderer that has no such."""
        if not self.occludes:
            return None
        _, index = self.behind(inverse_depth_01)
        colours = image.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).reshape(image.shape)
        return F.avg_pool2d(colours, 3, 1, 1, count_include_pad=False)

    def energy(
        self,
        inverse_depth_01: Tensor,
        aif: Tensor,
        lens: Lens,
        ease: float = 0.0,
        hidden: Tensor | None = None,
        hold: float = 1.0,
        slopes: Tensor | None = None,
    ) -> Tensor:
        """(B,); ``ease`` from 1 to 0 is the share of the beginning's extra smoothness and farness, ``hold`` the share of the
        trust in the start, ``slopes`` (B,2,H,W) those of inverse_depth_01 to the right and downwards, 0 if none."""
        priors = self.priors
        energy = self.misfit(inverse_depth_01, aif, lens, hidden).mean((1, 2, 3))
        if self.start is not None and priors.trust:
            energy = energy + hold * self.trust * self.departure(inverse_depth_01)
        if hidden is not None:
            energy = energy + self.variation(hidden)
        return energy + self.variation(aif) + self.prior(inverse_depth_01, aif, ease, slopes) / self.explained

    def residual(
        self, inverse_depth_01: Tensor, aif: Tensor, lens: Lens, hidden: Tensor | None = None
    ) -> Float[Tensor, "b s 3 h w"]:
        """Rendered less photographed; where a photograph is clipped, what is brighter leaves nothing."""
        residual = self.render(inverse_depth_01, aif, lens, hidden) - self.stack.images
        return torch.where(self.saturated, residual.clamp_max(0.0), residual)

    def misfit(
        self, inverse_depth_01: Tensor, aif: Tensor, lens: Lens, hidden: Tensor | None = None
    ) -> Float[Tensor, "b s h w"]:
        """How badly each pixel of each slice is explained, weighed: the data term before its mean."""
        residual = self.residual(inverse_depth_01, aif, lens, hidden)
        level = self.priors.outlier_level
        return (self.said * self.weight * level * torch.log1p(torch.sqrt(residual * residual + 1e-5) / level)).mean(2)

    def departure(self, inverse_depth_01: Tensor) -> Tensor:
        """(B,) how far the inverse_depth_01 is from a start that was sure: mean log(1 + ((p - p_0) / s)^2 / 2)."""
        assert self.start is not None
        known, spread = self.start
        return torch.log1p(0.5 * ((inverse_depth_01 - known) / spread.clamp_min(self.priors.least_std)).square()).mean(
            (1, 2)
        )

    def variation(self, image: Tensor) -> Tensor:
        """(B,) total variation of an image, weighed."""
        steps = (torch.diff(image, dim=axis) for axis in (-1, -2))
        level = self.priors.aif_smoothness
        return cast(Tensor, sum(level * torch.sqrt(step * step + 1e-5).mean((1, 2, 3)) for step in steps))

    @staticmethod
    def plainness(image: Tensor, window_px: int = 7, level: float = 0.02) -> Tensor:
        """(B,H,W) from 1 where some window around a pixel has no texture to 0 where all have: 1 / (1 + (t / 0.02)^2), t the
        smallest of the windows' mean absolute differences. A plain strip beside an edge is plain."""
        steps = [
            F.pad(torch.diff(image, dim=axis).abs().mean(1), edge) for axis, edge in ((-1, (0, 1)), (-2, (0, 0, 0, 1)))
        ]
        mean = F.avg_pool2d((steps[0] + steps[1])[:, None] / 2, window_px, 1, window_px // 2, count_include_pad=False)
        least = -F.max_pool2d(-mean, window_px, 1, window_px // 2)[:, 0]
        return 1 / (1 + (least / level).square())

    def prior(self, inverse_depth_01: Tensor, aif: Tensor, ease: float = 0.0, slopes: Tensor | None = None) -> Tensor:
        """(B,) smoothness of inverse_depth_01 and its slopes; see the module."""
        priors, guide = self.priors, aif.detach()
        plain = ease * self.plainness(guide) if ease else torch.zeros_like(inverse_depth_01)
        energy = priors.farness * (plain * inverse_depth_01).mean((1, 2))
        factor = (1 + (priors.early - 1) * plain) / len(priors.offsets)
        bent_ripple = None if self.ripple is None else BENT_RIPPLE * self.ripple
        for axis, direction in ((-1, 0), (-2, 1)):
            extent = inverse_depth_01.shape[axis]
            for offset in priors.offsets:
                if offset >= extent:
                    continue

                def step_by(values: Tensor, axis: int = axis, offset: int = offset) -> Tensor:
                    length = values.shape[axis] - offset
                    return values.narrow(axis, offset, length) - values.narrow(axis, 0, length)

                length, eps = extent - offset, priors.softness**2
                bound = torch.exp(-priors.edge_sharpness * step_by(guide).abs().mean(1))
                weight = factor.narrow(axis, 0, length)
                first = step_by(inverse_depth_01)
                if slopes is not None:
                    slope = slopes[:, direction]
                    first = first - offset * (slope.narrow(axis, offset, length) + slope.narrow(axis, 0, length)) / 2
                    bends = offset * step_by(slopes).movedim(1, 0)
                    bent = _held(torch.sqrt(bends * bends + eps) - priors.softness, bound, bent_ripple).sum(0)
                    energy = energy + priors.bending * (weight * bent).mean((1, 2))
                even = _held(torch.sqrt(first * first + eps), bound, self.ripple)
                energy = energy + priors.smoothness * (weight * even).mean((1, 2))
        return energy


def _held(step: Tensor, bound: Tensor, ripple: Tensor | None) -> Tensor:
    """h of the module: what a step costs where the AIF leaves ``bound`` of it, w, bound; w of the step where q is None."""
    if ripple is None:
        return bound * step
    return bound * step + (1 - bound) * ripple * step / (ripple + step)


def start_of(
    stack: FocalStack, depth_m: Float[Tensor, "b h w"], depth_std_m: Float[Tensor, "b h w"]
) -> tuple[Tensor, Tensor]:
    """A start and its standard deviation as positions of inverse depth, and the deviation of those, to first order. Beside a
    jump a start cannot know on which side of it a pixel lies: there the deviation is half the range within ``BESIDE_PX``."""
    span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
    inverse_depth_01 = normalized_inverse_depth(depth_m, stack.near_m, stack.far_m)
    window = 2 * BESIDE_PX + 1
    high, low = (sign * F.max_pool2d(sign * inverse_depth_01[:, None], window, 1, BESIDE_PX)[:, 0] for sign in (1, -1))
    return inverse_depth_01, torch.maximum(depth_std_m / depth_m.square() / span, (high - low) / 2)


def energy_of(
    stack: FocalStack, renderer: Renderer, depth_m: Float[Tensor, "b h w"], aif: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b"]:
    """The energy that :class:`Refiner` minimises, of a given answer, without its priors' options changed: (B,)."""
    stack = stack.without_truth().in_full_precision()
    problem = Energy(priors_for(renderer, {}), stack, differentiable_renderer(renderer))
    with torch.no_grad():
        return problem.energy(*problem.unknowns(depth_m, aif, Lens((), *stack.images.shape[:2], like=aif)))


def differentiable_renderer(renderer: Renderer) -> Renderer:
    """The renderer, if it has a gradient in depth.

    Raises:
        InputError: it has none.
    """
    if not renderer.differentiable:
        raise InputError(f"{type(renderer).__name__} has no gradient in depth and cannot refine (optics)")
    return renderer
