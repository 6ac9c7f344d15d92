"""Files in the formats of cameras and phones, made of a stack by real encoders."""

import io

import numpy as np
from PIL import Image

AS_SHOT = np.array([0.5, 1.0, 0.6])
"""What the sensor makes of white, of its greatest value."""
BLACK, WHITE = 512, 16383
XYZ_TO_SRGB = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.969266, 1.8760108, 0.041556],
                        [0.0556434, -0.2040259, 1.0572252]])  # fmt: skip


def linear(codes):
    """sRGB in [0, 1] -> light."""
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def rationals(values):
    return [part for value in np.ravel(values) for part in (round(float(value) * 10000), 10000)]


def write_dng(path, light, more=()):
    """A DNG of an RGGB sensor (tifffile's encoder) that saw ``light``, (H,W,3) linear sRGB, under a bluish light."""
    import tifffile

    sensor = light * AS_SHOT
    mosaic = sensor[..., 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = sensor[0::2, 0::2, 0], sensor[1::2, 1::2, 2]
    tags = [
        (33421, "H", 2, (2, 2)), (33422, "B", 4, bytes([0, 1, 1, 2])), (50706, "B", 4, bytes([1, 4, 0, 0])),
        (50708, "s", 0, "Synthetic"), (50721, "2i", 9, rationals(np.diag(AS_SHOT) @ XYZ_TO_SRGB)),
        (50728, "2I", 3, rationals(AS_SHOT)), (50714, "H", 1, BLACK), (50717, "H", 1, WHITE), (50778, "H", 1, 21), *more,
    ]  # fmt: skip
    data = (mosaic * (WHITE - BLACK) + BLACK).round().astype(np.uint16)
    tifffile.imwrite(path, data, photometric="cfa", extratags=tags, metadata=None)


def write_heic(path, image, exif=None, quality=-1):
    """A HEIC (libheif's encoder); uint16 becomes 10 bits."""
    import pillow_heif

    mode = "RGB;16" if image.dtype == np.uint16 else "RGB"
    file = pillow_heif.from_bytes(mode=mode, size=image.shape[1::-1], data=np.ascontiguousarray(image).tobytes())
    file.save(path, quality=quality, **({} if exif is None else {"exif": exif.tobytes()}))


def write_video(path, frames, codec="libx264", **options):
    """A video (FFmpeg's encoder) of (H,W,3) uint8 frames."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"crf": "10", **options})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def exif_with(**tags):
    """EXIF with tags such as ``x829D=8.0``."""
    exif = Image.Exif()
    exif.endian = "<"  # Pillow 12.3 writes big-endian unless told; the notes within are little-endian
    sub = exif.get_ifd(0x8769)
    for tag, value in tags.items():
        sub[int(tag[1:], 16)] = value
    return exif


def write_canon(path, image, distance_cm):
    """A JPEG whose Canon maker's note says a focus distance."""

    def encoded(offset):
        values = np.zeros(34, "<u2")
        values[0], values[19] = 68, distance_cm
        entry = np.array([1], "<u2").tobytes() + np.array([4, 3], "<u2").tobytes()
        note = entry + np.array([34, offset], "<u4").tobytes() + bytes(4) + values.tobytes()
        exif = exif_with(x927C=note)
        exif[0x010F], exif[0x0110] = "Canon", "Canon EOS R5"
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", exif=exif, quality=95)
        return file.getvalue(), note

    data, note = encoded(0)
    tiff = data.index(b"Exif\0\0") + 6  # offsets count from here
    path.write_bytes(encoded(data.index(note) - tiff + len(note) - 68)[0])
