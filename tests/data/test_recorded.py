"""Photographs as people have them: formats, rotation, EXIF, and where distances come from."""

import cv2
import numpy as np
import pytest
from PIL import Image

from sfdfd.data.images import list_images, read_photograph
from sfdfd.data.recorded import depth_range_m, distances_in_names, read_photographs, read_stack
from sfdfd.errors import InputError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65535, (20, 30, 3), dtype=np.uint16)
FLAT = (DEEP >> 8).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_survive(tmp_path, name):
    path = tmp_path / name
    cv2.imwrite(str(path), DEEP[..., ::-1])
    assert np.array_equal(read_photograph(path)[0], DEEP)
    cv2.imwrite(str(path), DEEP[..., 0])  # grey
    assert np.array_equal(read_photograph(path)[0], np.repeat(DEEP[..., :1], 3, 2))


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.tif", {}), ("a.tiff", {"compression": "tiff_lzw"})])
def test_alpha_is_dropped_and_colours_keep_their_order(tmp_path, name, options):
    Image.fromarray(np.dstack([FLAT, FLAT[..., 0]])).save(tmp_path / name, **options)
    assert np.array_equal(read_photograph(tmp_path / name)[0], FLAT)


UPRIGHT = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 3), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["a.png", "a.tif", "deep.tif"])
def test_rotation_is_undone(tmp_path, orientation, kind):
    """The eight orientations of EXIF's tag 274, against array operations."""
    exif = Image.Exif()
    exif[274] = orientation
    stored = DEEP[..., 0] if kind.startswith("deep") else FLAT
    Image.fromarray(stored).save(tmp_path / kind, exif=exif)
    read = read_photograph(tmp_path / kind)[0]
    expected = UPRIGHT[orientation](stored)
    assert np.array_equal(read[..., 0] if kind.startswith("deep") else read, expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "deep.png", "deep.tif", "a.jpg"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.97])
def test_truncated_files_are_refused_by_name(tmp_path, name, keep):
    path = tmp_path / name
    cv2.imwrite(str(path), DEEP if name.startswith("deep") else FLAT)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=name):
        read_photograph(path)


def save_with_exif(path, **tags):
    exif = Image.Exif()
    sub = exif.get_ifd(0x8769)
    for tag, value in tags.items():
        sub[int(tag[1:], 16)] = value
    Image.fromarray(FLAT).save(path, exif=exif, quality=95)


FOCAL, NUMBER, EQUIVALENT, DISTANCE, RESOLUTION, UNIT = "x920A", "x829D", "xA405", "x9206", "xA20E", "xA210"


def test_exif_gives_camera_and_distances(tmp_path):
    """Pitch from the 35 mm equivalent: the diagonal of 36 x 24 mm, scaled, over the image's diagonal in pixels."""
    for index, distance in enumerate((0.4, 1.0, 3.0)):
        save_with_exif(tmp_path / f"{index}.jpg", **{FOCAL: 6.81, NUMBER: 1.85, EQUIVALENT: 24, DISTANCE: distance})
    found = read_photographs(tmp_path)
    expected = np.hypot(36e-3, 24e-3) * 6.81 / 24 / np.hypot(20, 30)
    assert found.camera["pixel_pitch_m"] == pytest.approx(expected, rel=1e-6)
    assert (found.camera["focal_length_m"], found.camera["f_number"]) == pytest.approx((6.81e-3, 1.85))
    assert found.focus_distances_m == pytest.approx((0.4, 1.0, 3.0)) and found.missing == {}
    assert found.sources["focus_distances_m"] == "EXIF subject distance" and found.sources["f_number"] == "EXIF"


def test_the_sensors_resolution_gives_the_pitch(tmp_path):
    save_with_exif(tmp_path / "a.jpg", **{FOCAL: 50.0, RESOLUTION: 2000.0, UNIT: 3})
    assert read_photograph(tmp_path / "a.jpg")[1].pixel_pitch_m == pytest.approx(0.01 / 2000)


@pytest.mark.parametrize(("names", "expected"), [
    (["image_1_0.35", "image_2_0.50", "image_3_2.21"], ([0.35, 0.5, 2.21], False)),
    (["a 50cm", "b 120cm", "c 3m"], ([0.5, 1.2, 3.0], True)),
    (["f350mm_1", "f900mm_2"], ([0.35, 0.9], True)),
    (["s_0.5", "s_inf"], ([0.5, np.inf], False)),
    (["50mm_0.5m", "50mm_2m"], ([0.5, 2.0], True)),
    (["IMG_0001", "IMG_0002"], None), (["v1.5_1", "v1.5_2"], None), (["0.5", "b"], None),
])  # fmt: skip
def test_numbers_in_names(tmp_path, names, expected):
    found = distances_in_names([tmp_path / f"{name}.jpg" for name in names])
    if expected is None:
        assert found is None
    else:
        assert found[0] == pytest.approx(expected[0]) and found[1] == expected[1]


@pytest.fixture
def folder(tmp_path):
    for name in ("s_0.5.png", "s_1.0.png", "s_2.0.png"):
        Image.fromarray(FLAT).save(tmp_path / name)
    return tmp_path


def test_sources_come_in_order(folder):
    """Command line, stack.yaml, focus_distance.txt, file names: the first that knows."""
    assert read_photographs(folder).focus_distances_m == (0.5, 1.0, 2.0)
    (folder / "focus_distance.txt").write_text("20\n40\n80\n")
    assert read_photographs(folder, {"focus_distance_unit_m": 0.0254}).focus_distances_m[0] == pytest.approx(0.508)
    (folder / "stack.yaml").write_text("focus_distances_m: [3, 4, .inf]\ncamera: {f_number: 4}\n")
    found = read_photographs(folder, {"camera": {"focal_length_m": 0.05}})
    assert found.focus_distances_m == (3, 4, np.inf) and found.sources["focus_distances_m"].endswith("stack.yaml")
    assert found.camera == {"focal_length_m": 0.05, "f_number": 4.0, "pixel_pitch_m": None}
    assert list(found.missing) == ["camera.pixel_pitch_m"]
    found = read_photographs(folder, {"camera": {"f_number": 8}})
    assert found.camera["f_number"] == 8 and found.sources["f_number"] == "command line, instead of stack.yaml"
    assert read_photographs(folder, {"focus_distances_m": [1, 2, 3]}).sources["focus_distances_m"] == "command line"


def test_practically_infinite_is_infinite_and_the_range_follows(folder):
    found = read_photographs(folder, {"focus_distances_m": [0.25, 2.0, 1e5]})
    assert found.focus_distances_m == (0.25, 2.0, np.inf)
    assert depth_range_m(found.focus_distances_m, 0.005) == pytest.approx((0.15, 8.0))
    assert depth_range_m([1.0, 2.0], 0.05) == pytest.approx((0.6, 3.4))
    assert depth_range_m([0.06, 2.0], 0.05)[0] == pytest.approx(0.0505)
    with pytest.raises(InputError, match="near_m"):
        depth_range_m([np.inf, np.inf], 0.05)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"focus_distances_m": [350, 500, 900]}, "focus_distance_unit_m"),
    ({"focus_distances_m": [3.5e-7, 5e-7, 9e-7]}, "focus_distance_unit_m"),
    ({"focus_distances_m": [1, 1, 1]}, "two different"),
    ({"focus_distances_m": [1, 2]}, "expected 3 focus distances"),
    ({"focus_distances_m": [1, 2, float("nan")]}, "positive number"),
    ({"focus_distances_m": [1, 2, 0]}, "positive number"), ({"focus_distances_m": [1, 2, -1]}, "positive number"),
    ({"camera": {"focal_length_m": 50}}, "50 mm = 0.05"), ({"camera": {"f_number": 0}}, "positive number"),
    ({"camera": {"pixel_pitch_m": 2.4}}, "pixel_pitch_m"), ({"camera": {"pitch": 1}}, "unknown key 'pitch'"),
    ({"camera": {"focal_length_m": 0.7}}, "inside the focal length"),
    ({"near_m": 3, "far_m": 2}, "near_m < far_m"), ({"near_m": -1}, "positive number"),
    ({"files": ["s_0.5.png"]}, "two or more"), ({"files": ["none.png", "s_1.0.png"]}, "none.png"),
    ({"crop": [20, 0, 0, 0]}, "crop"), ({"focus_distance_unit_m": 0}, "positive number"),
])  # fmt: skip
def test_what_cannot_be_is_refused(folder, overrides, message):
    with pytest.raises(InputError, match=message):
        read_photographs(folder, overrides)


def test_broken_descriptions_are_refused(folder):
    for text, message in (
        ("", "expected a mapping"),
        ("a: [", "YAML"),
        ("cam: 1", "unknown key"),
        ("camera: 3", "camera"),
    ):
        (folder / "stack.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_photographs(folder)
    (folder / "stack.yaml").unlink()
    (folder / "focus_distance.txt").write_text("1\n2\n")
    with pytest.raises(InputError, match=r"focus_distance\.txt: expected 3"):
        read_photographs(folder)


def test_mixed_sizes_and_lone_images_are_refused(folder):
    with pytest.raises(InputError, match=r"camera\.focal_length_m is missing"):
        read_stack(folder)
    Image.fromarray(FLAT[:18]).save(folder / "s_4.0.png")
    with pytest.raises(InputError, match="one size"):
        read_photographs(folder)
    for name in ("s_4.0.png", "s_2.0.png", "s_1.0.png"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="two or more"):
        read_photographs(folder)


def test_numbers_sort_by_value(tmp_path):
    for name in ("a10.png", "a2.png", "a1.png", ".a0.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a1.png", "a2.png", "a10.png"]
