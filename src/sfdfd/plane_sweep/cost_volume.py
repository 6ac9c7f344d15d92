"""What each plane of a sweep leaves unexplained: the cue of depth from defocus that knows the camera.

If the scene near a pixel lay at inverse depth u, the slices there would be one sharp image blurred by known kernels,
J_s = h_s(u) * I. The least-squares image (Wiener) and what it leaves unexplained are one line in the Fourier domain (the
residual projection of Favaro and Soatto, PAMI 2005, with full knowledge of the camera):

    I_u = sum_s H_s J_s / (sum_s H_s^2 + n),   e_u(x) = mean over slices and channels of (J_s - h_s * I_u)^2.

One slice is always nearly in focus, so the division is tame and rings little. In u and e_u no camera is left: what a network
learns on them holds for every camera, number of slices and PSF.
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

from sfdfd.optics.psf import PSF, get_psf
from sfdfd.optics.render import Renderer
from sfdfd.optics.spectra import kernel_sizes_px, psf_spectra
from sfdfd.stack import FocalStack

__all__ = [
    "RESIDUAL_FLOOR",
    "Defocus",
    "box",
    "defocus_of",
    "lit_by_clipped",
    "semi_global_matching",
    "sharpest",
    "unexplained",
]

LARGE_PX = 2**18
AT_ONCE = 2**27
"""Numbers of padded slices that a device other than a CPU transforms in one go."""
RESIDUAL_FLOOR = 1.3e-5
"""Mean square of a residual (of codes of a range of 1) that counts as none."""
CLIPPED_WEIGHT = 0.1
"""What a clipped pixel weighs in a blend: slices that are nearly as sharp there and know how bright it is come first."""


class Defocus(NamedTuple):
    """How the slices of a batch are blurred, without a camera.

    Attributes:
        ends_px: (B,S,2) signed blur radius in pixels at near and at far; linear in inverse depth between them.
        psf: the family of PSFs.
        sigma_scale: standard deviation over blur radius, of a Gaussian.
        linear_light: whether light is blurred, not sRGB codes.
        shown: (B,S,H,W) how far each pixel of a slice shows something; None where all do.
        clipped: (B,S,3,H,W) where a colour says only "at least so bright"; None where none does.
    """

    ends_px: Float[Tensor, "b s 2"]
    psf: PSF
    sigma_scale: float = 0.5
    linear_light: bool = False
    shown: Float[Tensor, "b s h w"] | None = None
    clipped: Bool[Tensor, "b s 3 h w"] | None = None


def defocus_of(stack: FocalStack, renderer: Renderer) -> Defocus:
    """What a renderer does to a stack; of a renderer without our options the PSF is taken as Gaussian, of codes."""
    options, saturated = renderer.options, stack.saturated()
    return Defocus(
        stack.blur_radii_at_range_px(),
        get_psf(options.get("psf", "gaussian")),
        float(options.get("sigma_scale", 0.5)),
        bool(options.get("linear_light")),
        stack.covered,
        saturated if bool(saturated.any()) else None,
    )


def box(values: Float[Tensor, "n c h w"], side: int) -> Tensor:
    """Mean over a window, the border repeated."""
    return box_blur(values, side, border_type="replicate", separable=True)


def unexplained(
    images: Float[Tensor, "s 3 h w"],
    shown: Float[Tensor, "s h w"],
    defocus: Defocus,
    index: int,
    planes: int = 32,
    noise: float = 1e-3,
    window_px: int = 1,
) -> Float[Tensor, "d y x"]:
    """e_u of one sample for ``planes`` inverse depths evenly from far to near, in (codes of a range of 1)^2.

    Beyond ``LARGE_PX`` pixels it is of the luminance alone, at a third of the time.

    Args:
        images: (S,3,H,W) the real slices.
        shown: (S,H,W) the weight of each pixel.
        defocus: of the batch; ``index`` says which sample, its padding slices left out by the caller.
        planes: D, at least 2.
        noise: n, noise over signal.
        window_px: side of the squares that each value is the mean of; the size is divided by it and rounded up.
    """
    shown = shown[:, None]
    # what a slice does not show, it borrows from the others
    images = shown * images + (1 - shown) * (shown * images).sum(0) / shown.sum(0).clamp_min(1e-3)
    clipped = None if defocus.clipped is None else defocus.clipped[index]
    if images[0, 0].numel() > LARGE_PX:
        images = rgb_to_grayscale(images)
        clipped = None if clipped is None else clipped.any(1, keepdim=True)
    light = linear(images) if defocus.linear_light else images
    seen = light
    height, width = light.shape[-2:]
    near, far = defocus.ends_px[index].unbind(-1)
    steps = torch.linspace(0, 1, planes, device=images.device, dtype=far.dtype)
    radii = (far + steps[:, None] * (near - far)).abs()
    if clipped is not None:
        light = restored(light, clipped, float(radii.max()), shown)
    margin = min(int(radii.max()) + 4, height - 1, width - 1)
    shape = tuple(next_fast_len(n + 2 * margin, real=True) for n in (height, width))
    padded = F.pad(
        light, (margin, shape[1] - width - margin, margin, shape[0] - height - margin), mode="replicate"
    )  # what the wrap mixes stays outside the image
    spectrum = torch.fft.rfft2(padded)
    unit: Tensor | float = 1.0
    if defocus.linear_light:  # a residual in linear light counts as one of codes: dark surfaces have texture too
        slope = torch.where(images < 0.04, 1 / 12.92, 2.4 / 1.055 * ((images + 0.055) / 1.055) ** 1.4)
        unit = box(slope.mean((0, 1))[None, None], 9)[0, 0].clamp_min(0.05)
    sizes, costs = kernel_sizes_px(defocus.psf, defocus.psf.size_px(radii, defocus.sigma_scale)), []
    at_once = 1 if light.device.type == "cpu" else max(1, AT_ONCE // padded.numel())
    for some in sizes.split(at_once):
        kernels = psf_spectra(defocus.psf, some, shape)
        sharp = torch.einsum("dshw,schw->dchw", kernels.to(spectrum.dtype), spectrum)
        sharp = sharp / (kernels.square().sum(1, keepdim=True) + noise)
        residual = torch.fft.irfft2(spectrum - kernels[:, :, None] * sharp[:, None], s=shape)
        residual = residual[..., margin : margin + height, margin : margin + width]
        if clipped is not None:  # what is brighter than "at least so bright" explains it
            residual = torch.where(clipped, (residual - (light - seen)).clamp_min(0), residual)
        squares = (shown * (residual / unit).square()).sum((1, 2))
        squares = squares / (light.shape[1] * shown.sum(0)[0].clamp_min(1e-3))
        costs.append(F.avg_pool2d(squares, window_px, ceil_mode=True, count_include_pad=False))
    return torch.cat(costs)


def restored(
    light: Float[Tensor, "s c h w"], clipped: Bool[Tensor, "s c h w"], reach_px: float, shown: Tensor | float = 1.0
) -> Float[Tensor, "s c h w"]:
    """Slices whose clipped pixels are about as bright as they were: blur moves light and keeps its sum, so what a slice has
    less of than others, in the mean of a window, its clipped pixels had.

    Args:
        light: (S,C,H,W) what was blurred, of one exposure.
        clipped: where it says only "at least so bright".
        reach_px: the largest blur radius, which the window has as standard deviation.
        shown: (S,1,H,W) the weight of each pixel.
    """
    sigma = min(max(reach_px, 2.0), min(light.shape[-2:]) / 4)

    def mean(values: Tensor) -> Tensor:
        side = 2 * round(sigma) + 1  # twice: a triangle of about this standard deviation
        return box(box(values, side), side)

    told = clipped.to(light)
    local = mean(light)
    missing = ((local * shown).amax(0, keepdim=True) - local).clamp_min(0)
    share = mean(told)
    return light + told * mean(missing * share) / mean(share * share).clamp_min(1e-9)


def lit_by_clipped(images: Float[Tensor, "b s 3 h w"], defocus: Defocus) -> Float[Tensor, "b h w"]:
    """How much of the light at a pixel may come from clipped ones nearby, in [0, 1]: from a lamp that a sharp slice shows as
    white and a blurred one as a disc. 0 where it is less than a fifth, 1 where it is half."""
    found = []
    for index, one in enumerate(images):
        assert defocus.clipped is not None
        clipped = defocus.clipped[index].any(1, keepdim=True)
        light = linear(rgb_to_grayscale(one)) if defocus.linear_light else rgb_to_grayscale(one)
        reach_px = float(defocus.ends_px[index].abs().max())
        side = 2 * round(min(max(reach_px, 2.0), min(light.shape[-2:]) / 4)) + 1
        hidden = box(restored(light, clipped, reach_px) - light, side).amax(0)
        usual = box(torch.where(clipped, 0, light), side).amin(0)
        found.append((hidden / (hidden + usual).clamp_min(1e-6))[0])
    return ((torch.stack(found) - 0.2) / 0.3).clamp(0, 1)


def linear(codes: Tensor) -> Tensor:
    """sRGB codes as light, of any number of channels."""
    if codes.shape[-3] == 3:
        return rgb_to_linear_rgb(codes)
    return rgb_to_linear_rgb(codes.expand(*codes.shape[:-3], 3, *codes.shape[-2:]))[..., :1, :, :]


def sharpest(
    images: Float[Tensor, "b s 3 h w"],
    radius_px: Float[Tensor, "b s h w"],
    shown: Float[Tensor, "b s #h #w"],
    clipped: Bool[Tensor, "b s 3 h w"] | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """At each pixel the slices that are sharpest there: weights exp(-r^2 / (2 (0.7 px)^2)), r the blur radius.

    Args:
        images: (B,S,3,H,W) slices.
        radius_px: (B,S,H,W) blur radius of each, of any sign.
        shown: (B,S,H,W) the weight of each pixel, 0 where a slice shows nothing.
        clipped: where a colour says only "at least so bright", which weighs less; None where none does.
    """
    sharpness = -radius_px.square() / (2 * 0.7**2) + torch.log(shown + 1e-6)
    if clipped is None:
        return torch.einsum("bshw,bschw->bchw", torch.softmax(sharpness, 1), images)
    known = torch.log(1 - (1 - CLIPPED_WEIGHT) * clipped.to(images))
    return (torch.softmax(sharpness[:, :, None] + known, 1) * images).sum(1)


def semi_global_matching(costs: Float[Tensor, "*b d h w"], step: float = 0.3) -> Float[Tensor, "*b d h w"]:
    """The mean of the costs' path costs along both axes, both ways (semi-global matching; Hirschmueller, PAMI 2008).

    Args:
        costs: (...,D,H,W) of planes in order.
        step: price of a step to the next plane; a larger step costs four times that.
    """
    total = torch.zeros_like(costs)
    for axis in (-2, -1):
        lines = costs.movedim(axis, 0)
        lines = torch.stack([lines, lines.flip(0)], 1).movedim(-2, 2).contiguous()  # (N,2,D,...): both ways
        sums = torch.empty_like(lines)
        sums[0] = before = lines[0]
        for index in range(1, len(lines)):
            least = before.amin(1, keepdim=True)
            best = torch.minimum(before, least + 4 * step)
            best[:, 1:] = torch.minimum(best[:, 1:], before[:, :-1] + step)
            best[:, :-1] = torch.minimum(best[:, :-1], before[:, 1:] + step)
            before = torch.add(lines[index], best.sub_(least), out=sums[index])
        ways = sums.movedim(2, -2)
        total += (ways[:, 0] + ways[:, 1].flip(0)).movedim(0, axis)
    return total / 4
