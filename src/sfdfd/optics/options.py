"""Validated options of :func:`sfdfd.optics.render.render_focal_stack`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sfdfd.errors import InputError, checked_choice, checked_int, checked_number
from sfdfd.optics.psf import PSF, get_psf

__all__ = ["RenderOptions"]

WEIGHTINGS = ("source", "target", "occlusion")


@dataclass(frozen=True)
class RenderOptions:
    """Options of a renderer: how light is blurred.

    Attributes:
        sigma_scale: std of the Gaussian over the blur radius, > 0: 1.0 = slides and paper, 0.5 = DEReD's released code
            (and the std of a uniform disc of that radius, per axis).
        weighting: "source", "target" or "occlusion", see :func:`sfdfd.optics.render.render_focal_stack`.
        psf: "gaussian"; "disc" (its radius is the blur radius, whatever sigma_scale); "power:P", exp(-2 (q/c)^P) with
            c = 2 sigma_scale r; or a :class:`sfdfd.optics.psf.PSF`.
        method: "exact" (PSF error 1e-5 of its mass, 1e-9 in float64); "fast" (1.5e-2: half an 8-bit level in the
            image); "draft" (5e-2, a quarter faster, or half the levels of the occlusion-aware renderer, a third faster:
            for the first steps of a search); "auto": exact in float64 and while the largest blur is below 8 px, else fast
            (docs/explanation/renderer.md).
        linear_light: blur in linear light: sRGB -> linear -> blur -> sRGB; RGB in [0, 1].
        layers: largest number of levels of the occlusion-aware renderer; it uses fewer where the blur varies less.
        level_px: difference in blur radius between two levels, > 0; wider steps are faster and bias depth near focus.
        window_px: odd side of the square window of published renderers (DEReD 7, dfd 11); None: as wide as the blur.
        smallest_radius_px: floor of the blur radius in published renderers (dfd 2).
        copied_radius_px: radius up to which published renderers copy a pixel from the AIF (DEReD 1); depth has no gradient
            there.

    Raises:
        InputError: a value is wrong; the message names its config key.
    """

    sigma_scale: float = 1.0
    weighting: str = "source"
    psf: str | PSF = "gaussian"
    method: str = "auto"
    linear_light: bool = False
    layers: int = 48
    level_px: float = 0.7
    window_px: int | None = None
    smallest_radius_px: float = 0.0
    copied_radius_px: float = 0.0

    def __post_init__(self) -> None:
        sigma_scale = checked_number(self.sigma_scale, "sigma_scale (optics.sigma_scale)")
        object.__setattr__(self, "sigma_scale", sigma_scale)
        checked_choice(self.weighting, "weighting (optics.weighting)", WEIGHTINGS)
        checked_choice(self.method, "method (optics.method)", ("auto", "exact", "fast", "draft"))
        checked_choice(self.linear_light, "linear_light (optics.linear_light)", (True, False))
        checked_int(self.layers, "layers (optics.layers)", 4)
        object.__setattr__(self, "level_px", checked_number(self.level_px, "level_px (optics.level_px)"))
        for key in ("smallest_radius_px", "copied_radius_px"):
            object.__setattr__(self, key, checked_number(getattr(self, key), f"{key} (optics.{key})", least=0))
        if self.window_px is not None and (checked_int(self.window_px, "window_px (optics.window_px)", 3) % 2 == 0):
            raise InputError(f"window_px (optics.window_px): expected an odd number or null, got {self.window_px}")
        if self.weighting == "occlusion" and (self.window_px or self.smallest_radius_px or self.copied_radius_px):
            raise InputError(
                "window_px, smallest_radius_px and copied_radius_px are of the source and target weightings, not of "
                "weighting=occlusion (optics.window_px ...)"
            )
        get_psf(self.psf)

    @cached_property
    def psf_family(self) -> PSF:
        """The PSF family that ``psf`` names."""
        return get_psf(self.psf)
