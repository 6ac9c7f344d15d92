"""What every network shares: its output and what is made of it, padding, pooling over slices and bounded depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sfdfd.optics.render import DefocusRenderer, defocus_map_px
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "NetworkOutput",
    "bounded_depth_m",
    "convolution",
    "max_over_slices",
    "pad_to_multiple",
    "per_sample",
    "position_between",
    "predict_stack",
]


class NetworkOutput(NamedTuple):
    """depth_m (B,H,W) in metres and aif (B,3,H,W) in [0, 1]."""

    depth_m: Float[Tensor, "b h w"]
    aif: Float[Tensor, "b 3 h w"]


def per_sample(value: float | Tensor, images: Tensor) -> Tensor:
    """A number or a (B,) tensor as a (B,) tensor beside ``images``."""
    value = torch.as_tensor(value, dtype=images.dtype, device=images.device)
    return value.expand(images.shape[0]) if value.ndim == 0 else value


def bounded_depth_m(
    logit: Float[Tensor, "b h w"], near_m: Float[Tensor, "b"], far_m: Float[Tensor, "b"]
) -> Float[Tensor, "b h w"]:
    """Depth in (near, far), positive by construction: the logistic of ``logit`` measures inverse depth, 1 is near."""
    lowest, highest = 1.0 / far_m[:, None, None], 1.0 / near_m[:, None, None]
    return 1.0 / (lowest + (highest - lowest) * torch.sigmoid(logit))


def position_between(
    distance_m: Float[Tensor, "b s"], near_m: Float[Tensor, "b"], far_m: Float[Tensor, "b"]
) -> Float[Tensor, "b s"]:
    """Where distances lie between far (0) and near (1), linear in inverse distance; beyond them outside [0, 1]."""
    lowest, highest = 1 / far_m[:, None], 1 / near_m[:, None]
    return (1 / distance_m - lowest) / (highest - lowest)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """(...,H,W) replicated at the bottom and right until both sides divide by ``multiple``."""
    height, width = images.shape[-2:]
    if torch.compiler.is_compiling():  # sizes may be symbols, of which nobody can ask whether they divide
        rows, columns = (
            torch.arange((side + multiple - 1) // multiple * multiple, device=images.device).clamp(max=side - 1)
            for side in (height, width)
        )
        return images.index_select(-2, rows).index_select(-1, columns)
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return images
    flat = images.reshape(-1, 1, height, width)
    return F.pad(flat, (0, right, 0, bottom), mode="replicate").reshape(
        *images.shape[:-2], height + bottom, width + right
    )


def max_over_slices(features: Tensor, slice_mask: Bool[Tensor, "b s"] | None) -> Tensor:
    """(B,S,C,H,W) -> (B,C,H,W), the largest value over the real slices: it does not depend on their order."""
    if slice_mask is not None:
        features = features.masked_fill(~slice_mask[:, :, None, None, None], -torch.inf)
    return features.amax(1)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))


def predict_stack(network: Callable[..., NetworkOutput], renderer: DefocusRenderer, stack: FocalStack) -> Prediction:
    """Predict depth and AIF with the network and render the stack they would produce; padded images size by size."""
    if stack.size_px is not None:
        parts = [(indices, predict_stack(network, renderer, part)) for indices, part in stack.parts()]
        return Prediction.joined(parts, *stack.images.shape[-2:])
    output = network(
        stack.images,
        stack.focus_distances_m,
        near_m=stack.near_m,
        far_m=stack.far_m,
        slice_mask=stack.slice_mask,
    )
    return Prediction(
        depth_m=output.depth_m,
        aif=output.aif,
        defocus_px=defocus_map_px(output.depth_m, stack.focus_distances_m, stack.camera),
        rendered=renderer(output.aif, output.depth_m, stack.focus_distances_m, stack.camera),
    )
