"""Uploads by people who mean harm: refused in one line, nothing taken, nothing decoded."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.images import LARGEST_PIXELS, list_images
from sfdfd.photographs.file_names import numbers_in_names
from sfdfd.web.uploads import Limits, safe_name, store_prior, store_uploads

LIMITS = Limits(files=4, file_mb=0.5, total_mb=1.0, megapixels=1.0)


def picture(path, size=(40, 30), kind=None):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(path, kind)
    return path


def png_header(path, width, height):
    """A PNG of any size by its header, its pixels a bomb: zeros that deflate to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(200_000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def text_bomb(path):
    """A PNG whose text inflates to 100 MB."""
    picture(path)
    data = path.read_bytes()
    body = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])


HOSTILE = {
    "100,000 pixels by header": ("a.png", lambda path: png_header(path, 100_000, 100_000), "megapixels"),
    "a bomb just above the bound": ("a.png", lambda path: png_header(path, 1001, 1000), "megapixels"),
    "text that inflates": ("a.png", text_bomb, "not a readable image"),
    "a zip for a photograph": ("a.jpg", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1000)), "not a readable"),
    "a page for a photograph": ("a.png", lambda path: path.write_text("<script>alert(1)</script>"), "not a readable"),
    "a drawing with a script": ("a.svg", lambda path: path.write_text("<svg onload='alert(1)'/>"), "another kind"),
    "a GIF for a JPEG": ("a.jpg", lambda path: picture(path, kind="GIF"), "not a readable image"),
    "a PNG for a JPEG": ("a.jpg", lambda path: picture(path, kind="PNG"), "but it is PNG"),
    "nothing": ("a.png", lambda path: path.write_bytes(b""), "empty"),
    "a pickle": ("a.npy", lambda path: np.save(path, np.array([{}], object)), "another kind"),
    "a description with code": ("stack.yaml", lambda path: path.write_text("!!python/object/apply:os.system"), "another"),
    "too large a file": ("a.png", lambda path: path.write_bytes(bytes(600_000)), "file_mb"),
    "too long a table": ("focus_distance.txt", lambda path: path.write_bytes(b"1 " * 10_000), "bytes"),
    "a TIFF that lies": ("a.tif", lambda path: path.write_bytes(b"II*\0\xff\xff\xff\x7f" + bytes(64)), "not a readable"),
    "a checkpoint": ("a.ckpt", lambda path: path.write_bytes(b"PK"), "another kind"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_uploads_are_refused_in_one_line(tmp_path, case):
    name, make, words = HOSTILE[case]
    (tmp_path / "up").mkdir()
    (tmp_path / "into").mkdir()
    make(tmp_path / "up" / name)
    good = [picture(tmp_path / "up" / f"good{i}.png") for i in range(2)]
    with pytest.raises(InputError, match=words) as error:
        store_uploads([*good, tmp_path / "up" / name], tmp_path / "into", LIMITS)
    assert "\n" not in str(error.value) and name in str(error.value)
    assert not list((tmp_path / "into").iterdir())


@pytest.mark.parametrize(
    ("width", "height", "passes"), [(9504, 6336, True), (11648, 8736, True), (20000, 10000, False)]
)
def test_default_limits_accept_the_largest_cameras(tmp_path, width, height, passes):
    """61 and 102 megapixels; 200 end in a line with the cure, as in the file's own default."""
    (tmp_path / "into").mkdir()
    files = [tmp_path / f"{index}.png" for index in range(2)]
    for file in files:
        png_header(file, width, height)
    said = yaml.safe_load((Path(__file__).parents[2] / "conf" / "app.yaml").read_text())["uploads"]
    assert Limits(**said) == Limits()
    if passes:
        assert len(store_uploads(files, tmp_path / "into", Limits())) == 2
    else:
        with pytest.raises(
            InputError, match=r"0\.png: expected 120 megapixels at most, got 200 .*half as wide"
        ) as error:
            store_uploads(files, tmp_path / "into", Limits())
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["bmp", "webp", "avif", "jp2", "pgm", "ppm", "tif"])
def test_every_readable_kind_is_stored(tmp_path, suffix):
    (tmp_path / "into").mkdir()
    for index in range(2):
        mode = "L" if suffix == "pgm" else "RGB"
        Image.new(mode, (40, 30), index).save(tmp_path / f"{index}.{suffix}")
    assert len(store_uploads(sorted(tmp_path.glob(f"*.{suffix}")), tmp_path / "into", LIMITS)) == 2


def test_a_tiff_of_several_pages_is_a_stack_by_itself(tmp_path):
    (tmp_path / "into").mkdir()
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8), photometric="minisblack")
    assert len(store_uploads([tmp_path / "a.tif"], tmp_path / "into", LIMITS)) == 1


def test_number_and_total_size_are_limited_and_one_photograph_is_too_few(tmp_path):
    (tmp_path / "into").mkdir()
    files = [picture(tmp_path / f"{i}.png", (340, 340)) for i in range(5)]
    with pytest.raises(InputError, match=r"4 files at most, got 5 \(uploads.files\)"):
        store_uploads(files, tmp_path / "into", LIMITS)
    with pytest.raises(InputError, match="total_mb"):
        store_uploads(files[:4], tmp_path / "into", LIMITS)
    with pytest.raises(InputError, match="two or more photographs"):
        store_uploads(files[:1], tmp_path / "into", LIMITS)
    assert not list((tmp_path / "into").iterdir())


@pytest.mark.parametrize(("name", "safe"), [
    ("../../etc/passwd.png", "passwd.png"), ("..\\..\\boot.ini.png", "boot.ini.png"), ("/abs/0.5m.jpg", "0.5m.jpg"),
    ("C:\\fakepath\\0.5m.jpg", "0.5m.jpg"), (".hidden.png", "hidden.png"), ("a;rm -rf ~$(x)`y`.png", None),
    ("zwei\nZeilen\0.png", "zwei_Zeilen_.png"), ("..", "unnamed"), ("", "unnamed"), (" .. ", "unnamed"),
    ("<img src=x onerror=alert(1)>.png", "_img src=x onerror=alert(1)_.png"), ("a:b|c?d*e\".png", "a_b_c_d_e_.png"),
    ("gpj.\u202e1.5m.jpg", "gpj._1.5m.jpg"), ("\ud800.jpg", "_.jpg"), ("a.jpg. .", "a.jpg"),
    ("0,35m.jpg", None), ("Äpfel 1.20m.JPG", None), ("写真.jpg", None), ("1.25 dpt.jpg", None), ("50 cm.jpg", None),
    ("50\u00a0cm.jpg", None), ("1,5 m (близко) ½ #2 + 'x' & 100%.tiff", None), ("\u0645\u06cc\u200c\u062e\u0648.jpg", None),
    ("A\u0308pfel.jpg", None), ("-1.png", None), ("👩\u200d🌾 2m.jpg", None),
    ("CON.png", "_CON.png"), ("com1.1.5m.jpg", "_com1.1.5m.jpg"), ("Lpt² .jpg", "_Lpt² .jpg"), ("nul", "_nul"),
    ("conference.png", None), ("com10.png", None),
    ("x" * 300 + "1.5m.png", "x" * 232 + "1.5m.png"), ("写" * 100 + "1.5m.png", "写" * 77 + "1.5m.png"),
])  # fmt: skip
def test_safe_names_keep_what_is_safe_on_every_system(name, safe):
    found = safe_name(name)
    assert found == (name if safe is None else safe) and len(found.encode()) <= 240 and safe_name(found) == found


def test_uploads_are_stored_whole_under_different_names(tmp_path):
    for folder in ("one", "two", "into"):
        (tmp_path / folder).mkdir()
    files = [picture(tmp_path / "one" / "a.png"), picture(tmp_path / "two" / "A.png", (20, 20))]
    (tmp_path / "one" / "focus_distance.txt").write_text("1\n2\n")
    taken = store_uploads([*files, tmp_path / "one" / "focus_distance.txt"], tmp_path / "into", LIMITS)
    assert [path.name for path in taken] == ["a.png", "A_2.png", "focus_distance.txt"]
    assert [path.read_bytes() for path in taken[:2]] == [path.read_bytes() for path in files]


def test_the_users_names_are_used_and_kept_different(tmp_path):
    (tmp_path / "into").mkdir()
    files = [picture(tmp_path / f"up{i}.jpg", (20 + i, 20)) for i in range(6)]
    names = ["1.25 dpt.jpg", "1.25 DPT.jpg", "写真 50 cm.jpg", "A\u0308.jpg", "Ä.JPG", "sub/1.25 dpt.jpg"]
    taken = store_uploads(files, tmp_path / "into", Limits(files=6), names)
    assert [path.name for path in taken] == [
        "1.25 dpt.jpg", "1.25 DPT_2.jpg", "写真 50 cm.jpg", "A\u0308.jpg", "Ä_2.JPG", "1.25 dpt_3.jpg"
    ]  # fmt: skip
    assert [path.read_bytes() for path in taken] == [path.read_bytes() for path in files]


def test_hidden_files_are_ignored(tmp_path):
    (tmp_path / "into").mkdir()
    files = [picture(tmp_path / f"{i}.png") for i in range(4)]
    names = ["a.png", "._a.png", "b.png", ".DS_Store"]
    assert [path.name for path in store_uploads(files, tmp_path / "into", LIMITS, names)] == ["a.png", "b.png"]


def test_distances_in_stored_names_equal_those_in_the_users_folder(tmp_path):
    for case, names in enumerate((["1.25 dpt.jpg", "2 dpt.jpg", "0 dpt.jpg"], ["50 cm.jpg", "120 cm.jpg", "3 m.jpg"],
                                  ["写真 0,5m.jpg", "写真 1m.jpg", "写真 inf.jpg"])):  # fmt: skip
        own, into = tmp_path / f"own{case}", tmp_path / f"into{case}"
        own.mkdir()
        into.mkdir()
        files = [picture(own / name) for name in names]
        stored = [picture(tmp_path / f"{case}{i}.jpg") for i in range(3)]  # whatever the server calls them
        store_uploads(stored, into, LIMITS, names)
        assert list_images(into) == [into / file.name for file in list_images(own)]
        assert numbers_in_names(list_images(into)) == numbers_in_names(list_images(own)) is not None
        assert any(number.unit for number in numbers_in_names(files))


def test_a_storage_error_is_one_line(tmp_path):
    files = [picture(tmp_path / f"{i}.png") for i in range(2)]
    with pytest.raises(InputError, match=r"0\.png: cannot be stored"):
        store_uploads(files, tmp_path / "nowhere", LIMITS)


def shipped():
    """The bounds that the page has by default."""
    found = yaml.safe_load(Path(__file__).parents[2].joinpath("conf", "app.yaml").read_text(encoding="utf-8"))
    return Limits(**found["uploads"])


def test_default_limits_accept_61_megapixels_and_refuse_200(tmp_path):
    assert shipped() == Limits()
    (tmp_path / "into").mkdir()
    files = [tmp_path / f"{i}.png" for i in range(10)]
    for file in files:
        png_header(file, 9504, 6336)
        with file.open("r+b") as opened:
            opened.truncate(9504 * 6336 * 6)  # 16 bit, not compressed; sparse here
    assert len(store_uploads(files, tmp_path / "into", shipped())) == 10
    assert LARGEST_PIXELS >= 9504 * 6336
    for size in ((16320, 12240), (20000, 10000), (40000, 30000)):
        png_header(files[3], *size)
        with pytest.raises(InputError, match=r"3.png: expected 120 megapixels at most.*half as wide") as error:
            store_uploads(files, tmp_path / "into", shipped())
        assert "\n" not in str(error.value) and "uploads.megapixels" in str(error.value)


@pytest.mark.parametrize("values", [{"files": 1}, {"files": 2.5}, {"file_mb": 0}, {"megapixels": float("nan")}])
def test_limits_are_checked(values):
    with pytest.raises(InputError, match=f"uploads.{next(iter(values))}"):
        Limits(**values)


def test_a_depth_map_is_stored_under_our_name(tmp_path):
    """Whatever it was called; and what is no map, empty, or of another kind than its name says is refused."""
    folder = tmp_path / "job"
    folder.mkdir()
    np.save(tmp_path / "$(rm -r) x.npy", np.eye(4))
    assert store_prior(tmp_path / "$(rm -r) x.npy", folder, LIMITS) == "prior.npy"
    picture(tmp_path / "map.png")
    assert store_prior(tmp_path / "map.png", folder, LIMITS) == "prior.png" and (folder / "prior.npy").is_file()
    (tmp_path / "empty.exr").touch()
    (tmp_path / "a.sh").write_text("x")
    picture(tmp_path / "b.jpg", kind="PNG")
    for name in ("empty.exr", "a.sh", "b.jpg"):
        with pytest.raises(InputError, match="Depth map"):
            store_prior(tmp_path / name, folder, LIMITS)
