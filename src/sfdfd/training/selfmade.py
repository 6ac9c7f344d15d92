"""Self-made stacks: a teacher's answers as scenes, photographed anew by random cameras.

A teacher (refinement) answers a stack with depth and AIF, from the stack alone. However wrong that answer is of its own
scene, it is a scene: rendered by any camera into a new stack, it is the exact answer to that one. So a network learns from
exact answers, over all cameras, and no truth is looked at (distillation by rendering again).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import Dataset

from sfdfd.networks.cost_volume import defocus_of
from sfdfd.networks.sweep import sweep_logs
from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import depth_at, inverse_position
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "Answer",
    "Lesson",
    "LessonsOf",
    "answer_of",
    "own_lesson",
    "packed",
    "random_lesson",
    "together",
    "unpacked",
]

SLICES = (2, 3, 4, 5, 5, 5, 6, 8, 10, 12)
SPAN_PX = (1.0, 25.0)
"""By how many pixels of blur radius near and far lie apart."""


class Answer(NamedTuple):
    """What a teacher says of a stack.

    Attributes:
        position: (H,W) of inverse depth between far (0) and near (1).
        aif: (3,H,W) in [0, 1].
        weight: (H,W) in (0, 1], how sure the teacher is: 1 / (1 + (relative standard deviation / 0.1)^2).
    """

    position: Float[Tensor, "h w"]
    aif: Float[Tensor, "3 h w"]
    weight: Float[Tensor, "h w"]


class Lesson(NamedTuple):
    """A stack, what a plane sweep leaves unexplained of it, and its answer; in a batch (B,...) each.

    Attributes:
        images: (S,3,H,W) in [0, 1].
        slice_mask: (S,) true for real slices.
        focus_m: (S,) focus distances in metres.
        ends_px: (S,2) signed blur radius at near and far.
        costs: (2,D,H/2,W/2) of :func:`sfdfd.networks.sweep.sweep_logs`; D is 0 for networks that need none.
        near_m, far_m: () depth range.
        answer: position, AIF, weight.
    """

    images: Tensor
    slice_mask: Bool[Tensor, "*b s"]
    focus_m: Tensor
    ends_px: Tensor
    costs: Tensor
    near_m: Tensor
    far_m: Tensor
    answer: Answer

    def cropped(self, size: int, generator: np.random.Generator) -> Lesson:
        """A random square of it, mirrored, turned and its colours exchanged at random: what stays true.

        Args:
            size: of its side, even: costs are of squares of 2 pixels.
        """
        height, width = self.images.shape[-2:]
        top, left = (2 * int(generator.integers(0, max(n - size, 0) // 2 + 1)) for n in (height, width))
        flips, turned = generator.random(2) < (0.5, 0.3), generator.random() < 0.3
        colours = torch.from_numpy(generator.permutation(3))

        def moved(values: Tensor, px: int = 1) -> Tensor:
            values = values[..., top // px : (top + size) // px, left // px : (left + size) // px]
            for axis, flip in zip((-1, -2), flips, strict=True):
                values = values.flip(axis) if flip else values
            return values.transpose(-1, -2) if turned else values

        position, aif, weight = (moved(value) for value in self.answer)
        images, answer = moved(self.images)[:, colours], Answer(position, aif[colours], weight)
        return self._replace(images=images, costs=moved(self.costs, 2), answer=answer)


def answer_of(prediction: Prediction, stack: FocalStack) -> Answer:
    """The teacher's answer to a batch of one, from its depth, AIF and standard deviation."""
    assert prediction.depth_std_m is not None
    doubt = prediction.depth_std_m[0] / prediction.depth_m[0]
    position = inverse_position(prediction.depth_m, stack.near_m, stack.far_m)[0]
    return Answer(position.clamp(0, 1), prediction.aif[0].clamp(0, 1), 1 / (1 + (10 * doubt) ** 2))


def own_lesson(stack: FocalStack, answer: Answer, renderer: Renderer, planes: int = 32) -> Lesson:
    """The stack that was answered, as it is; ``planes`` 0: without a sweep."""
    defocus = defocus_of(stack, renderer)
    if planes:
        costs = sweep_logs(stack.images[0], stack.shown()[0], defocus, planes)
    else:
        costs = stack.images.new_zeros(2, 0, *(-(-n // 2) for n in stack.images.shape[-2:]))
    return Lesson(
        stack.images[0], stack.slice_mask[0], stack.focus_distances_m[0], defocus.ends_px[0], costs,
        stack.near_m[0], stack.far_m[0], answer,
    )  # fmt: skip


def random_lesson(answers: Sequence[Answer], seed: Sequence[int], size: int = 160, planes: int = 32) -> Lesson:
    """A scene of answers, photographed by a random camera: depth range, blur, focus distances, optics, noise, alignment.

    One answer is the scene's ground; in front of it stand up to five cut-outs of others (rods, ellipses, polygons, blobs),
    so that silhouettes are sharp however soft the teacher's are. Surfaces are sometimes faint, sometimes planes.

    Args:
        answers: of a teacher, at least one; which are taken is random.
        seed: of all that is random.
        size: side of the square in pixels.
        planes: of the sweep.
    """
    g = np.random.default_rng(list(seed))
    position, aif, _ = _scene(answers, size, g)
    near_m, far_m, camera = _random_camera(g)
    focus_m = _random_focus_m(g, near_m, far_m, camera)
    renderer = _random_renderer(g)
    depth_m = depth_at(position[None], near_m, far_m)
    with torch.no_grad():
        images = renderer(aif[None], depth_m, focus_m, camera)[0]
        images = _as_photographed(images, g)
    stack = FocalStack.single(images, focus_m, camera, near_m, far_m)
    return own_lesson(stack, Answer(position, aif, torch.ones_like(position)), renderer, planes)


def _scene(answers: Sequence[Answer], size: int, g: np.random.Generator) -> Answer:
    """A ground and what stands in front of it."""

    def surface() -> Answer:
        return _surface(answers[int(g.integers(len(answers)))], size, g)

    scene = _stretched(surface(), g)
    for _ in range(int(g.choice((0, 1, 2, 3, 5)))):
        scene = _in_front_of(scene, surface(), _silhouette(size, g), g)
    return scene


def _surface(answer: Answer, size: int, g: np.random.Generator) -> Answer:
    """A random square of an answer at a random scale, in other colours; sometimes faint, sometimes as a plane."""
    height, width = answer.position.shape
    side = min(round(size * float(np.exp(g.uniform(np.log(0.6), np.log(1.4))))), height, width)
    top, left = (int(g.integers(0, n - side + 1)) for n in (height, width))
    both = torch.cat([answer.position[None], answer.aif])[None, :, top : top + side, left : left + side].float()
    both = F.interpolate(both, (size, size), mode="bilinear", antialias=True)[0]
    position, aif = both[0], both[1:].clamp(0, 1)
    aif = aif[torch.from_numpy(g.permutation(3))] ** float(np.exp(g.uniform(-0.5, 0.5))) * float(g.uniform(0.6, 1.0))
    if g.random() < 0.3:
        mean = aif.mean((1, 2), keepdim=True)
        aif = mean + (aif - mean) * float(np.exp(g.uniform(np.log(0.03), 0)))
    if g.random() < 0.3:
        y, x = (torch.linspace(-0.5, 0.5, size) * float(g.normal(0, 0.5)) for _ in range(2))
        position = position.mean() + y[:, None] + x
    return Answer(position, aif, torch.ones_like(position))


def _stretched(scene: Answer, g: np.random.Generator) -> Answer:
    """Its depths stretched over another part of the range."""
    position = scene.position
    low, high = float(position.min()), float(position.max())
    extent = max(high - low, 0.05)
    whole = extent * float(np.exp(g.uniform(0, 1))) if g.random() < 0.8 else max(1.0, extent)
    start = low - float(g.uniform()) * (whole - extent)
    return scene._replace(position=((position - start) / whole).clamp(0, 1))


def _in_front_of(scene: Answer, surface: Answer, inside_px: Float[Tensor, "h w"], g: np.random.Generator) -> Answer:
    """A surface where ``inside_px`` is positive and the scene lies behind it, its edge as wide as a pixel in the AIF."""
    least = float(scene.position[inside_px > 0].median()) if bool((inside_px > 0).any()) else 0.0
    level = least + float(g.uniform()) ** 1.5 * (1 - least)
    relief = (surface.position - surface.position.mean()) * float(g.uniform(0, 0.6))
    position = (level + relief).clamp(0, 1)
    before = position > scene.position
    share = (inside_px + 0.5).clamp(0, 1) * before
    there = (inside_px > 0) & before
    return Answer(
        torch.where(there, position, scene.position), scene.aif + share * (surface.aif - scene.aif), scene.weight
    )


def _silhouette(size: int, g: np.random.Generator) -> Float[Tensor, "h w"]:
    """About how many pixels lie between a place and the edge of a random shape, positive inside."""
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
        far = size * np.exp(g.uniform(np.log(0.05), np.log(0.4), len(turns)))
        inside = np.min([d - np.cos(t) * x - np.sin(t) * y for t, d in zip(turns, far, strict=True)], axis=0)
        inside = np.minimum(inside, 0.6 * size - np.hypot(x, y))
    else:  # a blob
        scale = float(g.uniform(4, 20))
        noise = gaussian_filter(g.standard_normal((size, size)), scale)
        inside = (noise / noise.std() - g.uniform(0.3, 1.5)) * scale
    return torch.from_numpy(inside).float()


def _random_camera(g: np.random.Generator) -> tuple[float, float, Camera]:
    """Near, far and a camera: macro to room, by how much the blur differs over the range."""
    near_m = float(np.exp(g.uniform(np.log(0.08), np.log(1.5))))
    far_m = near_m * float(np.exp(g.uniform(np.log(2), np.log(20))))
    scale_px_m = float(np.exp(g.uniform(*np.log(SPAN_PX)))) / (1 / near_m - 1 / far_m)
    focal_length_m = near_m * float(np.exp(g.uniform(np.log(0.01), np.log(0.12))))
    return near_m, far_m, Camera(focal_length_m, 2.0, focal_length_m**2 / (4 * scale_px_m))


def _random_focus_m(g: np.random.Generator, near_m: float, far_m: float, camera: Camera) -> Tensor:
    """(S,) even or uneven in inverse distance, or even in the logarithm; not always over the whole range."""
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
    """Light (disc, linear, occlusion), the published synthesis (Gaussian, codes, source), and what lies between."""
    kind = g.random()
    if kind < 0.6:
        return DefocusRenderer(psf="disc", linear_light=True, weighting="occlusion")
    if kind < 0.85:
        return DefocusRenderer(sigma_scale=float(np.exp(g.uniform(np.log(0.35), 0))), weighting="source")
    psf, linear = ("gaussian", "disc")[int(g.random() < 0.5)], bool(g.random() < 0.5)
    return DefocusRenderer(psf=psf, linear_light=linear, weighting="occlusion")


def _as_photographed(images: Tensor, g: np.random.Generator) -> Tensor:
    """Sometimes misaligned by parts of a pixel, sometimes noisy, always of 8 bits."""
    if g.random() < 0.2:
        moves = torch.eye(2, 3).repeat(len(images), 1, 1)
        moves[:, :, 2] = torch.from_numpy(g.normal(0, 0.8 / images.shape[-1], (len(images), 2))).float()
        grid = F.affine_grid(moves, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if g.random() < 0.5:
        std = float(np.exp(g.uniform(np.log(0.001), np.log(0.015))))
        images = images + std * torch.from_numpy(g.standard_normal(images.shape)).float()
    return (images.clamp(0, 1) * 255).round() / 255


class LessonsOf(Dataset):
    """Lessons that lie in a folder, one file each, cut to one size at random; what is random depends on (seed, index).

    Args:
        files: :func:`packed` lessons, as ``torch.save`` writes them.
        length: how many an epoch has: file ``index mod len(files)``, another cut each time.
        size: side of the square.
        seed: of the cuts.
        first: how many were given already, before the training was interrupted; it goes on with the next.
    """

    def __init__(self, files: Sequence[Path], length: int, size: int, seed: int, first: int = 0) -> None:
        self.lessons = [torch.load(file, weights_only=True) for file in files]
        self.length, self.size, self.seed, self.first = length, size, seed, first
        generator, rounds = np.random.default_rng(seed), -(-length // len(files))
        self.order = np.concatenate([generator.permutation(len(files)) for _ in range(rounds)]).tolist()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Lesson:
        place = (self.first + index) % self.length
        lesson = unpacked(self.lessons[self.order[place]])
        return lesson.cropped(self.size, np.random.default_rng([self.seed, place]))


def packed(lesson: Lesson) -> dict[str, Any]:
    """Plain tensors at half precision."""
    position, aif, weight = lesson.answer
    return {
        "images": (lesson.images * 255).round().byte(),
        "focus_m": lesson.focus_m,
        "ends_px": lesson.ends_px,
        "costs": lesson.costs.half(),
        "near_m": lesson.near_m,
        "far_m": lesson.far_m,
        "position": position.half(),
        "aif": (aif * 255).round().byte(),
        "weight": weight.half(),
    }


def unpacked(values: dict[str, Any]) -> Lesson:
    """The lesson of :func:`packed`."""
    answer = Answer(values["position"].float(), values["aif"].float() / 255, values["weight"].float())
    images = values["images"].float() / 255
    there = torch.ones(len(images), dtype=torch.bool)
    return Lesson(
        images, there, values["focus_m"], values["ends_px"], values["costs"].float(),
        values["near_m"], values["far_m"], answer,
    )  # fmt: skip


def together(lessons: Sequence[Lesson]) -> Lesson:
    """A batch of lessons of one size, slices padded with zeros, focus distances with the last."""
    longest = max(len(one.images) for one in lessons)

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(longest - len(values), *values.shape[1:])])

    columns = {
        key: torch.stack([padded(getattr(one, key)) for one in lessons]) for key in ("images", "slice_mask", "ends_px")
    }
    columns["focus_m"] = torch.stack(
        [torch.cat([one.focus_m, one.focus_m[-1:].expand(longest - len(one.focus_m))]) for one in lessons]
    )
    columns |= {key: torch.stack([getattr(one, key) for one in lessons]) for key in ("costs", "near_m", "far_m")}
    answer = Answer(*(torch.stack(values) for values in zip(*(one.answer for one in lessons), strict=True)))
    return Lesson(**columns, answer=answer)
