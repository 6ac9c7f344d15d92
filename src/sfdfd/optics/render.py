"""The differentiable defocus renderer: AIF + depth + focus distances -> focal stack.

Shapes: B batch, S slice, H height, W width. Light is RGB in [0, 1], lengths are metres, sizes are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from sfdfd.errors import InputError, checked_keywords
from sfdfd.optics.camera import Camera
from sfdfd.optics.levels import SceneRange
from sfdfd.optics.low_rank import spread_light
from sfdfd.optics.occlusion import render_occlusion
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.psf import PSF, floored_size_px, get_psf
from sfdfd.optics.windowed import spread_in_window
from sfdfd.registry import part

__all__ = ["DefocusRenderer", "HiddenSurfaces", "Renderer", "defocus_map_px", "render_blurred", "render_focal_stack"]

HiddenSurface = tuple[Float[Tensor, "b c h w"], Float[Tensor, "b h w"], Float[Tensor, "b h w"]]
"""A surface behind the visible one: colours, depth in metres, and its coverage in [0, 1]."""
HiddenSurfaces = HiddenSurface | Sequence[HiddenSurface]
"""One surface, or several."""


@runtime_checkable
class Renderer(Protocol):
    """A renderer: AIF + depth + focus distances -> focal stack. It can synthesize stacks, train and refine.

    A class that inherits from this protocol defines ``options``, ``differentiable`` and ``__call__``; the other members have
    defaults. Callers ask for capabilities by these names and do not read ``options``.
    """

    @property
    def options(self) -> Mapping[str, Any]:
        """The constructor's arguments as plain values, for records and checkpoints: ``type(renderer)(**options)``."""

    @property
    def differentiable(self) -> bool:
        """Whether rendered stacks have a gradient in depth, which training and refinement need."""

    @property
    def models_occlusion(self) -> bool:
        """Whether near surfaces hide far ones, so that ``hidden`` surfaces can be passed."""
        return False

    @property
    def linear_light(self) -> bool:
        """Whether linear light is blurred, not sRGB codes."""
        return False

    @property
    def psf(self) -> PSF:
        """The point spread function."""
        return get_psf("gaussian")

    @property
    def sigma_scale(self) -> float:
        """Standard deviation of a Gaussian PSF over the blur radius."""
        return 0.5

    @property
    def has_draft(self) -> bool:
        """Whether :meth:`draft` is faster than the renderer itself."""
        return False

    def draft(self) -> Renderer:
        """Return a faster, coarser renderer of the same physics, or the renderer itself."""
        return self

    def with_options(self, **changes: Any) -> Renderer:
        """Return a renderer of this type with some options replaced."""
        return type(self)(**{**self.options, **changes})

    def __call__(
        self,
        aif: Float[Tensor, "b 3 h w"],
        depth_m: Float[Tensor, "b h w"],
        focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
        camera: Camera | Sequence[Camera],
        *,
        blur_factor: float | Float[Tensor, "b"] = 1.0,
        hidden: HiddenSurfaces | None = None,
    ) -> Float[Tensor, "b s 3 h w"]:
        """Render the focal stack.

        Args:
            aif: (B,3,H,W) in [0, 1].
            depth_m: (B,H,W) in metres.
            focus_distances_m: (S,) or (B,S) in metres.
            camera: one, or one per sample; its f-number may be one number or one per slice.
            blur_factor: factor on every blur radius, a number or (B,).
            hidden: surfaces behind the visible one; only where :attr:`models_occlusion`.
        """


def without_channel(depth_m: Tensor) -> Float[Tensor, "b h w"]:
    """Return depth as (B,H,W), without the channel of (B,1,H,W)."""
    return depth_m[:, 0] if depth_m.ndim == 4 and depth_m.shape[1] == 1 else depth_m


def defocus_map_px(
    depth_m: Float[Tensor, "b h w"] | Float[Tensor, "b 1 h w"],
    focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
    camera: Camera | Sequence[Camera],
) -> Float[Tensor, "b s h w"]:
    """Return the signed blur radius of every pixel in every slice, in pixels; positive behind the focus distance.

    Args:
        depth_m: (B,H,W) or (B,1,H,W) depth in metres, > 0.
        focus_distances_m: (S,) or (B,S) focus distances in metres, > focal length, inf allowed.
        camera: one camera, or one per sample of the batch; its f-number may differ from slice to slice.

    Returns:
        (B,S,H,W) signed radius: :meth:`sfdfd.optics.camera.Camera.blur_radius_px`.

    Raises:
        InputError: shapes do not agree, or a value is out of range.

    Examples:
        >>> camera = Camera(0.05, 8.0, 1.2e-5)
        >>> defocus_map_px(torch.full((1, 1, 1), 2.0), torch.tensor([1.0, 2.0, 4.0]), camera).flatten().tolist()
        [6.853..., 0.0, -3.296...]
    """
    depth_m = without_channel(depth_m)
    batch = depth_m.shape[0]
    if focus_distances_m.ndim == 1:
        focus_distances_m = focus_distances_m.expand(batch, -1)
    if focus_distances_m.shape[0] != batch:
        raise InputError(f"focus_distances_m: expected ({batch}, S) or (S,), got {tuple(focus_distances_m.shape)}")
    if isinstance(camera, Camera):
        if not camera.brackets_aperture or batch == 1:
            return camera.blur_radius_px(depth_m[:, None], focus_distances_m[:, :, None, None], signed=True)
        camera = (camera,) * batch
    if len(camera) != batch:
        raise InputError(f"camera: expected one or {batch} cameras, got {len(camera)}")
    if len(set(camera)) == 1 and (batch == 1 or not camera[0].brackets_aperture):
        return defocus_map_px(depth_m, focus_distances_m, camera[0])
    return torch.cat(
        [defocus_map_px(depth_m[i : i + 1], focus_distances_m[i : i + 1], one) for i, one in enumerate(camera)]
    )


@checked_keywords
def render_focal_stack(
    aif: Float[Tensor, "b c h w"],
    depth_m: Float[Tensor, "b h w"] | Float[Tensor, "b 1 h w"],
    focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
    camera: Camera | Sequence[Camera],
    *,
    blur_factor: float | Float[Tensor, "b"] = 1.0,
    hidden: HiddenSurfaces | None = None,
    sigma_scale: float = 1.0,
    weighting: str = "source",
    psf: str | PSF = "gaussian",
    method: str = "auto",
    linear_light: bool = False,
    layers: int = 48,
    level_px: float = 0.7,
    window_px: int | None = None,
    smallest_radius_px: float = 0.0,
    copied_radius_px: float = 0.0,
) -> Float[Tensor, "b s c h w"]:
    """Render the focal stack that a thin lens takes of an all-in-focus image with depth.

    The Gaussian's standard deviation is s = sigma_scale * r with the blur radius r in pixels.

    * ``weighting="source"``: every source pixel p spreads with its own s_p,
      ``J(x) = sum_p w_p(x) I(p) / sum_p w_p(x)``, ``w_p(x) = exp(-|x-p|^2 / (2 s_p^2)) / s_p^2``;
    * ``weighting="target"``: the slides' ``J = I (x) F``, the output pixel's s_x for all p:
      ``w_p(x) = exp(-|x-p|^2 / (2 s_x^2))``;
    * ``weighting="occlusion"``: coverage accumulated from front to back, so a blurred foreground covers a sharp background
      and not the other way round (:mod:`sfdfd.optics.occlusion`). Surfaces behind a foreground may be passed as ``hidden``;
      elsewhere the surrounding colours are used.

    All sums run over the pixels inside the image, so borders neither darken nor brighten. Sizes below 0.4 px are floored
    smoothly (:func:`sfdfd.optics.psf.floored_size_px`). In focus the result is the AIF to 2e-5 of its contrast (1e-4 for the
    disc).

    Args:
        aif: (B,3,H,W) all-in-focus image, usually in [0, 1]; any number of channels.
        depth_m: (B,H,W) or (B,1,H,W) depth in metres, > 0, finite or inf.
        focus_distances_m: (S,) or (B,S) focus distances in metres, > focal length; inf is allowed.
        camera: :class:`Camera` of these pixels, or one per sample; its f-number may differ from slice to slice.
        blur_factor: factor on every blur radius, > 0: a number, or (B,), in which the stack is differentiable.
        hidden: a surface behind the first, for ``weighting="occlusion"``: its colours (B,3,H,W), depth (B,H,W) in metres and
            coverage (B,H,W) in [0, 1]; or several.
        sigma_scale, weighting, psf, method, linear_light, layers, level_px, window_px, smallest_radius_px, copied_radius_px:
            see :class:`sfdfd.optics.options.RenderOptions`.

    Returns:
        (B,S,3,H,W) stack of the AIF's dtype (float32 or float64), differentiable in aif, depth_m and focus_distances_m.

    Raises:
        InputError: shapes, ranges or names are wrong.

    Examples:
        >>> aif = torch.rand(1, 3, 24, 32)
        >>> depth_m = torch.full((1, 24, 32), 3.0, requires_grad=True)
        >>> stack = render_focal_stack(aif, depth_m, torch.tensor([1.0, 3.0]), Camera(0.05, 8.0, 1.2e-5), sigma_scale=0.5)
        >>> stack.shape
        torch.Size([1, 2, 3, 24, 32])
        >>> bool((stack[:, 1] - aif).abs().max() < 1e-4)  # in focus, rendering is the identity
        True
        >>> stack.square().mean().backward()
        >>> depth_m.grad.shape
        torch.Size([1, 24, 32])
    """
    options = RenderOptions(
        sigma_scale=sigma_scale,
        weighting=weighting,
        psf=psf,
        method=method,
        linear_light=linear_light,
        layers=layers,
        level_px=level_px,
        window_px=window_px,
        smallest_radius_px=smallest_radius_px,
        copied_radius_px=copied_radius_px,
    )
    return _render(aif, depth_m, focus_distances_m, camera, blur_factor, hidden, options)


def _render(
    aif: Tensor,
    depth_m: Tensor,
    focus_distances_m: Any,
    camera: Any,
    blur_factor: Any,
    hidden: HiddenSurfaces | None,
    options: RenderOptions,
) -> Tensor:
    dtype = aif.dtype if aif.dtype in (torch.float32, torch.float64) else torch.float32
    focus_distances_m = torch.as_tensor(focus_distances_m, dtype=dtype, device=aif.device)
    depth_m = without_channel(depth_m)
    if aif.ndim != 4 or depth_m.ndim != 3 or (aif.shape[0], *aif.shape[2:]) != tuple(depth_m.shape):
        raise InputError(
            f"render: expected aif (B,3,H,W) and depth_m (B,H,W), got {tuple(aif.shape)} and {tuple(depth_m.shape)}"
        )
    if not (bool((blur_factor > 0).all()) if isinstance(blur_factor, Tensor) else blur_factor > 0):
        raise InputError(
            "blur_factor: expected positive factors on the blur radii, got one that is zero, negative or NaN"
        )
    with torch.autocast(aif.device.type, enabled=False):  # FFTs and inverse depths need full precision
        aif, depth_m, focus_distances_m = (value.to(dtype) for value in (aif, depth_m, focus_distances_m))
        if options.weighting == "occlusion":
            return _render_with_occlusion(aif, depth_m, focus_distances_m, camera, blur_factor, hidden, options)
        if hidden is not None:
            raise InputError(
                f"hidden: surfaces behind others need weighting=occlusion, got {options.weighting} (optics.weighting)"
            )
        factor = blur_factor.reshape(-1, 1, 1, 1) if isinstance(blur_factor, Tensor) else blur_factor
        return _render_weighted(aif, defocus_map_px(depth_m, focus_distances_m, camera) * factor, options)


def _render_with_occlusion(
    aif: Tensor,
    depth_m: Tensor,
    focus_distances_m: Tensor,
    camera: Any,
    blur_factor: Any,
    hidden: HiddenSurfaces | None,
    options: RenderOptions,
) -> Tensor:
    """Render with levels of inverse depth that are a fixed blur radius apart in the slice that blurs most."""
    batch = len(aif)
    cameras = [camera] * batch if isinstance(camera, Camera) else list(camera)
    focus = focus_distances_m.expand(batch, -1) if focus_distances_m.ndim == 1 else focus_distances_m
    factors = blur_factor.reshape(-1, 1) if isinstance(blur_factor, Tensor) else float(blur_factor)
    if len(cameras) != batch or len(focus) != batch:
        raise InputError(f"render: expected a camera and focus distances for each of {batch} samples (camera)")
    surfaces = _hidden_surfaces(hidden, options.linear_light)
    inverse, in_focus = 1 / depth_m, 1 / focus
    hidden_inverse = [1 / depth.to(inverse) for _, depth, _ in surfaces]
    blur_scale = focus.new_tensor([[at.blur_scale_px_m for at in one.per_slice(focus.shape[1])] for one in cameras])
    focal_length = focus.new_tensor([one.focal_length_m for one in cameras])[:, None]
    px_per_inverse = blur_scale * factors / (1 - focal_length * in_focus)
    scene = SceneRange.read(torch.stack([inverse, *hidden_inverse], 1).flatten(1), in_focus, px_per_inverse)
    _check_scene(scene, cameras)

    def size_px(radius_px: Any) -> Any:
        return options.psf_family.size_px(radius_px, options.sigma_scale)

    def blur(light: Tensor) -> Tensor:
        behind = [(c.to(light), u, cover.to(light)) for (c, _, cover), u in zip(surfaces, hidden_inverse, strict=True)]
        level_px = options.level_px * (2 if options.method == "draft" else 1)
        return render_occlusion(
            light,
            inverse,
            in_focus,
            px_per_inverse,
            size_px,
            options.psf_family,
            scene,
            level_px,
            options.layers,
            behind,
        )

    return _blur_in_light(aif, options, blur)


def _check_scene(scene: SceneRange, cameras: Sequence[Camera]) -> None:
    """Refuse blur factors, focus distances and depths out of range."""
    if not ((scene.low >= 0) & (scene.high < math.inf)).all():
        raise InputError("depth: expected positive metres, got a value that is zero, negative or NaN (depth_m)")
    for camera, in_focus in zip(cameras, scene.in_focus, strict=True):
        with np.errstate(divide="ignore"):
            camera.blur_radius_px(1.0, 1 / in_focus)  # refuses focus distances inside the focal length


def _hidden_surfaces(hidden: HiddenSurfaces | None, linear_light: bool) -> list[HiddenSurface]:
    """Return the surfaces as a list, with their colours as the light that is blurred."""
    if hidden is None:
        return []
    surfaces = (
        (cast(HiddenSurface, hidden),) if isinstance(hidden[0], Tensor) else cast(Sequence[HiddenSurface], hidden)
    )
    return [
        (rgb_to_linear_rgb(colours) if linear_light else colours, without_channel(depth_m), without_channel(coverage))
        for colours, depth_m, coverage in surfaces
    ]


@checked_keywords
def render_blurred(
    aif: Float[Tensor, "b c h w"],
    radius_px: Float[Tensor, "b s h w"],
    *,
    sigma_scale: float = 1.0,
    weighting: str = "source",
    psf: str | PSF = "gaussian",
    method: str = "auto",
    linear_light: bool = False,
    layers: int = 48,
    level_px: float = 0.7,
    window_px: int | None = None,
    smallest_radius_px: float = 0.0,
    copied_radius_px: float = 0.0,
) -> Float[Tensor, "b s c h w"]:
    """Render as :func:`render_focal_stack`, from blur radii: for an unknown camera, or one that is being fitted.

    Args:
        aif: (B,3,H,W) all-in-focus image.
        radius_px: (B,S,H,W) blur radius in pixels of every pixel in every slice; the sign does not matter.
        sigma_scale, weighting, psf, method, linear_light, layers, level_px, window_px, smallest_radius_px, copied_radius_px:
            see :class:`sfdfd.optics.options.RenderOptions`; ``weighting`` is "source" or "target".

    Returns:
        (B,S,3,H,W) stack, differentiable in aif and radius_px.

    Raises:
        InputError: the radius is not finite, or an option is wrong.

    Examples:
        >>> image = torch.rand(1, 3, 24, 32)
        >>> render_blurred(image, torch.full((1, 1, 24, 32), 4.0), psf="disc").shape
        torch.Size([1, 1, 3, 24, 32])
    """
    options = RenderOptions(
        sigma_scale=sigma_scale,
        weighting=weighting,
        psf=psf,
        method=method,
        linear_light=linear_light,
        layers=layers,
        level_px=level_px,
        window_px=window_px,
        smallest_radius_px=smallest_radius_px,
        copied_radius_px=copied_radius_px,
    )
    if options.weighting == "occlusion":
        raise InputError("weighting: expected source or target: occlusion needs depths, not radii (optics.weighting)")
    with torch.autocast(aif.device.type, enabled=False):
        return _render_weighted(aif, radius_px, options)


def _render_weighted(aif: Tensor, radius_px: Tensor, options: RenderOptions) -> Tensor:
    """Render with source or target weighting, with or without a window."""
    psf, radius_px = options.psf_family, radius_px.abs()
    floored_px = radius_px.clamp_min(options.smallest_radius_px) if options.smallest_radius_px else radius_px
    size = floored_size_px(psf.size_px(floored_px, options.sigma_scale), psf.floor_px)
    largest_px = float(size.detach().max())
    if not math.isfinite(largest_px):
        raise InputError("render: the blur is not finite; depth_m or focus_distances_m holds a NaN or a zero")

    def blur(light: Tensor) -> Tensor:
        if options.window_px is None:
            stack = spread_light(light, size, options, largest_px)
        else:
            stack = spread_in_window(light, size, psf, options.window_px, options.weighting)
        if not options.copied_radius_px:
            return stack
        return torch.where((radius_px <= options.copied_radius_px)[:, :, None], light[:, None], stack)

    return _blur_in_light(aif, options, blur)


def _blur_in_light(aif: Tensor, options: RenderOptions, blur: Callable[[Tensor], Tensor]) -> Tensor:
    """Blur the codes, or with ``linear_light`` the light that they encode."""
    if not options.linear_light:
        return blur(aif)
    if aif.shape[1] != 3:
        raise InputError(f"linear_light: expected an RGB image, got {aif.shape[1]} channels (optics.linear_light)")
    return linear_rgb_to_rgb(blur(rgb_to_linear_rgb(aif)).clamp_min(0))  # a disc's ringing falls below black


@part
class DefocusRenderer(torch.nn.Module):
    """A :class:`Renderer` that binds the options of :func:`render_focal_stack`, without parameters.

    Args:
        sigma_scale, weighting, psf, method, linear_light, layers, level_px, window_px, smallest_radius_px, copied_radius_px:
            see :class:`sfdfd.optics.options.RenderOptions`.

    Raises:
        InputError: an option is unknown or has a wrong value.

    Examples:
        >>> renderer = DefocusRenderer(psf="disc", weighting="occlusion", linear_light=True)
        >>> aif, depth_m = torch.rand(1, 3, 24, 32), torch.full((1, 24, 32), 3.0)
        >>> renderer(aif, depth_m, torch.tensor([1.0, 3.0]), Camera(0.05, 8.0, 1.2e-5)).shape
        torch.Size([1, 2, 3, 24, 32])
        >>> renderer.differentiable, renderer.options["weighting"]
        (True, 'occlusion')
    """

    @checked_keywords
    def __init__(
        self,
        *,
        sigma_scale: float = 1.0,
        weighting: str = "source",
        psf: str | PSF = "gaussian",
        method: str = "auto",
        linear_light: bool = False,
        layers: int = 48,
        level_px: float = 0.7,
        window_px: int | None = None,
        smallest_radius_px: float = 0.0,
        copied_radius_px: float = 0.0,
    ) -> None:
        super().__init__()
        self._options = RenderOptions(
            sigma_scale=sigma_scale,
            weighting=weighting,
            psf=psf,
            method=method,
            linear_light=linear_light,
            layers=layers,
            level_px=level_px,
            window_px=window_px,
            smallest_radius_px=smallest_radius_px,
            copied_radius_px=copied_radius_px,
        )
        self.options = {field.name: getattr(self._options, field.name) for field in fields(RenderOptions)}

    @property
    def differentiable(self) -> bool:
        return True

    @property
    def models_occlusion(self) -> bool:
        return self._options.weighting == "occlusion"

    @property
    def linear_light(self) -> bool:
        return self._options.linear_light

    @property
    def psf(self) -> PSF:
        return self._options.psf_family

    @property
    def sigma_scale(self) -> float:
        return self._options.sigma_scale

    @property
    def has_draft(self) -> bool:
        return self._options.method != "draft"

    def draft(self) -> DefocusRenderer:
        return self.with_options(method="draft")

    def with_options(self, **changes: Any) -> DefocusRenderer:
        return type(self)(**{**self.options, **changes})

    def forward(
        self,
        aif: Tensor,
        depth_m: Tensor,
        focus_distances_m: Tensor,
        camera: Camera | Sequence[Camera],
        *,
        blur_factor: float | Tensor = 1.0,
        hidden: HiddenSurfaces | None = None,
    ) -> Tensor:
        """(B,3,H,W), (B,H,W), (S,) or (B,S) -> (B,S,3,H,W)."""
        return _render(aif, depth_m, focus_distances_m, camera, blur_factor, hidden, self._options)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.options.items())
