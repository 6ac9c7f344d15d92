"""Random scenes for distillation: a teacher's predictions and a bank's scenes, photographed by random cameras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.render import DefocusRenderer
from sfdfd.scenes.layered_scene import LayeredScene, LayeredScenes
from sfdfd.training.capture_disturbances import (
    Disturbance,
    disturb_images,
    disturb_target,
    encode_jpeg,
    random_disturbance,
    rounded_focus_m,
)

__all__ = [
    "SampleSetup", "SceneSource", "TeacherPrediction", "random_sample_setup", "signed_radius_px", "simulate_capture",
]  # fmt: skip

SLICES = (2, 3, 4, 5, 5, 5, 6, 8, 10, 12)
SPAN_PX = (1.0, 25.0)
"""Range of the difference in signed blur radius between near and far."""


SMALLEST_JUMP = 0.02
"""Least step of the normalized inverse depth between neighbours behind which hidden surfaces are rendered."""


class TeacherPrediction(NamedTuple):
    """A teacher's prediction for one stack.

    Attributes:
        inverse_depth_01: (H,W) inverse depth between far (0) and near (1).
        aif: (3,H,W) in [0, 1].
        weight: (H,W) in (0, 1], the teacher's certainty: 1 / (1 + (relative standard deviation / 0.1)^2).
    """

    inverse_depth_01: Float[Tensor, "h w"]
    aif: Float[Tensor, "3 h w"]
    weight: Float[Tensor, "h w"]


class SceneSource(NamedTuple):
    """Where scenes come from: a teacher's predictions, a bank of scenes, or both.

    Attributes:
        predictions: of a teacher.
        bank: scenes in layers; empty without a bank.
        bank_share: how many of the scenes are the bank's, where there are both.
    """

    predictions: Sequence[TeacherPrediction]
    bank: LayeredScenes = ()
    bank_share: float = 0.8

    def is_of_bank(self, g: np.random.Generator) -> bool:
        """Draw whether the next scene is the bank's."""
        if not len(self.bank) or not len(self.predictions):
            return len(self.bank) > 0
        return bool(g.random() < self.bank_share)


class SampleSetup(NamedTuple):
    """A scene and the camera that photographs it; on the CPU.

    Attributes:
        scene: the visible surfaces, and ``margin_px`` of them beyond each border of the image.
        hidden: (N,5,H,W) what N surfaces in front hide: colours, inverse_depth_01 and its opacity.
        near_m, far_m, camera, focus_m: depth range, camera, (S,) focus distances.
        renderer: the optics.
        misalignment_px: (S,2) offset of each slice in x and y: a pixel shows what lies that far from it.
        noise_std: of codes in a range of 1.
        blur_error: factor by which the blur that the network is given is wrong.
        seed: of the noise.
        margin_px: what the scene has beyond the borders; further out it is continued by its edge.
        disturbance: of the slices; None for none.
    """

    scene: TeacherPrediction
    hidden: Float[Tensor, "n 5 h w"]
    near_m: float
    far_m: float
    camera: Camera
    focus_m: Float[Tensor, "s"]
    renderer: DefocusRenderer
    misalignment_px: Float[Tensor, "s 2"]
    noise_std: float
    blur_error: float
    seed: int
    margin_px: int = 0
    disturbance: Disturbance | None = None

    @property
    def target(self) -> TeacherPrediction:
        """Return what the network should predict: the scene inside the borders, as the camera processes it."""
        inside = slice(self.margin_px, self.scene.aif.shape[-1] - self.margin_px)
        inverse_depth_01, aif, weight = (value[..., inside, inside] for value in self.scene)
        aif = aif if self.disturbance is None else disturb_target(aif, self.disturbance)
        return TeacherPrediction(inverse_depth_01, aif, weight)

    @property
    def told_focus_m(self) -> Float[Tensor, "s"]:
        """Return the focus distances that the network is told."""
        is_rounded = self.disturbance is not None and self.disturbance.rounded_focus
        return rounded_focus_m(self.focus_m, self.camera.focal_length_m) if is_rounded else self.focus_m


def random_sample_setup(source: SceneSource, seed: Sequence[int], size: int = 192) -> SampleSetup:
    """Draw a scene and a camera: depth range, blur, focus distances, optics, noise, misalignment, disturbances.

    One scene of the source is the background. Cut-outs of others stand in front of it (rods, ellipses, polygons, blobs): up
    to five before a teacher's prediction, whose silhouettes may be soft, up to two before a bank's scene.

    Args:
        source: of scenes, at least one; which ones are used is random.
        seed: of all that is random.
        size: side of the square in pixels.
    """
    g = np.random.default_rng(list(seed))
    near_m, far_m, camera = _random_camera(g)
    focus_m = _random_focus_m(g, near_m, far_m, camera)
    renderer = _random_renderer(g)
    ends_px = signed_radius_px(camera, focus_m, near_m, far_m)
    is_of_bank = source.is_of_bank(g)
    margin_px = int(ends_px.abs().max()) + 2 if is_of_bank and renderer.models_occlusion else 0
    span_px = float((ends_px[:, 0] - ends_px[:, 1]).abs().max())
    scene, hidden = _compose_scene(source, is_of_bank, size + 2 * margin_px, span_px, g)
    if not renderer.models_occlusion:
        hidden = hidden[:0]
    misalignment_px = torch.from_numpy(g.normal(0, 0.8, (len(focus_m), 2))).float() * float(g.random() < 0.2)
    noise_std = float(np.exp(g.uniform(np.log(0.001), np.log(0.015)))) * float(g.random() < 0.5)
    blur_error = float(np.exp(g.normal(0, 0.1))) if g.random() < 0.2 else 1.0
    noise_seed = int(g.integers(2**31))
    return SampleSetup(
        scene, hidden, near_m, far_m, camera, focus_m, renderer, misalignment_px, noise_std, blur_error, noise_seed,
        margin_px, random_disturbance(g, len(focus_m)),
    )  # fmt: skip


def simulate_capture(setup: SampleSetup, device: torch.device | str = "cpu") -> Float[Tensor, "s 3 h w"]:
    """Render the slices: disturbed, misaligned, noisy, quantized to 8 bits.

    Beyond its margin the scene is continued by its edge.
    """
    inverse_depth_01, aif, _ = (value.to(device) for value in setup.scene)
    visible = torch.cat([aif, inverse_depth_01[None], torch.ones_like(inverse_depth_01)[None]])
    layers = torch.cat([visible[None], setup.hidden.to(device)])
    margin = 0
    if setup.renderer.models_occlusion:
        radius_px = float(signed_radius_px(setup.camera, setup.focus_m, setup.near_m, setup.far_m).abs().max())
        margin = max(min(int(radius_px) + 2, min(inverse_depth_01.shape) - 1) - setup.margin_px, 0)
    layers = F.pad(layers, (margin,) * 4, mode="replicate")
    near_m, far_m = (torch.tensor([end], device=device) for end in (setup.near_m, setup.far_m))
    front, *hidden = (
        (layer[None, :3], depth_from_normalized(layer[None, 3], near_m, far_m), layer[None, 4]) for layer in layers
    )
    images = setup.renderer(*front[:2], setup.focus_m.to(device), setup.camera, hidden=hidden or None)[0]
    margin += setup.margin_px
    images = images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]
    disturbance = setup.disturbance or Disturbance.none(len(images))
    images = disturb_images(images, setup.target.inverse_depth_01.to(device), disturbance)
    if bool(setup.misalignment_px.any()):
        images = _shift(images, setup.misalignment_px.to(device))
    if setup.noise_std:
        generator = torch.Generator(device).manual_seed(setup.seed)
        images = images + setup.noise_std * torch.randn(images.shape, generator=generator, device=device)
    return encode_jpeg((images.clamp(0, 1) * 255).round() / 255, disturbance.jpeg_quality)


def _shift(images: Float[Tensor, "s 3 h w"], offset_px: Float[Tensor, "s 2"]) -> Float[Tensor, "s 3 h w"]:
    """Shift each image by its offset (x, y), bilinearly."""
    height, width = images.shape[-2:]
    transform = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    transform[:, :, 2] = 2 * offset_px / torch.tensor([width, height], device=images.device)  # a side has length 2
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def signed_radius_px(camera: Camera, focus_m: Tensor, near_m: float, far_m: float) -> Float[Tensor, "s 2"]:
    """Return the signed blur radius at near and far in every slice."""
    return camera.blur_radius_px(torch.tensor([near_m, far_m]), focus_m[:, None], signed=True)


def _compose_scene(
    source: SceneSource, is_of_bank: bool, size: int, span_px: float, g: np.random.Generator
) -> tuple[TeacherPrediction, Float[Tensor, "n 5 h w"]]:
    """Place random surfaces in front of a background; return the visible scene and what is hidden.

    A hidden surface less than one level of the renderer behind its occluder has opacity 0: no slice shows it.
    """

    def from_bank() -> Float[Tensor, "n 5 h w"]:
        return _random_layers(source.bank[int(g.integers(len(source.bank)))], size, g)

    def random_surface() -> TeacherPrediction:
        if source.is_of_bank(g):
            return _surface_of(from_bank()[0])
        return _random_surface(source.predictions[int(g.integers(len(source.predictions)))], size, g)

    def opacity(nearer_01: Tensor, farther_01: Tensor) -> Tensor:
        return (((nearer_01 - farther_01) * span_px / RenderOptions.level_px - 1) / 2).clamp(0, 1)

    hidden: list[Tensor] = []
    if is_of_bank:
        first, *behind = _stretch_layers(from_bank(), g)
        scene, above = _surface_of(first), first[3]
        near_silhouette = _near_silhouettes(above, int(2 * span_px) + 2)
        for layer in behind:
            coverage = layer[4] * near_silhouette * opacity(above, layer[3])
            hidden.append(torch.cat([layer[:4], coverage[None]]))
            above = torch.where(layer[4] > 0, layer[3], above)
    else:
        scene = _stretch_depth(random_surface(), g)
    for _ in range(int(g.choice((0, 0, 0, 1, 2) if is_of_bank else (0, 1, 2, 3, 5)))):
        nearer = _place_in_front(scene, random_surface(), _random_silhouette(size, g), g)
        coverage = opacity(nearer.inverse_depth_01, scene.inverse_depth_01)
        hidden.append(torch.cat([scene.aif, scene.inverse_depth_01[None], coverage[None]]))
        scene = nearer
    return scene, torch.stack(hidden) if hidden else torch.zeros(0, 5, size, size)


def _surface_of(layer: Float[Tensor, "5 h w"]) -> TeacherPrediction:
    return TeacherPrediction(layer[3], layer[:3], torch.ones_like(layer[3]))


def _random_layers(scene: LayeredScene, size: int, g: np.random.Generator) -> Float[Tensor, "n 5 h w"]:
    """Crop a random square of a bank's scene at a random scale: colours, inverse depth in 1/m, and where there is a surface.

    Colours are interpolated; depth is not, because no surface lies between two others.
    """
    height, width = scene.inverse_depth.shape[1:]
    side = min(round(size * float(np.exp(g.uniform(np.log(0.7), np.log(1.3))))), height, width)
    top, left = (int(g.integers(0, n - side + 1)) for n in (height, width))
    window = (slice(None), slice(top, top + side), slice(left, left + side))
    colours = torch.from_numpy(scene.colours[window]).permute(0, 3, 1, 2).float() / 255
    maps = torch.from_numpy(np.stack([scene.inverse_depth[window], scene.is_present[window]], 1).astype(np.float32))
    colours = F.interpolate(colours, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
    maps = F.interpolate(maps, (size, size), mode="nearest-exact")
    colours = colours[:, torch.from_numpy(g.permutation(3))] ** float(np.exp(g.uniform(-0.7, 0.2)))
    if g.random() < 0.15:  # faint
        mean = colours[0].mean((1, 2))[:, None, None]
        colours = mean + (colours - mean) * float(np.exp(g.uniform(np.log(0.05), 0)))
    return torch.cat([colours * float(g.uniform(0.8, 1.0)), maps], 1)


def _stretch_layers(layers: Float[Tensor, "n 5 h w"], g: np.random.Generator) -> Float[Tensor, "n 5 h w"]:
    """Map inverse depths to [0, 1] as :func:`_stretch_depth` does for the visible surface; what is farther moves to 0."""
    visible = layers[0, 3]
    low, high = float(visible.min()), float(visible.max())
    extent = max(high - low, 0.02 * high, 1e-6)
    whole = extent * float(np.exp(g.uniform(0, 1))) if g.random() < 0.5 else extent
    start = low - float(g.uniform()) * (whole - extent)
    return torch.cat([layers[:, :3], ((layers[:, 3:4] - start) / whole).clamp(0, 1), layers[:, 4:]], 1)


def _near_silhouettes(inverse_depth_01: Float[Tensor, "h w"], reach_px: int) -> Float[Tensor, "h w"]:
    """Return 1 within a reach of a jump in depth, where a wide lens may see behind the visible surface."""
    maps = inverse_depth_01[None, None]
    jumps = (F.max_pool2d(maps, 3, 1, 1) + F.max_pool2d(-maps, 3, 1, 1) > SMALLEST_JUMP).float()
    rows = F.max_pool2d(jumps, (2 * reach_px + 1, 1), 1, (reach_px, 0))
    return F.max_pool2d(rows, (1, 2 * reach_px + 1), 1, (0, reach_px))[0, 0]


def _random_surface(prediction: TeacherPrediction, size: int, g: np.random.Generator) -> TeacherPrediction:
    """Crop a random square at a random scale and change its colours; some surfaces become faint, some planar."""
    height, width = prediction.inverse_depth_01.shape
    side = min(round(size * float(np.exp(g.uniform(np.log(0.6), np.log(1.4))))), height, width)
    top, left = (int(g.integers(0, n - side + 1)) for n in (height, width))
    maps = torch.cat([prediction.inverse_depth_01[None], prediction.aif])
    maps = maps[None, :, top : top + side, left : left + side].float()
    maps = F.interpolate(maps, (size, size), mode="bilinear", antialias=True)[0]
    inverse_depth_01, aif = maps[0], maps[1:].clamp(0, 1)
    aif = aif[torch.from_numpy(g.permutation(3))] ** float(np.exp(g.uniform(-0.5, 0.5))) * float(g.uniform(0.6, 1.0))
    if g.random() < 0.3:  # black, and overexposed
        low, high = float(g.uniform(0, 0.3)), float(g.uniform(0.6, 1))
        aif = ((aif - low) / (high - low)).clamp(0, 1)
    if g.random() < 0.3:
        mean = aif.mean((1, 2), keepdim=True)
        aif = mean + (aif - mean) * float(np.exp(g.uniform(np.log(0.03), 0)))
    if g.random() < 0.3:
        y, x = (torch.linspace(-0.5, 0.5, size) * float(g.normal(0, 0.5)) for _ in range(2))
        inverse_depth_01 = inverse_depth_01.mean() + y[:, None] + x
    return TeacherPrediction(inverse_depth_01, aif, torch.ones_like(inverse_depth_01))


def _stretch_depth(scene: TeacherPrediction, g: np.random.Generator) -> TeacherPrediction:
    """Map the scene's inverse depths to a random part of the range."""
    inverse_depth_01 = scene.inverse_depth_01
    low, high = float(inverse_depth_01.min()), float(inverse_depth_01.max())
    extent = max(high - low, 0.05)
    whole = extent * float(np.exp(g.uniform(0, 1))) if g.random() < 0.8 else max(1.0, extent)
    start = low - float(g.uniform()) * (whole - extent)
    return scene._replace(inverse_depth_01=((inverse_depth_01 - start) / whole).clamp(0, 1))


def _place_in_front(
    scene: TeacherPrediction, surface: TeacherPrediction, inside_px: Float[Tensor, "h w"], g: np.random.Generator
) -> TeacherPrediction:
    """Show a surface where ``inside_px`` is positive and the scene is farther; its edge in the AIF is a pixel wide."""
    lowest = float(scene.inverse_depth_01[inside_px > 0].median()) if bool((inside_px > 0).any()) else 0.0
    level = lowest + float(g.uniform()) ** 1.5 * (1 - lowest)
    relief = (surface.inverse_depth_01 - surface.inverse_depth_01.mean()) * float(g.uniform(0, 0.6))
    inverse_depth_01 = (level + relief).clamp(0, 1)
    is_nearer = inverse_depth_01 > scene.inverse_depth_01
    coverage = (inside_px + 0.5).clamp(0, 1) * is_nearer
    return TeacherPrediction(
        torch.where((inside_px > 0) & is_nearer, inverse_depth_01, scene.inverse_depth_01),
        scene.aif + coverage * (surface.aif - scene.aif),
        scene.weight,
    )


def _random_silhouette(size: int, g: np.random.Generator) -> Float[Tensor, "h w"]:
    """Return the approximate distance in pixels to the edge of a random shape, positive inside."""
    y, x = np.mgrid[:size, :size] - g.uniform(0, size, 2)[:, None, None]
    angle, kind = g.uniform(0, np.pi), g.random()
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    if kind < 0.25:  # a rod
        inside = np.minimum(g.uniform(1, 6) - np.abs(y), g.uniform(0.2, 1) * size - np.abs(x))
    elif kind < 0.5:  # an ellipse
        a, b = size * np.exp(g.uniform(np.log(0.05), np.log(0.4), 2))
        inside = (1 - np.hypot(x / a, y / b)) * min(a, b)
    elif kind < 0.75:  # a convex polygon
        turns = np.sort(g.uniform(0, 2 * np.pi, int(g.integers(3, 7))))
        distances = size * np.exp(g.uniform(np.log(0.05), np.log(0.4), len(turns)))
        inside = np.min([d - np.cos(t) * x - np.sin(t) * y for t, d in zip(turns, distances, strict=True)], axis=0)
        inside = np.minimum(inside, 0.6 * size - np.hypot(x, y))
    else:  # a blob
        scale = float(g.uniform(4, 20))
        noise = gaussian_filter(g.standard_normal((size, size)), scale)
        inside = (noise / noise.std() - g.uniform(0.3, 1.5)) * scale
    return torch.from_numpy(inside).float()


def _random_camera(g: np.random.Generator) -> tuple[float, float, Camera]:
    """Draw near, far and a camera, from macro to room scale, by the difference in blur over the range."""
    near_m = float(np.exp(g.uniform(np.log(0.08), np.log(1.5))))
    far_m = near_m * float(np.exp(g.uniform(np.log(2), np.log(20))))
    scale_px_m = float(np.exp(g.uniform(*np.log(SPAN_PX)))) / (1 / near_m - 1 / far_m)
    focal_length_m = near_m * float(np.exp(g.uniform(np.log(0.01), np.log(0.12))))
    return near_m, far_m, Camera(focal_length_m, 2.0, focal_length_m**2 / (4 * scale_px_m))


def _random_focus_m(g: np.random.Generator, near_m: float, far_m: float, camera: Camera) -> Tensor:
    """Draw (S,) focus distances: even or uneven in inverse distance, or even in its logarithm."""
    number, kind = int(g.choice(SLICES)), g.random()
    low, high = 1 / far_m, 1 / near_m
    if kind < 0.6:
        inverse = low + (high - low) * np.linspace(g.uniform(-0.05, 0.2), g.uniform(0.75, 1.05), number)
    elif kind < 0.8:
        inverse = low + (high - low) * g.uniform(-0.05, 1.05, number)
    else:
        inverse = 1 / np.geomspace(near_m * 1.2, far_m * 0.8, number)
    focus_m = torch.from_numpy(np.sort(1 / np.maximum(inverse, 1e-6))).float()
    return focus_m.clamp_min(2 * camera.focal_length_m)


def _random_renderer(g: np.random.Generator) -> DefocusRenderer:
    """Draw the optics: photographs (disc, linear light, occlusion), published synthesis (Gaussian, codes), or a mixture."""
    kind = g.random()
    if kind < 0.6:
        return DefocusRenderer(psf="disc", linear_light=True, weighting="occlusion")
    if kind < 0.85:
        return DefocusRenderer(sigma_scale=float(np.exp(g.uniform(np.log(0.35), 0))), weighting="source")
    psf, linear = ("gaussian", "disc")[int(g.random() < 0.5)], bool(g.random() < 0.5)
    return DefocusRenderer(psf=psf, linear_light=linear, weighting="occlusion")
