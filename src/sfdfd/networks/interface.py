"""What every network is, and what networks share: output, padding, pooling over slices and bounded depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sfdfd.errors import checked_whole
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.plane_sweep.cost_volume import defocus_of
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "Network",
    "NetworkOutput",
    "bounded_depth_m",
    "checked_size",
    "convolution",
    "depth_std_from_output",
    "estimate",
    "max_over_slices",
    "pad_to_multiple",
    "per_sample",
    "predict_stack",
    "rendered",
]


class NetworkOutput(NamedTuple):
    """depth_m (B,H,W) in metres, aif (B,3,H,W) in [0, 1], and where a network knows it std (B,H,W): the standard
    deviation of the normalized inverse depth between far (0) and near (1); in training also scores (B,D,H/2,W/2), the
    logits of D positions evenly from 0 to 1, sides rounded up.

    Examples:
        >>> output = NetworkOutput(torch.ones(1, 2, 2), torch.zeros(1, 3, 2, 2))
        >>> output.std is None
        True
    """

    depth_m: Float[Tensor, "b h w"]
    aif: Float[Tensor, "b 3 h w"]
    std: Float[Tensor, "b h w"] | None = None
    scores: Float[Tensor, "b d y x"] | None = None


@runtime_checkable
class Network(Protocol):
    """A focal stack and its focus distances in, depth and an all-in-focus image out: any number of slices, in any order,
    any image size. An :class:`torch.nn.Module`, or a function such as :func:`sfdfd.networks.classical.classical_network`.

    Examples:
        >>> from sfdfd.networks import DAIFNet, classical_network
        >>> isinstance(DAIFNet(), Network), isinstance(classical_network, Network)
        (True, True)
    """

    def __call__(
        self,
        images: Float[Tensor, "b s 3 h w"],
        focus_distances_m: Float[Tensor, "b s"] | Float[Tensor, "s"],
        *,
        near_m: float | Tensor,
        far_m: float | Tensor,
        slice_mask: Bool[Tensor, "b s"] | None = None,
    ) -> NetworkOutput:
        """Predict from (B,S,3,H,W) images in [0, 1] and (B,S) distances in metres; ``slice_mask``: true for real slices."""


def per_sample(value: float | Tensor, images: Tensor) -> Tensor:
    """A number or a (B,) tensor as a (B,) tensor beside ``images``."""
    value = torch.as_tensor(value, dtype=images.dtype, device=images.device)
    return value.expand(images.shape[0]) if value.ndim == 0 else value


def bounded_depth_m(
    logit: Float[Tensor, "b h w"], near_m: Float[Tensor, "b"], far_m: Float[Tensor, "b"]
) -> Float[Tensor, "b h w"]:
    """Depth in (near, far), positive by construction: the logistic of ``logit`` measures inverse depth, 1 is near."""
    return depth_from_normalized(torch.sigmoid(logit), near_m, far_m)


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


def checked_size(width: int, depth: int) -> None:
    """Refuse what no machine could hold, wherever it comes from.

    Raises:
        InputError: not 1 to 1024 channels in 1 to 8 blocks.
    """
    checked_whole(width, "width (network.width)", 1, 1024)
    checked_whole(depth, "depth (network.depth)", 1, 8)


def max_over_slices(features: Tensor, slice_mask: Bool[Tensor, "b s"] | None) -> Tensor:
    """(B,S,C,H,W) -> (B,C,H,W), the largest value over the real slices: it does not depend on their order."""
    if slice_mask is not None:
        features = features.masked_fill(~slice_mask[:, :, None, None, None], -torch.inf)
    return features.amax(1)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))


def run_network(network: Callable[..., NetworkOutput], stack: FocalStack, **known: Any) -> NetworkOutput:
    """What a network answers to a stack (or its module, compiled), given what else it asks for; the batch is not padded."""
    stack = stack.in_full_precision()
    return network(
        stack.images,
        stack.focus_distances_m,
        near_m=stack.near_m,
        far_m=stack.far_m,
        slice_mask=stack.slice_mask,
        **known,
    )


def predict_stack(
    network: Network, renderer: Renderer, stack: FocalStack, forward: Callable[..., NetworkOutput] | None = None
) -> Prediction:
    """Predict depth and AIF with the network and render the stack they would produce; the batch is not padded.

    Args:
        network: one with ``requires_defocus`` true is told how the slices are blurred, as ``defocus``
            (:class:`sfdfd.plane_sweep.cost_volume.Defocus`).
        forward: called in the network's place (the same, compiled).

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.networks import classical_network
        >>> predict_stack(classical_network, DefocusRenderer(sigma_scale=0.5), stack).rendered.shape
        torch.Size([1, 5, 3, 48, 64])
    """
    return rendered(estimate(network, renderer, stack, forward), renderer, stack)


def estimate(
    network: Network, renderer: Renderer, stack: FocalStack, forward: Callable[..., NetworkOutput] | None = None
) -> NetworkOutput:
    """What the network says, as of :func:`predict_stack`, without rendering it."""
    stack = stack.in_full_precision()
    known = {"defocus": defocus_of(stack, renderer)} if getattr(network, "requires_defocus", False) else {}
    return run_network(forward or network, stack, **known)


def depth_std_from_output(output: NetworkOutput, stack: FocalStack) -> Float[Tensor, "b h w"] | None:
    """Standard deviation of the depth in metres: the std of inverse depth, to first order."""
    if output.std is None:
        return None
    span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
    return output.std * span * output.depth_m.square()


def rendered(output: NetworkOutput, renderer: Renderer, stack: FocalStack, known: Tensor | None = None) -> Prediction:
    """The prediction that this depth and AIF are, with the stack they would have produced: ``known``, where that is rendered
    already."""
    stack = stack.in_full_precision()
    depth_m, aif = output.depth_m, output.aif
    return Prediction(
        depth_m=depth_m,
        aif=aif,
        depth_std_m=depth_std_from_output(output, stack),
        defocus_px=defocus_map_px(depth_m, stack.focus_distances_m, stack.camera),
        rendered=renderer(aif, depth_m, stack.focus_distances_m, stack.camera) if known is None else known,
    )
