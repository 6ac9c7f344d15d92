"""NYUv2 as MATLAB 7.3 stores it."""

import imageio.v3 as iio
import numpy as np
import pytest

from sfdfd.datasets.sources.base import write_depth
from sfdfd.datasets.sources.nyu import nyu_split
from sfdfd.errors import InputError
from tests.datasets.sources.helpers import RNG, converted, message_id


def test_the_official_nyu_split_is_complete_and_disjoint():
    train, val, test = (nyu_split(split) for split in ("train", "val", "test"))
    assert len(test) == 654 and len(train) + len(val) == 795
    assert sorted([*train, *val, *test]) == [f"{i:04d}" for i in range(1449)]
    assert test[:5] == ["0000", "0001", "0008", "0013", "0014"] and test[-1] == "1448"


def nyu_file(path, **changed):
    h5py = pytest.importorskip("h5py")
    content = {
        "images": RNG.integers(0, 255, (2, 3, 8, 6), dtype=np.uint8),
        "depths": np.full((2, 8, 6), 2.0, np.float32),
        "rawDepths": np.full((2, 8, 6), 2.0, np.float32),
        **changed,
    }
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file[key] = values
    return path


def test_depth_beyond_16_bits_is_unknown(tmp_path):
    depths = np.full((2, 8, 6), 2.0, np.float32)
    depths[0, :, 0] = (65.535, 65.5354, 65.536, 70, np.inf, np.nan, -1, 0)
    depths[1, 0, 0] = 1e-5
    source = nyu_file(tmp_path / "labeled.mat", depths=depths[:, :1].repeat(8, 1), rawDepths=depths)
    write_depth(tmp_path / "depth.png", depths[0])
    assert iio.imread(tmp_path / "depth.png")[:, 0].tolist() == [65535, 65535, 0, 0, 0, 0, 0, 0]
    root = converted("nyu", [source], tmp_path / "out")
    assert iio.imread(root / "raw_depth" / "0000.png")[0].tolist() == [65535, 0, 0, 0]
    assert iio.imread(root / "raw_depth" / "0001.png")[0].tolist() == [1, 2000, 2000, 2000]
    write_depth(tmp_path / "fine.png", np.array([[6.5535, 6.5536, 6.6]]), 1e-4)
    assert iio.imread(tmp_path / "fine.png").tolist() == [[65535, 0, 0]]


@pytest.mark.parametrize(
    "changed",
    [
        {"images": np.zeros((0, 3, 8, 6), np.uint8), "depths": np.zeros((0, 8, 6))},
        {"images": np.zeros((2, 3, 8, 6), np.float32)},
        {"images": np.zeros((2, 3, 1, 6), np.uint8), "depths": np.zeros((2, 1, 6)), "rawDepths": np.zeros((2, 1, 6))},
        {"depths": np.zeros((1, 8, 6))},
        {"rawDepths": np.zeros((1, 8, 6))},
        {"images/group": np.zeros(3)},
    ],
    ids=message_id,
)
def test_malformed_nyu_is_refused(tmp_path, changed):
    if "images/group" in changed:
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "labeled.mat", "w") as file:
            file["images/group"] = changed["images/group"]
    else:
        nyu_file(tmp_path / "labeled.mat", **changed)
    with pytest.raises(InputError, match=r"labeled\.mat: expected images N x 3 x W x H uint8"):
        converted("nyu", [tmp_path / "labeled.mat"], tmp_path / "out")
