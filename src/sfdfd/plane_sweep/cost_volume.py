"""Residuals of the planes of a sweep: the depth cue that uses the known camera.

If the scene near a pixel lay at inverse depth u, the slices there would be one sharp image blurred by known kernels,
J_s = h_s(u) * I. The least-squares image (Wiener) and its residual are one line in the Fourier domain (the residual
projection of Favaro and Soatto, PAMI 2005, with a known camera):

    I_u = sum_s H_s J_s / (sum_s H_s^2 + n),   e_u(x) = mean over slices and channels of (J_s - h_s * I_u)^2.

One slice is always nearly in focus, so the division is stable and rings little. No camera is left in u and e_u: what a
network learns on them holds for every camera, number of slices and PSF.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from kornia.color import rgb_to_grayscale, rgb_to_linear_rgb
from kornia.filters import box_blur
from scipy.fft import next_fast_len
from torch import Tensor

from sfdfd.optics.psf import PSF
from sfdfd.optics.render import Renderer
from sfdfd.optics.spectra import kernel_sizes_px, psf_spectra
from sfdfd.stack import FocalStack

__all__ = [
    "RESIDUAL_FLOOR",
    "StackDefocus",
    "blend_by_logits",
    "blend_by_sharpness",
    "box_mean",
    "clipped_light_share",
    "restore_clipped",
    "semi_global_matching",
    "sharpness_logits",
    "stack_defocus",
    "sweep_residuals",
    "to_linear_light",
]

LARGE_PX = 2**18
"""Images with more pixels are swept in luminance alone."""
BATCH_NUMBERS = 2**27
"""How many numbers of padded slices are transformed at once on devices other than a CPU."""
RESIDUAL_FLOOR = 1.3e-5
"""Mean square of a residual (values in [0, 1]) that is negligible."""
CLIPPED_WEIGHT = 0.1
"""Weight of a clipped pixel in a blend: slices nearly as sharp with a known brightness are preferred."""


class StackDefocus(NamedTuple):
    """How the slices of a batch are blurred, without a camera.

    Attributes:
        ends_px: (B,S,2) signed blur radius in pixels at near and at far; linear in inverse depth between them.
        psf: the PSF.
        sigma_scale: standard deviation over blur radius, of a Gaussian.
        linear_light: whether light is blurred, not sRGB codes.
        covered: (B,S,H,W) how far each pixel of a slice shows the scene; None: everywhere.
        clipped: (B,S,3,H,W) true where a colour is a lower bound of the brightness; None: nowhere.
    """

    ends_px: Float[Tensor, "b s 2"]
    psf: PSF
    sigma_scale: float = 0.5
    linear_light: bool = False
    covered: Float[Tensor, "b s h w"] | None = None
    clipped: Bool[Tensor, "b s 3 h w"] | None = None


def stack_defocus(stack: FocalStack, renderer: Renderer) -> StackDefocus:
    """Return how a renderer blurs the slices of a stack."""
    saturated = stack.saturated()
    return StackDefocus(
        stack.blur_radii_at_range_px(),
        renderer.psf,
        renderer.sigma_scale,
        renderer.linear_light,
        stack.covered,
        saturated if bool(saturated.any()) else None,
    )


def box_mean(values: Float[Tensor, "n c h w"], side: int) -> Tensor:
    """Average over a square window, with the border repeated."""
    return box_blur(values, side, border_type="replicate", separable=True)


def sweep_residuals(
    images: Float[Tensor, "s 3 h w"],
    covered: Float[Tensor, "s h w"],
    defocus: StackDefocus,
    index: int,
    planes: int = 32,
    noise: float = 1e-3,
    window_px: int = 1,
    colour: bool = True,
) -> Float[Tensor, "d y x"]:
    """Return e_u of one sample for ``planes`` inverse depths evenly from far to near, values in [0, 1] squared.

    Beyond ``LARGE_PX`` pixels it is of the luminance alone, in a third of the time.

    Args:
        images: (S,3,H,W) the real slices.
        covered: (S,H,W) the weight of each pixel.
        defocus: of the batch, without the sample's padding slices.
        index: of the sample in the batch.
        planes: D, at least 2.
        noise: n, noise over signal.
        window_px: side of the squares that residuals are averaged over; the size is divided by it and rounded up.
        colour: False takes the luminance alone, whatever the size.
    """
    weight = covered[:, None]
    # uncovered pixels are filled from the other slices
    images = weight * images + (1 - weight) * (weight * images).sum(0) / weight.sum(0).clamp_min(1e-3)
    clipped = None if defocus.clipped is None else defocus.clipped[index]
    if not colour or images[0, 0].numel() > LARGE_PX:
        images = rgb_to_grayscale(images)
        clipped = None if clipped is None else clipped.any(1, keepdim=True)
    observed = to_linear_light(images) if defocus.linear_light else images
    code_slope = _light_per_code(images) if defocus.linear_light else 1.0
    near_px, far_px = defocus.ends_px[index].unbind(-1)
    steps = torch.linspace(0, 1, planes, device=images.device, dtype=far_px.dtype)
    radii_px = (far_px + steps[:, None] * (near_px - far_px)).abs()
    light = observed
    if clipped is not None:
        light = restore_clipped(observed, clipped, float(radii_px.max()), weight)
    padded, (rows, columns) = _pad_for_fft(light, int(radii_px.max()) + 4)
    shape = (padded.shape[-2], padded.shape[-1])
    spectrum = torch.fft.rfft2(padded)
    sizes, costs = kernel_sizes_px(defocus.psf, defocus.psf.size_px(radii_px, defocus.sigma_scale)), []
    planes_at_once = 1 if light.device.type == "cpu" else max(1, BATCH_NUMBERS // padded.numel())
    for plane_sizes in sizes.split(planes_at_once):
        kernels = psf_spectra(defocus.psf, plane_sizes, shape)
        sharp = torch.einsum("dshw,schw->dchw", kernels.to(spectrum.dtype), spectrum)
        sharp = sharp / (kernels.square().sum(1, keepdim=True) + noise)
        residual = torch.fft.irfft2(spectrum - kernels[:, :, None] * sharp[:, None], s=shape)[..., rows, columns]
        if clipped is not None:  # a lower bound is met by anything brighter
            residual = torch.where(clipped, (residual - (light - observed)).clamp_min(0), residual)
        squares = (weight * (residual / code_slope).square()).sum((1, 2))
        squares = squares / (light.shape[1] * weight.sum(0)[0].clamp_min(1e-3))
        costs.append(F.avg_pool2d(squares, window_px, ceil_mode=True, count_include_pad=False))
    return torch.cat(costs)


def _pad_for_fft(light: Float[Tensor, "s c h w"], margin_px: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Repeat the border by a margin, up to a size that the FFT is fast at; return the image's rows and columns, too.

    What the periodic transform wraps around stays in the margin.
    """
    height, width = light.shape[-2:]
    margin = min(margin_px, height - 1, width - 1)
    rows, columns = (next_fast_len(n + 2 * margin, real=True) for n in (height, width))
    padding = (margin, columns - width - margin, margin, rows - height - margin)
    inside = slice(margin, margin + height), slice(margin, margin + width)
    return F.pad(light, padding, mode="replicate"), inside


def _light_per_code(codes: Float[Tensor, "s c h w"]) -> Float[Tensor, "h w"]:
    """Return the local slope of linear light over sRGB codes: residuals divided by it weigh dark texture as codes do."""
    slope = torch.where(codes < 0.04, 1 / 12.92, 2.4 / 1.055 * ((codes + 0.055) / 1.055) ** 1.4)
    return box_mean(slope.mean((0, 1))[None, None], 9)[0, 0].clamp_min(0.05)


def restore_clipped(
    light: Float[Tensor, "s c h w"], clipped: Bool[Tensor, "s c h w"], reach_px: float, weight: Tensor | float = 1.0
) -> Float[Tensor, "s c h w"]:
    """Estimate how bright clipped pixels were.

    Blur moves light and keeps its sum, so what a slice lacks compared with the others, averaged over a window, belongs
    to its clipped pixels.

    Args:
        light: (S,C,H,W) what was blurred, of one exposure.
        clipped: true where light is a lower bound.
        reach_px: the largest blur radius, which is the window's standard deviation.
        weight: (S,1,H,W) of each pixel.
    """
    side = _window_side(reach_px, light)

    def mean(values: Tensor) -> Tensor:
        return box_mean(box_mean(values, side), side)  # a triangle of about this standard deviation

    is_clipped = clipped.to(light)
    local = mean(light)
    missing = ((local * weight).amax(0, keepdim=True) - local).clamp_min(0)
    share = mean(is_clipped)
    return light + is_clipped * mean(missing * share) / mean(share * share).clamp_min(1e-9)


def _window_side(sigma_px: float, images: Tensor) -> int:
    """Return the odd side of a box that, applied twice, has about this standard deviation, at most a quarter image."""
    return 2 * round(min(max(sigma_px, 2.0), min(images.shape[-2:]) / 4)) + 1


def clipped_light_share(images: Float[Tensor, "b s 3 h w"], defocus: StackDefocus) -> Float[Tensor, "b h w"]:
    """Return how much of the light at a pixel may come from clipped ones nearby, in [0, 1].

    Such light comes from a lamp that a sharp slice shows as white and a blurred one as a disc. The value is 0 below a fifth
    of the light and 1 from half of it.
    """
    shares = []
    for index, slices in enumerate(images):
        assert defocus.clipped is not None
        clipped = defocus.clipped[index].any(1, keepdim=True)
        light = to_linear_light(rgb_to_grayscale(slices)) if defocus.linear_light else rgb_to_grayscale(slices)
        reach_px = float(defocus.ends_px[index].abs().max())
        side = _window_side(reach_px, light)
        from_clipped = box_mean(restore_clipped(light, clipped, reach_px) - light, side).amax(0)
        from_others = box_mean(torch.where(clipped, 0, light), side).amin(0)
        shares.append((from_clipped / (from_clipped + from_others).clamp_min(1e-6))[0])
    return ((torch.stack(shares) - 0.2) / 0.3).clamp(0, 1)


def to_linear_light(codes: Tensor) -> Tensor:
    """Convert sRGB codes (...,3,H,W) or (...,1,H,W) to linear light."""
    if codes.shape[-3] == 3:
        return rgb_to_linear_rgb(codes)
    return rgb_to_linear_rgb(codes.expand(*codes.shape[:-3], 3, *codes.shape[-2:]))[..., :1, :, :]


def blend_by_sharpness(
    images: Float[Tensor, "b s 3 h w"],
    radius_px: Float[Tensor, "b s h w"],
    weight: Float[Tensor, "b s #h #w"],
    clipped: Bool[Tensor, "b s 3 h w"] | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Average the slices that are sharpest at each pixel: weights exp(-r^2 / (2 (0.7 px)^2)) with the blur radius r.

    Args:
        images: (B,S,3,H,W) slices.
        radius_px: (B,S,H,W) blur radius of each, of any sign.
        weight: (B,S,H,W) of each pixel, 0 where a slice is not covered.
        clipped: true where a colour is a lower bound, which weighs less; None: nowhere.
    """
    return blend_by_logits(images, sharpness_logits(radius_px, weight), clipped)


def sharpness_logits(
    radius_px: Float[Tensor, "b s h w"], weight: Float[Tensor, "b s #h #w"]
) -> Float[Tensor, "b s h w"]:
    """Return the logs of the weights of :func:`blend_by_sharpness`."""
    return -radius_px.square() / (2 * 0.7**2) + torch.log(weight + 1e-6)


def blend_by_logits(
    images: Float[Tensor, "b s 3 h w"],
    log_weight: Float[Tensor, "b s h w"],
    clipped: Bool[Tensor, "b s 3 h w"] | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Average slices with the softmax of their logits; a colour that is clipped weighs less."""
    if clipped is None:
        return torch.einsum("bshw,bschw->bchw", torch.softmax(log_weight, 1), images)
    log_clipped = torch.log(1 - (1 - CLIPPED_WEIGHT) * clipped.to(images))
    return (torch.softmax(log_weight[:, :, None] + log_clipped, 1) * images).sum(1)


def semi_global_matching(costs: Float[Tensor, "*b d h w"], step: float = 0.3) -> Float[Tensor, "*b d h w"]:
    """Average the path costs along both axes, both ways (semi-global matching; Hirschmueller, PAMI 2008).

    Args:
        costs: (...,D,H,W) of planes in order.
        step: price of a step to the next plane; a larger step costs four times that.
    """
    total = torch.zeros_like(costs)
    for axis in (-2, -1):
        lines = costs.movedim(axis, 0)
        lines = torch.stack([lines, lines.flip(0)], 1).movedim(-2, 2).contiguous()  # (N,2,D,...): both directions
        path_costs = torch.empty_like(lines)
        path_costs[0] = previous = lines[0]
        for index in range(1, len(lines)):
            least = previous.amin(1, keepdim=True)
            best = torch.minimum(previous, least + 4 * step)
            best[:, 1:] = torch.minimum(best[:, 1:], previous[:, :-1] + step)
            best[:, :-1] = torch.minimum(best[:, :-1], previous[:, 1:] + step)
            previous = torch.add(lines[index], best.sub_(least), out=path_costs[index])
        directions = path_costs.movedim(2, -2)
        total += (directions[:, 0] + directions[:, 1].flip(0)).movedim(0, axis)
    return total / 4
