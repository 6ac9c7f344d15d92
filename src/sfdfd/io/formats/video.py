"""A focal sweep as a video, by FFmpeg (PyAV): frames picked by sharpness over time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.errors import InputError, one_line

__all__ = ["VIDEO_SUFFIXES", "every_frame", "picked_frames"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".3gp")
MOST_FRAMES = 3600
"""A sweep takes seconds; a longer video is none, and would be read for a long time."""
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
HOW = "pip install 'sfdfd[photo]'"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream.

    Raises:
        InputError: PyAV is not installed, or the file is no video that FFmpeg reads.
    """
    try:
        import av
    except ImportError:
        raise InputError(f"{path}: reading a video needs PyAV: {HOW}") from None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{path}: no video in this file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a readable video ({one_line(error)})") from None


def every_frame(path: Path, check_size: Callable[[int, int], None]) -> Iterator[np.ndarray]:
    """Every frame as (H,W,3) uint8, upright, one after the other.

    Args:
        path: the video.
        check_size: is told width and height before pixels are read, and raises where they are too many.

    Raises:
        InputError: see :func:`_opened`; also where there are more than :data:`MOST_FRAMES`, none, or its codes are HDR's.
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
            turns = round(getattr(frame, "rotation", 0) / 90) % 4  # against the clock, as a phone noted it
            yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    if not number:
        raise InputError(f"{path}: not a readable video (no frame in it)")


def picked_frames(
    path: Path, indices: Collection[int], check_size: Callable[[int, int], None]
) -> dict[int, np.ndarray]:
    """The frames of these numbers (the first is 0).

    Raises:
        InputError: as :func:`every_frame`; also where the video ends before one of them.
    """
    found, number = {}, 0
    for number, frame in enumerate(every_frame(path, check_size)):
        if number in indices:
            found[number] = frame
        if len(found) == len(set(indices)):
            return found
    raise InputError(f"{path}: frame {max(indices)} is asked for (frames), but the last is {number}")
