"""Samples for distillation: stacks rendered from a teacher's predictions, which are exact targets for them.

A teacher (refinement) predicts depth and AIF from a stack alone. However wrong that prediction is for its own scene, it
describes some scene. Rendered by any camera into a new stack, it is the exact solution for that stack. So a network learns
from exact targets, for all cameras, without ground truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from sfdfd.networks.plane_sweep import SQUARE_PX, log_residuals, log_sweep_residuals
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.optics.render import Renderer
from sfdfd.plane_sweep.cost_volume import StackDefocus, stack_defocus, sweep_residuals
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training.distillation_scenes import (
    SampleSetup,
    SceneSource,
    TeacherPrediction,
    random_sample_setup,
    simulate_capture,
)

__all__ = [
    "BatchPlan",
    "BatchPlans",
    "DistillationSample",
    "ReplayBuffer",
    "StoredSamples",
    "collate_samples",
    "crop_samples",
    "pack",
    "random_samples",
    "sample_from_stack",
    "teacher_prediction",
    "unpack",
]


class DistillationSample(NamedTuple):
    """A stack, its plane sweep and its target; (B,...) each in a batch.

    Attributes:
        images: (S,3,H,W) in [0, 1].
        slice_mask: (S,) true for real slices.
        focus_m: (S,) focus distances in metres.
        ends_px: (S,2) signed blur radius at near and far.
        costs: (2,D,H/2,W/2) of :func:`sfdfd.networks.plane_sweep.log_sweep_residuals`; D is 0 for networks without a sweep.
        near_m, far_m: () depth range.
        target: inverse_depth_01, AIF, weight.
    """

    images: Tensor
    slice_mask: Bool[Tensor, "*b s"]
    focus_m: Tensor
    ends_px: Tensor
    costs: Tensor
    near_m: Tensor
    far_m: Tensor
    target: TeacherPrediction

    def cropped(self, size: int, generator: np.random.Generator) -> DistillationSample:
        """Crop a random square; flip, transpose and permute colours at random.

        Args:
            size: of its side; even, because costs are of squares of 2 pixels.
            generator: of all that is random.
        """
        height, width = self.images.shape[-2:]
        top, left = (2 * int(generator.integers(0, max(n - size, 0) // 2 + 1)) for n in (height, width))
        flips, is_transposed = generator.random(2) < (0.5, 0.3), generator.random() < 0.3
        colours = torch.from_numpy(generator.permutation(3))

        def moved(values: Tensor, px: int = 1) -> Tensor:
            values = values[..., top // px : (top + size) // px, left // px : (left + size) // px]
            for axis, flip in zip((-1, -2), flips, strict=True):
                values = values.flip(axis) if flip else values
            return values.transpose(-1, -2) if is_transposed else values

        inverse_depth_01, aif, weight = (moved(value) for value in self.target)
        images, target = moved(self.images)[:, colours], TeacherPrediction(inverse_depth_01, aif[colours], weight)
        return self._replace(images=images, costs=moved(self.costs, 2), target=target)


def teacher_prediction(prediction: Prediction, stack: FocalStack) -> TeacherPrediction:
    """Convert a teacher's prediction for a batch of one."""
    assert prediction.depth_std_m is not None
    relative_std = prediction.depth_std_m[0] / prediction.depth_m[0]
    inverse_depth_01 = normalized_inverse_depth(prediction.depth_m, stack.near_m, stack.far_m)[0]
    weight = 1 / (1 + (10 * relative_std) ** 2)
    return TeacherPrediction(inverse_depth_01.clamp(0, 1), prediction.aif[0].clamp(0, 1), weight)


def sample_from_stack(
    stack: FocalStack, target: TeacherPrediction, renderer: Renderer, planes: int = 32
) -> DistillationSample:
    """Make a sample of the teacher's own stack; ``planes=0`` leaves the sweep out."""
    defocus, images = stack_defocus(stack, renderer), stack.images[0]
    costs = log_sweep_residuals(images, stack.coverage()[0], defocus, planes) if planes else _no_costs(images)
    return _sample(stack, target, defocus, costs)


def _no_costs(images: Tensor) -> Float[Tensor, "2 0 y x"]:
    return images.new_zeros(2, 0, *(-(-n // 2) for n in images.shape[-2:]))


def _sample(stack: FocalStack, target: TeacherPrediction, defocus: StackDefocus, costs: Tensor) -> DistillationSample:
    return DistillationSample(
        stack.images[0], stack.slice_mask[0], stack.focus_distances_m[0], defocus.ends_px[0], costs,
        stack.near_m[0], stack.far_m[0], target,
    )  # fmt: skip


def random_samples(
    setups: Sequence[SampleSetup], planes: int = 32, device: torch.device | str = "cpu"
) -> list[DistillationSample]:
    """Render and sweep the stacks of setups on a device; ``planes=0`` leaves the sweep out."""
    samples, costs = [], []
    with torch.no_grad():
        for setup in setups:
            images = simulate_capture(setup, device)
            camera = replace(setup.camera, f_number=setup.camera.widest_f_number / setup.blur_error)
            stack = FocalStack.single(images, setup.told_focus_m, camera, setup.near_m, setup.far_m).to(device)
            target = TeacherPrediction(*(value.to(device) for value in setup.target))
            defocus = stack_defocus(stack, setup.renderer)
            samples.append(_sample(stack, target, defocus, _no_costs(images)))
            if planes:
                costs.append(sweep_residuals(images, stack.coverage()[0], defocus, 0, planes, window_px=SQUARE_PX))
        if not costs:
            return samples
        logs = log_residuals(torch.stack(costs))
    return [sample._replace(costs=log) for sample, log in zip(samples, logs, strict=True)]


class StoredSamples(Dataset):
    """Random crops of samples in files, determined by (seed, index).

    Args:
        files: samples as of :func:`pack`, written by ``torch.save``.
        length: of an epoch; the files are used in turn, each time with another crop.
        size: side of the square.
        seed: of order and crops.
        first: samples used before the training was interrupted.
    """

    def __init__(self, files: Sequence[Path], length: int, size: int, seed: int, first: int = 0) -> None:
        self.samples = [torch.load(file, weights_only=True) for file in files]
        self.length, self.size, self.seed, self.first = length, size, seed, first
        generator, rounds = np.random.default_rng(seed), -(-length // len(files))
        self.order = np.concatenate([generator.permutation(len(files)) for _ in range(rounds)]).tolist()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> DistillationSample:
        number = (self.first + index) % self.length
        return crop_samples(self.samples[self.order[number]], self.size, np.random.default_rng([self.seed, number]))


class BatchPlan(NamedTuple):
    """The samples that pass through the network at once: those of one training step, or a part of them.

    Attributes:
        fresh: new samples as of :func:`pack`, by number.
        replayed: numbers of earlier samples.
        seed: of the crops.
    """

    fresh: dict[int, dict[str, Tensor]]
    replayed: list[int]
    seed: list[int]


class BatchPlans(Dataset):
    """The :class:`BatchPlan` of each step, determined by (seed, step): new random stacks and numbers of earlier ones.

    A step may be divided into parts, one item each: on a CPU samples are fastest one by one, because they stay in its cache.

    The new stacks are made where an item is taken, so a loader's workers make them ahead of the training.

    Args:
        source: of scenes.
        steps, first: steps of the training, and those made before it was interrupted.
        fresh, batch_size: new samples of a step, and all.
        memory: number of most recent samples from which the others are drawn.
        size: side of the stacks in pixels.
        seed: of all that is random.
        planes: of the sweep.
        device: that renders and sweeps.
        micro_batch_size: number of samples in a part, a divisor of ``batch_size``; None: all.
    """

    def __init__(
        self,
        source: SceneSource,
        steps: int,
        first: int,
        fresh: int,
        batch_size: int,
        memory: int,
        size: int,
        seed: int,
        planes: int,
        device: torch.device | str = "cpu",
        micro_batch_size: int | None = None,
    ) -> None:
        self.source, self.steps, self.first = source, steps, first
        self.fresh, self.batch_size, self.memory, self.size, self.seed = fresh, batch_size, memory, size, seed
        self.planes, self.device = planes, device
        self.micro_batch_size = micro_batch_size or batch_size

    def __len__(self) -> int:
        """Return the number of all parts, also of a continued training: Lightning counts from where it stopped."""
        return self.steps * (self.batch_size // self.micro_batch_size)

    def __getitem__(self, index: int) -> BatchPlan:
        parts = self.batch_size // self.micro_batch_size
        step, part = self.first + index // parts, index % parts
        first, after = step * self.fresh, (step + 1) * self.fresh
        g = np.random.default_rng([self.seed, 1, step])
        replayed = g.integers(max(0, after - self.memory), after, self.batch_size - self.fresh).tolist()
        numbers = [*range(first, after), *replayed][part * self.micro_batch_size : (part + 1) * self.micro_batch_size]
        count = max(0, self.fresh - part * self.micro_batch_size)
        new, replayed = numbers[:count], numbers[count:]
        fresh = self.samples(new)
        if get_worker_info():  # a worker hands samples over in shared CPU memory
            fresh = {number: {key: value.cpu() for key, value in sample.items()} for number, sample in fresh.items()}
        return BatchPlan(fresh, replayed, [self.seed, 2, step, part])

    def samples(self, numbers: Iterable[int]) -> dict[int, dict[str, Tensor]]:
        """Make the samples of these numbers, as of :func:`pack`, on ``device``."""
        numbers = list(numbers)
        setups = [random_sample_setup(self.source, (self.seed, 0, number), self.size) for number in numbers]
        made = random_samples(setups, self.planes, self.device)
        return {number: pack(sample) for number, sample in zip(numbers, made, strict=True)}


class ReplayBuffer:
    """Makes the batch of a :class:`BatchPlan`, and keeps the samples that may be replayed.

    Args:
        plans: makes earlier samples that a continued training does not have yet.
        crop: side of the square crops, even.
    """

    def __init__(self, plans: BatchPlans, crop: int) -> None:
        self.plans, self.crop = plans, crop
        self.kept: dict[int, dict[str, Tensor]] = {}

    def __call__(self, plan: BatchPlan, device: torch.device | str) -> DistillationSample:
        """Return the batch on a device."""
        numbers = [*plan.fresh, *plan.replayed]
        self._keep(plan.fresh, device)
        if missing := sorted({*plan.replayed} - self.kept.keys()):
            self._keep(self.plans.samples(missing), device)
        oldest = max(numbers) - self.plans.memory
        for number in [number for number in self.kept if number < oldest]:
            del self.kept[number]
        generator = np.random.default_rng(plan.seed)
        return collate_samples([crop_samples(self.kept[number], self.crop, generator) for number in numbers])

    def _keep(self, samples: dict[int, dict[str, Tensor]], device: torch.device | str) -> None:
        """Keep copies, because shared memory is scarce."""
        for number, sample in samples.items():
            self.kept[number] = {key: value.to(device, copy=True) for key, value in sample.items()}


def pack(sample: DistillationSample) -> dict[str, Tensor]:
    """Convert a sample to plain tensors of bytes and half precision."""
    inverse_depth_01, aif, weight = sample.target
    return {
        "images": (sample.images * 255).round().byte(),
        "focus_m": sample.focus_m,
        "ends_px": sample.ends_px,
        "costs": sample.costs.half(),
        "near_m": sample.near_m,
        "far_m": sample.far_m,
        "inverse_depth_01": inverse_depth_01.half(),
        "aif": (aif * 255).round().byte(),
        "weight": weight.half(),
    }


def unpack(values: dict[str, Tensor]) -> DistillationSample:
    """Return the sample of :func:`pack`."""
    return _to_float(_packed_sample(values))


def crop_samples(values: dict[str, Tensor], size: int, generator: np.random.Generator) -> DistillationSample:
    """Return :meth:`DistillationSample.cropped` of a packed sample; only the crop is converted to float."""
    return _to_float(_packed_sample(values).cropped(size, generator))


def _packed_sample(values: dict[str, Tensor]) -> DistillationSample:
    images = values["images"]
    slice_mask = torch.ones(len(images), dtype=torch.bool, device=images.device)
    target = TeacherPrediction(values["inverse_depth_01"], values["aif"], values["weight"])
    others = {key: values[key] for key in ("focus_m", "ends_px", "costs", "near_m", "far_m")}
    return DistillationSample(images=images, slice_mask=slice_mask, target=target, **others)


def _to_float(sample: DistillationSample) -> DistillationSample:
    inverse_depth_01, aif, weight = sample.target
    target = TeacherPrediction(inverse_depth_01.float(), aif.float() / 255, weight.float())
    return sample._replace(images=sample.images.float() / 255, costs=sample.costs.float(), target=target)


def collate_samples(samples: Sequence[DistillationSample]) -> DistillationSample:
    """Batch samples of one size; slices are padded with zeros, focus distances with their last value."""
    longest = max(len(sample.images) for sample in samples)

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(longest - len(values), *values.shape[1:])])

    def padded_focus(focus_m: Tensor) -> Tensor:
        return torch.cat([focus_m, focus_m[-1:].expand(longest - len(focus_m))])

    columns = {key: [getattr(sample, key) for sample in samples] for key in DistillationSample._fields[:-1]}
    for key in ("images", "slice_mask", "ends_px"):
        columns[key] = [padded(values) for values in columns[key]]
    columns["focus_m"] = [padded_focus(values) for values in columns["focus_m"]]
    target = TeacherPrediction(
        *(torch.stack(values) for values in zip(*(sample.target for sample in samples), strict=True))
    )
    return DistillationSample(**{key: torch.stack(values) for key, values in columns.items()}, target=target)
