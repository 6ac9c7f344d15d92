"""Refine one scene: optimize depth and all-in-focus image by gradient descent through the renderer.

Refinement starts from a plane sweep's or a network's answer and minimizes :class:`sfdfd.refinement.energy.Energy` until the
time or the steps are used. It works from coarse to fine: a step at half the size costs a quarter, and it helps where the
blur is wide enough to be seen there. :mod:`sfdfd.refinement.schedule` decides which size runs when.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.errors import checked_int, checked_number
from sfdfd.optics.render import Renderer
from sfdfd.refinement.energy import Energy, default_terms, differentiable_renderer
from sfdfd.refinement.lens import Lens, checked_lens_parameters
from sfdfd.refinement.lens_uncertainty import lens_std
from sfdfd.refinement.pyramid import ImagePyramid, SlopePyramids
from sfdfd.refinement.schedule import WARMUP_STEPS, Budget, Schedule, warmup
from sfdfd.refinement.settings import checked_settings, settings_for
from sfdfd.refinement.start_term import start_from_depth
from sfdfd.refinement.variables import Stage, TermBuilder, Variables
from sfdfd.stack import FocalStack, full_precision

__all__ = ["DEFAULT_SECONDS", "Refinement", "Refiner"]

DEFAULT_SECONDS = 10.0
"""Time to refine photographs unless given: in Python, of the command and on the page."""
SMALLEST_SIDES_PX = (96, 320)
"""Shorter sides from which half the size, and a quarter, are used."""
Progress = Callable[[float, int, float], None]
"""Called with (share of the time or steps used, step, energy); it may raise KeyboardInterrupt to stop."""


@dataclass(frozen=True)
class Refinement:
    """The result of :class:`Refiner`.

    Attributes:
        depth_m: (B,H,W) depth in metres, within near and far.
        aif: (B,3,H,W) all-in-focus image in [0, 1].
        blur_factor: (B,) factor on the stack's blur radii; 1 unless it was fitted.
        objective_start, objective: energy of the start and of the result, never larger; comparable within one scene.
        steps: gradient steps taken.
        seconds: wall-clock time.
        interrupted: whether the user stopped it (Ctrl-C); the result is the best until then.
        lens: fitted lens parameters.
        lens_std: standard errors in the form of ``lens.as_dict()`` (:mod:`sfdfd.refinement.lens_uncertainty`).
        rendered: (B,S,3,H,W) stack of the result, with lens and hidden surface; None where nothing was done.
        explained: (B,) mean weight of the slices before normalization, from 1/2 to 1 where the start explains them
            (:func:`sfdfd.refinement.data_term.slice_weights`); None where nothing was done.
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
    """Optimize depth and AIF of a stack through the renderer.

    Args:
        seconds: time to spend, that of the start included where it is known; 0 does nothing.
        steps: number of gradient steps; where given, they end the refinement and the seconds do not.
        fit: lens parameters that are fitted too, see :mod:`sfdfd.refinement.lens`.
        terms: builds the energy's terms, see :func:`sfdfd.refinement.energy.default_terms`.
        settings: fields of :class:`RefinementSettings` that differ from those that suit the renderer.

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
        self,
        seconds: float = 20.0,
        steps: int | None = None,
        fit: Collection[str] = (),
        terms: TermBuilder = default_terms,
        **settings: Any,
    ) -> None:
        self.seconds = checked_number(seconds, "seconds (refine.seconds)", least=0)
        self.steps = None if steps is None else checked_int(steps, "steps (refine.steps)", 0)
        self.settings, self.fit, self.terms = checked_settings(settings), checked_lens_parameters(fit or ()), terms
        self.watch: Callable[[Tensor], None] | None = None
        """Called after each step, before ``progress``, with (B,h,w) normalized inverse depth: 1 at near, 0 at far."""

    @property
    def enabled(self) -> bool:
        return self.steps > 0 if self.steps is not None else self.seconds > 0

    @torch.inference_mode(False)  # the descent needs gradients, whatever mode the caller is in
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
        progress: Progress | None = None,
    ) -> Refinement:
        """Refine from a start.

        Args:
            stack: the images and their coverage; truth is not used.
            renderer: the model's optics; it must be differentiable.
            depth_m: (B,H,W) start in metres.
            aif: (B,3,H,W) start.
            fit_blur: also fit a factor on all blur radii, one per sample (an unknown camera).
            spent_s: seconds of the time that the start took.
            depth_std_m: (B,H,W) standard deviation of the start; where it is small, the result stays near the start.
            progress: see :data:`Progress`.
        """
        stack = replace(stack, **{key: _for_autograd(value) for key, value in vars(stack).items()}).in_full_precision()
        depth_m, aif = (full_precision(_for_autograd(value)) for value in (depth_m, aif))
        if not self.enabled:
            return Refinement(depth_m, aif, torch.ones_like(stack.near_m), math.nan, math.nan, 0, 0.0)
        settings = settings_for(renderer, self.settings)
        start = None if depth_std_m is None else start_from_depth(stack, depth_m, _for_autograd(depth_std_m))
        energy = Energy.at_full_size(
            stack.without_truth(), differentiable_renderer(renderer), settings, start, self.terms
        )
        lens = Lens({*self.fit, "k"} if fit_blur else self.fit, len(stack), like=aif)
        variables, begun_s = energy.variables(depth_m, aif, lens), time.monotonic()
        energy = energy.with_slice_weights(variables)
        budget = Budget(self.seconds, self.steps, spent_s + time.monotonic() - begun_s)
        descent = _Descent(_levels(energy), variables, depth_m, budget, self._reporter(budget, progress))
        descent.run()
        return descent.result()

    def _reporter(self, budget: Budget, progress: Progress | None) -> Callable[[float, Tensor, float], None]:
        def report(share: float, inverse_depth_01: Tensor, energy: float) -> None:
            if self.watch is not None:
                self.watch(inverse_depth_01)
            if progress is not None:
                progress(share, budget.steps, energy)

        return report


def _for_autograd(value: Any) -> Any:
    """Return a copy of a tensor made in inference mode, which autograd rejects; anything else unchanged."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _levels(energy: Energy) -> list[Energy]:
    """Return the energies from the coarsest size to the full size."""
    height, width = energy.level.stack.images.shape[-2:]
    count = sum(min(height, width) >= side for side in SMALLEST_SIDES_PX) if energy.level.settings.coarse_share else 0
    levels = [energy]
    for _ in range(count):
        levels.insert(0, levels[0].halved())
    return levels


class _Descent:
    """One refinement: the levels from coarse to fine, and the best answer so far.

    Args:
        levels: energies from the coarsest size to the full size.
        start: the start at full size.
        start_depth_m: its depth in metres.
        budget: time or steps.
        report: called with (share used, inverse depth, mean energy) after each step.
    """

    def __init__(
        self,
        levels: list[Energy],
        start: Variables,
        start_depth_m: Tensor,
        budget: Budget,
        report: Callable[[float, Tensor, float], None],
    ) -> None:
        self.levels, self.start, self.start_depth_m = levels, start, start_depth_m
        self.budget, self.report = budget, report
        full, settings = len(levels) - 1, levels[-1].level.settings
        largest_px = float(levels[-1].level.stack.blur_radii_at_range_px().abs().max())
        skipped = sum(largest_px < settings.coarse_min_blur_px * 2**size for size in range(1, full + 1))
        seconds = None if budget.max_steps is not None else budget.descent_s
        self.schedule = Schedule(settings, full, skipped, seconds)
        self.reached, self.start_trust = 0, 1.0
        self.variables = self._start_at(0)
        self.best, self.interrupted = _Best(), False

    def run(self) -> None:
        """Run the levels until the budget is used or the user interrupts."""
        try:
            self.report(0.0, self.start.inverse_depth_01, math.nan)
            for number in range(len(self.levels)):
                if number > 0 and (self.budget.used() >= 1 or self.schedule.ends_with(number - 1)):
                    break
                if not self.schedule.skips(number):
                    self._run_level(number)
        except KeyboardInterrupt:
            self.interrupted = True

    def _run_level(self, number: int) -> None:
        optimized = _OptimizedLevel(self.levels[number], self._level_start(number), number == self.schedule.full)
        self.reached, self.start_trust = number, 1.0
        self.budget.begin_level()
        try:
            while (share := self._level_share(number)) < 1:
                self._step(optimized, number, share)
        finally:
            self.variables = optimized.snapshot()

    def _level_start(self, number: int) -> Variables:
        """Return where a level starts: at the start itself, or at the coarser level's solution."""
        level = self.levels[number]
        if number > self.schedule.first:
            return level.detailed(self.variables, self.levels[number - 1])._replace(slopes=self.variables.slopes)
        return self._start_at(number)

    def _start_at(self, number: int) -> Variables:
        """Return the start at the size of a level."""
        if number == self.schedule.full:
            return self.start
        return self.levels[number].reduced(self.start_depth_m, self.start.aif, self.start.lens)

    def _level_share(self, number: int) -> float:
        self.used = self.budget.used()
        self.schedule = self.schedule.after_trial(number, self.budget.progress, self.used)
        return self.schedule.level_share(number, self.budget.progress, self.used)

    def _step(self, optimized: _OptimizedLevel, number: int, share: float) -> None:
        """Take one step of gradient descent."""
        has_draft = self.levels[number].level.renderer.has_draft
        stage = self.schedule.stage(number, share, self.budget.progress, has_draft)
        self.start_trust = stage.start_trust
        optimized.set_learning_rates(self.schedule.decay(number, share), self.budget.progress.steps)
        variables, energy = optimized.backward(stage)
        if number == self.schedule.full and not stage.draft:
            self.best.offer(energy, variables)
        optimized.step()
        self.budget.count_step()
        self.report(self.used, variables.inverse_depth_01, float(energy.mean()))

    @torch.no_grad()
    def result(self) -> Refinement:
        """Return the best answer at full size.

        Images too large for the time end at half the size, and so does an interrupted refinement. Their answer is judged
        there and then enlarged.
        """
        full, schedule = self.levels[-1], self.schedule
        early_end = self.interrupted or schedule.ends_with(self.reached)
        number = max(self.reached, schedule.full - 1) if early_end else schedule.full
        level, variables = self.levels[number], self.variables
        if number != self.reached:
            variables = self._enlarged(variables, level)
        self.best.offer(level(variables, Stage(start_trust=self.start_trust)), variables)
        start = self._start_at(number)
        start_energy = level(start)
        start_wins = self.best.offer(start_energy, start)
        best = self.best.variables
        answer = best
        if level is not full:
            answer = full.detailed(best, level)
            answer = Variables(
                select_samples(start_wins, self.start.inverse_depth_01, answer.inverse_depth_01),
                select_samples(start_wins, self.start.aif, answer.aif),
                answer.lens,
            )
        hidden = self.variables.hidden_colours
        lens_errors = lens_std(level, best._replace(hidden_colours=hidden))
        return Refinement(
            depth_m=full.model.depth_m(answer.inverse_depth_01),
            aif=answer.aif.clamp(0, 1),
            blur_factor=answer.lens.blur_factor,
            objective_start=float(start_energy.mean()),
            objective=float(self.best.energy.mean()),
            steps=self.budget.steps,
            seconds=self.budget.seconds,
            interrupted=self.interrupted,
            lens=answer.lens,
            lens_std=answer.lens.errors_as_dict(lens_errors),
            rendered=full.model.render(answer._replace(hidden_colours=hidden)),
            explained=full.level.explained,
        )

    def _enlarged(self, variables: Variables, level: Energy) -> Variables:
        """Bring the solution of the level that was reached to a finer one."""
        finer = level.detailed(variables, self.levels[self.reached])
        if variables.slopes is None:
            return finer
        return finer._replace(slopes=SlopePyramids(variables.slopes, finer.inverse_depth_01, 1).values())


class _OptimizedLevel:
    """The optimizer of one level and the tensors it moves.

    Args:
        energy: of the level.
        start: where it begins.
        with_hidden: whether the hidden surface is optimized too.
    """

    def __init__(self, energy: Energy, start: Variables, with_hidden: bool) -> None:
        self.energy, settings = energy, energy.level.settings
        levels = settings.pyramid_levels
        self.depth = ImagePyramid(start.inverse_depth_01, levels)
        self.aif, self.lens = start.aif.clone().requires_grad_(), start.lens.clone()
        self.hidden: Tensor | None = None
        if with_hidden:
            self.hidden = energy.model.initial_hidden_colours(start.inverse_depth_01, self.aif.detach())
        self.slopes: SlopePyramids | None = None
        groups: list[dict[str, Any]] = [{"params": self.depth.images, "rate": settings.lr_depth}]
        groups.extend(self.lens.parameter_groups())
        if settings.bending:
            self.slopes = SlopePyramids(start.slopes, start.inverse_depth_01, levels)
            groups.append({"params": self.slopes.images, "rate": settings.lr_slopes})
        groups = [group | {"warmup_steps": WARMUP_STEPS} for group in groups]
        colours = [self.aif] if self.hidden is None else [self.aif, self.hidden.requires_grad_()]
        groups.append({"params": colours, "rate": settings.lr_aif, "warmup_steps": 1})
        self.optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.98))

    def set_learning_rates(self, decay: float, level_steps: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * decay * warmup(level_steps, group["warmup_steps"])

    def backward(self, stage: Stage) -> tuple[Variables, Tensor]:
        """Compute energy and gradients; return the variables, detached, and the energy (B,)."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            slopes = None if self.slopes is None else self.slopes.values()
            variables = Variables(self.depth.values(), self.aif, self.lens, slopes, self.hidden)
            energy = self.energy(variables, stage)
            energy.sum().backward()
        detached = Variables(variables.inverse_depth_01.detach(), self.aif.detach(), self.lens)
        return detached, energy.detach()

    def step(self) -> None:
        self.optimizer.step()
        self.depth.clamp_()
        self.lens.clamp_()

    def snapshot(self) -> Variables:
        """Return detached copies of the variables."""
        return Variables(
            self.depth.values().detach(),
            self.aif.detach(),
            self.lens.clone(),
            None if self.slopes is None else self.slopes.values().detach(),
            self.hidden,
        )


def select_samples(wins: Bool[Tensor, "b"], new: Tensor, old: Tensor) -> Tensor:
    """Return ``new`` for the samples where it wins, ``old`` for the others."""
    return torch.where(wins.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


class _Best:
    """The answer of the smallest energy so far, for each sample of the batch."""

    energy: Tensor
    variables: Variables

    def __init__(self) -> None:
        self.is_empty = True

    def offer(self, energy: Tensor, variables: Variables) -> Bool[Tensor, "b"]:
        """Take an answer for the samples where it is better; return which these are."""
        inverse_depth_01, aif, lens = variables[:3]
        if self.is_empty:
            self.is_empty, self.energy = False, energy
            self.variables = Variables(inverse_depth_01.clone(), aif.clone(), lens.clone())
            return torch.ones_like(energy, dtype=torch.bool)
        wins = energy <= self.energy
        best = self.variables
        for name, value in best.lens.values.items():
            best.lens.values[name] = select_samples(wins, lens.values[name].detach(), value)
        self.energy = torch.where(wins, energy, self.energy)
        self.variables = Variables(
            select_samples(wins, inverse_depth_01, best.inverse_depth_01),
            select_samples(wins, aif, best.aif),
            best.lens,
        )
        return wins
