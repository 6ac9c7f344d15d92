"""ZEDD: stacks, depth maps and the submission format."""

import io
import zipfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.sources.zedd import write_submission
from sfdfd.errors import InputError
from tests.datasets.sources.helpers import RNG, converted, image, message_id, splits_of


@pytest.fixture
def zedd(tmp_path):
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
    return folder, depth


def test_zedd_and_its_submission(zedd, tmp_path):
    folder, depth = zedd
    root = converted("zedd", [folder], tmp_path / "out")
    module = StacksDataModule(str(root))
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
    with pytest.raises(InputError, match=r"depth map 50.*not H x W"):
        write_submission(tmp_path / "s.zip", [*bad[:49], np.ones((2, 12, 18))])
    assert not list(tmp_path.glob("*bad*")) and zipfile.is_zipfile(tmp_path / "s.zip")


def test_zedd_names_of_equal_folders_include_the_split(zedd, tmp_path):
    folder, _ = zedd
    for split in ("val", "test"):
        (folder / split / f"{split}_0001").rename(folder / split / "scene 1")
    root = converted("zedd", [folder], tmp_path / "out")
    assert splits_of(root) == {"train": ["test_scene_1"], "val": ["val_scene_1"], "test": ["test_scene_1"]}


LISTED = "run_1\t6D3E\t0.82\nrun_2\t4EA8\t1.2\nrun_5\t2371\t3.0\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.txt", LISTED + "run_2\t4EA8\t1.3\n", "one focus distance per run"),
        ("metadata.txt", LISTED + "run_3\t4EA8\t1.2\n", "one focus distance per run"),
        ("metadata.txt", LISTED.replace("1.2", "nan"), "positive number"),
        ("metadata.txt", LISTED.replace("1.2", "0"), "positive number"),
        ("metadata.txt", LISTED.replace("\t", " "), "between tabs"),
        ("metadata.txt", b"\xff\xfe", "not readable as text"),
        ("metadata.txt", "run_1\t6D3E\t0.82\n", r"run_2.*metadata\.txt"),
        ("val/metadata.txt", LISTED.replace("1.2", "1.3"), "other focus distances"),
        ("val/val_0001/gt/K.txt", "", "3 x 3 numbers, got 0"),
        ("val/val_0001/gt/K.txt", "x 0 0\n0 1 0\n0 0 1\n", "positive number"),
        ("val/val_0001/gt/K.txt", "-5 0 0\n0 1 0\n0 0 1\n", "positive number"),
        ("val/val_0001/gt/depth.npy", b"no array", "H x W metres"),
        ("val/val_0001/gt/depth.npy", np.zeros((60, 90, 2)), "H x W metres"),
        ("val/val_0001/gt/depth.npy", np.array([[{}]]), "H x W metres"),
        ("val/val_0001/gt/depth.npy", np.zeros((60, 60)), "but slices of 60 x 90"),
        ("val/val_0001/focus_stack/img_run_x_motor_1_aperture_F2.8.jpg", b"x", "expected img_run_K"),
        ("val/val_0001/focus_stack/img_run_2_motor_1_aperture_F2.80.jpg", b"x", "is run_2 at f/2.8, too"),
    ],
    ids=message_id,
)
def test_malformed_zedd_is_refused(zedd, tmp_path, name, content, message):
    folder, _ = zedd
    if isinstance(content, np.ndarray):
        np.save(folder / name, content, allow_pickle=True)
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"{Path(name).name}.*{message}|{message}"):
        converted("zedd", [folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()
