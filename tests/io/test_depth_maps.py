"""Depth maps of other programs keep their values in every form, and what is none is refused with a reason."""

import io

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.depth_maps import checked_depth_values, read_depth_map
from sfdfd.report.interchange import write_depth_exr
from sfdfd.report.portrait import EXTENDED, write_portrait

VALUES = np.linspace(500, 4000, 24 * 30).reshape(24, 30).astype(np.uint16)


@pytest.mark.parametrize(("name", "write"), [
    ("a.npy", lambda path, values: np.save(path, values.astype(np.float64))),
    ("a.png", lambda path, values: iio.imwrite(path, values)),
    ("a.tif", lambda path, values: tifffile.imwrite(path, values.astype(np.float32))),
    ("a.pfm", lambda path, values: cv2.imwrite(str(path), values.astype(np.float32))),
    ("A.PNG", lambda path, values: iio.imwrite(path, values, extension=".png")),
])  # fmt: skip
def test_values_are_read_as_they_are_stored(tmp_path, name, write):
    write(tmp_path / name, VALUES)
    found = read_depth_map(tmp_path / name)
    np.testing.assert_allclose(found.values, VALUES)
    assert found.kind is None and found.values.dtype == np.float32


def test_exr_by_its_channel(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    depth = torch.from_numpy(VALUES.astype(np.float32))
    write_depth_exr(tmp_path / "ours.exr", depth)
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    channels = {"ViewLayer.Depth.Z": VALUES.astype(np.float32), "R": np.ones_like(VALUES, np.float32)}
    with exr.File(header, channels) as file:
        file.write(str(tmp_path / "layers.exr"))
    for name in ("ours.exr", "layers.exr"):
        np.testing.assert_allclose(read_depth_map(tmp_path / name).values, VALUES)
    with exr.File(header, {"A": np.ones_like(VALUES, np.float32)}) as file:
        file.write(str(tmp_path / "alpha.exr"))
    with pytest.raises(InputError, match="channel Z"):
        read_depth_map(tmp_path / "alpha.exr")


@pytest.mark.parametrize("form", ["GDepth", "Dynamic Depth"])
def test_the_depth_inside_a_portrait(tmp_path, form):
    """Metres, to the steps of its 8 bits of inverse depth; Dynamic Depth is read where GDepth is missing."""
    path, depth_m = tmp_path / "p.jpg", torch.rand(60, 80) * 3 + 0.5
    write_portrait(path, depth_m, torch.rand(3, 60, 80))
    if form == "Dynamic Depth":
        path.write_bytes(path.read_bytes().replace(EXTENDED, b"x" * len(EXTENDED)))
    found = read_depth_map(path)
    assert found.kind == "depth" and form in found.source
    step = (1 / 0.5 - 1 / 3.5) / 255
    np.testing.assert_allclose(1 / found.values, 1 / depth_m.numpy(), atol=0.51 * step + 1e-4)


def test_the_depth_is_turned_as_its_jpeg(tmp_path):
    """A map that is stored as the sensor saw it follows the picture's orientation."""
    depth_m = torch.linspace(1, 3, 40)[:, None].expand(40, 60).contiguous()
    exif = Image.Exif()
    exif[0x0112] = 6
    write_portrait(tmp_path / "p.jpg", depth_m, torch.rand(3, 40, 60), exif=exif)
    values = read_depth_map(tmp_path / "p.jpg").values
    assert values.shape == (60, 40)
    np.testing.assert_allclose(values[0], np.linspace(3, 1, 40), rtol=0.01)  # turned clockwise: the top is at the right


def test_the_folder_of_a_prediction(tmp_path):
    np.save(tmp_path / "relative_depth.npy", VALUES / 4000)
    assert read_depth_map(tmp_path).kind is None
    np.save(tmp_path / "depth_m.npy", VALUES / 1000)
    found = read_depth_map(tmp_path)
    assert found.kind == "depth" and found.values.max() == 4


def test_unknown_is_not_a_number_and_infinity_is_far():
    values = checked_depth_values(np.array([[1.0, np.inf], [-np.inf, 2.0]]), "map")
    assert np.isposinf(values[0, 1]) and np.isnan(values[1, 0])


def colours():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("a.png", lambda: encoded(colours(), "PNG"), "coloured picture"),
    ("a.jpg", lambda: encoded(colours(), "JPEG"), "no depth inside"),
    ("a.jpg", lambda: b"\xff\xd8\xff\xe1", "not a readable image"),
    ("a.npy", lambda: b"no array", "not a NumPy array"),
    ("a.png", lambda: encoded(np.full((9, 9), 7, np.uint8), "PNG"), "constant"),
    ("a.pfm", lambda: b"Pf\n", "not a readable PFM"),
    ("a.exr", lambda: b"no exr", "OpenEXR"),
    ("a.txt", lambda: b"1 2 3", "expected a depth map"),
])  # fmt: skip
def test_what_is_no_depth_map_is_refused(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content())
    with pytest.raises(InputError, match=reason):
        read_depth_map(tmp_path / name)


def encoded(values, kind):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "values", [np.zeros((3, 4, 5, 6)), np.array([[1 + 2j]]), np.full((4, 4), np.nan), np.arange(9.0)]
)
def test_arrays_of_other_shapes_and_types_are_refused(values):
    with pytest.raises(InputError, match="map"):
        checked_depth_values(values, "map")


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path, tmp_path / "none.npy"):
        with pytest.raises(InputError, match="prior="):
            read_depth_map(path)


def test_entities_in_xmp_are_not_expanded(tmp_path):
    write_portrait(tmp_path / "p.jpg", torch.rand(20, 30) + 1, torch.rand(3, 20, 30))
    data = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(data.replace(b"<x:xmpmeta xmlns:x=", b"<!DOCTYPE a []>    "[:19], 1))
    with pytest.raises(InputError, match="entities"):
        read_depth_map(tmp_path / "p.jpg")
