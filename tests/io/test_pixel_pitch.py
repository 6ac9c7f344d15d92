"""The pixel pitch of unedited photographs and of those that software has changed."""

import pytest
from PIL import ExifTags

from sfdfd.io.pixel_pitch import pixel_pitch
from sfdfd.io.sensor_sizes import sensor_of

Tag = ExifTags.Base


def exif(make="", model="", **tags):
    """EXIF by tag number, of the short names below."""
    names = {
        "f": Tag.FocalLength, "f35": Tag.FocalLengthIn35mmFilm, "res": Tag.FocalPlaneXResolution,
        "unit": Tag.FocalPlaneResolutionUnit, "w": Tag.ExifImageWidth, "h": Tag.ExifImageHeight, "N": Tag.FNumber,
        "zoom": Tag.DigitalZoomRatio, "related": Tag.RelatedImageWidth, "related_h": Tag.RelatedImageLength,
        "tiff": Tag.ImageWidth, "tiff_h": Tag.ImageLength, "lens": Tag.LensSpecification,
    }  # fmt: skip
    by_number = {int(names[name]): value for name, value in tags.items()}
    return {**by_number, int(Tag.Make): make, int(Tag.Model): model}


CANON, NIKON, REBEL = "Canon", "NIKON CORPORATION", "Canon EOS 300D DIGITAL"
UNEDITED = [
    (CANON, "Canon EOS 5D Mark II", dict(f=100, N=2.8, res=3849.2118, w=5616, h=3744), (5616, 3744), 6.41),
    (CANON, "Canon EOS 5D", dict(f=50, res=4368000 / 1415, w=4368, h=2912), (4368, 2912), 8.2),
    (CANON, "Canon EOS 6D", dict(f=24, res=5472000 / 1436, w=5472, h=3648), (5472, 3648), 6.55),
    (CANON, REBEL, dict(f=55, res=3443.946, w=3072, h=2048), (3072, 2048), 7.38),
    (CANON, REBEL, dict(f=55, res=2295.964, w=2048, h=1360, related=2048, related_h=1360), (2048, 1360), 11.07),
    (CANON, "Canon EOS 40D", dict(f=17, res=4438.356, w=3888, h=2592), (3888, 2592), 5.7),
    (CANON, "Canon EOS 550D", dict(f=18, res=5715.545, w=5184, h=3456), (5184, 3456), 4.3),
    (CANON, "Canon EOS 90D", dict(f=50, res=7943.0, w=4640, h=4640), (4640, 4640), 3.2),  # the camera's own square
    (CANON, "Canon EOS 90D", dict(f=50, res=7943.0, w=6960, h=3920), (6960, 3920), 3.2),
    (CANON, "Canon EOS-1D Mark IV", dict(f=300, res=4896000 / 1100, w=4896, h=3264), (4896, 3264), 5.7),
    (CANON, "Canon EOS R5", dict(f=35, res=8192000 / 1421, w=8192, h=5464), (8192, 5464), 4.39),
    (CANON, "Canon EOS R6", dict(f=35, res=3872.36, w=3408, h=2272), (3408, 2272), 6.56),  # 1.6 x crop mode
    (CANON, "Canon PowerShot A620", dict(f=7.3, res=10816.9, w=3072, h=2304), (3072, 2304), 2.35),
    (CANON, "Canon PowerShot SX30 IS", dict(f=150.5, res=17777.8, w=4320, h=3240), (4320, 3240), 1.43),
    (CANON, "Canon PowerShot G7 X", dict(f=8.8, res=10534.4, w=5472, h=3648), (5472, 3648), 2.41),
    (NIKON, "NIKON D3300", dict(f=50, f35=75, N=1.8, w=6000, h=4000), (6000, 4000), 3.92),
    (NIKON, "NIKON D3300", dict(f=50, f35=75, w=6000, h=4000), (750, 500), 31.3),
    (NIKON, "NIKON D750", dict(f=85, f35=85, w=6016, h=4016), (6016, 4016), 5.97),
    (NIKON, "NIKON D850", dict(f=50, f35=75, w=5408, h=3600), (5408, 3600), 4.35),  # DX crop
    (NIKON, "NIKON Z 6_2", dict(f=105, f35=105, res=1689.4, unit=3, w=6048, h=4024), (6048, 4024), 5.94),
    (NIKON, "NIKON 1 J5", dict(f=18.5, f35=50, w=5568, h=3712), (5568, 3712), 2.37),
    ("SONY", "ILCE-7M3", dict(f=55, f35=55, res=1685.1, unit=3, w=6000, h=4000), (6000, 4000), 5.94),
    ("SONY", "ILCE-7M3", dict(f=55, f35=82, res=1685.1, unit=3, w=3936, h=2624), (3936, 2624), 5.94),  # APS-C mode
    ("SONY", "ILCE-6400", dict(f=30, f35=45, res=2551.0, unit=3, w=6000, h=4000), (6000, 4000), 3.92),
    ("SONY", "DSC-RX100M3", dict(f=8.8, f35=24, w=5472, h=3648), (5472, 3648), 2.41),
    ("FUJIFILM", "X-T3", dict(f=35, f35=53, res=2656, unit=3, w=6240, h=4160), (6240, 4160), 3.77),
    ("FUJIFILM", "GFX 50S", dict(f=63, f35=50, res=1884, unit=3, w=8256, h=6192), (8256, 6192), 5.31),
    ("FUJIFILM", "FinePix S5600", dict(f=6.3, f35=38, w=2592, h=1944), (2592, 1944), 2.22),
    ("OLYMPUS CORPORATION", "E-M10MarkII", dict(f=45, f35=90, w=4608, h=3456), (4608, 3456), 3.75),
    ("Panasonic", "DC-GH5", dict(f=25, f35=50, w=5184, h=3888), (5184, 3888), 3.34),
    ("Panasonic", "DMC-FZ200", dict(f=108, f35=600, N=2.8, w=4000, h=3000), (4000, 3000), 1.54),
    ("PENTAX", "PENTAX K-5", dict(f=40, f35=61, w=4928, h=3264), (4928, 3264), 4.78),
    ("Leica Camera AG", "LEICA Q2", dict(f=28, f35=28, w=8368, h=5584), (8368, 5584), 4.3),
    ("Apple", "iPhone 5", dict(f=4.12, f35=33, w=3264, h=2448), (3264, 2448), 1.4),
    ("Apple", "iPhone 5", dict(f=4.12, f35=33, w=979, h=734, tiff=3264, tiff_h=2448), (979, 734), 4.67),
    ("Apple", "iPhone 14 Pro", dict(f=6.86, f35=24, w=4032, h=3024, lens=(2.22, 9.0, 1.78, 2.8)), (4032, 3024), 2.44),
    ("Apple", "iPhone 14 Pro", dict(f=6.86, f35=48, w=4032, h=3024), (4032, 3024), 1.22),  # 2 x from 48 MP
    ("Apple", "iPhone 14 Pro", dict(f=6.86, f35=72, w=4032, h=3024, zoom=3.0), (4032, 3024), 0.81),
    ("Apple", "iPhone X", dict(f=6.0, f35=104, w=4032, h=3024, zoom=2.0), (4032, 3024), 0.5),
    ("samsung", "SM-S918B", dict(f=6.3, f35=23, w=4000, h=3000, zoom=1.0), (4000, 3000), 2.4),
    ("samsung", "SM-S918B", dict(f=6.3, f35=23, w=3000, h=4000), (3000, 4000), 2.4),  # stored upright
    ("samsung", "SM-G925I", dict(f=4.3, f35=28, w=3264, h=1836), (3264, 1836), 1.82),
    ("Google", "Pixel 6 Pro", dict(f=6.81, f35=24, w=4080, h=3072, zoom=0.0), (4080, 3072), 2.4),
    ("DJI", "FC7303", dict(f=4.49, f35=24, w=4000, h=3000, zoom=1.0), (4000, 3000), 1.58),
    ("", "", dict(f=50, f35=50), (6000, 4000), 6.0),
]  # fmt: skip


@pytest.mark.parametrize(("make", "model", "tags", "size", "expected"), UNEDITED)
def test_unedited_photographs_keep_the_pitch_of_exif(make, model, tags, size, expected):
    pitch = pixel_pitch(exif(make, model, **tags), size)
    assert 1e6 * pitch.pitch_m == pytest.approx(expected, rel=0.08)
    assert (pitch.origin, pitch.note) == ("EXIF", None)


@pytest.mark.parametrize(
    ("make", "model", "tags", "size", "expected"),
    [case for case in UNEDITED if case[2].get("w") and case[2].get("tiff") is None],
)
def test_rotation_by_software_keeps_the_pitch(make, model, tags, size, expected):
    """EXIF keeps the original size while the pixels are rotated; with and without the height in EXIF."""
    for left_out in ((), ("h",)):
        kept = {name: value for name, value in tags.items() if name not in left_out}
        pitch = pixel_pitch(exif(make, model, **kept), size[::-1])
        assert 1e6 * pitch.pitch_m == pytest.approx(expected, rel=0.08)


RESIZED = [
    # what the camera wrote about itself
    (CANON, "Canon EOS 5D Mark II", dict(f=100, res=3849.2118, w=2000, h=1333, tiff=5616, tiff_h=3744), (2000, 1333), 18.5),
    (CANON, REBEL, dict(f=55, res=2295.964, w=1024, h=680, related=2048, related_h=1360), (1024, 680), 22.1),
    ("", "", dict(f=50, res=4233, w=1500, h=1000, related=6000, related_h=4000), (1500, 1000), 24.0),
    # the model
    (CANON, "Canon EOS 5D Mark II", dict(f=100, N=2.8, res=3849.2118, w=2000, h=1333), (2000, 1333), 18.0),
    (CANON, REBEL, dict(f=55, res=2295.964, w=1024, h=680), (1024, 680), 22.1),
    (CANON, "Canon EOS 550D", dict(f=50, res=5715.545, w=800, h=533), (533, 800), 28.0),
    # the 35 mm equivalent
    ("SONY", "ILCE-7M3", dict(f=55, f35=55, res=1685.1, unit=3, w=2000, h=1333), (2000, 1333), 17.9),
    ("", "", dict(f=50, f35=50, res=1685.1, unit=3, w=4000, h=2667), (4000, 2667), 9.0),
    ("", "", dict(f=35, f35=53, N=2, res=2656, unit=3, w=1200, h=800), (1200, 800), 19.6),
    ("", "", dict(f=25, f35=50, res=3000, unit=3, w=1296, h=972), (1296, 972), 13.3),
    ("HUAWEI", "P30", dict(f=5.6, f35=27, res=5000, unit=3, w=1000, h=750), (1000, 750), 7.2),
]  # fmt: skip


@pytest.mark.parametrize(("make", "model", "tags", "size", "expected"), RESIZED)
def test_resizing_by_software_is_detected(make, model, tags, size, expected):
    pitch = pixel_pitch(exif(make, model, **tags), size)
    assert 1e6 * pitch.pitch_m == pytest.approx(expected, rel=0.04)
    assert pitch.origin.startswith("EXIF, corrected: ") and "um, not the" in pitch.note and "resized" in pitch.note


@pytest.mark.parametrize(("make", "model", "tags", "size", "words"), [
    ("", "", dict(f=50, N=1.8, res=3849.2, w=1000, h=667), (1000, 667), "no sensor of this camera is 6.6 mm wide"),
    ("", "", dict(f=50, res=2000, unit=3), (30, 20), "0.15 mm"),
    ("", "", dict(f=20, res=2656, unit=3, w=1000, h=750, lens=(16, 50, 2.8, 2.8)), (1000, 750), "3.77 mm"),
    (CANON, "Canon PowerShot G15", dict(f=6.1, res=13653.3, w=1000, h=750), (1000, 750), "1.86 mm"),
    (CANON, "Canon EOS 5D Mark II", dict(f=100, res=3849.2, w=1500, h=1500), (1500, 1500), "14.8 mm"),  # cropped, too
    ("", "", dict(f=50, res=4233, w=6000, h=4000), (2500, 2300), "a crop hides"),
    ("", "", dict(f=50, f35=28), (6000, 4000), "64.3 mm"), ("", "", dict(f=4.3, f35=4), (4000, 3000), "37.2 mm"),
    ("Apple", "iPhone 8", dict(f=4.0, f35=8), (4000, 3000), "17.3 mm"),
])  # fmt: skip
def test_pitch_is_unknown_if_no_sensor_fits(make, model, tags, size, words):
    pitch = pixel_pitch(exif(make, model, **tags), size)
    assert pitch.pitch_m is None and words in pitch.note and "camera.pixel_pitch_m=NUMBER" in pitch.note


@pytest.mark.parametrize(("make", "model", "tags", "size", "expected", "words"), [
    # wrong 35 mm equivalents, beside a sensor's resolution or a model that says better
    (CANON, "Canon EOS 6D", dict(f=50, f35=200, res=3810.6, w=5472, h=3648), (5472, 3648), 6.6, None),
    ("", "", dict(f=50, f35=200, res=4233, w=6000, h=4000), (6000, 4000), 6.0, None),
    (NIKON, "NIKON D3300", dict(f=50, f35=50, w=6000, h=4000), (6000, 4000), 3.92, "23.6 mm wide"),
    (NIKON, "NIKON D3300", dict(f=50, f35=500), (1500, 1000), 15.7, "23.6 mm wide"),
    # digital zoom
    (CANON, "Canon PowerShot A620", dict(f=29.2, res=10816.9, zoom=4.0), (3072, 2304), 0.587, "enlarged 4 times"),
    ("samsung", "SM-S918B", dict(f=6.3, f35=23, zoom=2.0), (4000, 3000), 1.2, "digital zoom of 2"),
    # the equivalent of the whole sensor, the image a crop of it
    ("Google", "Pixel 3", dict(f=4.44, f35=27, w=3840, h=2160), (3840, 2160), 1.47, "whole 4:3 sensor"),
    ("Apple", "iPhone 13", dict(f=5.1, f35=26, w=4032, h=2268), (2268, 4032), 1.67, "whole 4:3 sensor"),
    ("Apple", "iPhone 13", dict(f=5.1, f35=26, w=3024, h=3024), (3024, 3024), 1.68, "whole 4:3 sensor"),
    ("SONY", "ILCE-6400", dict(f=30, f35=45, w=6000, h=3376), (6000, 3376), 3.98, "whole 3:2 sensor"),
    # cropped by software that kept the size in EXIF
    ("", "", dict(f=50, res=4233, w=6000, h=4000), (4000, 4000), 6.0, "cropped"),
    ("", "", dict(f=50, res=4233, w=6000, h=4000), (3200, 4000), 6.0, "cropped"),
    ("", "", dict(f=50, res=4233, w=6000, h=4000), (1920, 1080), 18.75, None),
])  # fmt: skip
def test_zoom_crops_and_wrong_equivalents_are_corrected(make, model, tags, size, expected, words):
    pitch = pixel_pitch(exif(make, model, **tags), size)
    assert 1e6 * pitch.pitch_m == pytest.approx(expected, rel=0.04)
    assert (pitch.note is None) == (words is None) and (words is None or words in pitch.note)


def test_without_usable_tags_there_is_no_pitch_and_no_note():
    for tags in (
        {},
        dict(f=50),
        dict(f35=50),
        dict(f=0, f35=0),
        dict(res=0),
        dict(res=5, unit=1),
        dict(res=5, unit="x"),
    ):
        pitch = pixel_pitch(exif(**tags), (30, 20))
        assert pitch.pitch_m is None and pitch.note is None


@pytest.mark.parametrize(("make", "model", "width"), [
    (CANON, "Canon EOS R5m2", 35.9), (CANON, "Canon EOS R50", 22.4), (CANON, "Canon EOS R10", 22.4),
    (CANON, "Canon EOS M50", 22.4),
    (NIKON, "NIKON D500", 23.6), (NIKON, "NIKON D5", 35.9), (NIKON, "NIKON Z 50", 23.6), (NIKON, "NIKON Z fc", 23.6),
    (NIKON, "NIKON Z6_3", 35.9), ("SONY", "ILCE-9", 35.9), ("SONY", "DSC-RX1", 35.9), ("SONY", "DSC-RX100M7", 13.2),
    ("OM Digital Solutions", "OM-1", 17.3), ("RICOH IMAGING COMPANY, LTD.", "PENTAX K-1", 35.9), ("", "", None),
    ("RICOH IMAGING COMPANY, LTD.", "RICOH GR III", 23.6), ("Panasonic", "DC-S5", 35.9), ("ACME", "Box 1", None),
])  # fmt: skip
def test_sensor_of_camera_models(make, model, width):
    sensor = sensor_of(make, model)
    assert sensor is None if width is None else sensor.width_mm == width
