"""Losses without ground truth: functions of images and depth that return one number per image, and their weighted sum."""

from __future__ import annotations

from typing import Any, cast

import kornia
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from kornia.color import rgb_to_grayscale
from torch import Tensor, nn

from sfdfd.errors import checked_choice
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.registry import part
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "SelfSupervisedLoss",
    "aif_blur",
    "coarse_aif",
    "depth_smoothness",
    "photometric_error",
    "reconstruction",
    "sharpness",
]


def photometric_error(
    image: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"], *, ssim_weight: float = 0.85, border_px: int = 0
) -> Float[Tensor, "n"]:
    """Return ``w (1 - SSIM) + (1 - w) L1`` (CVPR 2023, reconstruction loss): SSIM 11x11 with sigma 1.5.

    Args:
        image, target: (N,3,H,W) RGB in [0, 1].
        ssim_weight: w in [0, 1].
        border_px: pixels at each border that are left out, because light from outside of a crop is missing there.

    Examples:
        >>> image = torch.rand(2, 3, 16, 16)
        >>> photometric_error(image, image).abs().max().item() < 1e-6
        True
    """
    error = ssim_weight * (1 - _ssim(image, target)) + (1 - ssim_weight) * (image - target).abs()
    if border_px:
        error = error[..., border_px:-border_px, border_px:-border_px]
    return error.mean((1, 2, 3))


def _ssim(image: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Return ``kornia.metrics.ssim(image, target, window_size=11)`` with a gradient that is 1.6 to 2 times as fast on a CPU.

    The window is two matrix products, and the sum of the variances one map. It computes in float32 at least, because a
    variance is a difference of nearly equal squares.
    """
    dtype = torch.promote_types(torch.promote_types(image.dtype, target.dtype), torch.float32)
    image, target = image.to(dtype), target.to(dtype)
    with torch.autocast(image.device.type, enabled=False):
        rows, columns = (_window(size, dtype, image.device) for size in image.shape[-2:])
        maps = torch.stack([image, target, image.square() + target.square(), image * target])
        first, second, squares, product = (rows @ (maps @ columns.T)).unbind()
    means, mean = first.square() + second.square(), first * second
    similar = (2 * mean + 0.01**2) * (2 * (product - mean) + 0.03**2)
    return similar / ((means + 0.01**2) * (squares - means + 0.03**2) + 1e-12)


def _window(size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n n"]:
    """Return the Gaussian blur of a line of pixels, reflected at its ends, as a matrix."""
    kernel = kornia.filters.get_gaussian_kernel1d(11, 1.5, dtype=dtype, device=device)
    ones = torch.eye(size, dtype=dtype, device=device)[:, None]
    return F.conv1d(F.pad(ones, (5, 5), mode="reflect"), kernel[None])[:, 0].T.contiguous()


def reconstruction(
    rendered: Float[Tensor, "b s 3 h w"],
    stack: Float[Tensor, "b s 3 h w"],
    slice_mask: Bool[Tensor, "b s"],
    *,
    ssim_weight: float = 0.85,
    border_px: int = 0,
) -> Float[Tensor, "b"]:
    """:func:`photometric_error` between the rendered and the input stack, averaged over the real slices."""
    error = photometric_error(
        rendered.flatten(0, 1), stack.flatten(0, 1), ssim_weight=ssim_weight, border_px=border_px
    ).unflatten(0, slice_mask.shape)
    return torch.where(slice_mask, error, 0.0).sum(1) / slice_mask.sum(1)


def coarse_aif(
    stack: Float[Tensor, "b s 3 h w"], defocus_px: Float[Tensor, "b s h w"], slice_mask: Bool[Tensor, "b s"]
) -> Float[Tensor, "b 3 h w"]:
    """Take at each pixel the slice with the smallest blur under the predicted depth (CVPR 2023, "coarse AIF")."""
    blur = defocus_px.detach().abs().masked_fill(~slice_mask[:, :, None, None], torch.inf)
    index = blur.argmin(1)[:, None, None].expand(-1, 1, 3, -1, -1)
    return stack.gather(1, index).squeeze(1)


def aif_blur(image: Float[Tensor, "b 3 h w"], *, normalisation: str = "variance") -> Float[Tensor, "b"]:
    """Return the blurriness of the grey image, ``-.25 log(sum(LoG^2) / n + 1e-8)``; LoG 7x7 with sigma 1; lower is sharper.

    Args:
        image: (B,3,H,W) RGB in [0, 1].
        normalisation: of n. "variance": sum((x - mean x)^2) + 1, invariant to contrast; "released": HW - mean(x)^2, as in
            DEReD's code.
    """
    gray = rgb_to_grayscale(image)
    offsets = torch.arange(-3, 4, dtype=gray.dtype, device=gray.device)
    square = offsets[:, None] ** 2 + offsets[None, :] ** 2
    kernel = (square - 2) * torch.exp(-square / 2)
    kernel = kernel - kernel.mean()
    log = F.conv2d(F.pad(gray, (3, 3, 3, 3), mode="replicate"), kernel[None, None])
    energy = log.square().sum((1, 2, 3))
    mean = gray.mean((1, 2, 3), keepdim=True)
    if normalisation == "variance":
        n = (gray - mean).square().sum((1, 2, 3)) + 1.0
    elif normalisation == "released":
        n = gray[0].numel() - mean.flatten() ** 2
    else:
        raise ValueError(f"normalisation: expected 'variance' or 'released', got {normalisation!r}")
    return -0.25 * torch.log(energy / n + 1e-8)


def depth_smoothness(value: Float[Tensor, "b h w"], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Return the edge-aware smoothness ``mean(|dx v| exp(-|dx I|)) + mean(|dy v| exp(-|dy I|))``, from Kornia, per image.

    Args:
        value: (B,H,W) depth or inverse depth, on a scale of about 1.
        image: (B,3,H,W) the guide, RGB in [0, 1].
    """
    pairs = zip(value[:, None].split(1), image.split(1), strict=True)
    return torch.stack([kornia.losses.inverse_depth_smoothness_loss(one, guide) for one, guide in pairs])


def sharpness(
    rendered: Float[Tensor, "b s 3 h w"], stack: Float[Tensor, "b s 3 h w"], slice_mask: Bool[Tensor, "b s"]
) -> Float[Tensor, "b"]:
    """Return the mean difference of local sharpness (|Laplacian| of grey) between rendered and input slices.

    The paper's recipe has such a term, which its released code gives weight 0.
    """

    def measure(images: Tensor) -> Tensor:
        return kornia.filters.laplacian(rgb_to_grayscale(images.flatten(0, 1)), 3).abs()

    error = (measure(rendered) - measure(stack)).abs().mean((1, 2, 3)).unflatten(0, slice_mask.shape)
    return torch.where(slice_mask, error, 0.0).sum(1) / slice_mask.sum(1)


@part
class SelfSupervisedLoss(nn.Module):
    """The weighted sum of all terms; a term of weight 0 is not computed.

    Args:
        reconstruction: weight of the rendered against the input stack.
        aif_consistency: weight of the AIF against the coarse AIF, with the same photometric error.
        aif_blur: weight of the AIF's blurriness.
        smoothness: weight of edge-aware depth smoothness.
        sharpness: weight of the rendered slices' sharpness against the input's (0 as released).
        ssim_weight: share of 1 - SSIM in the photometric error.
        blur_normalisation: "variance" or "released", see :func:`aif_blur`.
        smoothness_domain: "inverse" (inverse depth scaled to [0, 1], in which blur is linear) or "depth" (depth in
            tens of metres, as released).
        smoothness_factor: 2.5 in the released code, in front of the mean of both directions.
        border_px: see :func:`photometric_error`.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.networks import DAIFNet
        >>> from sfdfd.networks.interface import predict_stack
        >>> from sfdfd.optics import DefocusRenderer
        >>> prediction = predict_stack(DAIFNet(), DefocusRenderer(sigma_scale=0.5), stack)
        >>> terms = SelfSupervisedLoss()(prediction, stack.without_truth())
        >>> terms["total"].shape
        torch.Size([1])
    """

    def __init__(
        self,
        reconstruction: float = 1.0,
        aif_consistency: float = 0.1,
        aif_blur: float = 0.0,
        smoothness: float = 0.01,
        sharpness: float = 0.0,
        ssim_weight: float = 0.85,
        blur_normalisation: str = "variance",
        smoothness_domain: str = "inverse",
        smoothness_factor: float = 1.0,
        border_px: int = 0,
    ) -> None:
        super().__init__()
        checked_choice(smoothness_domain, "smoothness_domain (loss.smoothness_domain)", ("inverse", "depth"))
        checked_choice(blur_normalisation, "blur_normalisation (loss.blur_normalisation)", ("variance", "released"))
        self.weights = {
            "reconstruction": reconstruction,
            "aif_consistency": aif_consistency,
            "aif_blur": aif_blur,
            "smoothness": smoothness,
            "sharpness": sharpness,
        }
        self.ssim_weight, self.border_px = ssim_weight, border_px
        self.blur_normalisation = blur_normalisation
        self.smoothness_domain, self.smoothness_factor = smoothness_domain, smoothness_factor

    requires_rendered_in_training = True

    def forward(
        self, prediction: Prediction, stack: FocalStack, renderer: object = None
    ) -> dict[str, Float[Tensor, "b"]]:
        """Return all terms per image, unweighted, and their weighted sum as ``total``; the batch is not padded.

        The renderer that other losses need is not used: the prediction carries the rendered stack.
        """
        prediction, stack = prediction.in_full_precision(), stack.in_full_precision()
        photometric: dict[str, Any] = {"ssim_weight": self.ssim_weight, "border_px": self.border_px}
        rendered = cast(Tensor, prediction.rendered)  # training always renders
        images, aif, mask = stack.images, prediction.aif, stack.slice_mask

        def coarse() -> Tensor:
            return coarse_aif(images, prediction.defocus_px, mask).detach()

        def smooth() -> Tensor:
            if self.smoothness_domain == "depth":
                value = prediction.depth_m / 10.0
            else:
                value = normalized_inverse_depth(prediction.depth_m, stack.near_m, stack.far_m)
            return self.smoothness_factor * depth_smoothness(value, aif.detach())

        terms = {
            "reconstruction": lambda: reconstruction(rendered, images, mask, **photometric),
            "aif_consistency": lambda: photometric_error(aif, coarse(), **photometric),
            "aif_blur": lambda: aif_blur(aif, normalisation=self.blur_normalisation),
            "smoothness": smooth,
            "sharpness": lambda: sharpness(rendered, images, mask),
        }
        values = {name: terms[name]() for name, weight in self.weights.items() if weight}
        values["total"] = cast(Tensor, sum(self.weights[name] * value for name, value in values.items()))
        return values
