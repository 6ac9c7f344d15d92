"""Checkpoints are data: nothing in them is executed, and errors are one line."""

import importlib

import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.registry import PARTS
from sfdfd.training.checkpoints import (
    OLD_NAMES,
    PRETRAINED,
    load_checkpoint,
    load_model,
    load_run,
    model_camera,
    resume_position,
)
from sfdfd.training.resuming import newest_checkpoint
from tests.commands import SMALL, inside, one_line


def target(name, **arguments):
    return {"_target_": name, **arguments}


def spoiled(config, network=None, renderer=None, loss=None, **more):
    optics = {**config["optics"], **({} if renderer is None else {"renderer": renderer})}
    changes = {"network": network or config["network"], "loss": loss or config["loss"]}
    return {**config, **changes, "optics": optics, **more}


def interpolated(config):
    return {**config["network"], "head": "${oc.create:{_target_: os.system, command: touch owned}}"}


HOSTILE = {
    "a function through a module of ours": lambda c: spoiled(
        c, network=target("sfdfd.io.downloads.urllib.request.urlretrieve", url="file:///etc/passwd", filename="owned")
    ),
    "a loader that unpickles": lambda c: spoiled(
        c, renderer=target("sfdfd.photographs.read.np.load", file="owned.npy", allow_pickle=True)
    ),
    "a command": lambda c: spoiled(c, network=target("os.system", command="touch owned")),
    "a class of ours in the wrong place": lambda c: spoiled(c, network=target("sfdfd.measures.losses.SelfSupervisedLoss")),
    "a class that is no part": lambda c: spoiled(c, network=target("sfdfd.training.callbacks.StepProgress")),
    "an interpolation": lambda c: spoiled(c, network=interpolated(c)),
    "a nested target": lambda c: spoiled(
        c, network={**c["network"], "power": {"_target_": "os.system", "command": "touch owned"}}
    ),
    "hydra's own keys": lambda c: spoiled(c, network={**c["network"], "_args_": ["touch owned"], "_partial_": True}),
    "an argument that there is not": lambda c: spoiled(c, network={**c["network"], "command": "touch owned"}),
    "a size that no machine holds": lambda c: spoiled(c, network={**c["network"], "width": 1000, "depth": 8}),
    "a size that is endless": lambda c: spoiled(c, network={**c["network"], "depth": 10**9}),
    "a target that is no name": lambda c: spoiled(c, network=target(["os.system"])),
    "no mapping": lambda c: spoiled(c, network="sfdfd.networks.daif.DAIFNet"),
    "a camera that is a program": lambda c: {
        **c, "optics": {**c["optics"], "camera": {**c["optics"]["camera"], "f_number": "${oc.env:HOME}"}}
    },
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("command", ["evaluate", "export", "predict"])
def test_hostile_checkpoints_end_in_one_line_and_do_nothing(attack, command, trained, tmp_path):
    content = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    content["sfdfd_config"] = HOSTILE[attack](content["sfdfd_config"])
    torch.save(content, tmp_path / "hostile.ckpt")
    before = {path.name for path in tmp_path.iterdir()}
    stack = ["stack=example"] if command == "predict" else []
    line = one_line(inside(command, "checkpoint=hostile.ckpt", *stack, cwd=tmp_path, expect=2).stderr)
    assert "hostile.ckpt" in line or "camera" in line
    assert {path.name for path in tmp_path.iterdir()} - before <= {"outputs"} and not list(tmp_path.rglob("owned*"))


def test_foreign_files_are_refused(trained, tmp_path):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    torch.save({"state_dict": [1, 2], "sfdfd_config": {}}, tmp_path / "list.ckpt")
    torch.save({"state_dict": {"a": torch.ones(2).to_sparse()}, "sfdfd_config": {}}, tmp_path / "sparse.ckpt")
    torch.save({"state_dict": {}, "sfdfd_config": {}}, tmp_path / "empty.ckpt")
    (tmp_path / "half.ckpt").write_bytes((trained[0] / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    for name, message in {
        "text": "not a readable", "other": "not a checkpoint of sfdfd", "list": "no table of .dense. tensors",
        "sparse": "no table of .dense. tensors",
        "empty": "lacks network", "nowhere": "no such file", "half": "not a readable",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message):
            load_run(tmp_path / f"{name}.ckpt")


def test_weights_of_another_network_are_refused(trained, tmp_path):
    content = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    content["sfdfd_config"]["network"] = {**content["sfdfd_config"]["network"], "width": 16}
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="do not fit its network"):
        load_run(tmp_path / "other.ckpt")


def test_older_checkpoints_load(tmp_path):
    """Checkpoints name classes as they were called when they were written."""
    stored = load_checkpoint(PRETRAINED)
    stored["sfdfd_config"]["loss"]["_target_"] = "sfdfd.losses.SelfSupervisedLoss"
    stored["sfdfd_config"]["network"]["_target_"] = "sfdfd.networks.sweep.PlaneSweepNet"
    torch.save(stored, tmp_path / "old.ckpt")
    module, renderer = load_model(tmp_path / "old.ckpt", {"sigma_scale": 0.7})
    assert renderer.options["sigma_scale"] == 0.7 and module.camera is None and not module.training


def test_loaded_networks_keep_their_convolutions_in_channels_last_memory():
    """As they were trained: half the time on CPUs, and the same rounding."""
    weights = [value for value in load_run(PRETRAINED).network.parameters() if value.ndim == 4 and min(value.shape) > 1]
    assert weights and all(value.is_contiguous(memory_format=torch.channels_last) for value in weights)


@pytest.mark.parametrize("name", sorted(set(OLD_NAMES.values())))
def test_current_class_names_exist(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_model_camera_is_none_if_it_equals_the_datas():
    theirs = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5}
    config = {"optics": {"camera": dict(theirs)}, "data": {"camera": dict(theirs)}}
    assert model_camera(config) is None and model_camera({}) is None
    config["optics"]["camera"]["f_number"] = 4.0
    assert model_camera(config) == Camera(0.05, 4.0, 1.2e-5)
    config["data"]["resize"] = 0.5  # the pitch of the images as they come
    assert model_camera(config) == Camera(0.05, 4.0, 2.4e-5)
    config["data"] = {"camera": dict.fromkeys(theirs)}
    assert model_camera(config) == Camera(0.05, 4.0, 1.2e-5)
    config["optics"]["camera"]["pixel_pitch_m"] = None
    with pytest.raises(InputError, match=r"optics\.camera: expected all"):
        model_camera(config)


def test_checkpoints_that_cannot_be_continued_give_a_message(trained, tmp_path):
    last = trained[0] / "checkpoints" / "last.ckpt"
    module = load_run(last)
    assert resume_position(module, str(last)).step == 6
    again = ["experiment=procedural", *SMALL, "trainer.max_steps=6", f"resume='{last}'", "output_dir=again"]
    assert "made 6 steps already" in one_line(inside("train", *again, cwd=tmp_path, expect=2).stderr)
    inside("export", f"checkpoint='{last}'", "format=weights", "output_dir=x", cwd=tmp_path)
    with pytest.raises(InputError, match=r"weights alone.*checkpoint"):
        resume_position(module, str(tmp_path / "x" / "weights.ckpt"))
    with pytest.raises(InputError, match="of another network"):
        resume_position(load_run(PRETRAINED), str(last))


def without(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


@pytest.mark.parametrize("change", [
    without("global_step"), without("loops", "fit_loop"), without("loops", "fit_loop", "epoch_progress", "current", "ready"),
    lambda content: content.update(loops=[]), lambda content: content.update(loops=None),
    lambda content: content.update(global_step="many"), lambda content: content.update(global_step=-1),
    lambda content: content.update(global_step=float("inf")),
    lambda content: content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"].update(processed=0.5),
])  # fmt: skip
def test_a_checkpoint_with_broken_loops_gives_a_message_and_is_skipped(change, trained, tmp_path):
    content = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt: expected a run to continue"):
        resume_position(load_run(tmp_path / "last.ckpt"), tmp_path / "last.ckpt")
    newest, broken = newest_checkpoint(tmp_path)
    assert newest is None and "last.ckpt" in broken[0]


@pytest.mark.parametrize("change", [
    lambda content: next(one for one in content["callbacks"].values() if "dirpath" in one).update(best_model_path=0.5),
    lambda content: content.update(lr_schedulers=[[1]]),
    lambda content: content["optimizer_states"][0].update(param_groups=None),
])  # fmt: skip
def test_a_training_state_that_cannot_be_restored_gives_a_message(change, trained, tmp_path):
    content = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "last.ckpt")
    on = ["experiment=procedural", *SMALL, "trainer.max_steps=7", "resume=last.ckpt", "output_dir=on"]
    done = inside("train", *on, cwd=tmp_path, expect=2)
    assert "resume=last.ckpt: cannot be continued from" in done.stderr.splitlines()[-1]


def test_preferred_options_apply_if_the_renderer_has_them_and_they_are_not_overridden():
    options = [
        load_model("pretrained", overrides, preferred={"method": "exact", "unheard_of": 1})[1].options["method"]
        for overrides in ({}, {"method": "auto"})
    ]
    assert options == ["exact", "auto"]


def test_without_a_checkpoint_the_configured_renderer_is_built(monkeypatch):
    class Another(DefocusRenderer):
        def __init__(self, factor=2, sigma_scale=1.0):
            super().__init__(sigma_scale=sigma_scale)
            self.options = {"factor": factor, "sigma_scale": sigma_scale}

    monkeypatch.setitem(PARTS, "sfdfd.optics.another.Another", Another)
    node = {"_target_": "sfdfd.optics.another.Another", "factor": 3, "sigma_scale": None}
    _, renderer = load_model(None, node, preferred={"psf": "disc"})
    assert type(renderer) is Another and renderer.options == {"factor": 3, "sigma_scale": 0.5}
    assert load_model(None, {}, preferred={"psf": "disc"})[1].options["psf"] == "disc"
    with pytest.raises(InputError, match=r"optics\.renderer.*no renderer of sfdfd"):
        load_model(None, {"_target_": "os.system"})
