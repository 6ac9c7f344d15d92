"""Helpers for the tests of published sources: small random images, files as authors write them, conversions."""

import numpy as np

from sfdfd.datasets.folders import atomic_folder
from sfdfd.datasets.sources import SOURCES

RNG = np.random.default_rng(0)


def message_id(value):
    """Name a case of a parametrized test by the message that it expects."""
    return value if isinstance(value, str) and value.isprintable() else ""


def image(height=24, width=32):
    return RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)


def no_progress(done, total):
    pass


def converted(name, paths, root):
    record = {"data": name}
    with atomic_folder(root, record) as part:
        record["samples"] = SOURCES[name].convert(paths, part, no_progress)
    return root


def write_pfm(path, values):
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1\n".encode() + values[::-1].astype("<f4").tobytes())


def file_contents(folder):
    """Map the path of each file below a folder to its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def splits_of(root):
    return {path.stem: path.read_text().split() for path in (root / "splits").iterdir()}
