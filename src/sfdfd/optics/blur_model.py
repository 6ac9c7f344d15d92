"""How a focal stack was blurred: the part of the optics that belongs to the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sfdfd.errors import InputError, checked_choice, short_repr
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.render import Renderer

__all__ = ["BLUR_KEYS", "PHOTOGRAPH_BLUR", "BlurModel"]


@dataclass(frozen=True)
class BlurModel:
    """How the slices of a stack were blurred; None for what is unknown.

    A :class:`sfdfd.stack.FocalStack` carries it, so that methods need not guess the physics that they invert. The attributes
    have the meaning of the options of the same name in :class:`sfdfd.optics.options.RenderOptions`.

    Attributes:
        psf: "gaussian", "disc" or "power:P".
        weighting: "source", "target" or "occlusion".
        linear_light: whether linear light was blurred (photographs) or sRGB codes (published synthetic protocols).
        sigma_scale: standard deviation over blur radius; unused for a disc.
        window_px, smallest_radius_px, copied_radius_px: limits of published renderers.

    Raises:
        InputError: a value is wrong; the message names its key.

    Examples:
        >>> from sfdfd.optics import DefocusRenderer
        >>> BlurModel(psf="disc", linear_light=True).applied_to(DefocusRenderer(sigma_scale=0.5)).options["psf"]
        'disc'
    """

    psf: str | None = None
    weighting: str | None = None
    linear_light: bool | None = None
    sigma_scale: float | None = None
    window_px: int | None = None
    smallest_radius_px: float | None = None
    copied_radius_px: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.psf, (str, type(None))):
            raise InputError(f"psf (optics.psf): expected a name, got {short_repr(self.psf)}")
        checked_choice(bool(self.linear_light) if self.linear_light is None else self.linear_light,
                       "linear_light (optics.linear_light)", (True, False))  # fmt: skip
        RenderOptions(**self.known())

    def known(self) -> dict[str, Any]:
        """Return the known attributes by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def updated(self, changes: BlurModel | Mapping[str, Any] | None) -> BlurModel:
        """Return a copy with the known attributes of ``changes`` replaced.

        Raises:
            InputError: an unknown key, or a wrong value.
        """
        if changes is None:
            return self
        values = changes.known() if isinstance(changes, BlurModel) else dict(changes)
        unknown = [key for key in values if key not in BLUR_KEYS]
        if unknown:
            raise InputError(f"optics: unknown key {short_repr(unknown[0])}; known are {', '.join(BLUR_KEYS)}")
        return replace(self, **{key: value for key, value in values.items() if value is not None})

    def applied_to(self, renderer: Renderer) -> Renderer:
        """Return a renderer with the known attributes as options, or the renderer itself if they hold already.

        Attributes that the renderer has no option for are ignored. If anything is known but no window, a renderer with the
        window of a published protocol loses it (and ``smallest_radius_px`` and ``copied_radius_px`` become 0).
        """
        options = renderer.options
        changes = {key: value for key, value in self.known().items() if key in options}
        if changes and self.window_px is None and "window_px" in options:
            changes["window_px"] = None  # as wide as the blur
            changes = {"smallest_radius_px": 0.0, "copied_radius_px": 0.0, **changes}
        if all(options[key] == value for key, value in changes.items()):
            return renderer
        return renderer.with_options(**changes)

    @classmethod
    def of(cls, renderer: Any) -> BlurModel | None:
        """Return how a renderer blurs; None for another callable, or if its PSF has no name to record."""
        if not isinstance(renderer, Renderer):
            return None
        options = {key: renderer.options[key] for key in BLUR_KEYS if key in renderer.options}
        return cls(**options) if isinstance(options.get("psf", ""), str) else None

    def __str__(self) -> str:
        parts = [self.psf, self.weighting and f"{self.weighting} weighting"]
        if self.linear_light is not None:
            parts.append("linear light" if self.linear_light else "sRGB codes")
        if self.sigma_scale is not None and self.psf != "disc":
            parts.append(f"sigma_scale {self.sigma_scale:g}")
        parts += [f"{key} {value:g}" for key in BLUR_KEYS[4:] if (value := getattr(self, key))]
        return ", ".join(part for part in parts if part) or "unknown"


BLUR_KEYS = tuple(field.name for field in fields(BlurModel))
PHOTOGRAPH_BLUR = BlurModel(psf="disc", weighting="occlusion", linear_light=True, sigma_scale=0.5)
"""How photographs are blurred: in linear light, by a round aperture, with occlusion. ``sigma_scale`` is used if another
PSF is chosen."""
