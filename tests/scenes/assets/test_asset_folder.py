"""Which files of a folder scenes are built from."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from sfdfd.scenes.assets.asset_folder import AssetFolder
from sfdfd.scenes.truebench_surfaces import ASSETS


def test_files_of_the_test_set_are_left_out_by_name(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    of_truebench = [next((ASSETS / kind).iterdir()).stem for kind in ("backdrop", "material", "picture")]
    for stem in (*of_truebench, "mine"):
        (tmp_path / "textures").mkdir(exist_ok=True)
        iio.imwrite(tmp_path / "textures" / f"{stem}.png", picture)
    mesh = next((ASSETS / "mesh").iterdir()).stem
    for stem in (mesh, "my_mesh"):
        (tmp_path / f"{stem}.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    folder = AssetFolder.read(tmp_path)
    assert [path.stem for path in folder.images] == ["mine"]
    assert [path.stem for path in folder.meshes] == ["my_mesh"]
    assert Path(folder.root) == tmp_path
