"""The :class:`Network` protocol, its output, and building blocks that networks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sfdfd.errors import InputError, checked_int
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.render import Renderer, defocus_map_px
from sfdfd.plane_sweep.cost_volume import stack_defocus
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "Network",
    "NetworkModule",
    "NetworkOutput",
    "bounded_depth_m",
    "checked_size",
    "conv_relu",
    "depth_std_from_output",
    "expand_to_batch",
    "max_over_slices",
    "pad_to_multiple",
    "predict_output",
    "predict_stack",
    "prediction_from_output",
    "render_prediction",
    "run_network",
]


class NetworkOutput(NamedTuple):
    """The output of a network.

    Attributes:
        depth_m: (B,H,W) in metres.
        aif: (B,3,H,W) in [0, 1].
        std: (B,H,W) standard deviation of the normalized inverse depth; None where the network does not estimate it.
        scores: (B,D,H/2,W/2) logits of D normalized inverse depths evenly from 0 to 1, sides rounded up; in training only.

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
    """A network maps a focal stack and its focus distances to depth and an all-in-focus image.

    It takes any number of slices in any order, and any image size. It is a :class:`torch.nn.Module` or another
    callable, such as :data:`sfdfd.networks.classical.classical_network`.

    Examples:
        >>> from sfdfd.networks import DAIFNet, classical_network
        >>> isinstance(DAIFNet(), Network), isinstance(classical_network, Network)
        (True, True)
    """

    @property
    def requires_defocus(self) -> bool:
        """Whether the network is called with ``defocus`` (:class:`sfdfd.plane_sweep.cost_volume.StackDefocus`)."""

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


class NetworkModule(nn.Module):
    """The base class of trainable networks: a :class:`Network` that is a module."""

    requires_defocus: bool = False


def expand_to_batch(value: float | Tensor | None, images: Tensor, default: float) -> Float[Tensor, "b"]:
    """Return a number or a (B,) tensor as a (B,) tensor of the images' type; the default for None."""
    value = torch.as_tensor(default if value is None else value, dtype=images.dtype, device=images.device)
    return value.expand(images.shape[0]) if value.ndim == 0 else value


def bounded_depth_m(
    logit: Float[Tensor, "b h w"], near_m: Float[Tensor, "b"], far_m: Float[Tensor, "b"]
) -> Float[Tensor, "b h w"]:
    """Return depth in (near, far), positive by construction: the logistic of ``logit`` is the normalized inverse depth."""
    return depth_from_normalized(torch.sigmoid(logit), near_m, far_m)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeat the border of (...,H,W) at the bottom and right until both sides are multiples of ``multiple``."""
    height, width = images.shape[-2:]
    if torch.compiler.is_compiling():  # sizes may be symbolic, so no branch may depend on them
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
    """Raise an InputError unless a network has 1 to 1024 channels in 1 to 8 blocks, before memory is allocated."""
    checked_int(width, "width (network.width)", 1, 1024)
    checked_int(depth, "depth (network.depth)", 1, 8)


def max_over_slices(features: Tensor, slice_mask: Bool[Tensor, "b s"] | None) -> Tensor:
    """(B,S,C,H,W) -> (B,C,H,W), the largest value over the real slices, which does not depend on their order."""
    if slice_mask is not None:
        features = features.masked_fill(~slice_mask[:, :, None, None, None], -torch.inf)
    return features.amax(1)


def conv_relu(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))


def run_network(network: Callable[..., NetworkOutput], stack: FocalStack, **extra: Any) -> NetworkOutput:
    """Call a network (or its compiled module) on a stack, with extra keyword arguments; the batch is not padded."""
    stack = stack.in_full_precision()
    return network(
        stack.images,
        stack.focus_distances_m,
        near_m=stack.near_m,
        far_m=stack.far_m,
        slice_mask=stack.slice_mask,
        **extra,
    )


def predict_stack(
    network: Network, renderer: Renderer, stack: FocalStack, forward: Callable[..., NetworkOutput] | None = None
) -> Prediction:
    """Predict depth and AIF with a network and render the stack that they would produce; the batch is not padded.

    Args:
        network: one with :attr:`Network.requires_defocus` is called with how the renderer blurs the slices.
        renderer: the optics.
        stack: the input.
        forward: called in place of the network, of which it is the compiled form.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.optics import DefocusRenderer
        >>> from sfdfd.networks import classical_network
        >>> predict_stack(classical_network, DefocusRenderer(sigma_scale=0.5), stack).rendered.shape
        torch.Size([1, 5, 3, 48, 64])
    """
    return render_prediction(predict_output(network, renderer, stack, forward), renderer, stack)


def predict_output(
    network: Network, renderer: Renderer, stack: FocalStack, forward: Callable[..., NetworkOutput] | None = None
) -> NetworkOutput:
    """Predict as :func:`predict_stack`, without rendering.

    Raises:
        InputError: the slices differ in aperture, and the network is trained without being told the blur.
    """
    stack = stack.in_full_precision()
    if isinstance(network, NetworkModule) and not network.requires_defocus:
        refuse_aperture_bracket(stack)
    extra = {"defocus": stack_defocus(stack, renderer)} if network.requires_defocus else {}
    return run_network(forward or network, stack, **extra)


def refuse_aperture_bracket(stack: FocalStack) -> None:
    """Raise an InputError for slices that differ in aperture, for what knows focus distances alone."""
    if any(camera.brackets_aperture for camera in stack.camera):
        raise InputError(
            "the slices differ in f-number, and this network knows their focus distances alone; use the pretrained weights "
            "(checkpoint=pretrained) or a plane sweep (checkpoint=null)"
        )


def depth_std_from_output(output: NetworkOutput, stack: FocalStack) -> Float[Tensor, "b h w"] | None:
    """Return the standard deviation of the depth in metres, to first order from that of inverse depth."""
    if output.std is None:
        return None
    span = (1 / stack.near_m - 1 / stack.far_m)[:, None, None]
    return output.std * span * output.depth_m.square()


def prediction_from_output(output: NetworkOutput, stack: FocalStack) -> Prediction:
    """Return the prediction without a rendered stack."""
    stack = stack.in_full_precision()
    return Prediction(
        depth_m=output.depth_m,
        aif=output.aif,
        depth_std_m=depth_std_from_output(output, stack),
        defocus_px=defocus_map_px(output.depth_m, stack.focus_distances_m, stack.camera),
        rendered=None,
    )


def render_prediction(
    output: NetworkOutput, renderer: Renderer, stack: FocalStack, rendered: Tensor | None = None
) -> Prediction:
    """Return the prediction with the stack that its depth and AIF produce: ``rendered`` where that exists already."""
    stack = stack.in_full_precision()
    if rendered is None:
        rendered = renderer(output.aif, output.depth_m, stack.focus_distances_m, stack.camera)
    return replace(prediction_from_output(output, stack), rendered=rendered)
