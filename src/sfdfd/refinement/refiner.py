"""Refinement of one scene: depth and all-in-focus image by gradient descent through the renderer.

The network's teacher, applied to one stack until the time is up: predict -> render -> compare, with a start (a plane sweep's
or a network's) in the place of the prediction. Minimised is :class:`sfdfd.refinement.energy.Energy`. The inverse_depth_01 of inverse
depth is a sum of images of 1, 1/2, ... 1/32 of the size and Adam moves all of them, so that plain regions move as a whole.
Coarse to fine: much of the way is gone on images of half the size, where a step costs a quarter, if the blur is wide enough
to be seen there (docs/refinement.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.errors import InputError, checked_number, checked_whole
from sfdfd.optics.render import Renderer
from sfdfd.refinement.energy import Energy, Priors, differentiable_renderer, enlarged_to, priors_for, start_of
from sfdfd.refinement.lens import Lens, check_fitted
from sfdfd.refinement.lens_uncertainty import lens_std
from sfdfd.stack import FocalStack, full_precision

__all__ = ["DEFAULT_SECONDS", "Refinement", "Refiner"]

DEFAULT_SECONDS = 10.0
"""Time for the refinement of photographs unless told otherwise: in Python, of the command and on the page."""
LEAST_SHARE = 1 / 3
"""Of the seconds, for the descent itself, however long the start took."""
LEAST_STEPS, STEP_RATIO = 10, 5.0
"""The full size is begun where it can take so many steps, each this many times as long as one at half of its size."""
TRIED_STEPS = 3
"""So many steps of a coarser level say how fast it is."""
WARMING_STEPS = 8
"""So many steps of a level until geometry moves at its full rate: Adam's first steps have the length of the rate whatever
the slope, over all levels of the pyramid at once, and a short refinement spent its time on making that good."""
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
        lens_std: standard errors, in the form of ``lens.as_dict()`` (:mod:`sfdfd.refinement.lens_uncertainty`).
        rendered: (B,S,3,H,W) the stack as the model has it, with lens and second layer; None where nothing was done.
        explained: (B,) how much the slices say of the scene in the mean, from 1/2 to 1 where the model explained them, see
            :meth:`sfdfd.refinement.energy.Energy.weigh`; None where nothing was done.
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
    lens_std: dict[str, list] | None = None
    rendered: Tensor | None = None
    explained: Tensor | None = None


class Refiner:
    """Optimises depth and AIF of a stack through the renderer.

    Args:
        seconds: time to spend, in seconds, with that of the start where it is known; 0 does nothing.
        steps: number of gradient steps; where given, they end the refinement instead of the seconds.
        fit: what of the lens is fitted as well, see :mod:`sfdfd.refinement.lens`.
        priors: those of :class:`Priors` that shall not be what goes with the renderer, by name.

    Raises:
        InputError: a value is wrong.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.plane_sweep.sweep import depth_from_plane_sweep
        >>> renderer = DefocusRenderer(sigma_scale=0.5, method="fast")
        >>> start = depth_from_plane_sweep(stack, renderer)
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

    @torch.inference_mode(False)  # whatever the caller is in: the descent needs gradients
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
        stack = replace(stack, **{key: _for_autograd(value) for key, value in vars(stack).items()})
        stack, depth_m, aif = (
            stack.in_full_precision(),
            full_precision(_for_autograd(depth_m)),
            full_precision(_for_autograd(aif)),
        )
        depth_std_m = _for_autograd(depth_std_m)
        if not self.enabled:
            return Refinement(depth_m, aif, torch.ones_like(stack.near_m), math.nan, math.nan, 0, 0.0)
        priors = priors_for(renderer, self.priors)
        start = None if depth_std_m is None else start_of(stack, depth_m, depth_std_m)
        problem = Energy(priors, stack.without_truth(), differentiable_renderer(renderer), start)
        fitted = {*self.fit, "k"} if fit_blur else self.fit
        unknown = problem.unknowns(depth_m, aif, Lens(fitted, *stack.images.shape[:2], like=aif))
        last = sum(priors.coarse_share > 0 and min(aif.shape[-2:]) >= smallest for smallest in (96, 320))
        begun_s = time.monotonic()
        problem.weigh(*unknown)
        wide_px = float(stack.blur_radii_at_range_px().abs().max())
        narrow = sum(wide_px < priors.coarse_px * 2**size for size in range(1, last + 1))
        clock = _Clock(self.seconds, self.steps, spent_s + time.monotonic() - begun_s, priors, last, narrow)
        levels = [problem]
        for _ in range(last):
            levels.insert(0, levels[0].halved())
        best, variables, hidden, slopes, interrupted = _Best(), unknown, None, None, False

        def told(share: float, inverse_depth_01: Tensor, energy: float) -> None:
            if self.watch is not None:
                self.watch(inverse_depth_01)
            if progress is not None:
                progress(share, clock.steps, energy)

        drafts = priors.draft_share > 0 and "level_px" in renderer.options
        try:
            told(0.0, unknown[0], math.nan)
        except KeyboardInterrupt:
            interrupted = True
        for number, level in enumerate(levels):
            if number > 0 and (interrupted or clock.gone() >= 1 or clock.ends_with(number - 1)):
                break
            if clock.passes(number) and not interrupted:
                continue
            if number <= clock.first:
                variables, slopes = unknown if level is problem else level.reduced(depth_m, aif, unknown[2]), None
            else:
                variables = level.detailed(variables, levels[number - 1])
            reached, hold = number, 1.0
            clock.begin_level()
            pyramid = _Pyramid(variables[0], priors.pyramid)
            image, lens = variables[1].clone().requires_grad_(), variables[2].clone()
            groups = [{"params": pyramid.images, "rate": priors.lr_depth}]
            colours = [image]
            hidden = (
                level.hidden_colours(variables[0], image.detach()) if level is problem and priors.hidden_px else None
            )
            if hidden is not None:
                colours.append(hidden.requires_grad_())
            groups.extend(lens.groups())
            slanted = _Slopes(slopes, variables[0], priors.pyramid) if priors.bending else None
            if slanted is not None:
                groups.append({"params": slanted.images, "rate": priors.lr_slopes})
            groups = [group | {"warming": WARMING_STEPS} for group in groups]
            groups.append({"params": colours, "rate": priors.lr_aif, "warming": 1})
            optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.98))
            try:
                while not interrupted and (local := clock.level_gone(number, share := clock.gone())) < 1:
                    final = clock.ends_with(number)
                    level.drafts = drafts and level is problem and clock.drafts(local)
                    floor = 0.04 if final else 0.2
                    for group in optimizer.param_groups:
                        group["lr"] = group["rate"] * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * local)))
                        group["lr"] *= min(1.0, (clock.level_steps + 1) / group["warming"])
                    optimizer.zero_grad(set_to_none=True)
                    with torch.enable_grad():
                        inverse_depth_01 = pyramid.inverse_depth_01()
                        ease = max(0.0, 1 - local / 0.8) if number == clock.first and not final else 0.0
                        hold = 1 - local if final and level is problem else 1.0
                        slopes = None if slanted is None else slanted.values()
                        energy = level.energy(inverse_depth_01, image, lens, ease, hidden, hold, slopes)
                        energy.sum().backward()
                    if level is problem and not level.drafts:
                        best.offer(energy.detach(), (inverse_depth_01.detach(), image.detach(), lens))
                    optimizer.step()
                    pyramid.into_range()
                    lens.into_range()
                    if clock.steps % BENT_EVERY == 0:
                        pyramid.move_to(lens.bent(pyramid.inverse_depth_01().detach()))
                    clock.step()
                    told(share, inverse_depth_01.detach(), float(energy.detach().mean()))
            except KeyboardInterrupt:
                interrupted = True
            level.drafts = False
            variables = (pyramid.inverse_depth_01().detach(), image.detach(), lens.clone())
            slopes = None if slanted is None else slanted.values().detach()
        # images too large for the time stay at half the size, and where somebody waits
        level = levels[max(reached, last - 1)] if interrupted or clock.ends_with(reached) else problem
        with torch.no_grad():
            if level is not levels[reached]:
                variables = level.detailed(variables, levels[reached])
                slopes = None if slopes is None else _Slopes(slopes, variables[0], 1).values()
            best.offer(level.energy(*variables, hidden=hidden, hold=hold, slopes=slopes), variables)
            begun = unknown if level is problem else level.reduced(depth_m, aif, unknown[2])
            first = level.energy(*begun)
            worse = best.offer(first, begun)
            assert best.energy is not None
            energy, (inverse_depth_01, image, lens) = best.energy, best.variables
            if level is not problem:
                inverse_depth_01, image, lens = problem.detailed(best.variables, level)
                inverse_depth_01, image = chosen(worse, unknown[0], inverse_depth_01), chosen(worse, unknown[1], image)
            shown = problem.render(inverse_depth_01, image, lens, hidden)
            errors = lens_std(level, *best.variables, hidden)
            std = lens.with_errors(errors, problem.stack.images.shape[-1] / level.stack.images.shape[-1])
        return Refinement(
            depth_m=problem.depth_m(inverse_depth_01),
            aif=image.clamp(0, 1),
            blur_factor=lens.blur_factor,
            objective_start=float(first.mean()),
            objective=float(energy.mean()),
            steps=clock.steps,
            seconds=clock.seconds,
            interrupted=interrupted,
            lens=lens,
            lens_std=std,
            rendered=shown,
            explained=problem.explained,
        )


def _for_autograd(value: Any) -> Any:
    """A copy of a tensor that was made in inference mode, which autograd does not take; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


class _Clock:
    """How much of the time, or of the steps, is gone, and which level they are spent on.

    The ``narrow`` coarsest of the ``last`` levels before the full size are left out. ``coarse_share`` goes to the others,
    in equal parts, but not more than ``coarse_steps`` on each. Of seconds, the full size is not begun where it could not
    take ``LEAST_STEPS`` (as the fastest of the first at the coarsest level says: a slow one may be another program's
    doing): half the size is the last then, a quarter has all of the share before it. (A quarter as the last is too little:
    there the answer gets worse than a sweep at full size.)
    """

    def __init__(
        self, seconds: float, steps: int | None, spent_s: float, priors: Priors, last: int, narrow: int = 0
    ) -> None:
        self.all_steps, self.spent_s, self.last, self.priors = steps, spent_s, last, priors
        self.budget_s = max(seconds - spent_s, LEAST_SHARE * seconds)
        self.steps, self.begun_s, self.ending, self.narrow = 0, time.monotonic(), last, narrow
        self.begin_level()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun_s + self.spent_s

    @property
    def first(self) -> int:
        """The first level that is more than tried."""
        return min(self.narrow, self.ending)

    def gone(self) -> float:
        if self.all_steps is not None:
            return self.steps / self.all_steps
        return (time.monotonic() - self.begun_s) / self.budget_s

    def passes(self, number: int) -> bool:
        """Whether a level is left out, and not even needed to see how fast it is."""
        return number < self.first and not (number == 0 and self.all_steps is None)

    def begin_level(self) -> None:
        self._before_s, self._fastest_s = time.monotonic(), math.inf
        self._level_begun, self.level_steps = self.gone(), 0

    def step(self) -> None:
        self.steps += 1
        self.level_steps += 1
        now = time.monotonic()
        self._fastest_s = min(self._fastest_s, now - self._before_s)
        self._before_s = now

    def ends_with(self, number: int) -> bool:
        return self.ending <= number

    def level_gone(self, number: int, gone: float) -> float:
        """How much of a level is gone, 1 where it ends, when ``gone`` of the whole is; what a coarser one has taken so far
        says whether the full size is worth it."""
        coarse_steps = self.priors.coarse_steps
        if self.all_steps is None and number < self.last == self.ending and self.level_steps == TRIED_STEPS:
            sizes = [STEP_RATIO**finer * self._fastest_s for finer in range(self.last - number + 1)]
            coarse_s = coarse_steps * sum(sizes[max(self.first - number, 0) : -1])
            capped = self._level_begun + coarse_s / self.budget_s
            left_s = (1 - max(min(self.priors.coarse_share, capped), gone)) * self.budget_s
            if left_s < LEAST_STEPS * sizes[-1]:
                self.ending = self.last - 1
        if number < self.first:
            return self.level_steps / TRIED_STEPS
        if self.ends_with(number):
            return (gone - self._level_begun) / (1 - self._level_begun) if gone < 1 else 1.0
        until = self.priors.coarse_share * (number + 1 - self.first) / (self.ending - self.first)
        local = (gone - self._level_begun) / (until - self._level_begun) if gone < until else 1.0
        if self.all_steps is None and self.level_steps < TRIED_STEPS and gone < 1:
            local = min(local, self.level_steps / TRIED_STEPS)
        return max(local, self.level_steps / max(coarse_steps, 1))

    def drafts(self, local: float) -> bool:
        """Whether the full size, so much of which is gone, renders drafts."""
        return local < self.priors.draft_share and self.level_steps < self.priors.draft_steps


def chosen(wins: Bool[Tensor, "b"], new: Tensor, old: Tensor) -> Tensor:
    """Sample by sample, ``new`` where it wins."""
    return torch.where(wins.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


class _Best:
    """Sample by sample, whichever answer had the smallest energy."""

    def __init__(self) -> None:
        self.energy: Tensor | None = None

    def offer(self, energy: Tensor, variables: tuple[Tensor, Tensor, Lens]) -> Bool[Tensor, "b"]:
        """Which samples this answer is the best of so far."""
        inverse_depth_01, image, lens = variables
        if self.energy is None:
            self.energy, self.variables = energy, (inverse_depth_01.clone(), image.clone(), lens.clone())
            return torch.ones_like(energy, dtype=torch.bool)
        wins = energy <= self.energy
        kept = self.variables[2]
        kept.values = {key: chosen(wins, lens.values[key].detach(), old) for key, old in kept.values.items()}
        self.energy = torch.where(wins, energy, self.energy)
        self.variables = chosen(wins, inverse_depth_01, self.variables[0]), chosen(wins, image, self.variables[1]), kept
        return wins


class _Slopes:
    """Slopes (B,2,H,W) of a inverse_depth_01, from those at another size (0 where there are none), as pyramids."""

    def __init__(self, before: Tensor | None, inverse_depth_01: Float[Tensor, "b h w"], count: int) -> None:
        if before is None:
            start = inverse_depth_01.new_zeros(inverse_depth_01.shape[0], 2, *inverse_depth_01.shape[1:])
        else:
            start = enlarged_to(before.detach(), inverse_depth_01[:, None]) * (
                before.shape[-1] / inverse_depth_01.shape[-1]
            )
        self.pyramids = [_Pyramid(start[:, direction], count) for direction in (0, 1)]
        self.images = [image for pyramid in self.pyramids for image in pyramid.images]

    def values(self) -> Tensor:
        return torch.stack([pyramid.inverse_depth_01() for pyramid in self.pyramids], 1)


class _Pyramid:
    """Position (B,H,W) as a sum of images, each of half the size of the one before."""

    def __init__(self, inverse_depth_01: Float[Tensor, "b h w"], count: int) -> None:
        height, width = inverse_depth_01.shape[-2:]
        sizes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(1, count)]
        rest = [inverse_depth_01.new_zeros(inverse_depth_01.shape[0], 1, *size).requires_grad_() for size in sizes]
        self.images = [inverse_depth_01[:, None].clone().requires_grad_(), *rest]

    def inverse_depth_01(self) -> Tensor:
        total = self.images[0]
        for image in self.images[1:]:
            total = total + enlarged_to(image, total)
        return total[:, 0]

    @torch.no_grad()
    def into_range(self) -> None:
        """The finest level takes back what leaves [0, 1]."""
        inverse_depth_01 = self.inverse_depth_01()
        self.images[0] += (inverse_depth_01.clamp(0, 1) - inverse_depth_01)[:, None]

    @torch.no_grad()
    def move_to(self, inverse_depth_01: Tensor) -> None:
        """The finest level takes the difference."""
        self.images[0] += (inverse_depth_01 - self.inverse_depth_01())[:, None]
