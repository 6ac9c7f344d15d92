"""The prepare command."""

import imageio.v3 as iio
import numpy as np
import pytest

from tests.commands import inside


def nyu_file(path, frames=3):
    """A small file exactly as MATLAB 7.3 stores NYUv2."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (frames, 3, 64, 48), dtype=np.uint8)
    depths = rng.uniform(0.7, 9.9, (frames, 64, 48)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["images"], file["depths"] = images, depths
    return images, depths


def test_prepare_converts_nyu_and_training_reads_it(tmp_path):
    images, depths = nyu_file(tmp_path / "labeled.mat")
    for _ in range(2):  # the second time finds it done
        inside("prepare", "data=nyu", "data.root=a/nyu", "source=labeled.mat", cwd=tmp_path)
    rgb, depth = iio.imread(tmp_path / "a/nyu/rgb/0001.png"), iio.imread(tmp_path / "a/nyu/depth/0001.png")
    assert rgb.shape == (24, 32, 3) and depth.dtype == np.uint16
    np.testing.assert_allclose(rgb[3, 5], images[1][:, 10:12, 6:8].mean((1, 2)), atol=0.51)
    assert abs(depth[3, 5] / 1000 - depths[1][10, 6]) < 6e-4
    inside("evaluate", "data=nyu", "data.root=a/nyu", "output_dir=e", cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["nyu"]


def test_prepare_reports_errors_and_leaves_nothing(tmp_path):
    (tmp_path / "broken.mat").write_bytes(b"no HDF5")
    for arguments, message in ((["source=broken.mat"], "not an HDF5 file"), (["source=none.mat"], "no such file"),
                               (["data=procedural"], "nothing to prepare")):  # fmt: skip
        done = inside("prepare", "data.root=nyu", *arguments, cwd=tmp_path, expect=2)
        assert message in done.stderr
    assert not (tmp_path / "nyu").exists()
