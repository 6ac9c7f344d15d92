"""Predict whether a camera or a stack carries enough signal: blur radii, depth resolution, texture, coverage, a verdict.

The depth resolution is the smallest change of depth that moves the stack by one 8-bit level. With the blur's standard
deviation s, the rendered image changes as d(I * G_s)/ds. For a texture of root-mean-square contrast c and a 1/f spectrum, as
in natural images, :func:`blur_sensitivity` has the standard deviation of that change in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.integrate import trapezoid
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.networks.classical import focus_measure
from sfdfd.optics.camera import Camera
from sfdfd.stack import FocalStack

__all__ = ["Diagnosis", "blur_sensitivity", "diagnose", "textured_share"]

LEVEL = 1 / 255
TEXTURE_CHANGE = 0.75 / 255, 0.25
"""A pixel is textured if its sharpness (mean absolute Laplacian) changes over the slices by more than the first, and by more
than the second as a share of it. Noise is sharp too, but equally in every slice."""
WEAK_STEP, NO_STEP = 0.06, 0.12
"""Median depth step of one 8-bit level, as a share of depth, from which the verdict changes. The camera of DEReD's
generator is at 0.03, that of its loader, from which networks learn nothing, at 0.13."""
LEAST_APERTURE_RATIO = 1.4
"""Factor between f-numbers (a stop) from which apertures alone show depth."""
FEW_TEXTURED = 0.2
"""Share of textured pixels below which texture is a problem."""
VERDICTS = ("good", "weak", "no signal")
Finding = tuple[str, str]
"""A verdict, and the reason for it."""
DEPTHS = 64
BLUNT_PX, WIDE_PX = 0.5, 40.0
"""Largest blur radius below which nothing is visibly out of focus, and above which details vanish."""
DEREDS_WINDOW_PX = 3
"""Half of the 7 x 7 window of DEReD's released renderer."""


def blur_sensitivity(sigma_px: np.ndarray, contrast: float = 0.1, longest_px: float = 64.0) -> np.ndarray:
    """Return the root mean square of d(I * G_s)/ds over an image of 1/f spectrum, per pixel of s.

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
    """What a camera and its focus distances can measure over a depth range.

    Attributes:
        depth_m: (D,) depths, evenly spaced in their logarithm.
        blur_radius_px: (S,D).
        depth_step_m: (D,) smallest depth change that moves some slice by one 8-bit level; inf where none does.
        focus_distances_m: (S,).
        textured_share: share of the pixels with enough texture; None without images.
        unblurred_share: share of the depths whose blur radius is below one pixel in every slice.
        saturated_share: share of (slice, depth) whose blur exceeds DEReD's 7 x 7 window.
        covered_share: share of the depth range (in inverse depth) between the nearest and farthest focus distance.
        verdict: "good", "weak" or "no signal".
        reasons: sentences for the verdict.
        f_numbers: (S,) where the slices differ in aperture; None where they do not.
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
    f_numbers: tuple[float, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "depth_m": self.depth_m.tolist(),
            "focus_distances_m": list(self.focus_distances_m),
            "f_numbers": None if self.f_numbers is None else list(self.f_numbers),
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
    """Diagnose a camera and its focus distances over a depth range and, if there are images, their texture.

    Args:
        camera: of the images as they are used.
        focus_distances_m: in metres.
        near_m, far_m: depth range in metres.
        sigma_scale: std of the blur over its radius.
        stack: the images.

    Raises:
        InputError: near_m and far_m are no range.

    Examples:
        >>> diagnose(Camera(0.05, 8.0, 1.2e-5), [1, 1.5, 2.5, 4, 6], near_m=0.5, far_m=10.0).verdict  # DEReD's generator
        'good'
        >>> diagnose(Camera(0.0029, 0.5, 5.6e-6), [1, 3, 5, 7, 9], near_m=0.5, far_m=10.0).verdict  # DEReD's loader
        'no signal'
    """
    if not (0 < near_m < far_m < np.inf):
        raise InputError(f"expected 0 < near_m < far_m, got near_m {near_m} and far_m {far_m}")
    depth = np.geomspace(near_m, far_m, DEPTHS)
    focus = np.asarray(focus_distances_m, float)
    radius = camera.blur_radius_px(depth[None], focus[:, None], signed=True)
    inverse_focus = 1 / focus
    low, high = max(inverse_focus.min(), 1 / far_m), min(inverse_focus.max(), 1 / near_m)
    diagnosis = Diagnosis(
        depth_m=depth,
        blur_radius_px=np.abs(radius),
        depth_step_m=_depth_steps_m(radius, depth, sigma_scale),
        focus_distances_m=tuple(focus.tolist()),
        textured_share=None if stack is None else float(textured_share(stack)[0]),
        unblurred_share=float((np.abs(radius).max(0) < 1.0).mean()),
        saturated_share=float((np.abs(radius) > DEREDS_WINDOW_PX).mean()),
        covered_share=float(max(0.0, high - low) / (1 / near_m - 1 / far_m)),
        verdict="good",
        reasons=(),
        f_numbers=camera.f_numbers(len(focus)) if camera.brackets_aperture else None,
    )
    return _with_verdict(diagnosis)


def _depth_steps_m(radius_px: np.ndarray, depth_m: np.ndarray, sigma_scale: float) -> np.ndarray:
    """Return the depth change (D,) that moves some slice by one level."""
    inverse = 1 / depth_m
    slope = sigma_scale * np.abs(np.gradient(radius_px, inverse, axis=1))  # |ds/du|; blur is linear in u
    # the sharper half of the image changes by this per unit of u
    change = blur_sensitivity(sigma_scale * np.abs(radius_px)) * slope * np.sqrt(2)
    step_u = LEVEL / np.maximum(change.max(0), 1e-12)
    with np.errstate(divide="ignore"):
        return np.where(step_u < inverse, depth_m**2 * step_u, np.inf)


def textured_share(stack: FocalStack) -> Float[Tensor, "b"]:
    """Return the share of each image's pixels whose sharpness changes over the slices, so that blur shows their depth.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> 0.5 < float(textured_share(example_stack())) <= 1
        True
    """
    sharpness, missing = focus_measure(stack.in_full_precision().images, 15), ~stack.slice_mask[:, :, None, None]
    highest = sharpness.masked_fill(missing, -math.inf).amax(1)
    difference = highest - sharpness.masked_fill(missing, math.inf).amin(1)
    textured = (difference > TEXTURE_CHANGE[0]) & (difference > TEXTURE_CHANGE[1] * highest)
    return textured.float().mean((1, 2))


def _with_verdict(diagnosis: Diagnosis) -> Diagnosis:
    """Return the diagnosis with its verdict and the reasons for it."""
    largest_px = float(diagnosis.blur_radius_px.max())
    depth_step = float(np.median(diagnosis.depth_step_m / diagnosis.depth_m))
    findings = [
        *_blur_findings(largest_px, diagnosis.unblurred_share),
        *_resolution_findings(largest_px, depth_step),
        *_coverage_findings(diagnosis),
        *_texture_problems(diagnosis.textured_share),
    ]
    if largest_px > WIDE_PX:
        reason = f"blur radii reach {largest_px:.3g} px: details vanish in the most blurred slices; use more slices"
        findings.append(("weak", reason))
    verdict = max((level for level, _ in findings), key=VERDICTS.index, default="good")
    reasons = [reason for _, reason in findings]
    if verdict == "good":
        reasons.append(
            f"blur radii reach {largest_px:.3g} px; a depth change of {depth_step:.1%} (median) moves the stack by one "
            "8-bit level"
        )
    if diagnosis.textured_share is not None and diagnosis.textured_share >= FEW_TEXTURED:
        reasons.append(f"{diagnosis.textured_share:.0%} of the pixels have texture enough")
    if diagnosis.saturated_share > 0:
        reasons.append(
            f"{diagnosis.saturated_share:.0%} of the blur (over slices and depths) would not fit into the 7 x 7 window of "
            "DEReD's released renderer; ours has no such limit"
        )
    return replace(diagnosis, verdict=verdict, reasons=tuple(reasons))


def _blur_findings(largest_px: float, unblurred_share: float) -> Iterator[Finding]:
    """Yield what is wrong with the amount of blur; below 85 % of the depths without blur it is only a remark."""
    unblurred = f"{unblurred_share:.0%} of the depths are blurred by less than one pixel in every slice"
    if largest_px < BLUNT_PX:
        yield (
            "no signal",
            f"the largest blur radius is {largest_px:.2g} px: nothing in this stack is visibly out of focus. A wider "
            "aperture (smaller f-number), a longer focal length, nearer focus distances or more pixels would change that",
        )
    elif unblurred_share > 0.85:
        yield "no signal", unblurred
    elif unblurred_share > 0.15:
        yield "good", unblurred


def _resolution_findings(largest_px: float, depth_step: float) -> Iterator[Finding]:
    """Yield what is wrong with the depth resolution."""
    if largest_px >= BLUNT_PX and depth_step > WEAK_STEP:
        reason = f"depth must change by {depth_step:.0%} (median) to move the stack by one 8-bit level"
        yield "weak" if depth_step < NO_STEP else "no signal", reason


def _coverage_findings(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Yield what is wrong with the span of the focus distances; apertures that differ measure outside of it."""
    covered = f"the focus distances span only {diagnosis.covered_share:.0%} of the depth range (in inverse depth)"
    if diagnosis.f_numbers is None:
        if diagnosis.covered_share < 0.3:
            yield "weak", covered
    elif max(diagnosis.f_numbers) < LEAST_APERTURE_RATIO * min(diagnosis.f_numbers):
        yield "weak", f"{covered}, and the f-numbers differ by less than a factor of {LEAST_APERTURE_RATIO:g}"


def _texture_problems(textured_share: float | None) -> Iterator[Finding]:
    if textured_share is not None and textured_share < FEW_TEXTURED:
        reason = f"only {textured_share:.0%} of the pixels have texture enough"
        yield "no signal" if textured_share < 0.03 else "weak", reason
