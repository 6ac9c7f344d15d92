"""Generate truebench on disk, resumably, and compare it with the reference thumbnails in the package."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import imageio.v3 as iio
import numpy as np
import torch

from sfdfd.datasets.raytraced_generator import ResumableGenerator, trace_into
from sfdfd.datasets.stack_folders import read_stack, stack_folders
from sfdfd.errors import InputError, checked_int
from sfdfd.measures.regions import occluded, plain
from sfdfd.scenes.raytraced.camera_setups import CameraSetup
from sfdfd.scenes.truebench import CAMERA_CLASSES, class_setup, truebench_scene

__all__ = ["EDITION", "TruebenchGenerator", "compare_with_reference", "seed_words", "thumbnails", "write_reference"]

EDITION = 2026
"""The edition whose scenes are public."""
SCENES, SAMPLES = 10, 256
HEIGHT, WIDTH = 240, 320
BLOCK_PX = 20
"""Side of the squares whose means are compared."""
LEVELS, RELATIVE_DEPTH = 0.5, 0.002
"""Tolerance of a square's mean: grey levels of 255, and share of its mean inverse depth."""
REFERENCE = Path(__file__).with_name(f"truebench_{EDITION}.npz")


def seed_words(edition: int | str, beacon: str | None = None) -> tuple[int, ...]:
    """Return the words of an edition's seed.

    Args:
        edition: 2026, a later year, or "dev" for scenes to develop with.
        beacon: hexadecimal randomness that was published after the year began. Editions after 2026 need it, so that nobody
            can have seen their scenes before.

    Raises:
        InputError: the edition is none of these, or its beacon is missing.
    """
    if edition == "dev":
        return (0x7B, 0)
    year = checked_int(edition, "edition (data.edition), beside dev", EDITION)
    if year == EDITION and beacon is None:
        return (0x7B, year)
    if year == EDITION:
        raise InputError(f"edition {EDITION} has no beacon; leave data.beacon out")
    if beacon is None:
        raise InputError(
            f"edition {year} is held back: its scenes follow from randomness that is published in {year}; give it as "
            "data.beacon=HEX (docs/explanation/truebench.md says which), or use data.edition=dev to develop"
        )
    try:
        value = bytes.fromhex(beacon)
    except (TypeError, ValueError):
        raise InputError(f"data.beacon: expected hexadecimal digits, got {beacon!r}") from None
    if len(value) < 16:
        raise InputError(f"data.beacon: expected at least 32 hexadecimal digits, got {len(value) * 2}")
    padded = value + b"\0" * (-len(value) % 4)
    return (0x7B, year, *np.frombuffer(padded, ">u4").tolist())


@dataclass(frozen=True)
class PlannedTruebenchScene:
    """One scene; ``index`` counts within its camera class."""

    name: str
    setup: CameraSetup
    index: int


@dataclass(frozen=True)
class TruebenchGenerator(ResumableGenerator):
    """Generates truebench: focal stacks with exact depth, all-in-focus image, and masks of occluded and plain pixels.

    Args:
        edition, beacon: see :func:`seed_words`.
        scenes: per camera class.
        height, width: image size in pixels.
        samples: rays per pixel of a slice; None: 256.
        variant: of Mitsuba; None: the fastest that works. Variants differ in noise.
    """

    title = "truebench: path-traced focal stacks, made here"
    licence = "Apache-2.0 (the generator); its textures and meshes are CC0 or public domain"
    layout = "stacks"

    edition: int | str = EDITION
    beacon: str | None = None
    scenes_per_class: int = SCENES
    height: int = HEIGHT
    width: int = WIDTH
    samples: int | None = None
    variant: str | None = None

    default_samples: ClassVar[Mapping[str, int]] = {"scalar": SAMPLES, "compiled": SAMPLES}

    def __post_init__(self) -> None:
        seed_words(self.edition, self.beacon)
        checked_int(self.scenes_per_class, "scenes (data.scenes)", 1)
        checked_int(self.height, "height (data.height)", 16)
        checked_int(self.width, "width (data.width)", 16)
        if self.samples is not None:
            checked_int(self.samples, "samples (data.samples)", 1)

    def options(self) -> dict[str, Any]:
        """Return all options that the bytes depend on, as plain values; None for a default that is chosen later."""
        names = ("edition", "beacon", "scenes_per_class", "height", "width", "samples", "variant")
        return {name: getattr(self, name) for name in names}

    def planned(self) -> list[PlannedTruebenchScene]:
        """Return every scene, the classes in turns: an unfinished set can then be evaluated."""
        return [
            PlannedTruebenchScene(f"{name}_{index:02d}", class_setup(name, index, self.width), index)
            for index in range(self.scenes_per_class)
            for name in CAMERA_CLASSES
        ]

    def splits(self) -> dict[str, list[str]]:
        return {"test": sorted(scene.name for scene in self.planned())}

    def write_scene(self, planned: PlannedTruebenchScene, folder: Path, samples: int, variant: str) -> None:
        """Trace one stack into a folder of its own, which is renamed when it is complete."""
        size = (self.height, self.width)
        words = seed_words(self.edition, self.beacon)
        scene = truebench_scene(words, planned.setup.name, planned.index, *size)
        trace_into(folder, planned.name, scene, planned.setup, size, samples, variant, _write_masks)

    def after(self, folder: Path, record: dict[str, Any]) -> None:
        """Compare the finished set with the reference of its edition."""
        if self.is_the_edition():
            record["reference"] = compare_with_reference(folder)

    def is_the_edition(self) -> bool:
        """Whether this is the public set, of which the package has a reference."""
        return (self.edition, self.height, self.width, self.scenes_per_class) == (EDITION, HEIGHT, WIDTH, SCENES)


def _write_masks(folder: Path) -> None:
    """Write ``truth/occluded.png`` and ``truth/plain.png``: 255 where a pixel is in the mask."""
    stack = read_stack(folder)
    assert stack.depth_m is not None and stack.aif is not None
    masks = {"occluded": occluded(stack.depth_m, stack.camera[0]), "plain": plain(stack.aif)}
    for name, mask in masks.items():
        iio.imwrite(folder / "truth" / f"{name}.png", (255 * mask[0].to(torch.uint8)).numpy())


# ---------------------------------------------------------------- reference


def thumbnails(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the means over squares of 20 pixels: of the slices and the AIF (S+1,h,w,3) in codes, of inverse depth (h,w)."""
    files = [*sorted(folder.glob("slice_*.png")), folder / "truth" / "aif.png"]
    images = np.stack([_block_means(iio.imread(file).astype(np.float64)) for file in files])
    return images, _block_means(1 / np.load(folder / "truth" / "depth_m.npy").astype(np.float64))


def _block_means(values: np.ndarray) -> np.ndarray:
    rows, columns = values.shape[0] // BLOCK_PX, values.shape[1] // BLOCK_PX
    blocks = values[: rows * BLOCK_PX, : columns * BLOCK_PX].reshape(rows, BLOCK_PX, columns, BLOCK_PX, -1)
    means = blocks.mean((1, 3))
    return means if values.ndim == 3 else means[..., 0]


@functools.cache
def _reference() -> Mapping[str, np.ndarray]:
    with np.load(REFERENCE) as file:
        return dict(file)


def write_reference(root: Path, path: Path = REFERENCE) -> None:
    """Store the thumbnails of a finished set: images in 128ths of a grey level, inverse depth as float32."""
    content: dict[str, np.ndarray] = {}
    for folder in stack_folders(root):
        images, inverse_depth = thumbnails(folder)
        content[f"{folder.name}/images"] = np.round(images * 128).astype(np.uint16)
        content[f"{folder.name}/inverse_depth"] = inverse_depth.astype(np.float32)
    stream = io.BytesIO()
    np.savez_compressed(stream, **content)  # type: ignore[arg-type] # arrays by name
    path.write_bytes(stream.getvalue())


def compare_with_reference(root: Path) -> dict[str, Any]:
    """Compare a set with the reference of its edition.

    Args:
        root: the folder of its stacks.

    Returns:
        "matches"; "compared", the number of scenes; the largest differences of a square's mean, "levels" (of 255) and
        "inverse_depth" (a share), their tolerances; "different": names of the scenes beyond them, or that are missing.
    """
    reference = _reference()
    names = sorted({key.split("/")[0] for key in reference})
    levels, depth, different = [0.0], [0.0], []
    for name in names:
        if not (root / name / "truth" / "depth_m.npy").is_file():
            different.append(name)
            continue
        images, inverse_depth = thumbnails(root / name)
        stored = reference[f"{name}/inverse_depth"]
        levels.append(float(np.abs(images - reference[f"{name}/images"] / 128.0).max()))
        depth.append(float(np.abs(inverse_depth / stored - 1).max()))
        if levels[-1] > LEVELS or depth[-1] > RELATIVE_DEPTH:
            different.append(name)
    return {
        "matches": not different,
        "compared": len(names),
        "levels": max(levels),
        "inverse_depth": max(depth),
        "tolerance": {"levels": LEVELS, "inverse_depth": RELATIVE_DEPTH},
        "different": different,
    }
