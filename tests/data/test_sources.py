"""Each published format, written here as its authors write it, read back in metres."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sfdfd.captured import CapturedDataModule
from sfdfd.data.datamodule import RecordedDataModule, RGBDDataModule
from sfdfd.data.fetch import MANIFEST, RemoteFile, aside, download, extract, read_manifest
from sfdfd.data.recorded import read_photographs
from sfdfd.data.sources import SOURCES
from sfdfd.data.sources.ddff12 import BASELINE_M, FOCAL_PX, depth_of_disparity_m
from sfdfd.data.sources.lightfield import refocused
from sfdfd.data.sources.middlebury import depth_of_scene_m, read_pfm
from sfdfd.data.sources.nyu import nyu_split
from sfdfd.data.sources.zedd import write_submission
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from tests.conftest import CAMERA, FOCUS_M

RNG = np.random.default_rng(0)


def image(height=24, width=32):
    return RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)


def nothing(done, total):
    pass


def converted(name, paths, root):
    record = {"data": name}
    with aside(root, record) as part:
        record["samples"] = SOURCES[name].convert(paths, part, nothing)
    return root


def write_pfm(path, values):
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1\n".encode() + values[::-1].astype("<f4").tobytes())


# ---------------------------------------------------------------- files


def test_the_official_nyu_split_is_complete_and_disjoint():
    train, val, test = (nyu_split(split) for split in ("train", "val", "test"))
    assert len(test) == 654 and len(train) + len(val) == 795
    assert sorted([*train, *val, *test]) == [f"{i:04d}" for i in range(1449)]
    assert test[:5] == ["0000", "0001", "0008", "0013", "0014"] and test[-1] == "1448"


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../outside", "C:/x"])
def test_archive_members_never_leave_the_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", "x")
        archive.writestr(name, "x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    for archive in ("a.zip", "a.tar"):
        with pytest.raises(InputError, match="outside of the folder"):
            extract(tmp_path / archive, tmp_path / "inside")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "inside" / "good").exists()


def test_links_in_archives_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        entry = tarfile.TarInfo("file")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    extract(tmp_path / "a.tar.gz", tmp_path / "inside")
    assert [path.name for path in (tmp_path / "inside").iterdir()] == ["file"]


def test_broken_archives_and_missing_links_are_said(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(InputError, match=r"a\.zip"):
        extract(tmp_path / "a.zip", tmp_path / "inside")
    with pytest.raises(InputError, match="by hand"):
        download(RemoteFile("x.zip"), tmp_path / "x.zip", nothing, "somewhere")


def test_downloads_are_checked_and_dead_links_say_what_to_do(tmp_path):
    content = bytes(range(256)) * 100
    (tmp_path / "served").write_bytes(content)
    url = (tmp_path / "served").as_uri()
    target = tmp_path / "got"
    with pytest.raises(InputError, match="checksum"):
        download(RemoteFile("got", url, "0" * 64), target, nothing, "here")
    assert not target.exists() and not list(tmp_path.glob("*.part"))
    download(RemoteFile("got", url), target, nothing, "here")
    assert target.read_bytes() == content
    with pytest.raises(InputError, match="fetch other by hand"):
        download(RemoteFile("other", (tmp_path / "none").as_uri()), tmp_path / "other", nothing, "here")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content``; knows ranges unless ``ranges`` is False; breaks off after ``limit`` bytes of an answer."""

    content, ranges, limit, asked = b"", True, None, []

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if first >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(self.content) - first))
        self.end_headers()
        self.wfile.write(self.content[first:][: self.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    class Fresh(Server):
        content, asked = bytes(range(256)) * 100, []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield Fresh, f"http://127.0.0.1:{one.server_port}/got"
        one.shutdown()
        thread.join()


def test_an_interrupted_download_continues_where_it_stopped(server, tmp_path):
    handler, url = server
    file = RemoteFile("got", url, hashlib.sha256(handler.content).hexdigest())
    handler.limit = 10_000
    with pytest.raises(InputError, match=r"10000 of 25600 bytes.*continue|could not download"):
        download(file, tmp_path / "got", nothing, "here")
    assert (tmp_path / "got.part").stat().st_size == 10_000 and not (tmp_path / "got").exists()
    handler.limit, seen = None, []
    download(file, tmp_path / "got", lambda done, total: seen.append((done, total)), "here")
    assert (tmp_path / "got").read_bytes() == handler.content and handler.asked == [None, "bytes=10000-"]
    assert seen[-1] == (25600, 25600)


def test_a_download_that_stopped_before_its_last_rename_is_finished(server, tmp_path):
    handler, url = server
    (tmp_path / "got.part").write_bytes(handler.content)
    download(RemoteFile("got", url, hashlib.sha256(handler.content).hexdigest()), tmp_path / "got", nothing, "here")
    assert (tmp_path / "got").read_bytes() == handler.content
    (tmp_path / "other.part").write_bytes(handler.content + b"more than there is")
    with pytest.raises(InputError, match="could not download"):
        download(RemoteFile("other", url), tmp_path / "other", nothing, "here")


def test_a_server_without_ranges_starts_afresh(server, tmp_path):
    handler, url = server
    handler.ranges = False
    (tmp_path / "got.part").write_bytes(b"what an earlier try left")
    download(RemoteFile("got", url), tmp_path / "got", nothing, "here")
    assert (tmp_path / "got").read_bytes() == handler.content


def test_a_folder_is_whole_or_not_there(tmp_path):
    root = tmp_path / "set"
    with pytest.raises(RuntimeError), aside(root, {}) as part:
        (part / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".set.part").mkdir()  # what a killed run leaves
    (tmp_path / ".set.part" / "old").write_text("x")
    with aside(root, {"data": "x"}) as part:
        (part / "new").write_text("x")
    assert sorted(path.name for path in root.iterdir()) == [MANIFEST, "new"] and read_manifest(root) == {"data": "x"}


# ---------------------------------------------------------------- DefocusNet


@pytest.fixture
def defocusnet(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    folder = tmp_path / "fs_6"
    folder.mkdir()
    depth = {}
    for number in (0, 1, 399, 400):
        for index in range(5):
            Image.fromarray(image()).save(folder / f"{number:06d}_{index:02d}All.tif")
        depth[number] = RNG.uniform(0.1, 2.5, (24, 32)).astype(np.float16)
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        with openexr.File(header, {key: depth[number] for key in "RGB"}) as file:
            file.write(str(folder / f"{number:06d}Dpt.exr"))
    Image.fromarray(image()).save(folder / "000400Aif.tif")
    return folder, depth


def test_defocusnet(defocusnet, tmp_path):
    folder, depth = defocusnet
    root = converted("defocusnet", [folder], tmp_path / "out")
    module = RecordedDataModule(str(root), split="test")
    stack = module.dataset("test")[0]
    assert stack.focus_distances_m[0].tolist() == pytest.approx([0.1, 0.15, 0.3, 0.7, 1.5])
    np.testing.assert_allclose(stack.depth_m[0].numpy(), depth[400].astype(np.float32))
    assert stack.aif is not None and stack.camera[0].f_number == 1.0
    assert [len(module.dataset(split)) for split in ("train", "val", "test")] == [2, 1, 1]
    low = RecordedDataModule(str(root), far_mask_m=0.5).dataset("test")[0]
    assert torch.equal(low.valid, stack.valid & (stack.depth_m <= 0.5)) and not torch.equal(low.valid, stack.valid)


# ---------------------------------------------------------------- DDFF-12


@pytest.fixture
def ddff12(tmp_path):
    h5py = pytest.importorskip("h5py")
    disparity = RNG.uniform(0.02, 0.28, (2, 24, 32)).astype(np.float32)
    disparity[0, :3] = 0
    with h5py.File(tmp_path / "my_ddff_trainVal.h5", "w") as file:
        for split in ("train", "val"):
            file[f"stack_{split}"] = RNG.uniform(0, 255, (2, 10, 24, 32, 3)).astype(np.float32)
            file[f"disp_{split}"] = disparity
    return tmp_path / "my_ddff_trainVal.h5", disparity


def test_ddff12(ddff12, tmp_path):
    source, disparity = ddff12
    root = converted("ddff12", [source], tmp_path / "out")
    stack = RecordedDataModule(str(root)).dataset("val")[0]
    focus = stack.focus_distances_m[0].numpy()
    np.testing.assert_allclose(focus[[0, -1]], [0.504, 7.062], rtol=2e-3)  # 0.5 to 7 m, as the authors say
    assert stack.images.shape == (1, 10, 3, 24, 32)
    known = disparity[0] > 0
    assert not stack.valid[0].numpy()[~known].any()
    np.testing.assert_allclose(
        stack.depth_m[0].numpy()[known], 1 / (disparity[0][known] / (FOCAL_PX * BASELINE_M)), rtol=1e-5
    )
    np.testing.assert_allclose(depth_of_disparity_m(depth_of_disparity_m(disparity)), disparity, rtol=1e-6)
    h5py = pytest.importorskip("h5py")
    with h5py.File(source) as file, h5py.File(tmp_path / "other.h5", "w") as other:  # colour before height
        for key in file:
            other[key] = file[key][:].transpose(0, 1, 4, 2, 3) if key.startswith("stack") else file[key][:]
    again = RecordedDataModule(str(converted("ddff12", [tmp_path / "other.h5"], tmp_path / "again"))).dataset("val")[0]
    assert torch.equal(again.images, stack.images)
    # a slice averages nine views: a point one pixel of disparity off its focus is spread over nine pixels, a radius of 4.5
    camera = stack.camera[0]
    assert camera.blur_scale_px_m / (FOCAL_PX * BASELINE_M) == pytest.approx(4.5, rel=0.02)


# ---------------------------------------------------------------- Mobile Depth


@pytest.fixture
def mobile_depth(tmp_path):
    folder = tmp_path / "mobile"
    aligned = folder / "Aligned" / "Figure6" / "metals"
    aligned.mkdir(parents=True)
    for index in range(3):
        iio.imwrite(aligned / f"a{index:02d}.jpg", image(48, 64))
        iio.imwrite(aligned / f"{index:02d}.jpg", image(48, 64))
    calibration = folder / "calibration" / "metal"
    calibration.mkdir(parents=True)
    (calibration / "calibrated.txt").write_text("10.0 1.1\n20.0 1.1\n40000.0 1.1\n1200.5\n")
    return folder


def test_mobile_depth(mobile_depth, tmp_path):
    root = converted("mobile_depth", [mobile_depth], tmp_path / "out")
    described = yaml.safe_load((root / "metals" / "stack.yaml").read_text())
    assert described["focus_distances_m"] == [float("inf"), pytest.approx(0.508), pytest.approx(0.254)]
    assert len(described["files"]) == 3 and described["camera"]["f_number"] is None and "truth" not in described
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for file in mobile_depth.rglob("*.*"):
            archive.write(file, file.relative_to(mobile_depth))
    again = converted("mobile_depth", [tmp_path / "two.zip"], tmp_path / "again")
    assert (again / "metals" / "stack.yaml").read_text() == (root / "metals" / "stack.yaml").read_text()
    assert sorted(path.name for path in again.iterdir()) == [MANIFEST, "metals", "splits"]


# ---------------------------------------------------------------- Middlebury


def test_middlebury(tmp_path):
    scene = tmp_path / "zips" / "Motorcycle-perfect"
    scene.mkdir(parents=True)
    disparity = RNG.uniform(20, 200, (30, 40)).astype(np.float32)
    disparity[:2] = np.inf
    iio.imwrite(scene / "im0.png", image(30, 40))
    write_pfm(scene / "disp0.pfm", disparity)
    (scene / "calib.txt").write_text(
        "cam0=[3979.911 0 1244.772; 0 3979.911 1019.507; 0 0 1]\ncam1=[3979.911 0 1369.115; 0 3979.911 1019.507; 0 0 1]\n"
        "doffs=124.343\nbaseline=193.001\nwidth=2964\nheight=2000\n"
    )
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


# ---------------------------------------------------------------- ZEDD


def test_zedd_and_its_submission(tmp_path):
    folder = tmp_path / "ZEDD"
    motors = {1: ("6D3E", 0.82), 2: ("4EA8", 1.2), 5: ("2371", 3.0)}
    folder.mkdir()
    (folder / "metadata.txt").write_text(
        "# run\tmotor\tfocus\n" + "".join(f"run_{k}\t{m}\t{f}\n" for k, (m, f) in motors.items())
    )
    depth = RNG.uniform(0.8, 9, (60, 90)).astype(np.float32)
    depth[0] = 0
    for scene, truth in (("val/val_0001", True), ("test/test_0001", False)):
        (folder / scene / "focus_stack").mkdir(parents=True)
        (folder / scene / "gt").mkdir()
        for run, (motor, _) in motors.items():
            for stop in ("1.4", "2.8", "16.0"):
                iio.imwrite(
                    folder / scene / "focus_stack" / f"img_run_{run}_motor_{motor}_aperture_F{stop}.jpg", image(60, 90)
                )
        np.savetxt(folder / scene / "gt" / "K.txt", np.array([[125.0, 0, 45], [0, 125.0, 30], [0, 0, 1]]))
        if truth:
            np.save(folder / scene / "gt" / "depth.npy", depth)
    root = converted("zedd", [folder], tmp_path / "out")
    module = RecordedDataModule(str(root))
    stack = module.dataset("val")[0]
    assert stack.focus_distances_m[0].tolist() == pytest.approx([0.82, 1.2, 3.0]) and stack.aif is not None
    camera = stack.camera[0]
    assert (
        camera.focal_length_m == pytest.approx(0.05)
        and camera.f_number == 2.8
        and camera.pixel_pitch_m == pytest.approx(4e-4)
    )
    assert torch.equal(stack.valid[0], torch.from_numpy((depth >= 0.5) & (depth <= 20)))
    assert module.dataset("test")[0].depth_m is None
    with pytest.raises(InputError, match="50 depth maps"):
        write_submission(tmp_path / "s.zip", [depth])
    write_submission(tmp_path / "s.zip", [np.ones((12, 18))] * 50)
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == [f"zedd_output_{i:04d}.npy" for i in range(1, 51)]
        values = np.load(io.BytesIO(archive.read("zedd_output_0050.npy")))
    assert values.shape == (1216, 1824) and values.dtype == np.float32
    bad = [np.ones((12, 18))] * 49 + [np.full((12, 18), np.nan)]
    with pytest.raises(InputError, match="not finite"):
        write_submission(tmp_path / "bad.zip", bad)
    assert not list(tmp_path.glob("bad*"))


# ---------------------------------------------------------------- light fields


def shifted_views(texture, disparity, views=9):
    """A plane of constant disparity: as the camera goes right (or down), its texture goes left (or up)."""
    middle = views // 2
    rows = [
        [np.roll(texture, (-disparity * (v - middle), -disparity * (u - middle)), (0, 1)) for u in range(views)]
        for v in range(views)
    ]
    return np.array(rows)


def test_refocusing_makes_the_plane_of_its_disparity_sharp():
    texture = image(40, 48)
    views = shifted_views(texture, 1)
    sharp = refocused(views, 1.0)
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(sharp[inner], texture[inner], atol=1e-3)
    for disparity in (0.0, -1.0):
        assert np.abs(refocused(views, disparity)[inner] - texture[inner]).mean() > 20


def test_lightfield(tmp_path):
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
    root = converted("lightfield", [tmp_path / "hci"], tmp_path / "out")
    stack = RecordedDataModule(str(root)).dataset("train")[0]
    focal_px = 100.0 / 5.0 * 24
    np.testing.assert_allclose(stack.depth_m[0].numpy(), 1 / (1 / 3 + disparity / (focal_px * 0.05)), rtol=1e-5)
    assert stack.images.shape == (1, 7, 3, 24, 24) and stack.focus_distances_m[0, 3] == pytest.approx(3.0)
    assert bool((stack.focus_distances_m[0].diff() > 0).all()) and stack.aif is not None


def test_refocused_pictures_become_stacks_whose_optics_nobody_knows(tmp_path):
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
    common = {"renderer": DefocusRenderer(sigma_scale=0.5), "align": False, "working_px": 48}
    with pytest.raises(InputError, match=r"street_night.*data\.relative=true"):
        CapturedDataModule(str(root), **common).dataset("all")[1]
    module = CapturedDataModule(str(root), relative=True, **common)
    assert module.dataset("all")[1].images.shape == (1, 2, 3, 40, 48) and module.protocol()["relative"]
    (tmp_path / "lytro" / "flower" / "focus_distance.txt").write_text("0.2\n")
    with pytest.raises(InputError, match=r"focus_distance\.txt: 1 distances for 2"):
        converted("lightfield", [tmp_path / "lytro"], tmp_path / "again")


# ---------------------------------------------------------------- what is not the published layout


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_foreign_sources_are_refused_and_leave_nothing(name, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "readme.txt").write_text("nothing of the kind")
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing of the kind")
    for source in ("foreign", "foreign.zip"):
        with pytest.raises(InputError, match="foreign"):
            converted(name, [tmp_path / source], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.part").exists()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_says_what_people_need(name):
    source = SOURCES[name]
    for key in ("title", "citation", "licence", "home", "size", "uncertain"):
        assert getattr(source, key), key
    assert source.files and source.layout in ("rgbd", "stacks") and callable(source.convert)
