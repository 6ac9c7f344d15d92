"""Refinement of one scene: depth and all-in-focus image by gradient descent through the renderer.

The network's teacher, applied to one stack until the time is up: predict -> render -> compare, with a start (a plane sweep's
or a network's) in the place of the prediction. Minimised is :class:`sfdfd.inference.energy.Energy`. The position of inverse
depth is a sum of images of 1, 1/2, ... 1/32 of the size and Adam moves all of them, so that plain regions move as a whole.
Coarse to fine: much of the way is gone on images of half the size, where a step costs a quarter (docs/refinement.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError, checked_number, checked_whole
from sfdfd.inference.energy import Energy, Priors, enlarged_to, priors_for, start_of, with_gradient
from sfdfd.inference.lens import Lens, check_fitted
from sfdfd.optics.render import Renderer
from sfdfd.stack import FocalStack

__all__ = ["Refinement", "Refiner"]

BENT_EVERY = 8
"""Steps after which the curvature of the surface of focus takes over what most of the scene bends by."""


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

    Examples:
        >>> from sfdfd.data.example import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.inference.sweep import plane_sweep
        >>> renderer = DefocusRenderer(sigma_scale=0.5, method="fast")
        >>> start = plane_sweep(stack, renderer)
        >>> Refiner(steps=3)(stack, renderer, start.depth_m, start.aif).depth_m.shape
        torch.Size([1, 48, 64])
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
        self.watch: Callable[[Tensor], None] | None = None
        """Called after each step, before ``progress``, with (B,h,w) inverse depth so far: 1 at near, 0 at far."""

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
        depth_std_m: Float[Tensor, "b h w"] | None = None,
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
            depth_std_m: (B,H,W) the start's own standard deviation: where it was sure, the result stays near it.
            progress: called with (share of the time or steps gone, step, energy); it may raise KeyboardInterrupt.
        """
        if not self.enabled:
            return Refinement(depth_m, aif, torch.ones_like(stack.near_m), math.nan, math.nan, 0, 0.0)
        priors = priors_for(renderer, self.priors)
        start = None if depth_std_m is None else start_of(stack, depth_m, depth_std_m)
        problem = Energy(priors, stack.without_truth(), with_gradient(renderer), start)
        levels = [problem]
        for smallest in (96, 320):
            if priors.coarse_share > 0 and min(aif.shape[-2:]) >= smallest:
                levels.insert(0, levels[0].halved())
        last = len(levels) - 1
        shares = [priors.coarse_share * (number + 1) / max(last, 1) for number in range(last)] + [1.0]
        fitted = {*self.fit, "k"} if fit_blur else self.fit
        unknown = problem.unknowns(depth_m, aif, Lens(fitted, *stack.images.shape[:2], like=aif))
        started = time.monotonic() - spent_s
        with torch.no_grad():
            first = problem.energy(*unknown)
        best = _Best(first, unknown)
        total_steps, step, interrupted = self.steps, 0, False

        def gone() -> float:
            if total_steps is not None:
                return step / total_steps
            return (time.monotonic() - started) / self.seconds

        variables, below, hidden, slopes = unknown, None, None, None
        for level, until in zip(levels, shares, strict=True):
            if interrupted or gone() >= until:
                continue
            if level is not problem and below is None:
                variables = level.reduced(depth_m, aif, unknown[2])
            elif below is not None:
                variables = level.detailed(variables, below)
            below = level
            begin, hold = gone(), 1.0
            pyramid = _Pyramid(variables[0], priors.pyramid)
            image, lens = variables[1].clone().requires_grad_(), variables[2].clone()
            groups = [{"params": pyramid.images, "rate": priors.lr_depth}, {"params": [image], "rate": priors.lr_aif}]
            hidden = (
                level.hidden_colours(variables[0], image.detach()) if level is problem and priors.hidden_px else None
            )
            if hidden is not None:
                groups.append({"params": [hidden.requires_grad_()], "rate": priors.lr_aif})
            groups.extend(lens.groups())
            slanted = _Slopes(slopes, variables[0], priors.pyramid) if priors.bending else None
            if slanted is not None:
                groups.append({"params": slanted.images, "rate": priors.lr_slopes})
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
                        hold = 1.0 if level is not problem else 1 - local
                        slopes = None if slanted is None else slanted.values()
                        energy = level.energy(position, image, lens, ease, hidden, hold, slopes)
                        energy.sum().backward()
                    if level is problem:
                        best.offer(energy.detach(), (position.detach(), image.detach(), lens))
                    optimizer.step()
                    pyramid.into_range()
                    if step % BENT_EVERY == 0:
                        pyramid.move_to(lens.bent(pyramid.position().detach()))
                    step += 1
                    if self.watch is not None:
                        self.watch(position.detach())
                    if progress is not None:
                        progress(share, step, float(energy.detach().mean()))
            except KeyboardInterrupt:
                interrupted = True
            variables = (pyramid.position().detach(), image.detach(), lens.clone())
            with torch.no_grad():
                whole = variables if level is problem else problem.detailed(variables, level)
                behind = hidden if level is problem else None
                slopes = None if slanted is None else slanted.values()
                sloped = None if slopes is None else _Slopes(slopes, whole[0], 1).values()
                best.offer(problem.energy(*whole, hidden=behind, hold=hold, slopes=sloped), whole)
        energy, (position, image, lens) = best.energy, best.variables
        with torch.no_grad():
            shown = problem.render(position, image, lens, hidden if below is problem else None)
        return Refinement(
            depth_m=problem.depth_m(position),
            aif=image.clamp(0, 1),
            blur_factor=lens.blur_factor,
            objective_start=float(first.mean()),
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


class _Slopes:
    """Slopes (B,2,H,W) of a position, from those at another size (0 where there are none), as pyramids."""

    def __init__(self, before: Tensor | None, position: Float[Tensor, "b h w"], count: int) -> None:
        if before is None:
            start = position.new_zeros(position.shape[0], 2, *position.shape[1:])
        else:
            start = enlarged_to(before.detach(), position[:, None]) * (before.shape[-1] / position.shape[-1])
        self.pyramids = [_Pyramid(start[:, direction], count) for direction in (0, 1)]
        self.images = [image for pyramid in self.pyramids for image in pyramid.images]

    def values(self) -> Tensor:
        return torch.stack([pyramid.position() for pyramid in self.pyramids], 1)


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
            total = total + enlarged_to(image, total)
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
