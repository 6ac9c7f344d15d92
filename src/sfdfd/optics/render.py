"""The differentiable defocus renderer: AIF + depth + focus distances -> focal stack.

Shapes: B batch, S slice, H height, W width. Light is RGB in [0, 1], lengths are metres, sizes are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import scipy.fft
import torch
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.optics.occlusion import composite_layers
from sfdfd.optics.psf import PSF, PSFBasis, floored_size_px, get_psf, psf_basis
from sfdfd.optics.windowed import spread_in_window

__all__ = ["DefocusRenderer", "defocus_map_px", "render_blurred", "render_focal_stack"]

TOLERANCE = {"exact": 1e-5, "fast": 1.5e-2}
"""Largest L1 error of the PSF, relative to its mass, in each method (see sfdfd.optics.psf)."""
EXACT_FLOAT64 = 1e-9
AUTO_LIMIT_PX = 8.0
"""Largest size up to which "auto" is exact."""


def defocus_map_px(
    depth_m: Float[Tensor, "b h w"],
    focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
    camera: Camera | Sequence[Camera],
) -> Float[Tensor, "b s h w"]:
    """Signed blur radius of every pixel in every slice, in pixels; positive behind the focus distance.

    Args:
        depth_m: (B,H,W) depth in metres, > 0.
        focus_distances_m: (S,) or (B,S) focus distances in metres, > focal length, inf allowed.
        camera: one camera, or one per sample of the batch.

    Returns:
        (B,S,H,W) signed radius: :meth:`sfdfd.optics.camera.Camera.blur_radius_px`.

    Raises:
        InputError: shapes do not agree, or a value is out of range.
    """
    batch = depth_m.shape[0]
    if focus_distances_m.ndim == 1:
        focus_distances_m = focus_distances_m.expand(batch, -1)
    if focus_distances_m.shape[0] != batch:
        raise InputError(f"focus_distances_m: expected ({batch}, S) or (S,), got {tuple(focus_distances_m.shape)}")
    if isinstance(camera, Camera):
        return camera.blur_radius_px(depth_m[:, None], focus_distances_m[:, :, None, None], signed=True)
    if len(camera) != batch:
        raise InputError(f"camera: expected one or {batch} cameras, got {len(camera)}")
    if len(set(camera)) == 1:
        return defocus_map_px(depth_m, focus_distances_m, camera[0])
    return torch.cat(
        [defocus_map_px(depth_m[i : i + 1], focus_distances_m[i : i + 1], one) for i, one in enumerate(camera)]
    )


def render_focal_stack(
    aif: Float[Tensor, "b c h w"],
    depth_m: Float[Tensor, "b h w"],
    focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
    camera: Camera | Sequence[Camera],
    *,
    sigma_scale: float = 1.0,
    weighting: str = "source",
    psf: str | PSF = "gaussian",
    method: str = "auto",
    linear_light: bool = False,
    layers: int = 48,
    window_px: int | None = None,
    smallest_radius_px: float = 0.0,
    copied_radius_px: float = 0.0,
) -> Float[Tensor, "b s c h w"]:
    """Render the focal stack that a thin lens takes of an all-in-focus image with depth.

    With the Gaussian's standard deviation s = sigma_scale * r (r = blur radius in pixels) and q the distance in pixels:

    * ``weighting="source"``: every source pixel p spreads with its own s_p,
      ``J(x) = sum_p w_p(x) I(p) / sum_p w_p(x)``, ``w_p(x) = exp(-|x-p|^2 / (2 s_p^2)) / s_p^2``;
    * ``weighting="target"``: the slides' ``J = I (x) F``, the output pixel's s_x for all p:
      ``w_p(x) = exp(-|x-p|^2 / (2 s_x^2))``;
    * ``weighting="occlusion"``: layers of constant depth composited from back to front, so that a blurred foreground
      covers a sharp background and not the other way round; no gradient in depth
      (:func:`sfdfd.optics.occlusion.composite_layers`).

    All sums run over the pixels inside the image, so a border neither darkens nor brightens. Sizes below 0.4 px are
    floored smoothly (:func:`sfdfd.optics.psf.floored_size_px`); in focus the result is the AIF to 2e-5 of its contrast
    (1e-4 for the disc).

    Args:
        aif: (B,3,H,W) all-in-focus image, usually in [0, 1]; any number of channels.
        depth_m: (B,H,W) depth in metres, > 0, finite or inf.
        focus_distances_m: (S,) or (B,S) focus distances in metres, > focal length; inf is allowed.
        camera: :class:`Camera` of these pixels, or one per sample.
        sigma_scale: std of the Gaussian over the blur radius, > 0: 1.0 = slides and paper, 0.5 = DEReD's released code
            (and the std of a uniform disc of that radius, per axis).
        weighting: "source", "target" or "occlusion".
        psf: "gaussian"; "disc" (its radius is the blur radius, whatever sigma_scale); "power:P", exp(-2 (q/c)^P) with
            c = 2 sigma_scale r; or a :class:`sfdfd.optics.psf.PSF`.
        method: "exact" (PSF error 1e-5 of its mass, 1e-9 in float64), "fast" (1.5e-2: half an 8-bit level in the
            image), "auto": exact while the largest blur is below 8 px, and in float64; fast beyond (docs/renderer.md).
        linear_light: blur in linear light: sRGB -> linear -> blur -> sRGB; RGB in [0, 1].
        layers: number of layers of the occlusion-aware renderer.
        window_px, smallest_radius_px, copied_radius_px: what published renderers do instead, for their protocols: an odd
            side of a square window beyond which nothing spreads (DEReD 7, dfd 11; None: as wide as the blur), a floor of
            the blur radius (dfd 2), a radius up to which an output pixel is copied from the AIF (DEReD 1; no gradient
            in depth there).

    Returns:
        (B,S,3,H,W) stack of the AIF's dtype (float32 or float64), differentiable in aif, depth_m and focus_distances_m.

    Raises:
        InputError: shapes, ranges or names are wrong.
    """
    focus_distances_m = torch.as_tensor(focus_distances_m, device=aif.device)
    if aif.ndim != 4 or depth_m.ndim != 3 or (aif.shape[0], *aif.shape[2:]) != tuple(depth_m.shape):
        raise InputError(
            f"render: expected aif (B,3,H,W) and depth_m (B,H,W), got {tuple(aif.shape)} and {tuple(depth_m.shape)}"
        )
    if weighting not in ("source", "target", "occlusion"):
        raise InputError(f"weighting: expected 'source', 'target' or 'occlusion', got {weighting!r} (optics.weighting)")
    if layers < 2:
        raise InputError(f"layers: expected two or more, got {layers} (optics.layers)")
    _check_options(aif, sigma_scale, method, linear_light)
    family = get_psf(psf)
    dtype = aif.dtype if aif.dtype in (torch.float32, torch.float64) else torch.float32
    with torch.autocast(aif.device.type, enabled=False):  # FFTs and inverse depths need full precision
        aif, depth_m, focus_distances_m = (value.to(dtype) for value in (aif, depth_m, focus_distances_m))
        if weighting != "occlusion":
            radius = defocus_map_px(depth_m, focus_distances_m, camera)
            return render_blurred(
                aif, radius, sigma_scale=sigma_scale, weighting=weighting, psf=family, method=method,
                linear_light=linear_light, window_px=window_px, smallest_radius_px=smallest_radius_px,
                copied_radius_px=copied_radius_px,
            )  # fmt: skip
        if window_px is not None or smallest_radius_px or copied_radius_px:
            raise InputError(
                "window_px, smallest_radius_px and copied_radius_px are of the source and target weightings, not of "
                "weighting=occlusion (optics.window_px ...)"
            )

        def sizes(layers_m: Tensor) -> Tensor:
            radius = defocus_map_px(layers_m[:, None], focus_distances_m, camera)
            return family.size_px(radius.abs(), sigma_scale)[:, :, 0].detach()

        light = rgb_to_linear_rgb(aif) if linear_light else aif
        stack = composite_layers(light, depth_m, sizes, family, layers)
        return linear_rgb_to_rgb(stack) if linear_light else stack


def _check_options(aif: Tensor, sigma_scale: float, method: str, linear_light: bool) -> None:
    if not (math.isfinite(sigma_scale) and sigma_scale > 0):
        raise InputError(f"sigma_scale: expected a positive number, got {sigma_scale} (optics.sigma_scale)")
    if method not in ("auto", "exact", "fast"):
        raise InputError(f"method: expected 'auto', 'exact' or 'fast', got {method!r} (optics.method)")
    if linear_light and aif.shape[1] != 3:
        raise InputError(f"linear_light: expected an RGB image, got {aif.shape[1]} channels (optics.linear_light)")


def render_blurred(
    aif: Float[Tensor, "b c h w"],
    radius_px: Float[Tensor, "b s h w"],
    *,
    sigma_scale: float = 1.0,
    weighting: str = "source",
    psf: str | PSF = "gaussian",
    method: str = "auto",
    linear_light: bool = False,
    window_px: int | None = None,
    smallest_radius_px: float = 0.0,
    copied_radius_px: float = 0.0,
) -> Float[Tensor, "b s c h w"]:
    """As :func:`render_focal_stack`, from the blur radius itself: for whoever does not know the camera (or fits it).

    Args:
        aif: (B,3,H,W) all-in-focus image.
        radius_px: (B,S,H,W) blur radius in pixels of every pixel in every slice; the sign does not matter.
        sigma_scale, psf, method, linear_light, window_px, smallest_radius_px, copied_radius_px: as in
            :func:`render_focal_stack`.
        weighting: "source" or "target".

    Returns:
        (B,S,3,H,W) stack, differentiable in aif and radius_px.

    Raises:
        InputError: the radius is not finite, or an option is wrong.
    """
    _check_options(aif, sigma_scale, method, linear_light)
    if weighting not in ("source", "target"):
        raise InputError(f"weighting: expected 'source' or 'target', got {weighting!r} (optics.weighting)")
    family = get_psf(psf)
    _check_window(window_px, smallest_radius_px, copied_radius_px)
    with torch.autocast(aif.device.type, enabled=False):
        radius_px = radius_px.abs()
        spread_px = radius_px.clamp_min(smallest_radius_px) if smallest_radius_px else radius_px
        size = floored_size_px(family.size_px(spread_px, sigma_scale), family.floor_px)
        largest = float(size.detach().max())
        if not math.isfinite(largest):
            raise InputError("render: the blur is not finite; depth_m or focus_distances_m holds a NaN or a zero")
        light = rgb_to_linear_rgb(aif) if linear_light else aif
        if window_px is None:
            basis = _basis_for(family, largest, max(aif.shape[-2:]), method, aif.dtype)
            counted = torch.cat([light, torch.ones_like(light[:, :1])], dim=1)
            spread = (_SourceSpread if weighting == "source" else _TargetSpread).apply(counted, size, basis)
            stack = spread[:, :, :-1] / spread[:, :, -1:]
        else:
            stack = spread_in_window(light, size, family, window_px, weighting)
        if copied_radius_px:
            stack = torch.where((radius_px <= copied_radius_px)[:, :, None], light[:, None], stack)
        return linear_rgb_to_rgb(stack) if linear_light else stack


def _check_window(window_px: int | None, smallest_radius_px: float, copied_radius_px: float) -> None:
    odd = isinstance(window_px, int) and not isinstance(window_px, bool) and window_px >= 3 and window_px % 2 == 1
    if window_px is not None and not odd:
        raise InputError(
            f"window_px: expected an odd number of 3 or more, or null, got {window_px!r} (optics.window_px)"
        )
    for key, value in (("smallest_radius_px", smallest_radius_px), ("copied_radius_px", copied_radius_px)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0:
            raise InputError(f"{key}: expected a number of 0 or more, got {value!r} (optics.{key})")


def _basis_for(psf: PSF, largest_px: float, extent_px: int, method: str, dtype: torch.dtype) -> PSFBasis:
    limit = 2.0 ** (math.ceil(4 * math.log2(max(largest_px, 0.5)) - 1e-6) / 4)  # few distinct bases, each cached
    reach = 1 << (max(extent_px - 1, 1) - 1).bit_length()
    exact = EXACT_FLOAT64 if dtype == torch.float64 else TOLERANCE["exact"]
    fast = method == "fast" or (method == "auto" and largest_px > AUTO_LIMIT_PX and dtype != torch.float64)
    return psf_basis(psf, limit, reach, TOLERANCE["fast"] if fast else exact)


def _padded(extent: int, reach: int) -> int:
    return scipy.fft.next_fast_len(extent + min(reach, extent), real=True)


def _spectra(basis: PSFBasis, like: Tensor) -> tuple[Tensor, tuple[int, int]]:
    shape = _padded(like.shape[-2], basis.reach_px), _padded(like.shape[-1], basis.reach_px)
    return basis.spectra(*shape, like.dtype, like.device), shape


def _through_the_centre(psf: PSF, light: Tensor, size: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients in light and size of the weight that every pixel has on itself."""
    weight = psf.weight(0.0, size)
    light_grad = torch.einsum("bshw,bschw->bchw", weight, grad)
    return light_grad, psf.slope(0.0, size, weight) * (grad * light[:, None]).sum(2)


class _SourceSpread(torch.autograd.Function):
    """light (B,C,H,W), size (B,S,H,W) -> (B,S,C,H,W): sum over p of K_{s_p}(|x-p|) light(p)."""

    @staticmethod
    def forward(ctx, light: Tensor, size: Tensor, basis: PSFBasis) -> Tensor:
        ctx.save_for_backward(light, size)
        ctx.basis = basis
        height, width = light.shape[-2:]
        spectra, shape = _spectra(basis, light)
        padded = light.new_zeros(*size.shape[:2], light.shape[1], *shape)
        total = None
        for distance_sq, spectrum in zip(basis.distances_sq, spectra, strict=True):
            weight = basis.psf.weight(distance_sq, size)
            torch.mul(weight[:, :, None], light[:, None], out=padded[..., :height, :width])
            part = torch.fft.rfft2(padded).mul_(spectrum)
            total = part if total is None else total.add_(part)
        spread = torch.fft.irfft2(total, s=shape)[..., :height, :width]
        return spread + basis.psf.weight(0.0, size)[:, :, None] * light[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        light, size = ctx.saved_tensors
        basis = ctx.basis
        height, width = light.shape[-2:]
        spectra, shape = _spectra(basis, light)
        light_grad, size_grad = _through_the_centre(basis.psf, light, size, grad)
        transformed = torch.fft.rfft2(grad, s=shape)
        for distance_sq, spectrum in zip(basis.distances_sq, spectra, strict=True):
            arrived = torch.fft.irfft2(transformed * spectrum, s=shape)[..., :height, :width]
            weight = basis.psf.weight(distance_sq, size)
            if ctx.needs_input_grad[1]:
                size_grad += basis.psf.slope(distance_sq, size, weight) * (arrived * light[:, None]).sum(2)
            if ctx.needs_input_grad[0]:
                light_grad += (weight[:, :, None] * arrived).sum(1)
        return light_grad, size_grad, None


class _TargetSpread(torch.autograd.Function):
    """light (B,C,H,W), size (B,S,H,W) -> (B,S,C,H,W): sum over p of K_{s_x}(|x-p|) light(p)."""

    @staticmethod
    def forward(ctx, light: Tensor, size: Tensor, basis: PSFBasis) -> Tensor:
        ctx.save_for_backward(light, size)
        ctx.basis = basis
        height, width = light.shape[-2:]
        spectra, shape = _spectra(basis, light)
        transformed = torch.fft.rfft2(light, s=shape)
        total = basis.psf.weight(0.0, size)[:, :, None] * light[:, None]
        for distance_sq, spectrum in zip(basis.distances_sq, spectra, strict=True):
            blurred = torch.fft.irfft2(transformed * spectrum, s=shape)[..., :height, :width]
            total.addcmul_(basis.psf.weight(distance_sq, size)[:, :, None], blurred[:, None])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        light, size = ctx.saved_tensors
        basis = ctx.basis
        height, width = light.shape[-2:]
        spectra, shape = _spectra(basis, light)
        light_grad, size_grad = _through_the_centre(basis.psf, light, size, grad)
        transformed = torch.fft.rfft2(light, s=shape)
        total = torch.zeros_like(transformed)
        for distance_sq, spectrum in zip(basis.distances_sq, spectra, strict=True):
            weight = basis.psf.weight(distance_sq, size)
            if ctx.needs_input_grad[1]:
                blurred = torch.fft.irfft2(transformed * spectrum, s=shape)[..., :height, :width]
                size_grad += basis.psf.slope(distance_sq, size, weight) * (grad * blurred[:, None]).sum(2)
            if ctx.needs_input_grad[0]:
                gathered = torch.einsum("bshw,bschw->bchw", weight, grad)
                total += torch.fft.rfft2(gathered, s=shape).mul_(spectrum)
        light_grad += torch.fft.irfft2(total, s=shape)[..., :height, :width]
        return light_grad, size_grad, None


class DefocusRenderer(torch.nn.Module):
    """:func:`render_focal_stack` with its options bound, as the config builds it; it has no parameters.

    Args:
        sigma_scale, weighting, psf, method, linear_light, layers, window_px, smallest_radius_px, copied_radius_px: as in
            :func:`render_focal_stack`.
    """

    def __init__(
        self,
        sigma_scale: float = 1.0,
        weighting: str = "source",
        psf: str = "gaussian",
        method: str = "auto",
        linear_light: bool = False,
        layers: int = 48,
        window_px: int | None = None,
        smallest_radius_px: float = 0.0,
        copied_radius_px: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(sigma_scale, bool) or not isinstance(sigma_scale, (int, float)):
            raise InputError(f"sigma_scale: expected a positive number, got {sigma_scale!r} (optics.sigma_scale)")
        self.options = {
            "sigma_scale": float(sigma_scale),
            "weighting": weighting,
            "psf": psf,
            "method": method,
            "linear_light": linear_light,
            "layers": layers,
            "window_px": window_px,
            "smallest_radius_px": smallest_radius_px,
            "copied_radius_px": copied_radius_px,
        }
        tiny = torch.ones(1, 3, 2, 2)  # wrong options are refused here, not in the first step
        render_focal_stack(tiny, tiny[:, 0], tiny.new_tensor([1.0]), Camera(0.05, 8.0, 1e-5), **self.options)

    @property
    def sigma_scale(self) -> float:
        return self.options["sigma_scale"]

    def forward(self, aif: Tensor, depth_m: Tensor, focus_distances_m: Tensor, camera) -> Tensor:
        """(B,3,H,W), (B,H,W), (S,) or (B,S) -> (B,S,3,H,W)."""
        return render_focal_stack(aif, depth_m, focus_distances_m, camera, **self.options)

    def blurred(self, aif: Tensor, radius_px: Tensor) -> Tensor:
        """(B,3,H,W), (B,S,H,W) -> (B,S,3,H,W): :func:`render_blurred`. The occlusion-aware renderer, which has no gradient
        in depth, is stood in for by source weighting."""
        options = {key: value for key, value in self.options.items() if key != "layers"}
        if options["weighting"] == "occlusion":
            options["weighting"] = "source"
        return render_blurred(aif, radius_px, **options)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.options.items())
