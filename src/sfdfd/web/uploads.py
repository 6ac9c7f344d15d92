"""Uploads: what is taken in, under which name, and within which bounds. Nothing of a file is believed but its bytes."""

from __future__ import annotations

import re
import shutil
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sfdfd.data.images import IMAGE_SUFFIXES, LARGEST_PIXELS
from sfdfd.data.shots import has_pages
from sfdfd.errors import InputError, checked_number, checked_whole

__all__ = ["Limits", "received", "safe_name"]

TEXTS = ("focus_distance.txt", "dioptres.txt")
"""Tables of distances that may come with the pictures."""
LARGEST_TEXT_BYTES = 16_384
LONGEST_NAME = 80
CURE = "reduce all photographs alike, to half their width for example, and give them again"
KINDS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".webp": "WEBP",
    ".avif": "AVIF", ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".jpx": "JPEG2000", ".pgm": "PPM", ".ppm": "PPM", ".pnm": "PPM",
}  # fmt: skip
"""What Pillow must find in a file of that name; what it does not know is left to the reader."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what is taken in at once.

    Attributes:
        files: how many.
        file_mb, total_mb: size of one and of all, in 1e6 bytes.
        megapixels: of one picture.

    Raises:
        InputError: a value is no such number.
    """

    files: float = 60
    file_mb: float = 400.0
    total_mb: float = 4000.0
    megapixels: float = LARGEST_PIXELS / 1e6

    def __post_init__(self) -> None:
        checked_whole(self.files, "uploads.files", 2)
        for key in ("file_mb", "total_mb", "megapixels"):
            checked_number(getattr(self, key), f"uploads.{key}")


def safe_name(name: str) -> str:
    """A file name without folders, without anything but letters, digits and ``._,+-`` in ASCII, and not hidden; its end is
    kept where it is too long."""
    name = re.split(r"[/\\]", name)[-1]
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._,+-]+", "_", name)[-LONGEST_NAME:].lstrip(".-")
    return name or "unnamed"


def received(files: Sequence[Path], folder: Path, limits: Limits) -> list[Path]:
    """Take uploads into a folder, all or none.

    Args:
        files: as they were uploaded; they stay where they are.
        folder: empty; receives them under safe names.
        limits: see :class:`Limits`.

    Raises:
        InputError: too many, too large, empty, of another kind than the name says, or of a kind that is not taken.
    """
    if len(files) > limits.files:
        raise InputError(f"expected {limits.files} files at most, got {len(files)} (uploads.files)")
    sizes = [file.stat().st_size for file in files]
    if sum(sizes) > 1e6 * limits.total_mb:
        raise InputError(f"expected {limits.total_mb:g} MB at most, got {sum(sizes) / 1e6:.0f} (uploads.total_mb)")
    names: list[str] = []
    for file, size in zip(files, sizes, strict=True):
        name = _unique(safe_name(file.name), names)
        _check(file, name, size, limits)
        names.append(name)
    pictures = [name for name in names if name not in TEXTS]
    is_stack = len(pictures) == 1 and has_pages(files[names.index(pictures[0])])  # a TIFF whose pages are slices
    if len(pictures) < 2 and not is_stack:
        raise InputError(f"expected two or more photographs of one scene, each focused elsewhere, got {len(pictures)}")
    taken = [folder / name for name in names]
    for file, path in zip(files, taken, strict=True):
        shutil.copyfile(file, path)
    return taken


def _unique(name: str, others: Sequence[str]) -> str:
    known, path, number = {other.lower() for other in others}, Path(name), 2
    while name.lower() in known:
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
    """By the header alone: no pixel is decoded here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=(*sorted(set(KINDS.values())), "DIB")) as image:
                width, height, found = *image.size, image.format
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        number = f"{int(pixels[0]) / 1e6:.0f}" if pixels else "far more"
        raise InputError(f"{name}: {_too_many(limits)}, got {number} (uploads.megapixels); {CURE}") from None
    except Exception:  # Pillow raises whatever it likes on broken files
        raise InputError(f"{name}: not a readable image") from None
    if found != kind and (kind, found) != ("JPEG", "MPO"):  # phones write several JPEGs into one file
        raise InputError(f"{name}: its name says {kind}, but it is {found}")
    if width * height > 1e6 * limits.megapixels:
        raise InputError(
            f"{name}: {_too_many(limits)}, got {width * height / 1e6:.0f} ({width} x {height}; uploads.megapixels); {CURE}"
        )


def _too_many(limits: Limits) -> str:
    return f"expected {limits.megapixels:g} megapixels at most"
