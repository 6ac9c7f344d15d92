"""What happens to real photographs beside defocus: exposure, in-camera processing, a moving hand, rounded distances."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.filters import gaussian_blur2d
from torch import Tensor

__all__ = [
    "Disturbance", "disturb_images", "disturb_target", "encode_jpeg", "random_disturbance", "rounded_focus_m",
]  # fmt: skip


class Disturbance(NamedTuple):
    """Disturbances of a stack of S slices; the default disturbs nothing.

    Attributes:
        parallax_px: (S,2) by how much near moves against far in a slice, in x and y, because the hand moved.
        exposure: (S,3) factor on the codes of each slice and colour.
        gain: factor on all codes, AIF included, which clips highlights.
        sharpening: how much of the detail below a pixel is added (> 0) or, as by noise reduction, taken away (< 0).
        vignetting: by how much the corners are darker, in [0, 1).
        jpeg_quality: of the codec; 0 is no JPEG.
        rounded_focus: whether focus distances are told in whole centimetres.
    """

    parallax_px: Float[Tensor, "s 2"]
    exposure: Float[Tensor, "s 3"]
    gain: float = 1.0
    sharpening: float = 0.0
    vignetting: float = 0.0
    jpeg_quality: int = 0
    rounded_focus: bool = False

    @classmethod
    def none(cls, slices: int) -> Disturbance:
        """Return what disturbs nothing."""
        return cls(torch.zeros(slices, 2), torch.ones(slices, 3))


def random_disturbance(g: np.random.Generator, slices: int) -> Disturbance:
    """Draw disturbances, each rare, so that more than a third of all stacks has none."""
    drawn = Disturbance.none(slices)
    if g.random() < 0.12:
        std_px = float(g.uniform(0.2, 1.2))
        drawn = drawn._replace(parallax_px=torch.from_numpy(g.normal(0, std_px, (slices, 2))).float())
    if g.random() < 0.15:
        steps = g.normal(0, 0.03, (slices, 1)) + g.normal(0, 0.01, (slices, 3))
        drawn = drawn._replace(exposure=torch.from_numpy(np.exp(steps)).float())
    if g.random() < 0.12:
        drawn = drawn._replace(gain=float(g.uniform(1, 1.6)))
    if g.random() < 0.15:
        drawn = drawn._replace(sharpening=float(g.choice([g.uniform(0.2, 1.0), -g.uniform(0.2, 0.7)])))
    if g.random() < 0.1:
        drawn = drawn._replace(vignetting=float(g.uniform(0.05, 0.4)))
    if g.random() < 0.12:
        drawn = drawn._replace(jpeg_quality=int(g.integers(75, 97)))
    return drawn._replace(rounded_focus=bool(g.random() < 0.1))


def disturb_images(
    images: Float[Tensor, "s 3 h w"], inverse_depth_01: Float[Tensor, "h w"], disturbance: Disturbance
) -> Float[Tensor, "s 3 h w"]:
    """Return slices moved by parallax, exposed and processed; :func:`encode_jpeg` comes after the noise."""
    if bool(disturbance.parallax_px.any()):
        images = _moved(images, disturbance.parallax_px.to(images), inverse_depth_01)
    images = _processed(images, disturbance)
    return images * disturbance.exposure.to(images)[:, :, None, None]


def disturb_target(aif: Float[Tensor, "3 h w"], disturbance: Disturbance) -> Float[Tensor, "3 h w"]:
    """Return the AIF as the camera processes it: what all slices have in common."""
    return _processed(aif[None], disturbance)[0].clamp(0, 1)


def encode_jpeg(images: Float[Tensor, "s 3 h w"], quality: int) -> Float[Tensor, "s 3 h w"]:
    """Return images in [0, 1] after JPEG of a quality; 0 leaves them."""
    if not quality:
        return images
    coded = []
    for image in (images.clamp(0, 1) * 255).round().byte().cpu().permute(0, 2, 3, 1).numpy():
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        coded.append(torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    return torch.stack(coded).permute(0, 3, 1, 2).to(images) / 255


def rounded_focus_m(focus_m: Float[Tensor, "s"], focal_length_m: float) -> Float[Tensor, "s"]:
    """Return focus distances in whole centimetres; as they are, where two would be equal or inside the focal length."""
    rounded = (focus_m * 100).round() / 100
    is_distinct = len(rounded.unique()) == len(focus_m.unique()) and float(rounded.min()) > 1.5 * focal_length_m
    return rounded if is_distinct else focus_m


def _processed(images: Float[Tensor, "s 3 h w"], disturbance: Disturbance) -> Float[Tensor, "s 3 h w"]:
    height, width = images.shape[-2:]
    if disturbance.sharpening:
        smooth = gaussian_blur2d(images, (5, 5), (0.8, 0.8))
        images = images + disturbance.sharpening * (images - smooth)
    if disturbance.vignetting:
        y, x = (torch.linspace(-1, 1, side, device=images.device) for side in (height, width))
        images = images * (1 - disturbance.vignetting * (x.square() + y[:, None].square()) / 2)
    return images * disturbance.gain


def _moved(
    images: Float[Tensor, "s 3 h w"], parallax_px: Float[Tensor, "s 2"], inverse_depth_01: Float[Tensor, "h w"]
) -> Float[Tensor, "s 3 h w"]:
    """Move pixels by their inverse depth about the mean: registration has mended what all have in common."""
    height, width = images.shape[-2:]
    relative = inverse_depth_01 - inverse_depth_01.mean()
    size = torch.tensor([width, height], device=images.device)
    identity = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False)
    grid = grid + 2 * relative[None, :, :, None] * (parallax_px / size)[:, None, None]
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
