"""Uploads: what is taken in, under which name, and within which bounds. Nothing of a file is believed but its bytes."""

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

from sfdfd.errors import InputError, checked_number, checked_whole
from sfdfd.io.duplicate_shots import has_pages
from sfdfd.io.images import IMAGE_SUFFIXES, LARGEST_PIXELS

__all__ = ["Limits", "received", "safe_name"]

TEXTS = ("focus_distance.txt", "dioptres.txt")
"""Tables of distances that may come with the pictures."""
LARGEST_TEXT_BYTES = 16_384
LONGEST_NAME_BYTES = 240
"""In UTF-8; file systems take 255, and a number may be added to keep two equal names apart."""
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)", re.IGNORECASE)
"""Names of devices on Windows, whatever their suffix."""
JOINERS = "\u200c\u200d"
"""Invisible, but part of words in Persian and Hindi and of emoji."""
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
    file_mb: float = 500.0
    total_mb: float = 5000.0
    megapixels: float = LARGEST_PIXELS / 1e6

    def __post_init__(self) -> None:
        checked_whole(self.files, "uploads.files", 2)
        for key in ("file_mb", "total_mb", "megapixels"):
            checked_number(getattr(self, key), f"uploads.{key}")


def safe_name(name: str) -> str:
    """Return a name that is a file's own as far as it is safe on every system.

    What stands in it about focus distances must reach the commands: letters of any script, spaces, commas and units stay.
    Folders, control characters, marks that turn the direction of writing, and what Windows forbids go. A name that is too
    long keeps its end.
    """
    name = re.split(r"[/\\]", name)[-1]
    name = "".join("_" if one in '<>:"|?*' or _is_control(one) else one for one in name)
    name = name.encode()[-LONGEST_NAME_BYTES:].decode("utf-8", "ignore")
    name = name.lstrip(". ").rstrip(". ")
    if RESERVED.match(name):
        name = f"_{name}"
    return name or "unnamed"


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def received(files: Sequence[Path], folder: Path, limits: Limits, names: Sequence[str] | None = None) -> list[Path]:
    """Take uploads into a folder, all or none.

    Hidden files are passed over, as the commands do in a folder.

    Args:
        files: as they were uploaded; they stay where they are.
        folder: empty; receives them under safe names.
        limits: see :class:`Limits`.
        names: what the files are called on the user's side, where that is not what they are called here.

    Raises:
        InputError: too many, too large, empty, of another kind than the name says, or of a kind that is not taken.
    """
    said = [file.name for file in files] if names is None else [re.split(r"[/\\]", name)[-1] for name in names]
    shown = [(file, name) for file, name in zip(files, said, strict=True) if not name.startswith(".")]
    if len(shown) > limits.files:
        raise InputError(f"expected {limits.files} files at most, got {len(shown)} (uploads.files)")
    sizes = [file.stat().st_size for file, _ in shown]
    if sum(sizes) > 1e6 * limits.total_mb:
        raise InputError(f"expected {limits.total_mb:g} MB at most, got {sum(sizes) / 1e6:.0f} (uploads.total_mb)")
    safe: list[str] = []
    for (file, name), size in zip(shown, sizes, strict=True):
        safe.append(_unique(safe_name(name), safe))
        _check(file, safe[-1], size, limits)
    pictures = [name for name in safe if name not in TEXTS]
    is_stack = len(pictures) == 1 and has_pages(shown[safe.index(pictures[0])][0])  # a TIFF whose pages are slices
    if len(pictures) < 2 and not is_stack:
        raise InputError(f"expected two or more photographs of one scene, each focused elsewhere, got {len(pictures)}")
    taken = [folder / name for name in safe]
    for (file, _), path in zip(shown, taken, strict=True):
        _store(file, path)
    return taken


def _store(file: Path, path: Path) -> None:
    """The same bytes under another name: a link where it can be, so that nothing is on the disk twice."""
    try:
        os.link(file, path)
    except OSError:
        try:
            shutil.copyfile(file, path)
        except OSError as error:
            raise InputError(
                f"{path.name}: cannot be stored ({error.strerror}); start the page with folder=DIR"
            ) from None


def _same(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _unique(name: str, others: Sequence[str]) -> str:
    known, path, number = {_same(other) for other in others}, Path(name), 2
    while _same(name) in known:
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
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        got = f"{int(pixels[1]) / 1e6:.0f}" if pixels and int(pixels[1]) < 1e11 else "far more"
        raise InputError(_too_many_pixels(name, limits, got)) from None
    except Exception:  # Pillow raises whatever it likes on broken files
        raise InputError(f"{name}: not a readable image") from None
    if found != kind and (kind, found) != ("JPEG", "MPO"):  # phones write several JPEGs into one file
        raise InputError(f"{name}: its name says {kind}, but it is {found}")
    if width * height > 1e6 * limits.megapixels:
        raise InputError(_too_many_pixels(name, limits, f"{width * height / 1e6:.0f} ({width} x {height})"))


def _too_many_pixels(name: str, limits: Limits, got: str) -> str:
    return (
        f"{name}: expected {limits.megapixels:g} megapixels at most, got {got} (uploads.megapixels); make all photographs "
        "half as wide and high, keeping their EXIF, and give those"
    )
