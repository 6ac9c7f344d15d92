"""Image prior: gamma sum over both axes of mean sqrt(dI^2 + eps^2), the total variation of an image I."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.refinement.variables import Stage, Variables

__all__ = ["ImagePrior"]


class ImagePrior:
    """Total variation of the AIF, or of the hidden surface's colours; it keeps them from fitting noise and rounding.

    Args:
        weight: gamma.
        hidden: whether the term is of the hidden colours.
    """

    def __init__(self, weight: float, hidden: bool = False) -> None:
        self.weight, self.hidden = weight, hidden

    def __call__(self, variables: Variables, stage: Stage) -> Float[Tensor, "b"] | float:
        image = variables.hidden_colours if self.hidden else variables.aif
        return 0.0 if image is None else self.variation(image)

    def variation(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
        """Return the weighted total variation."""
        steps = (torch.diff(image, dim=axis) for axis in (-1, -2))
        return cast(Tensor, sum(self.weight * torch.sqrt(step * step + 1e-5).mean((1, 2, 3)) for step in steps))
