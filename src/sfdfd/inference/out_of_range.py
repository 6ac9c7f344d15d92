"""Find surfaces beyond the depth range, and mark their depth as unknown.

A wall far behind the last focus distance is sharp in no slice. Any depth explains it about as well, together with some
blurred image. Neither a sweep nor refinement can place it, and deconvolving its blur only makes ringing.

Relative blur (Pentland, PAMI 1987) tells such a surface from one within the range: how much more the other slices are
blurred than the sharpest one. Beyond the range, this difference is larger than anywhere within it on that side. It is
measured without deconvolution: the sharpest slice is blurred further and compared with the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.fft import next_fast_len
from torch import Tensor, fft

from sfdfd.optics.psf import GaussianPSF
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.plane_sweep.cost_volume import StackDefocus, box_mean, stack_defocus, to_linear_light
from sfdfd.plane_sweep.sweep import fuse_sharpest_slices
from sfdfd.refinement.confidence import confidence_of
from sfdfd.stack import FocalStack, Prediction, renderer_for, resize_area

__all__ = ["beyond_range", "clamp_out_of_range", "note_on_out_of_range"]

LEAST_BLUR_PX = 2.0
"""Blur radius of the sharpest slice from which a surface counts as sharp in no slice."""
LONGER_PX = 192
"""The longer side of the images on which relative blur is measured: large blur has no finer detail."""
WINDOW_PX = 11
PLANES_WITHIN, PLANES_BEYOND = 6, 8
MARGIN = 1.25
"""Factor by which a depth beyond the range has to reduce the residual of every depth within, and of equal slices."""
TOLERANCE = 4.0
"""Largest ratio of the residual of relative blur to that of the prediction, which can choose its sharp image freely."""
FLOOR = 1e-5
"""Mean square of a residual, in codes of range 1, that counts as zero; a rounding error has a tenth of it."""
LEAST_CONFIDENCE = 0.1
LEAST_SHARE_NOTED = 0.03
"""Share of the image beyond the range from which a note says so."""


def clamp_out_of_range(prediction: Prediction, stack: FocalStack, renderer: Renderer) -> Prediction:
    """Set depth beyond the range to the end of the range, with a low confidence and the sharpest slice as AIF.

    Returns:
        The prediction with ``beyond_range``. Its other maps change only where something lies beyond the range. There,
        depth_std_m is at least the depth: every inverse depth from far down to 0 is possible, and beyond near an equally
        wide span of inverse depth.
    """
    assert prediction.confidence is not None and prediction.depth_std_m is not None
    renderer = renderer_for(stack, renderer)
    beyond = torch.cat([beyond_range(sample, prediction[i], renderer) for i, sample in enumerate(stack)])
    if not bool(beyond.any()):
        return replace(prediction, beyond_range=beyond)
    end_m = torch.where(beyond > 0, stack.far_m[:, None, None], stack.near_m[:, None, None])
    pinned = beyond != 0
    depth_m = torch.where(pinned, end_m, prediction.depth_m)
    weight = box_mean(pinned[:, None].to(depth_m), 5)
    weight = torch.where(pinned[:, None], weight.clamp_min(0.5), weight)
    aif = prediction.aif
    for sign, far_or_near in ((1, stack.far_m), (-1, stack.near_m)):
        if bool((beyond == sign).any()):
            near_side = F.max_pool2d((beyond == sign)[:, None].to(aif), 5, 1, 2)
            slices = fuse_sharpest_slices(stack, far_or_near[:, None, None].expand_as(depth_m))
            aif = torch.lerp(aif, slices, (2 * weight).clamp_max(1) * near_side)
    std = torch.where(pinned, torch.maximum(prediction.depth_std_m, end_m), prediction.depth_std_m)
    confidence = confidence_of(std, depth_m)
    confidence = torch.where(pinned, confidence.clamp_max(LEAST_CONFIDENCE), confidence)
    with torch.no_grad():
        rendered = renderer(aif, depth_m, stack.focus_distances_m, stack.camera)
    maps = defocus_map_px(depth_m, stack.focus_distances_m, stack.camera)
    return Prediction(depth_m, aif, maps, rendered, confidence, std, beyond)


@torch.no_grad()
def beyond_range(stack: FocalStack, prediction: Prediction, renderer: Renderer) -> Float[Tensor, "1 h w"]:
    """Classify each pixel of one stack: 1 farther than far, -1 nearer than near, 0 within the range or not known.

    Args:
        stack: a batch of one; its truth is not used.
        prediction: within the range, with or without ``rendered``.
        renderer: the optics.
    """
    height, width = stack.images.shape[-2:]
    scale = min(1.0, LONGER_PX / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    rendered = prediction.rendered
    if rendered is None:
        rendered = renderer(prediction.aif, prediction.depth_m, stack.focus_distances_m, stack.camera)
    small = stack.with_slices(torch.nonzero(stack.slice_mask[0])[:, 0].tolist()).without_truth().resized(*size)
    rendered = resize_area(rendered[:, stack.slice_mask[0]], *size)
    sides = torch.zeros(size, device=stack.images.device)
    for sign in (1, -1):
        inverse, is_beyond = _planes(small, sign, scale)
        if bool(is_beyond.any()):
            mask = _explained_beyond(small, rendered, stack_defocus(small, renderer), inverse, is_beyond, sign)
            sides = torch.where(mask, float(sign), sides)
    return F.interpolate(sides[None, None], (height, width), mode="nearest")[0]


def _planes(stack: FocalStack, sign: int, scale: float) -> tuple[Float[Tensor, "d"], Bool[Tensor, "d"]]:
    """Return inverse depths on one side of the focus distances, and which are beyond the range and sharp in no slice."""
    inverse_focus = 1 / stack.focus_distances_m[0]
    low, high = 1 / stack.far_m[0], 1 / stack.near_m[0]
    if sign > 0:
        start, end, last = inverse_focus.min().clamp(low, high), low, 0.02 * low
    else:
        start, end, last = inverse_focus.max().clamp(low, high), high, 1.7 * high
    steps = torch.linspace(0, 1, PLANES_WITHIN), torch.linspace(0, 1, PLANES_BEYOND + 1)[1:]
    within, beyond = (a + t.to(low) * (b - a) for t, a, b in ((steps[0], start, end), (steps[1], end, last)))
    blur = stack.camera[0].blur_radius_px(1 / beyond, stack.focus_distances_m[0][:, None]).amin(0)
    far_enough = (beyond - end).abs() > (high - low) / 31
    inverse = torch.cat([within, beyond])
    return inverse, torch.cat([torch.zeros_like(within, dtype=torch.bool), far_enough & (blur > scale * LEAST_BLUR_PX)])


def _explained_beyond(
    stack: FocalStack,
    rendered: Float[Tensor, "1 s 3 h w"],
    defocus: StackDefocus,
    inverse: Float[Tensor, "d"],
    is_beyond: Bool[Tensor, "d"],
    sign: int,
) -> Bool[Tensor, "h w"]:
    """Return where relative blur beyond the range explains the slices, and relative blur within does not."""
    images, coverage = stack.images[0], stack.coverage()[0][:, None]
    light = to_linear_light(images) if defocus.linear_light else images
    radii = stack.camera[0].blur_radius_px(1 / inverse, stack.focus_distances_m[0][:, None])
    sharpest = int((stack.focus_distances_m[0] * sign).argmax())
    others = [index for index in range(len(images)) if index != sharpest]
    if len(others) < 2:  # one comparison cannot tell blur from motion or a change of exposure
        return torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    unit: Tensor | float = 1.0
    if defocus.linear_light:  # as in a sweep: convert residuals of linear light to those of codes
        slope = torch.where(images < 0.04, 1 / 12.92, 2.4 / 1.055 * ((images + 0.055) / 1.055) ** 1.4)
        unit = box_mean(slope.mean((0, 1))[None, None], 9)[0, 0].clamp_min(0.05)
    # clipped light is missing in the sharpest slice within the reach of its blur in the others
    reach = min(int(radii.max()) + 1, 2 * WINDOW_PX)
    clipped = stack.saturated()[0].any(1, keepdim=True).amax(0, keepdim=True).to(images)
    near_clipped = F.max_pool2d(clipped, 2 * reach + 1, 1, reach) > 0
    weight = (coverage * coverage[sharpest] * ~near_clipped)[others]

    def squares(values: Tensor) -> Tensor:
        """(S-1,3,H,W) of light -> (H,W): the mean square over slices and channels."""
        return (weight * (values / unit).square()).sum((0, 1)) / (3 * weight.sum((0, 1)) + 1e-3)

    # a disc of radius r has the variance r^2 / 4 along an axis
    per_square = defocus.sigma_scale**2 if isinstance(defocus.psf, GaussianPSF) else 0.25
    variance = per_square * (radii.square() - radii[sharpest].square()).clamp_min(0)
    blurred = _gaussian_blurs(light[sharpest], variance[others].T)
    costs = [squares(slices - light[others]) for slices in blurred]
    predicted = rendered[0][others]
    of_prediction = squares(
        (to_linear_light(predicted.clamp(0, 1)) if defocus.linear_light else predicted) - light[others]
    )
    return _is_clearly_beyond(torch.stack(costs), is_beyond, squares(light[sharpest] - light[others]), of_prediction)


def _is_clearly_beyond(
    costs: Float[Tensor, "d h w"],
    is_beyond: Bool[Tensor, "d"],
    of_equal_slices: Float[Tensor, "h w"],
    of_prediction: Float[Tensor, "h w"],
) -> Bool[Tensor, "h w"]:
    """Return where planes beyond the range fit clearly better, and the surroundings that do not contradict.

    Args:
        costs: the residual of each plane at each pixel.
        is_beyond: which planes are beyond the range.
        of_equal_slices: the residual of the assumption that all slices are equal, as without texture.
        of_prediction: the residual of the prediction within the range.
    """

    def compared(window_px: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the least residual beyond and within, and where the prediction does not fit clearly better."""
        planes = box_mean(costs[None], window_px)[0]
        others = box_mean(torch.stack([of_equal_slices, of_prediction])[None], window_px)[0]
        beyond, within = planes[is_beyond].amin(0), torch.minimum(planes[~is_beyond].amin(0), others[0])
        return beyond, within, beyond < TOLERANCE * others[1] + FLOOR

    beyond, within, is_doubtful = compared(WINDOW_PX)
    clear = (within > MARGIN * beyond + FLOOR / 2) & is_doubtful
    clear = box_mean(clear[None, None].to(costs), WINDOW_PX)[0, 0] > 0.5  # smaller surfaces cannot be told at this blur
    if not bool(clear.any()):
        return clear
    beyond, within, is_doubtful = compared(WINDOW_PX // 2)
    possible = (is_doubtful & (within > beyond / MARGIN)) | clear
    for _ in range(2 * WINDOW_PX):  # texture is uneven: a wall continues between its textured patches
        clear = (F.max_pool2d(clear[None, None].to(costs), 3, 1, 1)[0, 0] > 0) & possible
    share = box_mean(clear[None, None].to(costs), WINDOW_PX // 2)[0, 0]
    return share > 0.5


def _gaussian_blurs(
    image: Float[Tensor, "c h w"], variances: Float[Tensor, "d s"]
) -> Iterator[Float[Tensor, "s c h w"]]:
    """Yield for each row the image blurred by Gaussians of these variances in square pixels, with replicated borders."""
    height, width = image.shape[-2:]
    reach = int(3 * float(variances.max()) ** 0.5) + 1
    rows, columns = (next_fast_len(n + 2 * reach, real=True) for n in (height, width))
    padded = F.pad(image[None], (reach, columns - width - reach, reach, rows - height - reach), mode="replicate")[0]
    spectrum = fft.rfft2(padded)
    down, along = (
        frequencies(n, device=image.device) for frequencies, n in ((fft.fftfreq, rows), (fft.rfftfreq, columns))
    )
    exponent = -2 * math.pi**2 * (down.square()[:, None] + along.square())
    for row in variances:
        kernels = (row[:, None, None] * exponent).exp()[:, None]
        yield fft.irfft2(kernels * spectrum, s=(rows, columns))[..., reach : reach + height, reach : reach + width]


def note_on_out_of_range(prediction: Prediction, near_m: float, far_m: float, metric: bool = True) -> list[str]:
    """Return a sentence for each end of the depth range beyond which 3 % of the image or more lie."""
    if prediction.beyond_range is None:
        return []
    notes = []
    for sign, adverb, end_m, key in (
        (1, "farther", far_m, "far_m"),
        (-1, "nearer", near_m, "near_m"),
    ):
        share = float((prediction.beyond_range == sign).float().mean())
        if share < LEAST_SHARE_NOTED:
            continue
        which = "farthest" if sign > 0 else "nearest"
        remedy = "take another slice beyond that end of the stack"
        if metric:
            remedy = f"only that it is {adverb} than {end_m:.3g} m; take a slice focused {adverb} than that"
            remedy += f", or give {key}"
        separator = ", " if metric else "; "
        notes.append(
            f"{100 * share:.0f} % of the picture is sharp in no slice and lies beyond the {which} slice's depth of field: "
            f"its depth is not known{separator}{remedy}"
        )
    return notes
