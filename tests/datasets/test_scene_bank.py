"""A bank of scenes: shards that a later call resumes, read while others are written."""

import numpy as np
import pytest

from sfdfd.datasets import scene_bank
from sfdfd.datasets.folders import unfinished_folder
from sfdfd.datasets.scene_bank import AssetsDataModule, SceneBank, SceneBankGenerator
from sfdfd.errors import InputError
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.scenes.assets.asset_folder import AssetFolder
from sfdfd.scenes.assets.asset_scenes import AssetScenes
from tests.commands import inside

KINDS = ("wall", "macro")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(scene_bank, "SHARD_SCENES", 2)


def generator(folder, train=3):
    return SceneBankGenerator(str(folder), 32, 48, {"train": train, "val": 1, "test": 0}, 5, KINDS)


def ignore(done, total):
    pass


def test_scenes_are_read_as_they_were_made(assets_folder, tmp_path):
    record = {}
    assert generator(assets_folder).write(tmp_path / "bank", record, ignore) == 4 and record["samples"] == 4
    bank = SceneBank(tmp_path / "bank")
    assert len(bank) == 3 and len(SceneBank(tmp_path / "bank", "all")) == 4
    made = AssetScenes(AssetFolder.read(assets_folder).split("train"), 5, 32, 48, KINDS)
    for index in range(3):
        expected, found = made[index], bank[index]
        assert np.array_equal(found.colours, expected.colours)
        assert np.array_equal(found.is_present, expected.is_present)
        low, high = expected.range_1_m
        np.testing.assert_allclose(found.inverse_depth, expected.inverse_depth, atol=2e-5 * (high - low))
    with pytest.raises(IndexError):
        bank[3]


def test_an_interrupted_bank_is_readable_and_resumed(assets_folder, tmp_path, monkeypatch):
    write = SceneBankGenerator._write_shard

    def stopped(self, shard, folder):
        if shard[1] == 2:
            raise KeyboardInterrupt
        write(self, shard, folder)

    with monkeypatch.context() as patch:
        patch.setattr(SceneBankGenerator, "_write_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            generator(assets_folder).write(tmp_path / "bank", {}, ignore)
    assert not (tmp_path / "bank").exists() and len(SceneBank(tmp_path / "bank")) == 2
    part = unfinished_folder(tmp_path / "bank")
    kept = {path.name: path.stat().st_mtime_ns for path in (part / "shards").iterdir()}
    with pytest.raises(InputError, match="train_length"):
        generator(assets_folder, train=9).write(tmp_path / "bank", {}, ignore)
    generator(assets_folder).write(tmp_path / "bank", {}, ignore)
    assert {name: (tmp_path / "bank/shards" / name).stat().st_mtime_ns for name in kept} == kept
    assert len(SceneBank(tmp_path / "bank")) == 3


def test_a_missing_bank_and_a_broken_shard_are_named(assets_folder, tmp_path):
    with pytest.raises(InputError, match="prepare data=assets"):
        SceneBank(tmp_path / "bank")
    generator(assets_folder).write(tmp_path / "bank", {}, ignore)
    next((tmp_path / "bank" / "shards").iterdir()).write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable shard"):
        SceneBank(tmp_path / "bank", "all")


def test_training_reads_the_visible_surfaces(assets_folder, tmp_path):
    generator(assets_folder).write(tmp_path / "bank", {}, ignore)
    optics = {"renderer": DefocusRenderer(sigma_scale=0.5), "camera": Camera(0.05, 8.0, 1.2e-5)}
    module = AssetsDataModule(str(tmp_path / "bank"), **optics, focus_distances_m=(1, 2), near_m=0.1, far_m=50.0)
    module.check()
    stack = module.dataset("train")[1]
    scene = SceneBank(tmp_path / "bank")[1]
    assert stack.images.shape == (1, 2, 3, 32, 48)
    np.testing.assert_allclose(1 / stack.depth_m[0].numpy(), scene.inverse_depth[0], rtol=1e-4)


def test_prepare_makes_a_bank_once_and_names_what_is_missing(assets_folder, tmp_path):
    size = ["data=assets", "data.height=32", "data.width=48", "data.train_length=1", "data.val_length=0",
            "data.test_length=0", "data.kinds=[wall]", "data.root=bank"]  # fmt: skip
    done = inside("prepare", *size, cwd=tmp_path, expect=2)
    assert "data.assets=DIR" in done.stderr
    for _ in range(2):
        inside("prepare", *size, f"data.assets={assets_folder}", cwd=tmp_path)
    assert len(SceneBank(tmp_path / "bank")) == 1
