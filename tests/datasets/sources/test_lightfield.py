"""The 4D Light Field Benchmark, and folders of refocused pictures."""

import shutil
import warnings

import imageio.v3 as iio
import numpy as np
import pytest

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.recorded import RecordedDataModule
from sfdfd.datasets.sources.lightfield import refocused
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.read import read_photographs
from tests.datasets.sources.helpers import RNG, converted, image, message_id, splits_of, write_pfm


def shifted_views(texture, disparity, views=9):
    """A plane of constant disparity: as the camera goes right (or down), its texture goes left (or up)."""
    middle = views // 2
    rows = [
        [np.roll(texture, (-disparity * (v - middle), -disparity * (u - middle)), (0, 1)) for u in range(views)]
        for v in range(views)
    ]
    return np.array(rows)


def test_refocusing_sharpens_the_plane_of_its_disparity():
    texture = image(40, 48)
    views = shifted_views(texture, 1)
    sharp = refocused(views, 1.0)
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(sharp[inner], texture[inner], atol=1e-3)
    for disparity in (0.0, -1.0):
        assert np.abs(refocused(views, disparity)[inner] - texture[inner]).mean() > 20


@pytest.fixture
def lightfield(tmp_path):
    scene = tmp_path / "hci" / "training" / "cotton"
    scene.mkdir(parents=True)
    for index in range(81):
        iio.imwrite(scene / f"input_Cam{index:03d}.png", image(24, 24))
    (scene / "parameters.cfg").write_text(
        "[intrinsics]\nfocal_length_mm = 100.0\nsensor_size_mm = 5.0\nfstop = 100.0\n[extrinsics]\nbaseline_mm = 50.0\n"
        "focus_distance_m = 3.0\n[meta]\nscene = cotton\ncategory = training\ndisp_min = -1.0\ndisp_max = 1.0\n"
    )
    disparity = RNG.uniform(-1, 1, (24, 24)).astype(np.float32)
    write_pfm(scene / "gt_disp_lowres.pfm", disparity)
    return scene, disparity


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"focus_distance_m = 3.0", b"focus_distance_m = 0", "focus_distance_m: expected a positive"),
        (b"sensor_size_mm = 5.0", b"sensor_size_mm = 0", "sensor_size_mm: expected a positive"),
        (b"baseline_mm = 50.0", b"baseline_mm = nan", "baseline_mm: expected a positive"),
        (b"disp_min = -1.0", b"disp_min = -inf", "disp_min: expected a finite"),
        (b"disp_min = -1.0", b"disp_min = 1.0", "disp_min < disp_max"),
        (b"disp_min = -1.0", b"disp_min = -100", "no depth in front of the camera"),
        (b"scene = cotton", b"disp_min = 1%(", "parameters"),
        (b"scene = cotton", b"\xff\xfe", "not readable as text"),
    ],
    ids=message_id,
)
def test_impossible_lightfield_parameters_are_reported(lightfield, tmp_path, old, new, message):
    file = lightfield[0] / "parameters.cfg"
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(InputError, match=rf"parameters\.cfg.*{message}"):
        converted("lightfield", [tmp_path / "hci"], tmp_path / "out")


def test_lightfield_views_and_depth_need_one_size(lightfield, tmp_path):
    scene, disparity = lightfield
    disparity[0] = -24  # infinitely far
    disparity[1] = np.nan
    write_pfm(scene / "gt_disp_lowres.pfm", disparity)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = converted("lightfield", [tmp_path / "hci"], tmp_path / "out")
    assert (np.load(root / "cotton" / "truth" / "depth_m.npy")[:2] == 0).all()
    write_pfm(scene / "gt_disp_lowres.pfm", disparity[:12])
    with pytest.raises(InputError, match="cotton: a depth of shape"):
        converted("lightfield", [tmp_path / "hci"], tmp_path / "again")
    iio.imwrite(scene / "input_Cam080.png", image(24, 12))
    with pytest.raises(InputError, match=r"input_Cam080\.png: .*one size"):
        converted("lightfield", [tmp_path / "hci"], tmp_path / "again")


def test_lightfield(lightfield, tmp_path):
    _, disparity = lightfield
    root = converted("lightfield", [tmp_path / "hci"], tmp_path / "out")
    stack = StacksDataModule(str(root)).dataset("train")[0]
    focal_px = 100.0 / 5.0 * 24
    np.testing.assert_allclose(stack.depth_m[0].numpy(), 1 / (1 / 3 + disparity / (focal_px * 0.05)), rtol=1e-5)
    assert stack.images.shape == (1, 7, 3, 24, 24) and stack.focus_distances_m[0, 3] == pytest.approx(3.0)
    assert bool((stack.focus_distances_m[0].diff() > 0).all()) and stack.aif is not None


@pytest.mark.slow
def test_refocused_pictures_become_stacks_without_camera(tmp_path):
    for name in ("flower", "street/night"):
        scene = tmp_path / "lytro" / name
        scene.mkdir(parents=True)
        for index in (10, 9):
            iio.imwrite(scene / f"slice_{index}.png", image(40, 48))
    (tmp_path / "lytro" / "flower" / "focus_distance.txt").write_text("0.2\n0.5\n")
    root = converted("lightfield", [tmp_path / "lytro"], tmp_path / "out")
    flower, night = read_photographs(root / "flower"), read_photographs(root / "street_night")
    assert flower.focus_distances_m == (0.2, 0.5) and flower.known_camera() is None
    assert night.focus_distances_m is None and "focus_distances_m" in night.missing
    first = iio.imread(tmp_path / "lytro" / "flower" / "slice_9.png")
    np.testing.assert_array_equal(flower.images[0], first)
    common = {"renderer": DefocusRenderer(sigma_scale=0.5), "align": {"mode": False}, "working_px": 48}
    with pytest.raises(InputError, match=r"street_night.*data\.relative=true"):
        RecordedDataModule(str(root), **common).dataset("all")[1]
    module = RecordedDataModule(str(root), relative=True, **common)
    assert module.dataset("all")[1].images.shape == (1, 2, 3, 40, 48) and module.protocol()["relative"]
    (tmp_path / "lytro" / "flower" / "focus_distance.txt").write_text("0.2\n")
    with pytest.raises(InputError, match=r"focus_distance\.txt: 1 distances for 2"):
        converted("lightfield", [tmp_path / "lytro"], tmp_path / "again")


def test_refocused_stacks_get_unique_names_independent_of_others(tmp_path):
    places = ["a b", "a_b", "a/b", "splits", "plain", "tab\there", "street/.hidden", "street/__MACOSX"]
    for place in places:
        (tmp_path / "lytro" / place).mkdir(parents=True)
        for index in range(2):
            iio.imwrite(tmp_path / "lytro" / place / f"{index}.png", image(16, 16))
    root = converted("lightfield", [tmp_path / "lytro"], tmp_path / "out")
    names = splits_of(root)["train"]
    assert len(set(names)) == 6 and {"a_b", "plain", "tab_here"} < set(names)
    assert sorted(names) == sorted(path.parent.name for path in root.rglob("stack.yaml"))
    for name, place in (("a_b", "a_b"), ("tab_here", "tab\there")):
        there = iio.imread(root / name / "slice_00.png")
        np.testing.assert_array_equal(there, iio.imread(tmp_path / "lytro" / place / "0.png"))
    shutil.rmtree(tmp_path / "lytro" / "a b")
    again = converted("lightfield", [tmp_path / "lytro"], tmp_path / "again")
    assert set(splits_of(again)["train"]) < set(names) and len(splits_of(again)["train"]) == 5


@pytest.mark.parametrize(
    "text", [b"0.2\nnan\n", b"0.2\n-1\n", b"0.2\nfar\n", b"\xff\xfe", b"0.2,0.5,0.7"], ids=message_id
)
def test_malformed_focus_distances_are_reported(tmp_path, text):
    (tmp_path / "lytro" / "flower").mkdir(parents=True)
    for index in range(2):
        iio.imwrite(tmp_path / "lytro" / "flower" / f"{index}.png", image(16, 16))
    (tmp_path / "lytro" / "flower" / "focus_distance.txt").write_bytes(text)
    with pytest.raises(InputError, match=r"focus_distance\.txt"):
        converted("lightfield", [tmp_path / "lytro"], tmp_path / "out")
