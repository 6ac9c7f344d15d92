"""Self-made stacks: a teacher's answers as scenes, photographed anew by random cameras.

A teacher (refinement) answers a stack with depth and AIF, from the stack alone. However wrong that answer is of its own
scene, it is a scene: rendered by any camera into a new stack, it is the exact answer to that one. So a network learns from
exact answers, over all cameras, and no truth is looked at (distillation by rendering again).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from sfdfd.networks.plane_sweep import SQUARE_PX, log_residuals, log_sweep_residuals
from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import depth_from_normalized, normalized_inverse_depth
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.plane_sweep.cost_volume import StackDefocus, stack_defocus, sweep_residuals
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "BatchPlan",
    "BatchPlans",
    "DistillationSample",
    "ReplayBuffer",
    "SampleSetup",
    "StoredSamples",
    "TeacherPrediction",
    "collate_samples",
    "crop_samples",
    "pack",
    "photographed",
    "random_sample_setup",
    "random_samples",
    "sample_from_stack",
    "teacher_prediction",
    "unpack",
]

SLICES = (2, 3, 4, 5, 5, 5, 6, 8, 10, 12)
SPAN_PX = (1.0, 25.0)
"""By how many pixels of blur radius near and far lie apart."""


class TeacherPrediction(NamedTuple):
    """What a teacher says of a stack.

    Attributes:
        inverse_depth_01: (H,W) of inverse depth between far (0) and near (1).
        aif: (3,H,W) in [0, 1].
        weight: (H,W) in (0, 1], how sure the teacher is: 1 / (1 + (relative standard deviation / 0.1)^2).
    """

    inverse_depth_01: Float[Tensor, "h w"]
    aif: Float[Tensor, "3 h w"]
    weight: Float[Tensor, "h w"]


class DistillationSample(NamedTuple):
    """A stack, what a plane sweep leaves unexplained of it, and its answer; in a batch (B,...) each.

    Attributes:
        images: (S,3,H,W) in [0, 1].
        slice_mask: (S,) true for real slices.
        focus_m: (S,) focus distances in metres.
        ends_px: (S,2) signed blur radius at near and far.
        costs: (2,D,H/2,W/2) of :func:`sfdfd.networks.plane_sweep.log_sweep_residuals`; D is 0 for networks that need none.
        near_m, far_m: () depth range.
        answer: inverse_depth_01, AIF, weight.
    """

    images: Tensor
    slice_mask: Bool[Tensor, "*b s"]
    focus_m: Tensor
    ends_px: Tensor
    costs: Tensor
    near_m: Tensor
    far_m: Tensor
    answer: TeacherPrediction

    def cropped(self, size: int, generator: np.random.Generator) -> DistillationSample:
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

        inverse_depth_01, aif, weight = (moved(value) for value in self.answer)
        images, answer = moved(self.images)[:, colours], TeacherPrediction(inverse_depth_01, aif[colours], weight)
        return self._replace(images=images, costs=moved(self.costs, 2), answer=answer)


def teacher_prediction(prediction: Prediction, stack: FocalStack) -> TeacherPrediction:
    """The teacher's answer to a batch of one, from its depth, AIF and standard deviation."""
    assert prediction.depth_std_m is not None
    doubt = prediction.depth_std_m[0] / prediction.depth_m[0]
    inverse_depth_01 = normalized_inverse_depth(prediction.depth_m, stack.near_m, stack.far_m)[0]
    return TeacherPrediction(inverse_depth_01.clamp(0, 1), prediction.aif[0].clamp(0, 1), 1 / (1 + (10 * doubt) ** 2))


def sample_from_stack(
    stack: FocalStack, answer: TeacherPrediction, renderer: Renderer, planes: int = 32
) -> DistillationSample:
    """The stack that was answered, as it is; ``planes`` 0: without a sweep."""
    defocus, images = stack_defocus(stack, renderer), stack.images[0]
    costs = log_sweep_residuals(images, stack.coverage()[0], defocus, planes) if planes else _no_costs(images)
    return _lesson(stack, answer, defocus, costs)


def _no_costs(images: Tensor) -> Float[Tensor, "2 0 y x"]:
    return images.new_zeros(2, 0, *(-(-n // 2) for n in images.shape[-2:]))


def _lesson(stack: FocalStack, answer: TeacherPrediction, defocus: StackDefocus, costs: Tensor) -> DistillationSample:
    return DistillationSample(
        stack.images[0], stack.slice_mask[0], stack.focus_distances_m[0], defocus.ends_px[0], costs,
        stack.near_m[0], stack.far_m[0], answer,
    )  # fmt: skip


class SampleSetup(NamedTuple):
    """A scene and the camera that shall photograph it; on the CPU.

    Attributes:
        answer: what is seen of the scene: its inverse_depth_01 and AIF.
        behind: (N,5,H,W) what surfaces in front hide: colours, inverse_depth_01 and how far it is there, for N surfaces.
        near_m, far_m, camera, focus_m: depth range, camera, (S,) focus distances.
        renderer: the optics.
        moves_px: (S,2) by how many pixels each slice is misaligned, x and y: a pixel shows what lies that far from it.
        noise_std: of codes of a range of 1.
        error: factor by which the blur that the network is told is wrong.
        seed: of the noise.
    """

    answer: TeacherPrediction
    behind: Float[Tensor, "n 5 h w"]
    near_m: float
    far_m: float
    camera: Camera
    focus_m: Float[Tensor, "s"]
    renderer: DefocusRenderer
    moves_px: Float[Tensor, "s 2"]
    noise_std: float
    error: float
    seed: int


def random_sample_setup(answers: Sequence[TeacherPrediction], seed: Sequence[int], size: int = 192) -> SampleSetup:
    """A scene of answers before a random camera: depth range, blur, focus distances, optics, noise, alignment.

    One answer is the scene's ground; in front of it stand up to five cut-outs of others (rods, ellipses, polygons, blobs),
    so that silhouettes are sharp however soft the teacher's are, and what they hide is known. Surfaces are sometimes faint,
    sometimes planes.

    Args:
        answers: of a teacher, at least one; which are taken is random.
        seed: of all that is random.
        size: side of the square in pixels.
    """
    g = np.random.default_rng(list(seed))
    near_m, far_m, camera = _random_camera(g)
    focus_m = _random_focus_m(g, near_m, far_m, camera)
    renderer = _random_renderer(g)
    ends_px = _ends_px(camera, focus_m, near_m, far_m)
    scene, behind = _scene(answers, size, float((ends_px[:, 0] - ends_px[:, 1]).abs().max()), g)
    if renderer.options["weighting"] != "occlusion":
        behind = behind[:0]
    moves_px = torch.from_numpy(g.normal(0, 0.8, (len(focus_m), 2))).float() * float(g.random() < 0.2)
    noise_std = float(np.exp(g.uniform(np.log(0.001), np.log(0.015)))) * float(g.random() < 0.5)
    error = float(np.exp(g.normal(0, 0.1))) if g.random() < 0.15 else 1.0
    return SampleSetup(
        scene, behind, near_m, far_m, camera, focus_m, renderer, moves_px, noise_std, error, int(g.integers(2**31))
    )


def random_samples(
    setups: Sequence[SampleSetup], planes: int = 32, device: torch.device | str = "cpu"
) -> list[DistillationSample]:
    """The lessons that setups are, photographed and swept on a device.

    Args:
        planes: of the sweep; 0: without.
    """
    lessons, costs = [], []
    with torch.no_grad():
        for setup in setups:
            images = photographed(setup, device)
            camera = replace(setup.camera, f_number=setup.camera.f_number / setup.error)
            stack = FocalStack.single(images, setup.focus_m, camera, setup.near_m, setup.far_m).to(device)
            answer = TeacherPrediction(*(value.to(device) for value in setup.answer))
            defocus = stack_defocus(stack, setup.renderer)
            lessons.append(_lesson(stack, answer, defocus, _no_costs(images)))
            if planes:
                costs.append(sweep_residuals(images, stack.coverage()[0], defocus, 0, planes, window_px=SQUARE_PX))
        if not planes:
            return lessons
        logs = log_residuals(torch.stack(costs))
    return [lesson._replace(costs=one) for lesson, one in zip(lessons, logs, strict=True)]


def photographed(setup: SampleSetup, device: torch.device | str = "cpu") -> Float[Tensor, "s 3 h w"]:
    """Its slices: misaligned, noisy, of 8 bits. Beyond the border the scene goes on as it ends there."""
    inverse_depth_01, aif, _ = (value.to(device) for value in setup.answer)
    layers = torch.cat(
        [
            torch.cat([aif, inverse_depth_01[None], torch.ones_like(inverse_depth_01)[None]])[None],
            setup.behind.to(device),
        ]
    )
    ends_px = _ends_px(setup.camera, setup.focus_m, setup.near_m, setup.far_m)
    margin = 0
    if setup.renderer.options["weighting"] == "occlusion":
        margin = min(int(ends_px.abs().max()) + 2, min(inverse_depth_01.shape) - 1)
    layers = F.pad(layers, (margin,) * 4, mode="replicate")
    near_m, far_m = (torch.tensor([end], device=device) for end in (setup.near_m, setup.far_m))
    seen, *behind = (
        (layer[None, :3], depth_from_normalized(layer[None, 3], near_m, far_m), layer[None, 4]) for layer in layers
    )
    hidden = {"hidden": behind} if behind else {}
    images = setup.renderer(*seen[:2], setup.focus_m.to(device), setup.camera, **hidden)[0]
    images = images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]
    if bool(setup.moves_px.any()):
        moves = torch.eye(2, 3, device=device).repeat(len(images), 1, 1)
        height, width = images.shape[-2:]
        moves[:, :, 2] = (
            2 * setup.moves_px.to(device) / torch.tensor([width, height], device=device)
        )  # a side is 2 long
        grid = F.affine_grid(moves, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if setup.noise_std:
        generator = torch.Generator(device).manual_seed(setup.seed)
        images = images + setup.noise_std * torch.randn(images.shape, generator=generator, device=device)
    return (images.clamp(0, 1) * 255).round() / 255


def _ends_px(camera: Camera, focus_m: Tensor, near_m: float, far_m: float) -> Float[Tensor, "s 2"]:
    return camera.blur_radius_px(torch.tensor([near_m, far_m]), focus_m[:, None], signed=True)


def _scene(
    answers: Sequence[TeacherPrediction], size: int, span_px: float, g: np.random.Generator
) -> tuple[TeacherPrediction, Float[Tensor, "n 5 h w"]]:
    """A ground and what stands in front of it; and what that hides. What lies right behind a surface, by less than a level
    of the renderer, is hidden in every slice and left out."""

    def surface() -> TeacherPrediction:
        return _surface(answers[int(g.integers(len(answers)))], size, g)

    scene, behind = _stretched(surface(), g), []
    for _ in range(int(g.choice((0, 1, 2, 3, 5)))):
        front = _in_front_of(scene, surface(), _silhouette(size, g), g)
        levels = (front.inverse_depth_01 - scene.inverse_depth_01) * span_px / RenderOptions.level_px
        behind.append(torch.cat([scene.aif, scene.inverse_depth_01[None], ((levels - 1) / 2).clamp(0, 1)[None]]))
        scene = front
    return scene, torch.stack(behind) if behind else torch.zeros(0, 5, size, size)


def _surface(answer: TeacherPrediction, size: int, g: np.random.Generator) -> TeacherPrediction:
    """A random square of an answer at a random scale, in other colours; sometimes faint, sometimes as a plane."""
    height, width = answer.inverse_depth_01.shape
    side = min(round(size * float(np.exp(g.uniform(np.log(0.6), np.log(1.4))))), height, width)
    top, left = (int(g.integers(0, n - side + 1)) for n in (height, width))
    both = torch.cat([answer.inverse_depth_01[None], answer.aif])[None, :, top : top + side, left : left + side].float()
    both = F.interpolate(both, (size, size), mode="bilinear", antialias=True)[0]
    inverse_depth_01, aif = both[0], both[1:].clamp(0, 1)
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


def _stretched(scene: TeacherPrediction, g: np.random.Generator) -> TeacherPrediction:
    """Its depths stretched over another part of the range."""
    inverse_depth_01 = scene.inverse_depth_01
    low, high = float(inverse_depth_01.min()), float(inverse_depth_01.max())
    extent = max(high - low, 0.05)
    whole = extent * float(np.exp(g.uniform(0, 1))) if g.random() < 0.8 else max(1.0, extent)
    start = low - float(g.uniform()) * (whole - extent)
    return scene._replace(inverse_depth_01=((inverse_depth_01 - start) / whole).clamp(0, 1))


def _in_front_of(
    scene: TeacherPrediction, surface: TeacherPrediction, inside_px: Float[Tensor, "h w"], g: np.random.Generator
) -> TeacherPrediction:
    """A surface where ``inside_px`` is positive and the scene lies behind it, its edge as wide as a pixel in the AIF."""
    least = float(scene.inverse_depth_01[inside_px > 0].median()) if bool((inside_px > 0).any()) else 0.0
    level = least + float(g.uniform()) ** 1.5 * (1 - least)
    relief = (surface.inverse_depth_01 - surface.inverse_depth_01.mean()) * float(g.uniform(0, 0.6))
    inverse_depth_01 = (level + relief).clamp(0, 1)
    before = inverse_depth_01 > scene.inverse_depth_01
    share = (inside_px + 0.5).clamp(0, 1) * before
    there = (inside_px > 0) & before
    return TeacherPrediction(
        torch.where(there, inverse_depth_01, scene.inverse_depth_01),
        scene.aif + share * (surface.aif - scene.aif),
        scene.weight,
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


class StoredSamples(Dataset):
    """Lessons that lie in a folder, one file each, cut to one size at random; what is random depends on (seed, index).

    Args:
        files: :func:`pack` lessons, as ``torch.save`` writes them.
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

    def __getitem__(self, index: int) -> DistillationSample:
        place = (self.first + index) % self.length
        return crop_samples(self.lessons[self.order[place]], self.size, np.random.default_rng([self.seed, place]))


class BatchPlan(NamedTuple):
    """What one step of training learns from.

    Attributes:
        fresh: the lessons that are new, :func:`pack`, by number.
        again: numbers of earlier ones.
        seed: of the cuts.
    """

    fresh: dict[int, dict[str, Tensor]]
    again: list[int]
    seed: list[int]


class BatchPlans(Dataset):
    """Self-made stacks, ``fresh`` new ones for each step and others of the last ``memory`` again; step ``i`` depends on
    (seed, i) alone. They are made where they are asked for: by a loader's workers ahead of the training.

    Args:
        answers: of a teacher.
        steps, first: of the training, and how many of them were made already.
        fresh, batch_size: lessons of a step that are new, and all.
        memory: how far back those go that come again.
        size: side of the stacks in pixels.
        seed: of all that is random.
        planes: of the sweep.
        device: that photographs and sweeps.
    """

    def __init__(
        self,
        answers: Sequence[TeacherPrediction],
        steps: int,
        first: int,
        fresh: int,
        batch_size: int,
        memory: int,
        size: int,
        seed: int,
        planes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.answers, self.steps, self.first = answers, steps, first
        self.fresh, self.batch_size, self.memory, self.size, self.seed = fresh, batch_size, memory, size, seed
        self.planes, self.device = planes, device

    def __len__(self) -> int:
        return self.steps  # as many as ever, whatever was made already: Lightning counts from where it stopped

    def __getitem__(self, index: int) -> BatchPlan:
        step = self.first + index
        new = range(step * self.fresh, (step + 1) * self.fresh)
        g = np.random.default_rng([self.seed, 1, step])
        again = g.integers(max(0, new.stop - self.memory), new.stop, self.batch_size - self.fresh).tolist()
        fresh = self.lessons(new)
        if get_worker_info():  # what a worker gives lies in memory that processes share
            fresh = {number: {key: value.cpu() for key, value in one.items()} for number, one in fresh.items()}
        return BatchPlan(fresh, again, [self.seed, 2, step])

    def setup(self, number: int) -> SampleSetup:
        return random_sample_setup(self.answers, (self.seed, 0, number), self.size)

    def lessons(self, numbers: Iterable[int]) -> dict[int, dict[str, Tensor]]:
        """Those of these numbers, pack, on ``device``."""
        numbers = list(numbers)
        made = random_samples([self.setup(number) for number in numbers], self.planes, self.device)
        return {number: pack(lesson) for number, lesson in zip(numbers, made, strict=True)}


class ReplayBuffer:
    """Makes a batch of an exercise, and keeps the lessons that may come again.

    Args:
        exercises: where earlier lessons come from, if a training that goes on does not have them yet.
        crop: side of the squares that are cut out, even.
    """

    def __init__(self, exercises: BatchPlans, crop: int) -> None:
        self.exercises, self.crop = exercises, crop
        self.known: dict[int, dict[str, Tensor]] = {}

    def __call__(self, exercise: BatchPlan, device: torch.device | str) -> DistillationSample:
        """A batch, on a device."""
        numbers = [*exercise.fresh, *exercise.again]
        self._keep(exercise.fresh, device)
        if missing := sorted({*exercise.again} - self.known.keys()):
            self._keep(self.exercises.lessons(missing), device)
        oldest = max(numbers) - self.exercises.memory
        for number in [number for number in self.known if number < oldest]:
            del self.known[number]
        generator = np.random.default_rng(exercise.seed)
        return collate_samples([crop_samples(self.known[number], self.crop, generator) for number in numbers])

    def _keep(self, lessons: dict[int, dict[str, Tensor]], device: torch.device | str) -> None:
        """Copied: what processes share is dear."""
        for number, lesson in lessons.items():
            self.known[number] = {key: value.to(device, copy=True) for key, value in lesson.items()}


def pack(lesson: DistillationSample) -> dict[str, Tensor]:
    """Plain tensors at half precision."""
    inverse_depth_01, aif, weight = lesson.answer
    return {
        "images": (lesson.images * 255).round().byte(),
        "focus_m": lesson.focus_m,
        "ends_px": lesson.ends_px,
        "costs": lesson.costs.half(),
        "near_m": lesson.near_m,
        "far_m": lesson.far_m,
        "inverse_depth_01": inverse_depth_01.half(),
        "aif": (aif * 255).round().byte(),
        "weight": weight.half(),
    }


def unpack(values: dict[str, Tensor]) -> DistillationSample:
    """The lesson of :func:`pack`."""
    return _in_floats(_as_packed(values))


def crop_samples(values: dict[str, Tensor], size: int, generator: np.random.Generator) -> DistillationSample:
    """:meth:`DistillationSample.cropped` of the lesson of :func:`pack`, before it takes up four times the memory."""
    return _in_floats(_as_packed(values).cropped(size, generator))


def _as_packed(values: dict[str, Tensor]) -> DistillationSample:
    """In bytes and halves."""
    images = values["images"]
    there = torch.ones(len(images), dtype=torch.bool, device=images.device)
    answer = TeacherPrediction(values["inverse_depth_01"], values["aif"], values["weight"])
    return DistillationSample(
        images, there, values["focus_m"], values["ends_px"], values["costs"], values["near_m"], values["far_m"], answer
    )


def _in_floats(lesson: DistillationSample) -> DistillationSample:
    inverse_depth_01, aif, weight = lesson.answer
    answer = TeacherPrediction(inverse_depth_01.float(), aif.float() / 255, weight.float())
    return lesson._replace(images=lesson.images.float() / 255, costs=lesson.costs.float(), answer=answer)


def collate_samples(lessons: Sequence[DistillationSample]) -> DistillationSample:
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
    answer = TeacherPrediction(*(torch.stack(values) for values in zip(*(one.answer for one in lessons), strict=True)))
    return DistillationSample(**columns, answer=answer)
