"""Point spread functions: blur size -> relative weight at a distance, and their low-rank bases.

Every PSF is a family K_s(q): the weight that a source pixel of size s sends to a pixel at distance q, both in pixels. Its
integral over the plane does not depend on s. A spatially varying blur needs another size s at every pixel. The families are
smooth in s, so a few members span all: an interpolative decomposition (Cheng, Gimbutas,
Martinsson, Rokhlin, "On the compression of low rank matrices", SIAM J. Sci. Comput. 2005) finds distances q_1..q_L and
images B_1..B_L with

    K_s(q) = sum_l K_s(q_l) B_l(q)      for all sizes s, up to a tolerance that is measured.

The coefficients K_s(q_l) are the PSF itself at L distances, exact and differentiable; the B_l are convolved once for
all pixels. docs/explanation/renderer.md shows the accuracy and the cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.linalg
import scipy.special
import torch
from torch import Tensor

from sfdfd.errors import InputError, checked_number

__all__ = [
    "FAMILIES",
    "PSF",
    "DiscPSF",
    "GaussianPSF",
    "PSFBasis",
    "PowerPSF",
    "floored_size_px",
    "get_psf",
    "psf_basis",
]


def floored_size_px(size_px: Tensor, floor_px: float) -> Tensor:
    """Floor a size smoothly: s where s >= 2a, else a + s^2/(4a), with the floor a.

    The parabola joins with equal value and slope; a sampled PSF no longer shows its width below 2a. The size stays smooth in
    depth at focus, where it is |linear| in inverse depth, so nothing divides by zero and the gradient near focus stays
    alive.
    """
    return torch.where(size_px < 2 * floor_px, floor_px + size_px * size_px / (4 * floor_px), size_px)


@runtime_checkable
class PSF(Protocol):
    """A family of point spread functions K_s(q); sizes and distances in pixels."""

    @property
    def floor_px(self) -> float:
        """Smallest size, at which rendering is the identity: the weight of neighbouring pixels is negligible."""

    @property
    def mass(self) -> float:
        """The integral of K_s over the plane, the same for every size."""

    def __hash__(self) -> int:
        """Hash the parameters, by which bases are cached."""

    def size_px(self, radius_px, sigma_scale: float):
        """Return the size s of a blur radius."""

    def weight(self, distance_sq, size_px):
        """Return K_s(q) for q^2 and s, broadcast; NumPy or torch."""

    def slope(self, distance_sq, size_px, weight):
        """Return dK_s(q)/ds, given the weight; torch."""

    def reach_px(self, size_px: float) -> int:
        """Return the half width of the window that holds K_s."""

    def sizes_px(self, limit_px: float) -> np.ndarray:
        """Return sizes from the floor to the limit, dense enough to represent all between."""


@dataclass(frozen=True)
class GaussianPSF:
    """K_s(q) = exp(-q^2 / (2 s^2)) / s^2, the slides' Gaussian up to the constant 1/(2 pi); s is its standard deviation.

    The neighbours' weight at the floor is exp(-1 / (2 * 0.2^2)) = 4e-6: in focus, rendering is the identity to 2e-5.

    Examples:
        >>> GaussianPSF().size_px(6.0, sigma_scale=0.5)  # the standard deviation
        3.0
    """

    floor_px: float = 0.2
    mass: float = 2 * np.pi

    def size_px(self, radius_px, sigma_scale: float):
        return sigma_scale * radius_px

    def weight(self, distance_sq, size_px):
        exp = torch.exp if isinstance(size_px, Tensor) else np.exp
        precision = 1.0 / (size_px * size_px)
        return precision * exp(-0.5 * distance_sq * precision)

    def slope(self, distance_sq, size_px, weight):
        return weight * (distance_sq / (size_px * size_px) - 2.0) / size_px

    def reach_px(self, size_px: float) -> int:
        return math.ceil(4.5 * size_px)

    def sizes_px(self, limit_px: float) -> np.ndarray:
        return np.geomspace(self.floor_px, limit_px, 160)


@dataclass(frozen=True)
class DiscPSF:
    """The pillbox: K_s(q) = erfc((q - s) / (sqrt(2) w)) / (2 (s^2 + w^2)); s is its radius.

    The rim is the edge of a disc blurred by a Gaussian of std w = 0.22 px: about the area sampling of a pixel, smooth in
    s and in q. The size is the blur radius itself; sigma_scale does not enter.

    Examples:
        >>> disc = DiscPSF()
        >>> round(float(disc.weight(36.0, np.float64(6.0)) / disc.weight(0.0, np.float64(6.0))), 3)  # half at the rim
        0.5
    """

    rim_px: float = 0.22
    floor_px: float = 0.05
    mass: float = 2 * np.pi

    def size_px(self, radius_px, sigma_scale: float):
        return radius_px

    def weight(self, distance_sq, size_px):
        if isinstance(size_px, Tensor):
            distance = math.sqrt(distance_sq)
            edge = torch.erfc((distance - size_px) / (math.sqrt(2) * self.rim_px))
        else:
            edge = scipy.special.erfc((np.sqrt(distance_sq) - size_px) / (math.sqrt(2) * self.rim_px))
        return edge / (size_px * size_px + self.rim_px**2)

    def slope(self, distance_sq, size_px, weight):
        area = size_px * size_px + self.rim_px**2
        offset = (math.sqrt(distance_sq) - size_px) / self.rim_px
        rim = math.sqrt(2 / math.pi) / self.rim_px * torch.exp(-0.5 * offset * offset)
        return (rim - 2 * size_px * weight) / area

    def reach_px(self, size_px: float) -> int:
        return math.ceil(size_px + 6 * self.rim_px)

    def sizes_px(self, limit_px: float) -> np.ndarray:
        return np.linspace(self.floor_px, limit_px, 64 + math.ceil(12 * limit_px))


@dataclass(frozen=True)
class PowerPSF:
    """K_s(q) = exp(-2 (q/s)^p) / s^2: p = 2 is the Gaussian of std s/2, p -> inf the disc of radius s (used by FOSSA).

    The size is 2 sigma_scale r, so that p = 2 is the Gaussian PSF under the same sigma_scale.

    Args:
        power: p >= 1.

    Examples:
        >>> PowerPSF(4.0).size_px(6.0, sigma_scale=0.5)
        6.0
    """

    power: float = 4.0

    def __post_init__(self) -> None:
        checked_number(self.power, "psf: the power (optics.psf)", least=1.0, most=64.0)

    @property
    def floor_px(self) -> float:
        return min(0.4, 6.25 ** (-1 / self.power))

    @property
    def mass(self) -> float:
        return 2 * np.pi / self.power * 2 ** (-2 / self.power) * math.gamma(2 / self.power)

    def size_px(self, radius_px, sigma_scale: float):
        return 2 * sigma_scale * radius_px

    def _exponent(self, distance_sq, size_px):
        return 2 * (distance_sq / (size_px * size_px)) ** (self.power / 2)

    def weight(self, distance_sq, size_px):
        exp = torch.exp if isinstance(size_px, Tensor) else np.exp
        with np.errstate(over="ignore"):
            return exp(-self._exponent(distance_sq, size_px)) / (size_px * size_px)

    def slope(self, distance_sq, size_px, weight):
        exponent = self._exponent(distance_sq, size_px)
        growth = torch.where(weight > 0, exponent, 0.0)  # an overflowing exponent has weight 0
        return weight * (self.power * growth - 2.0) / size_px

    def reach_px(self, size_px: float) -> int:
        return math.ceil(size_px * 10.0 ** (1 / self.power))

    def sizes_px(self, limit_px: float) -> np.ndarray:
        return np.geomspace(self.floor_px, limit_px, 160 + math.ceil(8 * self.power * math.log(limit_px / 0.1)))


FAMILIES: dict[str, Callable[[], PSF]] = {"gaussian": GaussianPSF, "disc": DiscPSF}
"""Name -> PSF family, of those without a parameter."""


def get_psf(psf: str | PSF) -> PSF:
    """Return the PSF family by name: one of :data:`FAMILIES`, or "power:P" with an exponent P. A PSF is returned as it is.

    Examples:
        >>> get_psf("power:4")
        PowerPSF(power=4.0)
    """
    if isinstance(psf, PSF):
        return psf
    if not isinstance(psf, str):
        raise InputError(f"psf: expected {', '.join(map(repr, FAMILIES))} or 'power:P', got {psf!r} (optics.psf)")
    name, _, parameter = psf.partition(":")
    if name == "power":
        try:
            return PowerPSF(float(parameter or 4.0))
        except ValueError:
            raise InputError(f"psf: expected 'power:NUMBER', got {psf!r} (optics.psf)") from None
    if psf not in FAMILIES:
        raise InputError(f"psf: expected {', '.join(map(repr, FAMILIES))} or 'power:P', got {psf!r} (optics.psf)")
    return FAMILIES[psf]()


@dataclass(frozen=True, eq=False)
class PSFBasis:
    """Distances and images that span a PSF family up to a size, as in the module's docstring.

    Attributes:
        psf: the PSF family.
        distances_sq: (L,) squared distances q_l^2 in pixels.
        quadrants: (L, R+1, R+1) the images B_l for offsets >= 0; they are even in both axes, and 0 at the centre because
            its weight K_s(0) is applied exactly.
        error: largest L1 error of any sampled size relative to the PSF's mass.
    """

    psf: PSF
    distances_sq: np.ndarray
    quadrants: np.ndarray
    error: float

    @property
    def reach_px(self) -> int:
        """Half width of the images."""
        return self.quadrants.shape[-1] - 1

    @lru_cache(maxsize=32)  # noqa: B019 - bases are few, frozen, and cached for the life of the process themselves
    @torch.inference_mode(False)  # cached spectra must serve gradients, too
    def spectra(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the real spectra (L, height, width//2+1) of the images on a padded grid."""
        rank, size, _ = self.quadrants.shape
        rows, columns = min(size, height // 2 + 1), min(size, width // 2 + 1)
        image = np.zeros((rank, height, width))
        part = self.quadrants[:, :rows, :columns]
        image[:, :rows, :columns] = part
        image[:, height - rows + 1 :, :columns] = part[:, :0:-1]
        image[:, :, width - columns + 1 :] = image[:, :, columns - 1 : 0 : -1]
        return torch.from_numpy(np.fft.rfft2(image).real).to(device=device, dtype=dtype)


@lru_cache(maxsize=64)
def psf_basis(psf: PSF, size_limit_px: float, reach_limit_px: int, tolerance: float) -> PSFBasis:
    """Return the smallest basis that represents every size from the floor to ``size_limit_px``.

    Args:
        psf: the PSF family.
        size_limit_px: largest size in pixels.
        reach_limit_px: half width beyond which offsets cannot occur, because the image is no larger.
        tolerance: largest L1 error of a PSF relative to its mass.

    Returns:
        The basis, whose ``error`` is at most the tolerance.
    """
    decomposition = _decomposition(psf, max(size_limit_px, 2 * psf.floor_px), reach_limit_px)
    # the error falls with the rank, but not strictly: bisect, then walk up to the first rank that holds
    low, high = 1, decomposition.highest_rank
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decomposition.interpolant(middle)[2] <= tolerance else (middle + 1, high)
    while decomposition.interpolant(low)[2] > tolerance and low < decomposition.highest_rank:
        low += 1
    indices, images, error = decomposition.interpolant(low)
    quadrants = np.concatenate([np.zeros((low, 1)), images], axis=1)[:, decomposition.distance_index]
    return PSFBasis(psf, decomposition.distances_sq[indices], quadrants, error)


class _PSFDecomposition:
    """An interpolative decomposition of a PSF family up to a size, from which bases of every tolerance are read."""

    def __init__(self, psf: PSF, size_limit_px: float, reach_limit_px: int) -> None:
        reach = max(1, min(psf.reach_px(size_limit_px), reach_limit_px))
        offsets = np.arange(reach + 1)
        distance_sq = offsets[:, None] ** 2 + offsets[None, :] ** 2
        copies = np.where(offsets > 0, 2.0, 1.0)
        unique, index = np.unique(distance_sq, return_inverse=True)
        self.pixel_count = np.bincount(index.ravel(), (copies[:, None] * copies[None, :]).ravel())[1:]
        self.distance_index, self.distances_sq = index.reshape(distance_sq.shape), unique[1:].astype(float)
        self.mass = psf.mass
        with np.errstate(under="ignore"):
            samples = psf.weight(self.distances_sq[None], psf.sizes_px(size_limit_px)[:, None])
        samples[samples < 1e-30] = 0.0  # denormal numbers are slow and negligible

        candidates = np.arange(len(self.distances_sq))
        if len(candidates) > 800:  # a wide window has thousands of distances; a few hundred of them span the rest
            candidates = np.unique(np.round(np.geomspace(1, len(candidates), 1200)).astype(int)) - 1
        self.scale = np.sqrt(self.pixel_count)
        q, self.r, pivots = scipy.linalg.qr(
            samples[:, candidates] * self.scale[candidates], mode="economic", pivoting=True
        )
        self.samples, self.projected, self.pivots = samples, q.T @ (samples * self.scale), candidates[pivots]
        diagonal = np.abs(np.diag(self.r))
        self.highest_rank = max(1, int((diagonal > 1e-14 * diagonal[0]).sum()))
        self.interpolant = lru_cache(self._interpolant)

    def _interpolant(self, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return, for a rank, the indices of its distances, its images over all distances, and its error."""
        indices = self.pivots[:rank]
        images = scipy.linalg.solve_triangular(self.r[:rank, :rank], self.projected[:rank])
        images = images * self.scale[indices][:, None] / self.scale[None]
        error = (np.abs(self.samples - self.samples[:, indices] @ images) @ self.pixel_count).max() / self.mass
        return indices, images, float(error)


_decomposition = lru_cache(maxsize=4)(_PSFDecomposition)
