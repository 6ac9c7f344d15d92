"""How a focal stack was blurred: the part of the optics that belongs to the images and not to the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from sfdfd.errors import InputError, checked_choice, short_repr
from sfdfd.optics.options import RenderOptions

if TYPE_CHECKING:
    from sfdfd.optics.render import Renderer

__all__ = ["BLUR_KEYS", "PHOTOGRAPH_BLUR", "BlurModel"]


@dataclass(frozen=True)
class BlurModel:
    """How the slices of a stack were blurred; None for what nobody knows.

    A :class:`sfdfd.stack.FocalStack` carries it, so that no method has to guess the physics it inverts. The attributes mean
    what the options of the same names mean in :class:`sfdfd.optics.options.RenderOptions`.

    Attributes:
        psf: "gaussian", "disc" or "power:P".
        weighting: "source", "target" or "occlusion".
        linear_light: whether light was blurred (photographs), or its sRGB codes (published synthetic protocols).
        sigma_scale: standard deviation over blur radius, where the PSF is no disc.
        window_px, smallest_radius_px, copied_radius_px: what published renderers do instead of the full PSF.

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
        """What is known, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def updated(self, changes: BlurModel | Mapping[str, Any] | None) -> BlurModel:
        """The same with what ``changes`` knows in place of its own.

        Raises:
            InputError: no such key, or a wrong value.
        """
        if changes is None:
            return self
        more = changes.known() if isinstance(changes, BlurModel) else dict(changes)
        unknown = [key for key in more if key not in BLUR_KEYS]
        if unknown:
            raise InputError(f"optics: unknown key {short_repr(unknown[0])}; known are {', '.join(BLUR_KEYS)}")
        return replace(self, **{key: value for key, value in more.items() if value is not None})

    def applied_to(self, renderer: Renderer) -> Renderer:
        """A renderer like this one that blurs as is known here; itself where it does so already.

        A renderer without an option of that name keeps what it does. One that publishes a window loses it where the stack is
        known to have none (``smallest_radius_px`` and ``copied_radius_px`` are 0 then).
        """
        options = dict(renderer.options)
        known = {key: value for key, value in self.known().items() if key in options}
        if known and self.window_px is None and "window_px" in options:
            known["window_px"] = None  # None means as wide as the blur, once anything else is known
            known = {"smallest_radius_px": 0.0, "copied_radius_px": 0.0, **known}
        if all(options[key] == value for key, value in known.items()):
            return renderer
        return type(renderer)(**{**options, **known})

    @classmethod
    def of(cls, renderer: Any) -> BlurModel | None:
        """How a renderer blurs; None for a function that does not say."""
        options = getattr(renderer, "options", None)
        if not isinstance(options, Mapping):
            return None
        known = {key: options[key] for key in BLUR_KEYS if key in options}
        return cls(**known) if isinstance(known.get("psf", ""), str) else None

    def __str__(self) -> str:
        words = {True: "linear light", False: "sRGB codes"}
        parts = [self.psf, self.weighting and f"{self.weighting} weighting", words.get(self.linear_light)]  # type: ignore[arg-type]
        if self.sigma_scale is not None and self.psf != "disc":
            parts.append(f"sigma_scale {self.sigma_scale:g}")
        parts += [f"{key} {value:g}" for key in BLUR_KEYS[4:] if (value := getattr(self, key))]
        return ", ".join(part for part in parts if part) or "unknown"


BLUR_KEYS = tuple(field.name for field in fields(BlurModel))
PHOTOGRAPH_BLUR = BlurModel(psf="disc", weighting="occlusion", linear_light=True, sigma_scale=0.5)
"""How photographs are blurred: light adds, lenses have round apertures, and what is in front covers what is behind.
``sigma_scale`` counts where the PSF is not a disc."""
