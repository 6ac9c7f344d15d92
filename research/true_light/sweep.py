"""A start for refinement: plane sweep by deblurring and blurring again.

If the scene near a pixel lay at inverse depth u, the slices there would be one sharp image blurred by known kernels,
J_s = h_s(u) * I. For each of some thirty u the least-squares image (Wiener) and what it leaves unexplained are one line in
the Fourier domain (the residual projection of Favaro and Soatto, PAMI 2005, with full knowledge of the camera):

    I_u = sum_s H_s J_s / (sum_s H_s^2 + n),   e_u(x) = window mean of sum_s (J_s - h_s * I_u)^2.

One slice is always nearly in focus, so the division is tame and rings little. The log of e_u is regularised by
semi-global matching (Hirschmueller, PAMI 2008) over four directions, and its minimum refined by a parabola.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import rgb_to_linear_rgb
from scipy.fft import next_fast_len
from torch import Tensor

from occlusion import psf_spectrum  # package: sfdfd.optics.occlusion
from sfdfd.optics.psf import DiscPSF, floored_size_px, get_psf
from sfdfd.optics.render import DefocusRenderer
from sfdfd.stack import FocalStack

__all__ = ["plane_sweep"]

RESIDUAL_FLOOR = 2e-4
"""Mean square of the residual (of sRGB codes, summed over slices and channels) that counts as none."""


def plane_sweep(
    stack: FocalStack,
    renderer: DefocusRenderer,
    planes: int = 32,
    window_px: int = 5,
    noise: float = 1e-3,
    jump: float = 0.2,
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b 3 h w"]]:
    """Depth (metres) and AIF of a batch of stacks, without a network.

    Args:
        stack: the images.
        renderer: the optics; its weighting does not matter.
        planes: number of inverse depths between far and near.
        window_px: side of the box that the squared residual is averaged over.
        noise: n, noise over signal.
        jump: price of a step to the next plane; a larger step costs four times that.
    """
    found = [_one(stack[index], renderer, planes, window_px, noise, jump) for index in range(len(stack))]
    return torch.cat([depth for depth, _ in found]), torch.cat([aif for _, aif in found])


def _one(stack: FocalStack, renderer: DefocusRenderer, planes: int, window_px: int, noise: float, jump: float):
    psf = get_psf(renderer.options["psf"])
    linear = renderer.options["linear_light"]
    images, focus, camera = stack.images[0], stack.focus_distances_m[0], stack.camera[0]
    light = rgb_to_linear_rgb(images) if linear else images
    height, width = light.shape[-2:]
    low, high = float(1 / stack.far_m), float(1 / stack.near_m)
    inverse = torch.linspace(low, high, planes)
    radii = camera.blur_radius_px(1 / inverse[:, None].to(focus), focus)
    margin = min(int(radii.max()) + 4, height - 1, width - 1)
    shape = tuple(next_fast_len(n + 2 * margin, real=True) for n in (height, width))
    padded = F.pad(
        light, (margin, shape[1] - width - margin, margin, shape[0] - height - margin), mode="replicate"
    )  # what the wrap mixes stays outside the image
    spectrum = torch.fft.rfft2(padded)
    # a residual in linear light counts as one of codes: dark surfaces have texture too
    slope = torch.where(images < 0.04, 1 / 12.92, 2.4 / 1.055 * ((images + 0.055) / 1.055) ** 1.4) if linear else None
    unit = _box(slope.mean((0, 1))[None, None], 9)[0, 0].clamp_min(0.05) if linear else 1.0
    costs = light.new_empty(planes, height, width)
    for plane, sizes in enumerate(psf.size_px(radii, renderer.sigma_scale)):
        sizes = sizes if isinstance(psf, DiscPSF) else floored_size_px(sizes, psf.floor_px)
        kernels = torch.stack([psf_spectrum(psf, s, shape, light.dtype, light.device) for s in sizes.tolist()])
        sharp = torch.einsum("shw,schw->chw", kernels.to(spectrum.dtype), spectrum) / (kernels.square().sum(0) + noise)
        residual = torch.fft.irfft2(spectrum - kernels[:, None] * sharp, s=shape)
        residual = residual[..., margin : margin + height, margin : margin + width]
        costs[plane] = (residual / unit).square().sum((0, 1))
    costs = torch.log(_box(costs[:, None], window_px)[:, 0] + RESIDUAL_FLOOR)
    costs = torch.from_numpy(_semi_global(costs.cpu().numpy(), jump, 4 * jump)).to(light)
    inverse = low + (high - low) / (planes - 1) * _minimum(costs)
    radii = camera.blur_radius_px(1 / inverse, focus[:, None, None])
    sharpest = torch.softmax(-radii.square() / (2 * 0.7**2), 0)
    return 1 / inverse[None], (sharpest[:, None] * images).sum(0)[None]


def _box(values: Tensor, side: int) -> Tensor:
    values = F.pad(values, (side // 2,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(values, (side, 1), 1), (1, side), 1)


def _semi_global(costs: np.ndarray, step: float, jump: float) -> np.ndarray:
    """(D,H,W) costs -> the sum of their path costs along both axes, both ways."""
    total = np.zeros_like(costs)
    for axis in (1, 2):
        for way in (1, -1):
            lines = np.moveaxis(costs, axis, 0)[::way]
            sums = np.empty_like(lines)
            sums[0] = before = lines[0]
            for index in range(1, len(lines)):
                least = before.min(0)
                beside = np.minimum(np.concatenate([before[1:], before[-1:]]), np.concatenate([before[:1], before[:-1]]))
                before = lines[index] + np.minimum(np.minimum(before, beside + step), least + jump) - least
                sums[index] = before
            total += np.moveaxis(sums[::way], 0, axis)
    return total


def _minimum(costs: Float[Tensor, "d h w"]) -> Float[Tensor, "h w"]:
    """Index of the smallest cost, refined by a parabola through its neighbours."""
    best = costs.argmin(0)
    inner = best.clamp(1, len(costs) - 2)
    before, at, after = (costs.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    offset = ((before - after) / (2 * (before - 2 * at + after)).clamp_min(1e-12)).clamp(-0.5, 0.5)
    return torch.where(best == inner, inner + offset, best.to(costs))
