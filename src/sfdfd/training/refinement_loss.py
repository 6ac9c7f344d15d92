"""A self-supervised loss that teaches what refinement finds: amortized refinement.

The renderer's gradient with respect to depth reaches a few pixels, and vanishes in plain regions. A training on it makes the
rendered stack better and depth hardly. Refinement goes further: some steps of descent on its energy, whose priors carry depth
into plain regions, move the network's own answer. The moved answer is the target. It is made of the stack alone, anew in each
step, so it gets better as the network does. Where refinement no longer moves an answer, the loss vanishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfdfd.errors import InputError, checked_int, checked_number
from sfdfd.measures.losses import reconstruction
from sfdfd.networks.interface import NetworkOutput
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.optics.render import Renderer
from sfdfd.refinement.energy import energy_of
from sfdfd.refinement.refiner import Refiner
from sfdfd.registry import part
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training.distillation import distillation_terms
from sfdfd.training.distillation_scenes import TeacherPrediction

__all__ = ["RefinementLoss"]

TERMS = ("log_depth", "inverse_depth_01", "aif", "aif_log", "scores", "std")


@part
class RefinementLoss(nn.Module):
    """The distance of a prediction from what some steps of refinement make of it.

    In training the terms are those of :func:`sfdfd.training.distillation.distillation_terms`, with the refined prediction
    as the target. In validation they are "reconstruction", as of :class:`sfdfd.measures.losses.SelfSupervisedLoss`, and
    "energy" (:func:`sfdfd.refinement.energy.energy_of`), which is the "total" there.

    Args:
        steps: of refinement in each training step.
        weights: of the terms; a term that is not named has weight 0.
        refine: settings of refinement that differ from those that suit the renderer
            (:class:`sfdfd.refinement.settings.RefinementSettings`). Few steps need high rates.
        ssim_weight, border_px: of "reconstruction", see :func:`sfdfd.measures.losses.photometric_error`; pixels within
            ``border_px`` of a border are no targets.

    Raises:
        InputError: a value is wrong.

    Examples:
        >>> from sfdfd.networks import DAIFNet
        >>> from sfdfd.networks.interface import predict_stack
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack, renderer = example_stack().without_truth(), DefocusRenderer(sigma_scale=0.5)
        >>> prediction = predict_stack(DAIFNet(), renderer, stack)
        >>> sorted(RefinementLoss(steps=2)(prediction, stack, renderer))
        ['aif', 'inverse_depth_01', 'log_depth', 'total']
    """

    requires_rendered_in_training = False

    def __init__(
        self,
        steps: int = 12,
        weights: Mapping[str, float] | None = None,
        refine: Mapping[str, Any] | None = None,
        ssim_weight: float = 0.85,
        border_px: int = 4,
    ) -> None:
        super().__init__()
        self.weights = dict.fromkeys(TERMS, 0.0) | dict(weights or {"log_depth": 1.0, "inverse_depth_01": 1.0, "aif": 1.0})
        for key, value in self.weights.items():
            if key not in TERMS:
                raise InputError(f"loss.weights: no term {key!r}; there are {', '.join(TERMS)}")
            checked_number(value, f"loss.weights.{key}", least=0)
        self.refiner = Refiner(steps=checked_int(steps, "steps (loss.steps)", 1), **(refine or {}))
        self.ssim_weight = ssim_weight
        self.border_px = checked_int(border_px, "border_px (loss.border_px)", 0)

    def forward(
        self, prediction: Prediction, stack: FocalStack, renderer: Renderer
    ) -> dict[str, Float[Tensor, "b"]]:
        """Return all terms per image, unweighted, and their weighted sum as ``total``; the batch is not padded."""
        prediction, stack = prediction.in_full_precision(), stack.in_full_precision()
        with torch.autocast(stack.images.device.type, enabled=False):
            return (self._distance if self.training else self._energy)(prediction, stack, renderer)

    def _distance(self, prediction: Prediction, stack: FocalStack, renderer: Renderer) -> dict[str, Tensor]:
        std_01 = None
        if prediction.depth_std_m is not None:
            span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
            std_01 = prediction.depth_std_m / prediction.depth_m.square() / span
        output = NetworkOutput(prediction.depth_m, prediction.aif, std_01, prediction.scores)
        target = self.target(prediction, stack, renderer)
        return distillation_terms(output, target, stack.near_m, stack.far_m, self.weights)

    def target(self, prediction: Prediction, stack: FocalStack, renderer: Renderer) -> TeacherPrediction:
        """Return what refinement makes of a prediction, without gradient; the weight is 0 at the border."""
        refined = self.refiner(stack, renderer, prediction.depth_m.detach(), prediction.aif.detach())
        inverse_depth_01 = normalized_inverse_depth(refined.depth_m, stack.near_m, stack.far_m).clamp(0, 1)
        weight, px = torch.ones_like(inverse_depth_01), self.border_px
        if px:
            weight[:, :px] = weight[:, -px:] = weight[..., :px] = weight[..., -px:] = 0
        return TeacherPrediction(inverse_depth_01.detach(), refined.aif.detach(), weight)

    def _energy(self, prediction: Prediction, stack: FocalStack, renderer: Renderer) -> dict[str, Tensor]:
        assert prediction.rendered is not None
        compared = reconstruction(
            prediction.rendered, stack.images, stack.slice_mask, ssim_weight=self.ssim_weight, border_px=self.border_px
        )
        energy = energy_of(stack, renderer, prediction.depth_m, prediction.aif)
        return {"reconstruction": compared, "energy": energy, "total": energy}
