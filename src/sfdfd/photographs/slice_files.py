"""Read the slices that a description names: once for their metadata, and again when their pixels are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from sfdfd.errors import InputError, one_line
from sfdfd.io.colour_spaces import colour_notes
from sfdfd.io.duplicate_shots import distinct_files, same_shots_in_other_format
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.files import readable
from sfdfd.io.formats.video import iterate_frames, read_frames
from sfdfd.io.images import LARGEST_PIXELS, read_photograph
from sfdfd.io.stack_yaml import StackDescription
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.slice_selection import equal_sharpness_steps, sharpness

__all__ = ["ReadSlices", "read_slices", "refuse_identical"]

LEAST_PX = 16
ROUNDING_PX = 2
"""Slices whose sizes differ by no more are cropped: programs round differently."""


@dataclass(frozen=True)
class ReadSlices:
    """The slices of a stack after reading.

    Attributes:
        description: with the files that were read; of a video, with the frames' names as files.
        images: (H,W,3) each, cropped.
        facts: EXIF of each.
        size, part: height and width before the crop, and the rows and columns that it keeps.
        sharpness: :func:`sfdfd.photographs.slice_selection.sharpness` of each; empty if not measured.
        notes: in words.
    """

    description: StackDescription
    images: LazySlices
    facts: list[PhotoFacts]
    size: tuple[int, int]
    part: tuple[slice, slice]
    sharpness: list[np.ndarray] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_slices(description: StackDescription, measure_sharpness: bool = False) -> ReadSlices:
    """Read every slice once, all in one orientation and of one size.

    Raises:
        InputError: a slice cannot be read or is of another size, or they are too small.
    """
    notes = list(description.notes)
    if description.video is not None:
        description, first, note = _read_video(description)
        notes.append(note)
    else:
        description = _without_identical_files(description, notes) if description.pages is None else description
        description, first = _read_or_other_format(description, notes)
        first = _in_one_orientation(description, first, notes)
        notes += colour_notes(first.facts)
    whole, (height, width) = _in_one_size(description, first, notes)
    if min(height, width) < LEAST_PX:
        raise InputError(f"{description.files[0]}: {width} x {height} pixels are too few; 16 x 16 are the least")
    sharp = [sharpness(image) for image in whole] if measure_sharpness else []
    part = description.crop_of(height, width)
    images = whole if part == (slice(0, height), slice(0, width)) else whole.mapped(partial(_crop, part))
    return ReadSlices(description, images, first.facts, (height, width), part, sharp, notes)


def refuse_identical(images: Iterable[np.ndarray], files: Sequence[Path]) -> None:
    """Refuse a stack whose slices are all identical.

    Raises:
        InputError: they are.
    """
    first = None
    for image in images:
        if first is None:
            first = image
        elif not np.array_equal(first, image):
            return
    raise InputError(
        f"{readable(files[0].name)} and the other {len(files) - 1} slices are identical: such a stack carries no signal; "
        "depth needs photographs that are focused at different distances"
    )


ReadSlice = Callable[[], tuple[np.ndarray, PhotoFacts]]


@dataclass(frozen=True)
class _FirstReading:
    """What reading every slice once gave: images (H,W,3), EXIF and shape of each."""

    images: LazySlices
    facts: list[PhotoFacts]
    shapes: list[tuple[int, ...]]

    @classmethod
    def of(cls, readers: Sequence[ReadSlice]) -> _FirstReading:
        facts: dict[int, PhotoFacts] = {}

        def read(index: int) -> np.ndarray:
            image, facts[index] = readers[index]()
            return image

        images = LazySlices([partial(read, index) for index in range(len(readers))])
        shapes = [image.shape for image in images]
        return cls(images, [facts[index] for index in range(len(readers))], shapes)

    def reread(self, index: int) -> tuple[np.ndarray, PhotoFacts]:
        return self.images[index], self.facts[index]


def _readers(description: StackDescription, orientation: int | None = None) -> list[ReadSlice]:
    if description.pages is not None:
        indices = range(len(description.files))
        return [partial(read_photograph, description.pages, index, orientation) for index in indices]
    return [partial(read_photograph, file, None, orientation) for file in description.files]


def _without_identical_files(description: StackDescription, notes: list[str]) -> StackDescription:
    """Drop files that are copies of another, with their distances.

    If all files are copies they stay: :func:`refuse_identical` refuses the stack where depth is wanted of it.
    """
    kept, identical = distinct_files(description.files)
    if len(kept) in (1, len(description.files)):
        return description
    notes += identical
    number = len(description.files)
    focus, std = (
        listed if listed is None or len(listed[0]) < number else ([listed[0][index] for index in kept], listed[1])
        for listed in (description.focus, description.std)
    )
    camera = {
        key: (tuple(value[index] for index in kept) if isinstance(value, tuple) else value, origin)
        for key, (value, origin) in description.camera.items()
    }
    return replace(description, files=[description.files[index] for index in kept], camera=camera, focus=focus, std=std)


def _read_or_other_format(description: StackDescription, notes: list[str]) -> tuple[StackDescription, _FirstReading]:
    """Read the slices; if one cannot be read and all of them exist in another format, too, read those."""
    try:
        return description, _FirstReading.of(_readers(description))
    except InputError as error:
        others = None if description.pages is not None else same_shots_in_other_format(description.files)
        if others is None:
            raise
        description = replace(description, files=others)
        first = _FirstReading.of(_readers(description))
        suffixes = " and ".join(sorted({file.suffix.lower() for file in others}))
        notes.append(f"the files in {suffixes} beside them are read for all slices, because of {one_line(error)}")
        return description, first


def _in_one_orientation(description: StackDescription, first: _FirstReading, notes: list[str]) -> _FirstReading:
    """Turn all slices as most of them say, because a camera that looks straight down cannot tell which way is up.

    If their sizes before turning differ, software has turned the pixels of some, and each keeps its own orientation.
    """
    orientations = [facts.orientation for facts in first.facts]
    stored = [shape[1::-1] if turn > 4 else shape[:2] for shape, turn in zip(first.shapes, orientations, strict=True)]
    if len(set(orientations)) == 1 or np.ptp(stored, axis=0).max() > ROUNDING_PX:
        return first
    usual = Counter(orientations).most_common(1)[0][0]  # the first of those that are equally many
    others = [index for index, turn in enumerate(orientations) if turn != usual]
    names = ", ".join(f"{readable(description.files[index].name)} ({orientations[index]})" for index in others[:4])
    names += f" and {len(others) - 4} more" if len(others) > 4 else ""
    notes.append(
        f"EXIF turns {names} otherwise than the other slices ({usual}), as of a camera that looks straight down: all are "
        f"turned alike, by orientation {usual}"
    )
    readers = _readers(description, usual)
    unchanged = [partial(first.reread, index) for index in range(len(readers))]
    return _FirstReading.of([(readers if index in others else unchanged)[index] for index in range(len(readers))])


def _in_one_size(
    description: StackDescription, first: _FirstReading, notes: list[str]
) -> tuple[LazySlices, tuple[int, int]]:
    """Return the slices, cropped about the middle if their sizes differ by a pixel or two, and their height and width.

    Raises:
        InputError: they differ by more.
    """
    height, width = (min(shape[axis] for shape in first.shapes) for axis in (0, 1))
    if all(shape[:2] == (height, width) for shape in first.shapes):
        return first.images, (height, width)
    if max(max(shape[0] - height, shape[1] - width) for shape in first.shapes) > ROUNDING_PX:
        other = next(index for index, shape in enumerate(first.shapes) if shape[:2] != first.shapes[0][:2])
        raise InputError(
            f"{description.files[other]}: {first.shapes[other][1]} x {first.shapes[other][0]} pixels, but "
            f"{description.files[0].name} has {first.shapes[0][1]} x {first.shapes[0][0]}; all slices must have one size"
        )
    sizes = ", ".join(sorted({f"{shape[1]} x {shape[0]}" for shape in first.shapes}))
    notes.append(f"slices have {sizes} pixels: all are cropped about the middle to the common {width} x {height}")
    return first.images.mapped(partial(_crop_middle, height, width)), (height, width)


def _crop_middle(height: int, width: int, image: np.ndarray) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _crop(part: tuple[slice, slice], image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[part])


def _read_video(description: StackDescription) -> tuple[StackDescription, _FirstReading, str]:
    """Read frames of a video: those that are named, else frames in equal steps of sharpness; with a note on the choice."""
    video, number = description.video, len(description.files)
    assert video is not None
    if description.frames is None:
        sharp = [sharpness(frame) for frame in iterate_frames(video, partial(_check_frame_size, video))]
        if len(sharp) < number:
            raise InputError(f"{video}: {number} frames are wanted (frames), and the video has {len(sharp)}")
        indices: Sequence[int] = equal_sharpness_steps(sharp, number)
        choice = f"{number} of {len(sharp)} frames were picked by sharpness over time (frames={number})"
    else:
        indices, choice = description.frames, f"{number} frames were named"
    frames = read_frames(video, indices, partial(_check_frame_size, video))
    files = [video.with_name(f"{video.stem}_frame_{index:05d}{video.suffix}") for index in indices]
    note = f"{readable(video.name)}: {choice}: {', '.join(str(index) for index in indices)}"
    first = _FirstReading.of([partial(_frame, frames[index]) for index in indices])
    return replace(description, files=files), first, note


def _check_frame_size(video: Path, width: int, height: int) -> None:
    if width * height > LARGEST_PIXELS:
        raise InputError(
            f"{video}: {width} x {height} pixels ({width * height / 1e6:.0f} megapixels) are more than the "
            f"{LARGEST_PIXELS / 1e6:.0f} that are read; reduce it: ffmpeg -i {video.name} -vf scale=iw/2:-2 small.mp4"
        )


def _frame(image: np.ndarray) -> tuple[np.ndarray, PhotoFacts]:
    return image, PhotoFacts()
