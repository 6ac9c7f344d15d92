"""Sensor model: motion, exposure and noise of synthetic stacks."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import checked_number

__all__ = ["SensorModel"]


@dataclass(frozen=True)
class SensorModel:
    """Random disturbances of each slice of a synthetic stack; the default changes nothing.

    Attributes:
        read_std: standard deviation of the read noise, white = 1.
        full_well: electrons at white. Shot noise of a value v has variance v / full_well (Gaussian approximation of
            Poisson); None: no shot noise.
        shift_px: standard deviation of each slice's shift, in pixels, horizontally and vertically.
        scale_std: standard deviation of each slice's magnification around 1 (residual focus breathing).
        exposure_std: standard deviation of each slice's gain around 1.
    """

    read_std: float = 0.0
    full_well: float | None = None
    shift_px: float = 0.0
    scale_std: float = 0.0
    exposure_std: float = 0.0

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if not (value is None and key == "full_well"):
                checked_number(value, f"{key} (data.sensor.{key})", least=None if key == "full_well" else 0)

    @property
    def disturbs(self) -> bool:
        """Whether the model changes images at all."""
        return self != SensorModel()

    def __call__(self, images: Float[Tensor, "s 3 h w"], generator: torch.Generator) -> Float[Tensor, "s 3 h w"]:
        """Disturb slices (S,3,H,W) in [0, 1]; results are not clamped. The generator may be on any device."""
        slices, _, height, width = images.shape

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=generator.device).to(images.device)

        if self.shift_px or self.scale_std:
            scale = 1 + self.scale_std * normal(slices)
            shift = self.shift_px * normal(slices, 2) * 2 / images.new_tensor([width, height])
            matrix = images.new_zeros(slices, 2, 3)
            matrix[:, 0, 0] = matrix[:, 1, 1] = scale
            matrix[:, :, 2] = shift
            grid = F.affine_grid(matrix, [slices, 3, height, width], align_corners=False)
            images = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
        if self.exposure_std:
            images = images * (1 + self.exposure_std * normal(slices)).clamp_min(0.1)[:, None, None, None]
        variance = torch.full_like(images, self.read_std**2)
        if self.full_well is not None:
            variance = variance + images.clamp_min(0) / self.full_well
        if self.read_std or self.full_well is not None:
            images = images + variance.sqrt() * normal(*images.shape)
        return images
