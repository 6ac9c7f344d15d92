"""The house: imports point down, every option of every group composes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sfdfd.runs import CONF_DIR

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))


def test_imports_only_point_down():
    code = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def composed(overrides, command="train"):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose(command, overrides=["output_dir=unused", *overrides])


@pytest.mark.parametrize("group", ["network", "loss", "optimizer", "data", "optics/camera"])
def test_every_option_of_every_group_composes(group):
    for file in (CONF_DIR / group).glob("*.yaml"):
        if group == "optics/camera":
            where = "optics/camera" if file.stem == "from_data" else "optics/camera@data.camera"
            override = [f"{where}={file.stem}"]
        else:
            override = [f"{group}={file.stem}"]
        config = composed(override)
        OmegaConf.to_container(config.data, resolve=True)
        OmegaConf.to_container(config.optics, resolve=True)


def test_the_models_camera_follows_the_datas_and_can_be_given_apart():
    config = composed(["optics/camera@data.camera=pixel6pro", "optics.camera.f_number=3"])
    assert config.data.camera.focal_length_m == config.optics.camera.focal_length_m == 0.00681
    assert (config.data.camera.f_number, config.optics.camera.f_number) == (1.85, 3)


def test_synthesis_follows_the_models_sigma_scale_unless_given():
    assert composed(["optics.sigma_scale=0.7"]).data.renderer.sigma_scale == 0.7
    apart = composed(["optics.sigma_scale=0.7", "data.renderer.sigma_scale=1.0"])
    assert (apart.optics.renderer.sigma_scale, apart.data.renderer.sigma_scale) == (0.7, 1.0)
