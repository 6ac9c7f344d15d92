"""Generate path-traced stacks on disk, resumably: which scenes, with which cameras, and their path tracing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sfdfd.datasets.folders import merged_options, resumable_folder, unfinished_options
from sfdfd.datasets.sources.base import write_splits, write_stack
from sfdfd.datasets.splits import SPLITS
from sfdfd.errors import InputError, checked_choice, checked_int
from sfdfd.io.files import Report
from sfdfd.scenes.raytraced.camera_setups import CameraSetup
from sfdfd.scenes.raytraced.patches import SceneDescription
from sfdfd.scenes.raytraced.random_scenes import KINDS, random_scene
from sfdfd.scenes.raytraced.tracer import best_variant, trace_stack

__all__ = ["PlannedScene", "RaytracedGenerator", "ResumableGenerator", "trace_into"]

SAMPLES = {"scalar": 128, "compiled": 512}
"""Default rays per pixel of a slice: less than a minute a scene on two cores."""
SCRATCH = ".scene"


@dataclass(frozen=True)
class PlannedScene:
    """One stack of a data set; ``index`` counts within its split and camera."""

    name: str
    split: str
    index: int
    setup: CameraSetup


class ResumableGenerator:
    """Base of what generates path-traced stacks: any number of workers, resumed after an interruption.

    A subclass has ``options``, ``planned``, ``splits`` and ``write_scene``.
    """

    samples: int | None
    variant: str | None
    default_samples: ClassVar[Mapping[str, int]] = SAMPLES

    def options(self) -> dict[str, Any]:
        """Return all options that the bytes depend on, as plain values; None for a default that is chosen later."""
        raise NotImplementedError

    def planned(self) -> Sequence[Any]:
        """Return every stack in the order of its making; each has a ``name``."""
        raise NotImplementedError

    def splits(self) -> dict[str, list[str]]:
        """Return the names of each split."""
        raise NotImplementedError

    def write_scene(self, planned: Any, folder: Path, samples: int, variant: str) -> None:
        """Make one stack in ``folder``, complete or not at all."""
        raise NotImplementedError

    def after(self, folder: Path, record: dict[str, Any]) -> None:
        """Do what is left when all stacks of ``folder`` are there; ``record`` becomes the manifest."""

    def write(self, root: Path, record: dict[str, Any], report: Report, spread: Any = None) -> int:
        """Generate what is missing of the data set at ``root``, and return the number of stacks.

        Args:
            root: receives a folder per stack, ``splits/`` and ``manifest.json``; see :func:`resumable_folder`.
            record: content of the manifest; "options" and "samples", the number of stacks, are added.
            report: called with the number of finished stacks.
            spread: traces stacks on several workers (:mod:`sfdfd.runs.cluster`); None: in this process.

        Raises:
            InputError: Mitsuba is missing, or an interrupted call had other options.
        """
        options = merged_options(self.options(), unfinished_options(root), root)
        variant = options["variant"] = options["variant"] or best_variant()
        kind = "scalar" if variant.startswith("scalar") else "compiled"
        samples = options["samples"] = options["samples"] or self.default_samples[kind]
        planned = list(self.planned())
        record |= {"options": options, "samples": len(planned)}
        with resumable_folder(root, record, options) as part:
            missing = [scene for scene in planned if not (part / scene.name).is_dir()]
            finished = len(planned) - len(missing)
            report(finished, len(planned))
            trace = partial(self.write_scene, folder=part, samples=samples, variant=variant)
            results = enumerate(map(trace, missing)) if spread is None else spread(trace, missing)
            for number, (_, result) in enumerate(results):
                if isinstance(result, Exception):
                    raise result
                report(finished + number + 1, len(planned))
            for scratch in part.glob(f"{SCRATCH}_*"):  # left by workers that were lost
                shutil.rmtree(scratch)
            write_splits(part, self.splits())
            self.after(part, record)
        return len(planned)


def trace_into(
    folder: Path,
    name: str,
    scene: SceneDescription,
    setup: CameraSetup,
    size: tuple[int, int],
    samples: int,
    variant: str,
    add: Callable[[Path], None] | None = None,
) -> None:
    """Trace one stack to ``folder/name``, which is renamed when it is complete.

    Args:
        folder: of the data set.
        name: of the stack.
        scene: what is photographed.
        setup: the camera, focus distances and depth range.
        size: height and width in pixels.
        samples, variant: as of :func:`sfdfd.scenes.raytraced.tracer.trace_stack`.
        add: called with the stack's folder before it is complete.
    """
    if (folder / name).is_dir():  # finished by a worker that was lost before it could report
        return
    images, aif, depth_m = trace_stack(scene, setup.camera, setup.focus_distances_m, *size, samples, variant)
    scratch = folder / f"{SCRATCH}_{name}"
    shutil.rmtree(scratch, ignore_errors=True)
    camera, focus = setup.camera.as_dict(), setup.focus_distances_m
    write_stack(scratch, name, list(images), camera, focus, setup.near_m, setup.far_m, depth_m, aif)
    if add is not None:
        add(scratch / name)
    (scratch / name).rename(folder / name)
    scratch.rmdir()


@dataclass(frozen=True)
class RaytracedGenerator(ResumableGenerator):
    """Generates path-traced stacks. A scene's bytes depend on seed, split, index, kinds, size, camera, samples and variant,
    and not on the number of scenes or cameras.

    Args:
        setups: the cameras; each has its own scenes.
        height, width: image size in pixels.
        lengths: scenes per camera, by split.
        seed: any whole number from 0.
        kinds: of :data:`sfdfd.scenes.raytraced.random_scenes.KINDS`, in turns.
        samples: rays per pixel of a slice; None: ``SAMPLES``.
        variant: of Mitsuba; None: :func:`best_variant`. Variants differ in noise.
    """

    title = "path-traced focal stacks, made here"
    licence = "yours (the generator is Apache-2.0)"
    layout = "stacks"

    setups: tuple[CameraSetup, ...]
    height: int
    width: int
    lengths: Mapping[str, int]
    seed: int
    kinds: Sequence[str] = KINDS
    samples: int | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        checked_int(self.height, "height (data.height)", 16)
        checked_int(self.width, "width (data.width)", 16)
        checked_int(self.seed, "seed", 0)
        for split in SPLITS:
            checked_int(self.lengths[split], f"{split}_length (data.{split}_length)", 0)
        if not sum(self.lengths.values()):
            raise InputError("expected at least one scene (data.train_length, data.val_length, data.test_length)")
        if not isinstance(self.kinds, Sequence) or isinstance(self.kinds, str) or not self.kinds:
            raise InputError(f"kinds: expected a list of {', '.join(KINDS)}, got {self.kinds!r} (data.kinds)")
        for kind in self.kinds:
            checked_choice(kind, "kinds (data.kinds)", KINDS)
        if self.samples is not None:
            checked_int(self.samples, "samples (data.samples)", 1)
        names = [setup.name for setup in self.setups]
        if len(set(names)) < len(names) or (len(names) > 1 and "" in names):
            raise InputError(f"cameras: expected a name of its own for each, got {', '.join(names)} (data.cameras)")

    def options(self) -> dict[str, Any]:
        """Return all options that the bytes depend on, as plain values; None for a default that is chosen later."""
        return {
            "height": self.height,
            "width": self.width,
            **{f"{split}_length": self.lengths[split] for split in SPLITS},
            "seed": self.seed,
            "kinds": list(self.kinds),
            "samples": self.samples,
            "variant": self.variant,
            "cameras": [setup.described() for setup in self.setups],
        }

    def planned(self) -> list[PlannedScene]:
        """Return every stack, test stacks first: an unfinished data set can then be evaluated."""
        return [
            PlannedScene("_".join(part for part in (setup.name, split, f"{index:04d}") if part), split, index, setup)
            for split in reversed(SPLITS)
            for index in range(self.lengths[split])
            for setup in self.setups
        ]

    def splits(self) -> dict[str, list[str]]:
        return {split: [scene.name for scene in self.planned() if scene.split == split] for split in SPLITS}

    def write_scene(self, planned: PlannedScene, folder: Path, samples: int, variant: str) -> None:
        """Trace one stack."""
        setup, size = planned.setup, (self.height, self.width)
        words = (self.seed, SPLITS.index(planned.split))
        near_m, far_m = setup.near_m, setup.far_m
        scene = random_scene(words, planned.index, setup.camera, *size, near_m, far_m, self.kinds)
        trace_into(folder, planned.name, scene, setup, size, samples, variant)
