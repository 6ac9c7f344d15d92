"""What a data set yields before any camera has seen it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Scene"]


@dataclass(frozen=True, eq=False)
class Scene:
    """An all-in-focus image and its depth.

    Attributes:
        aif: (3,H,W) RGB in [0, 1].
        depth_m: (H,W) metres > 0, also where it is not known.
        valid: (H,W) true where the depth is known; None: everywhere.
        name: for tables and pictures.
        seed: tells the scene's own random numbers (sensor noise) from those of the others.
    """

    aif: Float[Tensor, "3 h w"]
    depth_m: Float[Tensor, "h w"]
    valid: Bool[Tensor, "h w"] | None = None
    name: str = ""
    seed: int = 0

    @property
    def known(self) -> Bool[Tensor, "h w"]:
        """Where the depth is known."""
        return torch.ones_like(self.depth_m, dtype=torch.bool) if self.valid is None else self.valid
