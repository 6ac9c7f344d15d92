"""A scene in layers: the visible surface, and the surfaces that it hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["LayeredScene", "LayeredScenes"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class LayeredScene:
    """Layers of colour and inverse depth, seen through a pinhole; layer 0 is the visible surface.

    Attributes:
        colours: (L,H,W,3) uint8 sRGB codes.
        inverse_depth: (L,H,W) float32 inverse depth in 1/m through pixel centres, >= 0, and 0 where a layer has no surface.
        is_present: (L,H,W) where a layer has a surface; true everywhere for layer 0.
        kind: of scene.
    """

    colours: Array
    inverse_depth: Array
    is_present: Array
    kind: str = ""

    @property
    def range_1_m(self) -> tuple[float, float]:
        """Return the smallest and the largest inverse depth in 1/m of all layers."""
        values = self.inverse_depth[self.is_present]
        return float(values.min()), float(values.max())


class LayeredScenes(Protocol):
    """Scenes of known number, read by index: a bank, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> LayeredScene: ...
