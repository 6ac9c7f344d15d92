"""What experiments and data sets compose to: the values that published protocols fix, and nothing beside them."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sfdfd.runs.command import CONF_DIR

LONG = ["trainer.max_steps=14000", "trainer.val_check_interval=500"]
WEIGHTS = ["network=plane_sweep", "checkpoint=pretrained"]
SHORT = ["data.batch_size=2", "module.augmentation.crop=128", "trainer.max_steps=300", "trainer.val_check_interval=50"]
PAPER = [
    "network=daif_paper", "loss=paper", "optimizer=paper", "trainer.gradient_clip_val=null", "module.warmup_steps=0",
    "checkpoint=null",
]  # fmt: skip
EXPERIMENTS = {
    "procedural": ["data=procedural", "trainer.max_steps=1000", "trainer.val_check_interval=100"],
    "raytraced": ["data=raytraced", *WEIGHTS, *SHORT],
    "recorded": ["data=recorded", *WEIGHTS, *SHORT],
    "mobile_depth": ["data=mobile_depth", *WEIGHTS, "trainer.max_steps=2000", "trainer.val_check_interval=200"],
    "nyu_synth": ["data=nyu", "data.split=all", "data.constant_depth_m=null", *LONG],
    "nyu_dered": ["data=nyu", *LONG],
    "nyu_dered_shipped": ["data=nyu_dered_shipped", *LONG],
    "nyu_dfd": ["data=nyu_dfd", "optics=dfd", *LONG],
    "nyu_hybriddepth": ["data=nyu_hybriddepth", *LONG],
    "defocusnet_dered": ["data=defocusnet_dered", *LONG],
    "fod500": ["data=defocusnet", *LONG],
    "ddff12": ["data=ddff12", *LONG],
    "zedd": ["data=zedd", *LONG],
}
"""The command line that each experiment stands for."""
WITHOUT_PAPER = ("procedural", "raytraced", "recorded")

NYU = {
    "_target_": "sfdfd.datasets.synthetic.RGBDDataModule", "root": "data/nyu", "split": "test", "constant_depth_m": 2.5,
    "depth_unit_m": 0.001, "holes": [0], "resize": 1.0, "crop": [0, 0, 0, 0], "near_m": 0.5, "far_m": 10.0,
    "camera.focal_length_m": 0.05, "camera.f_number": 8.0, "camera.pixel_pitch_m": 1.2e-5,
    "focus_distances_m": [1.0, 1.5, 2.5, 4.0, 6.0], "slices_in_depth_range": None, "round_to_8_bits": True,
    "renderer.sigma_scale": 0.5, "renderer.weighting": "source", "renderer.psf": "gaussian", "renderer.method": "exact",
    "renderer.linear_light": False, "renderer.window_px": None, "renderer.smallest_radius_px": 0.0,
    "renderer.copied_radius_px": 0.0, "batch_size": 8, "sensor.read_std": 0.0,
}  # fmt: skip
STACKS = {
    "_target_": "sfdfd.datasets.datamodule.StacksDataModule", "batch_size": 4, "camera.f_number": None,
    "focus_distances_m": None, "near_m": None, "far_m": None, "optics": {},
}  # fmt: skip
PHOTOGRAPHS = {
    "optics.psf": "disc",
    "optics.linear_light": True,
    "optics.weighting": "occlusion",
    "optics.sigma_scale": 0.5,
}
RECORDED = {
    "_target_": "sfdfd.datasets.recorded.RecordedDataModule", "batch_size": 1, "align.mode": "auto", "align.exposure": True,
    "working_px": 512, "relative": False, "split": "all", "renderer.psf": "disc", "renderer.weighting": "occlusion",
    "renderer.linear_light": True, "renderer.method": "fast", **PHOTOGRAPHS,
}  # fmt: skip
DATA = {
    "nyu": NYU,
    "nyu_dered_shipped": {
        **NYU, "camera.focal_length_m": 0.0029, "camera.f_number": 0.5, "camera.pixel_pitch_m": 5.6e-6,
        "focus_distances_m": [1.0, 3.0, 5.0, 7.0, 9.0], "renderer.window_px": 7, "renderer.copied_radius_px": 1.0,
    },
    "nyu_dfd": {
        **NYU, "near_m": 0.1, "round_to_8_bits": False, "renderer.sigma_scale": 1.0, "renderer.weighting": "target",
        "renderer.window_px": 11, "renderer.smallest_radius_px": 2.0,
    },
    "nyu_hybriddepth": {
        **NYU, "camera.pixel_pitch_m": 2.4e-5, "slices_in_depth_range": 10, "crop": [32, 24, 32, 24], "near_m": 0.1,
    },
    "middlebury": {
        **NYU, "root": "data/middlebury", "depth_unit_m": 0.0001, "camera.pixel_pitch_m": 6e-6, "near_m": 1.0, "split":
        "all", "constant_depth_m": None,
    },
    "defocusnet_dered": {
        "_target_": "sfdfd.datasets.synthetic.RerenderedDataModule", "root": "data/defocusnet", "split": "test",
        "camera.focal_length_m": 0.0072, "camera.f_number": 1.2, "camera.pixel_pitch_m": 5.6e-6, "near_m": 0.1, "far_m": 3.0,
        "focus_distances_m": [0.3, 0.45, 0.75, 1.2, 1.8], "renderer.sigma_scale": 0.5, "renderer.weighting": "source",
    },
    "procedural": {
        **{key: value for key, value in NYU.items() if key.startswith(("camera", "focus", "near", "far", "renderer"))},
        "_target_": "sfdfd.datasets.synthetic.ProceduralDataModule", "root": None, "height": 128, "width": 160,
        "train_length": 256, "val_length": 16, "test_length": 32, "split": "test",
    },
    "assets": {
        **{key: value for key, value in NYU.items() if key.startswith(("camera", "focus", "near", "far", "renderer"))},
        "_target_": "sfdfd.datasets.scene_bank.AssetsDataModule", "root": "data/assets", "height": 240, "width": 320,
        "train_length": 3000, "val_length": 60, "test_length": 60, "split": "test",
    },
    "rgbd": {"camera.f_number": "???", "focus_distances_m": "???", "near_m": "???", "far_m": "???", "split": "all"},
    "defocusnet": {**STACKS, "root": "data/defocusnet", "split": "test"},
    "ddff12": {**STACKS, "root": "data/ddff12", "split": "val"},
    "zedd": {**STACKS, "root": "data/zedd", "split": "val"},
    "lightfield": {**STACKS, "root": "data/lightfield", "split": "val"},
    "stacks": {**STACKS, "root": "data/stacks", "split": "all"},
    "shards": {**STACKS, "_target_": "sfdfd.datasets.datamodule.ShardsDataModule", "root": "data/shards", "split": "all"},
    "recorded": {**RECORDED, "root": "data/recorded"},
    "mobile_depth": {**RECORDED, "root": "data/mobile_depth"},
    "raytraced": {
        **{key: value for key, value in STACKS.items() if key != "optics"}, **PHOTOGRAPHS, "root": "data/raytraced",
        "_target_": "sfdfd.datasets.raytraced.RaytracedDataModule", "height": 240, "width": 320, "train_length": 24,
        "val_length": 4, "test_length": 12, "split": "test",
    },
    "truebench": {
        **{key: value for key, value in STACKS.items() if key != "optics"}, **PHOTOGRAPHS, "root": "data/truebench",
        "_target_": "sfdfd.datasets.truebench.TruebenchDataModule", "edition": 2026, "beacon": None, "scenes": 10,
        "height": 240, "width": 320, "samples": None, "split": "all",
    },
}  # fmt: skip
"""The keys of data.* that a published protocol or a data set's form fixes."""

LOSS = {
    "reconstruction": (1.0, 1000.0), "aif_consistency": (0.1, 100.0), "aif_blur": (0.0, 10.0), "smoothness": (0.01, 10.0),
    "sharpness": (0.0, 0.0), "ssim_weight": (0.85, 0.85), "smoothness_factor": (1.0, 2.5),
    "blur_normalisation": ("variance", "released"), "smoothness_domain": ("inverse", "depth"), "border_px": (4, 0),
}  # fmt: skip
"""Ours, and as released."""


@pytest.fixture(autouse=True)
def default_data_root(monkeypatch):
    monkeypatch.delenv("SFDFD_DATA", raising=False)


def composed(command, *overrides):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose(command, overrides=["output_dir=unused", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def lookup(node, key):
    for part in key.split("."):
        node = node[part]
    return node


def different(node, expected):
    return {key: lookup(node, key) for key, value in expected.items() if lookup(node, key) != value}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_stands_for_its_command_line(name):
    assert composed("train", f"experiment={name}") == composed("train", *EXPERIMENTS[name])


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in WITHOUT_PAPER])
def test_a_paper_experiment_changes_only_the_recipe(name):
    assert composed("train", f"experiment={name}_paper") == composed("train", *EXPERIMENTS[name], *PAPER)


def test_no_experiment_and_no_data_set_is_missing_here():
    papers = {f"{name}_paper" for name in EXPERIMENTS if name not in WITHOUT_PAPER}
    assert {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")} == {*EXPERIMENTS} | papers
    assert {path.stem for path in (CONF_DIR / "data").glob("*.yaml")} == {*DATA}


@pytest.mark.parametrize("name", DATA)
def test_a_data_set_is_its_protocol_in_training_and_evaluation(name):
    for command in ("train", "evaluate"):
        options = ["optics.sigma_scale=0.5"] if command == "evaluate" else []
        assert different(composed(command, f"data={name}", *options)["data"], DATA[name]) == {}


@pytest.mark.parametrize(("loss", "column"), [("default", 0), ("paper", 1)])
def test_the_terms_of_the_losses(loss, column):
    assert (
        different(composed("train", f"loss={loss}")["loss"], {key: values[column] for key, values in LOSS.items()})
        == {}
    )


def test_the_networks_and_optimizers():
    networks = {"daif": (16, 4, "inverse_depth", "inverse"), "daif_paper": (16, 4, "paper", "metres")}
    for name, values in networks.items():
        node = composed("train", f"network={name}")["network"]
        assert tuple(node[key] for key in ("width", "depth", "head", "focus_encoding")) == values
    attention, sweep = (composed("train", f"network={name}")["network"] for name in ("focus_attention", "plane_sweep"))
    assert (attention["width"], attention["depth"], attention["power"]) == (24, 4, 1.0)
    assert (sweep["width"], sweep["depth"], sweep["planes"]) == (16, 5, 32)
    rates = {"adamw": (1e-3, 1e-4), "paper": (5e-4, 5e-4)}
    for name, (rate, decay) in rates.items():
        node = composed("train", f"optimizer={name}")["optimizer"]
        assert (node["_target_"], node["lr"], node["weight_decay"]) == ("torch.optim.AdamW", rate, decay)


@pytest.mark.parametrize(("command", "overrides", "expected"), [
    ("train", [], {
        "seed": 0, "checkpoint": None, "resume": None, "module.warmup_steps": 50, "module.final_lr_share": 0.01,
        "module.left_out": 0, "module.skip_nonfinite": 0, "module.augmentation.crop": 64, "module.augmentation.gain": 0.2,
        "trainer.max_steps": 1000, "trainer.precision": "32-true", "trainer.gradient_clip_val": 1.0,
        "callbacks.checkpoint.monitor": "val/reconstruction", "optics.method": "fast", "optics.sigma_scale": 0.5,
        "optics.weighting": "source", "optics.psf": "gaussian", "optics.linear_light": False, "optics.layers": 48,
        "optics.level_px": 0.7, "optics.window_px": None, "optics.camera.f_number": 8.0,
        "network._target_": "sfdfd.networks.focus_attention.FocusAttentionNet",
    }),
    ("train", ["network=plane_sweep", "loss=energy"], {
        "loss._target_": "sfdfd.training.energy_loss.EnergyLoss",
        "loss.energy": 100.0, "loss.aif": 1.0, "loss.aif_steps": 5, "loss.aif_lr": 0.01, "loss.border_px": 4,
    }),
    ("train", ["data=recorded"], {f"optics.renderer.{key.partition('.')[2]}": value for key, value in PHOTOGRAPHS.items()}),
    ("train", ["optics=dered"], {
        "optics.renderer.sigma_scale": 0.5, "optics.renderer.window_px": 7, "optics.renderer.copied_radius_px": 1.0,
        "optics.renderer.method": "exact", "data.renderer.window_px": None,
    }),
    ("train", ["optics=dfd"], {
        "optics.renderer.sigma_scale": 1.0, "optics.renderer.window_px": 11, "optics.renderer.smallest_radius_px": 2.0,
        "optics.renderer.weighting": "target", "data.renderer.weighting": "source",
    }),
    ("evaluate", [], {
        "checkpoint": None, "refine.seconds": 0, "holdout": None, "optics.renderer.layers": None,
        "optics.renderer.method": None, "optics.renderer.sigma_scale": None, "data.renderer.layers": 48,
    }),
    ("predict", [], {
        "checkpoint": "pretrained", "seconds": None, "refine.seconds": None, "refine.fit": [], "align.mode": "auto",
        "align.model": "radial",
        "align.exposure": True, "slices": "auto", "working_px": "auto", "burst_gap_s": 10, "optics.renderer.psf": None,
    }),
    ("diagnose", ["experiment_name=x", "experiment=recorded"], {"checkpoint": "pretrained", "stack": None}),
    ("distil", [], {
        "teacher.refine.steps": 45, "optics.renderer.psf": "disc", "optics.renderer.weighting": "occlusion", "steps": 12000,
        "weights": {"log_depth": 1.0, "inverse_depth_01": 1.0, "aif": 1.0, "aif_log": 0.0, "scores": 0.2, "std": 0.03},
    }),
])  # fmt: skip
def test_the_defaults_of_a_command(command, overrides, expected):
    assert different(composed(command, *overrides), expected) == {}
