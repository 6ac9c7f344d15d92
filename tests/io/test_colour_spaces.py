"""Colour profiles, against the closed forms of their colour spaces."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io import colour_spaces as colour
from sfdfd.io.images import read_photograph

RNG = np.random.default_rng(0)
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
PROPHOTO = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def light_of(codes):
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def codes_of(light):
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def to_xyz(white, primaries):
    """(3,3) from linear RGB to XYZ, by its definition: full red, green and blue add up to white."""
    x, y = np.array(primaries).reshape(3, 2).T
    columns = np.stack([x / y, np.ones(3), (1 - x - y) / y])
    full = np.array([white[0] / white[1], 1, (1 - sum(white)) / white[1]])
    return columns * np.linalg.solve(columns, full), full


def matrix_to_srgb(white, primaries):
    """With Bradford's adaptation from one white to the other."""
    (source, from_white), (target, to_white) = to_xyz(white, primaries), to_xyz(D65, SRGB)
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapted = np.linalg.inv(cones) @ np.diag((cones @ to_white) / (cones @ from_white)) @ cones
    return np.linalg.inv(target) @ adapted @ source


SPACES = {
    "Display P3": (D65, P3, None),
    "Adobe RGB": (D65, ADOBE, 563 / 256),
    "ProPhoto": (D50, PROPHOTO, 1.8),
    "linear": (D65, SRGB, 1.0),
}


def profile_of(space):
    white, primaries, gamma = SPACES[space]
    if gamma is None:
        curve = (light_of(np.linspace(0, 1, 4096)) * 65535).round().astype(np.uint16)
        return imagecodecs.cms_profile("rgb", whitepoint=white, primaries=primaries, transferfunction=curve)
    return imagecodecs.cms_profile("rgb", whitepoint=white, primaries=primaries, gamma=gamma)


def expected(space, codes):
    """sRGB in [0, 1] of codes in [0, 1], where sRGB has the colour."""
    white, primaries, gamma = SPACES[space]
    light = light_of(codes) if gamma is None else codes**gamma
    light = light @ matrix_to_srgb(white, primaries).T
    return codes_of(light.clip(0, 1)), ((light >= 0) & (light <= 1)).all(-1)


PALE = 0.25 + 0.5 * RNG.random((32, 40, 3))
WIDE = RNG.random((32, 40, 3))


def write(path, codes, profile):
    if path.suffix == ".png" and codes.dtype == np.uint8:
        Image.fromarray(codes).save(path, icc_profile=profile)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, codes, photometric="rgb", iccprofile=profile)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("name", "top"), [("a.png", 255), ("a.tif", 255), ("deep.tif", 65535), ("float.tif", 1)])
@pytest.mark.parametrize("values", [PALE, WIDE, 0.02 * PALE], ids=["pale", "wide", "dark"])
def test_conversion_by_profile_matches_reference(tmp_path, space, name, top, values):
    """Exact to half an 8-bit code, or to 16-bit precision if the file has it."""
    codes = {1: values.astype(np.float32), 255: (values * 255).round().astype(np.uint8),
             65535: (values * 65535).round().astype(np.uint16)}[top]  # fmt: skip
    write(tmp_path / name, codes, profile_of(space))
    image, facts = read_photograph(tmp_path / name)
    assert image.dtype == codes.dtype and facts.colour_source == "embedded profile"
    wanted, inside = expected(space, codes / top)
    error = np.abs(image / top - wanted)
    assert error[inside].max() <= (0.55 / 255 if top == 255 else 1e-3)
    assert error.max() <= 2e-3 + 0.53 / 255
    assert facts.outside_srgb == pytest.approx(1 - inside.mean(), abs=0.1) if values is WIDE else True


def test_decoding_as_srgb_gives_the_light_of_the_files_curve(tmp_path):
    """With gamma 1.8, grey c decodes to light c ** 1.8."""
    ramp = np.repeat(np.linspace(0, 65535, 64).round().astype(np.uint16)[None, :, None], 3, 2).repeat(16, 0)
    write(tmp_path / "a.tif", ramp, profile_of("ProPhoto"))
    light = light_of(read_photograph(tmp_path / "a.tif")[0] / 65535)
    np.testing.assert_allclose(light, (ramp / 65535) ** 1.8, atol=5e-5)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize(("top", "kind"), [(255, np.uint8), (65535, np.uint16)])
def test_grey_profiles_are_applied(tmp_path, gamma, top, kind):
    ramp = np.linspace(0, top, 64).round().astype(kind)[None].repeat(16, 0)
    tifffile.imwrite(tmp_path / "a.tif", ramp, iccprofile=imagecodecs.cms_profile("gray", gamma=gamma))
    image = read_photograph(tmp_path / "a.tif")[0]
    wanted = codes_of((ramp / top) ** gamma)[..., None]
    assert np.abs(image / top - wanted).max() <= 0.55 / 255 if top == 255 else 2e-4


def test_display_p3_jpeg_is_converted(tmp_path):
    flat = np.full((16, 16, 3), (200, 120, 60), np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.jpg", quality=100, subsampling=0, icc_profile=profile_of("Display P3"))
    image, facts = read_photograph(tmp_path / "a.jpg")
    stored = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert np.abs(image / 255 - expected("Display P3", stored / 255)[0]).max() <= 0.53 / 255
    assert facts.outside_srgb == 0


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_profiles_in_webp_and_avif_are_applied(tmp_path, kind):
    flat = np.full((32, 32, 3), (200, 120, 60), np.uint8)
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(flat).save(path, kind, quality=100, icc_profile=profile_of("Adobe RGB"))
    error = np.abs(read_photograph(path)[0] / 255 - expected("Adobe RGB", flat / 255)[0])
    assert error.max() <= 4 / 255 < np.abs(flat / 255 - expected("Adobe RGB", flat / 255)[0]).max()


def test_profile_in_heic_is_applied(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    flat = np.full((64, 64, 3), (200, 120, 60), np.uint8)
    file = pillow_heif.from_bytes(mode="RGB", size=(64, 64), data=flat.tobytes())
    file.info["icc_profile"], file.info["icc_profile_type"] = profile_of("Display P3"), "prof"
    file[0].info.update(file.info)
    file.save(tmp_path / "a.heic", quality=-1)
    image, facts = read_photograph(tmp_path / "a.heic")
    assert facts.colour_source == "embedded profile"
    assert np.abs(image / 255 - expected("Display P3", flat / 255)[0]).max() <= 2 / 255


def test_srgb_is_not_changed(tmp_path):
    """No value changes, whatever name the sRGB profile has."""
    codes = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    for index, profile in enumerate((None, colour.srgb_profile(), imagecodecs.cms_profile("srgb"), b"broken")):
        write(tmp_path / f"{index}.png", codes, profile)
        image, facts = read_photograph(tmp_path / f"{index}.png")
        assert np.array_equal(image, codes) and facts.colour_space == "sRGB"
    assert "broken" in facts.colour_source


def test_adobe_rgb_named_only_in_exif_is_converted(tmp_path):
    codes = (PALE * 255).round().astype(np.uint8)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
    Image.fromarray(codes).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    image, facts = read_photograph(tmp_path / "a.jpg")
    assert (facts.colour_space, facts.colour_source) == ("Adobe RGB (1998)", "EXIF")
    stored = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert np.abs(image / 255 - expected("Adobe RGB", stored / 255)[0]).max() <= 0.53 / 255


@pytest.mark.parametrize(("chunks", "space"), [
    ({b"gAMA": (100000).to_bytes(4, "big")}, "linear"), ({b"gAMA": (45455).to_bytes(4, "big")}, None),
    ({b"cICP": bytes([12, 13, 0, 1])}, "Display P3"), ({b"cICP": bytes([1, 13, 0, 1])}, None),
    ({b"sRGB": b"\0", b"gAMA": (100000).to_bytes(4, "big")}, None),
])  # fmt: skip
def test_colour_chunks_of_png_are_read(tmp_path, chunks, space):
    from PIL import PngImagePlugin

    codes, info = (PALE * 255).round().astype(np.uint8), PngImagePlugin.PngInfo()
    for name, content in chunks.items():
        info.add(name, content)
    Image.fromarray(codes).save(tmp_path / "a.png", pnginfo=info)
    image = read_photograph(tmp_path / "a.png")[0]
    wanted = codes / 255 if space is None else expected(space, codes / 255)[0]
    assert np.abs(image / 255 - wanted).max() <= 0.53 / 255


def test_cmyk_without_profile_is_refused(tmp_path):
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg: CMYK without a colour profile"):
        read_photograph(tmp_path / "a.jpg")


def test_a_profile_with_tables_is_converted_by_littlecms():
    """Without curves and matrix, as for a profile with tables, the result is the same."""
    codes = (PALE * 65535).round().astype(np.uint16)
    space = colour.colour_space(profile_of("Adobe RGB"), {})
    tables = colour.ColourSpace("tables", "embedded profile", profile=profile_of("Adobe RGB"))
    by_curves, by_library = colour.to_srgb(codes, space)[0], colour.to_srgb(codes, tables)[0]
    assert np.abs(by_curves.astype(int) - by_library).max() <= 2 and not np.array_equal(by_curves, codes)
