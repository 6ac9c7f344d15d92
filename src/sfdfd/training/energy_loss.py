"""The energy that refinement minimizes, as a self-supervised loss: amortized refinement.

    L(p) = min_I E(p, I),   dL/dp = dE/dp at the best I

E is :mod:`sfdfd.refinement.energy`: a data term with outliers and priors of second order that an image edge releases. A loss
that renders the network's own AIF compares two errors at once. An AIF that was blended at a wrong depth explains the stack
best at that wrong depth, so depth stays where it is. Here the AIF follows depth first, by some steps of descent, and then
depth gets its gradient (variable projection: Golub and Pereyra, SIAM Journal on Numerical Analysis 10, 1973). The AIF's own
change does not count, by the envelope theorem. The best AIF is also the target of the network's AIF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfdfd.errors import checked_int, checked_number
from sfdfd.measures.losses import reconstruction
from sfdfd.optics.render import Renderer
from sfdfd.refinement.energy import Energy
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.settings import checked_settings, settings_for
from sfdfd.refinement.variables import Variables
from sfdfd.registry import part
from sfdfd.stack import FocalStack, Prediction

__all__ = ["EnergyLoss"]


@part
class EnergyLoss(nn.Module):
    """The energy of a predicted depth with the AIF that suits it best, and the distance of the predicted AIF from that one.

    In training the terms are "energy", of the depth with an AIF that ``aif_steps`` steps of Adam made from the predicted
    one, and "aif", the mean absolute difference of the two. In validation they are "energy", of the prediction as it is (the
    "total" there), and "reconstruction", as of :class:`sfdfd.measures.losses.SelfSupervisedLoss`.

    Args:
        energy, aif: weights of the terms.
        aif_steps, aif_lr: steps of descent in the AIF, and their learning rate; with 0 steps the energy is that of the
            prediction, and the network's AIF is trained by it.
        refine: settings of refinement that differ from those that suit the renderer
            (:class:`sfdfd.refinement.settings.RefinementSettings`).
        ssim_weight: of "reconstruction", see :func:`sfdfd.measures.losses.photometric_error`.
        border_px: pixels at each border whose residuals do not count, because light from beyond it is missing.

    Raises:
        InputError: a value is wrong.

    Examples:
        >>> from sfdfd.networks import DAIFNet
        >>> from sfdfd.networks.interface import predict_stack
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack, renderer = example_stack().without_truth(), DefocusRenderer(sigma_scale=0.5)
        >>> prediction = predict_stack(DAIFNet(), renderer, stack)
        >>> sorted(EnergyLoss(aif_steps=2)(prediction, stack, renderer))
        ['aif', 'energy', 'total']
    """

    requires_rendered_in_training = False

    def __init__(
        self,
        energy: float = 100.0,
        aif: float = 1.0,
        aif_steps: int = 5,
        aif_lr: float = 0.01,
        refine: Mapping[str, Any] | None = None,
        ssim_weight: float = 0.85,
        border_px: int = 4,
    ) -> None:
        super().__init__()
        self.weights = {
            "energy": checked_number(energy, "energy (loss.energy)", least=0),
            "aif": checked_number(aif, "aif (loss.aif)", least=0),
        }
        self.aif_steps = checked_int(aif_steps, "aif_steps (loss.aif_steps)", 0)
        self.aif_lr = checked_number(aif_lr, "aif_lr (loss.aif_lr)", least=0)
        self.settings, self.ssim_weight = checked_settings(refine or {}), ssim_weight
        self.border_px = checked_int(border_px, "border_px (loss.border_px)", 0)

    def forward(self, prediction: Prediction, stack: FocalStack, renderer: Renderer) -> dict[str, Float[Tensor, "b"]]:
        """Return all terms per image, unweighted, and their weighted sum as ``total``; the batch is not padded."""
        prediction, stack = prediction.in_full_precision(), stack.in_full_precision()
        with torch.autocast(stack.images.device.type, enabled=False):
            if self.training:
                return self._training_terms(prediction, stack, renderer)
            return self._validation_terms(prediction, stack, renderer)

    def _training_terms(self, prediction: Prediction, stack: FocalStack, renderer: Renderer) -> dict[str, Tensor]:
        energy = self.energy_of(stack, renderer)
        variables = _variables(energy, prediction)
        if self.aif_steps:
            variables = variables._replace(aif=self.best_aif(energy, variables))
        terms = {"energy": energy(variables), "aif": (prediction.aif - variables.aif.detach()).abs().mean((1, 2, 3))}
        total = self.weights["energy"] * terms["energy"] + self.weights["aif"] * terms["aif"]
        return {**terms, "total": total}

    def energy_of(self, stack: FocalStack, renderer: Renderer) -> Energy:
        """Return the energy of a stack, in which residuals at the border do not count."""
        if self.border_px:
            covered, px = stack.coverage().clone(), self.border_px
            covered[..., :px, :] = covered[..., -px:, :] = covered[..., :px] = covered[..., -px:] = 0
            stack = replace(stack, covered=covered)
        return Energy.at_full_size(stack, renderer, settings_for(renderer, self.settings))

    def best_aif(self, energy: Energy, variables: Variables) -> Float[Tensor, "b 3 h w"]:
        """Return the AIF that suits a depth, without gradient: some steps of Adam from the AIF that is given."""
        variables = variables._replace(inverse_depth_01=variables.inverse_depth_01.detach())
        aif = variables.aif.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([aif], self.aif_lr)
        with torch.enable_grad():
            for _ in range(self.aif_steps):
                (aif.grad,) = torch.autograd.grad(energy(variables._replace(aif=aif)).sum(), aif)
                optimizer.step()
        return aif.detach().clamp(0, 1)

    def _validation_terms(self, prediction: Prediction, stack: FocalStack, renderer: Renderer) -> dict[str, Tensor]:
        assert prediction.rendered is not None
        compared = reconstruction(
            prediction.rendered, stack.images, stack.slice_mask, ssim_weight=self.ssim_weight, border_px=self.border_px
        )
        energy_of_stack = self.energy_of(stack, renderer)
        energy = energy_of_stack(_variables(energy_of_stack, prediction))
        return {"reconstruction": compared, "energy": energy, "total": self.weights["energy"] * energy}


def _variables(energy: Energy, prediction: Prediction) -> Variables:
    """Return a prediction as variables of an energy, with the lens as it is told."""
    return energy.variables(prediction.depth_m, prediction.aif, Lens((), len(prediction.aif), like=prediction.aif))
