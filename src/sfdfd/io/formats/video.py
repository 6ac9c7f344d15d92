"""Read the frames of a video of a focal sweep, by FFmpeg (PyAV)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.errors import InputError, one_line

__all__ = ["VIDEO_SUFFIXES", "iterate_frames", "read_frames"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".3gp")
MOST_FRAMES = 3600
"""A sweep takes seconds; a longer video is something else and would take long to read."""
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
INSTALL = "pip install 'sfdfd[photo]'"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video: the container and its video stream.

    Raises:
        InputError: PyAV is not installed, or FFmpeg cannot read the file.
    """
    try:
        import av
    except ImportError:
        raise InputError(f"{path}: reading a video needs PyAV: {INSTALL}") from None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{path}: no video in this file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a readable video ({one_line(error)})") from None


def iterate_frames(path: Path, check_size: Callable[[int, int], None]) -> Iterator[np.ndarray]:
    """Yield every frame as upright (H,W,3) uint8.

    Args:
        path: the video.
        check_size: called with width and height before pixels are read; raises if they are too large.

    Raises:
        InputError: PyAV is missing, or the video is unreadable, HDR, empty, or longer than :data:`MOST_FRAMES` frames.
    """
    number = 0
    with _opened(path) as (container, stream):
        check_size(stream.codec_context.width, stream.codec_context.height)
        for frame in container.decode(stream):
            transfer = int(getattr(frame, "color_trc", 0) or 0)
            if transfer in HDR_TRANSFERS:
                raise InputError(
                    f"{path}: its codes are those of HDR ({HDR_TRANSFERS[transfer]}); record or export it without HDR"
                )
            if number == MOST_FRAMES:
                raise InputError(f"{path}: more than {MOST_FRAMES} frames; cut the sweep out of the video")
            number += 1
            turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counterclockwise, as a phone recorded it
            yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    if not number:
        raise InputError(f"{path}: not a readable video (no frame in it)")


def read_frames(path: Path, indices: Collection[int], check_size: Callable[[int, int], None]) -> dict[int, np.ndarray]:
    """Return the frames with these indices (the first is 0).

    Raises:
        InputError: as :func:`iterate_frames`; or the video ends before one of them.
    """
    picked, index = {}, 0
    for index, frame in enumerate(iterate_frames(path, check_size)):
        if index in indices:
            picked[index] = frame
        if len(picked) == len(set(indices)):
            return picked
    raise InputError(f"{path}: frame {max(indices)} is asked for (frames), but the last is {index}")
