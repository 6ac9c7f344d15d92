"""Save and load alignments as JSON, and write aligned slices as files."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image

from sfdfd.errors import InputError, one_line
from sfdfd.io.embedded_metadata import build_exif, encode_png, write_float_tiff
from sfdfd.io.files import atomic_write, readable, write_json
from sfdfd.photographs.align import Alignment
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.warping import magnification

__all__ = ["load_alignment", "save_alignment", "write_aligned"]

ALIGNED = "aligned"


def save_alignment(path: Path, capture: Capture) -> None:
    """Write the alignment of a capture as JSON.

    The file holds the size in pixels and, for each slice, its file name (with folders if the names alone are ambiguous), the
    3 x 3 matrix and the distortion (:class:`sfdfd.photographs.align.Alignment`).

    Raises:
        InputError: the file cannot be written.
    """
    names = _unique_names(capture.photographs.files)
    alignment, (height, width) = capture.alignment, capture.photographs.size
    per_slice = zip(names, alignment.matrices, alignment.radial, alignment.residual_px, strict=True)
    content = {
        "size": [height, width],
        "reference": names[alignment.reference],
        "slices": [
            {"file": name, "matrix": matrix.tolist(), "radial": float(radial), "residual_px": float(residual)}
            for name, matrix, radial, residual in per_slice
        ],
        "notes": list(alignment.notes),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}) (align.save)") from None


def load_alignment(path: Path, photographs: Photographs) -> Alignment:
    """Read what :func:`save_alignment` wrote, for these slices; the file may hold more of them.

    Raises:
        InputError: it cannot be read, is of other slices or of another size, or holds no motion of a camera.
    """
    label = f"{path} (align.load)"
    size, reference, by_name = _read_json(path, label)
    if size != photographs.size:
        raise InputError(
            f"{label}: of slices of {_pixels(size)} pixels, but these have {_pixels(photographs.size)}; align them anew"
        )
    names = [_name_of(file, by_name, label) for file in photographs.files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{label}: holds one slice {twice}, but {names.count(twice)} have this name; align anew")
    motions = [by_name[name] for name in names]
    for name, motion in zip(names, motions, strict=True):
        motion.check(name, label)
    if reference not in names:
        raise InputError(f"{label}: its reference {reference} is not among the slices; align anew")
    return Alignment.of(
        reference=names.index(reference),
        matrices=np.stack([motion.matrix for motion in motions]),
        radial=np.array([motion.radial for motion in motions]),
        residual_px=np.array([motion.residual_px for motion in motions]),
        size=photographs.size,
    )


@dataclass(frozen=True)
class _SavedMotion:
    """One slice of an alignment file; attributes as of :class:`Alignment`."""

    matrix: np.ndarray
    radial: float
    residual_px: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> _SavedMotion:
        residual = row.get("residual_px")
        residual_px = math.nan if residual is None else float(residual)
        return cls(np.asarray(row["matrix"], float), float(row.get("radial", 0.0)), residual_px)

    def check(self, name: str, label: str) -> None:
        """Refuse what is no motion of a camera."""
        matrix = self.matrix
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not 0.5 < magnification(matrix) < 2:
            raise InputError(f"{label}: expected a 3 x 3 matrix of a motion for {name}, got {matrix.tolist()}")
        if not abs(self.radial) < 0.2:
            raise InputError(f"{label}: expected a distortion of less than 0.2 for {name}, got {self.radial} (radial)")


def _read_json(path: Path, label: str) -> tuple[tuple[int, ...], str, dict[str, _SavedMotion]]:
    """Read (height, width), the name of the reference, and the motions by name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{label}: not readable as JSON ({one_line(error)})") from None
    try:
        size, reference, rows = tuple(content["size"]), str(content["reference"]), content["slices"]
        motions = {str(row["file"]): _SavedMotion.of(row) for row in rows}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{label}: expected what align.save writes: size, reference, slices (file, matrix)") from None
    if len(motions) < len(rows):
        raise InputError(f"{label}: names a slice twice, so its motion is ambiguous; align anew")
    return size, reference, motions


def _unique_names(files: Sequence[Path]) -> list[str]:
    """Return the names of files, with their folders below a common one if the names alone are not unique."""
    names = [file.name for file in files]
    if len(set(names)) < len(names):
        folder = Path(os.path.commonpath([file.absolute().parent for file in files]))
        names = [file.absolute().relative_to(folder).as_posix() for file in files]
    return [readable(name) for name in names]


def _name_of(file: Path, names: Collection[str], label: str) -> str:
    """Return the name that holds the most folders of a file.

    Raises:
        InputError: there is none.
    """
    parts = [readable(part) for part in file.absolute().parts]
    endings = ["/".join(parts[-number:]) for number in range(len(parts), 0, -1)]
    name = next((ending for ending in endings if ending in names), None)
    if name is None:
        raise InputError(f"{label}: holds nothing for {endings[-1]}; align anew, or leave it out (files)")
    return name


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[-1]} x {size[0]}"


def write_aligned(output_dir: Path, capture: Capture, optics: Mapping[str, Any] | None = None) -> Path:
    """Write aligned slices of even exposure as a stack with its ``stack.yaml``.

    Lossless: PNG of 8 or 16 bits, TIFF for floating-point photographs. They carry the EXIF of their photographs, as far as
    it holds for upright, perhaps cropped pixels, and are tagged as sRGB.

    Args:
        output_dir: receives ``aligned/`` and ``valid.png``; the old folder is replaced once all is written.
        capture: of the stack.
        optics: the ``optics`` of ``stack.yaml``.

    Returns:
        The folder.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    target, part = output_dir / ALIGNED, Path(tempfile.mkdtemp(prefix=".part-", dir=output_dir))
    photographs = capture.photographs
    try:
        names = []
        for index, (file, image) in enumerate(zip(photographs.files, photographs.images, strict=True)):
            suffix = ".tif" if image.dtype.kind == "f" else ".png"
            names.append(f"{index:02d}_{readable(file.stem)}{suffix}")
            facts = photographs.facts[index] if photographs.facts else None
            exif = build_exif(facts, photographs.size, photographs.uncropped, photographs.camera_of_slice(index))
            _write_lossless(part / names[-1], image, exif)
        (part / "stack.yaml").write_text(yaml.safe_dump(_stack_yaml(photographs, names, optics), sort_keys=False))
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
        _, encoded = cv2.imencode(".png", capture.common.astype(np.uint8) * 255)
        with atomic_write(output_dir / "valid.png") as picture:
            picture.write_bytes(encoded.tobytes())
    finally:
        shutil.rmtree(part, ignore_errors=True)
    target.chmod(0o755)
    return target


def _write_lossless(path: Path, image: np.ndarray, exif: Image.Exif) -> None:
    if image.dtype.kind == "f":
        write_float_tiff(path, image, exif)
    else:
        path.write_bytes(encode_png(image, exif))


def _plain(value: float | tuple[float, ...]) -> float | list[float]:
    return [float(number) for number in value] if isinstance(value, tuple) else float(value)


def _stack_yaml(photographs: Photographs, names: list[str], optics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of ``stack.yaml``: only the keys whose values are known."""
    focus, point = photographs.focus_distances_m, photographs.principal_point_px
    content = {
        "files": names,
        "camera": {key: _plain(value) for key, value in photographs.camera.items() if value is not None} or None,
        "focus_distances_m": None if focus is None else [float(value) for value in focus],
        "near_m": photographs.near_m,
        "far_m": photographs.far_m,
        "side": photographs.side,
        "principal_point_px": None if point is None else list(point),
        "optics": dict(optics) if optics else None,
    }
    return {key: value for key, value in content.items() if value is not None}
