"""Check and store uploads: their number, sizes, names and kinds. Only the bytes of a file are trusted."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sfdfd.errors import InputError, checked_int, checked_number
from sfdfd.io.depth_maps import DEPTH_MAP_SUFFIXES
from sfdfd.io.duplicate_shots import is_multipage_tiff
from sfdfd.io.images import IMAGE_SUFFIXES, LARGEST_PIXELS

__all__ = ["Limits", "safe_name", "store_prior", "store_uploads"]

TEXTS = ("focus_distance.txt", "dioptres.txt")
"""Tables of distances that may come with the pictures."""
LARGEST_TEXT_BYTES = 16_384
LONGEST_NAME_BYTES = 240
"""In UTF-8; file systems take 255, and a number may be added to keep two equal names apart."""
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)", re.IGNORECASE)
"""Names of devices on Windows, whatever their suffix."""
JOINERS = "\u200c\u200d"
"""Invisible characters that are part of words in Persian and Hindi and of emoji."""
KINDS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".webp": "WEBP",
    ".avif": "AVIF", ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".jpx": "JPEG2000", ".pgm": "PPM", ".ppm": "PPM", ".pnm": "PPM",
}  # fmt: skip
"""The format that Pillow must find in a file with that suffix; other suffixes are checked when the file is read."""


@dataclass(frozen=True)
class Limits:
    """Limits of one upload.

    Attributes:
        files: largest number of files.
        file_mb, total_mb: largest size of one file and of all, in 1e6 bytes.
        megapixels: of one image.

    Raises:
        InputError: a value is out of range.
    """

    files: float = 60
    file_mb: float = 500.0
    total_mb: float = 5000.0
    megapixels: float = LARGEST_PIXELS / 1e6

    def __post_init__(self) -> None:
        checked_int(self.files, "uploads.files", 2)
        for key in ("file_mb", "total_mb", "megapixels"):
            checked_number(getattr(self, key), f"uploads.{key}")


def safe_name(name: str) -> str:
    """Return the part of a file name that is safe on every system.

    The commands read focus distances from names, so letters of any script, spaces, commas and units stay. Folders, control
    characters, marks that change the direction of writing, and characters that Windows forbids are removed. A name that is
    too long keeps its end.
    """
    name = re.split(r"[/\\]", name)[-1]
    name = "".join("_" if char in '<>:"|?*' or _is_control(char) else char for char in name)
    name = name.encode()[-LONGEST_NAME_BYTES:].decode("utf-8", "ignore")
    name = name.lstrip(". ").rstrip(". ")
    if RESERVED.match(name):
        name = f"_{name}"
    return name or "unnamed"


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def store_uploads(
    files: Sequence[Path], folder: Path, limits: Limits, names: Sequence[str] | None = None
) -> list[Path]:
    """Check uploads and store them in a folder under safe names, all or none.

    Hidden files are ignored, as the commands ignore them in a folder.

    Args:
        files: where the uploads are; they stay there.
        folder: an empty folder.
        limits: see :class:`Limits`.
        names: the files' names on the user's side, if they differ.

    Returns:
        The stored files.

    Raises:
        InputError: the files are too many, too large, empty, or not what their names say.
    """
    names = [file.name for file in files] if names is None else [re.split(r"[/\\]", name)[-1] for name in names]
    visible = [(file, name) for file, name in zip(files, names, strict=True) if not name.startswith(".")]
    if len(visible) > limits.files:
        raise InputError(f"expected {limits.files} files at most, got {len(visible)} (uploads.files)")
    sizes = [file.stat().st_size for file, _ in visible]
    if sum(sizes) > 1e6 * limits.total_mb:
        raise InputError(f"expected {limits.total_mb:g} MB at most, got {sum(sizes) / 1e6:.0f} (uploads.total_mb)")
    safe: list[str] = []
    for (file, name), size in zip(visible, sizes, strict=True):
        safe.append(_unique(safe_name(name), safe))
        _check(file, safe[-1], size, limits)
    _check_is_stack([file for file, _ in visible], safe)
    stored = [folder / name for name in safe]
    for (file, _), path in zip(visible, stored, strict=True):
        _store(file, path)
    return stored


def store_prior(file: Path, folder: Path, limits: Limits) -> str:
    """Check an uploaded depth map and store it under a name of ours; return that name.

    Args:
        file: where the upload is; it stays there.
        folder: of the job.
        limits: see :class:`Limits`.

    Raises:
        InputError: the file is too large, empty, or not what its name says.
    """
    suffix = file.suffix.lower()
    if suffix not in DEPTH_MAP_SUFFIXES:
        raise InputError(f"Depth map: expected {', '.join(DEPTH_MAP_SUFFIXES)}, got {suffix or 'no suffix'}")
    size = file.stat().st_size
    if not 0 < size <= 1e6 * limits.file_mb:
        raise InputError(f"Depth map: expected {limits.file_mb:g} MB at most and not empty, got {size / 1e6:.0f} MB")
    if suffix in KINDS:
        _check_header(file, "Depth map", KINDS[suffix], limits)
    path = folder / f"prior{suffix}"
    path.unlink(missing_ok=True)
    _store(file, path)
    return path.name


def _check_is_stack(files: Sequence[Path], names: Sequence[str]) -> None:
    """Refuse fewer than two photographs, unless one is a TIFF whose pages are slices."""
    images = [file for file, name in zip(files, names, strict=True) if name not in TEXTS]
    if len(images) < 2 and not (len(images) == 1 and is_multipage_tiff(images[0])):
        raise InputError(
            f"expected two or more photographs of one scene, each focused at a different distance, got {len(images)}"
        )


def _store(file: Path, path: Path) -> None:
    """Link a file to another name, or copy it where links are not possible."""
    try:
        os.link(file, path)
    except OSError:
        try:
            shutil.copyfile(file, path)
        except OSError as error:
            raise InputError(
                f"{path.name}: cannot be stored ({error.strerror}); start the page with folder=DIR"
            ) from None


def _folded(name: str) -> str:
    """Return a form that is equal for two names that some file system does not distinguish."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _unique(name: str, others: Sequence[str]) -> str:
    taken, path, number = {_folded(other) for other in others}, Path(name), 2
    while _folded(name) in taken:
        name, number = f"{path.stem}_{number}{path.suffix}", number + 1
    return name


def _check(file: Path, name: str, size: int, limits: Limits) -> None:
    suffix = Path(name).suffix.lower()
    if name in TEXTS:
        if size > LARGEST_TEXT_BYTES:
            raise InputError(f"{name}: expected a few numbers, got {size} bytes")
        return
    if suffix not in IMAGE_SUFFIXES:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{name}: expected photographs ({kinds}) or {' or '.join(TEXTS)}, got another kind of file")
    if size == 0:
        raise InputError(f"{name}: the file is empty")
    if size > 1e6 * limits.file_mb:
        raise InputError(f"{name}: expected {limits.file_mb:g} MB at most, got {size / 1e6:.0f} (uploads.file_mb)")
    if suffix in KINDS:
        _check_header(file, name, KINDS[suffix], limits)


def _check_header(file: Path, name: str, kind: str, limits: Limits) -> None:
    """Check the format and the size by the header; no pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=(*sorted(set(KINDS.values())), "DIB")) as image:
                width, height, actual = *image.size, image.format
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        got = f"{int(pixels[1]) / 1e6:.0f}" if pixels and int(pixels[1]) < 1e11 else "far more"
        raise InputError(_too_many_pixels(name, limits, got)) from None
    except Exception:  # Pillow raises many types on broken files
        raise InputError(f"{name}: not a readable image") from None
    if actual != kind and (kind, actual) != ("JPEG", "MPO"):  # phones write several JPEGs into one file
        raise InputError(f"{name}: its name says {kind}, but it is {actual}")
    if width * height > 1e6 * limits.megapixels:
        raise InputError(_too_many_pixels(name, limits, f"{width * height / 1e6:.0f} ({width} x {height})"))


def _too_many_pixels(name: str, limits: Limits, got: str) -> str:
    return (
        f"{name}: expected {limits.megapixels:g} megapixels at most, got {got} (uploads.megapixels); make all photographs "
        "half as wide and high, keeping their EXIF, and give those"
    )
