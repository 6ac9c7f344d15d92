"""Lens parameters that refinement fits beside depth and AIF.

    R(I, p) = (1 - w) R_disc(I, p; k) + w R_gaussian(I, p; k)

* ``k``: factor on all blur radii. EXIF rounds, and knows neither the true aperture nor a binned pixel's size.
* ``shape``: w, from the disc (0) to the Gaussian of the same second moment (1), mixed in the light that is blurred.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from sfdfd.errors import InputError

__all__ = ["LENS_PARAMETERS", "Lens", "checked_lens_parameters"]

LENS_PARAMETERS = ("k", "shape")
"""What can be fitted, by name."""
LEARNING_RATES = {"k": 0.01, "shape": 0.05}
"""Adam's: of the logarithm of k, and of the share w."""


class Lens:
    """The lens of each sample of a batch; it starts as the thin lens.

    Args:
        fitted: names out of :data:`LENS_PARAMETERS`.
        batch: B.
        like: gives dtype and device.

    Raises:
        InputError: a name is unknown.
    """

    def __init__(self, fitted: Collection[str], batch: int, like: Tensor) -> None:
        checked_lens_parameters(fitted)
        self.fitted = tuple(name for name in LENS_PARAMETERS if name in fitted)
        self.values = {name: like.new_zeros(batch) for name in LENS_PARAMETERS}
        """Logarithm of k, and w, each (B,)."""

    def clone(self) -> Lens:
        twin = Lens(self.fitted, 0, self.values["k"])
        twin.values = {name: value.detach().clone() for name, value in self.values.items()}
        return twin

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Yield Adam's parameter groups; their tensors require gradients from now on."""
        for name in self.fitted:
            yield {"params": [self.values[name].requires_grad_()], "rate": LEARNING_RATES[name]}

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp parameters into their range after a step."""
        self.values["shape"].clamp_(0, 1)

    @property
    def blur_factor(self) -> Float[Tensor, "b"]:
        return self.values["k"].exp()

    def blend_psfs(
        self, disc: Float[Tensor, "b s 3 h w"], gaussian: Float[Tensor, "b s 3 h w"], linear_light: bool
    ) -> Float[Tensor, "b s 3 h w"]:
        """Mix two rendered stacks by ``shape``; in linear light where asked, images being sRGB codes."""
        share = self.values["shape"].reshape(-1, 1, 1, 1, 1)
        if not linear_light:
            return torch.lerp(disc, gaussian, share)
        light = [rgb_to_linear_rgb(stack.flatten(0, 1)).unflatten(0, stack.shape[:2]) for stack in (disc, gaussian)]
        return linear_rgb_to_rgb(torch.lerp(light[0], light[1], share).flatten(0, 1)).unflatten(0, disc.shape[:2])

    def as_dict(self) -> dict[str, list]:
        """Return the fitted parameters as plain values; ``k`` is the factor itself."""
        values = {name: self.values[name].detach() for name in self.fitted}
        return {name: (value.exp() if name == "k" else value).tolist() for name, value in values.items()}

    def errors_as_dict(self, errors: Mapping[str, Tensor]) -> dict[str, list]:
        """Return standard errors of :attr:`values` in the form of :meth:`as_dict`."""
        scales = {"k": self.blur_factor.detach()}  # of a logarithm, to first order
        return {name: (value * scales.get(name, 1.0)).tolist() for name, value in errors.items()}


def checked_lens_parameters(fitted: Collection[str]) -> tuple[str, ...]:
    """Return the names.

    Raises:
        InputError: no list, or a name is unknown.
    """
    listed = isinstance(fitted, Collection) and not isinstance(fitted, (str, Mapping))
    if not listed or any(name not in LENS_PARAMETERS for name in fitted):
        raise InputError(f"expected a list of {', '.join(LENS_PARAMETERS)}, got {fitted} (refine.fit)")
    return tuple(fitted)
