"""Alignment as a thing of its own: kept in a file, taken from one, and aligned slices as files."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from sfdfd.errors import InputError, one_line
from sfdfd.io.embedded_metadata import carried_exif, encoded_png, write_float_tiff
from sfdfd.io.files import atomic_write, readable, write_json
from sfdfd.photographs.align import Alignment, motions
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.read import Photographs

__all__ = ["load_alignment", "save_alignment", "write_aligned"]

ALIGNED = "aligned"


def save_alignment(path: Path, capture: Capture) -> None:
    """Write how each slice lies, as JSON: file names (with folders where the names alone do not tell slices apart), size in
    pixels, and 3 x 3 matrices from pixels of the reference to pixels of the slice (x, y, 1), with the distortion before
    them (:class:`sfdfd.photographs.align.Alignment`)."""
    names = _told_apart(capture.photographs.files)
    alignment, (height, width) = capture.alignment, capture.photographs.size
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "size": [height, width],
                "reference": names[alignment.reference],
                "slices": [
                    {"file": name, "matrix": matrix.tolist(), "radial": float(radial), "residual_px": float(residual)}
                    for name, matrix, radial, residual in zip(
                        names, alignment.matrices, alignment.radial, alignment.residual_px, strict=True
                    )
                ],
                "notes": list(alignment.notes),
            },
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}) (align.save)") from None


def load_alignment(path: Path, photographs: Photographs) -> Alignment:
    """What :func:`save_alignment` wrote, for these slices; the file may know more of them.

    Raises:
        InputError: it cannot be read, is of other slices or of another size, or is no motion that a camera makes.
    """
    where = f"{path} (align.load)"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not readable as JSON ({one_line(error)})") from None
    try:
        rows = {str(one["file"]): one for one in content["slices"]}
        size, reference = tuple(content["size"]), str(content["reference"])
        matrices = {name: np.asarray(one["matrix"], float) for name, one in rows.items()}
        bends = {name: float(one.get("radial", 0.0)) for name, one in rows.items()}
        residuals = {name: _number(one.get("residual_px")) for name, one in rows.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{where}: expected what align.save writes: size, reference, slices (file, matrix)") from None
    if len(rows) < len(content["slices"]):
        raise InputError(f"{where}: names a slice twice, so it does not say which is which; align anew")
    if size != photographs.size:
        raise InputError(
            f"{where}: of slices of {_pixels(size)} pixels, but these have {_pixels(photographs.size)}; align them anew"
        )
    names = [_row_of(file, rows, where) for file in photographs.files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where}: says of one slice {twice}, and {names.count(twice)} have this name; align anew")
    for name in names:
        matrix = matrices[name]
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not 0.5 < _scale(matrix) < 2:
            raise InputError(f"{where}: expected a 3 x 3 matrix of a motion for {name}, got {matrix.tolist()}")
        if not abs(bends[name]) < 0.2:
            raise InputError(f"{where}: expected a distortion of less than 0.2 for {name}, got {bends[name]} (radial)")
    if reference not in names:
        raise InputError(f"{where}: its reference {reference} is not among the slices; align anew")
    chosen = np.stack([matrices[name] for name in names])
    radial = np.array([bends[name] for name in names])
    measured: dict[str, Any] = motions(chosen, radial, *photographs.size)
    return Alignment(
        reference=names.index(reference),
        matrices=chosen,
        radial=radial,
        **measured,
        residual_px=np.array([residuals[name] for name in names]),
    )


def _told_apart(files: Sequence[Path]) -> list[str]:
    """The names of files, with as many of their folders as tell them apart."""
    names = [file.name for file in files]
    if len(set(names)) < len(names):
        folder = Path(os.path.commonpath([file.absolute().parent for file in files]))
        names = [file.absolute().relative_to(folder).as_posix() for file in files]
    return [readable(name) for name in names]


def _row_of(file: Path, rows: Collection[str], where: str) -> str:
    """The row that names a file with the most of its folders."""
    parts = [readable(part) for part in file.absolute().parts]
    ends = ["/".join(parts[-number:]) for number in range(len(parts), 0, -1)]
    found = next((end for end in ends if end in rows), None)
    if found is None:
        raise InputError(f"{where}: says nothing of {ends[-1]}; align anew, or leave it out (files)")
    return found


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _scale(matrix: np.ndarray) -> float:
    return math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))


def _pixels(size: tuple[Any, ...]) -> str:
    return f"{size[-1]} x {size[0]}"


def write_aligned(output_dir: Path, capture: Capture, optics: Mapping[str, Any] | None = None) -> Path:
    """Write the slices as they are worked on, aligned and of even exposure: a stack again, with its ``stack.yaml``.

    Lossless: PNG of 8 or 16 bits, TIFF where the photographs are floating-point; in sRGB, as they say, and with the EXIF of
    their photographs as far as it holds for upright, perhaps cropped pixels.

    Args:
        output_dir: receives ``aligned/`` and ``valid.png``; what lay there goes when all is written.
        capture: of the stack.
        optics: what ``stack.yaml`` says of the blur.

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
            exif = carried_exif(facts, photographs.size, photographs.uncropped, photographs.camera)
            if image.dtype.kind == "f":
                write_float_tiff(part / names[-1], image, exif)
            else:
                (part / names[-1]).write_bytes(encoded_png(image, exif))
        (part / "stack.yaml").write_text(yaml.safe_dump(_description(capture, names, optics), sort_keys=False))
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
        _, encoded = cv2.imencode(".png", capture.common.astype(np.uint8) * 255)
        with atomic_write(output_dir / "valid.png") as picture:
            picture.write_bytes(encoded.tobytes())
    finally:
        shutil.rmtree(part, ignore_errors=True)
    target.chmod(0o755)
    return target


def _description(capture: Capture, names: list[str], optics: Mapping[str, Any] | None) -> dict[str, Any]:
    photographs = capture.photographs
    camera = {key: float(value) for key, value in photographs.camera.items() if value is not None}
    said: dict[str, Any] = {"files": names}
    if camera:
        said["camera"] = camera
    if photographs.focus_distances_m is not None:
        said["focus_distances_m"] = [float(value) for value in photographs.focus_distances_m]
    for key in ("near_m", "far_m"):
        if getattr(photographs, key) is not None:
            said[key] = getattr(photographs, key)
    if photographs.principal_point_px is not None:
        said["principal_point_px"] = list(photographs.principal_point_px)
    if optics:
        said["optics"] = dict(optics)
    return said
