"""DDFF 12-Scene in HDF5, read back in metres."""

import zipfile

import numpy as np
import pytest
import torch

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.folders import MANIFEST
from sfdfd.datasets.sources.ddff12 import BASELINE_M, FOCAL_PX, depth_of_disparity_m
from sfdfd.errors import InputError
from tests.datasets.sources.helpers import RNG, converted, message_id


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
    stack = StacksDataModule(str(root)).dataset("val")[0]
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
    again = StacksDataModule(str(converted("ddff12", [tmp_path / "other.h5"], tmp_path / "again"))).dataset("val")[0]
    assert torch.equal(again.images, stack.images)
    # a slice averages nine views: a point one pixel of disparity off its focus is spread over nine pixels, a radius of 4.5
    camera = stack.camera[0]
    assert camera.blur_scale_px_m / (FOCAL_PX * BASELINE_M) == pytest.approx(4.5, rel=0.02)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("disp_val", lambda a: a[:1], "2 of stack_val, but 1 of disp_val"),
        ("disp_val", lambda a: a[:, 1:], "disp_val N x H x W"),
        ("stack_train", lambda a: a[..., :2], "stack_train N x S"),
        ("stack_train", lambda a: a[:, :1], "stack_train N x S"),
        ("stack_train", lambda a: a[:0], "stack_train N x S"),
        ("stack_train", lambda a: np.full_like(a, np.nan), "finite values from 0 to 255"),
        ("stack_train", lambda a: a / 255, "finite values from 0 to 255"),
        ("stack_train", lambda a: None, "stack_train and disp_train"),
        ("stack_train", lambda a: np.bytes_(b"text"), "stack_train and disp_train"),
    ],
    ids=message_id,
)
def test_malformed_ddff12_is_refused(ddff12, tmp_path, key, change, message):
    source, _ = ddff12
    h5py = pytest.importorskip("h5py")
    with h5py.File(source, "r+") as file:
        changed = change(file[key][:])
        del file[key]
        if changed is not None:
            file[key] = changed
    with pytest.raises(InputError, match=rf"my_ddff_trainVal\.h5.*{message}"):
        converted("ddff12", [source], tmp_path / "out")


def test_hdf5_is_found_in_folders_and_archives(ddff12, tmp_path):
    source, _ = ddff12
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(source, "folder/file.h5")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "set.zip").write_bytes((tmp_path / "set.zip").read_bytes())
    for index, given in enumerate((source, tmp_path / "set.zip", tmp_path / "given")):
        root = converted("ddff12", [given], tmp_path / f"out{index}")
        assert sorted(path.name for path in root.iterdir() if path.name != MANIFEST) == [
            "splits",
            *(f"{split}_{i:04d}" for split in ("train", "val") for i in range(2)),
        ]
    (tmp_path / "given" / "other.h5").write_bytes(source.read_bytes())
    with pytest.raises(InputError, match=r"found other\.h5, file\.h5; give it as source=FILE"):
        converted("ddff12", [tmp_path / "given"], tmp_path / "out")


def test_hdf5_damaged_in_the_middle_is_reported(ddff12, tmp_path):
    source, _ = ddff12
    h5py = pytest.importorskip("h5py")
    with h5py.File(source, "r+") as file:
        stored = file["stack_val"][:]
        del file["stack_val"]
        file.create_dataset("stack_val", data=stored, chunks=(1, *stored.shape[1:]), compression="gzip")
        where = file["stack_val"].id.get_chunk_info(1).byte_offset
    content = bytearray(source.read_bytes())
    content[where : where + 200] = bytes(200)
    source.write_bytes(content)
    with pytest.raises(InputError, match=r"my_ddff_trainVal\.h5: /stack_val\[1\] is not readable"):
        converted("ddff12", [source], tmp_path / "out")
    assert not (tmp_path / "out").exists()
