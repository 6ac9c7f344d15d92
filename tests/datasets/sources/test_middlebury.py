"""Middlebury 2014: disparity and calibration to metric depth."""

import shutil
import warnings

import imageio.v3 as iio
import numpy as np
import pytest

from sfdfd.datasets.sources.middlebury import depth_of_scene_m, read_pfm
from sfdfd.datasets.synthetic import RGBDDataModule
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from tests.conftest import CAMERA, FOCUS_M
from tests.datasets.sources.helpers import RNG, converted, file_contents, image, message_id, write_pfm


def middlebury_scene(scene, disparity):
    scene.mkdir(parents=True)
    iio.imwrite(scene / "im0.png", image(*disparity.shape))
    write_pfm(scene / "disp0.pfm", disparity)
    (scene / "calib.txt").write_text(
        "cam0=[3979.911 0 1244.772; 0 3979.911 1019.507; 0 0 1]\ncam1=[3979.911 0 1369.115; 0 3979.911 1019.507; 0 0 1]\n"
        "doffs=124.343\nbaseline=193.001\nwidth=2964\nheight=2000\n"
    )
    return scene


def test_middlebury(tmp_path):
    disparity = RNG.uniform(20, 200, (30, 40)).astype(np.float32)
    disparity[:2] = np.inf
    scene = middlebury_scene(tmp_path / "zips" / "Motorcycle-perfect", disparity)
    np.testing.assert_array_equal(read_pfm(scene / "disp0.pfm"), disparity)
    calibration = {"focal_px": 3979.911, "baseline_mm": 193.001, "doffs": 124.343}
    expected = 0.193001 * 3979.911 / (disparity[2:] + 124.343)
    np.testing.assert_allclose(depth_of_scene_m(disparity, calibration)[2:], expected, rtol=1e-6)
    root = converted("middlebury", [tmp_path / "zips"], tmp_path / "out")
    module = RGBDDataModule(
        str(root),
        depth_unit_m=1e-4,
        renderer=DefocusRenderer(),
        camera=CAMERA,
        focus_distances_m=FOCUS_M,
        near_m=0.5,
        far_m=10.0,
    )
    stack = module.dataset("test")[0]
    assert stack.name == ("Motorcycle",) and not stack.valid[0, :2].any() and stack.valid[0, 2:].all()
    np.testing.assert_allclose(stack.depth_m[0, 2:].numpy(), expected, atol=6e-5)


def test_middlebury_depth_out_of_range_is_unknown(tmp_path):
    disparity = np.full((24, 32), 100, np.float32)
    disparity[0, :4] = -20, -124.343, -200, np.nan  # 7.36 m, infinitely far, behind, nothing
    middlebury_scene(tmp_path / "set" / "Piano", disparity)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = converted("middlebury", [tmp_path / "set"], tmp_path / "out")
    stored = iio.imread(root / "depth" / "Piano.png")
    assert (stored[0, :4] == 0).all() and (stored[1:] == round(0.193001 * 3979.911 / 224.343 * 1e4)).all()


def test_middlebury_archives_in_one_folder_are_found(tmp_path):
    for name in ("Piano-perfect", "Pipes-perfect", "Motorcycle-perfect", "Motorcycle-imperfect"):
        middlebury_scene(tmp_path / "scenes" / name, RNG.uniform(20, 200, (24, 32)).astype(np.float32))
    expected = converted("middlebury", [tmp_path / "scenes"], tmp_path / "expected")
    names = ["Motorcycle-imperfect", "Motorcycle-perfect", "Piano", "Pipes"]
    assert sorted(path.stem for path in (expected / "rgb").iterdir()) == names
    given = tmp_path / "given"
    given.mkdir()
    for scene in (tmp_path / "scenes").iterdir():
        shutil.make_archive(str(given / scene.name), "zip", tmp_path / "scenes", scene.name)
    shutil.copytree(tmp_path / "scenes" / "Piano-perfect", given / "Piano-perfect")  # one is unpacked already
    shutil.copytree(tmp_path / "scenes" / "Pipes-perfect", given / ".trash" / "Pipes-perfect")
    root = converted("middlebury", [given], given / "out")
    assert file_contents(root) == file_contents(expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PF\n2 2\n-1\n" + bytes(48),
        b"Pf\n2 2\n-1\n" + bytes(15),
        b"Pf\n2 2\n-1\n" + bytes(20),
        b"Pf\n0 2\n-1\n",
        b"Pf\n999999 999999\n-1\n" + bytes(16),
        b"Pf\n99999999999999999999 1\n-1\n",
        b"Pf\n2 2\nscale\n" + bytes(16),
        b"Pf\n2 2\n\xff\n" + bytes(16),
        b"Pf\n" + b"2" * 1000,
    ],
    ids=message_id,
)
def test_float_maps_with_wrong_headers_are_refused(tmp_path, content):
    (tmp_path / "disp0.pfm").write_bytes(content)
    with pytest.raises(InputError, match=r"disp0\.pfm: (not a portable float map|\d+ bytes for \d+ x \d+ pixels)"):
        read_pfm(tmp_path / "disp0.pfm")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"cam0=[3979.911", b"cam0=[1.2.3", "focal_px"),
        (b"baseline=193.001", b"baseline=-1", "baseline_mm"),
        (b"baseline=193.001", b"baseline=0", "baseline_mm"),
        (b"doffs=124.343", b"doffs=nan", "doffs"),
        (b"doffs=124.343", b"", "doffs"),
        (b"doffs", b"\xff\xfe", "not readable as text"),
    ],
    ids=message_id,
)
def test_malformed_middlebury_calibrations_are_reported(tmp_path, old, new, message):
    scene = middlebury_scene(tmp_path / "set" / "Piano", np.full((24, 32), 100, np.float32))
    calibration = scene / "calib.txt"
    calibration.write_bytes(calibration.read_bytes().replace(old, new))
    with pytest.raises(InputError, match=rf"calib\.txt.*{message}"):
        converted("middlebury", [tmp_path / "set"], tmp_path / "out")
