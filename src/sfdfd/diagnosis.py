"""Will this stack, or this camera, carry a signal? Blur radii, depth resolution, texture, coverage; a verdict in words.

The depth resolution is the smallest change of depth that moves the stack by one 8-bit level: with the blur's standard
deviation s, the rendered image changes as d(I * G_s)/ds, and the texture of natural images sets the size of that. For a
texture of root-mean-square contrast c and a spectrum falling as 1/f, the standard deviation of d(I * G_s)/ds was computed in
closed form below (:func:`blur_sensitivity`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from sfdfd.classical import focus_measure
from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["Diagnosis", "blur_sensitivity", "diagnose", "diagnosis_figure"]

LEVEL = 1 / 255
TEXTURE_CHANGE = 0.75 / 255, 0.25
"""A pixel counts as textured where its sharpness (mean absolute Laplacian) changes over the slices by more than this, and by
more than this share of it: noise is sharp too, but alike in every slice."""
WEAK_STEP, NO_STEP = 0.06, 0.12
"""Median depth step of one 8-bit level, as a share of depth, from which the verdict changes. DEReD's loader's camera, on
which its users trained in vain, stands at 0.13; its generator's at 0.03."""
DEPTHS = 64
DEREDS_WINDOW_PX = 3
"""Half of the 7 x 7 window of DEReD's released renderer."""


def blur_sensitivity(sigma_px: np.ndarray, contrast: float = 0.1, longest_px: float = 64.0) -> np.ndarray:
    """Root mean square of d(I * G_s)/ds over an image of 1/f spectrum, per pixel of s.

    With power S(f) = c^2 / (2 pi log(f_high / f_low)) / f^2 on 1/longest <= f <= 1/2 cycles per pixel (variance c^2) and
    G_s(f) = exp(-2 pi^2 s^2 f^2), d/ds multiplies by -4 pi^2 s f^2 G_s; its variance is the integral over the band.

    Args:
        sigma_px: standard deviation of the blur in pixels, any shape.
        contrast: c, standard deviation of the image, white = 1.
        longest_px: longest period.
    """
    frequency = np.geomspace(1 / longest_px, 0.5, 400)
    power = contrast**2 / math.log(frequency[-1] / frequency[0])  # per unit of log f
    sigma = np.asarray(sigma_px, float)[..., None]
    gain = 4 * np.pi**2 * sigma * frequency**2 * np.exp(-2 * np.pi**2 * sigma**2 * frequency**2)
    return np.asarray(np.sqrt(trapezoid(power * gain**2, np.log(frequency), axis=-1)))


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        depth_m: (D,) depths, evenly spaced in their logarithm.
        blur_radius_px: (S,D).
        depth_step_m: (D,) smallest depth change that moves some slice by one 8-bit level; inf where none does.
        focus_distances_m: (S,).
        textured_share: share of the pixels with texture enough; None without images.
        unblurred_share: share of the depths that are blurred by a radius of less than one pixel in every slice.
        saturated_share: share of (slice, depth) whose blur DEReD's 7 x 7 window cannot hold.
        covered_share: share of the depth range (in inverse depth) between the nearest and farthest focus distance.
        verdict: "good", "weak" or "no signal".
        reasons: in words.
    """

    depth_m: np.ndarray
    blur_radius_px: np.ndarray
    depth_step_m: np.ndarray
    focus_distances_m: tuple[float, ...]
    textured_share: float | None
    unblurred_share: float
    saturated_share: float
    covered_share: float
    verdict: str
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "depth_m": self.depth_m.tolist(),
            "focus_distances_m": list(self.focus_distances_m),
            "blur_radius_px": self.blur_radius_px.tolist(),
            "depth_step_m": self.depth_step_m.tolist(),
            "textured_share": self.textured_share,
            "unblurred_share": self.unblurred_share,
            "saturated_share": self.saturated_share,
            "covered_share": self.covered_share,
        }


def diagnose(
    camera: Camera,
    focus_distances_m: Sequence[float],
    near_m: float,
    far_m: float,
    sigma_scale: float = 0.5,
    stack: FocalStack | None = None,
) -> Diagnosis:
    """Judge a camera and its focus distances over a depth range, and, if there are images, their texture.

    Args:
        camera: of the images as they are used.
        focus_distances_m: in metres.
        near_m, far_m: depth range in metres.
        sigma_scale: std of the blur over its radius.
        stack: the images.

    Raises:
        InputError: near_m and far_m are no range.
    """
    if not (0 < near_m < far_m < np.inf):
        raise InputError(f"expected 0 < near_m < far_m, got near_m {near_m} and far_m {far_m}")
    depth = np.geomspace(near_m, far_m, DEPTHS)
    inverse = 1 / depth
    focus = np.asarray(focus_distances_m, float)
    radius = camera.blur_radius_px(depth[None], focus[:, None], signed=True)
    sigma = sigma_scale * np.abs(radius)
    slope = sigma_scale * np.abs(np.gradient(radius, inverse, axis=1))  # |ds/du|; blur is linear in u
    change = blur_sensitivity(sigma) * slope * np.sqrt(2)  # the sharper half of the image changes by this per unit of u
    strongest = change.max(0)
    step_u = LEVEL / np.maximum(strongest, 1e-12)
    with np.errstate(divide="ignore"):
        step_m = np.where(step_u < inverse, depth**2 * step_u, np.inf)
    textured = None
    if stack is not None:
        sharpness = focus_measure(stack.images, 15)
        highest = sharpness.amax(1)
        difference = highest - sharpness.amin(1)
        textured = float(((difference > TEXTURE_CHANGE[0]) & (difference > TEXTURE_CHANGE[1] * highest)).float().mean())
    unblurred = float((np.abs(radius).max(0) < 1.0).mean())
    saturated = float((np.abs(radius) > DEREDS_WINDOW_PX).mean())
    finite = 1 / focus
    low, high = max(finite.min(), 1 / far_m), min(finite.max(), 1 / near_m)
    covered = float(max(0.0, high - low) / (1 / near_m - 1 / far_m))
    largest = float(np.abs(radius).max())
    relative = float(np.median(step_m / depth))

    reasons, verdict = [], "good"

    def worse(to: str, reason: str) -> None:
        nonlocal verdict
        order = ("good", "weak", "no signal")
        verdict = max(verdict, to, key=order.index)
        reasons.append(reason)

    if largest < 0.5:
        worse(
            "no signal",
            f"the largest blur radius is {largest:.2g} px: nothing in this stack is visibly out of focus. A wider aperture "
            "(smaller f-number), a longer focal length, nearer focus distances or more pixels would change that",
        )
    elif unblurred > 0.85:
        worse("no signal", f"{unblurred:.0%} of the depths are blurred by less than one pixel in every slice")
    elif unblurred > 0.15:
        reasons.append(f"{unblurred:.0%} of the depths are blurred by less than one pixel in every slice")
    if largest >= 0.5 and relative > WEAK_STEP:
        worse(
            "weak" if relative < NO_STEP else "no signal",
            f"depth must change by {relative:.0%} (median) to move the stack by one 8-bit level",
        )
    if covered < 0.3:
        worse("weak", f"the focus distances span only {covered:.0%} of the depth range (in inverse depth)")
    if textured is not None and textured < 0.2:
        worse("no signal" if textured < 0.03 else "weak", f"only {textured:.0%} of the pixels have texture enough")
    if largest > 40:
        worse("weak", f"blur radii reach {largest:.3g} px: details vanish in the most blurred slices; use more slices")
    if verdict == "good":
        reasons.append(
            f"blur radii reach {largest:.3g} px; a depth change of {relative:.1%} (median) moves the stack by one 8-bit "
            "level"
        )
    if textured is not None and textured >= 0.2:
        reasons.append(f"{textured:.0%} of the pixels have texture enough")
    if saturated > 0:
        reasons.append(
            f"{saturated:.0%} of the blur (over slices and depths) would not fit into the 7 x 7 window of DEReD's released "
            "renderer; ours has no such limit"
        )
    return Diagnosis(
        depth, np.abs(radius), step_m, tuple(focus.tolist()), textured, unblurred, saturated, covered, verdict,
        tuple(reasons),
    )  # fmt: skip


def diagnosis_figure(found: Diagnosis, title: str, unit: str = "m") -> Figure:
    """Blur radius of each slice over depth, and the smallest visible depth step."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for focus, radius in zip(found.focus_distances_m, found.blur_radius_px, strict=True):
        left.plot(found.depth_m, radius, label=f"focus {focus:.3g} {unit}".strip())
    left.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    left.set(xscale="log", xlabel=f"depth {unit}".strip(), ylabel="blur radius in pixels", title=title)
    left.legend(fontsize=8)
    finite = np.isfinite(found.depth_step_m)
    right.plot(found.depth_m[finite], 100 * (found.depth_step_m / found.depth_m)[finite], color="C3")
    right.set(xscale="log", xlabel=f"depth {unit}".strip(), ylabel="depth step of one 8-bit level, % of depth")
    right.set_title(f"verdict: {found.verdict}")
    right.set_ylim(bottom=0)
    return figure
