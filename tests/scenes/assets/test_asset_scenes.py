"""Scenes from assets: deterministic by index, closed, of every kind; assets held back for validation."""

import json
import shutil

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.scenes.assets.asset_folder import AssetFolder
from sfdfd.scenes.assets.asset_scenes import KINDS, AssetScenes


@pytest.mark.parametrize("index", range(2 * len(KINDS)))
def test_every_kind_is_closed_and_hides_only_what_is_farther(assets_folder, index):
    scene = AssetScenes(AssetFolder.read(assets_folder), 3, 48, 64)[index]
    assert scene.kind == list(KINDS)[index % len(KINDS)]
    assert scene.colours.shape == (3, 48, 64, 3) and scene.inverse_depth.dtype == np.float32
    assert scene.is_present[0].all() and (scene.inverse_depth[scene.is_present] > 0).all()
    both = scene.is_present[1:] & scene.is_present[:-1]
    assert (scene.inverse_depth[1:][both] <= scene.inverse_depth[:-1][both]).all()
    assert len(np.unique(scene.colours[0])) > 8


def test_a_scene_depends_on_seed_and_index_alone(assets_folder):
    assets = AssetFolder.read(assets_folder)
    one, again, other = AssetScenes(assets, 1, 32, 48), AssetScenes(assets, 1, 32, 48), AssetScenes(assets, 2, 32, 48)
    _ = one[3]
    assert np.array_equal(one[7].colours, again[7].colours) and np.array_equal(
        one[7].inverse_depth, again[7].inverse_depth
    )
    assert not np.array_equal(one[7].inverse_depth, other[7].inverse_depth)


def test_scenes_need_no_meshes(assets_folder, tmp_path):
    shutil.copytree(assets_folder / "pictures", tmp_path / "pictures")
    assets = AssetFolder.read(tmp_path)
    assert not assets.meshes
    assert AssetScenes(assets, 0, 32, 48)[0].is_present[0].all()


def test_validation_scenes_have_assets_of_their_own(tmp_path):
    for index in range(60):
        (tmp_path / f"{index}.jpg").touch()
    assets = AssetFolder.read(tmp_path)
    parts = {split: set(assets.split(split).images) for split in ("train", "val", "test")}
    assert parts["train"].isdisjoint(parts["val"]) and parts["val"] == parts["test"]
    assert parts["train"] | parts["val"] == set(assets.images) and 3 < len(parts["val"]) < 20


def test_the_index_tells_materials_and_soft_images(assets_folder, tmp_path):
    shutil.copytree(assets_folder, tmp_path / "a")
    listed = [{"file": "image0.png", "kind": "mat"}, {"file": "image1.png", "kind": "photo", "own_blur": 0.5}]
    (tmp_path / "a" / "index.json").write_text(json.dumps({"textures": listed}))
    assets = AssetFolder.read(tmp_path / "a")
    assert [path.name for path in assets.materials] == ["image0.png"]
    assert len(assets.images) == 7 and all(path.name != "image1.png" for path in assets.images)
    (tmp_path / "a" / "index.json").write_text("[")
    with pytest.raises(InputError, match=r"index\.json: not a readable index"):
        AssetFolder.read(tmp_path / "a")


def test_missing_assets_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none: no such folder.*data\.assets"):
        AssetFolder.read(tmp_path / "none")
    with pytest.raises(InputError, match="no image"):
        AssetFolder.read(tmp_path)


def test_unknown_kinds_and_sizes_are_refused(assets_folder):
    assets = AssetFolder.read(assets_folder)
    with pytest.raises(InputError, match=r"data\.kinds"):
        AssetScenes(assets, kinds=["castle"])
    with pytest.raises(InputError, match=r"data\.height"):
        AssetScenes(assets, height=8)
