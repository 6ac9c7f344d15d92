"""Image files of many encoders, with odd EXIF."""

import imageio.v3 as iio
import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from tests.fuzz.stacks import pixels


def exif_bytes(random_, odd):
    """EXIF of a photograph; odd values where ``odd``."""
    rational = TiffImagePlugin.IFDRational
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Nobody"
    ifd = exif.get_ifd(ExifTags.IFD.Exif)
    usual = {
        ExifTags.Base.FocalLength: rational(50, 1), ExifTags.Base.FNumber: rational(8, 1),
        ExifTags.Base.SubjectDistance: rational(3, 2), ExifTags.Base.FocalPlaneXResolution: rational(83333, 100),
        ExifTags.Base.FocalPlaneResolutionUnit: 3, ExifTags.Base.ExifImageWidth: 32,
        ExifTags.Base.DateTimeOriginal: "2024:01:01 10:00:00", ExifTags.Base.FocalLengthIn35mmFilm: 75,
        ExifTags.Base.SubsecTimeOriginal: "12", ExifTags.Base.MakerNote: b"Nikon\0\2\x10\0\0MM\0*\0\0\0\x08\0\0",
    }  # fmt: skip
    strange = [
        rational(0, 1),
        rational(1, 0),
        rational(0, 0),
        rational(2**32 - 1, 1),
        rational(1, 2**32 - 1),
        "x",
        "",
        b"\xff",
        0,
        65535,
    ]
    for tag, value in usual.items():
        if random_.random() < 0.8:
            ifd[tag] = random_.choice(strange) if odd and random_.random() < 0.4 else value
    if odd and random_.random() < 0.5:
        exif[ExifTags.Base.Orientation] = random_.choice([0, 3, 9, 255, "x", 65535])
    try:
        return exif.tobytes()
    except Exception:  # Pillow writes no such thing
        return b"Exif\0\0II*\0\x08\0\0\0\xff\xff"


def image_file(path, random_):
    """A slice as one of many encoders writes it, 24 x 32 unless it is odd."""
    kind = random_.randrange(16)
    exif = exif_bytes(random_, odd=random_.random() < 0.6)
    picture = Image.fromarray(pixels(random_.randrange(100)))
    if kind <= 3:
        picture.save(path.with_suffix(".jpg"), "JPEG", exif=exif, quality=80, progressive=kind == 0)
        return path.with_suffix(".jpg")
    if kind <= 5:
        picture.save(path.with_suffix(".png"), "PNG", exif=exif)
        return path.with_suffix(".png")
    if kind <= 7:
        compression = random_.choice([None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
        picture.save(path.with_suffix(".tif"), "TIFF", compression=compression)
        return path.with_suffix(".tif")
    if kind == 8:
        picture.save(path.with_suffix(".jpg"), "WEBP", exif=exif)  # of a suffix that is not its own
        return path.with_suffix(".jpg")
    path = path.with_suffix(random_.choice([".png", ".png", ".tif"]))
    if kind == 9:
        iio.imwrite(
            path,
            pixels(1, dtype=np.uint16)
            if path.suffix == ".tif"
            else pixels(1, channels=3)[..., 0].astype(np.uint16) * 256,
        )
    elif kind == 10:
        picture.convert(
            random_.choice(["L", "LA", "RGBA", "P", "1"] if path.suffix == ".png" else ["L", "RGBA", "P", "1"])
        ).save(path)
    elif kind == 11:
        frames = [Image.fromarray(pixels(i)) for i in range(3)]
        frames[0].save(path, random_.choice(["PNG", "GIF", "WEBP", "TIFF"]), save_all=True, append_images=frames[1:])
    elif kind == 12:
        Image.fromarray(pixels(0, *random_.choice([(1, 1), (1, 3000), (16, 16), (15, 32)]))).save(path)
    elif kind == 13:
        values = np.random.default_rng(0).random((24, 32, 3)).astype(random_.choice(["f4", "f8", "f2", "i4", "u4"]))
        values[0, 0] = random_.choice([0, 2, -1, np.nan]) if values.dtype.kind == "f" else 7
        path = path.with_suffix(".tif")
        iio.imwrite(path, values, extension=".tif")
    elif kind == 14:
        path.write_bytes(
            random_.choice([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"II*\0", b"GIF89a", b"x" * 500, bytes(24)])
        )
    else:
        path.mkdir()
    return path
