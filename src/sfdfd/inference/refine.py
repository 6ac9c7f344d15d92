"""Refinement of one scene: depth and all-in-focus image by gradient descent through the renderer.

The network's teacher, applied to one stack until the time is up: predict -> render -> compare, with a start (classical or a
network's) in the place of the prediction. The unknowns are inverse depth, in which blur is linear, and the AIF. The
energy is a robust data term, an edge-aware smoothness of inverse depth and a weak one of the AIF:

    E = mean psi(R(I, u) - J) + alpha mean exp(-beta |dI|) rho(du) + gamma mean rho(dI)
    rho(x) = sqrt(x^2 + eps^2),   psi(x) = c log(1 + rho(x) / c)

psi grows ever more slowly: at occlusion edges, which no gradient through a source-weighted renderer can explain, and where
something moved, a pixel has to be given up rather than paid for with its neighbours' depth (docs/refinement.md).
Coarse to fine: most of the way is gone on images of half the size, where a step costs a quarter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError, checked_number, checked_whole
from sfdfd.optics.depth import depth_at, inverse_position
from sfdfd.optics.render import Renderer
from sfdfd.stack import FocalStack

__all__ = ["Refinement", "Refiner", "energy_of", "with_gradient"]

SATURATED = 254.5 / 255
"""From here on a pixel says only "at least so bright"."""


@dataclass(frozen=True)
class Refinement:
    """What :class:`Refiner` found.

    Attributes:
        depth_m: (B,H,W) depth in metres, within near and far.
        aif: (B,3,H,W) all-in-focus image in [0, 1].
        blur_factor: (B,) factor on the stack's blur radii; 1 unless it was asked for.
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


class Refiner:
    """Optimises depth and AIF of a stack through the renderer.

    Args:
        seconds: time to spend, in seconds; 0 does nothing.
        steps: number of gradient steps; where given, they end the refinement instead of the seconds.
        smoothness: alpha, weight of the smoothness of inverse depth (measured over its range).
        edge_sharpness: beta, how fast an edge of the AIF frees the depth.
        outlier_level: c, the residual (of a range of 1) from which a pixel counts less and less.
        aif_smoothness: gamma, weight of the AIF's total variation: keeps it from fitting the rounding.
        lr_depth, lr_aif: Adam's learning rates for the logit of inverse depth and for the AIF.
        coarse_share: share of the time spent at half the size.
    """

    def __init__(
        self,
        seconds: float = 20.0,
        steps: int | None = None,
        smoothness: float = 0.02,
        edge_sharpness: float = 12.0,
        outlier_level: float = 0.006,
        aif_smoothness: float = 0.001,
        lr_depth: float = 0.04,
        lr_aif: float = 0.004,
        coarse_share: float = 0.3,
    ) -> None:
        self.seconds = checked_number(seconds, "seconds (refine.seconds)", least=0)
        self.steps = None if steps is None else checked_whole(steps, "steps (refine.steps)", 0)
        self.smoothness, self.edge_sharpness, self.aif_smoothness = smoothness, edge_sharpness, aif_smoothness
        self.outlier_level = outlier_level
        self.lr_depth, self.lr_aif, self.coarse_share = lr_depth, lr_aif, coarse_share

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
        progress: Callable[[float, int, float], None] | None = None,
    ) -> Refinement:
        """Refine from a start.

        Args:
            stack: the images, and what of them is covered; truth is not looked at.
            renderer: the model's optics; see :func:`with_gradient` for one that has none.
            depth_m: (B,H,W) the depth to start from, in metres.
            aif: (B,3,H,W) the AIF to start from.
            fit_blur: find a factor on all blur radii as well, one per sample (an unknown camera).
            progress: called with (share of the time or steps gone, step, energy); it may raise KeyboardInterrupt.
        """
        if not self.enabled:
            return Refinement(depth_m, aif, torch.ones_like(stack.near_m), math.nan, math.nan, 0, 0.0)
        problem = _Problem(self, stack.without_truth(), with_gradient(renderer))
        coarse = problem.halved() if min(aif.shape[-2:]) >= 96 and self.coarse_share > 0 else None
        unknown = problem.unknowns(depth_m, aif)
        started = time.monotonic()
        with torch.no_grad():
            start = problem.energy(*unknown)
        best = [start, *(value.clone() for value in unknown)]
        total_steps, step, interrupted = self.steps, 0, False

        def gone() -> float:
            if total_steps is not None:
                return step / total_steps
            return (time.monotonic() - started) / self.seconds

        variables = unknown
        for level, until in ((coarse, self.coarse_share), (problem, 1.0)):
            if level is None or interrupted or gone() >= until:
                continue
            if level is coarse:
                variables = coarse.unknowns(1 / _halve(1 / depth_m[:, None])[:, 0], _halve(aif))
            begin = gone()
            logit, image, log_blur = (value.clone().requires_grad_() for value in variables)
            groups = [{"params": [logit], "rate": self.lr_depth}, {"params": [image], "rate": self.lr_aif}]
            if fit_blur:
                groups.append({"params": [log_blur], "rate": 0.02})
            optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.98))
            try:
                while (share := gone()) < until:
                    floor, local = (0.3, (share - begin) / (until - begin)) if level is coarse else (0.04, share)
                    for group in optimizer.param_groups:
                        group["lr"] = group["rate"] * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * local)))
                    optimizer.zero_grad(set_to_none=True)
                    with torch.enable_grad():
                        energy = level.energy(logit, image, log_blur)
                        energy.sum().backward()
                    if level is problem:
                        best = _better(best, [energy.detach(), logit.detach(), image.detach(), log_blur.detach()])
                    optimizer.step()
                    step += 1
                    if progress is not None:
                        progress(share, step, float(energy.detach().mean()))
            except KeyboardInterrupt:
                interrupted = True
            variables = (logit.detach(), image.detach(), log_blur.detach())
            if level is coarse:
                variables = _detail(unknown, variables)
            with torch.no_grad():
                best = _better(best, [problem.energy(*variables), *variables])
        energy, logit, image, log_blur = best
        return Refinement(
            depth_m=problem.depth_m(logit),
            aif=image.clamp(0, 1),
            blur_factor=log_blur.exp(),
            objective_start=float(start.mean()),
            objective=float(energy.mean()),
            steps=step,
            seconds=time.monotonic() - started,
            interrupted=interrupted,
        )


def _better(best: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Sample by sample, whichever has the smaller energy."""
    wins = other[0] < best[0]
    return [
        torch.where(wins.reshape(-1, *(1,) * (new.ndim - 1)), new, old).clone()
        for old, new in zip(best, other, strict=True)
    ]


def _halve(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def _detail(fine: tuple[Tensor, ...], coarse: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The coarse solution at the fine size: depth as it is, the AIF with the start's detail put back."""
    _, image, _ = fine

    def enlarged(values: Tensor) -> Tensor:
        return F.interpolate(values, size=image.shape[-2:], mode="bilinear", align_corners=False)

    image = image + enlarged(coarse[1] - _halve(image))
    return enlarged(coarse[0][:, None])[:, 0], image, coarse[2]


class _Problem:
    """The energy of a stack at one size, over (logit of inverse depth, AIF, log of the blur factor)."""

    def __init__(self, options: Refiner, stack: FocalStack, renderer: Renderer) -> None:
        self.options, self.stack, self.renderer = options, stack, renderer
        shown = stack.shown()
        self.weight = (shown / shown.mean((1, 2, 3), keepdim=True).clamp_min(1e-12))[:, :, None]
        self.saturated = stack.images >= SATURATED

    def halved(self) -> _Problem:
        stack = self.stack
        images = _halve(stack.images.flatten(0, 1)).unflatten(0, stack.images.shape[:2])
        return _Problem(self.options, stack.scaled(images, _halve(stack.shown())), self.renderer)

    def unknowns(self, depth_m: Tensor, aif: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        position = inverse_position(depth_m, self.stack.near_m, self.stack.far_m).clamp(0.005, 0.995)
        return torch.logit(position), aif.clone(), torch.zeros_like(self.stack.near_m)

    def depth_m(self, logit: Tensor) -> Tensor:
        return depth_at(torch.sigmoid(logit), self.stack.near_m, self.stack.far_m)

    def render(self, logit: Tensor, aif: Tensor, log_blur: Tensor) -> Tensor:
        focus, camera = self.stack.focus_distances_m, self.stack.camera
        return self.renderer(aif, self.depth_m(logit), focus, camera, aperture=log_blur.exp())

    def energy(self, logit: Tensor, aif: Tensor, log_blur: Tensor) -> Tensor:
        """(B,)"""
        options = self.options
        residual = self.render(logit, aif, log_blur) - self.stack.images
        residual = torch.where(self.saturated, residual.clamp_max(0.0), residual)
        level = options.outlier_level
        energy = (self.weight * level * torch.log1p(torch.sqrt(residual * residual + 1e-5) / level)).mean((1, 2, 3, 4))
        position = torch.sigmoid(logit)
        for axis in (-1, -2):
            step = torch.diff(aif, dim=axis)
            edge = step.detach().abs().mean(1)
            depth_step = torch.diff(position, dim=axis)
            smooth = torch.exp(-options.edge_sharpness * edge) * torch.sqrt(depth_step * depth_step + 3e-7)
            energy = energy + 1.9 * options.smoothness * smooth.mean((1, 2))
            if options.aif_smoothness:
                energy = energy + options.aif_smoothness * torch.sqrt(step * step + 1e-5).mean((1, 2, 3))
        return energy


def energy_of(
    stack: FocalStack, renderer: Renderer, depth_m: Float[Tensor, "b h w"], aif: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b"]:
    """The energy that :class:`Refiner` minimises, of a given answer, without its priors' options changed: (B,)."""
    problem = _Problem(Refiner(), stack.without_truth(), with_gradient(renderer))
    with torch.no_grad():
        return problem.energy(*problem.unknowns(depth_m, aif))


def with_gradient(renderer: Renderer) -> Renderer:
    """The renderer, if it has a gradient in depth.

    Raises:
        InputError: it has none.
    """
    if not renderer.differentiable:
        raise InputError(f"{type(renderer).__name__} has no gradient in depth and cannot refine (optics)")
    return renderer
