"""What a real lens adds to the thin one: a handful of numbers per stack that refinement fits beside depth and AIF.

    J_s = gain_s * warp_s(soft((1 - w) R_disc(I, p + c rho^2; k) + w R_gaussian(I, p + c rho^2; k)))

* ``k``: a factor on all blur radii (EXIF rounds, and knows neither the true aperture nor the binned pixel).
* ``shape``: w, from the disc (0) to the Gaussian of the same second moment (1, standard deviation half the radius); added
  in the light that is blurred.
* ``softness``: variance v in px^2 that every slice is blurred by even in focus, with the kernel (v/2, 1 - v, v/2) along both
  axes; negative is the sharpening that cameras apply (at the scale of a pixel one undoes the other: one number for both).
* ``curvature``: c, by how much the surface of focus bends from the middle to the corner, in positions of inverse depth.
  Depth can always take its place; that most surfaces are planes decides, see :meth:`Lens.bent`.
* ``shift``: of each slice after the registration of the photographs, with scale, inside the model of the blur.
* ``exposure``: a gain for each slice and colour.

Zero is the thin lens. See docs/refinement.md for what each is worth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from sfdfd.errors import InputError

__all__ = ["LENS", "Lens"]

LENS = ("k", "shape", "softness", "curvature", "shift", "exposure")
"""What can be fitted, by name."""
RATES = {"k": 0.01, "shape": 0.05, "softness": 0.01, "shift": 0.02, "exposure": 0.002}
"""Adam's learning rates: log of the factor, share, px^2, px of the size that is worked on, log of the gain."""


class Lens:
    """The parameters of a batch of stacks, tensors that start at the thin lens.

    Args:
        fitted: names of :data:`LENS`.
        batch, slices: sizes B and S.
        like: gives dtype and device.

    Raises:
        InputError: a name is not known.
    """

    def __init__(self, fitted: Collection[str], batch: int, slices: int, like: Tensor) -> None:
        check_fitted(fitted)
        self.fitted = tuple(name for name in LENS if name in fitted)
        self.values = {
            "k": like.new_zeros(batch),
            "shape": like.new_zeros(batch),
            "softness": like.new_zeros(batch),
            "curvature": like.new_zeros(batch),
            "shift": like.new_zeros(batch, slices, 3),
            "exposure": like.new_zeros(batch, slices, 3),
        }

    def clone(self) -> Lens:
        twin = Lens(self.fitted, 0, 0, self.values["k"])
        twin.values = {key: value.detach().clone() for key, value in self.values.items()}
        return twin

    def groups(self) -> Iterator[dict[str, object]]:
        """Adam's parameter groups; they ask for gradients from now on."""
        for name in self.fitted:
            if name in RATES:
                yield {"params": [self.values[name].requires_grad_()], "rate": RATES[name]}

    @torch.no_grad()
    def into_range(self) -> None:
        """What a step of descent took beyond its ends is taken back."""
        self.values["shape"].clamp_(0, 1)

    @property
    def blur_factor(self) -> Float[Tensor, "b"]:
        return self.values["k"].exp()

    def scaled(self, factor: float) -> Lens:
        """The same lens at another size of the images: shifts are pixels, softness is their square."""
        twin = self.clone()
        twin.values["shift"] = twin.values["shift"] * twin.values["shift"].new_tensor([factor, factor, 1.0])
        twin.values["softness"] = twin.values["softness"] * factor**2
        return twin

    def seen(self, inverse_depth_01: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """Where the bent surface of focus makes a inverse_depth_01 blur as if it were."""
        if "curvature" not in self.fitted:
            return inverse_depth_01
        return inverse_depth_01 + self.values["curvature"][:, None, None] * _rho_squared(inverse_depth_01)

    def bent(self, inverse_depth_01: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """Hands over to the curvature what most of the scene bends by, and returns the inverse_depth_01 without it; what the slices
        show stays the same.

        The median of second differences over an eighth of the image, over those of rho^2: a plane has none.
        """
        if "curvature" not in self.fitted:
            return inverse_depth_01
        offset = max(min(inverse_depth_01.shape[-2:]) // 8, 1)
        measured, unit = (
            _second(one, offset)
            for one in (inverse_depth_01, _rho_squared(inverse_depth_01).expand_as(inverse_depth_01))
        )
        change = (measured / unit.clamp_min(1e-9)).median(1).values
        self.values["curvature"] = self.values["curvature"] + change
        return inverse_depth_01 - change[:, None, None] * _rho_squared(inverse_depth_01)

    def shaped(
        self, disc: Float[Tensor, "b s 3 h w"], gaussian: Float[Tensor, "b s 3 h w"], linear_light: bool
    ) -> Float[Tensor, "b s 3 h w"]:
        """Slices blurred by the PSF between the two that they were rendered with; codes, added in light where asked."""
        share = self.values["shape"].reshape(-1, 1, 1, 1, 1)
        if not linear_light:
            return torch.lerp(disc, gaussian, share)
        light = [rgb_to_linear_rgb(stack.flatten(0, 1)).unflatten(0, stack.shape[:2]) for stack in (disc, gaussian)]
        return linear_rgb_to_rgb(torch.lerp(light[0], light[1], share).flatten(0, 1)).unflatten(0, disc.shape[:2])

    def applied(self, stack: Float[Tensor, "b s 3 h w"]) -> Float[Tensor, "b s 3 h w"]:
        """Softness, shift and exposure of rendered slices."""
        if "softness" in self.fitted:
            stack = softened(stack, self.values["softness"])
        if "shift" in self.fitted:
            stack = _shifted(stack, self.values["shift"])
        if "exposure" in self.fitted:
            stack = stack * self.values["exposure"].exp()[..., None, None]
        return stack

    def as_dict(self) -> dict[str, list]:
        """What was fitted, as plain values; ``k`` is the factor, ``exposure`` the gains."""
        found = {name: self.values[name].detach() for name in self.fitted}
        return {name: (value.exp() if name in ("k", "exposure") else value).tolist() for name, value in found.items()}

    def with_errors(self, errors: Mapping[str, Tensor], factor: float = 1.0) -> dict[str, list]:
        """Standard errors of the values at an image ``factor`` times smaller, as those of :meth:`as_dict`."""
        found = dict(errors)
        for name in {"k", "exposure"} & found.keys():  # of a logarithm, to first order
            found[name] = found[name] * self.values[name].detach().exp()
        if "shift" in found:
            found["shift"] = found["shift"] * found["shift"].new_tensor([factor, factor, 1.0])
        if "softness" in found:
            found["softness"] = found["softness"] * factor**2
        return {name: value.tolist() for name, value in found.items()}


def check_fitted(fitted: Collection[str]) -> tuple[str, ...]:
    """The names, if they are known."""
    listed = isinstance(fitted, Collection) and not isinstance(fitted, (str, Mapping))
    if not listed or any(name not in LENS for name in fitted):
        raise InputError(f"expected a list of {', '.join(LENS)}, got {fitted} (refine.fit)")
    return tuple(fitted)


def softened(stack: Float[Tensor, "b s 3 h w"], variance: Float[Tensor, "b"]) -> Float[Tensor, "b s 3 h w"]:
    """Every slice blurred by a kernel of that variance in px^2 along both axes; negative sharpens."""
    half = 0.5 * variance.clamp(-0.5, 0.8).reshape(-1, 1, 1, 1, 1)
    for axis in (-1, -2):
        size = stack.shape[axis]
        pad = (1, 1, 0, 0) if axis == -1 else (0, 0, 1, 1)
        padded = F.pad(stack.flatten(0, 1), pad, mode="replicate").unflatten(0, stack.shape[:2])
        beside = padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size)
        stack = stack + half * (beside - 2 * stack)
    return stack


def _shifted(stack: Tensor, shift: Float[Tensor, "b s 3"]) -> Tensor:
    """Slices moved by (x, y) pixels and scaled by 1 + z about the middle, cubic."""
    batch, slices, _, height, width = stack.shape
    flat = shift.flatten(0, 1)
    zoom = 1 + flat[:, 2]
    zero = torch.zeros_like(zoom)
    rows = (torch.stack([zoom, zero, 2 * flat[:, 0] / width], 1), torch.stack([zero, zoom, 2 * flat[:, 1] / height], 1))
    grid = F.affine_grid(torch.stack(rows, 1), [batch * slices, 3, height, width], align_corners=False)
    moved = F.grid_sample(stack.flatten(0, 1), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.unflatten(0, (batch, slices))


def _rho_squared(inverse_depth_01: Tensor) -> Tensor:
    """(1,H,W) squared distance from the middle, 1 in the corners."""
    height, width = inverse_depth_01.shape[-2:]
    y, x = (
        (torch.arange(n, device=inverse_depth_01.device, dtype=inverse_depth_01.dtype) + 0.5 - n / 2)
        for n in (height, width)
    )
    return ((y[:, None].square() + x.square()) / (height**2 / 4 + width**2 / 4))[None]


def _second(values: Tensor, offset: int) -> Float[Tensor, "b n"]:
    """Second differences along both axes, (B,N)."""
    parts = []
    for axis in (-1, -2):
        length = values.shape[axis] - 2 * offset
        first, middle, last = (values.narrow(axis, start, length) for start in (0, offset, 2 * offset))
        parts.append((first + last - 2 * middle).flatten(1))
    return torch.cat(parts, 1)
