"""Say where another photograph should be focused: what the stack lacks, from the optics and the std of a prediction.

The Fisher information of slices about the inverse depth u of a small patch, whose sharp image is unknown, is a sum over
frequencies f. With H_s the spectra of the blur and D_s their derivatives in u,

    g(u) = sum_f w [sum_s D_s^2 - (sum_s H_s D_s)^2 / (sum_s H_s^2 + e)],   w ~ 1 / f,   e = n^2 / P(f).

The second summand is what the unknown image takes away. P(f) = A^2 / f^2 is the power of natural images (Field, JOSA A 4,
1987) at the local strength of texture, n the noise. A candidate multiplies the information at a pixel by g with it over g
without it. Plain walls stay unknown: their std is bounded by the depth range, with or without another slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from kornia.filters import box_blur
from torch import Tensor

from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.optics.spectra import kernel_sizes_px, psf_spectra
from sfdfd.stack import FocalStack, Prediction, renderer_for

__all__ = ["Advice", "next_photograph"]

DEPTHS, CANDIDATES, RADII, GRID = 48, 33, 128, 64
"""Numbers of inverse depths, of candidates and of blur radii, and the side in pixels of the grid of frequencies."""
TEXTURES = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
"""Root mean square gradients of the AIF per pixel for which the information is tabulated."""
NOISE_STD = 0.002
TEXTURE_WINDOW_PX = 9
LEAST_GAIN = 0.25
"""Share by which the mean expected error has to fall for an advice."""


@dataclass(frozen=True)
class Advice:
    """Where another photograph should be focused.

    Attributes:
        focus_distance_m: the advised focus distance, in the unit of the stack's.
        error_now, error_then: mean expected error, as a share of the depth, without and with it.
        share_halved: share of the picture whose expected error falls by half or more.
        f_number: at which it is to be taken, where the slices differ in aperture; None: as they were.
    """

    focus_distance_m: float
    error_now: float
    error_then: float
    share_halved: float
    f_number: float | None = None

    def sentence(self, files: tuple[str, str] | None = None) -> str:
        """Return the advice for the user.

        Args:
            files: the slices before and after the advised distance, where distances have no unit; None: it is in metres.
        """
        where = f"at {self.focus_distance_m:.2g} m" if files is None else "between {} and {}".format(*files)
        where += "" if self.f_number is None else f", at f/{self.f_number:.3g},"
        halved = (
            f"; on {100 * self.share_halved:.0f} % of the picture it falls by half" if self.share_halved > 0.02 else ""
        )
        return (
            f"another photograph focused {where} would help most: the expected error of depth falls from "
            f"{100 * self.error_now:.2g} to {100 * self.error_then:.2g} %{halved}"
        )

    def facts(self) -> dict[str, Any]:
        """Return what ``prediction.json`` says about it."""
        return {
            "focus_distance_m": self.focus_distance_m,
            "expected_error_now": self.error_now,
            "expected_error_then": self.error_then,
            "share_halved": self.share_halved,
            "f_number": self.f_number,
        }


@torch.no_grad()
def next_photograph(stack: FocalStack, prediction: Prediction, renderer: Renderer) -> Advice | None:
    """Return the focus distance whose photograph would lower the expected error most; None where none does clearly.

    Args:
        stack: a batch of one.
        prediction: of the stack, with its std.
        renderer: the optics where the stack carries none.
    """
    assert prediction.depth_std_m is not None
    renderer, widest = renderer_for(stack, renderer), stack.camera[0].widest()
    low, high = float(1 / stack.far_m[0]), float(1 / stack.near_m[0])
    inverse = torch.linspace(low, high, DEPTHS)
    candidates = torch.linspace(low, min(high, 0.9 / widest.focal_length_m), CANDIDATES)
    spectra = _Spectra(renderer, widest, inverse)
    focus, cameras = 1 / stack.focus_distances_m[0].cpu(), stack.camera[0].per_slice(stack.images.shape[1])
    real = stack.slice_mask[0].nonzero()[:, 0].tolist()
    known = torch.stack([spectra.of_slice(float(focus[index]), cameras[index]) for index in real])
    without = _information(known, spectra.frequencies)
    gains = torch.stack(
        [
            _information(torch.cat([known, spectra.of_slice(float(u), widest)[None]]), spectra.frequencies) / without
            for u in candidates
        ]
    )
    advice = _best_of(stack, prediction, candidates, gains.clamp_min(1))
    if advice is None or not stack.camera[0].brackets_aperture:
        return advice
    return replace(advice, f_number=widest.widest_f_number)


class _Spectra:
    """Spectra of the blur at a set of inverse depths, and their derivatives in inverse depth."""

    def __init__(self, renderer: Renderer, camera: Camera, inverse: Float[Tensor, "d"]) -> None:
        self.inverse = inverse
        ends = 1 / torch.stack([inverse[0], inverse[-1]])
        largest = float(camera.blur_radius_px(ends[:, None], ends[None]).max())
        radii = torch.linspace(0, 1.05 * max(largest, 1.0), RADII)
        sizes = kernel_sizes_px(renderer.psf, renderer.psf.size_px(radii, renderer.sigma_scale))
        self.table = psf_spectra(renderer.psf, sizes, (GRID, GRID))[:, 0, 1:]
        self.step = float(radii[1])
        self.slope = torch.gradient(self.table, spacing=self.step, dim=0)[0]
        self.frequencies = torch.arange(1, GRID // 2 + 1) / GRID

    def of_slice(self, inverse_focus: float, camera: Camera) -> Float[Tensor, "2 d f"]:
        """Return H and D of a slice at every depth and frequency."""
        focus_m = math.inf if inverse_focus <= 0 else 1 / inverse_focus
        radius = camera.blur_radius_px(1 / self.inverse, focus_m, signed=True)
        per_inverse = torch.gradient(radius, spacing=float(self.inverse[1] - self.inverse[0]))[0]
        place = (radius.abs() / self.step).clamp_max(RADII - 1.001)
        index, share = place.long(), (place - place.floor())[:, None]
        spectrum, slope = (torch.lerp(table[index], table[index + 1], share) for table in (self.table, self.slope))
        return torch.stack([spectrum, slope * (radius.sign() * per_inverse)[:, None]])


def _information(slices: Float[Tensor, "s 2 d f"], frequencies: Float[Tensor, "f"]) -> Float[Tensor, "t d"]:
    """Return g at every strength of texture and depth, up to a factor; at least a little, so that ratios exist."""
    spectrum, slope = slices.unbind(1)
    squares, mixed, powers = slope.square().sum(0), (spectrum * slope).sum(0), spectrum.square().sum(0)
    rows = []
    for texture in TEXTURES:
        power = texture**2 * 8 / (2 * math.pi) ** 3 / frequencies.square()
        kept = squares - mixed.square() / (powers + NOISE_STD**2 / power)
        rows.append((kept.clamp_min(0) / frequencies).sum(-1))
    return torch.stack(rows) + 1e-9


def _best_of(
    stack: FocalStack, prediction: Prediction, candidates: Float[Tensor, "c"], gains: Float[Tensor, "c t d"]
) -> Advice | None:
    """Return the candidate of the least expected error, if it is clearly less than without it."""
    depth_m, std_m = prediction.depth_m[0].cpu(), prediction.depth_std_m
    assert std_m is not None
    low, high = float(1 / stack.far_m[0]), float(1 / stack.near_m[0])
    counted = stack.coverage()[0].amin(0).cpu() > 0.5
    if prediction.beyond_range is not None:  # another note speaks of what lies beyond the range
        counted &= prediction.beyond_range[0].cpu() == 0
    if not bool(counted.any()):
        return None
    inverse = 1 / depth_m[counted]
    std = (std_m[0].cpu()[counted] * inverse.square()) / (high - low)
    places = ((inverse - low) / (high - low) * (DEPTHS - 1)).round().long().clamp(0, DEPTHS - 1)
    texture = _texture_level(prediction.aif.cpu())[counted]
    information = (1 / std.square() - 1).clamp_min(0)
    error_now = std / inverse
    errors = [((gain[texture, places] * information + 1).rsqrt() / inverse).clamp_max(error_now) for gain in gains]
    best = min(range(len(errors)), key=lambda index: float(errors[index].mean()))
    now, then = float(error_now.mean()), float(errors[best].mean())
    if not now - then > LEAST_GAIN * now:
        return None
    unit = high - low
    halved = float((errors[best] <= 0.5 * error_now).float().mean())
    return Advice(float(1 / candidates[best]), now * unit, then * unit, halved)


def _texture_level(aif: Float[Tensor, "1 3 h w"]) -> Tensor:
    """Return (H,W) indices into ``TEXTURES`` of the local strength of texture."""
    grey = aif.mean(1, keepdim=True)
    square = torch.zeros_like(grey)
    square[..., :, 1:] += torch.diff(grey, dim=-1).square()
    square[..., 1:, :] += torch.diff(grey, dim=-2).square()
    strength = box_blur(square, TEXTURE_WINDOW_PX, separable=True)[0, 0].sqrt()
    first, second = math.log(TEXTURES[0]), math.log(TEXTURES[1])
    level = (strength.clamp_min(1e-6).log() - first) / (second - first)
    return level.round().long().clamp(0, len(TEXTURES) - 1)
