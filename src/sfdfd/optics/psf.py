"""Point spread functions: blur size -> relative weight at a distance, and their low-rank bases.

Every PSF is a family K_s(q): the weight that a source pixel of size s (the Gaussian's standard deviation in pixels)
sends to a pixel at distance q, normalised so that the sum over the plane does not depend on s. A spatially varying blur
needs K_s for another s at every pixel. The families are smooth in s, so a few members span all: an interpolative
decomposition (Cheng, Gimbutas, Martinsson, Rokhlin, "On the compression of low rank matrices", SIAM J. Sci. Comput.
2005) finds distances q_1..q_L and images B_1..B_L with

    K_s(q) = sum_l K_s(q_l) B_l(q)      for all sizes s, up to a tolerance that is computed, not hoped for.

The coefficients K_s(q_l) are the PSF itself at L distances, exact and differentiable; the B_l are convolved once for
all pixels. docs/renderer.md shows the accuracy and the cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

__all__ = ["PSF", "GaussianPSF", "PSFBasis", "get_psf", "psf_basis"]

SIZE_FLOOR_PX = 0.2
"""Below twice this size the sampled Gaussian no longer shows its width; see :func:`floored_size_px`."""


def floored_size_px(size_px: Tensor) -> Tensor:
    """A size that is never zero: s where s >= 2a, else a + s^2/(4a), with a = 0.2 px.

    Identity from 0.4 px on; below, a parabola that joins with equal value and slope. In focus the neighbour's weight is
    exp(-1/(2 a^2)) = 4e-6 (so rendering is the identity to 2e-5), and the size is smooth in depth there, because a size
    that is |linear| in inverse depth becomes its square. No division by zero and no dead gradient beside the focus.
    """
    return torch.where(size_px < 2 * SIZE_FLOOR_PX, SIZE_FLOOR_PX + size_px * size_px / (4 * SIZE_FLOOR_PX), size_px)


@runtime_checkable
class PSF(Protocol):
    """A family of point spread functions K_s(q)."""

    mass: float

    def weight(self, distance_sq, size_px):
        """K_s(q) for q^2 and s, broadcast; NumPy or torch."""

    def slope(self, distance_sq, size_px, weight):
        """dK_s(q)/ds, given the weight."""

    def reach_px(self, size_px: float) -> int:
        """Half width of the window that holds K_s."""


@dataclass(frozen=True)
class GaussianPSF:
    """K_s(q) = exp(-q^2 / (2 s^2)) / s^2: the slides' Gaussian up to the constant 1/(2 pi)."""

    mass: float = 2 * np.pi

    def weight(self, distance_sq, size_px):
        exp = torch.exp if isinstance(size_px, Tensor) else np.exp
        precision = 1.0 / (size_px * size_px)
        return precision * exp(-0.5 * distance_sq * precision)

    def slope(self, distance_sq, size_px, weight):
        return weight * (distance_sq / (size_px * size_px) - 2.0) / size_px

    def reach_px(self, size_px: float) -> int:
        return int(np.ceil(4.5 * size_px))


def get_psf(name: str) -> PSF:
    """The PSF family by name ("gaussian")."""
    if name != "gaussian":
        raise ValueError(f"psf: expected 'gaussian', got {name!r} (optics.psf)")
    return GaussianPSF()


@dataclass(frozen=True, eq=False)
class PSFBasis:
    """Distances and images that span a PSF family up to a size; see the module's docstring.

    Attributes:
        psf: the family.
        distances_sq: (L,) squared distances q_l^2 in pixels.
        quadrants: (L, R+1, R+1) the images B_l for offsets >= 0; they are even in both axes and 0 at the centre, whose
            weight K_s(0) is applied exactly.
        error: largest L1 error of any member relative to its mass, measured over the sampled sizes.
    """

    psf: PSF
    distances_sq: np.ndarray
    quadrants: np.ndarray
    error: float

    @lru_cache(maxsize=32)  # noqa: B019 - bases are few, frozen and cached for the life of the process themselves
    def spectra(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(L, height, width//2+1) the real spectra of the images on a padded grid."""
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
    """The smallest basis that holds every member from the floor to ``size_limit_px``.

    Args:
        psf: the family.
        size_limit_px: largest size in pixels.
        reach_limit_px: half width beyond which offsets cannot occur (the image is no larger).
        tolerance: largest L1 error of a member relative to its mass.

    Returns:
        The basis, whose ``error`` is at most the tolerance.
    """
    reach = max(1, min(psf.reach_px(size_limit_px), reach_limit_px))
    offsets = np.arange(reach + 1)
    distance_sq = offsets[:, None] ** 2 + offsets[None, :] ** 2
    copies = np.where(offsets > 0, 2.0, 1.0)
    unique, index = np.unique(distance_sq, return_inverse=True)
    count = np.bincount(index.ravel(), (copies[:, None] * copies[None, :]).ravel())[1:]
    unique = unique[1:].astype(float)
    sizes = np.geomspace(SIZE_FLOOR_PX, max(size_limit_px, 2 * SIZE_FLOOR_PX), 192)[:, None]
    family = psf.weight(unique[None], sizes)

    candidates = np.unique(np.round(np.geomspace(1, len(unique), 400)).astype(int)) - 1
    scale = np.sqrt(count)
    q, r, pivots = scipy.linalg.qr(family[:, candidates] * scale[candidates], mode="economic", pivoting=True)
    projected = q.T @ (family * scale)

    def interpolant(rank: int) -> tuple[np.ndarray, np.ndarray, float]:
        chosen = candidates[pivots[:rank]]
        images = scipy.linalg.solve_triangular(r[:rank, :rank], projected[:rank])
        images = images * scale[chosen][:, None] / scale[None]
        error = (np.abs(family - family[:, chosen] @ images) @ count).max() / psf.mass
        return chosen, images, float(error)

    for rank in range(min(2, len(unique)), min(len(candidates), len(sizes)) + 1):
        chosen, images, error = interpolant(rank)
        if error <= tolerance:
            break
    quadrants = np.concatenate([np.zeros((rank, 1)), images], axis=1)[:, index.reshape(distance_sq.shape)]
    return PSFBasis(psf, unique[chosen], quadrants, error)
