"""DefocusNet, written as its authors write it and read back in metres."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.errors import InputError
from tests.datasets.sources.helpers import RNG, converted, image, splits_of


def defocusnet_scene(folder, number, slices=range(5)):
    openexr = pytest.importorskip("OpenEXR")
    folder.mkdir(parents=True, exist_ok=True)
    for index in slices:
        Image.fromarray(image()).save(folder / f"{number:06d}_{index:02d}All.tif")
    depth = RNG.uniform(0.1, 2.5, (24, 32)).astype(np.float16)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, dict.fromkeys("RGB", depth)) as file:
        file.write(str(folder / f"{number:06d}Dpt.exr"))
    return depth


@pytest.fixture
def defocusnet(tmp_path):
    folder = tmp_path / "fs_6"
    depth = {number: defocusnet_scene(folder, number) for number in (0, 1, 399, 400)}
    Image.fromarray(image()).save(folder / "000400Aif.tif")
    return folder, depth


def test_defocusnet(defocusnet, tmp_path):
    folder, depth = defocusnet
    root = converted("defocusnet", [folder], tmp_path / "out")
    module = StacksDataModule(str(root), split="test")
    stack = module.dataset("test")[0]
    assert stack.focus_distances_m[0].tolist() == pytest.approx([0.1, 0.15, 0.3, 0.7, 1.5])
    np.testing.assert_allclose(stack.depth_m[0].numpy(), depth[400].astype(np.float32))
    assert stack.aif is not None and stack.camera[0].f_number == 1.0
    assert [len(module.dataset(split)) for split in ("train", "val", "test")] == [2, 1, 1]
    low = StacksDataModule(str(root), far_mask_m=0.5).dataset("test")[0]
    assert torch.equal(low.valid, stack.valid & (stack.depth_m <= 0.5)) and not torch.equal(low.valid, stack.valid)


def test_defocusnet_splits_from_folder_names(tmp_path):
    for split in ("train", "test"):
        for number in (1, 500):
            defocusnet_scene(tmp_path / "fs_6" / split, number)
    root = converted("defocusnet", [tmp_path / "fs_6"], tmp_path / "out")
    assert splits_of(root) == {
        "train": ["train_000001"],
        "val": ["train_000500"],
        "test": ["test_000001", "test_000500"],
    }
    first = np.asarray(Image.open(tmp_path / "fs_6" / "test" / "000001_00All.tif"))
    np.testing.assert_array_equal(iio.imread(root / "test_000001" / "slice_00.png"), first)


def test_defocusnet_names_of_equal_numbers_include_folders(tmp_path):
    for folder in ("a", "b"):
        defocusnet_scene(tmp_path / "fs_6" / folder, 401)
    root = converted("defocusnet", [tmp_path / "fs_6"], tmp_path / "out")
    assert splits_of(root) == {"train": [], "val": [], "test": ["a_000401", "b_000401"]}


def test_defocusnet_skips_other_files_and_refuses_slices_without_focus(tmp_path):
    folder = tmp_path / "fs_6"
    defocusnet_scene(folder, 1)
    (folder / "000001_0aAll.tif").write_text("no slice")
    root = converted("defocusnet", [folder], tmp_path / "out")
    assert len(yaml.safe_load((root / "000001" / "stack.yaml").read_text())["files"]) == 5
    for name, message in (("000001_06All.tif", "from 00 to 05"), ("000001_4All.tif", "is slice 4, too")):
        Image.fromarray(image()).save(folder / name)
        with pytest.raises(InputError, match=f"{name}.*{message}"):
            converted("defocusnet", [folder], tmp_path / "again")
        (folder / name).unlink()
    Image.fromarray(image(24, 48)).save(folder / "000001_04All.tif")
    with pytest.raises(InputError, match="000001: slices and AIF of one size"):
        converted("defocusnet", [folder], tmp_path / "again")
