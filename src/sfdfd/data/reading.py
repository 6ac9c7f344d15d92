"""The slices that a description names: read once for what they say of themselves, and again when their pixels are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from sfdfd.data.choice import informative, sharpness
from sfdfd.data.description import Description
from sfdfd.data.exif import PhotoFacts
from sfdfd.data.files import readable
from sfdfd.data.formats.video import every_frame, picked_frames
from sfdfd.data.images import LARGEST_PIXELS, read_photograph
from sfdfd.data.slices import Slices
from sfdfd.errors import InputError

__all__ = ["ReadSlices", "read_slices"]

LEAST_PX = 16


@dataclass(frozen=True)
class ReadSlices:
    """What was read.

    Attributes:
        said: the description; of a video with the frames' names as files.
        images: (H,W,3) each, cropped.
        facts: EXIF of each.
        size, part: height and width before the crop, and the rows and columns that it leaves.
        sharp: of each, as of :func:`sfdfd.data.choice.sharpness`; empty where nobody asked.
        notes: in words.
    """

    said: Description
    images: Slices
    facts: list[PhotoFacts]
    size: tuple[int, int]
    part: tuple[slice, slice]
    sharp: list[np.ndarray] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_slices(said: Description, judged: bool = False) -> ReadSlices:
    """Read every slice once: all of one size, all whole.

    Args:
        said: which they are.
        judged: measure how sharp each is.

    Raises:
        InputError: one of them cannot be read, is of another size, or too small.
    """
    notes: list[str] = []
    if said.video is not None:
        said, arrays, note = _of_video(said)
        notes.append(note)
        makers = [partial(_itself, array) for array in arrays]
        facts = {file: PhotoFacts() for file in said.files}
    else:
        facts = {}
        makers = [partial(_read, file, facts) for file in said.files]
    whole, sizes, sharp = Slices(makers), [], []
    for file, image in zip(said.files, whole, strict=True):
        sizes.append(image.shape)
        if image.shape != sizes[0]:
            raise InputError(
                f"{file}: {image.shape[1]} x {image.shape[0]} pixels, but {said.files[0].name} has "
                f"{sizes[0][1]} x {sizes[0][0]}; all slices must have one size"
            )
        if judged:
            sharp.append(sharpness(image))
    height, width = sizes[0][:2]
    if min(height, width) < LEAST_PX:
        raise InputError(f"{said.files[0]}: {width} x {height} pixels are too few; 16 x 16 are the least")
    part = said.crop_of(height, width)
    images = whole if part == (slice(0, height), slice(0, width)) else whole.mapped(partial(_cut, part))
    return ReadSlices(said, images, [facts[file] for file in said.files], (height, width), part, sharp, notes)


def _read(file: Path, facts: dict[Path, PhotoFacts]) -> np.ndarray:
    image, facts[file] = read_photograph(file)
    return image


def _itself(array: np.ndarray) -> np.ndarray:
    return array


def _cut(part: tuple[slice, slice], image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[part])


def _of_video(said: Description) -> tuple[Description, list[np.ndarray], str]:
    """The frames, and what is to be said of their choice."""
    video, number = said.video, len(said.files)
    assert video is not None

    def check_size(width: int, height: int) -> None:
        if width * height > LARGEST_PIXELS:
            raise InputError(f"{video}: {width} x {height} pixels are more than this reads")

    if said.frames is None:
        sharp = [sharpness(frame) for frame in every_frame(video, check_size)]
        if len(sharp) < number:
            raise InputError(f"{video}: {number} frames are wanted (frames), and the video has {len(sharp)}")
        indices: Sequence[int] = informative(sharp, number)
        words = f"{number} of {len(sharp)} frames were picked by sharpness over time (frames={number})"
    else:
        indices, words = said.frames, f"{number} frames were named"
    found = picked_frames(video, indices, check_size)
    files = [video.with_name(f"{video.stem}_frame_{index:05d}{video.suffix}") for index in indices]
    note = f"{readable(video.name)}: {words}: {', '.join(str(index) for index in indices)}"
    return replace(said, files=files), [found[index] for index in indices], note
