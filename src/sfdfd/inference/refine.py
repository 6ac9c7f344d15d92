"""Refinement of one scene: depth and all-in-focus image by gradient descent through the renderer.

The network's teacher, applied to one stack until the time is up: predict -> render -> compare, with a start (a plane sweep's
or a network's) in the place of the prediction. The unknowns are the position p of inverse depth between far and near, in
which blur is linear, and the AIF I. The energy is a robust data term, and smoothness of p that edges of the AIF free:

    E = mean psi(R(I, p) - J) + sum_o mean w_o [alpha_1 rho(p(x+o) - p(x)) + alpha_2 rho(p(x+o) - 2 p(x) + p(x-o))]
        + gamma mean rho(dI),        w_o = exp(-beta |I(x+o) - I(x)|)
    rho(x) = sqrt(x^2 + eps^2),   psi(x) = c log(1 + rho(x) / c)

over offsets o of a few lengths along both axes: beside a foreground in front of a plain wall, data cannot tell whether a
strip of wall colour belongs to the one or the other (both render alike); the wall's colour farther away can. p is a sum of
images of 1, 1/2, ... 1/32 of the size and Adam moves all of them, so that plain regions move as a whole. Coarse to fine:
most of the way is gone on images of half the size, where a step costs a quarter (docs/refinement.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from sfdfd.errors import InputError, checked_number, checked_whole
from sfdfd.inference.lens import Lens, check_fitted
from sfdfd.inference.sweep import sharpest
from sfdfd.optics.depth import depth_at, inverse_position
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.stack import FocalStack

__all__ = ["Priors", "Refinement", "Refiner", "energy_of", "with_gradient"]

BENT_EVERY = 8
"""Steps after which the curvature of the surface of focus takes over what most of the scene bends by."""
HIDING_PX = 1.5
"""Difference in blur radius from which a surface hides another."""
SATURATED = 254.5 / 255
"""From here on a pixel says only "at least so bright"."""


@dataclass(frozen=True)
class Priors:
    """What the energy weighs, and how fast its unknowns move; the values are those for light (occlusion, linear).

    Attributes:
        smoothness: alpha_1, weight of first differences of the position p.
        bending: alpha_2, weight of its second differences: surfaces continue.
        offsets: lengths o in pixels.
        early: factor on the smoothness of plain regions at the beginning; it falls to 1 over most of the coarse stage.
        farness: weight of mean p of plain regions at the beginning, which falls to 0: of two explanations that render
            alike, the one in which a foreground ends at its silhouette is taken.
        edge_sharpness: beta, how fast an edge of the AIF frees the depth.
        outlier_level: c, the residual (of a range of 1) from which a pixel counts less and less.
        aif_smoothness: gamma, weight of the AIF's total variation: keeps it from fitting the rounding.
        softness: eps of p.
        lr_depth, lr_aif: Adam's learning rates for p (each level of the pyramid) and for the AIF.
        pyramid: number of levels of p.
        coarse_share: share of the time spent at half the size.
        hidden_px: how far behind a silhouette the surface that it hides is a second layer of unknown colour, at full size
            (other slices see it through the blurred foreground); 0 for none.
    """

    smoothness: float = 0.04
    bending: float = 0.02
    offsets: tuple[int, ...] = (1, 2, 4, 8)
    early: float = 5.0
    farness: float = 0.006
    edge_sharpness: float = 20.0
    outlier_level: float = 0.02
    aif_smoothness: float = 0.001
    softness: float = 1e-3
    lr_depth: float = 0.006
    lr_aif: float = 0.01
    pyramid: int = 6
    coarse_share: float = 0.5
    hidden_px: int = 6


SPREAD = Priors(
    smoothness=0.038,
    bending=0.0,
    offsets=(1,),
    early=1.0,
    farness=0.0,
    edge_sharpness=12.0,
    outlier_level=0.006,
    softness=5.5e-4,
    lr_aif=0.004,
    coarse_share=0.3,
    hidden_px=0,
)
"""For models that only spread light (source, target): what they cannot explain beside an edge is given up early."""


def priors_for(renderer: Renderer, changes: dict[str, Any]) -> Priors:
    """Those that go with a model, with ``changes``."""
    return replace(Priors() if renderer.options.get("weighting") == "occlusion" else SPREAD, **changes)


@dataclass(frozen=True)
class Refinement:
    """What :class:`Refiner` found.

    Attributes:
        depth_m: (B,H,W) depth in metres, within near and far.
        aif: (B,3,H,W) all-in-focus image in [0, 1].
        blur_factor: (B,) factor on the stack's blur radii; 1 unless it was asked for.
        lens: what was fitted of the lens.
        rendered: (B,S,3,H,W) the stack as the model has it, with lens and second layer; None where nothing was done.
        objective_start, objective: energy of the start and of the result, never larger; comparable within one scene.
        steps: gradient steps taken.
        seconds: wall-clock time.
        interrupted: stopped by the user (Ctrl-C); the result is the best until then.
    """

    depth_m: Tensor
    aif: Tensor
    blur_factor: Tensor
    objective_start: float
    objective: float
    steps: int
    seconds: float
    interrupted: bool = False
    lens: Lens | None = None
    rendered: Tensor | None = None


class Refiner:
    """Optimises depth and AIF of a stack through the renderer.

    Args:
        seconds: time to spend, in seconds, with that of the start where it is known; 0 does nothing.
        steps: number of gradient steps; where given, they end the refinement instead of the seconds.
        fit: what of the lens is fitted as well, see :mod:`sfdfd.inference.lens`.
        priors: those of :class:`Priors` that shall not be what goes with the renderer, by name.

    Raises:
        InputError: a value is wrong.
    """

    def __init__(
        self, seconds: float = 20.0, steps: int | None = None, fit: Collection[str] = (), **priors: Any
    ) -> None:
        self.seconds = checked_number(seconds, "seconds (refine.seconds)", least=0)
        self.steps = None if steps is None else checked_whole(steps, "steps (refine.steps)", 0)
        unknown = set(priors) - {field.name for field in fields(Priors)}
        if unknown:
            raise InputError(f"refine: no such option: {', '.join(sorted(unknown))} (refine.{min(unknown)})")
        self.priors, self.fit = priors, check_fitted(fit or ())

    @property
    def enabled(self) -> bool:
        return self.steps > 0 if self.steps is not None else self.seconds > 0

    def __call__(
        self,
        stack: FocalStack,
        renderer: Renderer,
        depth_m: Float[Tensor, "b h w"],
        aif: Float[Tensor, "b 3 h w"],
        *,
        fit_blur: bool = False,
        spent_s: float = 0.0,
        progress: Callable[[float, int, float], None] | None = None,
    ) -> Refinement:
        """Refine from a start.

        Args:
            stack: the images, and what of them is covered; truth is not looked at.
            renderer: the model's optics; it needs a gradient.
            depth_m: (B,H,W) the depth to start from, in metres.
            aif: (B,3,H,W) the AIF to start from.
            fit_blur: find a factor on all blur radii as well, one per sample (an unknown camera).
            spent_s: seconds that the start took of the time.
            progress: called with (share of the time or steps gone, step, energy); it may raise KeyboardInterrupt.
        """
        if not self.enabled:
            return Refinement(depth_m, aif, torch.ones_like(stack.near_m), math.nan, math.nan, 0, 0.0)
        priors = priors_for(renderer, self.priors)
        problem = _Problem(priors, stack.without_truth(), with_gradient(renderer))
        levels = [problem]
        for smallest in (96, 320):
            if priors.coarse_share > 0 and min(aif.shape[-2:]) >= smallest:
                levels.insert(0, levels[0].halved())
        last = len(levels) - 1
        shares = [priors.coarse_share * (number + 1) / max(last, 1) for number in range(last)] + [1.0]
        fitted = {*self.fit, "k"} if fit_blur else self.fit
        unknown = problem.unknowns(depth_m, aif, Lens(fitted, *stack.images.shape[:2], aif))
        started = time.monotonic() - spent_s
        with torch.no_grad():
            start = problem.energy(*unknown)
        best = _Best(start, unknown)
        total_steps, step, interrupted = self.steps, 0, False

        def gone() -> float:
            if total_steps is not None:
                return step / total_steps
            return (time.monotonic() - started) / self.seconds

        variables, below, hidden = unknown, None, None
        for level, until in zip(levels, shares, strict=True):
            if interrupted or gone() >= until:
                continue
            if level is not problem and below is None:
                variables = level.reduced(depth_m, aif, unknown[2])
            elif below is not None:
                variables = level.detailed(variables, below)
            below = level
            begin = gone()
            pyramid = _Pyramid(variables[0], priors.pyramid)
            image, lens = variables[1].clone().requires_grad_(), variables[2].clone()
            groups = [{"params": pyramid.images, "rate": priors.lr_depth}, {"params": [image], "rate": priors.lr_aif}]
            hidden = (
                level.hidden_colours(variables[0], image.detach()) if level is problem and priors.hidden_px else None
            )
            if hidden is not None:
                groups.append({"params": [hidden.requires_grad_()], "rate": priors.lr_aif})
            groups.extend(lens.groups())
            optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.98))
            try:
                while (share := gone()) < until:
                    local, floor = (share - begin) / (until - begin), 0.2 if level is not problem else 0.04
                    for group in optimizer.param_groups:
                        group["lr"] = group["rate"] * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * local)))
                    optimizer.zero_grad(set_to_none=True)
                    with torch.enable_grad():
                        position = pyramid.position()
                        ease = max(0.0, 1 - local / 0.8) if level is levels[0] and level is not problem else 0.0
                        energy = level.energy(position, image, lens, ease, hidden)
                        energy.sum().backward()
                    if level is problem:
                        best.offer(energy.detach(), (position.detach(), image.detach(), lens))
                    optimizer.step()
                    pyramid.into_range()
                    if step % BENT_EVERY == 0:
                        pyramid.move_to(lens.bent(pyramid.position().detach()))
                    step += 1
                    if progress is not None:
                        progress(share, step, float(energy.detach().mean()))
            except KeyboardInterrupt:
                interrupted = True
            variables = (pyramid.position().detach(), image.detach(), lens.clone())
            with torch.no_grad():
                whole = variables if level is problem else problem.detailed(variables, level)
                behind = hidden if level is problem else None
                best.offer(problem.energy(*whole, hidden=behind), whole)
        energy, (position, image, lens) = best.energy, best.variables
        with torch.no_grad():
            shown = problem.render(position, image, lens, hidden if below is problem else None)
        return Refinement(
            depth_m=problem.depth_m(position),
            aif=image.clamp(0, 1),
            blur_factor=lens.blur_factor,
            objective_start=float(start.mean()),
            objective=float(energy.mean()),
            steps=step,
            seconds=time.monotonic() - started,
            interrupted=interrupted,
            lens=lens,
            rendered=shown,
        )


class _Best:
    """Sample by sample, whichever answer had the smallest energy."""

    def __init__(self, energy: Tensor, variables: tuple[Tensor, Tensor, Lens]) -> None:
        self.energy, (position, image, lens) = energy, variables
        self.variables = position.clone(), image.clone(), lens.clone()

    def offer(self, energy: Tensor, variables: tuple[Tensor, Tensor, Lens]) -> None:
        wins = energy < self.energy

        def chosen(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(wins.reshape(-1, *(1,) * (new.ndim - 1)), new.detach(), old)

        position, image, lens = self.variables
        lens.values = {key: chosen(lens.values[key], value) for key, value in variables[2].values.items()}
        self.energy = chosen(self.energy, energy)
        self.variables = chosen(position, variables[0]), chosen(image, variables[1]), lens


def _halve(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def _enlarged(values: Float[Tensor, "b c h w"], like: Tensor) -> Tensor:
    return F.interpolate(values, size=like.shape[-2:], mode="bilinear", align_corners=False)


class _Pyramid:
    """Position (B,H,W) as a sum of images, each of half the size of the one before."""

    def __init__(self, position: Float[Tensor, "b h w"], count: int) -> None:
        height, width = position.shape[-2:]
        sizes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(1, count)]
        rest = [position.new_zeros(position.shape[0], 1, *size).requires_grad_() for size in sizes]
        self.images = [position[:, None].clone().requires_grad_(), *rest]

    def position(self) -> Tensor:
        total = self.images[0]
        for image in self.images[1:]:
            total = total + _enlarged(image, total)
        return total[:, 0]

    @torch.no_grad()
    def into_range(self) -> None:
        """The finest level takes back what leaves [0, 1]."""
        position = self.position()
        self.images[0] += (position.clamp(0, 1) - position)[:, None]

    @torch.no_grad()
    def move_to(self, position: Tensor) -> None:
        """The finest level takes the difference."""
        self.images[0] += (position - self.position())[:, None]


class _Problem:
    """The energy of a stack at one size, over (position of inverse depth, AIF, lens)."""

    def __init__(self, priors: Priors, stack: FocalStack, renderer: Renderer) -> None:
        self.priors, self.stack, self.renderer = priors, stack, renderer
        shown = stack.shown()
        self.weight = (shown / shown.mean((1, 2, 3), keepdim=True).clamp_min(1e-12))[:, :, None]
        self.saturated = stack.images >= SATURATED
        self.linear = bool(renderer.options.get("linear_light"))
        self.occludes = renderer.options.get("weighting") == "occlusion"
        ends = torch.stack([stack.near_m, stack.far_m], 1)[:, None]
        radius = defocus_map_px(ends, stack.focus_distances_m, stack.camera)
        self.jump = HIDING_PX / torch.diff(radius, dim=-1).abs().amax((1, 2, 3)).clamp_min(1e-6)

    def halved_light(self, images: Tensor) -> Tensor:
        """(...,3,H,W) at half the size, averaged in the light that the renderer blurs."""
        flat = images.flatten(0, -4)
        half = linear_rgb_to_rgb(_halve(rgb_to_linear_rgb(flat))) if self.linear else _halve(flat)
        return half.unflatten(0, images.shape[:-3])

    def halved(self) -> _Problem:
        stack = self.stack
        return _Problem(
            self.priors, stack.scaled(self.halved_light(stack.images), _halve(stack.shown())), self.renderer
        )

    def reduced(self, depth_m: Tensor, aif: Tensor, lens: Lens) -> tuple[Tensor, Tensor, Lens]:
        """A start at the full size, at this one."""
        while aif.shape[-1] > self.stack.images.shape[-1]:
            depth_m, aif = 1 / _halve(1 / depth_m[:, None])[:, 0], self.halved_light(aif)
        return self.unknowns(depth_m, aif, lens)

    def detailed(self, coarse: tuple[Tensor, Tensor, Lens], level: _Problem) -> tuple[Tensor, Tensor, Lens]:
        """A coarser level's solution at this size: depth as it is, the AIF with the slices' detail at that depth."""
        images = self.stack.images[:, 0]
        position = _enlarged(coarse[0][:, None], images)[:, 0]
        image = sharpest(self.stack, self.depth_m(position))
        small = image
        while small.shape[-1] > level.stack.images.shape[-1]:
            small = self.halved_light(small)
        factor = images.shape[-1] / level.stack.images.shape[-1]
        return position, image + _enlarged(coarse[1] - small, image), coarse[2].scaled(factor)

    def unknowns(self, depth_m: Tensor, aif: Tensor, lens: Lens) -> tuple[Tensor, Tensor, Lens]:
        position = inverse_position(depth_m, self.stack.near_m, self.stack.far_m).clamp(0, 1)
        return position, aif.clone(), lens.clone()

    def depth_m(self, position: Tensor) -> Tensor:
        return depth_at(position.clamp(0, 1), self.stack.near_m, self.stack.far_m)

    def render(self, position: Tensor, aif: Tensor, lens: Lens, hidden: Tensor | None = None) -> Tensor:
        focus, camera, factor = self.stack.focus_distances_m, self.stack.camera, lens.blur_factor
        depth_m = self.depth_m(lens.seen(position))
        if hidden is None:
            return lens.applied(self.renderer(aif, depth_m, focus, camera, aperture=factor))
        behind, _ = self.behind(position.detach())
        cover = (position.detach() - behind > self.jump[:, None, None]).to(aif)
        layer = (hidden, self.depth_m(lens.seen(behind).detach()), cover)
        return lens.applied(self.renderer(aif, depth_m, focus, camera, aperture=factor, hidden=layer))

    def behind(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """(B,H,W) the farthest position within ``hidden_px``, and where it is (indices of flattened pixels)."""
        reach = self.priors.hidden_px
        least, index = F.max_pool2d(-position[:, None], 2 * reach + 1, 1, reach, return_indices=True)
        return -least[:, 0], index[:, 0]

    def hidden_colours(self, position: Tensor, image: Tensor) -> Tensor | None:
        """(B,3,H,W) what may lie behind: the colours of the farthest pixels around; None for a renderer that has no such."""
        if not self.occludes:
            return None
        _, index = self.behind(position)
        colours = image.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).reshape(image.shape)
        return F.avg_pool2d(colours, 3, 1, 1, count_include_pad=False)

    def energy(
        self, position: Tensor, aif: Tensor, lens: Lens, ease: float = 0.0, hidden: Tensor | None = None
    ) -> Tensor:
        """(B,); ``ease`` from 1 to 0 is the share of the beginning's extra smoothness and farness."""
        priors = self.priors
        residual = self.render(position, aif, lens, hidden) - self.stack.images
        residual = torch.where(self.saturated, residual.clamp_max(0.0), residual)
        level = priors.outlier_level
        energy = (self.weight * level * torch.log1p(torch.sqrt(residual * residual + 1e-5) / level)).mean((1, 2, 3, 4))
        if hidden is not None:
            energy = energy + self.variation(hidden)
        return energy + self.variation(aif) + self.prior(position, aif, ease)

    def variation(self, image: Tensor) -> Tensor:
        """(B,) total variation of an image, weighed."""
        steps = (torch.diff(image, dim=axis) for axis in (-1, -2))
        return sum(self.priors.aif_smoothness * torch.sqrt(step * step + 1e-5).mean((1, 2, 3)) for step in steps)

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

    def prior(self, position: Tensor, aif: Tensor, ease: float = 0.0) -> Tensor:
        """(B,) smoothness of position; see the module."""
        priors, guide = self.priors, aif.detach()
        plain = ease * self.plainness(guide) if ease else torch.zeros_like(position)
        energy = priors.farness * (plain * position).mean((1, 2))
        factor = (1 + (priors.early - 1) * plain) / len(priors.offsets)
        for axis in (-1, -2):
            extent = position.shape[axis]
            for offset in priors.offsets:
                if 2 * offset >= extent:
                    continue

                def step_by(values: Tensor, axis: int = axis, offset: int = offset) -> Tensor:
                    length = values.shape[axis] - offset
                    return values.narrow(axis, offset, length) - values.narrow(axis, 0, length)

                free = torch.exp(-priors.edge_sharpness * step_by(guide).abs().mean(1))
                first = step_by(position)
                second, length = step_by(first), first.shape[axis] - offset
                both = free.narrow(axis, offset, length) * free.narrow(axis, 0, length)
                eps = priors.softness**2
                free = free * factor.narrow(axis, 0, free.shape[axis])
                both = both * factor.narrow(axis, offset, length)
                energy = energy + priors.smoothness * (free * torch.sqrt(first * first + eps)).mean((1, 2))
                energy = energy + priors.bending * (both * torch.sqrt(second * second + eps)).mean((1, 2))
        return energy


def energy_of(
    stack: FocalStack, renderer: Renderer, depth_m: Float[Tensor, "b h w"], aif: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b"]:
    """The energy that :class:`Refiner` minimises, of a given answer, without its priors' options changed: (B,)."""
    problem = _Problem(priors_for(renderer, {}), stack.without_truth(), with_gradient(renderer))
    with torch.no_grad():
        return problem.energy(*problem.unknowns(depth_m, aif, Lens((), *stack.images.shape[:2], aif)))


def with_gradient(renderer: Renderer) -> Renderer:
    """The renderer, if it has a gradient in depth.

    Raises:
        InputError: it has none.
    """
    if not renderer.differentiable:
        raise InputError(f"{type(renderer).__name__} has no gradient in depth and cannot refine (optics)")
    return renderer
