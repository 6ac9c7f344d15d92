"""Read published HDF5 files, with errors that name the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.datasets.sources.base import find_files, single_path
from sfdfd.errors import InputError, one_line
from sfdfd.io.archives import is_archive, opened
from sfdfd.io.files import Report

__all__ = ["numeric_dataset", "open_hdf5", "read_entry"]

SUFFIXES = (".h5", ".hdf5", ".mat")


@contextlib.contextmanager
def open_hdf5(paths: Sequence[Path], scratch: Path, report: Report, expected: str) -> Iterator[Any]:
    """Open the only path as an ``h5py.File``; in a folder or an archive, the only HDF5 file.

    Args:
        paths: of the source.
        scratch: folder to unpack archives in.
        report: progress of unpacking.
        expected: describes the file in messages.

    Raises:
        InputError: there is no such file, or several; or h5py is missing.
    """
    source = single_path(paths, expected)
    try:
        import h5py
    except ImportError:
        raise InputError(f"reading {source.name} needs h5py: pip install 'sfdfd[all]'") from None
    with contextlib.ExitStack() as stack:
        path = source
        if source.is_dir() or is_archive(source):
            candidates = find_files(stack.enter_context(opened([source], scratch, report)), "*.*")
            files = [file for file in candidates if file.suffix in SUFFIXES and h5py.is_hdf5(file)]
            if len(files) != 1:
                names = ", ".join(file.name for file in files) or "none"
                raise InputError(f"source={source}: expected {expected}, found {names}; give it as source=FILE")
            path = files[0]
        try:
            file = stack.enter_context(h5py.File(path, "r"))
        except OSError as error:
            raise InputError(f"source={path}: not an HDF5 file ({one_line(error)})") from None
        yield file


def numeric_dataset(file: Any, key: str) -> Any | None:
    """Return the ``h5py.Dataset`` of numbers with this name; None if there is none."""
    import h5py

    try:
        entry = file.get(key)
    except Exception as error:  # h5py raises various exceptions for broken files
        raise InputError(f"source={file.filename}: {key} is not readable ({one_line(error)})") from None
    return entry if isinstance(entry, h5py.Dataset) and entry.shape is not None and entry.dtype.kind in "uif" else None


def read_entry(data: Any, index: int) -> np.ndarray:
    """Read one entry along the first axis of :func:`numeric_dataset`.

    Raises:
        InputError: the file is broken there.
    """
    try:
        return data[index]
    except Exception as error:  # h5py raises various exceptions for broken files
        raise InputError(
            f"source={data.file.filename}: {data.name}[{index}] is not readable ({one_line(error)})"
        ) from None
