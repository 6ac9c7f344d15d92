"""A scene: an all-in-focus image with depth."""

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
        depth_m: (H,W) metres > 0, filled where unknown.
        valid: (H,W) true where the depth is known; None: everywhere.
        name: for tables and pictures.
        seed: of the scene's random numbers (sensor noise).
    """

    aif: Float[Tensor, "3 h w"]
    depth_m: Float[Tensor, "h w"]
    valid: Bool[Tensor, "h w"] | None = None
    name: str = ""
    seed: int = 0

    @property
    def known(self) -> Bool[Tensor, "h w"]:
        """Return (H,W) bool: true where the depth is known."""
        return torch.ones_like(self.depth_m, dtype=torch.bool) if self.valid is None else self.valid
