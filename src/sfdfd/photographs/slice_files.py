"""The slices that a description names: read once for what they say of themselves, and again when their pixels are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from sfdfd.errors import InputError, one_line
from sfdfd.io.colour_spaces import colour_notes
from sfdfd.io.duplicate_shots import other_formats, without_identical
from sfdfd.io.exif import PhotoFacts
from sfdfd.io.files import readable
from sfdfd.io.formats.video import every_frame, picked_frames
from sfdfd.io.images import LARGEST_PIXELS, read_photograph
from sfdfd.io.stack_yaml import Description
from sfdfd.photographs.lazy_slices import LazySlices
from sfdfd.photographs.slice_selection import informative, sharpness

__all__ = ["ReadSlices", "read_slices", "refuse_identical"]

LEAST_PX = 16
FEW_PX = 2
"""Slices whose sizes differ by no more are cropped: programs round differently."""


@dataclass(frozen=True)
class ReadSlices:
    """What was read.

    Attributes:
        said: the description; of a video with the frames' names as files.
        images: (H,W,3) each, cropped.
        facts: EXIF of each.
        size, part: height and width before the crop, and the rows and columns that it leaves.
        sharp: of each, as of :func:`sfdfd.photographs.slice_selection.sharpness`; empty where nobody asked.
        notes: in words.
    """

    said: Description
    images: LazySlices
    facts: list[PhotoFacts]
    size: tuple[int, int]
    part: tuple[slice, slice]
    sharp: list[np.ndarray] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_slices(said: Description, judged: bool = False) -> ReadSlices:
    """Read every slice once: all upright alike and of one size.

    Args:
        said: which they are.
        judged: measure how sharp each is.

    Raises:
        InputError: one of them cannot be read or is of another size, or they are too small.
    """
    notes = list(said.notes)
    if said.video is not None:
        said, arrays, note = _of_video(said)
        notes.append(note)
        first = _read_all([partial(_itself, array) for array in arrays])
    else:
        said = _distinct(said, notes) if said.pages is None else said
        said, first = _with_fallback(said, notes)
        first = _turned_alike(said, first, notes)
        notes += colour_notes(first.facts)
    whole, (height, width) = _of_one_size(said, first, notes)
    if min(height, width) < LEAST_PX:
        raise InputError(f"{said.files[0]}: {width} x {height} pixels are too few; 16 x 16 are the least")
    sharp = [sharpness(image) for image in whole] if judged else []
    part = said.crop_of(height, width)
    images = whole if part == (slice(0, height), slice(0, width)) else whole.mapped(partial(_cut, part))
    return ReadSlices(said, images, first.facts, (height, width), part, sharp, notes)


Made = Callable[[], tuple[np.ndarray, PhotoFacts]]


@dataclass(frozen=True)
class _Reading:
    """What a first look at every slice gave.

    Attributes:
        images: (H,W,3) each.
        facts, shapes: of each.
    """

    images: LazySlices
    facts: list[PhotoFacts]
    shapes: list[tuple[int, ...]]


def _read_all(makers: Sequence[Made]) -> _Reading:
    """Read each once."""
    facts: dict[int, PhotoFacts] = {}

    def image(index: int) -> np.ndarray:
        values, facts[index] = makers[index]()
        return values

    images = LazySlices([partial(image, index) for index in range(len(makers))])
    shapes = [image.shape for image in images]
    return _Reading(images, [facts[index] for index in range(len(makers))], shapes)


def _makers(said: Description, orientation: int | None = None) -> list[Made]:
    if said.pages is not None:
        return [partial(read_photograph, said.pages, index, orientation) for index in range(len(said.files))]
    return [partial(read_photograph, file, None, orientation) for file in said.files]


def _distinct(said: Description, notes: list[str]) -> Description:
    """Leave out files that are the same as another, and what was said of them. Where all are the same, they stay: the stack
    is refused where depth is wanted of it (:func:`refuse_identical`)."""
    kept, identical = without_identical(said.files)
    if len(kept) in (1, len(said.files)):
        return said
    notes += identical
    focus, std = (
        one if one is None or len(one[0]) < len(said.files) else ([one[0][index] for index in kept], one[1])
        for one in (said.focus, said.std)
    )
    return replace(said, files=[said.files[index] for index in kept], focus=focus, std=std)


def refuse_identical(images: Iterable[np.ndarray], files: Sequence[Path]) -> None:
    """Refuse slices that all show the very same.

    Raises:
        InputError: they do.
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


def _with_fallback(said: Description, notes: list[str]) -> tuple[Description, _Reading]:
    """Read the slices; where one of them cannot be read and all lie there in another format, those."""
    try:
        return said, _read_all(_makers(said))
    except InputError as error:
        others = None if said.pages is not None else other_formats(said.files)
        if others is None:
            raise
        reading = replace(said, files=others)
        first = _read_all(_makers(reading))
        suffix = " and ".join(sorted({file.suffix.lower() for file in others}))
        notes.append(f"the files in {suffix} beside them are read for all slices, because of {one_line(error)}")
        return reading, first


def _turned_alike(said: Description, first: _Reading, notes: list[str]) -> _Reading:
    """Turn all slices as most of them say: a camera that looks straight down cannot tell which way is up.

    Where software has turned the pixels of some, their sizes before turning differ, and each is as it says.
    """
    said_by = [facts.orientation for facts in first.facts]
    stored = [shape[1::-1] if turn > 4 else shape[:2] for shape, turn in zip(first.shapes, said_by, strict=True)]
    alike = np.ptp(stored, axis=0).max() <= FEW_PX
    if len(set(said_by)) == 1 or not alike:
        return first
    most = Counter(said_by).most_common(1)[0][0]  # the first of those that are equally many
    others = [index for index, turn in enumerate(said_by) if turn != most]
    names = ", ".join(f"{readable(said.files[index].name)} ({said_by[index]})" for index in others[:4])
    names += f" and {len(others) - 4} more" if len(others) > 4 else ""
    notes.append(
        f"EXIF turns {names} otherwise than the other slices ({most}), as of a camera that looks straight down: all are "
        f"turned alike, by orientation {most}"
    )
    again = _makers(said, most)
    makers: list[Made] = [
        again[index] if index in others else partial(_known, first, index) for index in range(len(said.files))
    ]
    return _read_all(makers)


def _known(first: _Reading, index: int) -> tuple[np.ndarray, PhotoFacts]:
    return first.images[index], first.facts[index]


def _of_one_size(said: Description, first: _Reading, notes: list[str]) -> tuple[LazySlices, tuple[int, int]]:
    """The slices, cropped about the middle where their sizes differ by a pixel or two, and their common height and width.

    Raises:
        InputError: they differ by more.
    """
    height, width = (min(shape[axis] for shape in first.shapes) for axis in (0, 1))
    if all(shape[:2] == (height, width) for shape in first.shapes):
        return first.images, (height, width)
    if max(max(shape[0] - height, shape[1] - width) for shape in first.shapes) > FEW_PX:
        other = next(index for index, one in enumerate(first.shapes) if one[:2] != first.shapes[0][:2])
        raise InputError(
            f"{said.files[other]}: {first.shapes[other][1]} x {first.shapes[other][0]} pixels, but "
            f"{said.files[0].name} has {first.shapes[0][1]} x {first.shapes[0][0]}; all slices must have one size"
        )
    sizes = ", ".join(sorted({f"{shape[1]} x {shape[0]}" for shape in first.shapes}))
    notes.append(f"slices have {sizes} pixels: all are cropped about the middle to the common {width} x {height}")
    return first.images.mapped(partial(_middle, height, width)), (height, width)


def _middle(height: int, width: int, image: np.ndarray) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _itself(array: np.ndarray) -> tuple[np.ndarray, PhotoFacts]:
    return array, PhotoFacts()


def _cut(part: tuple[slice, slice], image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[part])


def _of_video(said: Description) -> tuple[Description, list[np.ndarray], str]:
    """The frames, and what is to be said of their choice."""
    video, number = said.video, len(said.files)
    assert video is not None

    def check_size(width: int, height: int) -> None:
        if width * height > LARGEST_PIXELS:
            raise InputError(
                f"{video}: {width} x {height} pixels ({width * height / 1e6:.0f} megapixels) are more than the "
                f"{LARGEST_PIXELS / 1e6:.0f} that are read; reduce it: ffmpeg -i {video.name} -vf scale=iw/2:-2 small.mp4"
            )

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
